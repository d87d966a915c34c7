//! Pack: a day's archived records become rows of Parquet files, and, long after, their objects may go.
//!
//! A pack has what no pack of its day has yet: the day's names, without those in its packs. It is written to a scratch file,
//! put under the day's next number on the condition that nothing is there, and read back whole; only then a note beside it
//! says so. Two who pack one day meet at that number: the second one looks again. A crash leaves nothing (the scratch file
//! has no name), or a pack without a note, which the next run reads back. Originals go only where that is asked for, two weeks
//! after the note, and only if they are still what was packed; the note says before that they go, so that a pack that cannot be read is known
//! to be needed. Laws: I1, I3, I9, I11.

use crate::error::{ErrorKind, PortError, PortResult};
use crate::flows::find_record::original;
use crate::format::packed::{Column, Original, PackWriter, Packed, RowsDigest, body_of};
use crate::limits::{
    ORIGINALS_STAY_FOR, PACK_BYTES_MAX, PACK_READS_IN_FLIGHT, PACK_RECORDS_MAX, SHARD_CHECKPOINT_BYTES_MAX,
};
use crate::ports::clock::Clock;
use crate::ports::journal::Journal;
use crate::ports::objects::{Attributes, ObjectRead, ObjectWrite, Onto, Written};
use crate::ports::progress::Progress;
use crate::report::Report;
use crate::steps::archived_names::{Days, Named, days_of_objects, of_day};
use crate::steps::away::is_archived;
use crate::steps::json_object;
use crate::steps::packs::{self, Names, Note, Originals, Pack, PackPlace};
use crate::steps::purge::{Purger, purge_originals};
use futures_util::TryStreamExt;
use futures_util::stream::FuturesOrdered;
use lifecycle::archive::ServiceName;
use lifecycle::ids::ObjectKey;
use lifecycle::time::UnixMs;
use parquet::errors::ParquetError;
use std::fs::File;
use std::io::{ErrorKind as IoErrorKind, Seek};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_util::io::ReaderStream;
use tokio_util::sync::CancellationToken;

/// Records that wait to be written to the scratch file.
const WAITING: usize = 32;
/// Version of the note's layout.
const NOTE_VERSION: u32 = 2;

/// An archive, and what else packing needs.
pub struct PackRecords {
    /// The archive.
    pub archive: Arc<dyn ObjectWrite>,
    /// The right to delete originals; `None`: they stay.
    pub purger: Option<Purger>,
    /// The journal.
    pub journal: Arc<dyn Journal>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// A folder for a file without a name.
    pub scratch: PathBuf,
    /// Who asks.
    pub who: String,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackRequest {
    /// Of which service.
    pub service: ServiceName,
    /// Of which days.
    pub days: Days,
    /// Only say what would be packed.
    pub dry_run: bool,
}

/// One service's packing.
struct Work<'a> {
    all: &'a PackRecords,
    request: &'a PackRequest,
    progress: &'a dyn Progress,
    cancel: &'a CancellationToken,
}

impl PackRecords {
    /// Packs. Counts `packed` (or `would-pack`), `packs`, `bytes`, `pack-bytes`, `originals-removed`, `originals-changed`,
    /// `in-archive-tier` (left alone: it cannot be read); what
    /// is no archived record, or damaged, is a failure with its name, and stays.
    pub async fn run(&self, request: &PackRequest, progress: &dyn Progress, cancel: &CancellationToken) -> Report {
        let mut report = Report::of("archive pack");
        report.count(if request.dry_run { "would-pack" } else { "packed" }, 0);
        let work = Work { all: self, request, progress, cancel };
        if let Err(error) = work.all_days(&mut report).await {
            report.fail_with(&request.service, &error);
        }
        report.cancelled |= cancel.is_cancelled();
        report
    }
}

