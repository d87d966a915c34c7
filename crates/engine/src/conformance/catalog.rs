//! What every catalog must do: each sentence of the port (`ports/catalog.rs`) is a check here, and every adapter runs all.
//!
//! A check gets an empty catalog of its own and panics with what was wrong. The checks of rows and tombstones stand here,
//! those of what is asked of the catalog as a whole in `conformance/catalog/overview.rs`. Laws shown: V3 (nothing revives),
//! V4 (changes are conditional), I9 (pages).

mod overview;

use crate::ports::catalog::{
    Catalog, CatalogKeys, Changed, IndexEntry, IndexQuery, Indexed, RowChange, RowId, RowSet, Totals,
};
use futures_util::future::join_all;
use lifecycle::ids::{Checksum, CopyKey, ETag, ObjectKey, Rev, VersionId};
use lifecycle::order::{Basis, Order};
use lifecycle::row::{CopyRow, CopyState, Origin, Partition, Reason, Tombstone};
use lifecycle::time::UnixMs;
use overview::{
    keys_are_listed_in_order, keys_without_rows_are_not_listed, leases_exclude, the_index_follows_the_rows,
    the_index_is_paged_in_order, the_state_is_remembered, totals_are_kept,
};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Runs every check of `Catalog`, each on a fresh catalog from `make`.
pub async fn catalog<F: Future<Output = Arc<dyn Catalog>>>(make: impl Fn() -> F) {
    rows_read_back_whole(&*make().await).await;
    partitions_do_not_mix(&*make().await).await;
    rows_answer_in_the_order_asked(&*make().await).await;
    an_upsert_fills_in_only_what_is_missing(&*make().await).await;
    an_upsert_never_revives(&*make().await).await;
    a_mirrored_row_is_replaced(&*make().await).await;
    claims_are_conditional(&*make().await).await;
    active_rows_alone_are_raised_or_made_due(&*make().await).await;
    deletes_are_conditional_and_revs_never_return(&*make().await).await;
    a_batch_answers_each_change(&*make().await).await;
    of_racing_claims_one_wins(&*make().await).await;
    only_a_newer_tombstone_replaces(&*make().await).await;
    that_a_tombstone_is_a_lower_bound_outlasts_it(&*make().await).await;
    old_tombstones_are_forgotten(&*make().await).await;
    the_index_follows_the_rows(&*make().await).await;
    the_index_is_paged_in_order(&*make().await).await;
    totals_are_kept(&*make().await).await;
    the_state_is_remembered(&*make().await).await;
    leases_exclude(&*make().await).await;
}

/// Runs every check of `CatalogKeys`, each on a fresh catalog from `make`: both handles of one catalog.
pub async fn catalog_keys<F: Future<Output = (Arc<dyn Catalog>, Arc<dyn CatalogKeys>)>>(make: impl Fn() -> F) {
    let (catalog, keys) = make().await;
    keys_are_listed_in_order(&*catalog, &*keys).await;
    let (catalog, keys) = make().await;
    keys_without_rows_are_not_listed(&*catalog, &*keys).await;
}

const WORKS: &str = "the catalog answers";

fn key(text: &str) -> ObjectKey {
    ObjectKey::new(text).expect("a key")
}

fn copy_key(text: &str) -> CopyKey {
    CopyKey::of(key(text))
}

/// An active row with nothing but what it must have.
fn row(copy: &str) -> CopyRow {
    CopyRow {
        copy_key: copy_key(copy),
        order: order("5"),
        floating: false,
        origin: Origin::Event,
        created_at: UnixMs(1_000),
        state: CopyState::Active { due_at: None },
        removed_at: None,
        version_id: None,
        etag: ETag::from("tag"),
        size: 7,
        checksum: None,
        storage_class: None,
        rev: Rev::from("not looked at"),
    }
}

fn order(hex: &str) -> Order {
    Order::from_sequencer(hex).expect("hex digits")
}

fn id(original: &str, copy: &str) -> RowId {
    RowId { original: key(original), copy_key: copy_key(copy) }
}

async fn put(catalog: &dyn Catalog, original: &str, row: &CopyRow) {
    catalog.upsert(&key(original), row).await.expect(WORKS);
}

