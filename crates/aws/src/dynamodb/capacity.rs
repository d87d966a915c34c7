//! What the service charged: every call asks for the capacity that it used, and it is counted here for `status`.
//!
//! Counts of this process since its start; nothing is stored.

use aws_sdk_dynamodb::types::ConsumedCapacity;
use std::sync::atomic::{AtomicU64, Ordering};

/// Capacity used and calls made by one catalog since this process started.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CapacityUsed {
    /// Read units.
    pub read: f64,
    /// Write units, the index's included.
    pub write: f64,
    /// Calls that were answered.
    pub calls: u64,
}

/// The counter. Units come in halves and transactional multiples: tenths are exact.
#[derive(Debug, Default)]
pub(super) struct Capacity {
    read_tenths: AtomicU64,
    write_tenths: AtomicU64,
    calls: AtomicU64,
}

impl Capacity {
    /// A call that read.
    pub(super) fn read(&self, used: &[ConsumedCapacity]) {
        self.count(&self.read_tenths, used);
    }

    /// A call that wrote.
    pub(super) fn wrote(&self, used: &[ConsumedCapacity]) {
        self.count(&self.write_tenths, used);
    }

    fn count(&self, of: &AtomicU64, used: &[ConsumedCapacity]) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let units: f64 = used.iter().filter_map(ConsumedCapacity::capacity_units).sum();
        of.fetch_add((units * 10.0).round() as u64, Ordering::Relaxed);
    }

    /// What was counted so far.
    pub(super) fn used(&self) -> CapacityUsed {
        let units = |tenths: &AtomicU64| tenths.load(Ordering::Relaxed) as f64 / 10.0;
        CapacityUsed {
            read: units(&self.read_tenths),
            write: units(&self.write_tenths),
            calls: self.calls.load(Ordering::Relaxed),
        }
    }
}
