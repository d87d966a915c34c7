//! A bounded number of threads for the store's file operations: concurrent fsyncs share journal commits, and a slow disk never
//! holds up an async thread (I10).

use super::panicked;
use crate::places::{Broken, Places};
use engine::error::{ErrorKind, PortError, PortResult};
use std::fmt;

/// Places on the runtime's blocking threads.
#[derive(Clone)]
pub(super) struct Blocking(Places);

impl Blocking {
    pub(super) fn new(places: usize) -> Blocking {
        Blocking(Places::new(places))
    }

    /// Runs the work there. `attempted` and `object` are for the error.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        attempted: &'static str,
        object: impl fmt::Display,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> PortResult<T> {
        self.0.run(work).await.map_err(|broken| match broken {
            Broken::Panicked => panicked(attempted, object),
            Broken::Closed => PortError::new(attempted, &object, ErrorKind::Cancelled),
        })
    }
}
