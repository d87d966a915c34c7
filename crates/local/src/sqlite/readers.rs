//! Reading connections of a database: a few, opened when first needed, each used by one reader at a time.
//!
//! Reads run on the runtime's blocking threads, so that a slow disk never holds up an async thread, and inside one read
//! transaction each, so that several statements see one state. A read that begins after a write was answered sees that
//! write: the strong consistency that settling needs (V1). Nothing is written here.

use super::error_map::{Attempt, Fault};
use super::open::connect_reader;
use crate::limits::READERS;
use crate::places::{Broken, Places};
use engine::error::PortResult;
use rusqlite::Connection;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// The reading connections of one database.
pub struct Readers {
    shared: Arc<Shared>,
    places: Places,
}

struct Shared {
    path: PathBuf,
    remedy: &'static str,
    idle: Mutex<Vec<Connection>>,
}

impl Readers {
    /// For the database at that path, which is open for writing already.
    pub fn new(path: PathBuf, remedy: &'static str) -> Readers {
        let shared = Shared { path, remedy, idle: Mutex::new(Vec::with_capacity(READERS)) };
        Readers { shared: Arc::new(shared), places: Places::new(READERS) }
    }

    /// Runs the closure inside a read transaction. `attempted` and `object` are for the error.
    pub async fn run<T, F>(&self, attempted: &'static str, object: impl Into<String>, work: F) -> PortResult<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    {
        let attempt = Attempt { attempted, object: object.into(), remedy: self.shared.remedy };
        let shared = Arc::clone(&self.shared);
        let failed = attempt.clone();
        let read = move || shared.read(work).map_err(|fault| attempt.failed(fault));
        match self.places.run(read).await {
            Ok(outcome) => outcome,
            Err(Broken::Panicked) => Err(failed.defect("the read panicked")),
            Err(Broken::Closed) => Err(failed.unanswered()),
        }
    }

    /// Waits for the reads under way and closes the connections. Later reads are refused.
    pub async fn close(&self) {
        self.places.close(READERS).await;
        self.shared.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Shared {
    fn read<T>(&self, work: impl FnOnce(&Connection) -> Result<T, Fault>) -> Result<T, Fault> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => connect_reader(&self.path)?,
        };
        connection.prepare_cached("BEGIN")?.execute([])?;
        let outcome = work(&connection);
        connection.prepare_cached("ROLLBACK")?.execute([])?;
        // A connection whose transaction could not be ended was dropped above; this one is fit for the next reader.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        outcome
    }
}
