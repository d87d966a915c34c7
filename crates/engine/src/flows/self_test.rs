//! Self-test: the whole way of a deleted record with a record of its own, before it matters. A marked record is put into the
//! table, deleted, found in the archive, put back, and compared attribute by attribute; each step says how long it took, and
//! the first that fails what to do about it.
//!
//! Only records that carry this test's own mark are ever deleted here. A crash leaves that one record in the table; its
//! objects stay in the archive, as everything does. Laws: I5 (on command), I10, I12 (the restore is journalled).

use crate::error::{ErrorKind, PortResult};
use crate::flows::find_record::{Found, read_record};
use crate::flows::restore_records::{RecordsRequest, RestoreRecords, Wanted};
use crate::flows::soft_delete::how_to_switch_on;
use crate::limits::SELF_TEST_LOOK_EVERY;
use crate::ports::clock::{Clock, Nonces};
use crate::ports::journal::Journal;
use crate::ports::progress::{Progress, Silent};
use crate::ports::tables::{KeyKind, PutOnto, RecordEdit, RecordTable, TableSetup, TimeToLive};
use crate::report::chain;
use crate::steps::archived_names::{Days, days, of_key};
use crate::steps::met::MetInMemory;
use crate::steps::record_keys::key_in_names;
use crate::wrap::unpacked::Unpacked;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lifecycle::archive::{Cause, ServiceName};
use lifecycle::time::{SpanMs, UnixMs};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// The attribute that only records of a self-test have; its value is the test's own.
const MARK: &str = "afterimage_self_test";
/// How far the clocks of table and archive may differ.
const SKEW: SpanMs = SpanMs::hours(1);
/// How many steps there are.
const STEPS: u64 = 8;

/// Who deletes the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeletedBy {
    /// This test, by a request.
    Hand,
    /// The table, since the record's time to live is over.
    Ttl,
}

impl DeletedBy {
    /// What the archive must say of it.
    fn cause(self) -> Cause {
        match self {
            DeletedBy::Hand => Cause::User,
            DeletedBy::Ttl => Cause::Ttl,
        }
    }
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SelfTestRequest {
    /// Who deletes the record.
    pub by: DeletedBy,
    /// How long each wait may take.
    pub within: SpanMs,
}

/// The table, its archive, and what else it takes.
pub struct SelfTest<T> {
    /// The table.
    pub table: Arc<T>,
    /// Its name.
    pub name: String,
    /// Its archive.
    pub archive: Arc<Unpacked>,
    /// What its records lie under.
    pub service: ServiceName,
    /// The journal.
    pub journal: Arc<dyn Journal>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Names.
    pub nonces: Arc<dyn Nonces>,
    /// Who asks.
    pub who: String,
}

/// One step, done or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What was done.
    pub what: &'static str,
    /// How long it took.
    pub took: SpanMs,
    /// What came of it; or what went wrong.
    pub ended: Result<String, Wrong>,
}

/// Why a step failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// What went wrong.
    pub why: String,
    /// What to do about it.
    pub remedy: String,
}

/// How a step ended, before it is written down.
type Ended<A> = Result<(A, String), Wrong>;

/// The record of one test.
struct Marked {
    setup: TableSetup,
    key: Map<String, Value>,
    record: Map<String, Value>,
    mark: Value,
    began: UnixMs,
}

/// What is waited for.
struct Wait {
    until: Until,
    within: SpanMs,
    /// What to do if it does not come.
    remedy: &'static str,
}

/// When a wait is over.
#[derive(Clone, Copy)]
enum Until {
    /// The record is not in the table any more.
    Gone,
    /// It is in the archive.
    Archived,
}

/// The steps so far.
struct Steps<'a> {
    clock: &'a dyn Clock,
    progress: &'a dyn Progress,
    done: Vec<Step>,
}

impl Steps<'_> {
    /// Notes how a step ended that began then; what it gave, unless it failed.
    fn note<A>(&mut self, what: &'static str, began: UnixMs, ended: Ended<A>) -> Option<A> {
        let took = self.clock.now().since(began);
        let (gave, ended) = match ended {
            Ok((gave, told)) => (Some(gave), Ok(told)),
            Err(wrong) => (None, Err(wrong)),
        };
        self.done.push(Step { what, took, ended });
        self.progress.at(self.done.len() as u64, Some(STEPS), "steps");
        gave
    }
}

