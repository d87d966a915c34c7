//! Reconcile: repairs what crashes left, rebuilds a lost catalog, and believes no listing more than a look.

use crate::world::{GRACE, Source, World, keep, key, rules};
use engine::error::ErrorKind;
use engine::flows::clean::clean;
use engine::flows::handle::handle;
use engine::flows::reconcile::{Orphans, reconcile};
use engine::limits::ORPHAN_AGE;
use engine::ports::catalog::CatalogRead;
use engine::ports::clock::Clock;
use engine::ports::objects::{Attributes, Onto};
use engine::ports::progress::Silent;
use engine::report::Report;
use engine::wrap::faults::Faults;
use engine::wrap::tap::Fate;
use lifecycle::ids::Rev;
use lifecycle::row::{CopyRow, Reason};
use lifecycle::time::SpanMs;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

async fn reconciled(world: &World) -> Report {
    let report = reconcile(&world.policy, Orphans::OfAge, &Silent, &CancellationToken::new()).await.unwrap();
    assert_eq!(report.counted("gap"), 0, "{report:?}");
    report
}

fn of_age(world: &World) {
    world.advance(SpanMs(ORPHAN_AGE.0 + 1));
}

#[tokio::test]
async fn what_is_right_is_read_and_not_written() {
    let world = World::new(Source::Versioned, keep(2));
    for name in ["a", "a+b", "a.b", "a/b", "b"] {
        for content in ["one", "two", "three"] {
            world.protect(name, content).await;
        }
    }
    world.remove("b").await;
    of_age(&world);
    world.recorder.clear();
    let report = reconciled(&world).await;
    assert_eq!((report.counted("keys"), report.counted("differences")), (5, 0), "{report:?}");
    assert_eq!(world.recorder.effects(), ["catalog.set_state reconciled"]);
    assert_eq!(world.memory.catalog.state().await.unwrap().reconciled, Some((world.memory.clock.now(), 0)));
}

#[tokio::test]
async fn objects_that_were_there_before_the_policy_get_their_copies() {
    let world = World::new(Source::Versioned, rules());
    for name in ["a", "b", "c"] {
        world.put(name, name);
    }
    let report = reconciled(&world).await;
    assert_eq!((report.counted("differences"), report.counted("settled")), (3, 3));
    assert_eq!(world.active("b"), ["b"]);
    world.assert_laws("after the first reconcile");
}

#[tokio::test]
async fn a_removal_that_nobody_told_of_is_noticed_and_its_grace_begins() {
    let world = World::new(Source::Versioned, rules());
    world.protect("a", "one").await;
    world.delete("a");
    of_age(&world);
    reconciled(&world).await;
    assert_eq!(world.disowned("a"), [("one".to_owned(), Reason::Removed)]);
    clean(&world.policy, &CancellationToken::new()).await.unwrap();
    assert_eq!(world.copies(), 1);
    world.advance(GRACE);
    clean(&world.policy, &CancellationToken::new()).await.unwrap();
    assert_eq!(world.copies(), 0);
}

#[tokio::test]
async fn bytes_without_a_row_are_adopted_once_no_handler_can_be_at_work_on_them() {
    let world = World::new(Source::Versioned, rules());
    world.put("a", "zero");
    let event = world.put("a", "one");
    world.faults.at("catalog.upsert", 1, Fate::FailBefore(ErrorKind::Unavailable));
    world.try_handle(&event).await.unwrap_err();
    assert_eq!((world.copies(), world.rows("a").len()), (1, 0));
    world.delete("a");
    let report = reconciled(&world).await;
    assert_eq!((report.counted("young"), report.counted("adopted")), (1, 0));
    of_age(&world);
    let report = reconciled(&world).await;
    assert_eq!(report.counted("adopted"), 1);
    assert_eq!(world.disowned("a").len(), 1, "its original is gone");
    world.assert_laws("after the adoption");
}

#[tokio::test]
async fn a_row_without_bytes_is_disowned_and_the_current_content_copied_again() {
    let world = World::new(Source::Versioned, rules());
    world.protect("a", "one").await;
    let row = world.rows("a").remove(0);
    world.memory.destination.delete_object(row.copy_key.object());
    of_age(&world);
    let report = reconciled(&world).await;
    world.logs.expect("bytes are missing");
    assert_eq!(report.counted("bytes-missing"), 1);
    // An item, of which a report holds so many; of remarks it holds all.
    assert_eq!((report.done[0].object.as_str(), report.notes.len()), ("a", 0));
    assert_eq!(world.active("a"), ["one"]);
    world.advance(GRACE);
    clean(&world.policy, &CancellationToken::new()).await.unwrap();
    world.assert_laws("after reconcile and clean");
}

