//! The index over shards: pages in order of time, keys and copy keys, whatever stands where; and keys of every kind.

use super::server::{Engine, NOW};
use super::{id, key, removal, row};
use aws::dynamodb::Table;
use engine::ports::catalog::{
    Catalog, CatalogRead, Changed, IndexEntry, IndexQuery, Indexed, RowChange, RowId, RowSet,
};
use lifecycle::ids::{CopyKey, ObjectKey};
use lifecycle::row::Reason;
use lifecycle::time::{SpanMs, UnixMs};
use std::collections::BTreeSet;

async fn all(catalog: &dyn Catalog, what: Indexed, limit: usize) -> Vec<IndexEntry> {
    let mut found = Vec::new();
    let mut query = IndexQuery { what, from: UnixMs(i64::MIN), until: UnixMs(i64::MAX), after: None, limit };
    loop {
        let page = catalog.index(&query).await.unwrap();
        assert!(page.items.len() <= limit);
        found.extend(page.items);
        query.after = page.next;
        if query.after.is_none() {
            return found;
        }
    }
}

async fn disown(catalog: &dyn Catalog, ids: &[RowId], at: i64) {
    let rows = catalog.rows(ids).await.unwrap();
    let set = RowSet::Disowned { at: UnixMs(at), reason: Reason::Removed, removed_at: None };
    let change = |(id, row): (&RowId, Option<lifecycle::row::CopyRow>)| RowChange {
        id: id.clone(),
        if_rev: row.unwrap().rev,
        set: set.clone(),
    };
    let changes: Vec<RowChange> = ids.iter().zip(rows).map(change).collect();
    let outcomes = catalog.change(&changes).await;
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Ok(Changed::Applied(_)))), "{outcomes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_of_one_time_are_paged_in_order_over_all_shards() {
    let engine = Engine::start().await;
    let catalog = engine.make(Table { index_shards: 5, ..Table::named(engine.name()) }).await;
    let ids: Vec<RowId> = (0..300).map(|n| id(&format!("k{}", n % 30), &format!("c{n}"))).collect();
    for id in &ids {
        catalog.upsert(&id.original, &row(id.copy_key.as_str())).await.unwrap();
    }
    // Most of them at one moment, a few before and after it.
    disown(&*catalog, &ids[..280], 500).await;
    disown(&*catalog, &ids[280..290], 499).await;
    disown(&*catalog, &ids[290..], 501).await;
    let at = |n: usize| match n {
        ..280 => 500,
        280..290 => 499,
        _ => 501,
    };
    let entry = |(n, id): (usize, &RowId)| IndexEntry {
        at: UnixMs(at(n)),
        original: id.original.clone(),
        copy_key: Some(id.copy_key.clone()),
    };
    let expected: BTreeSet<IndexEntry> = ids.iter().enumerate().map(entry).collect();
    for limit in [23, 100, 299, 300, 1_000] {
        let found = all(&*catalog, Indexed::Disowned, limit).await;
        assert!(found.iter().eq(expected.iter()), "in pages of {limit}: {} entries", found.len());
    }
    assert_eq!(all(&*catalog, Indexed::Surplus, 10).await, []);
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_outlive_a_change_of_the_shards() {
    let engine = Engine::start().await;
    let table = Table::named(engine.name());
    let shards = |index_shards| Table { index_shards, ..table.clone() };
    let mut many = 0;
    for index_shards in [1, 4, 8, 2, 1] {
        let catalog = engine.make(shards(index_shards)).await;
        for n in many..many + 20 {
            catalog.bury(&key(&format!("k{n}")), &removal("5", n)).await.unwrap();
        }
        many += 20;
        let found = all(&*catalog, Indexed::Removed, 6).await;
        assert!(found.iter().map(|entry| entry.at.0).eq(0..many), "{index_shards} shards: {} found", found.len());
    }
    let catalog = engine.open(&shards(1)).await;
    assert_eq!(catalog.forget_tombstones(UnixMs(50), 1_000).await.unwrap(), 50);
    assert_eq!(all(&*catalog, Indexed::Removed, 1_000).await.len(), 50);
    engine.stop().await;
}

