//! What every catalog must do: each sentence of the port (`ports/catalog.rs`) is a check here, and every adapter runs all.
//!
//! A check gets an empty catalog of its own and panics with what was wrong. Laws shown: V3 (nothing revives), V4 (changes
//! are conditional), I9 (pages).

use crate::ports::catalog::{
    Catalog, CatalogKeys, Changed, IndexEntry, IndexQuery, Indexed, PolicyState, RowChange, RowId, RowSet, StateChange,
    Totals, Trip,
};
use futures_util::future::join_all;
use lifecycle::ids::{Checksum, CopyKey, ETag, ObjectKey, Rev, VersionId};
use lifecycle::order::{Basis, Order};
use lifecycle::row::{CopyRow, CopyState, Origin, Partition, Reason, Tombstone};
use lifecycle::time::UnixMs;
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

async fn the_index_follows_the_rows(catalog: &dyn Catalog) {
    use Indexed::{Disowned, Removed, Surplus};
    let entry = |at: i64, copy: Option<&str>| (at, "k".to_owned(), copy.map(str::to_owned));
    put(catalog, "k", &row("c")).await;
    assert_eq!(index(catalog, Surplus, 0, i64::MAX).await, []);
    assert_eq!(index(catalog, Disowned, 0, i64::MAX).await, []);
    apply(catalog, "k", "c", RowSet::Due { at: Some(UnixMs(20)) }).await;
    assert_eq!(index(catalog, Surplus, 0, 99).await, [entry(20, Some("c"))]);
    assert_eq!(index(catalog, Disowned, 0, 99).await, []);
    apply(catalog, "k", "c", RowSet::Due { at: Some(UnixMs(30)) }).await;
    apply(catalog, "k", "c", RowSet::Raised { order: order("9") }).await;
    assert_eq!(index(catalog, Surplus, 0, 99).await, [entry(30, Some("c"))]);
    assert_eq!(index(catalog, Surplus, 30, 30).await.len(), 1, "both ends are inside");
    assert_eq!(index(catalog, Surplus, 0, 29).await, []);
    assert_eq!(index(catalog, Surplus, 31, 99).await, []);
    apply(catalog, "k", "c", RowSet::Due { at: None }).await;
    assert_eq!(index(catalog, Surplus, 0, 99).await, []);

    apply(catalog, "k", "c", disown(40, Reason::Removed)).await;
    assert_eq!(index(catalog, Disowned, 40, 40).await, [entry(40, Some("c"))]);
    assert_eq!(index(catalog, Surplus, 0, 99).await, []);
    apply(catalog, "k", "c", RowSet::Deleted).await;
    assert_eq!(index(catalog, Disowned, 0, 99).await, []);

    for (hex, noted_at) in [("1", 50), ("2", 60)] {
        let tombstone = Tombstone { order: order(hex), time: UnixMs(1), noted_at: UnixMs(noted_at), floating: false };
        assert!(catalog.bury(&key("k"), &tombstone).await.expect(WORKS));
        assert_eq!(index(catalog, Removed, 0, 99).await, [entry(noted_at, None)], "one of each removed key");
    }
    assert_eq!(index(catalog, Removed, 60, 60).await.len(), 1);
    assert_eq!(index(catalog, Removed, 61, 99).await, []);
    assert_eq!(index(catalog, Removed, 0, 59).await, []);
}

async fn the_index_is_paged_in_order(catalog: &dyn Catalog) {
    let mut expected = BTreeSet::new();
    for n in 0..60_i64 {
        let (original, copy) = (format!("k{}", n % 4), format!("c{:02}", (n * 37) % 60));
        put(catalog, &original, &row(&copy)).await;
        apply(catalog, &original, &copy, disown(100 + n % 5, Reason::Removed)).await;
        expected.insert((100 + n % 5, original.clone(), Some(copy)));
        let tombstone = Tombstone { order: order("5"), time: UnixMs(1), noted_at: UnixMs(n % 5), floating: false };
        assert!(catalog.bury(&key(&format!("gone{n}")), &tombstone).await.expect(WORKS));
    }
    for (what, all) in [(Indexed::Disowned, 60), (Indexed::Removed, 60), (Indexed::Surplus, 0)] {
        for limit in [1, 7, 59, 60, 61] {
            let mut found = Vec::new();
            let mut query = IndexQuery { what, from: UnixMs(0), until: UnixMs(999), after: None, limit };
            loop {
                let page = catalog.index(&query).await.expect(WORKS);
                assert!(page.items.len() <= limit);
                found.extend(page.items);
                let Some(next) = page.next else { break };
                query.after = Some(next);
            }
            assert!(found.is_sorted() && found.len() == all, "{what:?} by {limit}: {} entries", found.len());
            if what == Indexed::Disowned {
                assert!(found.into_iter().map(shown).eq(expected.iter().cloned()));
            }
        }
    }
}

