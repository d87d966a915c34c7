//! An open loop: work is due at fixed times, whether or not earlier work is done. Latency counts from when it was due, so
//! that a stall shows in all that waited behind it.

use std::time::{Duration, Instant};

/// When the n-th piece of work is due.
#[derive(Clone, Copy)]
pub(crate) struct Pace {
    start: Instant,
    every: Duration,
}

impl Pace {
    /// So many a second, from now on.
    pub(crate) fn per_second(rate: u32) -> Pace {
        #[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
        let start = Instant::now() + Duration::from_millis(20);
        Pace { start, every: Duration::from_secs(1) / rate }
    }

    pub(crate) fn due(&self, n: u32) -> Instant {
        self.start + self.every * n
    }

    /// Waits until the n-th is due.
    pub(crate) async fn wait(&self, n: u32) -> Instant {
        let due = self.due(n);
        #[expect(clippy::disallowed_methods, reason = "a benchmark keeps real time")]
        tokio::time::sleep_until(due.into()).await;
        due
    }
}