async fn get(catalog: &dyn Catalog, original: &str, copy: &str) -> Option<CopyRow> {
    catalog.rows(&[id(original, copy)]).await.expect(WORKS).remove(0)
}

async fn there(catalog: &dyn Catalog, original: &str, copy: &str) -> CopyRow {
    get(catalog, original, copy).await.expect("the row is there")
}

async fn change(catalog: &dyn Catalog, original: &str, copy: &str, rev: &Rev, set: RowSet) -> Changed {
    let change = RowChange { id: id(original, copy), if_rev: rev.clone(), set };
    catalog.change(&[change]).await.remove(0).expect(WORKS)
}

/// Changes the row as it is now.
async fn apply(catalog: &dyn Catalog, original: &str, copy: &str, set: RowSet) -> Rev {
    let rev = there(catalog, original, copy).await.rev;
    match change(catalog, original, copy, &rev, set).await {
        Changed::Applied(rev) => rev,
        Changed::Refused => panic!("{original} / {copy}: refused with the rev just read"),
    }
}

fn disown(at: i64, reason: Reason) -> RowSet {
    RowSet::Disowned { at: UnixMs(at), reason, removed_at: None }
}

async fn index(catalog: &dyn Catalog, what: Indexed, from: i64, until: i64) -> Vec<(i64, String, Option<String>)> {
    let query = IndexQuery { what, from: UnixMs(from), until: UnixMs(until), after: None, limit: 100 };
    let page = catalog.index(&query).await.expect(WORKS);
    assert_eq!(page.next, None, "all of it fits");
    page.items.into_iter().map(shown).collect()
}

fn shown(entry: IndexEntry) -> (i64, String, Option<String>) {
    (entry.at.0, entry.original.to_string(), entry.copy_key.map(|copy_key| copy_key.to_string()))
}

async fn same_totals(catalog: &dyn Catalog, expected: Totals) {
    let totals = catalog.totals().await.expect(WORKS);
    if !totals.estimated {
        assert_eq!(totals, expected);
    }
}

fn but_rev(row: &CopyRow, rev: &Rev) -> CopyRow {
    CopyRow { rev: rev.clone(), ..row.clone() }
}

async fn rows_read_back_whole(catalog: &dyn Catalog) {
    let full = CopyRow {
        order: order("00ff5a").next_sub().next_sub(),
        floating: true,
        origin: Origin::Undelete { at: UnixMs(77) },
        created_at: UnixMs(1_795_245_972_345),
        state: CopyState::Active { due_at: Some(UnixMs(9_000)) },
        removed_at: Some(UnixMs(88)),
        version_id: Some(VersionId::from("v/1+ü")),
        etag: ETag::from("d41d8cd98f00b204e9800998ecf8427e-3"),
        size: 53_687_091_200_000,
        checksum: Some(Checksum(u64::MAX - 1)),
        storage_class: Some("GLACIER_IR".to_owned()),
        ..row("k.full")
    };
    let longest = "ü".repeat(512);
    let mut rows = vec![full.clone(), CopyRow { size: 0, etag: ETag::from(""), ..row(&longest) }];
    for (n, origin) in [Origin::Event, Origin::Look].into_iter().enumerate() {
        rows.push(CopyRow { origin, order: Order::from_time(UnixMs(123)), ..row(&format!("k.{n}")) });
    }
    for text in ["it's \"quoted\"", "new\nline\ttab", "100%_", "🦀", "\u{1}", " ", "../..", "a//b/"] {
        rows.push(row(text));
    }
    let originals = ["k", "it's \"quoted\" \n%_🦀", longest.as_str()];
    for original in originals {
        for row in &rows {
            put(catalog, original, row).await;
        }
    }
    for original in originals {
        let partition = catalog.partition(&key(original)).await.expect(WORKS);
        assert_eq!(partition.rows.len(), rows.len());
        for row in &rows {
            let read = there(catalog, original, row.copy_key.as_str()).await;
            assert_eq!(read, but_rev(row, &read.rev));
            assert!(partition.rows.contains(&read), "rows and partition agree on {}", row.copy_key);
        }
    }
    for reason in [Reason::Removed, Reason::Absent, Reason::BeyondKeep, Reason::Twin, Reason::BytesMissing] {
        put(catalog, "reasons", &row(reason.code())).await;
        apply(catalog, "reasons", reason.code(), disown(5, reason)).await;
        let state = there(catalog, "reasons", reason.code()).await.state;
        assert_eq!(state, CopyState::Disowned { at: UnixMs(5), reason });
    }
}

