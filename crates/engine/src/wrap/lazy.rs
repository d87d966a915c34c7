//! A value that is asked for when it is first needed, by one asker at a time. A failure is everybody's who waited for it:
//! during an outage a hundred callers take as long as one, and not a hundred times as long.
//!
//! What was found may grow old ([`Lazy::get_fresh`]): then it is asked for again. Nothing outlives the process (I10).

use crate::error::{PortError, PortResult};
use crate::limits::LAZY_FAILURE_GOOD_FOR;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// The value, once it is known.
#[derive(Debug, Default)]
pub struct Lazy<T>(Mutex<State<T>>);

#[derive(Debug)]
struct State<T> {
    found: Option<(Instant, T)>,
    failed: Option<(Instant, PortError)>,
}

impl<T> Default for State<T> {
    fn default() -> State<T> {
        State { found: None, failed: None }
    }
}

impl<T: Clone> Lazy<T> {
    /// Not asked for yet.
    pub fn new() -> Lazy<T> {
        Lazy(Mutex::new(State::default()))
    }

    /// The value; `ask` asks for it if it is not known.
    pub async fn get<F: Future<Output = PortResult<T>>>(&self, ask: impl FnOnce() -> F) -> PortResult<T> {
        self.get_fresh(std::time::Duration::MAX, ask).await
    }

    /// Forgets a failure: whoever knows that its cause is mended asks again at once.
    pub async fn forget_failure(&self) {
        self.0.lock().await.failed = None;
    }

    /// The value, asked for again when it is older than that. While it is asked for again everybody waits.
    pub async fn get_fresh<F: Future<Output = PortResult<T>>>(
        &self,
        good_for: std::time::Duration,
        ask: impl FnOnce() -> F,
    ) -> PortResult<T> {
        let mut state = self.0.lock().await;
        if let Some((at, value)) = &state.found
            && at.elapsed() <= good_for
        {
            return Ok(value.clone());
        }
        if let Some((at, error)) = &state.failed
            && at.elapsed() < LAZY_FAILURE_GOOD_FOR
        {
            return Err(error.clone());
        }
        let asked = ask().await;
        match &asked {
            Ok(value) => *state = State { found: Some((now(), value.clone())), failed: None },
            Err(error) => state.failed = Some((now(), error.clone())),
        }
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
        let mut state = self.0.lock().await;
        let State { found, failed } = &mut *state;
        let ages = found.iter_mut().map(|(at, _)| at).chain(failed.iter_mut().map(|(at, _)| at));
        ages.for_each(|at| *at = at.checked_sub(by).expect("the machine has run for longer"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
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
        let world = Arc::new(World::default());
        let waiting: Vec<_> = (0..64)
            .map(|_| {
                tokio::spawn({
                    let world = world.clone();
                    async move { world.asked(false, Duration::MAX).await }
                })
            })
            .collect();
        world.answer.notify_one();
        for waiting in waiting {
            waiting.await.unwrap().unwrap_err();
        }
        assert_eq!(world.times.load(Ordering::Relaxed), 1, "and nobody waits for an answer of their own");
        world.lazy.grow_old(LAZY_FAILURE_GOOD_FOR).await;
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
