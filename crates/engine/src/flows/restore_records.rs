//! Restore of records: what was deleted is put back into a table, as it was.
//!
//! Of a record that was deleted more than once, the newest deletion in the range counts, and no other: where it cannot be read or
//! put, or is not what a condition asks for, no older one is put in its place, nor over what is in the table. So the newest
//! days come first, those of one name of one day are read together, and which records were met is noted outside of memory
//! (`crates/engine/src/steps/met.rs`), which holds a page of names, the deletions of one name of one day, and what was deleted
//! more than once a day or failed. The command can simply be given again.
//!
//! What lies in archive tiers is looked for first, over all of the days, and asked for together where that was agreed to. What
//! can be read is put; the rest awaits its retrieval, and with it whatever it may be newer than. A restore that waits puts
//! nothing before all of it has come, so that it goes over the days once.
//!
//! A time to live that is over would delete the record once more: it is taken away, unless something else is asked for. A
//! crash leaves some records put back. Laws: I10, I11, I12 (each is journalled before it is put).

use crate::error::{ErrorKind, PortResult};
use crate::flows::find_record::{Found, Which, find_record, read_record};
pub use crate::flows::restore_one::AWAITING;
use crate::flows::restore_one::{IN_A_TIER, One, Pace, Unread, unread};
use crate::flows::retrieve::{Patience, note_days, once_readable};
use crate::limits::COMMAND_KEYS_IN_FLIGHT;
use crate::ports::clock::Clock;
use crate::ports::journal::Journal;
use crate::ports::progress::Progress;
use crate::ports::tables::RecordTable;
use crate::report::{Report, chain};
use crate::steps::archived_names::{Days, Named, days, of_day, of_shown};
use crate::steps::away::is_archived;
use crate::steps::condition::Condition;
use crate::steps::met::Met;
use crate::wrap::unpacked::Unpacked;
use futures_util::future::ready;
use futures_util::{StreamExt, stream};
use lifecycle::archive::{Cause, ServiceName};
use lifecycle::time::{SpanMs, UnixMs};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Which records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The newest deletion of one key (as a person types it; or the name of an object), not later than `at`.
    Key {
        /// The key.
        key: String,
        /// Until when.
        at: UnixMs,
    },
    /// All that were deleted in a range of days, by that cause if one is given.
    Range {
        /// The days.
        days: Days,
        /// The cause.
        cause: Option<Cause>,
    },
}

/// What becomes of a record's time to live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ttl {
    /// It stays as it is.
    Keep,
    /// It goes, if it is over.
    StripIfOver,
    /// It is that long from now on, if it is over.
    Extend(SpanMs),
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordsRequest {
    /// Of which service.
    pub service: ServiceName,
    /// Which records.
    pub wanted: Wanted,
    /// Replace what is in the table.
    pub overwrite: bool,
    /// What becomes of their time to live.
    pub ttl: Ttl,
    /// At most so many a second; `None`: as fast as the table takes them.
    pub rate: Option<u32>,
    /// Only say what would be done.
    pub dry_run: bool,
    /// Wait for what archive tiers were asked for.
    pub wait: bool,
}

impl RecordsRequest {
    /// These records, as fast as the table takes them: what is there already stays, a time to live that is over goes, and
    /// nobody waits for archive tiers.
    pub fn new(service: ServiceName, wanted: Wanted) -> Self {
        Self { service, wanted, overwrite: false, ttl: Ttl::StripIfOver, rate: None, dry_run: false, wait: false }
    }
}

/// The archive, the table, and what else a restore needs.
pub struct RestoreRecords {
    /// The archive.
    pub archive: Arc<Unpacked>,
    /// Of which table the records are: others of the service are passed over. `None`: of any.
    pub from_table: Option<String>,
    /// What the newest deletion of each record of a range must meet, if anything.
    pub condition: Option<Arc<dyn Condition>>,
    /// Where to.
    pub table: Arc<dyn RecordTable>,
    /// The journal.
    pub journal: Arc<dyn Journal>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Who asks.
    pub who: String,
}

