//! The time that an invocation has. At `stop_at` nothing new is begun; at `end_at` what still runs is dropped, between two
//! calls, as a crash would end it; the rest is for the answer. So the function itself ends before Lambda ends it (I10).

use crate::limits::{END_SHARE, STOP_MAX, STOP_MIN, STOP_SHARE};
use engine::ports::clock::Clock;
use futures_util::future::{Either, select};
use lifecycle::time::{SpanMs, UnixMs};
use std::future::Future;
use std::pin::pin;
use tokio_util::sync::CancellationToken;

/// The time of one invocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimeLimit {
    /// From then on nothing new is begun.
    pub(crate) stop_at: UnixMs,
    /// From then on nothing runs any more.
    pub(crate) end_at: UnixMs,
    /// When Lambda ends the function.
    pub(crate) deadline: UnixMs,
}

impl TimeLimit {
    pub(crate) fn new(now: UnixMs, deadline: UnixMs) -> TimeLimit {
        let spare = SpanMs(deadline.since(now).0 / STOP_SHARE).clamp(STOP_MIN, STOP_MAX);
        let end_at = deadline.minus(SpanMs(spare.0 / END_SHARE));
        TimeLimit { stop_at: deadline.minus(spare), end_at, deadline }
    }

    /// Runs the work; `cancel` is cancelled when it shall begin nothing new. `None`: it was dropped at the end.
    pub(crate) async fn keep<T>(
        self,
        clock: &dyn Clock,
        cancel: &CancellationToken,
        work: impl Future<Output = T>,
    ) -> Option<T> {
        let time = async {
            clock.sleep(self.stop_at.since(clock.now())).await;
            cancel.cancel();
            clock.sleep(self.end_at.since(clock.now())).await;
        };
        match select(pin!(work), pin!(time)).await {
            Either::Left((done, _)) => Some(done),
            Either::Right(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::memory::clock::MemoryClock;

    const NOW: UnixMs = UnixMs(1_795_000_000_000);

    fn seconds(total: u64) -> (u64, u64) {
        let limit = TimeLimit::new(NOW, NOW.plus(SpanMs::seconds(total)));
        (limit.stop_at.since(NOW).0, limit.end_at.since(NOW).0)
    }

    #[test]
    fn some_time_is_left_to_finish_and_some_to_answer() {
        assert_eq!(seconds(3), (2_000, 2_500));
        assert_eq!(seconds(30), (22_500, 26_250));
        assert_eq!(seconds(900), (880_000, 890_000));
        assert_eq!(seconds(0), (0, 0), "it is late already");
    }

    #[tokio::test]
    async fn work_is_told_to_stop_and_dropped_when_it_does_not() {
        let clock = MemoryClock::at(NOW);
        let limit = TimeLimit::new(NOW, NOW.plus(SpanMs::seconds(30)));
        let cancel = CancellationToken::new();
        assert_eq!(limit.keep(&clock, &cancel, async { 1 }).await, Some(1));
        assert!(!cancel.is_cancelled());
        let obedient = async {
            cancel.cancelled().await;
            clock.now()
        };
        let time = async {
            clock.until_asleep(1).await;
            clock.advance(limit.stop_at.since(NOW));
        };
        let (kept, ()) = futures_util::join!(limit.keep(&clock, &cancel, obedient), time);
        assert_eq!(kept, Some(limit.stop_at));
        let clock = MemoryClock::skipping(NOW);
        let stubborn = std::future::pending::<()>();
        assert_eq!(limit.keep(&clock, &CancellationToken::new(), stubborn).await, None);
        assert_eq!(clock.now(), limit.end_at);
    }
}
