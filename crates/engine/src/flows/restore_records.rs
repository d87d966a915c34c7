//! Restore of records: what was deleted is put back into a table, as it was.
//!
//! Of a key that was deleted more than once, the newest deletion in the range counts: without `overwrite` the newest are put
//! first, and what is there already is left alone; with it the oldest are put first, and the newest last. So memory holds a
//! page of names, and those of one key of one day, and the command can simply be given again.
//!
//! A time to live that is over would delete the record once more: it is taken away, unless something else is asked for. A
//! crash leaves some records put back. Laws: I10, I11, I12 (each is journalled before it is put).

use crate::error::{ErrorKind, PortError, PortResult};
use crate::flows::find_record::{Found, find_record, read_record};
use crate::limits::COMMAND_KEYS_IN_FLIGHT;
use crate::ports::clock::Clock;
use crate::ports::journal::{Action, Entry, Journal};
use crate::ports::objects::ObjectRead;
use crate::ports::progress::Progress;
use crate::ports::tables::{PutOnto, RecordTable, TableShape};
use crate::report::Report;
use crate::steps::archived_names::{Days, Named, days, of_day};
use futures_util::future::ready;
use futures_util::{StreamExt, stream};
use lifecycle::archive::{Cause, ServiceName};
use lifecycle::ids::{ObjectKey, PolicyName};
use lifecycle::time::{SpanMs, UnixMs};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio_util::sync::CancellationToken;

/// Which records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The newest deletion of one key (its values as they stand in names), not later than `at`.
    Key {
        /// The key.
        key: String,
        /// Until when.
        at: Option<UnixMs>,
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
}

/// The archive, the table, and what else a restore needs.
pub struct RestoreRecords {
    /// The archive.
    pub archive: Arc<dyn ObjectRead>,
    /// Of which table the records are: others of the service are passed over. `None`: of any.
    pub from_table: Option<String>,
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
    /// Puts records back. Counts `restored` (or `would-restore`), `there` (left alone), `other-cause`, `other-table`,
    /// `ttl-changed`; a record that does not read back is a failure with its name.
    pub async fn run(&self, request: &RecordsRequest, progress: &dyn Progress, cancel: &CancellationToken) -> Report {
        let mut report = Report::of("archive restore");
        report.count(if request.dry_run { "would-restore" } else { "restored" }, 0);
        if let Err(error) = self.all(request, &mut report, progress, cancel).await {
            report.fail_with(&request.service, &error);
            report.cancelled = true;
        }
        report
    }

