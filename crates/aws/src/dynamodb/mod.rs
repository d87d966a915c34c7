//! The catalog of one policy in a DynamoDB table, or in one of a service that speaks its protocol.
//!
//! Place: under every flow on AWS. Get, Query and conditional writes only, never a Scan (I9): work is what is asked for, or
//! due, not what is stored. Rows and tombstones are read with strong consistency (V1); the index is not, and is a hint.
//! Every write is one item's, conditional where the protocol says so (V3, V4), and durable when it is answered (I8): a crash
//! between two calls leaves whole items, and the flows read again. Whole calls that fail are repeated by the SDK; what the
//! service leaves out of a batch is asked for again here, within limits (I10).
//!
//! How it lies in the table stands in `layout.rs`, one item in `item.rs`.

mod capacity;
mod changes;
mod expression;
mod index;
mod inserts;
mod item;
mod layout;
mod read;
mod record_edit;
mod records;
mod rows;
mod schema;
mod state;
mod statements;
mod table_switch;
mod tombstones;
mod totals;

pub use capacity::CapacityUsed;
pub use records::DynamoDbTable;
pub(crate) use schema::key_names;
pub use schema::{check_table, create_table, key_of_table};

use crate::error_map::Call;
use crate::gather::Gather;
use crate::limits::{
    BATCH_STATEMENTS_MAX, LEFT_OVER_WAIT_MAX, LEFT_OVER_WAIT_MIN, SHARED_CALLS_IN_FLIGHT, STATE_READS_IN_FLIGHT,
};
use async_trait::async_trait;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use capacity::Capacity;
use engine::error::{ErrorKind, PortError, PortResult};
use engine::ports::catalog::{
    Catalog, CatalogRead, Changed, IndexEntry, IndexQuery, PolicyState, RowChange, RowId, StateChange, Totals,
};
use engine::ports::clock::{Clock, Nonces};
use engine::ports::objects::Page;
use engine::wrap::lazy::Lazy;
use inserts::{Inserted, NewRow};
use layout::Layout;
use lifecycle::ids::{CopyKey, ObjectKey, Rev};
use lifecycle::row::{CopyRow, Partition, Tombstone};
use lifecycle::time::{SpanMs, UnixMs};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Which table, and how the policy lies in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// The table's name.
    pub name: String,
    /// Where several policies share the table, each one's prefix: 1 to 64 letters, digits, `-`, `_`, `.`. Either all of
    /// them have one, or the table is one policy's. It can never change.
    pub prefix: Option<String>,
    /// Over how many index keys entries are spread: one takes a thousand writes a second. May grow at any time.
    pub index_shards: u32,
    /// The greatest number of active copies that the policy's rule keeps of one key: totals are estimated with it.
    pub copies_per_key: u64,
}

impl Table {
    /// One policy's table.
    pub fn named(name: impl Into<String>) -> Table {
        Table { name: name.into(), prefix: None, index_shards: 1, copies_per_key: 1 }
    }
}

/// The catalog of one policy.
pub struct DynamoDbCatalog {
    client: Client,
    table: String,
    layout: Layout,
    copies_per_key: u64,
    /// Known once the table has been checked.
    checked: Lazy<Checked>,
    /// Whether the service takes batches of statements; some that speak the protocol do not.
    takes_statements: AtomicBool,
    /// What comes one by one from many keys at the same time.
    inserts: Gather<(ObjectKey, CopyKey), NewRow, PortResult<Inserted>>,
    changes: Gather<RowId, RowChange, PortResult<Changed>>,
    states: Gather<(), (), PortResult<PolicyState>>,
    clock: Arc<dyn Clock>,
    nonces: Arc<dyn Nonces>,
    capacity: Capacity,
}

/// What is known of a table that is a catalog's.
#[derive(Clone, Debug)]
struct Checked {
    /// The table's name in the world, where the service gives one.
    arn: Option<String>,
    /// The most shards that this policy's entries were ever spread over: all of them are read.
    shards_ever: u32,
}

impl DynamoDbCatalog {
    /// A catalog by its table's name: nothing is asked before it is needed, so that an outage keeps nobody from what else
    /// they have. Errors: `table` says what cannot be.
    pub fn new(
        client: Client,
        table: &Table,
        clock: Arc<dyn Clock>,
        nonces: Arc<dyn Nonces>,
    ) -> PortResult<DynamoDbCatalog> {
        let layout = Layout::new(table.prefix.as_deref(), table.index_shards).map_err(|error| {
            PortError::new("open catalog table", &table.name, ErrorKind::Invalid(error.to_string()))
        })?;
        Ok(DynamoDbCatalog {
            client,
            table: table.name.clone(),
            layout,
            copies_per_key: table.copies_per_key.max(1),
            checked: Lazy::new(),
            takes_statements: AtomicBool::new(true),
            inserts: Gather::new(SHARED_CALLS_IN_FLIGHT, BATCH_STATEMENTS_MAX),
            changes: Gather::new(SHARED_CALLS_IN_FLIGHT, BATCH_STATEMENTS_MAX),
            states: Gather::new(STATE_READS_IN_FLIGHT, usize::MAX),
            clock,
            nonces,
            capacity: Capacity::default(),
        })
    }

