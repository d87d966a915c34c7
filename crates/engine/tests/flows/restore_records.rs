//! Restore of records: found by key and day, put back as they were, the newest deletion of each; nothing else is touched.

use super::archive::archive_through;
use crate::world::{Source, World, rules};
use async_trait::async_trait;
use engine::error::{ErrorKind, PortResult};
use engine::flows::find_record::{Found, Which, find_record};
use engine::flows::restore_records::{RecordsRequest, RestoreRecords, Ttl, Wanted};
use engine::memory::clock::MemoryClock;
use engine::memory::stream::MemoryStream;
use engine::memory::table::MemoryTable;
use engine::ports::clock::Clock;
use engine::ports::objects::{Attributes, ObjectRead, Onto};
use engine::ports::progress::Silent;
use engine::ports::streams::{Position, Read, RecordStream, ShardId};
use engine::ports::tables::{PutOnto, RecordTable, TableShape};
use engine::report::Report;
use engine::steps::archived_names::{Days, days, services};
use engine::steps::condition::Condition;
use engine::steps::met::MetInMemory;
use engine::wrap::unpacked::Unpacked;
use lifecycle::archive::{Cause, ServiceName, day_prefix};
use lifecycle::ids::ObjectKey;
use lifecycle::time::{SpanMs, UnixMs};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// 2026-11-21T00:00:00Z.
const DAY: UnixMs = UnixMs(1_795_219_200_000);

/// Later than all deletions.
const EVER: UnixMs = UnixMs(DAY.0 + 500 * 86_400_000);

pub(super) fn service() -> ServiceName {
    ServiceName::new("service").unwrap()
}

pub(super) fn day(n: u64) -> UnixMs {
    DAY.plus(SpanMs::days(n))
}

pub(super) fn shape() -> TableShape {
    TableShape { key_names: vec!["id".to_owned()], ttl: Some("until".to_owned()) }
}

/// Archives these deletions: key, time, cause. Each has its own number, from 1.
pub(super) async fn archived(deletions: &[(&str, UnixMs, Cause)]) -> World {
    let (world, stream) = (World::new(Source::Versioned, rules()), MemoryStream::new());
    stream.begin("0", None);
    for (key, at, cause) in deletions {
        stream.delete("0", key, *at, *cause);
    }
    let archive = archive_through(&world, Arc::clone(&world.faults) as _);
    let mut reader = stream.open(&ShardId("0".to_owned()), Position::Oldest).await.unwrap();
    for _ in 0..=deletions.len() / 3 {
        let Read::Records(records) = reader.next().await.unwrap() else { panic!("the shard is open") };
        assert!(archive.archive(&records).await.iter().all(Result::is_ok));
    }
    world
}

fn request(wanted: Wanted) -> RecordsRequest {
    RecordsRequest::new(service(), wanted)
}

pub(super) fn range(days: Days, cause: Option<Cause>) -> RecordsRequest {
    request(Wanted::Range { days, cause })
}

/// A restore of the archive's records into the table.
pub(super) fn restore(world: &World, table: &Arc<MemoryTable>, archive: Arc<Unpacked>) -> RestoreRecords {
    RestoreRecords {
        archive,
        from_table: Some("Table".to_owned()),
        condition: None,
        table: Arc::clone(table) as _,
        journal: world.memory.journal.clone(),
        clock: world.memory.clock.clone(),
        who: "alice".to_owned(),
    }
}

/// The archive, with no terms for archive tiers.
fn plain(world: &World) -> Arc<Unpacked> {
    Arc::new(Unpacked::new(Arc::clone(&world.memory.destination) as _))
}

async fn restored(world: &World, table: &Arc<MemoryTable>, request: &RecordsRequest) -> Report {
    restore(world, table, plain(world)).run(request, &MetInMemory::default(), &Silent, &CancellationToken::new()).await
}

/// The records of the table: key and number.
pub(super) fn records(table: &MemoryTable) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    table.records().iter().map(|record| (text(&record["id"]["S"]), text(&record["n"]["N"]))).collect()
}

fn pairs(of: &[(&str, &str)]) -> Vec<(String, String)> {
    of.iter().map(|(key, n)| ((*key).to_owned(), (*n).to_owned())).collect()
}

