//! Self-test: the whole way of a marked record, and which step failed where it does not go well.

use super::archive::archive_through;
use crate::world::{Source, World, rules};
use async_trait::async_trait;
use engine::error::{ErrorKind, PortError, PortResult};
use engine::flows::archive::Archive;
use engine::flows::self_test::{DeletedBy, SelfTest, SelfTestRequest, Step};
use engine::memory::clock::MemoryClock;
use engine::memory::nonces::MemoryNonces;
use engine::memory::table::MemoryTable;
use engine::memory::wiring::START;
use engine::ports::progress::Silent;
use engine::ports::streams::{Change, DeletedRecord, StreamRecord};
use engine::ports::tables::{
    AttributeChange, KeyKind, KeyPart, PutOnto, RecordEdit, RecordTable, StreamView, TableLook, TableSetup, TableShape,
    TimeToLive,
};
use engine::wrap::unpacked::Unpacked;
use lifecycle::archive::{Cause, Deletion, KeyValue, Sequence, ServiceName};
use lifecycle::time::SpanMs;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio_util::sync::CancellationToken;

/// A table whose deletions are archived at once, as a daemon beside it does.
struct Followed {
    table: MemoryTable,
    archive: Archive,
    deletions: AtomicU64,
    /// Nobody follows it.
    alone: AtomicBool,
    /// What is archived is not what was there.
    damages: AtomicBool,
    /// A person is faster than the time to live.
    hasty: AtomicBool,
    /// So many looks fail before one succeeds.
    away: AtomicU64,
}

impl Followed {
    async fn deleted(&self, key: &Map<String, Value>, cause: Cause) {
        let Some(mut image) = self.table.remove(key) else { return };
        if self.alone.load(Ordering::Relaxed) {
            return;
        }
        if self.damages.load(Ordering::Relaxed) {
            image.insert("afterimage_text".to_owned(), json!({ "S": "another" }));
        }
        let number = self.deletions.fetch_add(1, Ordering::Relaxed);
        let sequence = Sequence::new(&format!("{number:021}")).unwrap();
        let deletion = Deletion {
            service: ServiceName::new("orders").unwrap(),
            table: "Orders".to_owned(),
            key: vec![KeyValue::Text(key["id"]["S"].as_str().unwrap().to_owned())],
            at: START,
            sequence: sequence.clone(),
        };
        let record = json!({ "eventName": "REMOVE", "dynamodb": { "Keys": key, "OldImage": image } });
        let deleted = DeletedRecord { deletion, key_names: vec!["id".to_owned()], cause, record };
        let record = StreamRecord { sequence, at: START, change: Change::Deleted(Box::new(deleted)) };
        assert!(self.archive.archive(&[record]).await.iter().all(Result::is_ok));
    }
}

#[async_trait]
impl TableLook for Followed {
    async fn setup(&self) -> PortResult<TableSetup> {
        self.table.setup().await
    }
}

#[async_trait]
impl RecordTable for Followed {
    async fn shape(&self) -> PortResult<TableShape> {
        self.table.shape().await
    }

    async fn put(&self, record: &Map<String, Value>, shape: &TableShape, onto: PutOnto) -> PortResult<bool> {
        self.table.put(record, shape, onto).await
    }
}

#[async_trait]
impl RecordEdit for Followed {
    /// The time to live does its work between two looks.
    async fn get(&self, key: &Map<String, Value>) -> PortResult<Option<Map<String, Value>>> {
        if self.away.load(Ordering::Relaxed) > 0 {
            self.away.fetch_sub(1, Ordering::Relaxed);
            return Err(PortError::new("get record", "Orders", ErrorKind::Throttled));
        }
        let found = self.table.get(key).await?;
        if found.as_ref().is_some_and(|record| record.contains_key("until")) {
            let hasty = self.hasty.load(Ordering::Relaxed);
            self.deleted(key, if hasty { Cause::User } else { Cause::Ttl }).await;
        }
        Ok(found)
    }

    async fn change(&self, key: &Map<String, Value>, changes: &[AttributeChange]) -> PortResult<bool> {
        self.table.change(key, changes).await
    }

    async fn delete(&self, key: &Map<String, Value>, attribute: &str, value: &Value) -> PortResult<bool> {
        let is_it = self.table.get(key).await?.is_some_and(|record| record.get(attribute) == Some(value));
        if is_it {
            self.deleted(key, Cause::User).await;
        }
        Ok(is_it)
    }
}

fn setup(stream: Option<StreamView>, ttl: TimeToLive) -> TableSetup {
    TableSetup { key: vec![KeyPart { name: "id".to_owned(), kind: KeyKind::Text }], stream, ttl }
}

fn well() -> TableSetup {
    setup(Some(StreamView::OldImage), TimeToLive::By("until".to_owned()))
}

fn followed(world: &World, setup: TableSetup) -> Arc<Followed> {
    Arc::new(Followed {
        table: MemoryTable::with_setup(setup),
        archive: archive_through(world, Arc::clone(&world.faults) as _),
        deletions: AtomicU64::new(0),
        alone: AtomicBool::new(false),
        damages: AtomicBool::new(false),
        hasty: AtomicBool::new(false),
        away: AtomicU64::new(0),
    })
}

