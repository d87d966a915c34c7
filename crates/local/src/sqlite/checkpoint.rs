//! Folds the write-ahead log into the database beside the writer, so that nobody's write waits for it.
//!
//! A thread with a connection of its own copies pages while the writer goes on committing; what was committed meanwhile, the
//! writer folds in itself, which is little. Then the log is whole in the database and starts over, so it stays bounded.
//! A crash at any moment leaves database and log that read as one, as SQLite promises. Law: I10.

use rusqlite::Connection;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

/// The thread that folds one database's log in.
pub(super) struct Checkpointer {
    wake: SyncSender<()>,
    thread: JoinHandle<()>,
    /// The thread has folded in what there was when it began, and the writer has not finished that yet.
    folded: Arc<AtomicBool>,
}

impl Checkpointer {
    /// Starts the thread. Errors: the system has no thread to give.
    pub(super) fn start(name: &str, connection: Connection) -> io::Result<Checkpointer> {
        let (wake, woken) = sync_channel(1);
        let folded = Arc::new(AtomicBool::new(false));
        let tell = Arc::clone(&folded);
        let thread = std::thread::Builder::new().name(format!("fold-{name}"));
        let thread = thread.spawn(move || serve(&connection, &woken, &tell))?;
        Ok(Checkpointer { wake, thread, folded })
    }

    /// Asks for a checkpoint, soon. One that was asked for and has not begun yet serves this call too.
    pub(super) fn wake(&self) {
        match self.wake.try_send(()) {
            Ok(()) | Err(TrySendError::Full(())) => {}
            // SQLite's own threshold stands behind this one.
            Err(TrySendError::Disconnected(())) => tracing::warn!("nobody folds in a database's log any more"),
        }
    }

    /// Whether a checkpoint ended since the last call: the writer then folds in the little that came meanwhile.
    pub(super) fn take_folded(&self) -> bool {
        self.folded.swap(false, Ordering::Relaxed)
    }

    /// Ends the thread and its connection.
    pub(super) fn end(self) {
        drop(self.wake);
        if self.thread.join().is_err() {
            tracing::warn!("the thread that folds in a database's log had panicked");
        }
    }
}

fn serve(connection: &Connection, woken: &Receiver<()>, folded: &AtomicBool) {
    while woken.recv().is_ok() {
        checkpoint(connection);
        folded.store(true, Ordering::Relaxed);
    }
}

/// Folds in what no reader stands in the way of.
pub(super) fn checkpoint(connection: &Connection) {
    if let Err(error) = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())) {
        // Nothing is lost: the log only stays longer, and SQLite's own threshold stands behind this one.
        tracing::warn!(%error, "the write-ahead log was not folded in");
    }
}
