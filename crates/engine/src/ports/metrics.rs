//! Counters, behind a small port.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

/// What is counted, each since the start of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Counter {
    /// Events handled.
    EventsHandled,
    /// Events put back.
    EventsAgain,
    /// Events given up.
    EventsGivenUp,
    /// Copies made.
    Copies,
    /// Bytes copied.
    CopiedBytes,
    /// Copies disowned.
    Disowned,
    /// Copies purged.
    Purged,
    /// Bytes purged.
    PurgedBytes,
    /// Mirrored objects written.
    Mirrored,
    /// Mirrored objects deleted.
    MirrorDeleted,
    /// Keys settled.
    Settled,
    /// Rounds of settling beyond the first.
    SettledAgain,
    /// Looks at a source.
    Looks,
    /// Port calls tried again.
    CallsAgain,
    /// Deleted records archived.
    Archived,
    /// Deleted records that were archived before.
    ArchivedBefore,
    /// Records of streams laid aside.
    LaidAside,
    /// Gaps in streams: records lost before they were read.
    Gaps,
    /// Deletions told to feeds, those that were told twice included.
    Told,
}

impl Counter {
    /// All of them, in the order shown.
    pub const ALL: [Counter; 19] = [
        Counter::EventsHandled,
        Counter::EventsAgain,
        Counter::EventsGivenUp,
        Counter::Copies,
        Counter::CopiedBytes,
        Counter::Disowned,
        Counter::Purged,
        Counter::PurgedBytes,
        Counter::Mirrored,
        Counter::MirrorDeleted,
        Counter::Settled,
        Counter::SettledAgain,
        Counter::Looks,
        Counter::CallsAgain,
        Counter::Archived,
        Counter::ArchivedBefore,
        Counter::LaidAside,
        Counter::Gaps,
        Counter::Told,
    ];

    /// The name in `status --json` and, later, in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Counter::EventsHandled => "events_handled",
            Counter::EventsAgain => "events_again",
            Counter::EventsGivenUp => "events_given_up",
            Counter::Copies => "copies",
            Counter::CopiedBytes => "copied_bytes",
            Counter::Disowned => "disowned",
            Counter::Purged => "purged",
            Counter::PurgedBytes => "purged_bytes",
            Counter::Mirrored => "mirrored",
            Counter::MirrorDeleted => "mirror_deleted",
            Counter::Settled => "settled",
            Counter::SettledAgain => "settled_again",
            Counter::Looks => "looks",
            Counter::CallsAgain => "calls_again",
            Counter::Archived => "archived",
            Counter::ArchivedBefore => "archived_before",
            Counter::LaidAside => "laid_aside",
            Counter::Gaps => "stream_gaps",
            Counter::Told => "told",
        }
    }
}

/// Counts.
pub trait Metrics: Send + Sync {
    /// Adds to a counter.
    fn add(&self, counter: Counter, n: u64);
}

/// Counters in memory.
#[derive(Debug, Default)]
pub struct Counters([AtomicU64; Counter::ALL.len()]);

impl Counters {
    /// The value of every counter, by name.
    pub fn snapshot(&self) -> BTreeMap<&'static str, u64> {
        Counter::ALL.iter().map(|counter| (counter.name(), self.0[*counter as usize].load(Ordering::Relaxed))).collect()
    }
}

impl Metrics for Counters {
    fn add(&self, counter: Counter, n: u64) {
        self.0[counter as usize].fetch_add(n, Ordering::Relaxed);
    }
}
