//! Stands before the destination and looks at every delete at its very moment: the copy's row must be disowned, as surplus
//! or with its grace over (I7, V4), whatever the flow believes.

use async_trait::async_trait;
use engine::error::PortResult;
use engine::memory::catalog::MemoryCatalog;
use engine::memory::clock::MemoryClock;
use engine::ports::clock::Clock;
use engine::ports::objects::{ObjectPurge, PurgeItem, Purged};
use lifecycle::ids::CopyKey;
use lifecycle::row::CopyState;
use lifecycle::time::SpanMs;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

pub(crate) struct Witness {
    pub(crate) inner: Arc<dyn ObjectPurge>,
    pub(crate) catalog: Arc<MemoryCatalog>,
    pub(crate) clock: Arc<MemoryClock>,
    pub(crate) grace: SpanMs,
    pub(crate) seen: Arc<Mutex<Vec<String>>>,
}

impl Witness {
    fn judge(&self, rows: &BTreeMap<CopyKey, CopyState>, item: &PurgeItem) -> Option<String> {
        let copy_key = CopyKey::of(item.key.clone());
        match *rows.get(&copy_key)? {
            CopyState::Active { .. } => Some(format!("{copy_key} was purged while it was active")),
            CopyState::Disowned { reason, .. } if reason.is_surplus() => None,
            CopyState::Disowned { at, .. } if at.plus(self.grace) <= self.clock.now() => None,
            CopyState::Disowned { at, reason } => {
                Some(format!("{copy_key} ({}) was purged {} after {at}", reason.code(), self.clock.now().since(at)))
            }
        }
    }
}

#[async_trait]
impl ObjectPurge for Witness {
    async fn purge(&self, items: &[PurgeItem]) -> Vec<PortResult<Purged>> {
        // A mirror's deletes name what they saw, and have no copy row.
        let copies = items.iter().filter(|item| item.if_match.is_none());
        let partitions = self.catalog.contents().into_values();
        let rows = partitions.flat_map(|partition| partition.rows).map(|row| (row.copy_key, row.state)).collect();
        self.seen.lock().unwrap().extend(copies.filter_map(|item| self.judge(&rows, item)));
        self.inner.purge(items).await
    }
}