async fn partitions_do_not_mix(catalog: &dyn Catalog) {
    assert_eq!(catalog.partition(&key("a")).await.expect(WORKS), Partition::default());
    let originals = ["a", "a/b", "a.b", "A", "b", "a ", "á"];
    for original in originals {
        put(catalog, original, &row(&format!("{original}.1"))).await;
        put(catalog, original, &row(&format!("{original}.2"))).await;
    }
    let tombstone = Tombstone { order: order("9"), time: UnixMs(3), noted_at: UnixMs(4), floating: false };
    assert!(catalog.bury(&key("a"), &tombstone).await.expect(WORKS));
    assert!(catalog.bury(&key("no rows"), &tombstone).await.expect(WORKS));
    for original in originals {
        let partition = catalog.partition(&key(original)).await.expect(WORKS);
        let names: BTreeSet<&str> = partition.rows.iter().map(|row| row.copy_key.as_str()).collect();
        assert_eq!(names, BTreeSet::from([format!("{original}.1").as_str(), format!("{original}.2").as_str()]));
        assert_eq!(partition.tombstone, (original == "a").then_some(tombstone));
    }
    let buried = catalog.partition(&key("no rows")).await.expect(WORKS);
    assert_eq!(buried, Partition { rows: Vec::new(), tombstone: Some(tombstone) });
}

async fn rows_answer_in_the_order_asked(catalog: &dyn Catalog) {
    assert_eq!(catalog.rows(&[]).await.expect(WORKS), Vec::new());
    for n in 0..1_000 {
        put(catalog, &format!("k{}", n % 10), &row(&format!("c{n:03}"))).await;
    }
    let ids: Vec<RowId> = (0..1_000).rev().map(|n| id(&format!("k{}", n % 11), &format!("c{n:03}"))).collect();
    let rows = catalog.rows(&ids).await.expect(WORKS);
    assert_eq!(rows.len(), ids.len());
    for ((id, row), n) in ids.iter().zip(rows).zip((0..1_000).rev()) {
        assert_eq!(row.map(|row| row.copy_key), (n % 11 == n % 10).then(|| id.copy_key.clone()), "{id:?}");
    }
}

async fn an_upsert_fills_in_only_what_is_missing(catalog: &dyn Catalog) {
    put(catalog, "k", &row("c")).await;
    let first = there(catalog, "k", "c").await;
    let other = CopyRow {
        order: order("1"),
        floating: true,
        origin: Origin::Look,
        created_at: UnixMs(5),
        state: CopyState::Active { due_at: Some(UnixMs(6)) },
        removed_at: Some(UnixMs(7)),
        version_id: Some(VersionId::from("v")),
        etag: ETag::from("other"),
        size: 8,
        checksum: Some(Checksum(9)),
        storage_class: Some("COLD".to_owned()),
        ..row("c")
    };
    put(catalog, "k", &other).await;
    let second = there(catalog, "k", "c").await;
    assert_ne!(second.rev, first.rev, "every write gives a new rev");
    let filled = CopyRow {
        removed_at: Some(UnixMs(7)),
        version_id: Some(VersionId::from("v")),
        checksum: Some(Checksum(9)),
        storage_class: Some("COLD".to_owned()),
        rev: second.rev.clone(),
        ..first.clone()
    };
    assert_eq!(second, filled);

    let again = CopyRow {
        removed_at: Some(UnixMs(70)),
        version_id: Some(VersionId::from("w")),
        checksum: Some(Checksum(90)),
        storage_class: Some("WARM".to_owned()),
        order: order("ff"),
        rev: second.rev.clone(),
        ..row("c")
    };
    put(catalog, "k", &again).await;
    let third = there(catalog, "k", "c").await;
    assert!(third.rev != second.rev && third.rev != first.rev, "a new rev though nothing else changed");
    assert_eq!(third, but_rev(&second, &third.rev));
    assert_eq!(change(catalog, "k", "c", &second.rev, RowSet::Deleted).await, Changed::Refused);
}

