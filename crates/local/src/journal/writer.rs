//! The journal's one writer: a thread that appends in groups, each made durable by one fsync before anybody is answered.
//!
//! A crash in the middle leaves a part of a group that nobody was told of: whole lines of it stay, and are true (the act
//! that they announce may not have happened, which a line written before the act never promised); a torn last line is cut
//! off at the next opening and kept aside. A failed write is taken back before the next one, so that the file never holds
//! half a line in its middle. Laws: I8, I12.

use super::segments::{Piece, Pieces, Segment, list};
use crate::io_error::io_failed;
use crate::limits::{JOURNAL_BATCH_LINES, JOURNAL_QUEUE};
use engine::error::{PortError, PortResult};
use engine::format::journal_line::{Hash, read_link, write_line};
use engine::ports::journal::Entry;
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{mpsc, oneshot};

/// How far the journal is durable: readers go up to here and no further.
#[derive(Clone, Debug)]
pub(super) struct End {
    /// The segment that is written.
    pub(super) segment: Segment,
    /// Its durable bytes.
    pub(super) bytes: u64,
    /// The number of the last line; 0 when there is none.
    pub(super) number: u64,
    /// The last line's hash.
    pub(super) hash: Hash,
}

/// The end, shared between writer and readers.
#[derive(Clone)]
pub(super) struct SharedEnd(Arc<Mutex<End>>);

