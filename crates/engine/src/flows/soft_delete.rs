//! Soft delete: a record is marked and given a time to live, so that the table itself deletes it later and the archive
//! catches it; until then `undelete` takes both back, and the record is as it was before.
//!
//! One conditional write each: a crash leaves the record as it was, or marked whole. The mark keeps the time to live that the
//! record had. Laws: I5 (on command), I10, I12 (journalled before the write).

use crate::config::LOCAL_SERVICE;
use crate::error::{ErrorKind, PortError, PortResult};
use crate::limits::MARK_ROUNDS;
use crate::ports::clock::Clock;
use crate::ports::journal::{Action, Entry, Journal};
use crate::ports::tables::{AttributeChange, RecordEdit, TableSetup, TimeToLive};
use crate::report::Report;
use crate::steps::record_keys::{key_in_names, read_key};
use lifecycle::ids::{ObjectKey, PolicyName};
use lifecycle::time::{SpanMs, UnixMs};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// The attribute that marks a record.
pub const MARK: &str = "afterimage_soft_delete";
/// In the mark: the time to live that the record had.
const MARK_TTL: &str = "ttl";

/// The table, and what else it takes.
pub struct SoftDelete {
    /// The table.
    pub table: Arc<dyn RecordEdit>,
    /// Its name.
    pub name: String,
    /// The journal.
    pub journal: Arc<dyn Journal>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Who asks.
    pub who: String,
}

/// A record that is meant.
struct Meant {
    key: Map<String, Value>,
    /// The key, for people.
    shown: String,
    /// The attribute of the time to live.
    ttl: String,
}

impl SoftDelete {
    /// Marks a record; its time to live is over after that span. Counts `soft-deleted`, `already`.
    pub async fn soft_delete(&self, key: &[String], after: SpanMs) -> PortResult<Report> {
        let mut report = Report::of("record soft-delete");
        let meant = self.meant(key).await?;
        for _ in 0..MARK_ROUNDS {
            let Some(record) = self.table.get(&meant.key).await? else {
                report.fail(&meant.shown, format!("there is no such record in {}", self.name));
                return Ok(report);
            };
            if let Some(mark) = record.get(MARK) {
                let since = mark["M"]["at"]["N"].as_str().and_then(|at| at.parse().ok()).map(UnixMs);
                let since = since.map_or_else(String::new, |at| format!(" since {at}"));
                let until =
                    record.get(&meant.ttl).and_then(seconds).map_or_else(String::new, |at| format!(", until {at}"));
                let why = format!("it is soft-deleted{since}{until}: `afterimage record undelete` takes that back");
                report.skip("already", &meant.shown, why);
                return Ok(report);
            }
            let now = self.clock.now();
            let until = UnixMs(now.plus(after).0 / 1_000 * 1_000);
            let before = record.get(&meant.ttl).cloned();
            let changes = [
                AttributeChange { name: MARK.to_owned(), from: None, to: Some(mark(now, &self.who, before.as_ref())) },
                AttributeChange {
                    name: meant.ttl.clone(),
                    to: Some(json!({ "N": (until.0 / 1_000).to_string() })),
                    from: before.clone(),
                },
            ];
            self.journal(Action::SoftDelete, &meant, format!("until {until}")).await?;
            if self.table.change(&meant.key, &changes).await? {
                let later = before.as_ref().and_then(seconds).filter(|before| *before < until);
                let later = later.map(|before| format!(" (its own time to live would have been over at {before})"));
                let how = format!("the table deletes it some time after {until}{}", later.unwrap_or_default());
                report.done("soft-deleted", &meant.shown, how);
                return Ok(report);
            }
        }
        Err(self.busy(&meant))
    }

    /// Takes the mark and its time to live away again; what the record had before comes back, unless that is over by now: the
    /// table would delete the record that a person has just kept. Counts `undeleted`, `not-marked`.
    pub async fn undelete(&self, key: &[String], service: Option<&str>) -> PortResult<Report> {
        let mut report = Report::of("record undelete");
        let setup = self.table.setup().await?;
        let meant = self.meant_of(key, &setup)?;
        for _ in 0..MARK_ROUNDS {
            let Some(record) = self.table.get(&meant.key).await? else {
                let service = service.unwrap_or("SERVICE");
                let name = key_in_names(&meant.key, &setup.key);
                report.fail(
                    &meant.shown,
                    format!(
                        "it is not in {} any more: `afterimage archive restore {service} '{name}'` puts it back from the archive",
                        self.name
                    ),
                );
                return Ok(report);
            };
            let Some(mark) = record.get(MARK) else {
                report.skip("not-marked", &meant.shown, "it is not soft-deleted");
                return Ok(report);
            };
            let now = self.clock.now();
            let (before, over) = match ttl_before(mark) {
                Some(before) if seconds(&before).is_some_and(|over| over <= now) => (None, seconds(&before)),
                before => (before, None),
            };
            let mut changes = vec![AttributeChange { name: MARK.to_owned(), from: Some(mark.clone()), to: None }];
            if record.get(&meant.ttl) != before.as_ref() {
                let from = record.get(&meant.ttl).cloned();
                changes.push(AttributeChange { name: meant.ttl.clone(), from, to: before });
            }
            self.journal(Action::Undelete, &meant, "record".to_owned()).await?;
            if self.table.change(&meant.key, &changes).await? {
                let how = over.map_or_else(
                    || "it is as it was before".to_owned(),
                    |over| format!("its time to live (`{}`) was over at {over}, and is left out", meant.ttl),
                );
                report.done("undeleted", &meant.shown, how);
                return Ok(report);
            }
        }
        Err(self.busy(&meant))
    }

