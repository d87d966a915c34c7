//! A whole policy in memory, for tests that want one.

use crate::memory::bucket::{MemoryBucket, Versioning};
use crate::memory::catalog::MemoryCatalog;
use crate::memory::clock::MemoryClock;
use crate::memory::copier::MemoryCopier;
use crate::memory::journal::MemoryJournal;
use crate::memory::nonces::MemoryNonces;
use crate::memory::queue::MemoryQueue;
use crate::policy::{Mode, Policy};
use crate::ports::clock::Clock;
use crate::ports::metrics::Counters;
use crate::steps::purge::Purger;
use lifecycle::ids::PolicyName;
use lifecycle::policy::Rules;
use lifecycle::time::UnixMs;
use std::sync::Arc;

/// Where [`Memory`]'s clock starts: 2026-11-21T00:00:00Z.
pub const START: UnixMs = UnixMs(1_795_219_200_000);

/// Every port in memory, for one policy from the bucket `source` to the bucket `copies`.
pub struct Memory {
    /// The clock, which stands still.
    pub clock: Arc<MemoryClock>,
    /// Names and jitter.
    pub nonces: Arc<MemoryNonces>,
    /// The source.
    pub source: Arc<MemoryBucket>,
    /// The destination, unversioned.
    pub destination: Arc<MemoryBucket>,
    /// The catalog.
    pub catalog: Arc<MemoryCatalog>,
    /// The journal.
    pub journal: Arc<MemoryJournal>,
    /// The queue.
    pub queue: Arc<MemoryQueue>,
    /// Counters.
    pub metrics: Arc<Counters>,
}

impl Memory {
    /// Empty, at [`START`].
    pub fn new(source: Versioning) -> Memory {
        let clock = Arc::new(MemoryClock::at(START));
        let bucket =
            |name, versioning| Arc::new(MemoryBucket::new(name, versioning, Arc::clone(&clock) as Arc<dyn Clock>));
        Memory {
            nonces: Arc::new(MemoryNonces::seeded(1)),
            source: bucket("source", source),
            destination: bucket("copies", Versioning::Off),
            catalog: Arc::default(),
            journal: Arc::default(),
            queue: Arc::new(MemoryQueue::new(Arc::clone(&clock) as Arc<dyn Clock>)),
            metrics: Arc::default(),
            clock,
        }
    }

    /// The policy over these ports.
    pub fn policy(&self, mode: Mode, rules: Rules) -> Policy {
        let (source, destination) = (Arc::clone(&self.source), Arc::clone(&self.destination));
        Policy {
            name: PolicyName::from("memory"),
            mode,
            rules,
            source_bucket: self.source.name().to_owned(),
            source_prefix: String::new(),
            source: Arc::clone(&self.source) as _,
            destination: Arc::clone(&self.destination) as _,
            copier: Arc::new(MemoryCopier::new(source, Arc::clone(&destination))),
            recopier: Arc::new(MemoryCopier::new(Arc::clone(&destination), Arc::clone(&destination))),
            purger: Purger::new(destination),
            catalog: Arc::clone(&self.catalog) as _,
            keys: Some(Arc::clone(&self.catalog) as _),
            scratch: std::env::temp_dir(),
            journal: Arc::clone(&self.journal) as _,
            clock: Arc::clone(&self.clock) as _,
            nonces: Arc::clone(&self.nonces) as _,
            metrics: Arc::clone(&self.metrics) as _,
        }
    }
}
