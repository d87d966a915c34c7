//! Pack: a day's archived records become rows of Parquet files, and, long after, their objects may go.
//!
//! A pack has what no pack of its day has yet: the day's names, without those in its packs. It is written to a scratch file,
//! put under the day's next number on the condition that nothing is there, and read back whole; only then a note beside it
//! says so. Two who pack one day meet at that number: the second one looks again. A crash leaves nothing (the scratch file
//! has no name), or a pack without a note, which the next run reads back. A day with a pack that is damaged is not packed:
//! nobody knows which names it has, and what is packed twice may be counted twice. Originals go only where that is asked for, 30 days
//! after the note, and only if they are still what was packed; the note says before that they go, so that a pack that cannot
//! be read is known to be needed. Laws: I1, I3, I9, I11.

use crate::error::{ErrorKind, PortError, PortResult};
use crate::flows::pack_write::{LeftOver, Scratch, Writing, scratch_error};
use crate::format::packed::{COLUMNS, Check, Column, Columns, ObjectsSum};
use crate::limits::{ORIGINALS_STAY_FOR, PACK_NUMBERS_TAKEN_MAX, PACK_RECORDS_MAX, SHARD_CHECKPOINT_BYTES_MAX};
use crate::ports::clock::Clock;
use crate::ports::journal::Journal;
use crate::ports::objects::{Attributes, ObjectRead, ObjectWrite, Onto, Written};
use crate::ports::progress::Progress;
use crate::report::Report;
use crate::steps::archived_names::{Days, days_of_objects, of_day};
use crate::steps::away::is_archived;
use crate::steps::json_object;
use crate::steps::originals::{is_unreadable, open_day};
use crate::steps::packs::{self, Names, Note, Originals, Pack, PackPlace};
use crate::steps::purge::{Purger, purge_originals};
use futures_util::TryStreamExt;
use lifecycle::archive::ServiceName;
use lifecycle::ids::ObjectKey;
use lifecycle::time::UnixMs;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Seek;
use std::path::PathBuf;
use std::sync::Arc;
use tokio_util::io::ReaderStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// Version of the note's layout.
const NOTE_VERSION: u32 = 3;

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
    /// `in-archive-tier` (left alone: it cannot be read); what is no archived record, or damaged, is a failure with its name,
    /// and stays.
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
            let ended = self.day(&day, report).await;
            if self.cancel.is_cancelled() {
                return Ok(());
            }
            // A day that cannot be packed holds up no other one. What has packs in an archive tier was packed long ago.
            match ended {
                Err(error) if is_archived(&error) => {
                    report.skip("in-archive-tier", format!("{} {day}", self.request.service), &error);
                }
                Err(error) => {
                    let error = self.with_remedy(&day, error).await;
                    report.fail_with(format!("{} {day}", self.request.service), &error);
                }
                Ok(()) => {}
            }
        }
        Ok(())
    }

    async fn day(&self, day: &str, report: &mut Report) -> PortResult<()> {
        let (mut taken, mut after) = (0, None);
        loop {
            let mut there: Vec<Arc<Pack>> = Vec::new();
            for (place, listed) in packs::of_day(self.archive(), &self.request.service, day).await? {
                there.extend(Pack::open(self.archive(), place, &listed).await?.map(Arc::new));
            }
            if !self.request.dry_run {
                let mut old = Vec::new();
                for pack in &there {
                    if self.all.clock.now() >= self.verified_at(pack).await?.plus(ORIGINALS_STAY_FOR) {
                        old.push(pack.clone());
                    }
                }
                self.remove_originals(day, &old, report).await?;
            }
            match self.one_pack(day, after.as_ref(), &there, report).await? {
                OnePack::Nothing | OnePack::Packed { full_at: None } => return Ok(()),
                OnePack::Packed { full_at } => after = full_at,
                // What is left is looked for again. Not for ever: a store may refuse a name that it does not list.
                OnePack::Taken(place) => {
                    taken += 1;
                    if taken == PACK_NUMBERS_TAKEN_MAX {
                        return Err(PortError::new("put pack", place.name(), ErrorKind::Unavailable));
                    }
                }
            }
        }
    }

    /// Packs what no pack has yet, after that name.
    async fn one_pack(
        &self,
        day: &str,
        after: Option<&ObjectKey>,
        there: &[Arc<Pack>],
        report: &mut Report,
    ) -> PortResult<OnePack> {
        let service = &self.request.service;
        let packs: Vec<&Pack> = there.iter().map(Arc::as_ref).collect();
        let mut left = LeftOver::of(self.archive(), format!("{service}/{day}/"), after.cloned(), &packs);
        if self.request.dry_run {
            while let Some(named) = left.next().await? {
                report.done("would-pack", &named.listed.key, format!("{} bytes", named.listed.version.size));
            }
            return Ok(OnePack::Nothing);
        }
        let PackRecords { archive, scratch, .. } = self.all;
        let most = usize::try_from(PACK_RECORDS_MAX).unwrap_or(usize::MAX);
        let writing = Writing { archive, scratch, most, progress: self.progress, cancel: self.cancel };
        let Some(Scratch { file, packed, full_at }) = writing.write(left, report).await? else {
            return Ok(OnePack::Nothing);
        };
        let number = there.iter().map(|pack| pack.place.number).max().unwrap_or(0) + 1;
        let place = PackPlace { service: service.clone(), day: day.to_owned(), number };
        let length = file.metadata().map_err(|error| scratch_error(scratch, error))?.len();
        if !self.put(&place, file, length).await? {
            return Ok(OnePack::Taken(place));
        }
        let listed = packs::of_day(self.archive(), service, day).await?;
        let listed = listed.into_iter().find(|(other, _)| *other == place);
        let gone = || PortError::new("read pack", place.name(), ErrorKind::Unavailable);
        let (_, listed) = listed.ok_or_else(gone)?;
        let pack = Arc::new(Pack::open(self.archive(), place.clone(), &listed).await?.ok_or_else(gone)?);
        if pack.footer.digest != packed.digest {
            return Err(not_what_was_packed(&pack));
        }
        // Whatever a note of an earlier pack of that number says.
        self.note(&pack, Some(Originals::Whole)).await?;
        report.count("packed", packed.records);
        report.count("packs", 1);
        report.count("bytes", packed.bytes);
        report.count("pack-bytes", length);
        Ok(OnePack::Packed { full_at })
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

    /// Since when it is known that the pack was read back; it is read now, if nobody has. By this machine's clock or the
    /// store's, whichever is later: a clock that was ahead lets nothing go early.
    async fn verified_at(&self, pack: &Arc<Pack>) -> PortResult<UnixMs> {
        let name = pack.place.note();
        let note: Option<Note> = json_object::read(self.archive(), &name, SHARD_CHECKPOINT_BYTES_MAX).await?;
        let head = self.archive().head(&name, None).await?;
        let Some((note, head)) = note.zip(head) else { return self.note(pack, None).await };
        match note.digest == pack.footer.digest && note.records == pack.footer.records {
            // Written again when originals began to go: they may go on.
            true if note.originals == Some(Originals::Going) => Ok(UnixMs(note.verified_at_ms)),
            true => Ok(UnixMs(note.verified_at_ms).max(head.last_modified)),
            false => Err(not_what_was_packed(pack)),
        }
    }

    /// Reads a pack back, and notes that it is what was packed, and what is known of its originals.
    async fn note(&self, pack: &Arc<Pack>, originals: Option<Originals>) -> PortResult<UnixMs> {
        let objects = Some(self.read_back(pack).await?.hex());
        let (now, records, digest) = (self.all.clock.now(), pack.footer.records, pack.footer.digest.clone());
        let note = Note { format: NOTE_VERSION, verified_at_ms: now.0, records, digest, originals, objects };
        json_object::write(self.all.archive.as_ref(), &pack.place.note(), &note, Onto::Anything).await?;
        Ok(now)
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

    /// Reads all of it: every row gives back a body, and together they are what was packed. Which objects it has. The next row
    /// group is fetched meanwhile.
    async fn read_back(&self, pack: &Arc<Pack>) -> PortResult<ObjectsSum> {
        let stopped =
            |error| PortError::new("read pack", pack.name(), ErrorKind::Internal("its task".to_owned())).because(error);
        let groups = pack.footer.groups();
        let mut ahead = (groups > 0).then(|| self.fetch(pack, 0));
        let mut check = Check::default();
        for group in 0..groups {
            if self.cancel.is_cancelled() {
                return Err(PortError::new("read pack", pack.name(), ErrorKind::Cancelled));
            }
            let Some(fetched) = ahead.take() else { break };
            let columns = fetched.await.map_err(stopped)??;
            ahead = (group + 1 < groups).then(|| self.fetch(pack, group + 1));
            let footer = pack.footer.clone();
            let checked = tokio::task::spawn_blocking(move || check.group(&footer, group, &columns).then_some(check));
            let Some(so_far) = checked.await.map_err(stopped)? else {
                return Err(not_what_was_packed(pack));
            };
            check = so_far;
        }
        check.end(&pack.footer).ok_or_else(|| not_what_was_packed(pack))
    }

    /// Says of a damaged pack what is safe to do about it: it is looked at whether all that it has is there.
    async fn with_remedy(&self, day: &str, error: PortError) -> PortError {
        let name = ObjectKey::new(error.object.as_str()).ok();
        let Some((name, place)) = name.and_then(|name| PackPlace::parse(&name).map(|place| (name, place))) else {
            return error;
        };
        let ErrorKind::Damaged(why) = &error.kind else { return error };
        let known = BTreeMap::from([(name, error.clone())]);
        let remedy = match open_day(self.archive(), &self.request.service, day, &known).await {
            Ok(_) => format!(
                "all that it packed is there as objects, too: `afterimage archive drop {} {}` takes it away, and they are \
                 packed anew",
                place.service, error.object
            ),
            Err(other) if is_unreadable(&other) => {
                "objects that it packed may be gone: keep it, and bring it back from a version or another copy"
                    .to_owned()
            }
            Err(other) => format!("keep it until it is known what is there as objects, too: {other}"),
        };
        let kind = ErrorKind::Damaged(format!("{why}; {remedy}"));
        PortError { kind, ..error }
    }

    /// Begins to read all columns of a row group.
    fn fetch(&self, pack: &Arc<Pack>, group: usize) -> AbortOnDropHandle<PortResult<Columns>> {
        let (archive, pack) = (self.all.archive.clone(), pack.clone());
        let all: Vec<Column> = COLUMNS.iter().map(|(column, ..)| *column).collect();
        AbortOnDropHandle::new(tokio::spawn(async move { pack.read(archive.as_ref(), group, &all).await }))
    }

    /// Removes the objects that stand in packs which are old enough. A pack is read once more, whole, before the first one of
    /// it goes: what goes has its bytes there, now.
    async fn remove_originals(&self, day: &str, old: &[Arc<Pack>], report: &mut Report) -> PortResult<()> {
        let Some(purger) = self.all.purger.as_ref().filter(|_| !old.is_empty()) else { return Ok(()) };
        let packs: Vec<&Pack> = old.iter().map(Arc::as_ref).collect();
        let (mut names, mut after) = (Names::of(self.archive(), &packs), None);
        let mut read = BTreeSet::new();
        loop {
            let page = of_day(self.archive(), &format!("{}/{day}/", self.request.service), "", after.as_ref()).await?;
            let mut originals = Vec::new();
            for named in &page.items {
                let Some(original) = names.find(&named.listed.key).await? else { continue };
                if original.etag != named.listed.version.etag {
                    let why = "it is not what was packed any more, and stays";
                    report.skip("originals-changed", &original.object, why);
                    continue;
                }
                if read.insert(original.pack) {
                    self.read_back(&old[original.pack]).await?;
                    self.note_going(&old[original.pack]).await?;
                }
                originals.push(original);
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

fn not_what_was_packed(pack: &Pack) -> PortError {
    PortError::new("read pack", pack.name(), ErrorKind::Damaged("it is not what was packed".to_owned()))
}

/// How making a pack ended.
enum OnePack {
    /// There was nothing to pack.
    Nothing,
    /// There is one more; a limit may have ended it.
    Packed {
        /// Behind which name.
        full_at: Option<ObjectKey>,
    },
    /// Somebody else has its name.
    Taken(PackPlace),
}