#[tokio::test]
async fn one_record_comes_back_as_of_its_newest_deletion_or_of_a_moment() {
    let world = archived(&[
        ("a", day(0), Cause::User),
        ("a", day(0).plus(SpanMs::hours(1)), Cause::User),
        ("ab", day(3), Cause::User),
        ("a", day(2), Cause::Ttl),
    ])
    .await;
    let found = async |at| {
        let which = Which { service: &service(), table: None, key: "a", at };
        let found = find_record(&Unpacked::new(world.memory.destination.clone()), &which).await.unwrap();
        found.map(|found| found.record.image["n"]["N"].clone())
    };
    assert_eq!(found(EVER).await, Some(json!("4")));
    assert_eq!(found(day(1)).await, Some(json!("2")));
    assert_eq!(found(day(0)).await, Some(json!("1")));
    assert_eq!(found(UnixMs(day(0).0 - 1)).await, None);
    let table = Arc::new(MemoryTable::new(shape()));
    let wanted = |at| request(Wanted::Key { key: "a".to_owned(), at });
    let report = restored(&world, &table, &wanted(day(1))).await;
    assert_eq!((report.counted("restored"), report.failures, records(&table)), (1, 0, pairs(&[("a", "2")])));
    // What is there is left alone, unless that is asked for.
    let report = restored(&world, &table, &wanted(EVER)).await;
    assert_eq!((report.counted("there"), report.failures, records(&table)), (1, 0, pairs(&[("a", "2")])));
    restored(&world, &table, &RecordsRequest { overwrite: true, ..wanted(EVER) }).await;
    assert_eq!(records(&table), pairs(&[("a", "4")]));
    let report = restored(&world, &table, &request(Wanted::Key { key: "no".to_owned(), at: EVER })).await;
    assert!(report.failed[0].why.contains("no deletion of it up to"), "{report:?}");
}

#[tokio::test]
async fn of_a_range_the_newest_deletion_of_each_key_counts_with_and_without_overwriting() {
    let many: Vec<(&str, UnixMs, Cause)> = (0..40).map(|_| ("hot", day(1), Cause::User)).collect();
    let mut all = vec![("a", day(0), Cause::User), ("b", day(0), Cause::Ttl)];
    all.extend(many);
    all.extend([("a", day(2), Cause::User), ("late", day(3), Cause::User)]);
    let world = archived(&all).await;
    let until = Days { from: None, until: Some(day(2)) };
    for overwrite in [false, true] {
        let table = Arc::new(MemoryTable::new(shape()));
        if overwrite {
            let there = json!({ "id": { "S": "b" }, "n": { "N": "0" } });
            table.put(there.as_object().unwrap(), &shape(), PutOnto::Nothing).await.unwrap();
        }
        let report = restored(&world, &table, &RecordsRequest { overwrite, ..range(until, None) }).await;
        assert_eq!(report.failures, 0, "{report:?}");
        assert_eq!(records(&table), pairs(&[("a", "43"), ("b", "2"), ("hot", "42")]), "overwrite: {overwrite}");
    }
    // By cause, and only said.
    let table = Arc::new(MemoryTable::new(shape()));
    let ttl = range(until, Some(Cause::Ttl));
    let report = restored(&world, &table, &RecordsRequest { dry_run: true, ..ttl.clone() }).await;
    assert_eq!((report.counted("would-restore"), records(&table)), (1, pairs(&[])));
    restored(&world, &table, &ttl).await;
    assert_eq!(records(&table), pairs(&[("b", "2")]));
    // Given again it finds everything there.
    let report = restored(&world, &table, &ttl).await;
    assert_eq!((report.counted("restored"), report.counted("there"), report.failures), (0, 1, 0));
}

#[tokio::test]
async fn days_are_asked_for_once_each_and_a_day_outside_the_range_not_at_all() {
    let world = archived(&[
        ("a", day(0), Cause::User),
        ("b", day(0), Cause::User),
        ("a", day(5), Cause::User),
        ("a", day(400), Cause::User),
    ])
    .await;
    let foreign = ObjectKey::new("service/readme.txt").unwrap();
    world.memory.destination.store(&foreign, "x".into(), Attributes::default(), &Onto::Anything);
    let archive = Unpacked::new(world.write_destination("archive", world.recorder.clone()));
    let found = async |from, until| days(&archive, &service(), Days { from, until }).await.unwrap();
    let all = ["service/2026/11/21/", "service/2026/11/26/", "service/2027/12/26/"];
    assert_eq!(found(None, None).await, all);
    assert_eq!(world.recorder.counts()["archive.list"], 6);
    assert_eq!(found(Some(day(1)), None).await, all[1..]);
    assert_eq!(found(Some(day(5).plus(SpanMs::hours(23))), Some(day(399))).await, all[1..2]);
    assert_eq!(found(None, Some(day(0))).await, all[..1]);
}