    async fn meant(&self, key: &[String]) -> PortResult<Meant> {
        self.meant_of(key, &self.table.setup().await?)
    }

    fn meant_of(&self, key: &[String], setup: &TableSetup) -> PortResult<Meant> {
        let refused = |kind| PortError::new("find record of", &self.name, kind);
        let key = read_key(key, &setup.key).map_err(|why| refused(ErrorKind::Invalid(why)))?;
        let ttl = match &setup.ttl {
            TimeToLive::By(name) => name.clone(),
            TimeToLive::Off => {
                let how = how_to_switch_on(&self.name);
                let fix = format!("its time to live is off, so nothing would ever delete the record: {how}");
                return Err(refused(ErrorKind::NotSetUp(fix)));
            }
            TimeToLive::EndingSoon => {
                let fix = "its time to live is being switched off: wait until that is over, at most an hour, and switch it on";
                return Err(refused(ErrorKind::NotSetUp(fix.to_owned())));
            }
        };
        if let Some(part) = setup.key.iter().find(|part| part.name == ttl) {
            let why =
                format!("its time to live is by `{}`, an attribute of its key, which cannot be changed", part.name);
            return Err(refused(ErrorKind::NotSetUp(why)));
        }
        Ok(Meant { shown: Value::Object(key.clone()).to_string(), key, ttl })
    }

    fn busy(&self, meant: &Meant) -> PortError {
        PortError::new("mark record", &meant.shown, ErrorKind::Unavailable)
    }

    async fn journal(&self, action: Action, meant: &Meant, rule: String) -> PortResult<()> {
        let entry = Entry {
            at: self.clock.now(),
            who: self.who.clone(),
            policy: PolicyName(format!("table {}", self.name)),
            action,
            // A key of a record may be longer than one of an object: then the line says the table only.
            key: ObjectKey::new(meant.shown.clone()).ok(),
            copy_key: None,
            size: None,
            checksum: None,
            rule,
        };
        self.journal.append(&[entry]).await
    }
}

fn mark(at: UnixMs, who: &str, ttl: Option<&Value>) -> Value {
    let mut mark = json!({ "at": { "N": at.0.to_string() }, "by": { "S": who } });
    if let Some(ttl) = ttl {
        mark[MARK_TTL] = ttl.clone();
    }
    json!({ "M": mark })
}

fn ttl_before(mark: &Value) -> Option<Value> {
    mark["M"].get(MARK_TTL).cloned()
}

fn seconds(value: &Value) -> Option<UnixMs> {
    let seconds = value["N"].as_str()?.parse::<f64>().ok()?;
    Some(UnixMs((seconds * 1_000.0) as i64))
}

/// Takes the mark from an archived image, and gives it the time to live back that it had before; whether there was one.
pub fn unmark(image: &mut Map<String, Value>, ttl: Option<&str>) -> bool {
    let Some(mark) = image.remove(MARK) else { return false };
    match (ttl, ttl_before(&mark)) {
        (Some(ttl), Some(before)) => drop(image.insert(ttl.to_owned(), before)),
        (Some(ttl), None) => drop(image.remove(ttl)),
        (None, _) => {}
    }
    true
}

/// How a table's time to live is switched on: a table of this machine's by whoever has the keys of its endpoint.
pub(super) fn how_to_switch_on(table: &str) -> String {
    match table.strip_prefix(LOCAL_SERVICE).and_then(|rest| rest.strip_prefix('@')) {
        Some(name) => format!(
            "`aws dynamodb update-time-to-live --table-name {name} --time-to-live-specification \
             Enabled=true,AttributeName=ATTRIBUTE` switches it on"
        ),
        None => format!("`afterimage archive enable {table} --ttl ATTRIBUTE` switches it on"),
    }
}
