//! The catalog of one policy: rows, tombstones, the index of what is due, and the policy's own state.
//!
//! Shaped so that DynamoDB serves it with Get, Query and conditional writes only (I9), in batches with partial results.

use super::objects::Page;
use crate::error::PortResult;
use async_trait::async_trait;
use lifecycle::ids::{CopyKey, ObjectKey, Rev};
use lifecycle::order::Order;
use lifecycle::row::{CopyRow, Partition, Reason, Tombstone};
use lifecycle::time::UnixMs;

/// Names one row.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowId {
    /// Partition: the original's key.
    pub original: ObjectKey,
    /// Sort key: the copy's.
    pub copy_key: CopyKey,
}

/// Which entries of the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Indexed {
    /// Disowned copies, by `disowned_at`.
    Disowned,
    /// Active copies that time alone makes surplus, by that time.
    Surplus,
    /// Tombstones, by the time they were noted: one per removed key.
    Removed,
}

/// A range of the index. The index is eventually consistent: what it says is a hint, the row is the truth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexQuery {
    /// Which entries.
    pub what: Indexed,
    /// From this time on (inclusive).
    pub from: UnixMs,
    /// Up to this time (inclusive).
    pub until: UnixMs,
    /// Continue after this entry.
    pub after: Option<IndexEntry>,
    /// At most so many.
    pub limit: usize,
}

/// One entry of the index.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct IndexEntry {
    /// The time it is sorted by.
    pub at: UnixMs,
    /// The original's key.
    pub original: ObjectKey,
    /// The copy's key; `None` for a tombstone.
    pub copy_key: Option<CopyKey>,
}

/// Numbers for people and for the breaker. Adapters without exact counters give estimates and say so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Keys with at least one active row.
    pub live_keys: u64,
    /// Active rows.
    pub active: u64,
    /// Disowned rows still there.
    pub disowned: u64,
    /// Bytes of all rows.
    pub bytes: u64,
    /// Estimates rather than counts.
    pub estimated: bool,
}

/// What a policy remembers about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyState {
    /// The breaker has tripped and nobody has released it yet.
    pub tripped: Option<Trip>,
    /// Removals noted up to this moment are forgiven (set by `release`).
    pub released_at: Option<UnixMs>,
    /// When the last clean ended without failures.
    pub cleaned_at: Option<UnixMs>,
    /// When the last reconcile ended, and the differences that it left.
    pub reconciled: Option<(UnixMs, u64)>,
}

/// What tripped a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trip {
    /// When.
    pub at: UnixMs,
    /// Removed keys counted (counting stops at the limit).
    pub removed: u64,
    /// Live keys left.
    pub live: u64,
}

/// A change of the policy's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateChange {
    /// The breaker trips; a breaker that is tripped already stays as it is.
    Trip(Trip),
    /// A person releases it: removals up to then are forgiven.
    Release(UnixMs),
    /// A clean ended.
    Cleaned(UnixMs),
    /// A reconcile ended, and left so many differences.
    Reconciled(UnixMs, u64),
}

/// Reads the catalog.
#[async_trait]
pub trait CatalogRead: Send + Sync {
    /// All rows and the tombstone of one key, strongly consistent.
    async fn partition(&self, key: &ObjectKey) -> PortResult<Partition>;

    /// Single rows, strongly consistent, in the order asked; `None` where there is none. At most 1,000 at once.
    async fn rows(&self, ids: &[RowId]) -> PortResult<Vec<Option<CopyRow>>>;

    /// Entries of the index in order of time.
    async fn index(&self, query: &IndexQuery) -> PortResult<Page<IndexEntry, IndexEntry>>;

    /// Totals.
    async fn totals(&self) -> PortResult<Totals>;

    /// The policy's state.
    async fn state(&self) -> PortResult<PolicyState>;
}

/// Lists the keys of a catalog in order, where the engine can do so without scanning (SQLite can, DynamoDB cannot).
#[async_trait]
pub trait CatalogKeys: Send + Sync {
    /// Keys with at least one row, under `prefix`, in key order, after `after`.
    async fn keys(&self, prefix: &str, after: Option<&ObjectKey>, limit: usize) -> PortResult<Page<ObjectKey>>;
}

/// A change of one row, conditional on the rev that was read (V4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowChange {
    /// Which row.
    pub id: RowId,
    /// Only if it exists with this rev.
    pub if_rev: Rev,
    /// What.
    pub set: RowSet,
}

/// What changes in a row. Every change gives the row a new rev.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowSet {
    /// The claim: from active to disowned. Refused when the row is not active.
    Disowned {
        /// Time of handling.
        at: UnixMs,
        /// Why.
        reason: Reason,
        /// When the original was removed. `None` leaves what stands there.
        removed_at: Option<UnixMs>,
    },
    /// A raised order, which floats. Refused when the row is not active.
    Raised {
        /// The new order.
        order: Order,
    },
    /// The time at which an active row becomes surplus. Refused when the row is not active.
    Due {
        /// When; `None`: never by time alone.
        at: Option<UnixMs>,
    },
    /// The row goes.
    Deleted,
}

/// How a conditional change ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    /// Done and durable; the row's new rev (a deleted row's last one).
    Applied(Rev),
    /// The condition did not hold: somebody else was there first.
    Refused,
}

/// Reads and writes the catalog.
#[async_trait]
pub trait Catalog: CatalogRead {
    /// Puts the row if it is new; else sets only attributes that it lacks. Never changes the status of a row that is
    /// there, never lowers or replaces its order. Always a new rev (`row.rev` is not looked at).
    async fn upsert(&self, original: &ObjectKey, row: &CopyRow) -> PortResult<()>;

    /// Puts or replaces the row of a mirrored object: a cache for people, not a fact.
    async fn record_mirrored(&self, original: &ObjectKey, row: &CopyRow) -> PortResult<()>;

    /// Conditional changes, one result each, in the order asked. No two on one row.
    async fn change(&self, changes: &[RowChange]) -> Vec<PortResult<Changed>>;

    /// Puts the tombstone unless one of the same or a greater order (of the same basis) is there. One that floats leaves
    /// its mark on whatever replaces it, and on one of its own order ([`Tombstone::replaces`]). Says whether it did.
    async fn bury(&self, key: &ObjectKey, tombstone: &Tombstone) -> PortResult<bool>;

    /// Forgets tombstones noted before then (where the store does not do so by itself); how many.
    async fn forget_tombstones(&self, noted_before: UnixMs, limit: usize) -> PortResult<u64>;

    /// Changes the policy's state.
    async fn set_state(&self, change: StateChange) -> PortResult<()>;

    /// Takes or renews the lease of that name for `holder`; `false` when another holds it at `now`.
    async fn lease(&self, name: &str, holder: &str, now: UnixMs, until: UnixMs) -> PortResult<bool>;

    /// Gives the lease back, if `holder` has it.
    async fn unlease(&self, name: &str, holder: &str) -> PortResult<()>;
}
