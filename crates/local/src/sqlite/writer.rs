//! The one writer of a database: a thread that commits in groups.
//!
//! Callers hand in a closure over the open transaction and wait. The thread takes whatever waits by then into one
//! transaction, each job in a savepoint of its own, commits with `synchronous = FULL`, and only then answers them all:
//! an answer means durable (I8), and one fsync serves many callers. A job that fails takes back its own changes only.
//!
//! A caller that is dropped while it waits does not take its job back: the change may commit all the same, as with any
//! request whose answer got lost. A crash before the commit leaves nothing of the group, and nobody was answered; a crash
//! after it leaves all of it. Laws: I8, I10.

use super::checkpoint::{Checkpointer, checkpoint};
use super::error_map::{Attempt, Fault};
use crate::limits::{CHECKPOINT_ROWS, WRITER_BATCH, WRITER_QUEUE};
use engine::error::{ErrorKind, PortError, PortResult};
use rusqlite::Connection;
use std::panic::{AssertUnwindSafe, catch_unwind};
use tokio::sync::{mpsc, oneshot};

/// Hands jobs to the writer thread of one database.
pub struct Writer {
    queue: mpsc::Sender<Message>,
    remedy: &'static str,
}

enum Message {
    Job(Box<dyn Job>),
    /// Answer what waits, close the file, then say so.
    Close(oneshot::Sender<()>),
}

/// One caller's closure, as the thread sees it: run it, then answer when the group's fate is known.
trait Job: Send {
    /// Runs the closure; whether its changes are to be kept.
    fn run(&mut self, transaction: &Connection) -> bool;
    /// Why it failed, if it did.
    fn failure(&self) -> Option<&PortError>;
    /// Its changes are lost, for this reason (a job that failed by itself keeps its own error).
    fn lose(&mut self, fault: &PortError);
    /// Answers the caller.
    fn answer(self: Box<Self>);
}

struct Closure<T, F> {
    attempt: Attempt,
    work: Option<F>,
    outcome: PortResult<T>,
    caller: oneshot::Sender<PortResult<T>>,
}

impl<T, F> Job for Closure<T, F>
where
    T: Send,
    F: FnOnce(&Connection) -> Result<T, Fault> + Send,
{
    fn run(&mut self, transaction: &Connection) -> bool {
        let work = self.work.take().expect("a job is run once");
        // A panic in one job must not take the writer of all others with it; its savepoint is rolled back.
        self.outcome = match catch_unwind(AssertUnwindSafe(|| work(transaction))) {
            Ok(result) => result.map_err(|fault| self.attempt.failed(fault)),
            Err(_) => Err(self.attempt.defect("the job panicked")),
        };
        self.outcome.is_ok()
    }

    fn failure(&self) -> Option<&PortError> {
        self.outcome.as_ref().err()
    }

    fn lose(&mut self, fault: &PortError) {
        if self.outcome.is_ok() || self.work.is_some() {
            let PortError { kind, source, .. } = fault.clone();
            let Attempt { attempted, object, .. } = self.attempt.clone();
            self.outcome = Err(PortError { attempted, object, kind, source });
        }
    }

    fn answer(self: Box<Self>) {
        // Nobody waits any more if the caller was dropped: the change stands, as the file's head says.
        drop(self.caller.send(self.outcome));
    }
}

impl Writer {
    /// Starts the thread on a connection that is set up for writing; `beside`, another one, folds the log in. Errors: the
    /// system has no thread to give.
    pub fn start(
        name: &str,
        connection: Connection,
        beside: Connection,
        remedy: &'static str,
    ) -> std::io::Result<Writer> {
        let checkpointer = Checkpointer::start(name, beside)?;
        let (queue, messages) = mpsc::channel(WRITER_QUEUE);
        let thread = std::thread::Builder::new().name(format!("write-{name}"));
        thread.spawn(move || {
            WriterThread { connection, messages, remedy, rows_unfolded: 0, checkpointer }.serve();
        })?;
        Ok(Writer { queue, remedy })
    }

    /// Runs the closure inside the next group's transaction. When this returns `Ok`, its changes are durable; when it
    /// returns an error that the closure gave, none of them are.
    ///
    /// `attempted` (verb and kind of object) and `object` are for the error. The closure must not commit or roll back.
    pub async fn run<T, F>(&self, attempted: &'static str, object: impl Into<String>, work: F) -> PortResult<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    {
        let attempt = Attempt { attempted, object: object.into(), remedy: self.remedy };
        let (caller, answer) = oneshot::channel();
        let outcome = Err(attempt.unanswered());
        let job = Closure { attempt: attempt.clone(), work: Some(work), outcome, caller };
        self.queue.send(Message::Job(Box::new(job))).await.map_err(|_| attempt.unanswered())?;
        answer.await.map_err(|_| attempt.unanswered())?
    }