async fn an_upsert_never_revives(catalog: &dyn Catalog) {
    put(catalog, "k", &row("c")).await;
    apply(catalog, "k", "c", disown(50, Reason::Removed)).await;
    let before = there(catalog, "k", "c").await;
    put(catalog, "k", &row("c")).await;
    let after = there(catalog, "k", "c").await;
    assert_eq!(after, but_rev(&before, &after.rev));
    assert_ne!(after.rev, before.rev);
    assert_eq!(index(catalog, Indexed::Disowned, 0, 99).await, [(50, "k".into(), Some("c".into()))]);

    let due = CopyRow { state: CopyState::Active { due_at: Some(UnixMs(9)) }, ..row("due") };
    put(catalog, "k", &due).await;
    put(catalog, "k", &row("due")).await;
    assert_eq!(there(catalog, "k", "due").await.state, due.state, "nor does it take a due time away");
}

async fn a_mirrored_row_is_replaced(catalog: &dyn Catalog) {
    let mirrored = |row: CopyRow| async move { catalog.record_mirrored(&key("k"), &row).await.expect(WORKS) };
    mirrored(CopyRow { version_id: Some(VersionId::from("v")), ..row("k") }).await;
    let first = there(catalog, "k", "k").await;
    let newer = CopyRow { order: order("1"), size: 99, etag: ETag::from("new"), created_at: UnixMs(2), ..row("k") };
    mirrored(newer.clone()).await;
    let second = there(catalog, "k", "k").await;
    assert_ne!(second.rev, first.rev);
    assert_eq!(second, but_rev(&newer, &second.rev));
    assert_eq!(catalog.partition(&key("k")).await.expect(WORKS).rows, [second]);
    let totals = Totals { live_keys: 1, active: 1, disowned: 0, bytes: 99, estimated: false };
    same_totals(catalog, totals).await;
}

async fn claims_are_conditional(catalog: &dyn Catalog) {
    let rev = Rev::from("none");
    let claim = |removed_at: Option<i64>| RowSet::Disowned {
        at: UnixMs(60),
        reason: Reason::Removed,
        removed_at: removed_at.map(UnixMs),
    };
    assert_eq!(change(catalog, "k", "c", &rev, claim(None)).await, Changed::Refused, "there is no row");
    assert_eq!(get(catalog, "k", "c").await, None, "and a refused claim makes none");

    put(catalog, "k", &CopyRow { removed_at: Some(UnixMs(3)), ..row("c") }).await;
    let read = there(catalog, "k", "c").await;
    assert_eq!(change(catalog, "k", "c", &rev, claim(Some(9))).await, Changed::Refused);
    assert_eq!(there(catalog, "k", "c").await, read, "a refused change changes nothing");
    let Changed::Applied(new) = change(catalog, "k", "c", &read.rev, claim(None)).await else { panic!("refused") };
    assert_ne!(new, read.rev);
    let state = CopyState::Disowned { at: UnixMs(60), reason: Reason::Removed };
    let claimed = CopyRow { state, rev: new.clone(), ..read };
    assert_eq!(there(catalog, "k", "c").await, claimed, "`None` leaves the removal's time that stands there");
    assert_eq!(change(catalog, "k", "c", &new, claim(Some(9))).await, Changed::Refused, "disowned already");
    assert_eq!(there(catalog, "k", "c").await, claimed);

    let due = CopyRow { state: CopyState::Active { due_at: Some(UnixMs(1)) }, removed_at: Some(UnixMs(3)), ..row("d") };
    put(catalog, "k", &due).await;
    apply(catalog, "k", "d", claim(Some(9))).await;
    let read = there(catalog, "k", "d").await;
    assert_eq!((read.state, read.removed_at), (state, Some(UnixMs(9))));
}

