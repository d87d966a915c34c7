//! The catalog in memory, with an index that a test can make stale.
//!
//! Rows and tombstones are strongly consistent; the index answers from the rows, or, after
//! [`MemoryCatalog::freeze_index`], from what they were then, as an eventually consistent index may. Laws: V3 (an upsert
//! never revives), V4 (changes are conditional on the rev). Nothing outlives the process.

use crate::error::PortResult;
use crate::memory::lock;
use crate::ports::catalog::{
    Catalog, CatalogKeys, CatalogRead, Changed, IndexEntry, IndexQuery, Indexed, PolicyState, RowChange, RowId, RowSet,
    StateChange, Totals,
};
use crate::ports::objects::Page;
use async_trait::async_trait;
use lifecycle::ids::{CopyKey, ObjectKey, Rev};
use lifecycle::row::{CopyRow, CopyState, Partition, Tombstone};
use lifecycle::time::UnixMs;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Mutex;

#[derive(Clone, Debug, Default)]
struct Key {
    rows: BTreeMap<CopyKey, CopyRow>,
    tombstone: Option<Tombstone>,
}

#[derive(Debug, Default)]
struct State {
    keys: BTreeMap<ObjectKey, Key>,
    /// What the index was when it was frozen.
    frozen: Option<BTreeMap<ObjectKey, Key>>,
    policy: PolicyState,
    leases: BTreeMap<String, (String, UnixMs)>,
    writes: u64,
}

/// The catalog of one policy.
#[derive(Debug, Default)]
pub struct MemoryCatalog {
    state: Mutex<State>,
}

impl MemoryCatalog {
    /// From now on the index answers with what it knows now.
    pub fn freeze_index(&self) {
        let mut state = lock(&self.state);
        state.frozen = Some(state.keys.clone());
    }

    /// The index catches up, and stays up.
    pub fn thaw_index(&self) {
        lock(&self.state).frozen = None;
    }

    /// Everything, by key; keys without rows and without a tombstone are not there.
    pub fn contents(&self) -> BTreeMap<ObjectKey, Partition> {
        lock(&self.state).keys.iter().map(|(key, held)| (key.clone(), held.partition())).collect()
    }

    /// The policy's state, as it stands now.
    pub fn policy_state(&self) -> PolicyState {
        lock(&self.state).policy.clone()
    }

    /// How many writes it has taken: a settle that changes nothing does not move it.
    pub fn writes(&self) -> u64 {
        lock(&self.state).writes
    }

    /// Loses everything, as a deleted file does.
    pub fn wipe(&self) {
        let mut state = lock(&self.state);
        *state = State { writes: state.writes, ..State::default() };
    }
}

impl Key {
    fn partition(&self) -> Partition {
        Partition { rows: self.rows.values().cloned().collect(), tombstone: self.tombstone }
    }

    fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.tombstone.is_none()
    }

    /// Its entries of that part of the index.
    fn entries(&self, original: &ObjectKey, what: Indexed) -> Vec<IndexEntry> {
        let entry = |at, copy_key| IndexEntry { at, original: original.clone(), copy_key };
        let at = |row: &CopyRow| match (what, row.state) {
            (Indexed::Disowned, CopyState::Disowned { at, .. }) => Some(at),
            (Indexed::Surplus, CopyState::Active { due_at }) => due_at,
            _ => None,
        };
        match what {
            Indexed::Removed => self.tombstone.iter().map(|tombstone| entry(tombstone.noted_at, None)).collect(),
            Indexed::Disowned | Indexed::Surplus => {
                self.rows.values().filter_map(|row| Some(entry(at(row)?, Some(row.copy_key.clone())))).collect()
            }
        }
    }
}

impl State {
    fn next_rev(&mut self) -> Rev {
        self.writes += 1;
        Rev(format!("{:x}", self.writes))
    }

    fn change(&mut self, change: &RowChange) -> Changed {
        let rev = self.next_rev();
        let Some(key) = self.keys.get_mut(&change.id.original) else { return Changed::Refused };
        let Some(row) = key.rows.get_mut(&change.id.copy_key) else { return Changed::Refused };
        if row.rev != change.if_rev || (change.set != RowSet::Deleted && !row.is_active()) {
            return Changed::Refused;
        }
        match &change.set {
            RowSet::Disowned { at, reason, removed_at } => {
                row.state = CopyState::Disowned { at: *at, reason: *reason };
                row.removed_at = removed_at.or(row.removed_at);
            }
            RowSet::Raised { order } => {
                row.order = *order;
                row.floating = true;
            }
            RowSet::Due { at } => row.state = CopyState::Active { due_at: *at },
            RowSet::Deleted => {
                let last = row.rev.clone();
                key.rows.remove(&change.id.copy_key);
                if key.is_empty() {
                    self.keys.remove(&change.id.original);
                }
                return Changed::Applied(last);
            }
        }
        row.rev = rev.clone();
        Changed::Applied(rev)
    }
}

#[async_trait]
impl CatalogRead for MemoryCatalog {
    async fn partition(&self, key: &ObjectKey) -> PortResult<Partition> {
        Ok(lock(&self.state).keys.get(key).map(Key::partition).unwrap_or_default())
    }

    async fn rows(&self, ids: &[RowId]) -> PortResult<Vec<Option<CopyRow>>> {
        let state = lock(&self.state);
        let row = |id: &RowId| state.keys.get(&id.original)?.rows.get(&id.copy_key).cloned();
        Ok(ids.iter().map(row).collect())
    }