    /// A catalog whose table has been checked ([`check_table`]).
    pub async fn open(
        client: Client,
        table: &Table,
        clock: Arc<dyn Clock>,
        nonces: Arc<dyn Nonces>,
    ) -> PortResult<DynamoDbCatalog> {
        let catalog = DynamoDbCatalog::new(client, table, clock, nonces)?;
        catalog.check().await?;
        Ok(catalog)
    }

    /// Checks the table ([`check_table`]), and notes there over how many shards this policy is spread. Once: every other
    /// call does so before its own work.
    pub async fn check(&self) -> PortResult<()> {
        self.checked().await.map(drop)
    }

    /// The catalog's name in the world: the same for everyone who works on it.
    pub async fn identity(&self) -> PortResult<String> {
        let table = self.checked().await?.arn.unwrap_or_else(|| self.table.clone());
        Ok(format!("{table}/{}", self.layout.policy()))
    }

    async fn checked(&self) -> PortResult<Checked> {
        let check = async || {
            let arn = check_table(&self.client, &self.table).await?;
            Ok(Checked { arn, shards_ever: self.note_shards().await? })
        };
        self.checked.get(check).await
    }

    /// What the service charged this catalog since it was opened.
    pub fn capacity_used(&self) -> CapacityUsed {
        self.capacity.used()
    }

    /// A rev that no row ever had.
    fn rev(&self) -> Rev {
        Rev(self.nonces.nonce())
    }

    /// What is being done to one thing in the table, for errors.
    fn call(&self, attempted: &'static str, action: &'static str, which: impl std::fmt::Display) -> Call {
        Call::new(attempted, action, format!("{which} in table {}", self.table))
    }

    /// Waits before what a batch left out is asked for again: longer each time, and never all at the same moment.
    async fn wait(&self, round: usize) {
        let doubled = LEFT_OVER_WAIT_MIN.0.saturating_mul(1 << round.min(16));
        let longest = doubled.min(LEFT_OVER_WAIT_MAX.0);
        self.clock.sleep(SpanMs(longest / 2 + self.nonces.jitter(longest / 2 + 1))).await;
    }
}

/// Whether a conditional write's condition did not hold.
fn is_refused<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> bool {
    matches!(error, SdkError::ServiceError(told) if told.err().code() == Some("ConditionalCheckFailedException"))
}

/// Whether the service does not know this call: it is none of AWS's.
fn is_unknown<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> bool {
    let SdkError::ServiceError(told) = error else { return false };
    matches!(told.err().code(), Some("UnknownOperationException" | "UnsupportedOperationException" | "NotImplemented"))
}

#[async_trait]
impl CatalogRead for DynamoDbCatalog {
    async fn partition(&self, key: &ObjectKey) -> PortResult<Partition> {
        self.check().await?;
        self.read_partition(key).await
    }

    async fn rows(&self, ids: &[RowId]) -> PortResult<Vec<Option<CopyRow>>> {
        self.check().await?;
        self.read_rows(ids).await
    }

    async fn index(&self, query: &IndexQuery) -> PortResult<Page<IndexEntry, IndexEntry>> {
        self.check().await?;
        self.index_page(query).await
    }

    async fn totals(&self) -> PortResult<Totals> {
        self.check().await?;
        self.estimate_totals().await
    }

    async fn state(&self) -> PortResult<PolicyState> {
        self.check().await?;
        // A read that begins after the question answers all who ask meanwhile.
        let read = self.states.share(None, (), |asked| async move { vec![self.read_state().await; asked.len()] }).await;
        read.unwrap_or_else(|| {
            Err(self.call("read policy state", "dynamodb:GetItem", "state").failed(ErrorKind::Unavailable))
        })
    }
}

#[async_trait]
impl Catalog for DynamoDbCatalog {
    async fn upsert(&self, original: &ObjectKey, row: &CopyRow) -> PortResult<()> {
        self.check().await?;
        self.upsert_row(original, row).await
    }

    async fn record_mirrored(&self, original: &ObjectKey, row: &CopyRow) -> PortResult<()> {
        self.check().await?;
        self.replace_row(original, row).await
    }

    async fn change(&self, changes: &[RowChange]) -> Vec<PortResult<Changed>> {
        match self.check().await {
            Ok(()) => self.change_rows(changes).await,
            Err(error) => changes.iter().map(|_| Err(error.clone())).collect(),
        }
    }

    async fn bury(&self, key: &ObjectKey, tombstone: &Tombstone) -> PortResult<bool> {
        self.check().await?;
        self.put_tombstone(key, tombstone).await
    }

    async fn forget_tombstones(&self, noted_before: UnixMs, limit: usize) -> PortResult<u64> {
        self.check().await?;
        self.delete_tombstones(noted_before, limit).await
    }

    async fn set_state(&self, change: StateChange) -> PortResult<()> {
        self.check().await?;
        self.change_state(change).await
    }

    async fn lease(&self, name: &str, holder: &str, now: UnixMs, until: UnixMs) -> PortResult<bool> {
        self.check().await?;
        self.take_lease(name, holder, now, until).await
    }

    async fn unlease(&self, name: &str, holder: &str) -> PortResult<()> {
        self.check().await?;
        self.give_lease_back(name, holder).await
    }
}
