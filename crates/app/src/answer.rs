//! What commands answer: the shapes that cross the control socket, that `--json` prints, and that `output` renders for
//! people. Times are Unix milliseconds (`_ms`), sizes are bytes.

mod history;
mod letters;
mod tables;

pub(crate) use history::{Audit, Copy, History, JournalLine, PolicyHistory};
pub(crate) use letters::{DeadLetterView, DeadLetters};
pub(crate) use tables::{Enabled, RuleView, SelfTested, StepView, Tiered, TieredBucket};

use crate::exit::{AWAITS, Failure};
use engine::flows::restore_records::{AWAITING, DAYS_AWAITING};
use engine::policy::Policy;
use engine::report::{Item, Report};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The end of a command.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub(crate) enum Answer {
    /// `status`.
    Status(Box<Status>),
    /// `ls`: the keys themselves came before, one by one.
    Listed(Listed),
    /// `archive get`.
    Record(Box<RecordView>),
    /// `archive query`: the rows themselves came before.
    Queried(Queried),
    /// `archive report`.
    Deletions(Deletions),
    /// `history`.
    History(History),
    /// Anything that did work: a report per policy.
    Done(Done),
    /// `clean` without `--now`.
    Due(Due),
    /// `audit`.
    Audit(Audit),
    /// `dlq list` and `dlq show`.
    DeadLetters(DeadLetters),
    /// `archive enable`.
    Enabled(Enabled),
    /// `archive tiers`.
    Tiered(Tiered),
    /// `archive self-test`.
    SelfTested(SelfTested),
    /// `credentials`.
    Credentials(Credentials),
}

/// How everything stands.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Status {
    /// Version of the program that answers.
    pub(crate) version: String,
    /// When the answer was given.
    pub(crate) now_ms: i64,
    /// The data folder.
    pub(crate) data_dir: String,
    /// The endpoint's address while `serve` runs.
    pub(crate) endpoint: Option<String>,
    /// The daemon's process while `serve` runs.
    pub(crate) pid: Option<u32>,
    /// Every policy.
    pub(crate) policies: Vec<PolicyStatus>,
    /// Every bucket.
    pub(crate) buckets: Vec<BucketStatus>,
    /// Every table whose deleted records are archived.
    #[serde(default)]
    pub(crate) archives: Vec<ArchiveStatus>,
    /// The queue of events.
    pub(crate) queue: QueueStatus,
    /// Counters since the daemon's start.
    pub(crate) counters: BTreeMap<String, u64>,
    /// What a person should look at: `--check` fails when there is any.
    pub(crate) problems: Vec<String>,
    /// What is as somebody asked for it, and may be forgotten.
    #[serde(default)]
    pub(crate) notes: Vec<String>,
}

/// How one policy stands.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct PolicyStatus {
    /// Its name.
    pub(crate) name: String,
    /// `copies` or `mirror`.
    pub(crate) mode: String,
    /// What it watches.
    pub(crate) source: String,
    /// Where its copies go.
    pub(crate) destination: String,
    /// Made for a bucket that a client created, rather than by the configuration.
    pub(crate) by_default: bool,
    /// The retention rule in words.
    pub(crate) keep: String,
    /// How long copies of removed objects wait, ms.
    pub(crate) grace_ms: u64,
    /// The age under which nothing is purged, ms.
    pub(crate) protect_for_ms: u64,
    /// When it is cleaned.
    pub(crate) clean: String,
    /// Keys with an active copy.
    pub(crate) live_keys: u64,
    /// Active copies.
    pub(crate) active: u64,
    /// Disowned copies still there.
    pub(crate) disowned: u64,
    /// Bytes of all copies; 0 where they are not known.
    pub(crate) bytes: u64,
    /// These numbers are estimates of the catalog's service, hours old, rather than counts.
    #[serde(default)]
    pub(crate) estimated: bool,
    /// What the catalog's service charged since the daemon's start.
    #[serde(default)]
    pub(crate) capacity: Option<Capacity>,
    /// The breaker has stopped every purge since then.
    pub(crate) tripped_at_ms: Option<i64>,
    /// Removed keys that the breaker counted when it tripped; counting stops at its limit.
    pub(crate) tripped_removed: Option<u64>,
    /// When the last clean ended without failures.
    pub(crate) cleaned_at_ms: Option<i64>,
    /// When the next clean is due.
    pub(crate) next_clean_ms: Option<i64>,
    /// When the last reconcile ended.
    pub(crate) reconciled_at_ms: Option<i64>,
    /// Differences that it left.
    pub(crate) reconcile_gap: Option<u64>,
    /// When the last snapshot of the catalog was saved into the destination.
    pub(crate) snapshot_at_ms: Option<i64>,
}