    async fn index(&self, query: &IndexQuery) -> PortResult<Page<IndexEntry, IndexEntry>> {
        let state = lock(&self.state);
        let keys = state.frozen.as_ref().unwrap_or(&state.keys);
        let wanted = |entry: &IndexEntry| {
            (query.from..=query.until).contains(&entry.at) && query.after.as_ref().is_none_or(|after| entry > after)
        };
        let all = keys.iter().flat_map(|(original, key)| key.entries(original, query.what));
        let mut items: Vec<IndexEntry> = all.filter(wanted).collect();
        items.sort();
        let more = items.len() > query.limit;
        items.truncate(query.limit);
        Ok(Page { next: items.last().filter(|_| more).cloned(), items })
    }

    async fn totals(&self) -> PortResult<Totals> {
        let state = lock(&self.state);
        let mut totals = Totals::default();
        for key in state.keys.values() {
            let active = key.rows.values().filter(|row| row.is_active()).count() as u64;
            totals.live_keys += u64::from(active > 0);
            totals.active += active;
            totals.disowned += key.rows.len() as u64 - active;
            totals.bytes += key.rows.values().map(|row| row.size).sum::<u64>();
        }
        Ok(totals)
    }

    async fn state(&self) -> PortResult<PolicyState> {
        Ok(lock(&self.state).policy.clone())
    }
}

#[async_trait]
impl CatalogKeys for MemoryCatalog {
    async fn keys(&self, prefix: &str, after: Option<&ObjectKey>, limit: usize) -> PortResult<Page<ObjectKey>> {
        let state = lock(&self.state);
        let from = after.map_or(Bound::Unbounded, |after| Bound::Excluded(after.clone()));
        let with_rows = state.keys.range((from, Bound::Unbounded)).filter(|(_, key)| !key.rows.is_empty());
        let under = with_rows.map(|(key, _)| key).filter(|key| key.as_str().starts_with(prefix));
        let mut items: Vec<ObjectKey> = under.take(limit + 1).cloned().collect();
        let more = items.len() > limit;
        items.truncate(limit);
        Ok(Page { next: items.last().filter(|_| more).cloned(), items })
    }
}

#[async_trait]
impl Catalog for MemoryCatalog {
    async fn upsert(&self, original: &ObjectKey, row: &CopyRow) -> PortResult<()> {
        let mut state = lock(&self.state);
        let rev = state.next_rev();
        let rows = &mut state.keys.entry(original.clone()).or_default().rows;
        let there = rows.entry(row.copy_key.clone()).or_insert_with(|| row.clone());
        there.rev = rev;
        there.removed_at = there.removed_at.or(row.removed_at);
        there.checksum = there.checksum.or(row.checksum);
        there.storage_class = there.storage_class.take().or_else(|| row.storage_class.clone());
        there.version_id = there.version_id.take().or_else(|| row.version_id.clone());
        Ok(())
    }

    async fn record_mirrored(&self, original: &ObjectKey, row: &CopyRow) -> PortResult<()> {
        let mut state = lock(&self.state);
        let rev = state.next_rev();
        let rows = &mut state.keys.entry(original.clone()).or_default().rows;
        rows.insert(row.copy_key.clone(), CopyRow { rev, ..row.clone() });
        Ok(())
    }

    async fn change(&self, changes: &[RowChange]) -> Vec<PortResult<Changed>> {
        let mut state = lock(&self.state);
        changes.iter().map(|change| Ok(state.change(change))).collect()
    }

    async fn bury(&self, key: &ObjectKey, tombstone: &Tombstone) -> PortResult<bool> {
        let mut state = lock(&self.state);
        let there = state.keys.get(key).and_then(|key| key.tombstone);
        let Some(tombstone) = tombstone.replaces(there.as_ref()) else { return Ok(false) };
        state.writes += 1;
        state.keys.entry(key.clone()).or_default().tombstone = Some(tombstone);
        Ok(true)
    }

    async fn forget_tombstones(&self, noted_before: UnixMs, limit: usize) -> PortResult<u64> {
        let mut state = lock(&self.state);
        let old = |key: &Key| key.tombstone.is_some_and(|tombstone| tombstone.noted_at < noted_before);
        let keys = state.keys.iter_mut().filter(|(_, key)| old(key)).take(limit);
        let forgotten = keys.map(|(_, key)| key.tombstone = None).count() as u64;
        state.keys.retain(|_, key| !key.is_empty());
        state.writes += forgotten;
        Ok(forgotten)
    }

    async fn set_state(&self, change: StateChange) -> PortResult<()> {
        let mut state = lock(&self.state);
        state.writes += 1;
        let policy = &mut state.policy;
        match change {
            StateChange::Trip(trip) => policy.tripped = policy.tripped.or(Some(trip)),
            StateChange::Release(at) => {
                policy.tripped = None;
                policy.released_at = Some(at);
            }
            StateChange::Cleaned(at) => policy.cleaned_at = Some(at),
            StateChange::Reconciled(at, left) => policy.reconciled = Some((at, left)),
        }
        Ok(())
    }

    async fn lease(&self, name: &str, holder: &str, now: UnixMs, until: UnixMs) -> PortResult<bool> {
        let mut state = lock(&self.state);
        if state.leases.get(name).is_some_and(|(owner, ends)| owner != holder && *ends > now) {
            return Ok(false);
        }
        state.leases.insert(name.to_owned(), (holder.to_owned(), until));
        Ok(true)
    }

    async fn unlease(&self, name: &str, holder: &str) -> PortResult<()> {
        let mut state = lock(&self.state);
        if state.leases.get(name).is_some_and(|(owner, _)| owner == holder) {
            state.leases.remove(name);
        }
        Ok(())
    }
}