impl SharedEnd {
    /// The end as it is now.
    pub(super) fn now(&self) -> End {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, End> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the thread is asked to do.
pub(super) enum Request {
    /// Append these lines and answer when they are durable.
    Append(Vec<Entry>, oneshot::Sender<PortResult<()>>),
    /// Answer what waits, then end and say so.
    Close(oneshot::Sender<()>),
}

/// Opens the journal and starts its writer. Blocks.
pub(super) fn start(folder: &Path, segment_bytes: u64) -> PortResult<(mpsc::Sender<Request>, SharedEnd)> {
    let object = folder.display().to_string();
    let io = |error| io_failed("open journal", &object, error);
    std::fs::create_dir_all(folder).map_err(io)?;
    let (file, end) = open_last(folder).map_err(io)?;
    let end = SharedEnd(Arc::new(Mutex::new(end)));
    let (queue, requests) = mpsc::channel(JOURNAL_QUEUE);
    let thread =
        WriterThread { folder: folder.to_owned(), segment_bytes, file, end: end.clone(), requests, unsure: false };
    std::thread::Builder::new().name("journal".to_owned()).spawn(move || thread.serve()).map_err(io)?;
    Ok((queue, end))
}

/// Opens the newest segment for appending, without the torn line that a crash may have left.
fn open_last(folder: &Path) -> io::Result<(File, End)> {
    let segments = list(folder)?;
    let mut end = End { segment: Segment(1), bytes: 0, number: 0, hash: Hash::start() };
    // The newest segment may be empty, after a crash right after it was made: then the one before has the last line.
    for (newer, segment) in segments.iter().rev().enumerate() {
        let path = segment.path(folder);
        let mut pieces = Pieces::open(&path, u64::MAX)?;
        let mut last = None;
        let mut torn = false;
        while let Some(piece) = pieces.next()? {
            match piece {
                Piece::Line(line) => last = read_link(line).or(last),
                Piece::TooLong => {}
                Piece::Torn => {
                    torn = true;
                    break;
                }
            }
        }
        if newer == 0 {
            end.segment = *segment;
            end.bytes = pieces.offset;
            if torn {
                set_aside(folder, *segment, pieces.offset)?;
            }
        }
        if let Some(last) = last {
            end.number = last.number;
            end.hash = last.stated;
            break;
        }
    }
    let file = open_segment(folder, end.segment)?;
    Ok((file, end))
}

fn open_segment(folder: &Path, segment: Segment) -> io::Result<File> {
    let file = OpenOptions::new().create(true).append(true).open(segment.path(folder))?;
    File::open(folder)?.sync_all()?;
    Ok(file)
}

/// Cuts the torn line off the segment and keeps its bytes in a file beside it.
fn set_aside(folder: &Path, segment: Segment, offset: u64) -> io::Result<()> {
    let path = segment.path(folder);
    let mut file = OpenOptions::new().read(true).write(true).open(&path)?;
    file.seek(SeekFrom::Start(offset))?;
    let aside = folder.join(format!("{}.torn-at-{offset}", segment.name()));
    // Copied and durable before it is cut; a crash in between copies it again.
    let mut copy = File::create(&aside)?;
    let bytes = io::copy(&mut file, &mut copy)?;
    copy.sync_all()?;
    File::open(folder)?.sync_all()?;
    file.set_len(offset)?;
    file.sync_all()?;
    tracing::warn!(
        segment = %path.display(), bytes, kept = %aside.display(),
        "the journal's last line was incomplete after a crash; it was cut off and kept aside"
    );
    Ok(())
}

struct WriterThread {
    folder: PathBuf,
    segment_bytes: u64,
    file: File,
    end: SharedEnd,
    requests: mpsc::Receiver<Request>,
    /// A write failed, and what it left in the file is not cut off yet.
    unsure: bool,
}

type Waiting = (PortResult<()>, oneshot::Sender<PortResult<()>>);

impl WriterThread {
    fn serve(mut self) {
        let mut closers = Vec::new();
        while let Some(first) = self.requests.blocking_recv() {
            let answers = self.group(first, &mut closers);
            for (outcome, caller) in answers {
                // Whoever was dropped while waiting has lost the answer, not the line.
                drop(caller.send(outcome));
            }
            if !closers.is_empty() {
                self.requests.close();
            }
        }
        drop(self.file);
        for closer in closers {
            if closer.send(()).is_err() {
                tracing::debug!("the journal was closed for somebody who waits no more");
            }
        }
    }

    /// Writes one group; gives back its answers.
    fn group(&mut self, first: Request, closers: &mut Vec<oneshot::Sender<()>>) -> Vec<Waiting> {
        let mut end = self.end.now();
        let (mut bytes, mut lines) = (Vec::new(), 0);
        let mut answers: Vec<Waiting> = Vec::new();
        let mut next = Some(first);
        while let Some(request) = next.take() {
            match request {
                Request::Append(entries, caller) => {
                    answers.push((encode(&entries, &mut bytes, &mut end), caller));
                    lines += entries.len();
                }
                Request::Close(ended) => {
                    closers.push(ended);
                    break;
                }
            }
            if lines < JOURNAL_BATCH_LINES {
                next = self.requests.try_recv().ok();
            }
        }
        if let Err(error) = self.write(&bytes, end) {
            self.unsure = true;
            let object = self.end.now().segment.path(&self.folder).display().to_string();
            let failed = io_failed("append to journal", &object, error);
            let lose = |outcome: &mut PortResult<()>| *outcome = outcome.clone().and(Err(failed.clone()));
            answers.iter_mut().for_each(|(outcome, _)| lose(outcome));
        }
        answers
    }

    /// Makes the bytes durable, then moves the end.
    fn write(&mut self, bytes: &[u8], mut end: End) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        if self.unsure {
            self.file.set_len(end.bytes)?;
            self.unsure = false;
        }
        if end.bytes >= self.segment_bytes {
            let next = Segment(end.segment.0 + 1);
            self.file = open_segment(&self.folder, next)?;
            (end.segment, end.bytes) = (next, 0);
            // A crash from here on finds an empty newest segment, and the last line in the one before.
            let empty = End { segment: next, bytes: 0, ..self.end.now() };
            *self.end.lock() = empty;
        }
        self.file.write_all(bytes)?;
        self.file.sync_data()?;
        end.bytes += bytes.len() as u64;
        *self.end.lock() = end;
        Ok(())
    }
}

/// Adds one caller's lines to the group, all of them or, if one cannot be written down, none.
fn encode(entries: &[Entry], bytes: &mut Vec<u8>, end: &mut End) -> PortResult<()> {
    let (start, number, hash) = (bytes.len(), end.number, end.hash.clone());
    let mut write = || {
        for entry in entries {
            end.hash = write_line(bytes, end.number + 1, &end.hash, entry)?;
            end.number += 1;
        }
        Ok::<(), PortError>(())
    };
    let outcome = write();
    if outcome.is_err() {
        bytes.truncate(start);
        (end.number, end.hash) = (number, hash);
    }
    outcome
}