/// How the archive of one table stands.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct ArchiveStatus {
    /// The table.
    pub(crate) table: String,
    /// What its records lie under.
    pub(crate) service: String,
    /// Where they go.
    pub(crate) destination: String,
    /// Shards of its stream that are being read here.
    pub(crate) shards: u64,
    /// How far the reading lies behind, ms: the furthest of them.
    pub(crate) behind_ms: Option<u64>,
    /// Its destination, or the like, keeps it from being archived.
    #[serde(default)]
    pub(crate) held_up: bool,
    /// How many times records of its stream were lost before they could be read.
    pub(crate) gaps: u64,
    /// How many of its records lie aside, since they could not be archived; counting stops at a page.
    #[serde(default)]
    pub(crate) aside: u64,
    /// How its feed stands, if it has one.
    #[serde(default)]
    pub(crate) feed: Option<FeedStatus>,
}

/// How the feed of one table stands.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct FeedStatus {
    /// Who is told.
    pub(crate) to: String,
    /// Deletions that are archived and not told yet.
    pub(crate) waiting: u64,
    /// There are more of them than were counted.
    #[serde(default)]
    pub(crate) more: bool,
    /// Deletions that it refused for good, and that lie aside.
    #[serde(default)]
    pub(crate) refused: u64,
    /// Since when the oldest of them waits.
    pub(crate) oldest_ms: Option<i64>,
    /// When this process last told something.
    pub(crate) told_at_ms: Option<i64>,
    /// What keeps it from telling.
    pub(crate) trouble: Option<String>,
}

/// What a catalog in DynamoDB has used.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Capacity {
    /// Units of reading.
    pub(crate) read: f64,
    /// Units of writing, the index's included.
    pub(crate) write: f64,
    /// Requests that were answered.
    pub(crate) calls: u64,
}

/// One bucket.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct BucketStatus {
    /// Its name.
    pub(crate) name: String,
    /// `source`, `destination`, or `unprotected`.
    pub(crate) role: String,
    /// The policies that watch it or write it.
    pub(crate) policies: Vec<String>,
}

/// The queue of events.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct QueueStatus {
    /// Events not handled yet.
    pub(crate) waiting: u64,
    /// When the oldest of them happened.
    pub(crate) oldest_ms: Option<i64>,
    /// Events given up.
    pub(crate) dead_letters: u64,
}

/// One key of `ls`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ListedKey {
    /// Of which policy.
    pub(crate) policy: String,
    /// The original's key.
    pub(crate) key: String,
    /// Active copies.
    pub(crate) active: u64,
    /// Disowned copies.
    pub(crate) disowned: u64,
    /// Bytes of all its copies.
    pub(crate) bytes: u64,
    /// When the newest copy's version was created.
    pub(crate) newest_ms: i64,
}

/// The end of `ls`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Listed {
    /// How many keys were listed.
    pub(crate) keys: u64,
    /// Stopped before the end.
    pub(crate) cancelled: bool,
    /// Something is not listed, since an archive tier has it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) awaits: bool,
    /// What is to be said of a list that has nothing, or not all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) note: Option<String>,
    /// Days that could not be listed to their end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) unread: Vec<ItemView>,
}

/// The end of `archive query`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Queried {
    /// How many rows there were.
    pub(crate) rows: u64,
    /// How many days of archives were opened for them.
    pub(crate) days: u64,
    /// Archived records that do not read back, and are in no row.
    pub(crate) damaged: Vec<ItemView>,
    /// Packs that are damaged, and whose records were read from their objects.
    #[serde(default)]
    pub(crate) passed_over: Vec<ItemView>,
    /// Stopped before the end.
    pub(crate) cancelled: bool,
}