#[tokio::test]
async fn a_damaged_record_and_one_of_another_shape_are_named_and_the_others_come_back() {
    let world = archived(&[("a", day(0), Cause::User), ("b", day(0), Cause::User), ("c", day(0), Cause::User)]).await;
    let damaged = ObjectKey::new("service/2026/11/21/b.json").unwrap();
    let whole = world.memory.destination.contents()[&damaged].clone();
    // Still JSON, and another value: only the hash tells.
    let text = String::from_utf8(whole.bytes.to_vec()).unwrap().replace("\"N\":\"2\"", "\"N\":\"9\"");
    world.memory.destination.store(&damaged, text.into(), whole.attributes, &Onto::Anything);
    let foreign = ObjectKey::new("service/2026/11/21/foreign.json").unwrap();
    world.memory.destination.store(&foreign, "hello".into(), Attributes::default(), &Onto::Anything);
    let table = Arc::new(MemoryTable::new(shape()));
    let report = restored(&world, &table, &range(Days::default(), None)).await;
    assert_eq!((report.counted("restored"), report.failures), (2, 1), "{report:?}");
    assert_eq!(report.failed[0].object, damaged.as_str());
    assert!(report.failed[0].why.contains("damaged"), "{report:?}");
    let other = TableShape { key_names: vec!["id".to_owned(), "at".to_owned()], ttl: None };
    let report = restored(&world, &Arc::new(MemoryTable::new(other)), &range(Days::default(), None)).await;
    assert_eq!((report.counted("restored"), report.failures), (0, 3), "{report:?}");
    assert!(
        report.failed.iter().any(|failed| failed.why.contains("its key is (id), and the table's is (id, at)")),
        "{report:?}"
    );
}

#[tokio::test]
async fn a_time_to_live_that_is_over_does_not_delete_the_record_again() {
    let world = archived(&[("over", day(0), Cause::Ttl), ("not", day(0), Cause::User)]).await;
    let now = world.memory.clock.now().0 / 1_000;
    for (name, until) in [("over", now - 60), ("not", now + 60)] {
        let name = ObjectKey::new(format!("service/2026/11/21/{name}.json")).unwrap();
        let stored = world.memory.destination.contents()[&name].clone();
        let mut record: Value = serde_json::from_slice(&stored.bytes).unwrap();
        record["dynamodb"]["OldImage"]["until"] = json!({ "N": until.to_string() });
        world.memory.destination.store(&name, record.to_string().into(), Attributes::default(), &Onto::Anything);
    }
    let until = async |ttl| {
        let table = Arc::new(MemoryTable::new(shape()));
        let report = restored(&world, &table, &RecordsRequest { ttl, ..range(Days::default(), None) }).await;
        assert_eq!(report.counted("restored"), 2, "{report:?}");
        let of = |name: &str| {
            let record = table.records().into_iter().find(|record| record["id"]["S"] == name).unwrap();
            record.get("until").map(|until| until["N"].as_str().unwrap().parse::<i64>().unwrap())
        };
        assert_eq!(of("not"), Some(now + 60));
        of("over")
    };
    assert_eq!(until(Ttl::StripIfOver).await, None);
    assert_eq!(until(Ttl::Keep).await, Some(now - 60));
    assert_eq!(until(Ttl::Extend(SpanMs::days(30))).await, Some(now + 30 * 86_400));
}

/// `%2F` is a key, and what the name of the key `/` shows.
#[tokio::test]
async fn a_key_that_looks_like_a_name_is_itself_and_nothing_is_chosen_where_both_are_there() {
    let found = async |keys: &[&str]| {
        let deletions: Vec<_> = keys.iter().map(|key| (*key, day(0), Cause::User)).collect();
        let world = archived(&deletions).await;
        let which = Which { service: &service(), table: None, key: "%2F", at: EVER };
        let found = find_record(&Unpacked::new(world.memory.destination.clone()), &which).await;
        found.map(|found| found.unwrap().record.image["id"]["S"].as_str().unwrap().to_owned())
    };
    assert_eq!(found(&["%2F"]).await.unwrap(), "%2F");
    assert_eq!(found(&["/"]).await.unwrap(), "/", "as `ls` shows it");
    let both = engine::report::chain(&found(&["/", "%2F"]).await.unwrap_err());
    assert!(both.contains("/%252F.json") && both.contains("/%2F.json"), "{both}");
}

