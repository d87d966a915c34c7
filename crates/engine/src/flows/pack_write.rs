//! Writing a pack: what no pack of the day has yet is read in batches, made into rows beside each other, and written in order to
//! a scratch file without a name. A crash leaves nothing.

use crate::error::{ErrorKind, PortError, PortResult};
use crate::format::archived::{BadRecord, META_DELETION, META_HASH};
use crate::format::packed::{Original, PackWriter, Packed, Row, row_of};
use crate::limits::{PACK_BATCH_BYTES, PACK_BATCH_RECORDS, PACK_BATCHES_IN_FLIGHT, PACK_BYTES_MAX};
use crate::ports::objects::{ObjectRead, ObjectWrite, Small};
use crate::ports::progress::Progress;
use crate::report::Report;
use crate::steps::archived_names::{Named, of_day};
use crate::steps::away::is_archived;
use crate::steps::packs::{Names, Pack};
use futures_util::TryStreamExt;
use futures_util::stream::FuturesOrdered;
use lifecycle::ids::ObjectKey;
use parquet::errors::ParquetError;
use std::fs::File;
use std::io::ErrorKind as IoErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// Batches that wait to be written to the scratch file.
const WAITING: usize = 2;

/// The names of a day that no pack has, in their order.
pub(super) struct LeftOver<'a> {
    archive: &'a dyn ObjectRead,
    names: Names<'a>,
    day: String,
    page: std::vec::IntoIter<Named>,
    /// After which name the next page begins; `None`: there is none.
    next: Option<Option<ObjectKey>>,
    /// Found, and not given yet.
    held: Option<Named>,
}

impl<'a> LeftOver<'a> {
    /// Of a day's folder (`service/yyyy/mm/dd/`), after that name, and its packs.
    pub(super) fn of(
        archive: &'a dyn ObjectRead,
        day: String,
        after: Option<ObjectKey>,
        packs: &[&'a Pack],
    ) -> LeftOver<'a> {
        let names = Names::of(archive, packs);
        LeftOver { archive, names, day, page: Vec::new().into_iter(), next: Some(after), held: None }
    }

    pub(super) async fn next(&mut self) -> PortResult<Option<Named>> {
        if let Some(held) = self.held.take() {
            return Ok(Some(held));
        }
        loop {
            for named in self.page.by_ref() {
                if self.names.find(&named.listed.key).await?.is_none() {
                    return Ok(Some(named));
                }
            }
            let Some(after) = self.next.take() else { return Ok(None) };
            let page = of_day(self.archive, &self.day, "", after.as_ref()).await?;
            self.page = page.items.into_iter();
            self.next = page.next.map(Some);
        }
    }

    /// Whether there is anything.
    async fn is_empty(&mut self) -> PortResult<bool> {
        self.held = self.next().await?;
        Ok(self.held.is_none())
    }

    /// The next few, of not too many bytes together; none: there are no more.
    async fn batch(&mut self, most: usize) -> PortResult<Vec<ObjectKey>> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while batch.len() < most.min(PACK_BATCH_RECORDS)
            && bytes < PACK_BATCH_BYTES
            && let Some(named) = self.next().await?
        {
            bytes += named.listed.version.size;
            batch.push(named.listed.key);
        }
        Ok(batch)
    }
}

/// What became of a batch.
struct Prepared {
    rows: Vec<Row>,
    /// What cannot be packed.
    bad: Vec<(ObjectKey, PortError)>,
    /// How many are no row: bad ones, and those of others.
    left_out: usize,
}

/// A pack in a scratch file.
pub(super) struct Scratch {
    pub(super) file: File,
    pub(super) packed: Packed,
    /// A limit ended it: there may be more behind that name.
    pub(super) full_at: Option<ObjectKey>,
}

/// Who writes, and where to.
pub(super) struct Writing<'a> {
    pub(super) archive: &'a Arc<dyn ObjectWrite>,
    pub(super) scratch: &'a PathBuf,
    /// Records of a pack.
    pub(super) most: usize,
    pub(super) progress: &'a dyn Progress,
    pub(super) cancel: &'a CancellationToken,
}