async fn same_totals(catalog: &dyn Catalog, expected: Totals) {
    let totals = catalog.totals().await.expect(WORKS);
    if !totals.estimated {
        assert_eq!(totals, expected);
    }
}

async fn totals_are_kept(catalog: &dyn Catalog) {
    let expect = |live_keys, active, disowned, bytes| {
        same_totals(catalog, Totals { live_keys, active, disowned, bytes, estimated: false })
    };
    expect(0, 0, 0, 0).await;
    put(catalog, "a", &row("1")).await;
    put(catalog, "a", &row("1")).await;
    expect(1, 1, 0, 7).await;
    put(catalog, "a", &row("2")).await;
    put(catalog, "b", &CopyRow { size: 100, ..row("1") }).await;
    expect(2, 3, 0, 114).await;
    apply(catalog, "a", "1", disown(5, Reason::Removed)).await;
    put(catalog, "a", &row("1")).await;
    expect(2, 2, 1, 114).await;
    apply(catalog, "a", "2", RowSet::Due { at: Some(UnixMs(9)) }).await;
    apply(catalog, "a", "2", RowSet::Raised { order: order("9") }).await;
    expect(2, 2, 1, 114).await;
    apply(catalog, "a", "2", disown(5, Reason::Removed)).await;
    expect(1, 1, 2, 114).await;
    assert_eq!(change(catalog, "b", "1", &Rev::from("?"), RowSet::Deleted).await, Changed::Refused);
    apply(catalog, "a", "1", RowSet::Deleted).await;
    expect(1, 1, 1, 107).await;
    put(catalog, "a", &row("3")).await;
    expect(2, 2, 1, 114).await;
    apply(catalog, "a", "3", RowSet::Deleted).await;
    apply(catalog, "b", "1", RowSet::Deleted).await;
    expect(0, 0, 1, 7).await;

    // Both rows of a key in one batch: it stops being live once.
    put(catalog, "c", &row("1")).await;
    put(catalog, "c", &row("2")).await;
    let mut changes = Vec::new();
    for copy in ["1", "2"] {
        let if_rev = there(catalog, "c", copy).await.rev;
        changes.push(RowChange { id: id("c", copy), if_rev, set: disown(1, Reason::Removed) });
    }
    expect(1, 2, 1, 21).await;
    assert!(catalog.change(&changes).await.iter().all(|outcome| matches!(outcome, Ok(Changed::Applied(_)))));
    expect(0, 0, 3, 21).await;
}

async fn the_state_is_remembered(catalog: &dyn Catalog) {
    let set = |change| async move { catalog.set_state(change).await.expect(WORKS) };
    let mut state = PolicyState::default();
    assert_eq!(catalog.state().await.expect(WORKS), state);
    set(StateChange::Cleaned(UnixMs(1))).await;
    set(StateChange::Reconciled(UnixMs(2), 3)).await;
    let trip = Trip { at: UnixMs(4), removed: 21, live: 50 };
    set(StateChange::Trip(trip)).await;
    state = PolicyState {
        tripped: Some(trip),
        released_at: None,
        cleaned_at: Some(UnixMs(1)),
        reconciled: Some((UnixMs(2), 3)),
    };
    assert_eq!(catalog.state().await.expect(WORKS), state);
    set(StateChange::Trip(Trip { at: UnixMs(5), removed: 99, live: 1 })).await;
    assert_eq!(catalog.state().await.expect(WORKS), state, "tripped already: it stays as it is");
    set(StateChange::Release(UnixMs(6))).await;
    set(StateChange::Cleaned(UnixMs(7))).await;
    set(StateChange::Reconciled(UnixMs(8), 0)).await;
    state = PolicyState {
        tripped: None,
        released_at: Some(UnixMs(6)),
        cleaned_at: Some(UnixMs(7)),
        reconciled: Some((UnixMs(8), 0)),
    };
    assert_eq!(catalog.state().await.expect(WORKS), state);
    let trip = Trip { at: UnixMs(9), removed: 1, live: 0 };
    set(StateChange::Trip(trip)).await;
    let state = PolicyState { tripped: Some(trip), ..state };
    assert_eq!(catalog.state().await.expect(WORKS), state, "it can trip again");
}

