//! The journal on one machine (I12): JSON lines in `journal/000001.jsonl` and so on, each with the hash of the one before.
//!
//! Place: steps and flows append before they destroy, bring back or refuse; `history` and `audit` read. One process holds
//! the folder (the data folder's lock); one thread in it writes. What a crash leaves stands in `writer.rs`, the format in
//! `docs/formats.md`.

mod read;
mod segments;
mod writer;

#[cfg(test)]
mod tests;

use crate::limits::SEGMENT_BYTES;
use async_trait::async_trait;
use engine::error::{ErrorKind, PortError, PortResult};
use engine::ports::journal::{Audit, Entry, Journal, JournalRead, Line};
use lifecycle::ids::ObjectKey;
use std::path::{Path, PathBuf};
use tokio::sync::{mpsc, oneshot};
use writer::{Request, SharedEnd};

/// The journal in a folder.
pub struct FileJournal {
    folder: PathBuf,
    queue: mpsc::Sender<Request>,
    end: SharedEnd,
}

impl FileJournal {
    /// Opens the journal of that folder, or makes it; a torn last line is cut off and kept aside. Blocks.
    pub fn open(folder: &Path) -> PortResult<FileJournal> {
        FileJournal::open_with(folder, SEGMENT_BYTES)
    }

    fn open_with(folder: &Path, segment_bytes: u64) -> PortResult<FileJournal> {
        let (queue, end) = writer::start(folder, segment_bytes)?;
        Ok(FileJournal { folder: folder.to_owned(), queue, end })
    }

    /// Answers what was asked before, then ends the writer. Later appends are refused.
    pub async fn close(&self) {
        let (ended, end) = oneshot::channel();
        if self.queue.send(Request::Close(ended)).await.is_ok() {
            // An error here means that another `close` was faster.
            drop(end.await);
        }
    }

    fn unanswered(&self, attempted: &'static str) -> PortError {
        PortError::new(attempted, self.folder.display(), ErrorKind::Unavailable)
    }

    /// Reads off the async threads.
    async fn reading<T, F>(&self, attempted: &'static str, read: F) -> PortResult<T>
    where
        T: Send + 'static,
        F: FnOnce(&Path, &writer::End) -> PortResult<T> + Send + 'static,
    {
        let (folder, end) = (self.folder.clone(), self.end.now());
        let outcome = tokio::task::spawn_blocking(move || read(&folder, &end)).await;
        outcome.map_err(|_| self.unanswered(attempted))?
    }
}

#[async_trait]
impl Journal for FileJournal {
    async fn append(&self, entries: &[Entry]) -> PortResult<()> {
        if entries.is_empty() {
            return Ok(());
        }
        let (caller, answer) = oneshot::channel();
        let request = Request::Append(entries.to_vec(), caller);
        let gone = || self.unanswered("append to journal");
        self.queue.send(request).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

#[async_trait]
impl JournalRead for FileJournal {
    async fn about(&self, key: Option<&ObjectKey>, limit: usize) -> PortResult<Vec<Line>> {
        let key = key.map(ToString::to_string);
        self.reading("read journal", move |folder, end| read::about(folder, end, key.as_deref(), limit)).await
    }

    async fn audit(&self) -> PortResult<Audit> {
        self.reading("audit journal", read::audit).await
    }
}
