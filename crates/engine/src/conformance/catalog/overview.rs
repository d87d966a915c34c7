//! What is asked of a catalog as a whole, not of one key: the index by time, totals, keys, the policy's state and leases.
//!
//! Run with the checks of rows by `conformance/catalog.rs`; no state of its own. Laws shown: I9 (pages, no scans).

use super::{WORKS, apply, change, disown, id, index, key, order, put, row, same_totals, shown, there};
use crate::ports::catalog::{
    Catalog, CatalogKeys, Changed, IndexQuery, Indexed, PolicyState, RowChange, RowSet, StateChange, Totals, Trip,
};
use futures_util::future::join_all;
use lifecycle::ids::Rev;
use lifecycle::row::{CopyRow, Reason, Tombstone};
use lifecycle::time::UnixMs;
use std::collections::BTreeSet;

pub(super) async fn the_index_follows_the_rows(catalog: &dyn Catalog) {
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

pub(super) async fn the_index_is_paged_in_order(catalog: &dyn Catalog) {
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

pub(super) async fn totals_are_kept(catalog: &dyn Catalog) {
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

pub(super) async fn the_state_is_remembered(catalog: &dyn Catalog) {
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

pub(super) async fn leases_exclude(catalog: &dyn Catalog) {
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

pub(super) async fn keys_are_listed_in_order(catalog: &dyn Catalog, keys: &dyn CatalogKeys) {
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

pub(super) async fn keys_without_rows_are_not_listed(catalog: &dyn Catalog, keys: &dyn CatalogKeys) {
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