impl Writing<'_> {
    /// Writes what is left over; `None`: there was nothing to pack, or it was cancelled. What cannot be packed takes nobody's
    /// place, however much of it there is.
    pub(super) async fn write(&self, mut left: LeftOver<'_>, report: &mut Report) -> PortResult<Option<Scratch>> {
        if left.is_empty().await? {
            return Ok(None);
        }
        let file = tempfile::tempfile_in(self.scratch).map_err(|error| scratch_error(self.scratch, error))?;
        let (sender, mut waiting) = mpsc::channel::<Vec<Row>>(WAITING);
        let writing = tokio::task::spawn_blocking(move || {
            let mut writer = PackWriter::new(file.try_clone()?)?;
            while let Some(rows) = waiting.blocking_recv() {
                rows.into_iter().try_for_each(|row| writer.add(row))?;
            }
            Ok::<_, ParquetError>((file, writer.finish()?))
        });
        // Those that are, or may become, its rows; and the last one that was asked for.
        let (mut asked, mut last) = (0, None);
        let (mut records, mut bytes) = (0, 0);
        let mut reading = FuturesOrdered::new();
        loop {
            while reading.len() < PACK_BATCHES_IN_FLIGHT && bytes < PACK_BYTES_MAX {
                let batch = left.batch(self.most - asked).await?;
                if batch.is_empty() {
                    break;
                }
                asked += batch.len();
                last = batch.last().cloned();
                // Tasks of their own, so that they go on while others are awaited here.
                reading.push_back(AbortOnDropHandle::new(tokio::spawn(prepare(self.archive.clone(), batch))));
            }
            let Some(prepared) = reading.try_next().await.map_err(|stopped| stopped_error(self.scratch, stopped))?
            else {
                break;
            };
            if self.cancel.is_cancelled() {
                return Ok(None);
            }
            let Prepared { rows, bad, left_out } = prepared?;
            asked -= left_out;
            for (name, error) in bad {
                match is_archived(&error) {
                    true => report.skip("in-archive-tier", &name, &error),
                    false => report.fail_with(&name, &error),
                }
            }
            records += rows.len() as u64;
            bytes += rows.iter().map(|row| row.bytes() as u64).sum::<u64>();
            // It ends early only when writing failed, which says why below.
            if sender.send(rows).await.is_err() {
                break;
            }
            self.progress.at(report.counted("packed") + records, None, "records");
        }
        drop(sender);
        let written = writing.await.map_err(|stopped| stopped_error(self.scratch, stopped))?;
        let (file, packed) = written.map_err(|error| write_error(self.scratch, error))?;
        let full_at = last.filter(|_| asked == self.most || bytes >= PACK_BYTES_MAX);
        Ok((packed.records > 0).then_some(Scratch { file, packed, full_at }))
    }
}

/// Reads records and makes them rows. A store that does not answer ends it; what is damaged does not.
async fn prepare(archive: Arc<dyn ObjectWrite>, names: Vec<ObjectKey>) -> PortResult<Prepared> {
    let read = archive.get_small(&names).await;
    let made = tokio::task::spawn_blocking(move || {
        let asked = names.len();
        let mut prepared = Prepared { rows: Vec::with_capacity(asked), bad: Vec::new(), left_out: 0 };
        for (name, read) in names.into_iter().zip(read) {
            match read.and_then(|small| small.map_or(Ok(None), |small| row(&name, small))) {
                Ok(row) => prepared.rows.extend(row),
                Err(error) if matches!(error.kind, ErrorKind::Damaged(_)) || is_archived(&error) => {
                    prepared.bad.push((name, error));
                }
                Err(error) => return Err(error),
            }
        }
        prepared.left_out = asked - prepared.rows.len();
        Ok(prepared)
    });
    let stopped =
        |error| PortError::new("pack", "records", ErrorKind::Internal("its thread".to_owned())).because(error);
    made.await.map_err(stopped)?
}

