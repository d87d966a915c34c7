//! The journal as a list. The hash chain of the stored format is the affair of adapters that store; here `head` is only a
//! digest of what was written, so that two runs can be compared. Law: I12 (append only). Nothing outlives the process.

use crate::error::PortResult;
use crate::memory::lock;
use crate::ports::journal::{Audit, Entry, Journal, JournalRead, Line};
use async_trait::async_trait;
use lifecycle::ids::ObjectKey;
use sha2::{Digest, Sha256};
use std::sync::Mutex;

/// The journal.
#[derive(Debug, Default)]
pub struct MemoryJournal {
    entries: Mutex<Vec<Entry>>,
}

impl MemoryJournal {
    /// All that was written, oldest first.
    pub fn entries(&self) -> Vec<Entry> {
        lock(&self.entries).clone()
    }
}

#[async_trait]
impl Journal for MemoryJournal {
    async fn append(&self, entries: &[Entry]) -> PortResult<()> {
        lock(&self.entries).extend_from_slice(entries);
        Ok(())
    }
}

#[async_trait]
impl JournalRead for MemoryJournal {
    async fn about(&self, key: Option<&ObjectKey>, limit: usize) -> PortResult<Vec<Line>> {
        let entries = lock(&self.entries);
        let about = |entry: &&Entry| key.is_none() || entry.key.as_ref() == key;
        let matching = entries.iter().enumerate().filter(|(_, entry)| about(entry));
        let mut lines: Vec<Line> =
            matching.rev().take(limit).map(|(place, entry)| Line::of(place as u64 + 1, entry)).collect();
        lines.reverse();
        Ok(lines)
    }

    async fn audit(&self) -> PortResult<Audit> {
        let entries = lock(&self.entries);
        let digest = entries.iter().fold(Sha256::new(), |digest, entry| digest.chain_update(format!("{entry:?}\n")));
        let head = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Audit { lines: entries.len() as u64, head, faults: Vec::new() })
    }
}