async fn active_rows_alone_are_raised_or_made_due(catalog: &dyn Catalog) {
    put(catalog, "k", &row("c")).await;
    let first = there(catalog, "k", "c").await;
    let raised = RowSet::Raised { order: order("77").next_sub() };
    let due = |at: Option<i64>| RowSet::Due { at: at.map(UnixMs) };
    assert_eq!(change(catalog, "k", "c", &Rev::from("?"), raised.clone()).await, Changed::Refused);
    assert_eq!(change(catalog, "k", "c", &Rev::from("?"), due(Some(1))).await, Changed::Refused);
    assert_eq!(there(catalog, "k", "c").await, first);

    let rev = apply(catalog, "k", "c", raised.clone()).await;
    let expected = CopyRow { order: order("77").next_sub(), floating: true, rev: rev.clone(), ..first.clone() };
    assert_eq!(there(catalog, "k", "c").await, expected);
    let rev = apply(catalog, "k", "c", due(Some(500))).await;
    let state = CopyState::Active { due_at: Some(UnixMs(500)) };
    assert_eq!(there(catalog, "k", "c").await, CopyRow { state, rev, ..expected.clone() });
    let rev = apply(catalog, "k", "c", due(None)).await;
    assert_eq!(there(catalog, "k", "c").await, CopyRow { rev, ..expected });

    let rev = apply(catalog, "k", "c", disown(1, Reason::Twin)).await;
    let disowned = there(catalog, "k", "c").await;
    assert_eq!(change(catalog, "k", "c", &rev, raised).await, Changed::Refused);
    assert_eq!(change(catalog, "k", "c", &rev, due(None)).await, Changed::Refused);
    assert_eq!(there(catalog, "k", "c").await, disowned);
}

async fn deletes_are_conditional_and_revs_never_return(catalog: &dyn Catalog) {
    let mut revs = BTreeSet::new();
    for _ in 0..5 {
        put(catalog, "k", &row("c")).await;
        let first = there(catalog, "k", "c").await.rev;
        let second = apply(catalog, "k", "c", disown(1, Reason::Removed)).await;
        assert!(revs.insert(first.clone()) && revs.insert(second.clone()), "a rev came back: {first}, {second}");
        assert_eq!(change(catalog, "k", "c", &first, RowSet::Deleted).await, Changed::Refused);
        assert!(get(catalog, "k", "c").await.is_some());
        assert_eq!(change(catalog, "k", "c", &second, RowSet::Deleted).await, Changed::Applied(second.clone()));
        assert_eq!(get(catalog, "k", "c").await, None);
        assert_eq!(change(catalog, "k", "c", &second, RowSet::Deleted).await, Changed::Refused, "it is gone");
    }
    put(catalog, "k", &row("active")).await;
    apply(catalog, "k", "active", RowSet::Deleted).await;
    assert_eq!(catalog.partition(&key("k")).await.expect(WORKS), Partition::default());
}

async fn a_batch_answers_each_change(catalog: &dyn Catalog) {
    assert!(catalog.change(&[]).await.is_empty());
    let mut changes = Vec::new();
    for n in 0..200 {
        let (original, copy) = (format!("k{}", n % 7), format!("c{n}"));
        put(catalog, &original, &row(&copy)).await;
        let if_rev = if n % 3 == 0 { Rev::from("?") } else { there(catalog, &original, &copy).await.rev };
        let set = if n % 2 == 0 { RowSet::Deleted } else { disown(n, Reason::Removed) };
        changes.push(RowChange { id: id(&original, &copy), if_rev, set });
    }
    let outcomes = catalog.change(&changes).await;
    assert_eq!(outcomes.len(), changes.len());
    for (n, (change, outcome)) in changes.iter().zip(outcomes).enumerate() {
        let outcome = outcome.expect(WORKS);
        assert_eq!(outcome == Changed::Refused, n % 3 == 0, "{n}");
        let row = get(catalog, change.id.original.as_str(), change.id.copy_key.as_str()).await;
        match (row, outcome) {
            (Some(row), Changed::Refused) => assert!(row.is_active()),
            (Some(row), Changed::Applied(rev)) => assert!(n % 2 == 1 && !row.is_active() && row.rev == rev),
            (None, outcome) => assert!(n % 2 == 0 && outcome == Changed::Applied(change.if_rev.clone())),
        }
    }
}

