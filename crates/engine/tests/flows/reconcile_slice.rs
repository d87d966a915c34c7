//! Reconcile in slices: however often it is stopped, it ends where the whole comparison ends.

use crate::world::{GRACE, Source, World, keep, key, rules};
use engine::error::ErrorKind;
use engine::flows::reconcile::{Orphans, fresh_report};
use engine::flows::reconcile_slice::{Checkpoint, reconcile_slice};
use engine::limits::{KEYS_IN_FLIGHT, LIST_PAGE, ORPHAN_AGE, WINDOW_PAGES};
use engine::policy::{Mode, Policy};
use engine::ports::catalog::CatalogRead;
use engine::ports::clock::Clock;
use engine::ports::objects::{Attributes, Onto};
use engine::report::Report;
use engine::wrap::tap::{Call, Fate, Probe};
use futures_util::FutureExt;
use lifecycle::copy_key::CopyName;
use lifecycle::ids::CopyKey;
use lifecycle::order::Order;
use lifecycle::row::{CopyRow, Reason};
use lifecycle::time::SpanMs;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio_util::sync::CancellationToken;

/// Cancels at the how-many-th reading of a key.
struct StopAt {
    left: AtomicUsize,
    cancel: Mutex<CancellationToken>,
}

impl Probe for StopAt {
    fn fate(&self, call: &Call) -> Fate {
        if call.name() == "catalog.partition" && self.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.cancel.lock().unwrap().cancel();
        }
        Fate::Pass
    }
}

/// Compares all in slices of so many readings of keys; how many slices it took, and what all of them counted.
async fn sliced(world: &World, keys: bool, readings: usize) -> (usize, Report) {
    let stop = Arc::new(StopAt { left: AtomicUsize::new(0), cancel: Mutex::default() });
    let policy = world.policy_through(Arc::clone(&stop) as _);
    let policy = Policy { keys: policy.keys.clone().filter(|_| keys), ..policy };
    let (mut checkpoint, mut all) = (Checkpoint::default(), Report::of("reconcile"));
    for slice in 1.. {
        let cancel = CancellationToken::new();
        stop.left.store(readings, Ordering::Relaxed);
        *stop.cancel.lock().unwrap() = cancel.clone();
        let before = checkpoint.clone();
        let mut report = fresh_report();
        reconcile_slice(&policy, Orphans::OfAge, &mut checkpoint, &mut report, &cancel).await.unwrap();
        let more = report.cancelled;
        all.absorb(report);
        if !more {
            all.cancelled = false;
            return (slice, all);
        }
        assert!(slice < 10_000 && (readings < 100 || checkpoint != before), "it does not come forward: {checkpoint:?}");
    }
    unreachable!("it returns")
}

/// Keys of which one is the beginning of another: their copies lie among each other.
fn names() -> Vec<String> {
    let plain = ["a", "a!b", "a+b", "a-b", "a.2", "a.b", "a.b.c", "a/b", "ab", "b", "gone", "gone.1", "zz/é", "zz/ß"];
    let long = ["x".repeat(1_000), format!("{}y", "x".repeat(999)), "ß".repeat(512)];
    plain.into_iter().map(str::to_owned).chain(long).collect()
}

async fn filled() -> World {
    let world = World::new(Source::Versioned, keep(2));
    for name in names() {
        for content in ["one", "two", "three"] {
            world.protect(&name, content).await;
        }
    }
    for name in ["gone", "gone.1"] {
        world.remove(name).await;
    }
    world
}

fn by_key(world: &World) -> BTreeMap<String, (Vec<CopyKey>, Vec<CopyKey>)> {
    let names = |rows: &[CopyRow], active| -> Vec<CopyKey> {
        let mut names: Vec<_> =
            rows.iter().filter(|row| row.is_active() == active).map(|row| row.copy_key.clone()).collect();
        names.sort();
        names
    };
    let contents = world.memory.catalog.contents().into_iter();
    let rows = contents.filter(|(_, partition)| !partition.rows.is_empty());
    rows.map(|(key, p)| (key.to_string(), (names(&p.rows, true), names(&p.rows, false)))).collect()
}