impl<T: RecordEdit + RecordTable + 'static> SelfTest<T> {
    /// Does all of it; the steps that were begun, in order. It succeeded if each of them did.
    pub async fn run(
        &self,
        request: SelfTestRequest,
        progress: &dyn Progress,
        cancel: &CancellationToken,
    ) -> Vec<Step> {
        let mut steps = Steps { clock: self.clock.as_ref(), progress, done: Vec::new() };
        let now = || self.clock.now();
        let began = now();
        let Some(marked) = steps.note("look at the table", began, self.prepare(request.by).await) else {
            return steps.done;
        };
        self.the_way(&marked, request, cancel, &mut steps).await;
        let began = now();
        steps.note("clean up", began, self.clean_up(&marked).await);
        steps.done
    }

    async fn the_way(
        &self,
        marked: &Marked,
        request: SelfTestRequest,
        cancel: &CancellationToken,
        steps: &mut Steps<'_>,
    ) -> Option<()> {
        let now = || self.clock.now();
        let began = now();
        steps.note("put a marked record", began, self.put(marked).await)?;
        let began = now();
        match request.by {
            DeletedBy::Hand => steps.note("delete it by hand", began, self.delete(marked).await)?,
            DeletedBy::Ttl => {
                let gone = self.wait_for_ttl(marked, request.within, cancel).await;
                steps.note("wait until its time to live has deleted it", began, gone)?;
            }
        }
        let began = now();
        let archived = self.wait_for_archive(marked, request.within, cancel).await;
        let found = steps.note("find it in the archive", began, archived)?;
        let began = now();
        steps.note("compare what is archived", began, compared_archived(marked, &found, request.by))?;
        let began = now();
        steps.note("put it back from the archive", began, self.restore(&found).await)?;
        let began = now();
        steps.note("compare what was put back", began, self.compare_restored(marked, request.by).await)
    }

    async fn prepare(&self, by: DeletedBy) -> Ended<Marked> {
        let setup = self.table.setup().await.map_err(|error| Wrong {
            why: chain(&error),
            remedy: "give the table's name as the configuration has it, and the right to look at it".to_owned(),
        })?;
        if !setup.stream.is_some_and(|view| view.carries_old_images()) {
            return Err(Wrong {
                why: "it has no stream that carries old images".to_owned(),
                remedy: format!("`afterimage archive enable {}` switches one on", self.name),
            });
        }
        let mark = json!({ "S": format!("self-test-{}", self.nonces.nonce()) });
        let began = self.clock.now();
        let mut record = sample();
        record.insert(MARK.to_owned(), mark.clone());
        if by == DeletedBy::Ttl {
            let TimeToLive::By(ttl) = &setup.ttl else {
                return Err(Wrong { why: "its time to live is off".to_owned(), remedy: how_to_switch_on(&self.name) });
            };
            record.insert(ttl.clone(), json!({ "N": (began.0 / 1_000 - 1).to_string() }));
        }
        let mut key = Map::new();
        for part in &setup.key {
            let name = format!("afterimage-self-test-{}", self.nonces.nonce());
            let value = match part.kind {
                KeyKind::Text => name,
                KeyKind::Number => (1 + self.nonces.jitter(1 << 52)).to_string(),
                KeyKind::Binary => STANDARD.encode(name),
            };
            key.insert(part.name.clone(), json!({ part.kind.code(): value }));
        }
        record.extend(key.clone());
        let told = format!("its key is ({})", setup.key.iter().map(|part| &*part.name).collect::<Vec<_>>().join(", "));
        Ok((Marked { setup, key, record, mark, began }, told))
    }

    async fn put(&self, marked: &Marked) -> Ended<()> {
        let remedy = "give the right dynamodb:PutItem on the table".to_owned();
        let put = async {
            let shape = self.table.shape().await?;
            self.table.put(&marked.record, &shape, PutOnto::Nothing).await
        };
        match put.await {
            Ok(true) => Ok(((), format!("{}", Value::Object(marked.key.clone())))),
            Ok(false) => {
                Err(Wrong { why: "a record with its random key is there".to_owned(), remedy: "try again".to_owned() })
            }
            Err(error) => Err(Wrong { why: chain(&error), remedy }),
        }
    }

    async fn delete(&self, marked: &Marked) -> Ended<()> {
        match self.table.delete(&marked.key, MARK, &marked.mark).await {
            Ok(true) => Ok(((), "done".to_owned())),
            Ok(false) => Err(Wrong {
                why: "somebody else has deleted or changed it".to_owned(),
                remedy: "see who changes records that are not theirs, and try again".to_owned(),
            }),
            Err(error) => {
                let remedy = "give the right dynamodb:DeleteItem on the table".to_owned();
                Err(Wrong { why: chain(&error), remedy })
            }
        }
    }

    /// Looks until it is so, or the time is over.
    async fn wait(&self, marked: &Marked, wait: Wait, cancel: &CancellationToken) -> Result<Option<Found>, Wrong> {
        let Wait { until, within, remedy } = wait;
        let wrong = |why: String| Wrong { why, remedy: remedy.to_owned() };
        let end = self.clock.now().plus(within);
        loop {
            // What may be otherwise in a moment does not end a test that waits for days.
            let mut trouble = String::new();
            let looked = match until {
                Until::Gone => self.table.get(&marked.key).await.map(|record| record.is_none().then_some(None)),
                Until::Archived => self.find(marked).await.map(|found| found.map(Some)),
            };
            match looked {
                Ok(Some(found)) => return Ok(found),
                Ok(None) => {}
                Err(error) if matches!(error.kind, ErrorKind::Throttled | ErrorKind::Unavailable) => {
                    trouble = format!(": {}", chain(&error))
                }
                Err(error) => return Err(wrong(chain(&error))),
            }
            if self.clock.now() >= end {
                return Err(wrong(format!("not within {within}{trouble}")));
            }
            tokio::select! {
                () = cancel.cancelled() => return Err(wrong("stopped on request".to_owned())),
                () = self.clock.sleep(SELF_TEST_LOOK_EVERY) => {}
            }
        }
    }

    async fn wait_for_ttl(&self, marked: &Marked, within: SpanMs, cancel: &CancellationToken) -> Ended<()> {
        let remedy = "AWS deletes within a few days of the time, at no promised moment: give --within more, such as 7d";
        self.wait(marked, Wait { until: Until::Gone, within, remedy }, cancel).await?;
        Ok(((), "it is gone".to_owned()))
    }

    async fn wait_for_archive(&self, marked: &Marked, within: SpanMs, cancel: &CancellationToken) -> Ended<Found> {
        let remedy = "`afterimage serve` with this table's [[archive]], or the function `records`, must be running: \
                      `afterimage status` says whether the stream is read, `afterimage dlq list` what could not be archived";
        let found = self.wait(marked, Wait { until: Until::Archived, within, remedy }, cancel).await?;
        let found = found.ok_or_else(|| Wrong { why: "it is gone again".to_owned(), remedy: remedy.to_owned() })?;
        let told = format!("{}, deleted by {}", found.name, found.record.cause.as_str());
        Ok((found, told))
    }

    async fn find(&self, marked: &Marked) -> PortResult<Option<Found>> {
        let key = key_in_names(&marked.key, &marked.setup.key);
        let from = Days { from: Some(marked.began.minus(SKEW)), until: None };
        for day in days(self.archive.as_ref(), &self.service, from).await? {
            for named in of_key(self.archive.as_ref(), &day, &key).await? {
                let found = read_record(self.archive.as_ref(), &named.listed.key).await?;
                if let Some(found) = found.filter(|found| found.record.image.get(MARK) == Some(&marked.mark)) {
                    return Ok(Some(found));
                }
            }
        }
        Ok(None)
    }

    async fn restore(&self, found: &Found) -> Ended<()> {
        let restore = RestoreRecords {
            archive: self.archive.clone(),
            from_table: Some(self.name.clone()),
            condition: None,
            table: self.table.clone(),
            journal: self.journal.clone(),
            clock: self.clock.clone(),
            who: self.who.clone(),
        };
        let wanted = Wanted::Key { key: found.name.to_string(), at: self.clock.now() };
        let request = RecordsRequest::new(self.service.clone(), wanted);
        let report = restore.run(&request, &MetInMemory::default(), &Silent, &CancellationToken::new()).await;
        let not_done = report.failed.first().or(report.skipped.first()).map(|item| item.why.clone());
        match not_done {
            None => Ok(((), "it is back".to_owned())),
            Some(why) => Err(Wrong { why, remedy: "`archive restore` takes dynamodb:PutItem on the table".to_owned() }),
        }
    }

    async fn compare_restored(&self, marked: &Marked, by: DeletedBy) -> Ended<()> {
        let mut expected = marked.record.clone();
        if let (DeletedBy::Ttl, TimeToLive::By(ttl)) = (by, &marked.setup.ttl) {
            // It was over, and is left out.
            expected.remove(ttl);
        }
        match self.table.get(&marked.key).await {
            Ok(found) => compared(&expected, &found.unwrap_or_default()),
            Err(error) => {
                let remedy = "give the right dynamodb:GetItem on the table".to_owned();
                Err(Wrong { why: chain(&error), remedy })
            }
        }
    }

    /// Deletes the record, if it is there; what was archived of it stays.
    async fn clean_up(&self, marked: &Marked) -> Ended<()> {
        let kept = format!("its objects stay in the archive, under {}/", self.service);
        match self.table.delete(&marked.key, MARK, &marked.mark).await {
            Ok(true) => Ok(((), format!("the record is deleted again; {kept}"))),
            Ok(false) => Ok(((), "no record is left".to_owned())),
            Err(error) => {
                let key = Value::Object(marked.key.clone());
                Err(Wrong { why: chain(&error), remedy: format!("delete the record {key} by hand") })
            }
        }
    }
}

