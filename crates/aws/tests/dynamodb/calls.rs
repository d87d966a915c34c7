//! How many calls the service gets, and that none of them scans (I9); what it leaves out is asked for again (I10); what it
//! charges is counted.

use super::server::Engine;
use super::{id, key, removal, row};
use aws::limits::SHARED_CALLS_IN_FLIGHT;
use engine::error::ErrorKind;
use engine::ports::catalog::{
    Catalog, CatalogRead, Changed, IndexQuery, Indexed, RowChange, RowId, RowSet, StateChange,
};
use futures_util::future::join_all;
use lifecycle::ids::{CopyKey, Rev};
use lifecycle::row::Reason;
use lifecycle::time::UnixMs;
use std::collections::BTreeMap;

async fn counted<T>(engine: &Engine, work: impl Future<Output = T>) -> (T, Vec<(String, usize)>) {
    engine.between.take_calls();
    let done = work.await;
    (done, engine.between.take_calls().into_iter().collect())
}

fn calls(expected: &[(&str, usize)]) -> Vec<(String, usize)> {
    let by_name: BTreeMap<String, usize> = expected.iter().map(|(name, many)| ((*name).to_owned(), *many)).collect();
    by_name.into_iter().collect()
}

fn disown(id: RowId, if_rev: Rev) -> RowChange {
    RowChange { id, if_rev, set: RowSet::Disowned { at: UnixMs(5), reason: Reason::Removed, removed_at: None } }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_rows_take_few_calls_and_none_scans() {
    let engine = Engine::start().await;
    let catalog = engine.catalog().await;
    let (_, made) = counted(&engine, catalog.upsert(&key("k0"), &row("c0"))).await;
    assert_eq!(made, calls(&[("UpdateItem", 1)]));
    let ids: Vec<RowId> = (0..1_000).map(|n| id(&format!("k{}", n % 100), &format!("c{n}"))).collect();
    for id in &ids {
        catalog.upsert(&id.original, &row(id.copy_key.as_str())).await.unwrap();
    }
    let (rows, made) = counted(&engine, catalog.rows(&ids)).await;
    assert_eq!(made, calls(&[("BatchGetItem", 10)]));
    let revs: Vec<Rev> = rows.unwrap().into_iter().map(|row| row.unwrap().rev).collect();

    let claims: Vec<RowChange> = ids.iter().cloned().zip(revs).map(|(id, rev)| disown(id, rev)).collect();
    let (claimed, made) = counted(&engine, catalog.change(&claims)).await;
    assert_eq!(made, calls(&[("BatchExecuteStatement", 40)]));
    let due = IndexQuery { what: Indexed::Disowned, from: UnixMs(0), until: UnixMs(9), after: None, limit: 1_000 };
    let (page, made) = counted(&engine, catalog.index(&due)).await;
    assert_eq!((page.unwrap().items.len(), made), (1_000, calls(&[("Query", 1)])));

    let delete = |(id, outcome): (&RowId, _)| match outcome {
        Ok(Changed::Applied(if_rev)) => RowChange { id: id.clone(), if_rev, set: RowSet::Deleted },
        other => panic!("{id:?}: {other:?}"),
    };
    let deletes: Vec<RowChange> = ids.iter().zip(claimed).map(delete).collect();
    let (gone, made) = counted(&engine, catalog.change(&deletes)).await;
    assert_eq!(made, calls(&[("BatchExecuteStatement", 40)]));
    assert!(gone.iter().all(|outcome| matches!(outcome, Ok(Changed::Applied(_)))));
    assert!(catalog.rows(&ids).await.unwrap().into_iter().all(|row| row.is_none()));
    engine.stop().await;
}

/// Who comes while calls are under way shares the next one; what is there already is filled in, and never revived.
#[tokio::test]
async fn rows_that_come_at_once_share_calls() {
    let engine = Engine::start().await;
    let catalog = engine.catalog().await;
    catalog.upsert(&key("k0"), &row("c0")).await.unwrap();
    let there = catalog.rows(&[id("k0", "c0")]).await.unwrap().remove(0).unwrap();
    catalog.change(&[disown(id("k0", "c0"), there.rev)]).await.remove(0).unwrap();

    let ids: Vec<RowId> = (0..200).map(|n| id(&format!("k{n}"), &format!("c{n}"))).collect();
    let rows: Vec<_> = ids.iter().map(|id| row(id.copy_key.as_str())).collect();
    let (keys, twice) = (ids.iter().map(|id| &id.original), &rows[100..110]);
    let puts = keys.clone().zip(&rows).chain(keys.skip(100).zip(twice)).map(|(key, row)| catalog.upsert(key, row));
    let (put, made) = counted(&engine, join_all(puts)).await;
    put.into_iter().for_each(|put| put.unwrap());
    let (batches, alone) = (made.iter().find(|(name, _)| name == "BatchExecuteStatement").unwrap().1, made.last());
    // Those that came first came alone; so did what was put twice, and what was there.
    assert!(
        (8..=12).contains(&batches) && alone.is_some_and(|(_, many)| *many <= SHARED_CALLS_IN_FLIGHT + 11),
        "{made:?}"
    );
    let found: Vec<_> = catalog.rows(&ids).await.unwrap().into_iter().map(|row| row.unwrap()).collect();
    assert!(!found[0].is_active() && found[1..].iter().all(|row| row.is_active()));
    for (found, row) in found.into_iter().zip(rows).skip(1) {
        assert_eq!(found, lifecycle::row::CopyRow { rev: found.rev.clone(), ..row });
    }
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn single_things_take_single_calls() {
    let engine = Engine::start().await;
    let catalog = engine.catalog().await;
    catalog.upsert(&key("k"), &row("c")).await.unwrap();
    let (_, made) = counted(&engine, catalog.partition(&key("k"))).await;
    assert_eq!(made, calls(&[("Query", 1)]));
    let (_, made) = counted(&engine, catalog.bury(&key("k"), &removal("9", 5))).await;
    assert_eq!(made, calls(&[("GetItem", 1), ("PutItem", 1)]));
    let (_, made) = counted(&engine, catalog.bury(&key("k"), &removal("1", 5))).await;
    assert_eq!(made, calls(&[("GetItem", 1)]), "an older one is not written");
    let (_, made) = counted(&engine, catalog.record_mirrored(&key("k"), &row("k"))).await;
    assert_eq!(made, calls(&[("PutItem", 1)]));
    let (_, made) = counted(&engine, catalog.change(&[disown(id("k", "c"), Rev::from("?"))])).await;
    assert_eq!(made, calls(&[("UpdateItem", 1)]));
    let (_, made) = counted(&engine, catalog.state()).await;
    assert_eq!(made, calls(&[("GetItem", 1)]));
    let (_, made) = counted(&engine, catalog.set_state(StateChange::Cleaned(UnixMs(1)))).await;
    assert_eq!(made, calls(&[("UpdateItem", 1)]));
    let (_, made) = counted(&engine, catalog.lease("clean", "me", UnixMs(0), UnixMs(9))).await;
    assert_eq!(made, calls(&[("UpdateItem", 1)]));
    let (_, made) = counted(&engine, catalog.totals()).await;
    assert!(!made.iter().any(|(operation, _)| operation == "Scan"), "{made:?}");
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn capacity_is_counted() {
    let engine = Engine::start().await;
    let catalog = engine.catalog().await;
    let before = catalog.capacity_used();
    catalog.upsert(&key("k"), &row("c")).await.unwrap();
    let wrote = catalog.capacity_used();
    assert!(wrote.write > before.write && wrote.calls == before.calls + 1, "{before:?} {wrote:?}");
    catalog.partition(&key("k")).await.unwrap();
    let read = catalog.capacity_used();
    assert!(read.read > wrote.read && read.write == wrote.write, "{wrote:?} {read:?}");
    engine.stop().await;
}

fn left_out(table: &str, ids: &[RowId]) -> String {
    let key = |id: &RowId| {
        format!("{{\"original_key\":{{\"S\":\"{}\"}},\"copy_key\":{{\"S\":\"{}\"}}}}", id.original, id.copy_key)
    };
    let keys: Vec<String> = ids.iter().map(key).collect();
    let keys = keys.join(",");
    format!("{{\"Responses\":{{}},\"UnprocessedKeys\":{{\"{table}\":{{\"Keys\":[{keys}],\"ConsistentRead\":true}}}}}}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_the_service_left_out_are_asked_for_again() {
    let engine = Engine::start().await;
    let table = aws::dynamodb::Table::named(engine.name());
    let catalog = engine.make(table.clone()).await;
    let ids: Vec<RowId> = (0..3).map(|n| id("k", &format!("c{n}"))).collect();
    for id in &ids {
        catalog.upsert(&id.original, &row(id.copy_key.as_str())).await.unwrap();
    }
    let began = engine::ports::clock::Clock::now(&*engine.clock);
    for _ in 0..3 {
        engine.between.answer("BatchGetItem", false, 200, left_out(&table.name, &ids));
    }
    let (rows, made) = counted(&engine, catalog.rows(&ids)).await;
    assert_eq!(made, calls(&[("BatchGetItem", 4)]));
    assert!(rows.unwrap().into_iter().all(|row| row.is_some()));
    assert!(engine::ports::clock::Clock::now(&*engine.clock) > began, "it waited in between");
    engine.between.nothing_is_left();

    for _ in 0..8 {
        engine.between.answer("BatchGetItem", false, 200, left_out(&table.name, &ids));
    }
    let (rows, made) = counted(&engine, catalog.rows(&ids)).await;
    assert_eq!(made, calls(&[("BatchGetItem", 8)]), "and not for ever");
    assert_eq!(rows.unwrap_err().kind, ErrorKind::Throttled);
    engine.between.nothing_is_left();
    engine.stop().await;
}

fn each(code: &str, times: usize) -> String {
    let error = format!("{{\"Error\":{{\"Code\":\"{code}\",\"Message\":\"put in\"}}}}");
    format!("{{\"Responses\":[{}]}}", vec![error; times].join(","))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_that_were_throttled_or_whose_answer_was_lost_end_as_they_should() {
    let engine = Engine::start().await;
    let catalog = engine.catalog().await;
    let ids: Vec<RowId> = (0..4).map(|n| id("k", &format!("c{n}"))).collect();
    for id in &ids {
        catalog.upsert(&id.original, &row(id.copy_key.as_str())).await.unwrap();
    }
    let changes = async |set: fn(RowId, Rev) -> RowChange| -> Vec<RowChange> {
        let rows = catalog.rows(&ids).await.unwrap();
        ids.iter().zip(rows).map(|(id, row)| set(id.clone(), row.unwrap().rev)).collect()
    };

    let claims = changes(disown).await;
    engine.between.answer("BatchExecuteStatement", false, 200, each("ThrottlingError", 4));
    engine.between.answer("BatchExecuteStatement", false, 200, each("ProvisionedThroughputExceeded", 4));
    // Done, and said to have failed: each is known again by its rev.
    engine.between.answer("BatchExecuteStatement", true, 200, each("InternalServerError", 4));
    let (outcomes, made) = counted(&engine, catalog.change(&claims)).await;
    assert_eq!(made, calls(&[("BatchExecuteStatement", 4)]));
    for (id, outcome) in ids.iter().zip(outcomes) {
        let row = catalog.rows(std::slice::from_ref(id)).await.unwrap().remove(0).unwrap();
        assert_eq!(outcome.unwrap(), Changed::Applied(row.rev));
    }

    let deletes = changes(|id, if_rev| RowChange { id, if_rev, set: RowSet::Deleted }).await;
    engine.between.answer("BatchExecuteStatement", true, 200, each("InternalServerError", 4));
    let outcomes = catalog.change(&deletes).await;
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Ok(Changed::Applied(_)))), "{outcomes:?}");
    engine.between.nothing_is_left();

    for _ in 0..8 {
        engine.between.answer("BatchExecuteStatement", false, 200, each("ThrottlingError", 4));
    }
    let (outcomes, made) = counted(&engine, catalog.change(&deletes)).await;
    assert_eq!(made, calls(&[("BatchExecuteStatement", 8)]), "and not for ever");
    assert!(outcomes.into_iter().all(|outcome| outcome.unwrap_err().kind == ErrorKind::Throttled));

    engine.between.answer("BatchExecuteStatement", false, 200, each("AccessDenied", 4));
    let error = catalog.change(&deletes).await.remove(1).unwrap_err();
    assert!(matches!(&error.kind, ErrorKind::AccessDenied(what) if what.contains("PartiQLDelete")), "{error}");
    assert!(error.object.contains("k / c1"), "the row, not the batch: {error}");
    engine.between.nothing_is_left();
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whole_calls_that_are_throttled_are_repeated_within_a_limit() {
    let engine = Engine::start().await;
    let catalog = engine.catalog().await;
    catalog.upsert(&key("k"), &row("c")).await.unwrap();
    engine.between.fail("Query", "ProvisionedThroughputExceededException", 2);
    assert_eq!(catalog.partition(&key("k")).await.unwrap().rows.len(), 1);
    engine.between.nothing_is_left();
    engine.between.fail("Query", "ProvisionedThroughputExceededException", 4);
    let error = catalog.partition(&key("k")).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Throttled);
    engine.between.nothing_is_left();
    engine.between.fail("UpdateItem", "AccessDeniedException", 1);
    let error = catalog.upsert(&key("k"), &row("c")).await.unwrap_err();
    assert!(matches!(&error.kind, ErrorKind::AccessDenied(what) if what.contains("dynamodb:UpdateItem")), "{error}");
    assert!(error.to_string().contains("k / c"), "{error}");
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_breaker_is_released_in_one_single_try() {
    let engine = Engine::start().await;
    let catalog = engine.catalog().await;
    engine.between.fail("UpdateItem", "ProvisionedThroughputExceededException", 1);
    let error = catalog.set_state(StateChange::Release(UnixMs(1))).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Throttled);
    assert_eq!(catalog.state().await.unwrap().released_at, None);
    catalog.set_state(StateChange::Release(UnixMs(2))).await.unwrap();
    assert_eq!(catalog.state().await.unwrap().released_at, Some(UnixMs(2)));
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_changes_of_one_row_go_one_after_the_other() {
    let engine = Engine::start().await;
    let catalog = engine.catalog().await;
    for copy in ["a", "b"] {
        catalog.upsert(&key("k"), &row(copy)).await.unwrap();
    }
    let of = async |copy: &str| {
        let rev = catalog.rows(&[id("k", copy)]).await.unwrap().remove(0).unwrap().rev;
        disown(RowId { original: key("k"), copy_key: CopyKey::of(key(copy)) }, rev)
    };
    let (a, b) = (of("a").await, of("b").await);
    let (outcomes, made) = counted(&engine, catalog.change(&[a.clone(), b.clone(), a, b])).await;
    let applied: Vec<bool> = outcomes.iter().map(|outcome| matches!(outcome, Ok(Changed::Applied(_)))).collect();
    assert_eq!(applied, [true, true, false, false]);
    assert_eq!(made, calls(&[("BatchExecuteStatement", 2)]));
    engine.stop().await;
}
