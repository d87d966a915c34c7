//! Reading connections of a database: a few, each on a thread of its own that starts when it is first needed, each used by
//! one read at a time, the last used first.
//!
//! A slow disk never holds up an async thread. A connection stays on one thread, because its page cache is memory that the
//! allocator keeps per thread: wandering over the runtime's blocking threads, a few caches of 4 MiB came to hold
//! 80 MiB (`bench memory`). Reads run inside one read transaction each, so that several statements see one state. A read
//! that begins after a write was answered sees that write: the strong consistency that settling needs (V1). Nothing is
//! written here.

use super::error_map::{Attempt, Fault};
use super::open::connect_reader;
use crate::limits::READERS;
use engine::error::PortResult;
use rusqlite::Connection;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// The reading connections of one database.
pub struct Readers {
    shared: Arc<Shared>,
    places: Arc<Semaphore>,
}

struct Shared {
    name: String,
    path: PathBuf,
    remedy: &'static str,
    pool: Mutex<Pool>,
}

#[derive(Default)]
struct Pool {
    /// The threads that wait for work. One that hears of no sender any more ends.
    idle: Vec<Sender<Work>>,
    started: Vec<JoinHandle<()>>,
    closed: bool,
}

/// On a connection that is opened when it is first needed.
type Read = Box<dyn FnOnce(&mut Option<Connection>) + Send>;

/// What a thread is handed, with what it gives back afterwards.
struct Work {
    read: Read,
    thread: Sender<Work>,
    place: OwnedSemaphorePermit,
}

impl Readers {
    /// For the database at that path, which is open for writing already. `name` is its threads'.
    pub fn new(name: &str, path: PathBuf, remedy: &'static str) -> Readers {
        let shared = Shared { name: name.to_owned(), path, remedy, pool: Mutex::default() };
        Readers { shared: Arc::new(shared), places: Arc::new(Semaphore::new(READERS)) }
    }

    /// Runs the closure inside a read transaction. `attempted` and `object` are for the error.
    pub async fn run<T, F>(&self, attempted: &'static str, object: impl Into<String>, work: F) -> PortResult<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    {
        let attempt = Attempt { attempted, object: object.into(), remedy: self.shared.remedy };
        let Ok(place) = Arc::clone(&self.places).acquire_owned().await else { return Err(attempt.unanswered()) };
        let thread = self.shared.thread().map_err(|error| attempt.unanswered().because(error))?;
        let (caller, answer) = oneshot::channel();
        let shared = Arc::clone(&self.shared);
        let failed = attempt.clone();
        let read = Box::new(move |connection: &mut Option<Connection>| {
            let outcome = shared.read(connection, work).map_err(|fault| attempt.failed(fault));
            // Nobody waits any more if the caller was dropped: nothing was changed.
            drop(caller.send(outcome));
        });
        let work = Work { read, thread: thread.clone(), place };
        thread.send(work).map_err(|_| failed.defect("the reading thread is gone"))?;
        answer.await.map_err(|_| failed.defect("the read panicked"))?
    }

    /// Waits for the reads under way and closes the connections. Later reads are refused.
    pub async fn close(&self) {
        let all = u32::try_from(READERS).expect("a handful");
        if let Ok(places) = self.places.acquire_many(all).await {
            self.places.close();
            drop(places);
        }
        for thread in self.shared.pool().close() {
            // It has nothing left to do but to close its connection. A read that panicked has said so to its caller.
            drop(thread.join());
        }
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        drop(self.shared.pool().close());
    }
}

impl Pool {
    fn close(&mut self) -> Vec<JoinHandle<()>> {
        self.closed = true;
        self.idle.clear();
        std::mem::take(&mut self.started)
    }
}

impl Shared {
    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread that was last at work, since its cache is warm; else a new one. At most [`READERS`]: the caller has a place.
    fn thread(self: &Arc<Self>) -> std::io::Result<Sender<Work>> {
        let mut pool = self.pool();
        if let Some(thread) = pool.idle.pop() {
            return Ok(thread);
        }
        let (thread, work) = channel();
        let shared = Arc::clone(self);
        let name = std::thread::Builder::new().name(format!("read-{}", self.name));
        let started = name.spawn(move || shared.serve(&work))?;
        pool.started.retain(|thread| !thread.is_finished());
        pool.started.push(started);
        Ok(thread)
    }

    fn serve(&self, work: &Receiver<Work>) {
        let mut connection = None;
        while let Ok(Work { read, thread, place }) = work.recv() {
            read(&mut connection);
            let mut pool = self.pool();
            if !pool.closed {
                pool.idle.push(thread);
            }
            drop(pool);
            drop(place); // last: whoever gets it finds the thread idle
        }
    }

    fn read<T>(
        &self,
        slot: &mut Option<Connection>,
        work: impl FnOnce(&Connection) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let connection = match slot.take() {
            Some(connection) => connection,
            None => connect_reader(&self.path)?,
        };
        connection.prepare_cached("BEGIN")?.execute([])?;
        let outcome = work(&connection);
        connection.prepare_cached("ROLLBACK")?.execute([])?;
        // A connection whose transaction could not be ended was dropped above; this one is fit for the next read.
        *slot = Some(connection);
        outcome
    }
}
