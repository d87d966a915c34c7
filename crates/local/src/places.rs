//! A bounded number of places on the runtime's blocking threads: for what blocks, so that a slow disk never holds up an async
//! thread (I10).
//!
//! Who waits for a place need not be polled to get it, and to leave it again. Futures of one task side by side are polled
//! only while their stream is: if one of them had a place without being polled, and what is awaited meanwhile needed one, all
//! would wait for ever. So the wait is a task's, and the place goes into the work, never into the caller's future.

use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::AbortOnDropHandle;

/// So many places.
#[derive(Clone)]
pub(crate) struct Places(Arc<Semaphore>);

/// Why work gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// It panicked.
    Panicked,
    /// The places are closed, or the runtime is going down.
    Closed,
}

impl Places {
    pub(crate) fn new(places: usize) -> Places {
        Places(Arc::new(Semaphore::new(places)))
    }

    /// Runs the work on a blocking thread, when there is a place. Dropped before that, it is not run; later, it ends by itself.
    pub(crate) async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Broken> {
        // Mostly there is one.
        if let Ok(place) = Arc::clone(&self.0).try_acquire_owned() {
            return run_at(place, work).await;
        }
        let places = Arc::clone(&self.0);
        let waits = tokio::spawn(async move {
            let Ok(place) = places.acquire_owned().await else { return Err(Broken::Closed) };
            run_at(place, work).await
        });
        AbortOnDropHandle::new(waits).await.unwrap_or_else(|error| Err(broken(&error)))
    }

    /// Waits for the work under way; what comes later is refused.
    pub(crate) async fn close(&self, places: usize) {
        let all = u32::try_from(places).expect("a handful");
        if let Ok(places) = self.0.acquire_many(all).await {
            self.0.close();
            drop(places);
        }
    }
}

async fn run_at<T: Send + 'static>(
    place: OwnedSemaphorePermit,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Broken> {
    let work = move || {
        let outcome = work();
        drop(place);
        outcome
    };
    tokio::task::spawn_blocking(work).await.map_err(|error| broken(&error))
}

fn broken(error: &tokio::task::JoinError) -> Broken {
    if error.is_panic() { Broken::Panicked } else { Broken::Closed }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use futures_util::StreamExt;
    use futures_util::stream::FuturesUnordered;

    #[tokio::test]
    async fn who_holds_futures_that_it_does_not_poll_gets_places_all_the_same() {
        let places = Places::new(2);
        let mut held: FuturesUnordered<_> = (0..50).map(|n| places.run(move || n)).collect();
        // All of them are begun, and not polled again.
        assert!(held.next().now_or_never().is_none() || held.len() == 49);
        assert_eq!(places.run(|| "answered").await, Ok("answered"));
        assert_eq!(held.map(|n| n.expect("no panic")).fold(0, |most, n: i32| async move { most.max(n) }).await, 49);
    }

    #[tokio::test]
    async fn a_panic_frees_the_place_and_closed_places_refuse() {
        let places = Places::new(1);
        let broken = places.run(|| -> u32 { panic!("on purpose") }).await;
        assert_eq!(broken, Err(Broken::Panicked));
        assert_eq!(places.run(|| 1).await, Ok(1));
        places.close(1).await;
        assert_eq!(places.run(|| 1).await, Err(Broken::Closed));
    }
}
