//! The catalog of one policy in one SQLite file: rows, tombstones, the index of what is due, the policy's own state.
//!
//! Place: under every flow on one machine. Writes go through the file's one writer and are durable when they are answered
//! (I8); reads see every write that was answered before they began (V1). Each call costs what it returns, not what is
//! stored (I9). A crash leaves the last group whole or not at all, totals included. Laws: V3, V4, V5.

mod changes;
mod index;
mod rows;
mod schema;
mod snapshot;
mod state;
#[cfg(test)]
mod tests;

pub use schema::CATALOG;
pub use snapshot::Snapshot;

use super::error_map::Fault;
use super::open::Database;
use crate::io_error::io_failed;
use crate::limits::CHANGES_AT_ONCE;
use async_trait::async_trait;
use engine::error::{ErrorKind, PortError, PortResult};
use engine::limits::CLEAN_PAGE;
use engine::ports::catalog::{
    Catalog, CatalogKeys, CatalogRead, Changed, IndexEntry, IndexQuery, PolicyState, RowChange, RowId, StateChange,
    Totals,
};
use engine::ports::objects::Page;
use lifecycle::ids::{ObjectKey, Rev};
use lifecycle::row::{CopyRow, Partition, Tombstone};
use lifecycle::time::UnixMs;
use rusqlite::Connection;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The catalog of one policy.
pub struct SqliteCatalog {
    database: Database,
    shared: Arc<Shared>,
}

/// What jobs on the writer's thread use.
struct Shared {
    revs: Revs,
    /// Changes of rows, tombstones and breaker since the file was opened.
    changes: AtomicU64,
    /// The value of `changes` that the last snapshot contains; nothing was snapshotted yet while it is `u64::MAX`.
    in_snapshot: AtomicU64,
}

/// Gives revs that no row of this catalog ever had, restarts and restored snapshots included: a random start for each
/// opening, then a count.
struct Revs {
    start: u64,
    next: AtomicU64,
}

impl Revs {
    fn rev(&self) -> Rev {
        Rev(format!("{:016x}.{}", self.start, self.next.fetch_add(1, Ordering::Relaxed)))
    }
}

impl SqliteCatalog {
    /// Opens the file, or makes it: see [`Database::open`] for what is refused. Blocks.
    pub fn open(path: &Path) -> PortResult<SqliteCatalog> {
        let database = Database::open(path, &CATALOG)?;
        let random = getrandom::u64().map_err(std::io::Error::from);
        let start = random.map_err(|error| io_failed("open catalog", &path.display().to_string(), error))?;
        let shared = Shared {
            revs: Revs { start, next: AtomicU64::new(0) },
            changes: AtomicU64::new(0),
            in_snapshot: AtomicU64::new(u64::MAX),
        };
        Ok(SqliteCatalog { database, shared: Arc::new(shared) })
    }

    /// Answers what was asked before, then closes the file cleanly.
    pub async fn close(&self) {
        self.database.close().await;
    }

    /// Forgets every lease. Only for a process that has just taken the data folder's lock: whoever held one is dead.
    pub async fn forget_leases(&self) -> PortResult<()> {
        self.database.write("forget leases", "", state::forget_leases).await
    }

    /// Writes the catalog as it is now to `path`, replacing what is there at once, while work goes on; not when nothing
    /// has changed since the last snapshot.
    pub async fn snapshot_to(&self, path: &Path) -> PortResult<Snapshot> {
        let shared = Arc::clone(&self.shared);
        // Answered when all changes counted by then are committed: the file's content is at least as new as the count.
        let count = move |_: &Connection| Ok(shared.changes.load(Ordering::Relaxed));
        let changes = self.database.write("snapshot catalog", path.display().to_string(), count).await?;
        if self.shared.in_snapshot.load(Ordering::Relaxed) == changes {
            return Ok(Snapshot::Unchanged);
        }
        snapshot::write(self.database.path().to_owned(), path.to_owned()).await?;
        self.shared.in_snapshot.store(changes, Ordering::Relaxed);
        Ok(Snapshot::Written)
    }

    /// Runs a change of rows, tombstones or breaker, and counts it.
    async fn write<T, F>(&self, attempted: &'static str, object: &str, work: F) -> PortResult<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection, &Shared) -> Result<T, Fault> + Send + 'static,
    {
        let shared = Arc::clone(&self.shared);
        let counted = move |tx: &Connection| {
            shared.changes.fetch_add(1, Ordering::Relaxed);
            work(tx, &shared)
        };
        self.database.write(attempted, object, counted).await
    }
}

#[async_trait]
impl CatalogRead for SqliteCatalog {
    async fn partition(&self, key: &ObjectKey) -> PortResult<Partition> {
        let wanted = key.clone();
        self.database.read("read catalog partition", key.as_str(), move |tx| rows::partition(tx, &wanted)).await
    }