#[tokio::test]
async fn a_listing_that_fails_is_told_and_nothing_is_read_as_absent() {
    let world = archived(&[("a", day(0), Cause::User)]).await;
    let archive = Unpacked::new(world.write_destination("archive", world.faults.clone()));
    world.faults.at("archive.list", 1, engine::wrap::tap::Fate::FailBefore(ErrorKind::Unavailable));
    let which = Which { service: &service(), table: None, key: "a", at: EVER };
    assert!(find_record(&archive, &which).await.is_err());
}

/// The order of names is not trusted: a deletion that was archived late has a number, however old it is.
#[tokio::test]
async fn of_one_day_the_newest_deletion_counts_whatever_it_is_called() {
    let world = archived(&[("a", day(0).plus(SpanMs::hours(2)), Cause::User), ("a", day(0), Cause::User)]).await;
    for overwrite in [false, true] {
        let table = Arc::new(MemoryTable::new(shape()));
        let report = restored(&world, &table, &RecordsRequest { overwrite, ..range(Days::default(), None) }).await;
        assert_eq!((report.counted("restored"), records(&table)), (1, pairs(&[("a", "1")])), "{report:?}");
    }
}

#[tokio::test]
async fn where_the_newest_deletion_cannot_be_read_no_older_one_is_put_in_its_place() {
    let world = archived(&[("a", day(0), Cause::User), ("b", day(0), Cause::User), ("a", day(1), Cause::User)]).await;
    let newest = ObjectKey::new("service/2026/11/22/a.json").unwrap();
    let attributes = world.memory.destination.contents()[&newest].attributes.clone();
    world.memory.destination.store(&newest, "{".into(), attributes, &Onto::Anything);
    for overwrite in [false, true] {
        let table = Arc::new(MemoryTable::new(shape()));
        for _ in 0..2 {
            let report = restored(&world, &table, &RecordsRequest { overwrite, ..range(Days::default(), None) }).await;
            assert_eq!((report.failures, records(&table)), (2, pairs(&[("b", "2")])), "{report:?}");
            assert!(report.failed[1].why.contains("another deletion of it, which may be newer, failed"), "{report:?}");
        }
    }
}

#[tokio::test]
async fn a_restore_that_overwrites_puts_nothing_older_over_what_is_in_the_table() {
    let world = archived(&[("a", day(0), Cause::User), ("a", day(0), Cause::User), ("a", day(1), Cause::User)]).await;
    let days_of_two = Days { from: None, until: Some(day(0)) };
    for (name, days) in [("service/2026/11/22/a.json", Days::default()), ("service/2026/11/21/a.json", days_of_two)] {
        let damaged = ObjectKey::new(name).unwrap();
        let attributes = world.memory.destination.contents()[&damaged].attributes.clone();
        world.memory.destination.store(&damaged, "{".into(), attributes, &Onto::Anything);
        let table = Arc::new(MemoryTable::new(shape()));
        let current = json!({ "id": { "S": "a" }, "n": { "N": "0" } });
        table.put(current.as_object().unwrap(), &shape(), PutOnto::Nothing).await.unwrap();
        let report = restored(&world, &table, &RecordsRequest { overwrite: true, ..range(days, None) }).await;
        assert_eq!((report.counted("restored"), records(&table)), (0, pairs(&[("a", "0")])), "{report:?}");
    }
}

/// The name of its first deletion is whole, or cut elsewhere than that of the second one, which has a number in it.
#[tokio::test]
async fn deletions_of_a_long_key_are_those_of_one_record_wherever_their_names_are_cut() {
    for length in [900, 950, 1_000, 1_010, 2_048] {
        let key = "q".repeat(length);
        let world = archived(&[(&key, day(0), Cause::User), (&key, day(0), Cause::User)]).await;
        for (overwrite, dry_run) in [(false, true), (false, false), (true, false)] {
            let table = Arc::new(MemoryTable::new(shape()));
            let wanted = RecordsRequest { overwrite, dry_run, ..range(Days::default(), None) };
            let report = restored(&world, &table, &wanted).await;
            let expected = if dry_run { pairs(&[]) } else { pairs(&[(&key, "2")]) };
            assert_eq!((records(&table), report.failures), (expected, 0), "{length}: {:?}", report.counts);
            assert_eq!(
                report.counted("restored") + report.counted("would-restore"),
                1,
                "{length}: {:?}",
                report.counts
            );
        }
    }
}

