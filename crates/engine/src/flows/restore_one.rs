//! One record of a restore: judged, made fit for the table, journalled and put, at the pace that was asked for. What it does
//! not put says why.

use crate::error::{ErrorKind, PortError, PortResult};
use crate::flows::find_record::{Found, read_record};
use crate::flows::restore_records::{RecordsRequest, RestoreRecords, Ttl};
use crate::flows::soft_delete::unmark;
use crate::ports::clock::Clock;
use crate::ports::journal::{Action, Entry};
use crate::ports::tables::{PutOnto, TableShape};
use crate::report::Report;
use crate::steps::away::is_archived;
use crate::steps::met::Met;
use lifecycle::archive::Cause;
use lifecycle::ids::{ObjectKey, PolicyName};
use lifecycle::time::UnixMs;
use serde_json::{Map, Value, json};
use std::sync::{Mutex, PoisonError};

/// Counts records that await their retrieval from an archive tier.
pub const AWAITING: &str = "awaiting-retrieval";
/// What is told of one of them.
pub(super) const IN_A_TIER: &str = "it lies in an archive tier";

/// Why a deletion was not put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unread {
    Failed,
    Awaiting,
}

impl Unread {
    pub(super) fn of(report: &Report) -> Option<Unread> {
        let is_awaiting = report.counted(AWAITING) > 0;
        (report.failures > 0).then_some(Unread::Failed).or(is_awaiting.then_some(Unread::Awaiting))
    }
}

/// Writes at a rate.
pub(super) struct Pace {
    rate: Option<u32>,
    /// When the next turn is, in microseconds since 1970: a thousand a second and more are kept, too.
    next_us: Mutex<i64>,
}

impl Pace {
    /// At most so many a second; `None`: no limit.
    pub(super) fn of(rate: Option<u32>) -> Self {
        Self { rate, next_us: Mutex::new(0) }
    }

    /// Waits for its turn; turns that nobody took are over.
    async fn turn(&self, clock: &dyn Clock) {
        let Some(rate) = self.rate else { return };
        let now = clock.now();
        let due = {
            let mut next = self.next_us.lock().unwrap_or_else(PoisonError::into_inner);
            let due = (now.0 * 1_000).max(*next);
            *next = due + 1_000_000 / i64::from(rate.max(1));
            UnixMs(due / 1_000)
        };
        if due > now {
            clock.sleep(due.since(now)).await;
        }
    }
}

/// What is told of a deletion that is not put in the place of a newer one.
fn not_in_its_place(name: ObjectKey, why: Unread, report: &mut Report) {
    match why {
        Unread::Failed => report
            .fail(name, "another deletion of it, which may be newer, failed, and this one was not put in its place"),
        Unread::Awaiting => {
            let why = "a newer deletion of it lies in an archive tier, and this one was not put in its place";
            report.skip(AWAITING, name, why);
        }
    }
}

/// What is told of a record that could not be read.
pub(super) fn unread(name: &ObjectKey, error: &PortError) -> Report {
    let mut report = Report::of("archive restore");
    match is_archived(error) {
        true => report.skip(AWAITING, name, IN_A_TIER),
        false => report.fail_with(name, error),
    }
    report
}

/// One restore, as its records see it.
pub(super) struct One<'a> {
    pub(super) all: &'a RestoreRecords,
    pub(super) request: &'a RecordsRequest,
    /// Which records of a range were met.
    pub(super) met: &'a dyn Met,
    pub(super) shape: &'a TableShape,
    pub(super) pace: &'a Pace,
}

impl One<'_> {
    pub(super) async fn named(&self, name: &ObjectKey, cause: Option<Cause>, before: Option<Unread>) -> Report {
        let mut report = Report::of("archive restore");
        match read_record(self.all.archive.as_ref(), name).await {
            Ok(Some(found)) if cause.is_some_and(|cause| found.record.cause != cause) => report.count("other-cause", 1),
            Ok(Some(found)) => return self.judged(found, before).await,
            Ok(None) => {}
            Err(error) => return unread(name, &error),
        }
        report
    }

    /// Puts it, if it is its record's newest and what is asked for, unless one that may be newer could not be put.
    pub(super) async fn judged(&self, found: Found, before: Option<Unread>) -> Report {
        if self.all.from_table.as_ref().is_some_and(|table| *table != found.record.table) {
            return self.put(found).await;
        }
        let mut report = Report::of("archive restore");
        let identity = json!([found.record.table, found.record.key_values()]).to_string();
        let judged = async {
            let is_met = !self.met.note(identity).await?;
            let holds = match &self.all.condition {
                Some(condition) if !is_met => condition.holds(&found).await?,
                _ => true,
            };
            PortResult::Ok((is_met, holds))
        };
        match judged.await {
            Ok((true, _)) => report.count("older", 1),
            Ok((false, false)) => report.count("unmet", 1),
            Ok((false, true)) => match before {
                Some(why) => not_in_its_place(found.name, why, &mut report),
                None => return self.put(found).await,
            },
            Err(error) => report.fail_with(&found.name, &error),
        }
        report
    }

    pub(super) async fn put(&self, found: Found) -> Report {
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
        let unmarked = self.request.ttl != Ttl::Keep && unmark(&mut image, self.shape.ttl.as_deref());
        let unmarked = if unmarked { "; it was soft-deleted, and its mark is left out" } else { "" };
        let told = format!("{unmarked}{}", self.ttl(&mut image));
        if self.request.dry_run {
            report.done("would-restore", &name, format!("deleted at {}{told}", record.deleted_at));
            return Ok(());
        }
        self.pace.turn(self.all.clock.as_ref()).await;
        self.journal(&name, &record.table).await?;
        let onto = if self.request.overwrite { PutOnto::Anything } else { PutOnto::Nothing };
        match self.all.table.put(&image, self.shape, onto).await? {
            true => {
                report.done("restored", &name, format!("deleted at {}{told}", record.deleted_at));
                report.count("ttl-changed", u64::from(!told.is_empty()));
            }
            false => report.skip("there", &name, "a record with its key is in the table: --overwrite replaces it"),
        }
        Ok(())
    }

    /// What becomes of the record's time to live, in words.
    fn ttl(&self, image: &mut Map<String, Value>) -> String {
        let now = self.all.clock.now();
        let Some(name) = self.shape.ttl.as_ref().filter(|name| !self.shape.key_names.contains(name)) else {
            return String::new();
        };
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
