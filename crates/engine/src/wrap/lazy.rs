//! A value that is asked for when it is first needed, by one asker at a time. A failure is everybody's who waited for it, and
//! nobody else's: during an outage a hundred callers take as long as one, and who comes after it asks anew.
//!
//! What was found may grow old ([`Lazy::get_fresh`]): then it is asked for again. Nothing outlives the process (I10).

use crate::error::{PortError, PortResult};
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::Mutex;
use tokio::time::Instant;

/// The value, once it is known.
#[derive(Debug)]
pub struct Lazy<T> {
    state: Mutex<State<T>>,
    /// How often it was asked for, to the end.
    times: AtomicU64,
}

#[derive(Debug)]
struct State<T> {
    found: Option<(Instant, T)>,
    failed: Option<PortError>,
}

impl<T> Default for Lazy<T> {
    fn default() -> Lazy<T> {
        Lazy { state: Mutex::new(State { found: None, failed: None }), times: AtomicU64::new(0) }
    }
}

impl<T: Clone> Lazy<T> {
    /// Not asked for yet.
    pub fn new() -> Lazy<T> {
        Lazy::default()
    }

    /// The value; `ask` asks for it if it is not known.
    pub async fn get<F: Future<Output = PortResult<T>>>(&self, ask: impl FnOnce() -> F) -> PortResult<T> {
        self.get_fresh(std::time::Duration::MAX, ask).await
    }

    /// The value, asked for again when it is older than that. While it is asked for again everybody waits.
    pub async fn get_fresh<F: Future<Output = PortResult<T>>>(
        &self,
        good_for: std::time::Duration,
        ask: impl FnOnce() -> F,
    ) -> PortResult<T> {
        let times = self.times.load(Ordering::Acquire);
        let mut state = self.state.lock().await;
        if let Some((at, value)) = &state.found
            && at.elapsed() <= good_for
        {
            return Ok(value.clone());
        }
        // Asked and answered while this one waited.
        if let Some(error) = &state.failed
            && self.times.load(Ordering::Acquire) != times
        {
            return Err(error.clone());
        }
        let asked = ask().await;
        match &asked {
            Ok(value) => *state = State { found: Some((now(), value.clone())), failed: None },
            Err(error) => state.failed = Some(error.clone()),
        }
        self.times.fetch_add(1, Ordering::Release);
        asked
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "an answer's age, not the time of day: a clock that is set must not change it"
)]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
impl<T> Lazy<T> {
    /// As if so much time had passed.
    pub(crate) async fn grow_old(&self, by: std::time::Duration) {
        if let Some((at, _)) = &mut self.state.lock().await.found {
            *at = at.checked_sub(by).expect("the machine has run for longer");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use futures_util::future::join_all;
    use std::sync::atomic::AtomicU32;
    use std::time::Duration;
    use tokio::sync::Notify;

    #[derive(Default)]
    struct World {
        lazy: Lazy<u32>,
        times: AtomicU32,
        answer: Notify,
    }

    impl World {
        async fn asked(&self, works: bool, good_for: Duration) -> PortResult<u32> {
            let ask = || async {
                let n = self.times.fetch_add(1, Ordering::Relaxed) + 1;
                self.answer.notified().await;
                if works { Ok(n) } else { Err(PortError::new("ask", "it", ErrorKind::Unavailable)) }
            };
            self.lazy.get_fresh(good_for, ask).await
        }
    }

    #[tokio::test]
    async fn who_waited_for_a_failure_has_it_and_who_comes_later_asks_again() {
        let world = World::default();
        let waiting = join_all((0..64).map(|_| world.asked(false, Duration::MAX)));
        // All of them wait before there is an answer.
        let (failed, ()) = tokio::join!(waiting, async { world.answer.notify_one() });
        assert!(failed.iter().all(Result::is_err));
        assert_eq!(world.times.load(Ordering::Relaxed), 1, "and nobody waits for an answer of their own");
        world.answer.notify_one();
        assert_eq!(world.asked(true, Duration::MAX).await.unwrap(), 2);
        assert_eq!(world.asked(false, Duration::MAX).await.unwrap(), 2, "it is known");
    }

    #[tokio::test]
    async fn what_grew_old_is_asked_for_again() {
        let (world, good_for) = (World::default(), Duration::from_secs(60));
        for answer in [1, 2] {
            world.answer.notify_one();
            assert_eq!(world.asked(true, good_for).await.unwrap(), answer);
            world.lazy.grow_old(good_for / 2).await;
            assert_eq!(world.asked(true, good_for).await.unwrap(), answer);
            world.lazy.grow_old(good_for).await;
        }
        world.answer.notify_one();
        world.asked(false, good_for).await.unwrap_err();
    }
}