/// `a` of another table of the same service, and keys that look alike.
#[tokio::test]
async fn a_record_of_another_table_is_not_taken_for_it_and_one_may_be_named_by_its_object() {
    let world = archived(&[("a", day(0), Cause::User), ("a", day(1), Cause::User)]).await;
    let other = ObjectKey::new("service/2026/11/22/a.json").unwrap();
    let change = |change: &dyn Fn(&mut Value)| {
        let stored = world.memory.destination.contents()[&other].clone();
        let mut record: Value = serde_json::from_slice(&stored.bytes).unwrap();
        change(&mut record);
        world.memory.destination.store(&other, record.to_string().into(), Attributes::default(), &Onto::Anything);
    };
    change(&|record| record["afterimage"]["table"] = json!("Other"));
    let table = Arc::new(MemoryTable::new(shape()));
    let wanted = |key: &str| request(Wanted::Key { key: key.to_owned(), at: EVER });
    restored(&world, &table, &wanted("a")).await;
    assert_eq!(records(&table), pairs(&[("a", "1")]));
    // Another record of the same day whose key looks the same.
    let alike = ObjectKey::new("service/2026/11/21/a~7-00112233445566778899aabbccddeeff.json").unwrap();
    let mut record: Value = serde_json::from_slice(&world.memory.destination.contents()[&other].bytes).unwrap();
    record["afterimage"]["table"] = json!("Table");
    record["dynamodb"]["OldImage"]["id"] = json!({ "N": "1" });
    world.memory.destination.store(&alike, record.to_string().into(), Attributes::default(), &Onto::Anything);
    let report = restored(&world, &table, &wanted("a")).await;
    assert!(report.failed[0].why.contains("look so: name the object that you mean"), "{report:?}");
    let report = restored(&world, &table, &wanted(alike.as_str())).await;
    assert_eq!(report.counted("restored"), 1, "{report:?}");
}

#[tokio::test]
async fn a_rate_is_kept_by_the_clock_also_above_a_thousand_a_second() {
    // So many a second take so long for eleven: the first at once, and ten more.
    for (rate, ms) in [(5, 2_000), (700, 14), (2_500, 4)] {
        assert_eq!(restored_at(rate).await, SpanMs(ms), "{rate} a second");
    }
}

/// How long eleven records take at that rate.
async fn restored_at(rate: u32) -> SpanMs {
    let names: Vec<String> = (0..11).map(|n| format!("k{n:02}")).collect();
    let deletions: Vec<(&str, UnixMs, Cause)> = names.iter().map(|name| (name.as_str(), day(0), Cause::User)).collect();
    let world = archived(&deletions).await;
    let table = Arc::new(MemoryTable::new(shape()));
    let clock = Arc::new(MemoryClock::skipping(DAY));
    let restore = RestoreRecords { clock: Arc::clone(&clock) as _, ..restore(&world, &table, plain(&world)) };
    let wanted = RecordsRequest { rate: Some(rate), ..range(Days::default(), None) };
    let report = restore.run(&wanted, &MetInMemory::default(), &Silent, &CancellationToken::new()).await;
    assert_eq!((report.counted("restored"), report.failures), (11, 0));
    clock.now().since(DAY)
}

#[tokio::test]
async fn services_are_found_by_their_names_alone_whatever_else_lies_there() {
    let world = archived(&[("a", day(0), Cause::User), ("b", day(9), Cause::User)]).await;
    let bucket = world.memory.destination.as_ref();
    for name in
        ["another/2026/11/21/x.json", "zoo/2026/11/21/x.json", "zoo/2026/11/22/y.json", "loose", "0/foreign/x", "~/x"]
    {
        let name = ObjectKey::new(name).unwrap();
        world.memory.destination.store(&name, "x".into(), Attributes::default(), &Onto::Anything);
    }
    let found = |most| async move {
        let found = services(bucket, most).await.unwrap();
        found.iter().map(ServiceName::to_string).collect::<Vec<_>>()
    };
    assert_eq!(found(9).await, ["another", "service", "zoo"]);
    assert_eq!(found(2).await, ["another", "service"]);
}