impl RestoreRecords {
    /// Puts records back; of a range, each of those that nobody has `met`. Counts `restored` (or `would-restore`), `there` (left alone), `other-cause`, `other-table`,
    /// `unmet` (the condition does not hold for the newest deletion), `older` (deletions of records whose newest was met),
    /// `ttl-changed`, [`AWAITING`], [`DAYS_AWAITING`] and [`DAYS_BEHIND`]; a record that does not read back is a failure with its name. What lies
    /// in archive tiers is told by the archive's handle.
    pub async fn run(
        &self,
        request: &RecordsRequest,
        met: &dyn Met,
        progress: &dyn Progress,
        cancel: &CancellationToken,
    ) -> Report {
        let mut report = Report::of("archive restore");
        report.count(if request.dry_run { "would-restore" } else { "restored" }, 0);
        if let Err(error) = self.all(request, met, &mut report, progress, cancel).await {
            match error.kind {
                ErrorKind::Missing => report.fail(&request.service, format!("{}: {NO_TABLE}", chain(&error))),
                _ => report.fail_with(&request.service, &error),
            }
            report.cancelled = true;
        }
        // Nothing is missing for it; somebody should know.
        for (pack, error) in self.archive.damaged() {
            report.fail_with(pack, &error);
        }
        report
    }

    async fn all(
        &self,
        request: &RecordsRequest,
        met: &dyn Met,
        report: &mut Report,
        progress: &dyn Progress,
        cancel: &CancellationToken,
    ) -> PortResult<()> {
        let shape = self.table.shape().await?;
        let pace = Pace::of(request.rate);
        let one = One { all: self, request, met, shape: &shape, pace: &pace };
        let archive = self.archive.as_ref();
        let patience = Patience { wait: request.wait, clock: self.clock.as_ref(), progress, cancel };
        let (range, cause) = match &request.wanted {
            Wanted::Key { key, at } => {
                let which = Which { service: &request.service, table: self.from_table.as_deref(), key, at: *at };
                let find = || find_record(archive, &which);
                match once_readable(archive, &patience, find).await {
                    Ok(Some(found)) => report.absorb(one.put(found).await),
                    Ok(None) => report
                        .fail(key, format!("no deletion of it up to {at} is archived: see `afterimage archive ls`")),
                    Err(error) if is_archived(&error) => {
                        report.skip(AWAITING, key, IN_A_TIER);
                        report.cancelled = cancel.is_cancelled();
                    }
                    Err(error) => return Err(error),
                }
                return Ok(());
            }
            Wanted::Range { days, cause } => (*days, *cause),
        };
        let mut all = days(archive, &request.service, range).await?;
        if let Some(condition) = &self.condition {
            all = condition.days_left(all).await?;
        }
        let note = || note_days(archive, &request.service, &all, cause, cancel);
        once_readable(archive, &patience, note).await?;
        if cancel.is_cancelled() {
            report.cancelled = true;
            report.notes.push(STOPPED.to_owned());
            return Ok(());
        }
        let (mut failed, mut behind) = (BTreeMap::new(), None);
        for name in all.iter().rev() {
            if let Some((what, why)) = behind {
                report.skip(what, name, why);
                continue;
            }
            let mut day = Day { one: &one, day: name, cause, several: BTreeSet::new(), unread: &mut failed };
            match day.passes(report, progress, cancel).await {
                Err(error) if is_archived(&error) => {
                    behind = Some((DAYS_AWAITING, BEHIND_A_TIER));
                    report.skip(DAYS_AWAITING, name, format!("{} lies in an archive tier", error.object));
                }
                Err(error) if matches!(error.kind, ErrorKind::Damaged(_)) => {
                    behind = Some((DAYS_BEHIND, BEHIND_DAMAGE));
                    report.fail_with(name, &error);
                }
                passed => passed?,
            }
            if report.cancelled {
                report.notes.push(STOPPED.to_owned());
                return Ok(());
            }
        }
        Ok(())
    }
}

/// Counts days of which nothing more was put, since a pack lies in an archive tier.
pub const DAYS_AWAITING: &str = "days-awaiting-retrieval";
/// Counts days of which nothing was put, since a pack of a newer one is damaged.
pub const DAYS_BEHIND: &str = "days-behind";
const BEHIND_A_TIER: &str = "a newer deletion may be in a pack that lies in an archive tier";
const BEHIND_DAMAGE: &str =
    "a newer deletion may be in the pack that is damaged: with --to at this day, it and older ones are put";
const NO_TABLE: &str = "make the table anew, with the key that it had, or name another one with --to-table";
const STOPPED: &str = "stopped: give the same command again to go on";

/// Which names of a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pass {
    /// Those with numbers: second and later deletions of a name. With them goes the plain one.
    Numbered,
    /// Plain ones that have no others: side by side.
    Plain,
}

/// What all names of a key have in common: [`lifecycle::archive::Parsed::key_hash`].
type Shown = String;