/// Attributes of every type.
fn sample() -> Map<String, Value> {
    let nested = json!({ "M": { "list": { "L": [{ "NULL": true }, { "BOOL": false }, { "S": "" }] } } });
    let sample = json!({
        "afterimage_text": { "S": "line\nbreak, ünïcode 😀, \"quotes\"" },
        "afterimage_number": { "N": "-12345678901234567890.123456789012345678" },
        "afterimage_binary": { "B": STANDARD.encode([0, 255, 128]) },
        "afterimage_texts": { "SS": ["a", "b"] },
        "afterimage_numbers": { "NS": ["1", "2.5"] },
        "afterimage_binaries": { "BS": [STANDARD.encode([1]), STANDARD.encode([2])] },
        "afterimage_nested": nested,
    });
    sample.as_object().cloned().unwrap_or_default()
}

/// Compares what is archived, with who is said to have deleted it, too.
fn compared_archived(marked: &Marked, found: &Found, by: DeletedBy) -> Ended<()> {
    let (cause, said) = (by.cause(), found.record.cause);
    if cause == said {
        return compared(&marked.record, &found.record.image);
    }
    Err(Wrong {
        why: format!("its deletion has the cause {}, and the archive says {}", cause.as_str(), said.as_str()),
        remedy: match by {
            DeletedBy::Ttl => "see who else deletes records whose time is over, and try again".to_owned(),
            DeletedBy::Hand => "do not rely on the causes in this archive, and report it".to_owned(),
        },
    })
}

/// Compares attribute by attribute; sets have no order.
fn compared(expected: &Map<String, Value>, found: &Map<String, Value>) -> Ended<()> {
    let names = expected.keys().chain(found.keys().filter(|name| !expected.contains_key(*name)));
    let differ = names.filter(|name| expected.get(*name).map(settled) != found.get(*name).map(settled));
    let differ: Vec<&str> = differ.map(String::as_str).collect();
    match differ.is_empty() {
        true => Ok(((), format!("{} attributes are equal", expected.len()))),
        false => Err(Wrong {
            why: format!("these attributes differ: {}", differ.join(", ")),
            remedy: "do not rely on this archive, and report it with the record and its object".to_owned(),
        }),
    }
}

/// A value with the members of sets in one order.
fn settled(value: &Value) -> Value {
    let mut value = value.clone();
    for kind in ["SS", "NS", "BS"] {
        if let Some(set) = value.get_mut(kind).and_then(Value::as_array_mut) {
            set.sort_by_key(ToString::to_string);
        }
    }
    value
}