async fn tested(world: &World, table: &Arc<Followed>, by: DeletedBy) -> Vec<Step> {
    let test = SelfTest {
        table: Arc::clone(table),
        name: "Orders".to_owned(),
        archive: Arc::new(Unpacked::new(world.memory.destination.clone())),
        service: ServiceName::new("orders").unwrap(),
        journal: world.memory.journal.clone(),
        clock: Arc::new(MemoryClock::skipping(START)),
        nonces: Arc::new(MemoryNonces::seeded(7)),
        who: "alice".to_owned(),
    };
    let request = SelfTestRequest { by, within: SpanMs::minutes(5) };
    test.run(request, &Silent, &CancellationToken::new()).await
}

/// The step that failed, with why and the remedy.
fn failed(steps: &[Step]) -> Vec<(&'static str, String)> {
    let wrong = |step: &Step| step.ended.as_ref().err().map(|wrong| format!("{}; {}", wrong.why, wrong.remedy));
    steps.iter().filter_map(|step| Some((step.what, wrong(step)?))).collect()
}

#[tokio::test]
async fn a_marked_record_goes_the_whole_way_by_hand_and_by_its_time_to_live_and_nothing_is_left_of_it() {
    for (by, cause) in [(DeletedBy::Hand, "user"), (DeletedBy::Ttl, "ttl")] {
        let world = World::new(Source::Versioned, rules());
        let table = followed(&world, well());
        let steps = tested(&world, &table, by).await;
        assert_eq!((steps.len(), failed(&steps)), (8, Vec::new()));
        let found = steps.iter().find(|step| step.what == "find it in the archive").unwrap();
        assert!(found.ended.as_ref().unwrap().ends_with(&format!("deleted by {cause}")), "{found:?}");
        assert_eq!(table.table.records(), Vec::<Map<String, Value>>::new());
        assert_eq!(world.journal(), ["restore"]);
    }
}

#[tokio::test]
async fn where_nobody_archives_the_step_is_named_with_the_remedy_and_how_long_it_took() {
    let world = World::new(Source::Versioned, rules());
    let table = followed(&world, well());
    table.alone.store(true, Ordering::Relaxed);
    let steps = tested(&world, &table, DeletedBy::Hand).await;
    let [(what, why)] = &failed(&steps)[..] else { panic!("one failed: {steps:?}") };
    assert_eq!(*what, "find it in the archive");
    assert!(why.contains("not within 5m") && why.contains("`afterimage serve`"), "{why}");
    assert!(steps[3].took >= SpanMs::minutes(5), "{steps:?}");
    assert_eq!(steps.last().unwrap().what, "clean up");
}

#[tokio::test]
async fn what_differs_in_the_archive_is_named_and_the_record_is_cleaned_up_all_the_same() {
    let world = World::new(Source::Versioned, rules());
    let table = followed(&world, well());
    table.damages.store(true, Ordering::Relaxed);
    let steps = tested(&world, &table, DeletedBy::Hand).await;
    let [(what, why)] = &failed(&steps)[..] else { panic!("one failed: {steps:?}") };
    assert_eq!(*what, "compare what is archived");
    assert!(why.contains("these attributes differ: afterimage_text"), "{why}");
    assert_eq!(table.table.records().len(), 0);
}

#[tokio::test]
async fn a_deletion_by_somebody_else_is_not_taken_for_one_by_the_time_to_live() {
    let world = World::new(Source::Versioned, rules());
    let table = followed(&world, well());
    table.hasty.store(true, Ordering::Relaxed);
    let steps = tested(&world, &table, DeletedBy::Ttl).await;
    let [(what, why)] = &failed(&steps)[..] else { panic!("one failed: {steps:?}") };
    assert_eq!(*what, "compare what is archived");
    assert!(why.contains("has the cause ttl, and the archive says user"), "{why}");
}

#[tokio::test]
async fn what_is_away_for_a_moment_does_not_end_the_waiting_and_is_named_when_it_stays_away() {
    for (looks, told) in [(2, None), (u64::MAX, Some("not within 5m: "))] {
        let world = World::new(Source::Versioned, rules());
        let table = followed(&world, well());
        table.away.store(looks, Ordering::Relaxed);
        let steps = tested(&world, &table, DeletedBy::Ttl).await;
        let why = failed(&steps).first().map(|(_, why)| why.clone());
        assert_eq!(why.is_some(), told.is_some(), "{steps:?}");
        assert!(told.is_none_or(|told| why.unwrap().starts_with(told)), "{steps:?}");
    }
}

#[tokio::test]
async fn a_table_that_is_not_set_up_fails_at_once_and_nothing_is_put() {
    let world = World::new(Source::Versioned, rules());
    for (setup, by, part) in [
        (setup(None, TimeToLive::Off), DeletedBy::Hand, "`afterimage archive enable Orders` switches one on"),
        (setup(Some(StreamView::KeysOnly), TimeToLive::Off), DeletedBy::Hand, "no stream that carries old images"),
        (setup(Some(StreamView::OldImage), TimeToLive::Off), DeletedBy::Ttl, "its time to live is off"),
    ] {
        let table = followed(&world, setup);
        let steps = tested(&world, &table, by).await;
        let [(what, why)] = &failed(&steps)[..] else { panic!("one failed: {steps:?}") };
        assert!(steps.len() == 1 && *what == "look at the table" && why.contains(part), "{steps:?}");
        assert_eq!(table.table.records().len(), 0);
    }
}
