//! One instance in this process: store, catalog, journal, driver and, where asked for, the S3 endpoint; wired as `serve`
//! wires them, and watched.

use anyhow::{Context, Result};
use async_trait::async_trait;
use engine::driver::{Driver, Policies};
use engine::error::PortResult;
use engine::policy::{Mode, Policy};
use engine::ports::catalog::{
    Catalog, CatalogRead, Changed, IndexEntry, IndexQuery, PolicyState, RowChange, RowId, StateChange, Totals,
};
use engine::ports::clock::{Clock, Nonces};
use engine::ports::events::EventQueue;
use engine::ports::metrics::Counters;
use engine::ports::objects::{Onto, Page};
use engine::steps::purge::Purger;
use engine::steps::verify::body_of;
use lifecycle::guards::Guards;
use lifecycle::ids::{ObjectKey, PolicyName};
use lifecycle::keep::Keep;
use lifecycle::order::Basis;
use lifecycle::policy::Rules;
use lifecycle::row::{CopyRow, Partition, Tombstone};
use lifecycle::time::{SpanMs, UnixMs};
use local::clock::{SystemClock, SystemNonces};
use local::credentials::{Credentials, Keyring};
use local::endpoint::{Endpoint, NoHooks, serve_endpoint};
use local::journal::FileJournal;
use local::sqlite::catalog::SqliteCatalog;
use local::store::{BucketName, BucketSpec, PutRequest, Role, Store};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The bucket that is written.
pub(crate) const SOURCE: &str = "source";
/// The bucket with the copies.
pub(crate) const COPIES: &str = "copies";

/// A copy whose row has become durable, and when.
pub(crate) type CopyDone = (ObjectKey, Instant);

/// The instance.
pub(crate) struct Rig {
    pub(crate) store: Arc<Store>,
    pub(crate) catalog: Arc<SqliteCatalog>,
    pub(crate) policies: Policies,
    pub(crate) copies_done: mpsc::UnboundedReceiver<CopyDone>,
    pub(crate) credentials: Credentials,
    clock: Arc<dyn Clock>,
    nonces: Arc<dyn Nonces>,
    cancel: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Rig {
    /// Opens a data folder with a source under a `keep = 3` policy. Nothing runs yet.
    pub(crate) async fn open(folder: &Path) -> Result<Rig> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let nonces: Arc<dyn Nonces> = Arc::new(SystemNonces::new()?);
        std::fs::create_dir_all(folder)?; // as the binary does before it opens the store
        let store = Store::open(folder, Arc::clone(&clock), Arc::clone(&nonces)).await?;
        for (name, role) in [(SOURCE, Role::Source), (COPIES, Role::Destination)] {
            store.create_bucket(BucketSpec { name: BucketName::new(name)?, role, root: None }).await?;
        }
        let catalog = Arc::new(SqliteCatalog::open(&folder.join("catalog.sqlite"))?);
        let (done, copies_done) = mpsc::unbounded_channel();
        let watched = Arc::new(Watched { inner: Arc::clone(&catalog), done });
        let (source, copies) = (BucketName::new(SOURCE)?, BucketName::new(COPIES)?);
        let policies = Policies::default();
        policies.put(Policy {
            name: PolicyName::from("bench"),
            mode: Mode::Copies,
            rules: rules(),
            source_bucket: SOURCE.to_owned(),
            source_prefix: String::new(),
            source: store.reader(&source)?,
            destination: store.reader(&copies)?,
            copier: store.copier(&source, &copies)?,
            recopier: store.copier(&copies, &copies)?,
            purger: Purger::new(store.purger(&copies)?),
            catalog: watched,
            keys: Some(catalog.clone()),
            scratch: folder.to_owned(),
            journal: Arc::new(FileJournal::open(&folder.join("journal"))?),
            clock: Arc::clone(&clock),
            nonces: Arc::clone(&nonces),
            metrics: Arc::new(Counters::default()),
        });
        let (credentials, _) = Credentials::load_or_create(folder)?;
        let cancel = CancellationToken::new();
        Ok(Rig { store, catalog, policies, copies_done, credentials, clock, nonces, cancel, tasks: Vec::new() })
    }

    /// The policy.
    pub(crate) fn policy(&self) -> Arc<Policy> {
        self.policies.all().remove(0)
    }

    /// Lets the driver run.
    pub(crate) fn start_driver(&mut self) {
        let driver = Driver {
            queue: self.store.spool().clone(),
            policies: self.policies.clone(),
            clock: Arc::clone(&self.clock),
            nonces: Arc::clone(&self.nonces),
            metrics: Arc::new(Counters::default()),
        };
        let cancel = self.cancel.clone();
        self.tasks.push(tokio::spawn(async move {
            driver.run(&cancel).await.expect("the queue answers");
        }));
    }

