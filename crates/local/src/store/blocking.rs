//! A bounded number of threads for what blocks: concurrent fsyncs share journal commits, and a slow disk never holds up an
//! async thread (I10).

use super::panicked;
use engine::error::{ErrorKind, PortError, PortResult};
use std::fmt;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Places on the runtime's blocking threads.
#[derive(Clone)]
pub(super) struct Blocking(Arc<Semaphore>);

impl Blocking {
    pub(super) fn new(places: usize) -> Blocking {
        Blocking(Arc::new(Semaphore::new(places)))
    }

    /// Runs the work there. `attempted` and `object` are for the error.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        attempted: &'static str,
        object: impl fmt::Display,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> PortResult<T> {
        let place = Arc::clone(&self.0).acquire_owned().await;
        let place = place.map_err(|_| PortError::new(attempted, &object, ErrorKind::Cancelled))?;
        let work = move || {
            let outcome = work();
            drop(place);
            outcome
        };
        tokio::task::spawn_blocking(work).await.map_err(|_| panicked(attempted, object))
    }
}