    async fn all(
        &self,
        request: &RecordsRequest,
        report: &mut Report,
        progress: &dyn Progress,
        cancel: &CancellationToken,
    ) -> PortResult<()> {
        let shape = self.table.shape().await?;
        let pace = Pace { rate: request.rate, began: self.clock.now(), put: AtomicU64::new(0) };
        let one = One { all: self, request, shape: &shape, pace: &pace };
        let (range, cause) = match &request.wanted {
            Wanted::Key { key, at } => {
                match find_record(self.archive.as_ref(), &request.service, key, *at).await? {
                    Some(found) => report.absorb(one.put(found).await),
                    None => report.fail(key, "no deletion of it is archived: see `afterimage archive ls`"),
                }
                return Ok(());
            }
            Wanted::Range { days, cause } => (*days, *cause),
        };
        let mut all = days(self.archive.as_ref(), &request.service, range).await?;
        // The plain name is the first deletion of its day, those with numbers are later ones.
        let mut passes = [Pass::Numbered, Pass::Plain];
        match request.overwrite {
            true => passes.reverse(),
            false => all.reverse(),
        }
        for day in &all {
            for pass in passes {
                one.day(day, pass, cause, report, progress, cancel).await?;
                if report.cancelled {
                    report.notes.push("stopped: give the same command again to go on".to_owned());
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// Which names of a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pass {
    /// Plain ones, each of another key: side by side.
    Plain,
    /// Those with numbers, of which one key may have many: one after the other.
    Numbered,
}

/// Writes at a rate.
struct Pace {
    rate: Option<u32>,
    began: UnixMs,
    put: AtomicU64,
}

impl Pace {
    /// Waits for its turn.
    async fn turn(&self, clock: &dyn Clock) {
        let Some(rate) = self.rate else { return };
        let place = self.put.fetch_add(1, Ordering::Relaxed);
        let due = self.began.plus(SpanMs(place.saturating_mul(1_000) / u64::from(rate.max(1))));
        let wait = due.since(clock.now());
        if wait > SpanMs::ZERO {
            clock.sleep(wait).await;
        }
    }
}

struct One<'a> {
    all: &'a RestoreRecords,
    request: &'a RecordsRequest,
    shape: &'a TableShape,
    pace: &'a Pace,
}

impl One<'_> {
    async fn day(
        &self,
        day: &str,
        pass: Pass,
        cause: Option<Cause>,
        report: &mut Report,
        progress: &dyn Progress,
        cancel: &CancellationToken,
    ) -> PortResult<()> {
        let (mut after, mut group) = (None, Group::default());
        loop {
            let page = of_day(self.all.archive.as_ref(), day, "", after.as_ref()).await?;
            after = page.next;
            for named in page.items.iter().filter(|named| pass_of(named) == pass) {
                let full = match pass {
                    Pass::Plain => group.names.len() == COMMAND_KEYS_IN_FLIGHT,
                    Pass::Numbered => !group.has(named),
                };
                if full {
                    self.group(std::mem::take(&mut group), pass, cause, report, progress, cancel).await;
                }
                group.add(named);
            }
            if after.is_none() || report.cancelled {
                break;
            }
        }
        self.group(group, pass, cause, report, progress, cancel).await;
        Ok(())
    }

    async fn group(
        &self,
        group: Group,
        pass: Pass,
        cause: Option<Cause>,
        report: &mut Report,
        progress: &dyn Progress,
        cancel: &CancellationToken,
    ) {
        let mut names = group.names;
        // Of one key the names stand in the order of its deletions.
        let side_by_side = match pass {
            Pass::Plain => COMMAND_KEYS_IN_FLIGHT,
            Pass::Numbered => 1,
        };
        if pass == Pass::Numbered && !self.request.overwrite {
            names.reverse();
        }
        let (mut ended, all) = (0, names.len());
        let mut results = stream::iter(names)
            .take_while(|_| ready(!cancel.is_cancelled()))
            .map(|name| async move { self.named(&name, cause).await })
            .buffer_unordered(side_by_side);
        while let Some(of_record) = results.next().await {
            report.absorb(of_record);
            ended += 1;
            progress.at(report.counted("restored") + report.counted("there"), None, "records");
        }
        report.cancelled |= ended < all;
    }

    async fn named(&self, name: &ObjectKey, cause: Option<Cause>) -> Report {
        match read_record(self.all.archive.as_ref(), name).await {
            Ok(Some(found)) if cause.is_some_and(|cause| found.record.cause != cause) => {
                let mut report = Report::of("archive restore");
                report.count("other-cause", 1);
                report
            }
            Ok(Some(found)) => self.put(found).await,
            Ok(None) => Report::of("archive restore"),
            Err(error) => {
                let mut report = Report::of("archive restore");
                report.fail_with(name, &error);
                report
            }
        }
    }

    async fn put(&self, found: Found) -> Report {
        let mut report = Report::of("archive restore");
        let name = found.name.clone();
        if let Err(error) = self.try_put(found, &mut report).await {
            report.fail_with(&name, &error);
        }
        report
    }

    async fn try_put(&self, found: Found, report: &mut Report) -> PortResult<()> {
        let Found { name, record, .. } = found;
        if self.all.from_table.as_ref().is_some_and(|table| *table != record.table) {
            report.skip("other-table", &name, format!("it is of the table {}", record.table));
            return Ok(());
        }
        if record.key != self.shape.key_names {
            let why = format!(
                "its key is ({}), and the table's is ({}): restore it into a table of its own kind",
                record.key.join(", "),
                self.shape.key_names.join(", ")
            );
            return Err(PortError::new("restore record", &name, ErrorKind::Invalid(why)));
        }
        let mut image = record.image;
        let told = self.ttl(&mut image);
        if self.request.dry_run {
            report.done("would-restore", &name, format!("deleted at {}{told}", record.deleted_at));
            return Ok(());
        }
        self.pace.turn(self.all.clock.as_ref()).await;
        self.journal(&name, &record.table).await?;
        let onto = if self.request.overwrite { PutOnto::Anything } else { PutOnto::Nothing };
        match self.all.table.put(&image, self.shape, onto).await? {
            true => report.done("restored", &name, format!("deleted at {}{told}", record.deleted_at)),
            false => report.skip("there", &name, "a record with its key is in the table: --overwrite replaces it"),
        }
        report.count("ttl-changed", u64::from(!told.is_empty()));
        Ok(())
    }

    /// What becomes of the record's time to live, in words.
    fn ttl(&self, image: &mut Map<String, Value>) -> String {
        let now = self.all.clock.now();
        let Some(name) = &self.shape.ttl else { return String::new() };
        let ends = image.get(name).and_then(|value| value["N"].as_str()?.parse::<f64>().ok());
        if ends.is_none_or(|ends| ends * 1_000.0 > now.0 as f64) {
            return String::new();
        }
        match self.request.ttl {
            Ttl::Keep => String::new(),
            Ttl::StripIfOver => {
                image.remove(name);
                format!("; its time to live (`{name}`) was over, and is left out")
            }
            Ttl::Extend(span) => {
                let until = now.plus(span);
                image.insert(name.clone(), json!({ "N": (until.0 / 1_000).to_string() }));
                format!("; its time to live (`{name}`) was over, and is {until} now")
            }
        }
    }

    async fn journal(&self, name: &ObjectKey, table: &str) -> PortResult<()> {
        let entry = Entry {
            at: self.all.clock.now(),
            who: self.all.who.clone(),
            policy: PolicyName(format!("archive {table}")),
            action: Action::Restore,
            key: Some(name.clone()),
            copy_key: None,
            size: None,
            checksum: None,
            rule: "record".to_owned(),
        };
        self.all.journal.append(&[entry]).await
    }
}

/// Names that are worked on together: some plain ones, or all with numbers of one key.
#[derive(Default)]
struct Group {
    of: Option<(String, Option<String>)>,
    names: Vec<ObjectKey>,
}

impl Group {
    fn has(&self, named: &Named) -> bool {
        self.of.as_ref().is_none_or(|(key, cut)| *key == named.parsed.key && *cut == named.parsed.cut)
    }

    fn add(&mut self, named: &Named) {
        self.of = Some((named.parsed.key.clone(), named.parsed.cut.clone()));
        self.names.push(named.listed.key.clone());
    }
}

fn pass_of(named: &Named) -> Pass {
    if named.parsed.sequence.is_some() { Pass::Numbered } else { Pass::Plain }
}