#[tokio::test]
async fn a_surplus_copy_that_a_crash_left_is_purged_without_waiting_for_the_grace() {
    let world = World::new(Source::Versioned, keep(1));
    world.protect("a", "one").await;
    let event = world.put("a", "two");
    world.faults.at("purger.purge", 1, Fate::FailBefore(ErrorKind::Unavailable));
    world.try_handle(&event).await.unwrap_err();
    assert_eq!(world.disowned("a"), [("one".to_owned(), Reason::BeyondKeep)]);
    reconciled(&world).await;
    assert_eq!((world.disowned("a"), world.copies()), (vec![], 1));
    world.assert_laws("after reconcile");
}

#[tokio::test]
async fn a_listing_that_fails_ends_the_run_and_nothing_is_taken_for_deleted() {
    for (call, kind) in [
        ("source.list", ErrorKind::Missing),
        ("source.list", ErrorKind::AccessDenied("ListBucket".to_owned())),
        ("source.list", ErrorKind::Unavailable),
        ("copies.list", ErrorKind::Missing),
        ("copies.list", ErrorKind::Unavailable),
        ("keys.keys", ErrorKind::Unavailable),
    ] {
        let world = World::new(Source::Versioned, rules());
        world.protect("a", "one").await;
        of_age(&world);
        let partition = world.partition("a");
        world.faults.at(call, 1, Fate::FailBefore(kind.clone()));
        let result = reconcile(&world.policy, Orphans::OfAge, &Silent, &CancellationToken::new()).await;
        assert!(result.is_err(), "{call} {kind:?}");
        assert_eq!((world.partition("a"), world.copies()), (partition, 1), "{call} {kind:?}");
        assert_eq!(world.memory.catalog.state().await.unwrap().reconciled, None);
    }
}

#[tokio::test]
async fn one_key_that_fails_is_a_gap_and_the_others_go_on() {
    let world = World::new(Source::Versioned, rules());
    for name in ["a", "b"] {
        world.put(name, name);
    }
    world.faults.at("copier.copy", 1, Fate::FailBefore(ErrorKind::Unavailable));
    let report = reconcile(&world.policy, Orphans::OfAge, &Silent, &CancellationToken::new()).await.unwrap();
    assert_eq!((report.counted("gap"), report.failures, report.failed[0].object.as_str()), (1, 1, "a"));
    assert_eq!(world.active("b"), ["b"]);
    reconciled(&world).await;
    assert_eq!(world.active("a"), ["a"]);
}

#[tokio::test]
async fn a_lost_catalog_is_rebuilt_from_the_destination() {
    let world = World::new(Source::Versioned, keep(2));
    let long = "ß".repeat(512);
    for name in ["a", "b/c", "gone", long.as_str()] {
        for content in ["one", "two", "three"] {
            world.protect(name, content).await;
        }
    }
    world.remove("gone").await;
    let names = |world: &World, active: bool| -> Vec<_> {
        let rows = world.memory.catalog.contents().into_values().flat_map(|partition| partition.rows);
        rows.filter(|row| row.is_active() == active).map(|row| row.copy_key).collect()
    };
    let plain = |rows: Vec<CopyRow>| -> Vec<CopyRow> {
        rows.into_iter().map(|row| CopyRow { rev: Rev::from(""), etag: "".into(), ..row }).collect()
    };
    let before = (names(&world, true), names(&world, false), plain(world.rows("a")));
    world.memory.catalog.wipe();
    of_age(&world);
    let report = reconciled(&world).await;
    assert_eq!(report.counted("adopted"), 8);
    assert_eq!((names(&world, true), names(&world, false), plain(world.rows("a"))), before);
    world.assert_laws("after the rebuild");
}

#[tokio::test]
async fn foreign_objects_in_the_destination_are_counted_and_left_alone() {
    let world = World::new(Source::Versioned, rules());
    world.protect("a", "one").await;
    for name in ["notes.txt", ".afterimage/catalog", "a.b-c"] {
        let foreign = key(name);
        world.memory.destination.store(&foreign, "foreign".into(), Attributes::default(), &Onto::Anything);
    }
    of_age(&world);
    let report = reconciled(&world).await;
    assert_eq!((report.counted("unexplained"), report.counted("differences")), (2, 0), "{report:?}");
    assert_eq!(world.copies(), 4);
}