async fn of_racing_claims_one_wins(catalog: &dyn Catalog) {
    put(catalog, "k", &row("c")).await;
    let rev = there(catalog, "k", "c").await.rev;
    let claims = (0..32).map(|n| change(catalog, "k", "c", &rev, disown(n, Reason::Removed)));
    let outcomes = join_all(claims).await;
    let applied: Vec<usize> = (0..32).filter(|n| outcomes[*n] != Changed::Refused).collect();
    assert_eq!(applied.len(), 1, "claims that won: {applied:?}");
    let read = there(catalog, "k", "c").await;
    assert_eq!(outcomes[applied[0]], Changed::Applied(read.rev));
    assert_eq!(read.state, CopyState::Disowned { at: UnixMs(applied[0] as i64), reason: Reason::Removed });
}

async fn only_a_newer_tombstone_replaces(catalog: &dyn Catalog) {
    let at = |order, n| Tombstone { order, time: UnixMs(n), noted_at: UnixMs(n + 1), floating: false };
    let bury = |tombstone: Tombstone| async move { catalog.bury(&key("k"), &tombstone).await.expect(WORKS) };
    let held = || async { catalog.partition(&key("k")).await.expect(WORKS).tombstone };
    assert_eq!(held().await, None);
    // Sequencers compare as if padded on the right, so `2` stands above `1f`.
    assert!(bury(at(order("1f"), 10)).await);
    assert!(bury(at(order("2"), 5)).await);
    assert_eq!(held().await, Some(at(order("2"), 5)));
    assert!(!bury(at(order("2"), 99)).await, "the same order");
    assert!(!bury(at(order("1ff"), 99)).await, "a lower one");
    assert_eq!(held().await, Some(at(order("2"), 5)));
    assert!(bury(at(order("2").next_sub(), 6)).await);
    let other = at(Order::from_time(UnixMs(0)), 7);
    assert!(bury(other).await, "orders of different bases do not compare");
    assert_eq!(held().await, Some(other));
    assert!(bury(at(Order::lowest(Basis::Sequencer), 8)).await);
}

async fn that_a_tombstone_is_a_lower_bound_outlasts_it(catalog: &dyn Catalog) {
    let at = |hex, n, floating| Tombstone { order: order(hex), time: UnixMs(n), noted_at: UnixMs(n + 1), floating };
    let bury = |tombstone: Tombstone| async move { catalog.bury(&key("k"), &tombstone).await.expect(WORKS) };
    let held = || async { catalog.partition(&key("k")).await.expect(WORKS).tombstone };
    assert!(bury(at("2", 5, false)).await);
    assert!(!bury(at("1", 6, true)).await, "a lower one");
    assert!(bury(at("2", 7, true)).await, "the same order, and the mark is new");
    assert!(!bury(at("2", 8, true)).await, "the mark is there");
    assert!(!bury(at("2", 8, false)).await, "nothing takes it away");
    assert_eq!(held().await, Some(at("2", 5, true)), "the removal is none the younger for the mark");
    assert!(bury(at("3", 9, false)).await);
    assert_eq!(held().await, Some(at("3", 9, true)), "the newer removal, and the mark of the older one");
}

async fn old_tombstones_are_forgotten(catalog: &dyn Catalog) {
    for n in 0..10 {
        let tombstone = Tombstone { order: order("5"), time: UnixMs(1_000), noted_at: UnixMs(n), floating: false };
        assert!(catalog.bury(&key(&format!("k{n}")), &tombstone).await.expect(WORKS));
    }
    put(catalog, "k0", &row("c")).await;
    assert_eq!(catalog.forget_tombstones(UnixMs(0), 100).await.expect(WORKS), 0, "only those noted before then");
    assert_eq!(catalog.forget_tombstones(UnixMs(5), 3).await.expect(WORKS), 3, "at most so many");
    assert_eq!(catalog.forget_tombstones(UnixMs(5), 100).await.expect(WORKS), 2);
    let left: Vec<i64> = index(catalog, Indexed::Removed, 0, 99).await.into_iter().map(|entry| entry.0).collect();
    assert_eq!(left, [5, 6, 7, 8, 9]);
    let partition = catalog.partition(&key("k0")).await.expect(WORKS);
    assert_eq!((partition.rows.len(), partition.tombstone), (1, None), "the rows stay");
}
