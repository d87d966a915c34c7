//! Resolve: from the place of records in a stream to the records themselves.
//!
//! Lambda tells of a batch that it gave up only where it stood: shard, first and last number. The stream forgets what stood
//! there after a day, so that a place must become records before. Page by page: memory holds one. Nothing is written here:
//! a crash leaves nothing. Laws: I10, I11.

use crate::error::{ErrorKind, PortError, PortResult};
use crate::limits::STRETCH_EMPTY_PAGES_MAX;
use crate::ports::streams::{Position, Read, RecordStream, ShardId, ShardReader, StreamRecord};
use lifecycle::archive::Sequence;

/// A stretch of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// Of which shard.
    pub shard: ShardId,
    /// The first record's number.
    pub from: Sequence,
    /// The last record's number.
    pub to: Sequence,
}

/// Reads the records of a stretch.
pub struct Resolving<'a> {
    stream: &'a dyn RecordStream,
    stretch: &'a Stretch,
    reader: Box<dyn ShardReader>,
    /// What was to be read next was forgotten: the oldest that there is was asked for, and has not come yet.
    from_oldest: bool,
    /// The last record that was read of it.
    last: Option<Sequence>,
    lost: Option<String>,
    is_over: bool,
}

impl<'a> Resolving<'a> {
    /// Begins.
    pub async fn open(stream: &'a dyn RecordStream, stretch: &'a Stretch) -> PortResult<Resolving<'a>> {
        let reader = stream.open(&stretch.shard, Position::At(stretch.from.clone())).await?;
        Ok(Resolving { stream, stretch, reader, from_oldest: false, last: None, lost: None, is_over: false })
    }

    /// What the stream has forgotten of it, in words; known once there is nothing more to read.
    pub fn lost(&self) -> Option<&str> {
        self.lost.as_deref()
    }

    /// The next records, at least one; `None`: that was all.
    pub async fn next(&mut self) -> PortResult<Option<Vec<StreamRecord>>> {
        if self.is_over {
            return Ok(None);
        }
        for _ in 0..STRETCH_EMPTY_PAGES_MAX {
            match self.reader.next().await? {
                Read::Records(records) if records.is_empty() => {}
                Read::Records(records) => {
                    let within = self.within(records);
                    if self.is_over || within.is_some() {
                        return Ok(within);
                    }
                }
                Read::Trimmed if !self.from_oldest => {
                    self.from_oldest = true;
                    self.reader = self.stream.open(&self.stretch.shard, Position::Oldest).await?;
                }
                Read::Trimmed | Read::End | Read::Gone => return Ok(self.within(Vec::new())),
            }
        }
        // An empty page is not the end of a shard.
        Err(PortError::new("read stretch of shard", &self.stretch.shard, ErrorKind::Unavailable))
    }

    /// Those that belong to it; none of them: it is over.
    fn within(&mut self, records: Vec<StreamRecord>) -> Option<Vec<StreamRecord>> {
        let Stretch { from, to, .. } = self.stretch;
        let is_behind = records.last().is_none_or(|last| last.sequence >= *to);
        let was_forgotten = !records.is_empty() && std::mem::take(&mut self.from_oldest);
        let within: Vec<StreamRecord> =
            records.into_iter().filter(|record| record.sequence >= *from && record.sequence <= *to).collect();
        match (&self.last, within.first()) {
            (None, Some(first)) if first.sequence != *from => {
                self.lose(format!("records from {from} up to {}", first.sequence));
            }
            // Whether anything stood between, nobody can tell any more.
            (Some(last), Some(first)) if was_forgotten => {
                self.lose(format!("records after {last} up to {}", first.sequence));
            }
            _ => {}
        }
        self.last = within.last().map(|last| last.sequence.clone()).or(self.last.take());
        if is_behind {
            self.is_over = true;
            match &self.last {
                Some(last) if last == to => {}
                Some(last) => self.lose(format!("records after {last} up to {to}")),
                None => self.lose(format!("records from {from} to {to}")),
            }
        }
        (!within.is_empty()).then_some(within)
    }

    fn lose(&mut self, what: String) {
        let lost = format!("the stream has forgotten {what} of the shard {}", self.stretch.shard);
        self.lost = Some(match self.lost.take() {
            None => lost,
            Some(before) => format!("{before}; {lost}"),
        });
    }
}
