//! What an operation did: counts, and every single failure by name. The report decides the exit code.

use crate::error::PortError;
use crate::limits::REPORT_ITEMS;
use std::collections::BTreeMap;
use std::error::Error;

/// One item that did not go as asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Which object, key or copy.
    pub object: String,
    /// What happened and what to do, in a sentence.
    pub why: String,
}

/// The report of one operation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The operation's verb.
    pub operation: String,
    /// What was done: how many of what, by a stable word (`purged`, `restored`, `skipped-same`, `bytes` …).
    pub counts: BTreeMap<&'static str, u64>,
    /// What was done, item by item, where a person asks for items; the first [`REPORT_ITEMS`].
    pub done: Vec<Item>,
    /// What was left alone on purpose, with the reason; the first [`REPORT_ITEMS`].
    pub skipped: Vec<Item>,
    /// What failed; the first [`REPORT_ITEMS`].
    pub failed: Vec<Item>,
    /// How many failed, named or not.
    pub failures: u64,
    /// Remarks for the reader.
    pub notes: Vec<String>,
    /// Stopped before the end, on request.
    pub cancelled: bool,
}

impl Report {
    /// An empty report.
    pub fn of(operation: impl Into<String>) -> Report {
        Report { operation: operation.into(), ..Report::default() }
    }

    /// Counts.
    pub fn count(&mut self, what: &'static str, n: u64) {
        *self.counts.entry(what).or_default() += n;
    }

    /// How many of that were counted.
    pub fn counted(&self, what: &str) -> u64 {
        self.counts.get(what).copied().unwrap_or(0)
    }

    /// Notes a failure.
    pub fn fail(&mut self, object: impl ToString, why: impl ToString) {
        self.failures += 1;
        if self.failed.len() < REPORT_ITEMS {
            self.failed.push(Item { object: object.to_string(), why: why.to_string() });
        }
    }

    /// Notes a port's failure, with its causes.
    pub fn fail_with(&mut self, object: impl ToString, error: &PortError) {
        self.fail(object, chain(error));
    }

    /// Notes what was done.
    pub fn done(&mut self, what: &'static str, object: impl ToString, how: impl ToString) {
        self.count(what, 1);
        if self.done.len() < REPORT_ITEMS {
            self.done.push(Item { object: object.to_string(), why: how.to_string() });
        }
    }

    /// Notes what was left alone.
    pub fn skip(&mut self, what: &'static str, object: impl ToString, why: impl ToString) {
        self.count(what, 1);
        if self.skipped.len() < REPORT_ITEMS {
            self.skipped.push(Item { object: object.to_string(), why: why.to_string() });
        }
    }

    /// Adds another report's numbers and items to this one.
    pub fn absorb(&mut self, other: Report) {
        for (what, n) in other.counts {
            self.count(what, n);
        }
        self.failures += other.failures;
        self.failed.extend(other.failed);
        self.failed.truncate(REPORT_ITEMS);
        self.done.extend(other.done);
        self.done.truncate(REPORT_ITEMS);
        self.skipped.extend(other.skipped);
        self.skipped.truncate(REPORT_ITEMS);
        self.notes.extend(other.notes);
        self.cancelled |= other.cancelled;
    }

    /// All done: nothing failed and nothing was cut short.
    pub fn is_success(&self) -> bool {
        self.failures == 0 && !self.cancelled
    }
}

/// An error with its causes, in one line.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