/// `archive report`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Deletions {
    /// Of which month: `yyyy-mm`.
    pub(crate) month: String,
    /// When it was made.
    pub(crate) made_at_ms: i64,
    /// How many records were deleted: by service, table, day and cause.
    pub(crate) lines: Vec<DeletionsLine>,
    /// Archived records that do not read back, and are not counted.
    pub(crate) damaged: Vec<ItemView>,
    /// Packs that are damaged, and whose records were read from their objects.
    #[serde(default)]
    pub(crate) passed_over: Vec<ItemView>,
    /// Stopped before the end: it is not whole.
    pub(crate) cancelled: bool,
}

/// One number of `archive report`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DeletionsLine {
    /// The service.
    pub(crate) service: String,
    /// The table.
    pub(crate) table: String,
    /// The day, UTC: `yyyy-mm-dd`.
    pub(crate) day: String,
    /// `user` or `ttl`.
    pub(crate) cause: String,
    /// Records.
    pub(crate) records: u64,
    /// Bytes of their archived objects.
    pub(crate) bytes: u64,
}

/// One archived record of `archive ls`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ListedRecord {
    /// The day of its deletion, UTC.
    pub(crate) day: String,
    /// Its key as names have it: the values joined by `_`, escaped; only the beginning, if it is very long.
    pub(crate) key: String,
    /// Who deleted it, where that was asked for: `user` or `ttl`.
    pub(crate) cause: Option<String>,
    /// Bytes of the object.
    pub(crate) bytes: u64,
    /// The object.
    pub(crate) object: String,
}

/// One archived record.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RecordView {
    /// The object.
    pub(crate) object: String,
    /// The table.
    pub(crate) table: String,
    /// Who deleted it: `user` or `ttl`.
    pub(crate) cause: String,
    /// When.
    pub(crate) deleted_at_ms: i64,
    /// Its last image, in DynamoDB's JSON.
    pub(crate) image: serde_json::Value,
    /// The whole record of the stream.
    pub(crate) record: serde_json::Value,
}

/// The reports of a command that did work.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Done {
    /// One per policy, or one of the whole folder.
    pub(crate) reports: Vec<ReportView>,
}

/// One report.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct ReportView {
    /// Of which policy.
    pub(crate) policy: Option<String>,
    /// The verb.
    pub(crate) operation: String,
    /// How many of what.
    pub(crate) counts: BTreeMap<String, u64>,
    /// What was done, item by item.
    pub(crate) done: Vec<ItemView>,
    /// What was left alone, and why.
    pub(crate) skipped: Vec<ItemView>,
    /// What failed, and why.
    pub(crate) failed: Vec<ItemView>,
    /// How many failed, named or not.
    pub(crate) failures: u64,
    /// Remarks.
    pub(crate) notes: Vec<String>,
    /// Stopped before the end.
    pub(crate) cancelled: bool,
}

/// One object of a report.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ItemView {
    /// Which.
    pub(crate) object: String,
    /// What happened to it.
    pub(crate) why: String,
}

/// What is due, per policy.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Due {
    /// When the answer was given.
    pub(crate) now_ms: i64,
    /// One per policy.
    pub(crate) policies: Vec<PolicyDue>,
}

/// What is due in one policy.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct PolicyDue {
    /// The policy.
    pub(crate) policy: String,
    /// Copies that the next clean may purge; counting stops at a page.
    pub(crate) due: u64,
    /// There are more than were counted.
    pub(crate) more: bool,
    /// When the first copy that is not due yet will be.
    pub(crate) next_due_ms: Option<i64>,
    /// When the daemon cleans next.
    pub(crate) next_clean_ms: Option<i64>,
    /// The breaker holds everything.
    pub(crate) tripped: bool,
}