/// Holds for deletions with an even number, on every day but the last.
#[derive(Default)]
struct Even {
    without_day: Option<u64>,
}

#[async_trait]
impl Condition for Even {
    async fn days_left(&self, mut days: Vec<String>) -> PortResult<Vec<String>> {
        let left_out = self.without_day.map(|n| day_prefix(&service(), day(n)));
        days.retain(|day| Some(day) != left_out.as_ref());
        Ok(days)
    }

    async fn holds(&self, found: &Found) -> PortResult<bool> {
        let n: u64 = found.record.image["n"]["N"].as_str().unwrap().parse().unwrap();
        Ok(n.is_multiple_of(2))
    }
}

/// Restores all days on a condition.
async fn restored_if(world: &World, table: &Arc<MemoryTable>, even: Even, request: &RecordsRequest) -> Report {
    let restore = RestoreRecords { condition: Some(Arc::new(even)), ..restore(world, table, plain(world)) };
    restore.run(request, &MetInMemory::default(), &Silent, &CancellationToken::new()).await
}

#[tokio::test]
async fn a_condition_judges_the_newest_deletion_of_each_record_and_never_puts_an_older_one() {
    let world = archived(&[
        ("unmet", day(0), Cause::User),  // 1
        ("newest", day(0), Cause::User), // 2
        ("older", day(0), Cause::User),  // 3
        ("older", day(0), Cause::User),  // 4: meets it, and is older than the one of the day after
        ("older", day(1), Cause::User),  // 5
        ("newest", day(1), Cause::Ttl),  // 6
        ("one day", day(1), Cause::User),
        ("one day", day(1), Cause::User), // 8
    ])
    .await;
    for (overwrite, dry_run) in [(false, true), (false, false), (true, false)] {
        let request = RecordsRequest { overwrite, dry_run, ..range(Days::default(), None) };
        let table = Arc::new(MemoryTable::new(shape()));
        let report = restored_if(&world, &table, Even::default(), &request).await;
        assert_eq!(
            (report.counted("unmet"), report.counted("older"), report.failures),
            (2, 2, 0),
            "{:?}",
            report.counts
        );
        let expected = if dry_run { pairs(&[]) } else { pairs(&[("newest", "6"), ("one day", "8")]) };
        assert_eq!(records(&table), expected, "overwrite: {overwrite}");
        assert_eq!(report.counted(if dry_run { "would-restore" } else { "restored" }), 2);
        // Given again it goes on: what is there is left alone.
        let again = restored_if(&world, &table, Even::default(), &request).await;
        assert_eq!(again.counted("there"), if overwrite || dry_run { 0 } else { 2 });
    }
    // A cause chooses among which deletions the newest is looked for; the condition judges that one.
    let table = Arc::new(MemoryTable::new(shape()));
    let by_users = range(Days::default(), Some(Cause::User));
    restored_if(&world, &table, Even::default(), &by_users).await;
    assert_eq!(records(&table), pairs(&[("newest", "2"), ("one day", "8")]));
    // A day on which it cannot hold is as one that was not asked for.
    let table = Arc::new(MemoryTable::new(shape()));
    let even = Even { without_day: Some(1) };
    restored_if(&world, &table, even, &range(Days::default(), None)).await;
    assert_eq!(records(&table), pairs(&[("newest", "2"), ("older", "4")]));
}

#[tokio::test]
async fn where_the_newest_deletion_is_damaged_a_condition_puts_no_older_one_not_even_over_what_is_there() {
    let world = archived(&[("a", day(0), Cause::User), ("a", day(0), Cause::User), ("a", day(1), Cause::User)]).await;
    let name = ObjectKey::new(format!("{}a.json", day_prefix(&service(), day(1)))).unwrap();
    let attributes = world.memory.destination.head(&name, None).await.unwrap().unwrap().metadata;
    let attributes = Attributes { metadata: attributes, ..Attributes::default() };
    world.memory.destination.store(&name, "{".into(), attributes, &Onto::Anything);
    for overwrite in [false, true] {
        let table = Arc::new(MemoryTable::new(shape()));
        let request = RecordsRequest { overwrite, ..range(Days::default(), None) };
        let report = restored_if(&world, &table, Even::default(), &request).await;
        assert_eq!((report.failures, records(&table)), (2, pairs(&[])), "{:?}", report.failed);
        assert!(
            report.failed[1].why.contains("another deletion of it, which may be newer, failed"),
            "{:?}",
            report.failed
        );
    }
}