/// `None`: it is somebody else's object, which says nothing of a deletion.
fn row(name: &ObjectKey, small: Small) -> PortResult<Option<Row>> {
    let damaged = |why: String| PortError::new("read archived record", name, ErrorKind::Damaged(why));
    let Small { head, content } = small;
    let original = Original { object: name.clone(), etag: head.version.etag, body: content };
    match row_of(&original) {
        Ok(row) if head.metadata.get(META_HASH).is_some_and(|hash| hash != row.hash()) => {
            Err(damaged("its content is not what was archived".to_owned()))
        }
        Ok(row) => Ok(Some(row)),
        Err(BadRecord::NotJson(_) | BadRecord::Foreign(_)) if !head.metadata.contains_key(META_DELETION) => Ok(None),
        Err(error) => Err(damaged(error.to_string())),
    }
}

pub(super) fn scratch_error(scratch: &Path, error: std::io::Error) -> PortError {
    let kind = match error.kind() {
        IoErrorKind::StorageFull | IoErrorKind::QuotaExceeded => ErrorKind::NoSpace,
        _ => ErrorKind::Internal("the pack's temporary file".to_owned()),
    };
    PortError::new("write pack in", scratch.display(), kind).because(error)
}

fn stopped_error(scratch: &Path, stopped: tokio::task::JoinError) -> PortError {
    scratch_error(scratch, std::io::Error::other(stopped))
}

fn write_error(scratch: &Path, error: ParquetError) -> PortError {
    match error {
        ParquetError::External(inner) => match inner.downcast::<std::io::Error>() {
            Ok(error) => scratch_error(scratch, *error),
            Err(other) => scratch_error(scratch, std::io::Error::other(other)),
        },
        other => scratch_error(scratch, std::io::Error::other(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::bucket::{MemoryBucket, Versioning};
    use crate::memory::clock::MemoryClock;
    use crate::ports::objects::{Attributes, Onto};
    use crate::ports::progress::Silent;
    use lifecycle::time::UnixMs;

    fn record(n: usize) -> String {
        format!(
            r#"{{"afterimage":{{"format":1,"table":"t","cause":"user","deleted_at":"2026-11-21T10:00:00Z","sequence":"{n}","key":["id"]}},"dynamodb":{{"Keys":{{"id":{{"S":"{n}"}}}},"OldImage":{{}}}}}}"#
        )
    }

    /// More of them than one pack may have, before and between what can be packed.
    #[tokio::test]
    async fn what_cannot_be_packed_takes_nobodys_place_in_a_pack() {
        let bucket = MemoryBucket::new("archive", Versioning::Off, Arc::new(MemoryClock::at(UnixMs(1_000))));
        let metadata = [(META_DELETION.to_owned(), "1".to_owned())].into();
        let ours = Attributes { metadata, ..Attributes::default() };
        for n in 0..20 {
            let name = ObjectKey::new(format!("s/2026/11/21/{n:02}.json")).unwrap();
            let body = if [7, 15, 19].contains(&n) { record(n) } else { "{ not what it was".to_owned() };
            bucket.store(&name, body.into(), ours.clone(), &Onto::Nothing);
        }
        let archive: Arc<dyn ObjectWrite> = Arc::new(bucket);
        let (cancel, scratch, mut report) =
            (CancellationToken::new(), std::env::temp_dir(), Report::of("archive pack"));
        let writing = Writing { archive: &archive, scratch: &scratch, most: 2, progress: &Silent, cancel: &cancel };
        let left = |after| LeftOver::of(archive.as_ref(), "s/2026/11/21/".to_owned(), after, &[]);
        let first = writing.write(left(None), &mut report).await.unwrap().unwrap();
        assert_eq!(first.packed.records, 2);
        let second = writing.write(left(first.full_at), &mut report).await.unwrap().unwrap();
        assert_eq!((second.packed.records, second.full_at), (1, None));
        assert_eq!(report.failures, 17, "each is told once");
    }
}
