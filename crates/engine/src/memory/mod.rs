//! Every port in memory: what tests and the simulation run the flows on.
//!
//! One file per port, plain data behind a mutex that is never held across an await: each call takes effect at one moment,
//! as one request to a real store does. Nothing here fails, lags or waits by itself; the simulation and the wrappers put
//! faults in front. Only built for tests (feature `testing`). Laws kept: those that the ports' contracts state; the
//! conformance suites judge these adapters like any other. Nothing outlives the process, so a crash leaves nothing.

pub mod bucket;
pub mod catalog;
pub mod clock;
pub mod copier;
pub mod journal;
pub mod nonces;
pub mod queue;
pub mod stream;
pub mod table;
pub mod wiring;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks, also after a panic elsewhere: a test that has failed already shall show its own message, not a poisoned lock.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