/// Every character that a key can have, and the longest keys, in both places and through every call.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_every_kind_pass_through_every_call() {
    let engine = Engine::start().await;
    let ascii: String = (0..128_u8).map(char::from).collect();
    let texts = [
        ascii.clone(),
        "a b+c%20&d?e=f#g".to_owned(),
        "it's \"quoted\" \\ `so` ? ; -- :v #n".to_owned(),
        "ünïcödé/🦀/e\u{301}/\u{10ffff}/\u{fffe}".to_owned(),
        "x".repeat(1_024),
        "🦀".repeat(256),
        "\u{1}state".to_owned(),
        "\u{1}lease:clean".to_owned(),
        "afterimage".to_owned(),
        "p:q".to_owned(),
        "#1".to_owned(),
    ];
    for prefix in [None, Some("p".repeat(64))] {
        let catalog = engine.make(Table { prefix, index_shards: 3, ..Table::named(engine.name()) }).await;
        catalog.lease("clean", "me", UnixMs(0), UnixMs(10)).await.unwrap();
        let keys: Vec<ObjectKey> = texts.iter().map(|text| key(text)).collect();
        let mut ids = Vec::new();
        for original in &keys {
            for copy in
                keys.iter().filter(|copy| original.as_str() != "afterimage" || !copy.as_str().starts_with('\u{1}'))
            {
                catalog.upsert(original, &row(copy.as_str())).await.unwrap();
                ids.push(RowId { original: original.clone(), copy_key: CopyKey::of(copy.clone()) });
            }
            assert!(catalog.bury(original, &removal("5", 3)).await.unwrap());
        }
        assert!(
            catalog
                .rows(&ids)
                .await
                .unwrap()
                .into_iter()
                .zip(&ids)
                .all(|(row, id)| row.unwrap().copy_key == id.copy_key)
        );
        for original in &keys {
            let partition = catalog.partition(original).await.unwrap();
            assert_eq!(partition.rows.len(), ids.iter().filter(|id| id.original == *original).count());
            assert_eq!(partition.tombstone, Some(removal("5", 3)));
        }
        disown(&*catalog, &ids, 8).await;
        let found = all(&*catalog, Indexed::Disowned, 10).await;
        let named: BTreeSet<(ObjectKey, Option<CopyKey>)> =
            found.into_iter().map(|entry| (entry.original, entry.copy_key)).collect();
        assert!(
            named.len() == ids.len()
                && ids.iter().all(|id| named.contains(&(id.original.clone(), Some(id.copy_key.clone()))))
        );
        let removed: Vec<ObjectKey> =
            all(&*catalog, Indexed::Removed, 4).await.into_iter().map(|entry| entry.original).collect();
        assert_eq!(removed.iter().collect::<BTreeSet<_>>(), keys.iter().collect::<BTreeSet<_>>());
        assert_eq!(catalog.forget_tombstones(UnixMs(9), 100).await.unwrap(), keys.len() as u64);
        assert!(!catalog.lease("clean", "other", UnixMs(1), UnixMs(10)).await.unwrap(), "the lease is still there");
    }
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn estimated_totals_never_tell_too_many_live_keys() {
    let engine = Engine::start().await;
    let table = Table { copies_per_key: 3, ..Table::named(engine.name()) };
    let catalog = engine.make(table.clone()).await;
    for n in 0..30 {
        for copy in ["1", "2", "3"] {
            catalog.upsert(&key(&format!("k{n}")), &row(copy)).await.unwrap();
        }
    }
    let totals = catalog.totals().await.unwrap();
    assert!(totals.estimated && (29..=30).contains(&totals.live_keys), "{totals:?}");
    // The service's counts are hours old: what was removed since is taken off by its tombstones, before its rows are.
    for n in 0..20 {
        catalog.bury(&key(&format!("k{n}")), &removal("5", NOW.0)).await.unwrap();
    }
    let after = catalog.totals().await.unwrap();
    assert!(after.live_keys <= 10 && after.live_keys >= 9, "{after:?}");
    for n in 20..40 {
        catalog.bury(&key(&format!("k{n}")), &removal("5", NOW.0)).await.unwrap();
    }
    assert_eq!(catalog.totals().await.unwrap().live_keys, 0);
    engine.clock.advance(SpanMs::days(2));
    assert!(catalog.totals().await.unwrap().live_keys > 0, "by then the counts know of the removals");

    let shared = Table { prefix: Some("p".to_owned()), ..table };
    let totals = engine.open(&shared).await.totals().await.unwrap();
    assert_eq!((totals.live_keys, totals.estimated), (0, true), "nothing is known of one policy among several");
    engine.stop().await;
}