/// One day of a range.
struct Day<'a> {
    one: &'a One<'a>,
    day: &'a str,
    cause: Option<Cause>,
    /// What was deleted more than once on this day.
    several: BTreeSet<Shown>,
    /// What could not be put: older deletions of it are not put in its place.
    unread: &'a mut BTreeMap<Shown, Unread>,
}

impl Day<'_> {
    async fn passes(
        &mut self,
        report: &mut Report,
        progress: &dyn Progress,
        cancel: &CancellationToken,
    ) -> PortResult<()> {
        for pass in [Pass::Numbered, Pass::Plain] {
            self.pass(pass, report, progress, cancel).await?;
            if report.cancelled {
                return Ok(());
            }
        }
        Ok(())
    }

    async fn pass(
        &mut self,
        pass: Pass,
        report: &mut Report,
        progress: &dyn Progress,
        cancel: &CancellationToken,
    ) -> PortResult<()> {
        let archive = self.one.all.archive.as_ref();
        let mut after = None;
        loop {
            if cancel.is_cancelled() {
                report.cancelled = true;
                return Ok(());
            }
            let page = of_day(archive, self.day, "", after.as_ref()).await?;
            match pass {
                Pass::Numbered => {
                    for named in page.items.iter().filter(|named| named.parsed.sequence.is_some()) {
                        if self.several.insert(named.parsed.key_hash()) && !cancel.is_cancelled() {
                            self.several_of(named, report).await?;
                        }
                    }
                }
                Pass::Plain => self.plain(page.items, report, progress, cancel).await,
            }
            progress.at(report.counted("restored") + report.counted("there"), None, "records");
            after = page.next;
            if after.is_none() || report.cancelled {
                return Ok(());
            }
        }
    }

    /// Puts the newest of the deletions that look like this one; of each record, if several look so.
    async fn several_of(&mut self, named: &Named, report: &mut Report) -> PortResult<()> {
        let archive = self.one.all.archive.as_ref();
        let mut newest: Vec<Found> = Vec::new();
        for other in of_shown(archive, self.day, &named.parsed).await? {
            let found = match read_record(archive, &other.listed.key).await {
                Ok(Some(found)) => found,
                Ok(None) => continue,
                Err(error) => {
                    let of_record = unread(&other.listed.key, &error);
                    self.absorb(named.parsed.key_hash(), of_record, report);
                    continue;
                }
            };
            if self.cause.is_some_and(|cause| found.record.cause != cause) {
                report.count("other-cause", 1);
                continue;
            }
            match newest.iter_mut().find(|one| one.record.is_of_the_key_of(&found.record)) {
                Some(one) if one.record.age() < found.record.age() => *one = found,
                Some(_) => {}
                None => newest.push(found),
            }
        }
        for found in newest {
            let before = self.unread.get(&named.parsed.key_hash()).copied();
            let of_record = self.one.judged(found, before).await;
            self.absorb(named.parsed.key_hash(), of_record, report);
        }
        Ok(())
    }

    async fn plain(
        &mut self,
        names: Vec<Named>,
        report: &mut Report,
        progress: &dyn Progress,
        cancel: &CancellationToken,
    ) {
        let (one, cause) = (self.one, self.cause);
        let plain = names.into_iter().filter(|named| named.parsed.sequence.is_none());
        let work: Vec<(Option<Unread>, Named)> = plain
            .filter(|named| !self.several.contains(&named.parsed.key_hash()))
            .map(|named| (self.unread.get(&named.parsed.key_hash()).copied(), named))
            .collect();
        let (mut ended, all) = (0, work.len());
        let mut results = stream::iter(work)
            .take_while(|_| ready(!cancel.is_cancelled()))
            .map(|(before, named)| async move {
                let of_record = one.named(&named.listed.key, cause, before).await;
                (named.parsed.key_hash(), of_record)
            })
            .buffer_unordered(COMMAND_KEYS_IN_FLIGHT);
        while let Some((shown, of_record)) = results.next().await {
            if let Some(why) = Unread::of(&of_record) {
                self.unread.insert(shown, why);
            }
            report.absorb(of_record);
            ended += 1;
            progress.at(report.counted("restored") + report.counted("there"), None, "records");
        }
        drop(results);
        report.cancelled |= ended < all;
    }

    fn absorb(&mut self, shown: Shown, of_record: Report, report: &mut Report) {
        if let Some(why) = Unread::of(&of_record) {
            self.unread.insert(shown, why);
        }
        report.absorb(of_record);
    }
}