async fn leases_exclude(catalog: &dyn Catalog) {
    let lease = |name: &'static str, holder: &'static str, now, until| async move {
        catalog.lease(name, holder, UnixMs(now), UnixMs(until)).await.expect(WORKS)
    };
    assert!(lease("clean", "a", 0, 100).await);
    assert!(!lease("clean", "b", 99, 200).await, "another holds it");
    assert!(lease("clean", "a", 50, 150).await, "the holder renews");
    assert!(!lease("clean", "b", 149, 200).await);
    assert!(lease("reconcile", "b", 0, 100).await, "another name");
    assert!(lease("clean", "b", 150, 250).await, "it has run out");
    assert!(!lease("clean", "a", 200, 300).await);
    catalog.unlease("clean", "a").await.expect(WORKS);
    assert!(!lease("clean", "c", 200, 300).await, "only the holder gives it back");
    catalog.unlease("clean", "b").await.expect(WORKS);
    assert!(lease("clean", "c", 200, 300).await);
    let holders = ["d", "e", "f", "g", "h", "i", "j", "k"];
    let taken = join_all(holders.map(|holder| lease("race", holder, 0, 10))).await;
    assert_eq!(taken.into_iter().filter(|taken| *taken).count(), 1, "of many at once, one gets it");
}

async fn listed(keys: &dyn CatalogKeys, prefix: &str, after: Option<&str>, limit: usize) -> Vec<String> {
    let mut found = Vec::new();
    let mut after = after.map(key);
    loop {
        let page = keys.keys(prefix, after.as_ref(), limit).await.expect(WORKS);
        assert!(page.items.len() <= limit);
        found.extend(page.items.iter().map(ToString::to_string));
        match page.next {
            Some(next) => after = Some(next),
            None => return found,
        }
    }
}

async fn keys_are_listed_in_order(catalog: &dyn Catalog, keys: &dyn CatalogKeys) {
    assert_eq!(listed(keys, "", None, 10).await, Vec::<String>::new());
    let mut all = ["a", "a/", "a/b", "a.b", "a+", "A", "b", "ab", "é", "\u{10ffff}", "a/\u{10ffff}z", "a%", "a_", "🦀"];
    for original in all {
        for copy in ["1", "2", "3"] {
            put(catalog, original, &row(copy)).await;
        }
    }
    all.sort_unstable();
    for limit in [1, 2, 5, 13, 14, 15, 1_000] {
        assert_eq!(listed(keys, "", None, limit).await, all, "in pages of {limit}");
        for prefix in ["a", "a/", "a%", "b", "zz", "é", "\u{10ffff}"] {
            let under: Vec<&str> = all.into_iter().filter(|key| key.starts_with(prefix)).collect();
            assert_eq!(listed(keys, prefix, None, limit).await, under, "under {prefix} in pages of {limit}");
        }
    }
    for after in ["A", "a", "a/b", "a/c", "zzz", "\u{10ffff}"] {
        let later: Vec<&str> = all.into_iter().filter(|key| *key > after).collect();
        assert_eq!(listed(keys, "", Some(after), 3).await, later, "after {after}");
        let under: Vec<&str> = later.into_iter().filter(|key| key.starts_with("a/")).collect();
        assert_eq!(listed(keys, "a/", Some(after), 3).await, under, "under a/, after {after}");
    }
}

async fn keys_without_rows_are_not_listed(catalog: &dyn Catalog, keys: &dyn CatalogKeys) {
    put(catalog, "disowned", &row("c")).await;
    apply(catalog, "disowned", "c", disown(1, Reason::Removed)).await;
    put(catalog, "gone", &row("c")).await;
    apply(catalog, "gone", "c", RowSet::Deleted).await;
    let tombstone = Tombstone { order: order("5"), time: UnixMs(1), noted_at: UnixMs(1), floating: false };
    for buried in ["gone", "only buried"] {
        assert!(catalog.bury(&key(buried), &tombstone).await.expect(WORKS));
    }
    assert_eq!(listed(keys, "", None, 10).await, ["disowned"]);
}
