//! Soft delete: a mark and a time to live, both or none, which `undelete` takes back as long as the record is there.

use crate::world::{Source, World, rules};
use engine::error::{ErrorKind, PortResult};
use engine::flows::soft_delete::{MARK, SoftDelete, unmark};
use engine::memory::table::MemoryTable;
use engine::memory::wiring::START;
use engine::ports::tables::{KeyKind, KeyPart, PutOnto, RecordTable, TableSetup, TimeToLive};
use engine::report::Report;
use lifecycle::time::SpanMs;
use serde_json::{Map, Value, json};
use std::sync::Arc;

fn table(ttl: TimeToLive) -> Arc<MemoryTable> {
    let key = vec![KeyPart { name: "id".to_owned(), kind: KeyKind::Text }];
    Arc::new(MemoryTable::with_setup(TableSetup { key, stream: None, ttl }))
}

fn by_until() -> Arc<MemoryTable> {
    table(TimeToLive::By("until".to_owned()))
}

fn map(value: &Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

async fn put(table: &MemoryTable, record: &Value) {
    let shape = table.shape().await.unwrap();
    assert!(table.put(&map(record), &shape, PutOnto::Nothing).await.unwrap());
}

fn flow(world: &World, table: &Arc<MemoryTable>) -> SoftDelete {
    SoftDelete {
        table: Arc::clone(table) as _,
        name: "Orders".to_owned(),
        journal: world.memory.journal.clone(),
        clock: world.memory.clock.clone(),
        who: "alice".to_owned(),
    }
}

fn words(key: &str) -> Vec<String> {
    vec![format!("id={key}")]
}

async fn delete(world: &World, table: &Arc<MemoryTable>, key: &str) -> PortResult<Report> {
    flow(world, table).soft_delete(&words(key), SpanMs::days(30)).await
}

async fn undelete(world: &World, table: &Arc<MemoryTable>, key: &str) -> Report {
    flow(world, table).undelete(&words(key), Some("orders")).await.unwrap()
}

#[tokio::test]
async fn a_record_is_marked_with_a_time_to_live_and_comes_back_as_it_was() {
    let (world, table) = (World::new(Source::Versioned, rules()), by_until());
    for record in [json!({ "id": { "S": "a" } }), json!({ "id": { "S": "b" }, "until": { "N": "4102444800" } })] {
        put(&table, &record).await;
    }
    let before = table.records();
    for key in ["a", "b"] {
        assert_eq!(delete(&world, &table, key).await.unwrap().counted("soft-deleted"), 1);
    }
    for record in table.records() {
        // 2026-12-21T00:00:00Z.
        assert_eq!(record["until"], json!({ "N": "1797811200" }));
        assert_eq!(record[MARK]["M"]["by"], json!({ "S": "alice" }));
    }
    let again = delete(&world, &table, "a").await.unwrap();
    assert_eq!((again.counted("already"), again.is_success()), (1, true));
    assert!(again.skipped[0].why.contains("until 2026-12-21T00:00:00.000Z"), "{again:?}");
    for key in ["a", "b"] {
        assert_eq!(undelete(&world, &table, key).await.counted("undeleted"), 1);
    }
    assert_eq!(table.records(), before);
    assert_eq!(undelete(&world, &table, "a").await.counted("not-marked"), 1);
    assert_eq!(world.journal(), ["soft-delete", "soft-delete", "undelete", "undelete"]);
}

#[tokio::test]
async fn a_record_whose_own_time_to_live_is_over_by_now_is_kept_without_it() {
    let (world, table) = (World::new(Source::Versioned, rules()), by_until());
    let over = (START.plus(SpanMs::days(1)).0 / 1_000).to_string();
    put(&table, &json!({ "id": { "S": "a" }, "until": { "N": over } })).await;
    delete(&world, &table, "a").await.unwrap();
    world.advance(SpanMs::days(2));
    let report = undelete(&world, &table, "a").await;
    assert!(report.done[0].why.contains("its time to live (`until`) was over at"), "{report:?}");
    assert_eq!(table.records(), [map(&json!({ "id": { "S": "a" } }))]);
}

#[tokio::test]
async fn what_is_not_there_is_not_made_and_what_has_gone_is_in_the_archive() {
    let (world, table) = (World::new(Source::Versioned, rules()), by_until());
    let report = delete(&world, &table, "nobody").await.unwrap();
    assert_eq!((report.failures, table.records().len()), (1, 0));
    put(&table, &json!({ "id": { "S": "a/b" } })).await;
    delete(&world, &table, "a/b").await.unwrap();
    assert!(table.remove(&map(&json!({ "id": { "S": "a/b" } }))).is_some());
    let report = undelete(&world, &table, "a/b").await;
    assert!(report.failed[0].why.contains("`afterimage archive restore orders 'a%2Fb'`"), "{report:?}");
    assert_eq!(table.records().len(), 0);
}

#[tokio::test]
async fn a_table_whose_time_to_live_cannot_delete_the_record_is_refused_with_the_remedy() {
    let world = World::new(Source::Versioned, rules());
    for (ttl, part) in [
        (TimeToLive::Off, "`afterimage archive enable Orders --ttl ATTRIBUTE`"),
        (TimeToLive::EndingSoon, "being switched off"),
        (TimeToLive::By("id".to_owned()), "an attribute of its key"),
    ] {
        let table = table(ttl);
        put(&table, &json!({ "id": { "S": "a" } })).await;
        let refused = delete(&world, &table, "a").await.unwrap_err();
        assert!(matches!(&refused.kind, ErrorKind::NotSetUp(why) if why.contains(part)), "{refused}");
        assert_eq!(table.records()[0].len(), 1);
    }
}

#[test]
fn an_archived_image_loses_its_mark_and_has_its_own_time_to_live_again() {
    let marked = |before: Value| {
        let mut mark = json!({ "at": { "N": "1" } });
        if !before.is_null() {
            mark["ttl"] = before;
        }
        map(&json!({ "id": { "S": "a" }, "until": { "N": "5" }, MARK: { "M": mark } }))
    };
    let mut image = marked(json!({ "N": "9" }));
    assert!(unmark(&mut image, Some("until")));
    assert_eq!(Value::Object(image.clone()), json!({ "id": { "S": "a" }, "until": { "N": "9" } }));
    assert!(!unmark(&mut image, Some("until")));
    let mut image = marked(Value::Null);
    assert!(unmark(&mut image, Some("until")));
    assert_eq!(Value::Object(image), json!({ "id": { "S": "a" } }));
}
