//! The machine's clock and random numbers: the only place outside tests that asks the operating system for either.
//!
//! Every flow and adapter gets its time and its names from these two ports, so that tests can replay a run.

use crate::ports::clock::{Clock, Nonces};
use async_trait::async_trait;
use lifecycle::time::{SpanMs, UnixMs};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// The wall clock. Steps when the machine's does.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

#[async_trait]
impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the adapter that the ban points to")]
    fn now(&self) -> UnixMs {
        // Before 1970 only on a machine whose clock was never set: the epoch is as good.
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        UnixMs(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    #[expect(clippy::disallowed_methods, reason = "this is the adapter that the ban points to")]
    async fn sleep(&self, span: SpanMs) {
        tokio::time::sleep(Duration::from_millis(span.0)).await;
    }
}

/// Names and jitter from the operating system's random numbers: a random start, then a count, so that no two names of
/// one process are the same and those of two processes meet with a chance of one in 2^64.
#[derive(Debug)]
pub struct SystemNonces {
    start: u64,
    count: AtomicU64,
}

impl SystemNonces {
    /// Draws the random start.
    pub fn new() -> Result<SystemNonces, getrandom::Error> {
        Ok(SystemNonces { start: getrandom::u64()?, count: AtomicU64::new(0) })
    }

    /// Every count gives another number, and neighbours look unrelated (the finalizer of SplitMix64, a bijection).
    fn next(&self) -> u64 {
        let mut mixed = self.start.wrapping_add(self.count.fetch_add(1, Ordering::Relaxed));
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

impl Nonces for SystemNonces {
    fn nonce(&self) -> String {
        format!("{:016x}", self.next())
    }

    fn jitter(&self, below: u64) -> u64 {
        self.next().checked_rem(below).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_never_repeat_and_jitter_stays_below() {
        let nonces = SystemNonces::new().unwrap();
        let names: BTreeSet<String> = (0..10_000).map(|_| nonces.nonce()).collect();
        assert_eq!(names.len(), 10_000);
        assert!(names.iter().all(|name| name.len() == 16 && name.bytes().all(|b| b.is_ascii_hexdigit())));
        assert!((0..1_000).all(|_| nonces.jitter(7) < 7));
        assert_eq!(nonces.jitter(0), 0);
    }

    #[test]
    fn the_clock_tells_a_time_after_this_was_written() {
        assert!(SystemClock.now() > UnixMs(1_760_000_000_000));
    }
}