#[tokio::test]
async fn what_is_right_is_read_once_for_each_key_and_not_written_however_it_is_cut() {
    for (keys, readings) in [(true, 1), (false, 1), (false, 3), (true, 1_000)] {
        let world = filled().await;
        for n in 0..6 * KEYS_IN_FLIGHT {
            world.protect(&format!("many/{n}"), "one").await;
        }
        world.advance(SpanMs(ORPHAN_AGE.0 + 1));
        world.recorder.clear();
        let (slices, report) = sliced(&world, keys, readings).await;
        let all = 17 + 6 * KEYS_IN_FLIGHT as u64;
        assert_eq!((report.counted("keys"), report.counted("differences")), (all, 0), "{report:?}");
        assert_eq!(slices > 5, readings < 4, "{slices} slices");
        assert_eq!(world.memory.catalog.state().await.unwrap().reconciled, Some((world.memory.clock.now(), 0)));
    }
}

#[tokio::test]
async fn a_lost_catalog_is_rebuilt_however_it_is_cut() {
    // Where a key is cut off from some of its copies it may get one more, by a look: the older twin is surplus then.
    for readings in [1_000, 40, 3, 2] {
        let world = filled().await;
        let before = by_key(&world);
        world.memory.catalog.wipe();
        world.advance(SpanMs(ORPHAN_AGE.0 + 1));
        let (_, report) = sliced(&world, false, readings).await;
        assert_eq!((report.counted("gap"), report.failures), (0, 0), "{report:?}");
        world.assert_laws(&format!("after slices of {readings}"));
        let after = by_key(&world);
        assert_eq!(after.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
        if readings == 1_000 {
            assert_eq!(after, before);
        }
        for name in names() {
            let gone = name.starts_with("gone");
            let expected: &[&str] = if gone { &[] } else { &["three", "two"] };
            assert_eq!(world.active(&name), expected, "{name} after slices of {readings}");
        }
    }
}

#[tokio::test]
async fn bytes_that_are_missing_and_removals_that_nobody_told_of_are_found() {
    for readings in [1, 1_000] {
        let world = filled().await;
        let row = world.rows("a").remove(0);
        world.memory.destination.delete_object(row.copy_key.object());
        world.delete("a.b");
        world.advance(SpanMs(ORPHAN_AGE.0 + 1));
        let (_, report) = sliced(&world, false, readings).await;
        world.logs.expect("bytes are missing");
        assert_eq!(report.counted("bytes-missing"), 1);
        assert_eq!(world.active("a"), ["three", "two"]);
        assert_eq!(world.disowned("a.b").iter().map(|(_, why)| *why).collect::<Vec<_>>(), [Reason::Removed; 2]);
        world.advance(GRACE);
        engine::flows::clean::clean(&world.policy, &CancellationToken::new()).await.unwrap();
        world.assert_laws("after the clean");
    }
}

#[tokio::test]
async fn bytes_without_a_row_among_the_copies_of_another_window_are_adopted() {
    let world = World::new(Source::Versioned, rules());
    world.protect("a", "one").await;
    // `a.2026…` lies behind all of these.
    let many = WINDOW_PAGES * LIST_PAGE + 10;
    for n in 0..many {
        let other = key(&format!("a.0/{n:06}"));
        let name = CopyName { order: Order::from_sequencer("01").unwrap(), ..name_of(&world.rows("a")[0]) };
        let (copy, _) = name.copy_key(&other);
        world.memory.destination.store(copy.object(), "x".into(), Attributes::default(), &Onto::Anything);
    }
    let event = world.put("a", "two");
    world.faults.at("catalog.upsert", 1, Fate::FailBefore(ErrorKind::Unavailable));
    world.try_handle(&event).await.unwrap_err();
    world.put("a", "three");
    world.advance(SpanMs(ORPHAN_AGE.0 + 1));
    let (slices, report) = sliced(&world, false, usize::MAX).await;
    assert_eq!((slices, report.counted("gap")), (1, 0));
    assert_eq!(report.counted("adopted"), many as u64 + 1);
    assert_eq!(world.active("a").len(), 3, "the one between is found, too: {:?}", world.rows("a"));
}

fn name_of(row: &CopyRow) -> CopyName {
    lifecycle::copy_key::parse(row.copy_key.object()).unwrap().name
}

#[tokio::test]
async fn a_listing_that_fails_ends_the_slice_and_the_checkpoint_keeps_what_was_compared() {
    let world = filled().await;
    world.advance(SpanMs(ORPHAN_AGE.0 + 1));
    let mut checkpoint = Checkpoint { after: Some(key("ab")), gap: 2, under_way: None };
    let before = checkpoint.clone();
    for call in ["source.list", "copies.list", "keys.keys"] {
        world.faults.at(call, 1, Fate::FailBefore(ErrorKind::Unavailable));
        let cancel = CancellationToken::new();
        let mut report = fresh_report();
        let result = reconcile_slice(&world.policy, Orphans::OfAge, &mut checkpoint, &mut report, &cancel).await;
        assert!(result.is_err() && report.cancelled, "{call}");
        assert_eq!(checkpoint, before, "{call}");
    }
    assert_eq!(world.memory.catalog.state().await.unwrap().reconciled, None);
    let cancel = CancellationToken::new();
    let mut report = fresh_report();
    reconcile_slice(&world.policy, Orphans::OfAge, &mut checkpoint, &mut report, &cancel).await.unwrap();
    let at_the_end = Some((world.memory.clock.now(), 2));
    assert_eq!(world.memory.catalog.state().await.unwrap().reconciled, at_the_end, "what earlier slices left counts");
}

#[tokio::test]
async fn a_mirror_is_made_equal_in_slices_and_what_is_ours_in_it_is_left_alone() {
    for keys in [true, false] {
        let world = World::in_mode(Mode::Mirror, Source::Versioned, rules());
        for name in ["a", "b", "c"] {
            world.protect(name, name).await;
        }
        world.put("b", "changed");
        world.delete("c");
        world.put("d", "new");
        let ours = key(".afterimage/journal/1");
        world.memory.destination.store(&ours, "{}".into(), Attributes::default(), &Onto::Anything);
        let (_, report) = sliced(&world, keys, 1_000).await;
        assert_eq!((report.counted("keys"), report.counted("gap")), (4, 0), "{report:?}");
        let contents = world.memory.destination.contents();
        let there: Vec<&str> = contents.keys().map(|key| key.as_str()).collect();
        assert_eq!(there, [".afterimage/journal/1", "a", "b", "d"]);
    }
}

/// A copy that takes longer than a function may: nothing behind it would ever be compared.
#[tokio::test]
async fn a_key_that_outlasts_its_slices_is_passed_over_and_told_of() {
    let world = World::new(Source::Versioned, rules());
    for name in ["a", "large", "z"] {
        world.put(name, name);
    }
    let copies = |n: usize| world.faults.at("copier.copy", n, Fate::First(Box::pin(std::future::pending())));
    let mut checkpoint = Checkpoint::default();
    let cancel = CancellationToken::new();
    for (tries, call) in [(1, 2), (2, 1)] {
        copies(call);
        let mut report = fresh_report();
        let slice = reconcile_slice(&world.policy, Orphans::OfAge, &mut checkpoint, &mut report, &cancel);
        assert!(slice.now_or_never().is_none());
        assert!(report.cancelled);
        assert_eq!(checkpoint.under_way, Some((key("large"), tries)), "after {:?}", checkpoint.after);
    }
    let mut report = fresh_report();
    reconcile_slice(&world.policy, Orphans::OfAge, &mut checkpoint, &mut report, &cancel).await.unwrap();
    assert_eq!((report.counted("gap"), report.failures, report.cancelled), (1, 1, false), "{report:?}");
    assert_eq!((world.active("z"), world.active("large")), (vec!["z".to_owned()], vec![]));
    assert_eq!(checkpoint.under_way, None);
}

#[tokio::test]
async fn what_failed_before_a_slice_was_dropped_is_told() {
    let world = World::new(Source::Versioned, rules());
    for name in ["a", "large"] {
        world.put(name, name);
    }
    world.faults.at("copier.copy", 1, Fate::FailBefore(ErrorKind::Unavailable));
    world.faults.at("copier.copy", 2, Fate::First(Box::pin(std::future::pending())));
    let (mut checkpoint, mut report) = (Checkpoint::default(), fresh_report());
    let cancel = CancellationToken::new();
    let slice = reconcile_slice(&world.policy, Orphans::OfAge, &mut checkpoint, &mut report, &cancel);
    assert!(slice.now_or_never().is_none());
    let failed: Vec<&str> = report.failed.iter().map(|failed| failed.object.as_str()).collect();
    assert_eq!((failed, report.counted("gap"), checkpoint.gap), (vec!["a"], 1, 1), "{report:?}");
}

/// The catalog cannot list its keys, and the copies lie beyond the window in which their original would be.
#[tokio::test]
async fn a_removal_is_noticed_by_copies_that_lie_in_another_window() {
    let world = World::new(Source::Versioned, rules());
    world.protect("a", "one").await;
    world.delete("a");
    // `a.2026…` lies behind all of these.
    for n in 0..=LIST_PAGE {
        world.put(&format!("a.0/{n:06}"), "x");
    }
    world.advance(SpanMs(ORPHAN_AGE.0 + 1));
    sliced(&world, false, usize::MAX).await;
    assert_eq!(world.disowned("a").len(), 1, "{:?}", world.rows("a"));
}