#[tokio::test]
async fn a_cancelled_run_says_so_and_leaves_no_date() {
    let world = World::new(Source::Versioned, rules());
    world.protect("a", "one").await;
    let cancel = CancellationToken::new();
    cancel.cancel();
    let report = reconcile(&world.policy, Orphans::OfAge, &Silent, &cancel).await.unwrap();
    assert!(report.cancelled);
    assert_eq!(world.memory.catalog.state().await.unwrap().reconciled, None);
}

/// The start of the process is what `serve` gives: its own handlers are the only ones.
#[tokio::test]
async fn at_start_up_everything_older_than_the_process_is_adopted_at_once() {
    let world = World::new(Source::Versioned, rules());
    let event = world.put("a", "one");
    world.faults.at("catalog.upsert", 1, Fate::FailBefore(ErrorKind::Unavailable));
    world.try_handle(&event).await.unwrap_err();
    world.advance(SpanMs(1));
    let started = Orphans::Before(world.memory.clock.now());
    let report = reconcile(&world.policy, started, &Silent, &CancellationToken::new()).await.unwrap();
    assert_eq!((report.counted("adopted"), report.counted("gap")), (1, 0));
    assert_eq!(world.active("a"), ["one"]);
}

#[tokio::test]
async fn a_row_that_changed_after_the_listing_is_not_disowned() {
    let world = World::new(Source::Versioned, rules());
    let event = world.protect("a", "one").await;
    let row = world.rows("a").remove(0);
    world.memory.destination.delete_object(row.copy_key.object());
    of_age(&world);
    // Both heads say 404; then a redelivery makes the copy again.
    let (policy, catalog) =
        (world.memory.policy(engine::policy::Mode::Copies, rules()), Arc::clone(&world.memory.catalog));
    let other = async move {
        handle(&policy, &event.key, std::slice::from_ref(&event)).await.unwrap();
        assert_eq!(catalog.totals().await.unwrap().active, 1);
    };
    world.faults.at("catalog.change", 1, Fate::First(Box::pin(other)));
    reconciled(&world).await;
    world.logs.expect("bytes are missing");
    assert_eq!(world.active("a"), ["one"]);
    assert_eq!(world.disowned("a"), []);
}

#[tokio::test]
async fn a_handler_slower_than_the_age_of_orphans_finds_its_bytes_adopted_and_nothing_is_lost_or_revived() {
    for (meanwhile, active) in [("nothing", vec!["one"]), ("overwritten", vec!["two"]), ("removed", vec![])] {
        let world = World::new(Source::Versioned, keep(1));
        let created = world.put("a", "one");
        let next = match meanwhile {
            "overwritten" => Some(world.put("a", "two")),
            "removed" => Some(world.delete("a")),
            _ => None,
        };
        let faults = Arc::new(Faults::default());
        let slow = world.policy_through(Arc::clone(&faults) as _);
        let (other, clock, cancel) = (world.policy.clone(), Arc::clone(&world.memory.clock), CancellationToken::new());
        let between_bytes_and_row = async move {
            clock.advance(SpanMs(ORPHAN_AGE.0 + 1));
            let report = reconcile(&other, Orphans::OfAge, &Silent, &cancel).await.unwrap();
            assert_eq!((report.counted("adopted"), report.counted("gap")), (1, 0));
            for event in next.as_slice() {
                handle(&other, &event.key, std::slice::from_ref(event)).await.unwrap();
            }
            clock.advance(GRACE);
            clean(&other, &cancel).await.unwrap();
        };
        faults.at("catalog.upsert", 1, Fate::First(Box::pin(between_bytes_and_row)));
        handle(&slow, &created.key, std::slice::from_ref(&created)).await.unwrap();
        assert_eq!(world.active("a"), active, "{meanwhile}");
        // A disowned row of bytes that are purged already goes with the next grace.
        world.advance(GRACE);
        clean(&world.policy, &CancellationToken::new()).await.unwrap();
        assert_eq!(world.copies(), active.len(), "{meanwhile}");
        world.assert_laws(meanwhile);
    }
}