    /// Opens the endpoint on a free port of loopback.
    pub(crate) async fn start_endpoint(&mut self) -> Result<SocketAddr> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("bind a port of loopback")?;
        let address = listener.local_addr()?;
        let endpoint = Endpoint {
            store: Arc::clone(&self.store),
            keyring: Keyring::new(self.credentials.clone()),
            hooks: Arc::new(NoHooks),
            clock: Arc::clone(&self.clock),
            nonces: Arc::clone(&self.nonces),
        };
        self.tasks.push(tokio::spawn(serve_endpoint(listener, endpoint, self.cancel.clone())));
        Ok(address)
    }

    /// Puts an object without going through HTTP.
    pub(crate) async fn put(&self, key: String, body: Vec<u8>) -> Result<()> {
        let request = PutRequest {
            key: ObjectKey::new(key)?,
            attributes: engine::ports::objects::Attributes::default(),
            onto: Onto::Anything,
            check: None,
        };
        self.store.bucket(SOURCE)?.put(request, body_of(body)).await?;
        Ok(())
    }

    /// Waits until the spool is empty.
    pub(crate) async fn drained(&self) -> Result<()> {
        while self.store.spool().backlog().await?.waiting > 0 {
            self.clock.sleep(SpanMs(2)).await;
        }
        Ok(())
    }

    /// Now, by its clock.
    pub(crate) fn now(&self) -> UnixMs {
        self.clock.now()
    }

    /// Stops what runs, and closes the files.
    pub(crate) async fn stop(self) -> Result<()> {
        self.cancel.cancel();
        for task in self.tasks {
            task.await?;
        }
        self.store.close().await;
        self.catalog.close().await;
        Ok(())
    }
}

/// Keep 3, ten seconds of grace, no breaker: what is measured is the work, not the waiting.
pub(crate) fn rules() -> Rules {
    Rules {
        basis: Basis::Sequencer,
        keep: Keep::last(3),
        protect_for: SpanMs::ZERO,
        grace: SpanMs::seconds(10),
        breaker: None,
        guards: Guards::default(),
    }
}

/// The catalog, telling when the row of a copy has become durable.
struct Watched {
    inner: Arc<SqliteCatalog>,
    done: mpsc::UnboundedSender<CopyDone>,
}

#[async_trait]
impl CatalogRead for Watched {
    async fn partition(&self, key: &ObjectKey) -> PortResult<Partition> {
        self.inner.partition(key).await
    }

    async fn rows(&self, ids: &[RowId]) -> PortResult<Vec<Option<CopyRow>>> {
        self.inner.rows(ids).await
    }

    async fn index(&self, query: &IndexQuery) -> PortResult<Page<IndexEntry, IndexEntry>> {
        self.inner.index(query).await
    }

    async fn totals(&self) -> PortResult<Totals> {
        self.inner.totals().await
    }

    async fn state(&self) -> PortResult<PolicyState> {
        self.inner.state().await
    }
}

#[async_trait]
impl Catalog for Watched {
    async fn upsert(&self, original: &ObjectKey, row: &CopyRow) -> PortResult<()> {
        self.inner.upsert(original, row).await?;
        #[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
        let now = Instant::now();
        // Nobody listens in benchmarks that do not ask for latencies.
        drop(self.done.send((original.clone(), now)));
        Ok(())
    }

    async fn record_mirrored(&self, original: &ObjectKey, row: &CopyRow) -> PortResult<()> {
        self.inner.record_mirrored(original, row).await
    }

    async fn change(&self, changes: &[RowChange]) -> Vec<PortResult<Changed>> {
        self.inner.change(changes).await
    }

    async fn bury(&self, key: &ObjectKey, tombstone: &Tombstone) -> PortResult<bool> {
        self.inner.bury(key, tombstone).await
    }

    async fn forget_tombstones(&self, noted_before: UnixMs, limit: usize) -> PortResult<u64> {
        self.inner.forget_tombstones(noted_before, limit).await
    }

    async fn set_state(&self, change: StateChange) -> PortResult<()> {
        self.inner.set_state(change).await
    }

    async fn lease(&self, name: &str, holder: &str, now: UnixMs, until: UnixMs) -> PortResult<bool> {
        self.inner.lease(name, holder, now, until).await
    }

    async fn unlease(&self, name: &str, holder: &str) -> PortResult<()> {
        self.inner.unlease(name, holder).await
    }
}