    /// Answers every job handed in before, then closes the file cleanly (its WAL is folded in). Later jobs are refused.
    pub async fn close(&self) {
        let (ended, end) = oneshot::channel();
        if self.queue.send(Message::Close(ended)).await.is_ok() {
            // An error here means that another `close` was faster: the file is closed all the same.
            drop(end.await);
        }
    }
}

struct WriterThread {
    connection: Connection,
    messages: mpsc::Receiver<Message>,
    remedy: &'static str,
    /// Rows changed since a checkpoint was last asked for.
    rows_unfolded: u64,
    checkpointer: Checkpointer,
}

impl WriterThread {
    fn serve(mut self) {
        let mut closers = Vec::new();
        while let Some(message) = self.messages.blocking_recv() {
            let before = self.connection.total_changes();
            for job in self.group(message, &mut closers) {
                job.answer();
            }
            if !closers.is_empty() {
                self.messages.close();
            }
            self.rows_unfolded += self.connection.total_changes().wrapping_sub(before);
            self.checkpoint();
        }
        // The last connection to close folds the rest in and removes the log: that shall be this one.
        self.checkpointer.end();
        if let Err((_, error)) = self.connection.close() {
            tracing::warn!(%error, "the database was not closed cleanly: it is checked when it is opened next");
        }
        for closer in closers {
            if closer.send(()).is_err() {
                tracing::debug!("the database was closed for somebody who waits no more");
            }
        }
    }

    /// Runs one group to its commit; gives back its jobs, ready to be answered.
    fn group(&mut self, first: Message, closers: &mut Vec<oneshot::Sender<()>>) -> Vec<Box<dyn Job>> {
        let mut group: Vec<Box<dyn Job>> = Vec::new();
        let mut next = Some(first);
        while let Some(message) = next.take() {
            let mut job = match message {
                Message::Job(job) => job,
                Message::Close(ended) => {
                    closers.push(ended);
                    break;
                }
            };
            let ran = self.run_in_savepoint(job.as_mut());
            group.push(job);
            if let Err(error) = ran {
                self.lose(&mut group, &error);
                return group;
            }
            if group.len() < WRITER_BATCH {
                next = self.messages.try_recv().ok();
            }
        }
        if !self.connection.is_autocommit()
            && let Err(error) = self.execute("COMMIT").map_err(|error| self.lost(error))
        {
            self.lose(&mut group, &error);
        }
        group
    }

    /// Runs one job so that its failure takes back its own changes only. `Err`: the whole transaction is lost.
    fn run_in_savepoint(&self, job: &mut dyn Job) -> PortResult<()> {
        let lost = |error| self.lost(error);
        if self.connection.is_autocommit() {
            self.execute("BEGIN IMMEDIATE").map_err(lost)?;
        }
        self.execute("SAVEPOINT job").map_err(lost)?;
        let keep = job.run(&self.connection);
        if self.connection.is_autocommit() {
            // Out of space or memory, SQLite rolls back everything by itself: the others of the group hear why.
            let defect = || PortError::new("commit transaction", "", ErrorKind::Internal("a job ended it".to_owned()));
            return Err(job.failure().cloned().unwrap_or_else(defect));
        }
        if !keep {
            self.execute("ROLLBACK TO job").map_err(lost)?;
        }
        self.execute("RELEASE job").map_err(lost)
    }

    fn lost(&self, error: rusqlite::Error) -> PortError {
        let attempt = Attempt { attempted: "commit transaction", object: String::new(), remedy: self.remedy };
        attempt.failed(Fault::Sqlite(error))
    }

    /// Tells the group that its changes are lost, and makes sure that they are.
    fn lose(&self, group: &mut [Box<dyn Job>], error: &PortError) {
        group.iter_mut().for_each(|job| job.lose(error));
        if !self.connection.is_autocommit()
            && let Err(error) = self.execute("ROLLBACK")
        {
            // The next group's BEGIN fails then, and says so to its callers.
            tracing::warn!(%error, "a transaction could not be rolled back");
        }
    }

    /// Has the log folded in when it has grown, after the callers are answered.
    fn checkpoint(&mut self) {
        if self.checkpointer.take_folded() {
            checkpoint(&self.connection);
        }
        if self.rows_unfolded >= CHECKPOINT_ROWS {
            self.checkpointer.wake();
            self.rows_unfolded = 0;
        }
    }

    fn execute(&self, sql: &str) -> rusqlite::Result<()> {
        self.connection.prepare_cached(sql)?.execute([]).map(drop)
    }
}