/// The days of a service that have objects, oldest first: `yyyy/mm/dd`.
async fn days_of(archive: &dyn ObjectRead, service: &ServiceName, range: Days) -> PortResult<Vec<String>> {
    let prefix = format!("{service}/");
    let named = days_of_objects(archive, service, range, usize::MAX).await?;
    Ok(named.iter().map(|day| day[prefix.len()..].trim_end_matches('/').to_owned()).collect())
}

impl Work<'_> {
    fn archive(&self) -> &dyn ObjectRead {
        self.all.archive.as_ref()
    }

    async fn all_days(&self, report: &mut Report) -> PortResult<()> {
        for day in days_of(self.archive(), &self.request.service, self.request.days).await? {
            if self.cancel.is_cancelled() {
                return Ok(());
            }
            // A day that cannot be packed holds up no other one. What has packs in an archive tier was packed long ago.
            match self.day(&day, report).await {
                Err(error) if is_archived(&error) => {
                    report.skip("in-archive-tier", format!("{} {day}", self.request.service), &error);
                }
                Err(error) => report.fail_with(format!("{} {day}", self.request.service), &error),
                Ok(()) => {}
            }
        }
        Ok(())
    }

    async fn day(&self, day: &str, report: &mut Report) -> PortResult<()> {
        loop {
            let mut there: Vec<Pack> = Vec::new();
            for (place, listed) in packs::of_day(self.archive(), &self.request.service, day).await? {
                there.extend(Pack::open(self.archive(), place, &listed).await?);
            }
            if !self.request.dry_run {
                let mut old = Vec::new();
                for pack in &there {
                    if self.all.clock.now() >= self.verified_at(pack, None).await?.plus(ORIGINALS_STAY_FOR) {
                        old.push(pack);
                    }
                }
                self.remove_originals(day, &old, report).await?;
            }
            if !self.one_pack(day, &there, report).await? {
                return Ok(());
            }
        }
    }

    /// Packs what no pack has yet; whether there may be more.
    async fn one_pack(&self, day: &str, there: &[Pack], report: &mut Report) -> PortResult<bool> {
        let service = &self.request.service;
        let packs: Vec<&Pack> = there.iter().collect();
        let mut left = LeftOver {
            archive: self.archive(),
            names: Names::of(self.archive(), &packs),
            day: format!("{service}/{day}/"),
            page: Vec::new().into_iter(),
            next: Some(None),
        };
        if self.request.dry_run {
            while let Some(named) = left.next().await? {
                report.done("would-pack", &named.listed.key, format!("{} bytes", named.listed.version.size));
            }
            return Ok(false);
        }
        let Some((file, packed, more)) = self.write(left, report).await? else { return Ok(false) };
        let number = there.iter().map(|pack| pack.place.number).max().unwrap_or(0) + 1;
        let place = PackPlace { service: service.clone(), day: day.to_owned(), number };
        let length = file.metadata().map_err(|error| scratch_error(&self.all.scratch, error))?.len();
        if !self.put(&place, file, length).await? {
            // Somebody else packed meanwhile: what is left is looked for again.
            return Ok(true);
        }
        let listed = packs::of_day(self.archive(), service, day).await?;
        let listed = listed.into_iter().find(|(other, _)| *other == place);
        let gone = || PortError::new("read pack", place.name(), ErrorKind::Unavailable);
        let (_, listed) = listed.ok_or_else(gone)?;
        let pack = Pack::open(self.archive(), place.clone(), &listed).await?.ok_or_else(gone)?;
        if pack.footer.digest != packed.digest {
            return Err(not_what_was_packed(&pack));
        }
        self.verified_at(&pack, Some(Originals::Whole)).await?;
        report.count("packed", packed.records);
        report.count("packs", 1);
        report.count("bytes", packed.bytes);
        report.count("pack-bytes", length);
        Ok(more)
    }

    /// Writes records to a scratch file; `None`: there was nothing to pack. The last one says whether a limit ended it.
    async fn write(&self, mut left: LeftOver<'_>, report: &mut Report) -> PortResult<Option<(File, Packed, bool)>> {
        let Some(first) = left.next().await? else { return Ok(None) };
        let file = tempfile::tempfile_in(&self.all.scratch).map_err(|error| scratch_error(&self.all.scratch, error))?;
        let (sender, mut waiting) = mpsc::channel::<Original>(WAITING);
        let writing = tokio::task::spawn_blocking(move || {
            let mut writer = PackWriter::new(file.try_clone()?)?;
            let mut bad: Vec<(ObjectKey, String)> = Vec::new();
            while let Some(original) = waiting.blocking_recv() {
                if let Err(why) = writer.add(&original)? {
                    bad.push((original.object, why.to_string()));
                }
            }
            Ok::<_, ParquetError>((file, writer.finish()?, bad))
        });
        let (mut records, mut bytes, mut is_full) = (0, 0, false);
        let mut reading = FuturesOrdered::new();
        let mut first = Some(first);
        loop {
            while reading.len() < PACK_READS_IN_FLIGHT {
                let next = match first.take() {
                    Some(first) => Some(first),
                    None => left.next().await?,
                };
                let Some(named) = next else { break };
                reading.push_back(original(self.all.archive.clone(), named.listed.key));
            }
            let Some(original) = reading.try_next().await? else { break };
            if self.cancel.is_cancelled() {
                return Ok(None);
            }
            match original {
                Ok(Some(original)) => {
                    records += 1;
                    bytes += original.body.len() as u64;
                    // It ends early only when writing failed, which says why below.
                    if sender.send(original).await.is_err() {
                        break;
                    }
                }
                Ok(None) => {}
                Err((name, error)) if is_archived(&error) => report.skip("in-archive-tier", &name, &error),
                Err((name, error)) => report.fail_with(&name, &error),
            }
            if records % 1_000 == 0 {
                self.progress.at(report.counted("packed") + records, None, "records");
            }
            is_full = records >= PACK_RECORDS_MAX || bytes >= PACK_BYTES_MAX;
            if is_full {
                break;
            }
        }
        drop(sender);
        let written =
            writing.await.map_err(|stopped| scratch_error(&self.all.scratch, std::io::Error::other(stopped)))?;
        let (file, packed, bad) = written.map_err(|error| write_error(&self.all.scratch, error))?;
        for (name, why) in bad {
            report.fail(name, why);
        }
        Ok((packed.records > 0).then_some((file, packed, is_full)))
    }

    /// Puts the file under its name; `false`: somebody else has it.
    async fn put(&self, place: &PackPlace, mut file: File, length: u64) -> PortResult<bool> {
        file.rewind().map_err(|error| scratch_error(&self.all.scratch, error))?;
        let scratch = self.all.scratch.clone();
        let body = ReaderStream::new(tokio::fs::File::from_std(file));
        let body = Box::pin(body.map_err(move |error| scratch_error(&scratch, error)));
        let content_type = Some("application/vnd.apache.parquet".to_owned());
        let attributes = Attributes { content_type, ..Attributes::default() };
        let written = self.all.archive.put_sized(&place.name(), body, length, &attributes, Onto::Nothing).await?;
        Ok(matches!(written, Written::Done(_)))
    }

    /// Since when it is known that the pack was read back; it is read now, if nobody has. `originals`: what is known of them.
    async fn verified_at(&self, pack: &Pack, originals: Option<Originals>) -> PortResult<UnixMs> {
        let name = pack.place.note();
        let note: Option<Note> = json_object::read(self.archive(), &name, SHARD_CHECKPOINT_BYTES_MAX).await?;
        let (records, digest) = (pack.footer.records, pack.footer.digest.clone());
        let Some(note) = note else {
            self.read_back(pack).await?;
            let now = self.all.clock.now();
            let note = Note { format: NOTE_VERSION, verified_at_ms: now.0, records, digest, originals };
            json_object::write(self.all.archive.as_ref(), &name, &note, Onto::Anything).await?;
            return Ok(now);
        };
        match note.digest == digest && note.records == records {
            true => Ok(UnixMs(note.verified_at_ms)),
            false => Err(not_what_was_packed(pack)),
        }
    }

    /// Says beside a pack that its originals go: before the first of them does.
    async fn note_going(&self, pack: &Pack) -> PortResult<()> {
        let name = pack.place.note();
        let note: Option<Note> = json_object::read(self.archive(), &name, SHARD_CHECKPOINT_BYTES_MAX).await?;
        if let Some(note) = note.filter(|note| note.originals != Some(Originals::Going)) {
            let note = Note { format: NOTE_VERSION, originals: Some(Originals::Going), ..note };
            json_object::write(self.all.archive.as_ref(), &name, &note, Onto::Anything).await?;
        }
        Ok(())
    }

    /// Reads all of it: every row gives back a body, and together they are what was packed.
    async fn read_back(&self, pack: &Pack) -> PortResult<()> {
        let (mut digest, mut records) = (RowsDigest::default(), 0);
        for group in 0..pack.footer.groups() {
            let columns = [Column::Object, Column::Image, Column::Rest, Column::ImageAt, Column::Hash];
            let rows = pack.read(self.archive(), group, &columns).await?;
            for row in 0..rows.rows {
                let (Some(_whole), Some(object)) = (body_of(&rows, row), rows.text(Column::Object, row)) else {
                    return Err(not_what_was_packed(pack));
                };
                digest.add(object, rows.text(Column::Hash, row).unwrap_or_default());
                records += 1;
            }
        }
        match digest.hex() == pack.footer.digest && records == pack.footer.records {
            true => Ok(()),
            false => Err(not_what_was_packed(pack)),
        }
    }

    /// Removes the objects that stand in packs which are old enough. Those are read once more, whole: what goes has its bytes
    /// there, now.
    async fn remove_originals(&self, day: &str, old: &[&Pack], report: &mut Report) -> PortResult<()> {
        let Some(purger) = self.all.purger.as_ref().filter(|_| !old.is_empty()) else { return Ok(()) };
        for pack in old {
            self.read_back(pack).await?;
            self.note_going(pack).await?;
        }
        let (mut names, mut after) = (Names::of(self.archive(), old), None);
        loop {
            let page = of_day(self.archive(), &format!("{}/{day}/", self.request.service), "", after.as_ref()).await?;
            let mut originals = Vec::new();
            for named in &page.items {
                originals.extend(names.find(&named.listed.key).await?);
            }
            let (all, now) = (self.all, self.all.clock.now());
            purge_originals(purger, all.journal.as_ref(), (&self.request.service, &all.who, now), originals, report)
                .await?;
            after = page.next.filter(|_| !self.cancel.is_cancelled());
            if after.is_none() {
                return Ok(());
            }
        }
    }
}

/// The names of a day that no pack has, in their order.
struct LeftOver<'a> {
    archive: &'a dyn ObjectRead,
    names: Names<'a>,
    day: String,
    page: std::vec::IntoIter<Named>,
    /// After which name the next page begins; `None`: there is none.
    next: Option<Option<ObjectKey>>,
}

impl LeftOver<'_> {
    async fn next(&mut self) -> PortResult<Option<Named>> {
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
}

fn not_what_was_packed(pack: &Pack) -> PortError {
    let why = "it is not what was packed: remove it, and its records are packed anew".to_owned();
    PortError::new("read pack", pack.name(), ErrorKind::Damaged(why))
}

fn scratch_error(scratch: &Path, error: std::io::Error) -> PortError {
    let kind = match error.kind() {
        IoErrorKind::StorageFull | IoErrorKind::QuotaExceeded => ErrorKind::NoSpace,
        _ => ErrorKind::Internal("the pack's temporary file".to_owned()),
    };
    PortError::new("write pack in", scratch.display(), kind).because(error)
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