    async fn rows(&self, ids: &[RowId]) -> PortResult<Vec<Option<CopyRow>>> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let object = format!("{} rows", ids.len());
        if ids.len() > CLEAN_PAGE {
            let why = format!("at most {CLEAN_PAGE} rows are read at once");
            return Err(PortError::new("read catalog rows", object, ErrorKind::Invalid(why)));
        }
        let ids = ids.to_vec();
        let read = move |tx: &Connection| ids.iter().map(|id| rows::row(tx, id)).collect();
        self.database.read("read catalog rows", object, read).await
    }

    async fn index(&self, query: &IndexQuery) -> PortResult<Page<IndexEntry, IndexEntry>> {
        let query = query.clone();
        self.database.read("read catalog index", "", move |tx| index::page(tx, &query)).await
    }

    async fn totals(&self) -> PortResult<Totals> {
        self.database.read("read catalog totals", "", state::totals).await
    }

    async fn state(&self) -> PortResult<PolicyState> {
        self.database.read("read policy state", "", state::state).await
    }
}

#[async_trait]
impl CatalogKeys for SqliteCatalog {
    async fn keys(&self, prefix: &str, after: Option<&ObjectKey>, limit: usize) -> PortResult<Page<ObjectKey>> {
        let (under, after) = (prefix.to_owned(), after.cloned());
        let read = move |tx: &Connection| index::keys(tx, &under, after.as_ref(), limit);
        self.database.read("list catalog keys", prefix, read).await
    }
}

#[async_trait]
impl Catalog for SqliteCatalog {
    async fn upsert(&self, original: &ObjectKey, row: &CopyRow) -> PortResult<()> {
        let (key, new) = (original.clone(), row.clone());
        let put = move |tx: &Connection, shared: &Shared| changes::upsert(tx, &key, &new, &shared.revs.rev());
        self.write("put catalog row", row.copy_key.as_str(), put).await
    }

    async fn record_mirrored(&self, original: &ObjectKey, row: &CopyRow) -> PortResult<()> {
        let (key, new) = (original.clone(), row.clone());
        let put = move |tx: &Connection, shared: &Shared| changes::record_mirrored(tx, &key, &new, &shared.revs.rev());
        self.write("put mirrored row", row.copy_key.as_str(), put).await
    }

    async fn change(&self, changes: &[RowChange]) -> Vec<PortResult<Changed>> {
        let mut outcomes = Vec::with_capacity(changes.len());
        // A large batch goes in slices, so that the jobs of others come in between.
        for slice in changes.chunks(CHANGES_AT_ONCE) {
            let wanted = slice.to_vec();
            let apply = move |tx: &Connection, shared: &Shared| changes::change(tx, &wanted, || shared.revs.rev());
            match self.write("change catalog rows", slice[0].id.copy_key.as_str(), apply).await {
                Ok(done) => outcomes.extend(done.into_iter().map(Ok)),
                Err(error) => outcomes.extend(slice.iter().map(|_| Err(error.clone()))),
            }
        }
        outcomes
    }

    async fn bury(&self, key: &ObjectKey, tombstone: &Tombstone) -> PortResult<bool> {
        let (of, tombstone) = (key.clone(), *tombstone);
        self.write("put tombstone", key.as_str(), move |tx, _| changes::bury(tx, &of, &tombstone)).await
    }

    async fn forget_tombstones(&self, noted_before: UnixMs, limit: usize) -> PortResult<u64> {
        let forget = move |tx: &Connection, _: &Shared| changes::forget_tombstones(tx, noted_before, limit);
        self.write("forget tombstones", "", forget).await
    }

    async fn set_state(&self, change: StateChange) -> PortResult<()> {
        match change {
            StateChange::Trip(_) | StateChange::Release(_) => {
                self.write("write policy state", "", move |tx, _| state::set_state(tx, change)).await
            }
            // Not worth a snapshot of their own.
            StateChange::Cleaned(_) | StateChange::Reconciled(..) => {
                self.database.write("write policy state", "", move |tx| state::set_state(tx, change)).await
            }
        }
    }

    async fn lease(&self, name: &str, holder: &str, now: UnixMs, until: UnixMs) -> PortResult<bool> {
        let (of, holder) = (name.to_owned(), holder.to_owned());
        self.database.write("take lease", name, move |tx| state::lease(tx, &of, &holder, now, until)).await
    }

    async fn unlease(&self, name: &str, holder: &str) -> PortResult<()> {
        let (of, holder) = (name.to_owned(), holder.to_owned());
        self.database.write("give lease back", name, move |tx| state::unlease(tx, &of, &holder)).await
    }
}