/// `credentials`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Credentials {
    /// The access key.
    pub(crate) access_key_id: String,
    /// The secret key.
    pub(crate) secret_access_key: String,
    /// The endpoint's region.
    pub(crate) region: String,
    /// The endpoint's address while `serve` runs.
    pub(crate) endpoint: Option<String>,
    /// The same of the DynamoDB endpoint.
    pub(crate) tables_endpoint: Option<String>,
    /// They were made just now.
    pub(crate) rotated: bool,
}

impl Done {
    /// What an operation did for one policy. Its failure as a whole is told as that policy's, and holds up no other one.
    pub(crate) fn push(&mut self, policy: &Policy, operation: &str, result: Result<Report, Failure>) {
        let report = result.unwrap_or_else(|failure| {
            let mut report = Report::of(operation);
            report.fail(&policy.name, failure.chain());
            report
        });
        self.reports.push(ReportView::of(Some(policy.name.as_str()), report));
    }

    /// What an operation did for the archive of a table.
    pub(crate) fn of_archive(&mut self, service: &str, report: Report) {
        self.reports.push(ReportView::of(Some(service), report));
    }

    pub(crate) fn of_table(&mut self, table: &str, report: Report) {
        self.reports.push(ReportView::of(Some(table), report));
    }
}

impl ReportView {
    /// Of a policy whose turn had not come when the command was stopped.
    pub(crate) fn not_begun(operation: &str, policy: &Policy) -> ReportView {
        ReportView {
            operation: operation.to_owned(),
            policy: Some(policy.name.to_string()),
            notes: vec![format!("{} was not begun", policy.name)],
            cancelled: true,
            ..ReportView::default()
        }
    }

    /// A flow's report, of one policy.
    pub(crate) fn of(policy: Option<&str>, report: Report) -> ReportView {
        let items =
            |items: Vec<Item>| items.into_iter().map(|item| ItemView { object: item.object, why: item.why }).collect();
        ReportView {
            policy: policy.map(str::to_owned),
            operation: report.operation,
            counts: report.counts.into_iter().map(|(what, n)| (what.to_owned(), n)).collect(),
            done: items(report.done),
            skipped: items(report.skipped),
            failed: items(report.failed),
            failures: report.failures,
            notes: report.notes,
            cancelled: report.cancelled,
        }
    }

    fn is_success(&self) -> bool {
        self.failures == 0 && !self.cancelled
    }

    fn awaits(&self) -> bool {
        [AWAITING, DAYS_AWAITING].iter().any(|what| self.counts.get(*what).is_some_and(|n| *n > 0))
    }
}

impl Answer {
    /// The exit code: 0 all done, 1 something failed, 3 nothing failed and something awaits its retrieval.
    pub(crate) fn exit_code(&self, check: bool) -> u8 {
        let awaits = match self {
            Answer::Done(done) => done.reports.iter().any(ReportView::awaits),
            Answer::Listed(listed) => listed.awaits,
            _ => false,
        };
        match self.is_success(check) {
            false => 1,
            true if awaits => AWAITS,
            true => 0,
        }
    }

    /// Whether nothing failed of what the command was asked for, and nobody stopped it.
    pub(crate) fn is_success(&self, check: bool) -> bool {
        match self {
            Answer::Status(status) => !check || status.problems.is_empty(),
            Answer::Listed(listed) => !listed.cancelled && listed.unread.is_empty(),
            Answer::Done(done) => done.reports.iter().all(ReportView::is_success),
            Answer::Audit(audit) => audit.faults.is_empty(),
            Answer::DeadLetters(letters) => letters.unknown.is_empty(),
            Answer::Enabled(enabled) => enabled.refused.is_empty(),
            Answer::Tiered(tiered) => tiered.buckets.iter().all(|bucket| bucket.refused.is_empty()),
            Answer::SelfTested(tested) => tested.is_success(),
            Answer::Queried(of) => of.damaged.is_empty() && of.passed_over.is_empty() && !of.cancelled,
            Answer::Deletions(of) => of.damaged.is_empty() && of.passed_over.is_empty() && !of.cancelled,
            Answer::History(_) | Answer::Record(_) | Answer::Due(_) | Answer::Credentials(_) => true,
        }
    }
}
