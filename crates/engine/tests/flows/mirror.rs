//! A mirror: equal to the source after every event, conditional in every write, careful with what it deletes.

use crate::world::{Source, World, key, rules};
use engine::error::ErrorKind;
use engine::flows::clean::clean;
use engine::flows::mirror::mirror;
use engine::flows::reconcile::{Orphans, reconcile};
use engine::flows::release::release;
use engine::policy::Mode;
use engine::ports::catalog::CatalogRead;
use engine::ports::clock::Clock;
use engine::ports::objects::{Attributes, Onto};
use engine::ports::progress::Silent;
use engine::wrap::tap::Fate;
use lifecycle::breaker::BreakerRule;
use lifecycle::event::ObjectEvent;
use lifecycle::policy::Rules;
use lifecycle::time::SpanMs;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

fn world() -> World {
    World::in_mode(Mode::Mirror, Source::Versioned, rules())
}

fn mirrored(world: &World, name: &str) -> Option<String> {
    world.memory.destination.read(&key(name), None).as_ref().map(crate::world::text)
}

fn assert_equal(world: &World, context: &str) {
    let contents = |bucket: &engine::memory::bucket::MemoryBucket| -> BTreeMap<_, _> {
        bucket.contents().into_iter().map(|(key, stored)| (key, stored.bytes)).collect()
    };
    assert_eq!(contents(&world.memory.source), contents(&world.memory.destination), "{context}");
}

#[tokio::test]
async fn it_follows_puts_and_deletes() {
    let world = world();
    let names = ["plain", "with space", "a+b", "100%", "ü/ß/🦀", "a//b", "../up", "/lead", "trail/"];
    for name in names {
        world.protect(name, "one").await;
        world.protect(name, "two").await;
        assert_eq!(mirrored(&world, name).as_deref(), Some("two"), "{name}");
    }
    for name in &names[..4] {
        world.remove(name).await;
        assert_eq!(mirrored(&world, name), None, "{name}");
    }
    assert_equal(&world, "at the end");
}

#[tokio::test]
async fn events_in_any_order_end_equal() {
    let events =
        |world: &World| vec![world.put("a", "one"), world.delete("a"), world.put("a", "two"), world.delete("a")];
    for turn in 0..4 {
        let world = world();
        let mut events = events(&world);
        events.rotate_left(turn);
        world.handle_all(&events).await;
        assert_equal(&world, "removed at last");
        world.protect("a", "three").await;
        events.reverse();
        world.handle_all(&events).await;
        assert_equal(&world, "there at last");
    }
}

#[tokio::test]
async fn what_is_equal_costs_three_heads_a_query_and_no_write() {
    let world = world();
    let event = world.protect("a", "one").await;
    world.recorder.clear();
    world.handle(&event).await;
    assert_eq!(world.recorder.lines(), ["source.head a", "copies.head a", "catalog.partition a", "source.head a"]);
}

#[tokio::test]
async fn a_source_that_changes_in_the_middle_is_looked_at_again() {
    let world = world();
    let event = world.put("a", "one");
    let source = Arc::clone(&world.memory.source);
    let other = async move {
        source.put_object(&key("a"), "two", Attributes::default());
    };
    world.faults.at("source.head", 2, Fate::First(Box::pin(other)));
    world.handle(&event).await;
    assert_equal(&world, "although no event of the second put has come");
}

#[tokio::test]
async fn a_destination_that_changes_in_the_middle_is_not_overwritten_blindly() {
    let world = world();
    world.protect("a", "one").await;
    let event = world.put("a", "two");
    let destination = Arc::clone(&world.memory.destination);
    let other = async move {
        destination.store(&key("a"), "by another handler".into(), Attributes::default(), &Onto::Anything);
    };
    world.faults.at("copier.copy", 1, Fate::First(Box::pin(other)));
    world.recorder.clear();
    world.handle(&event).await;
    assert_equal(&world, "after the conflict");
    assert_eq!(world.recorder.counts()["copier.copy"], 2, "the first was refused");
}

#[tokio::test]
async fn an_unknown_source_deletes_nothing() {
    let world = world();
    world.protect("a", "one").await;
    let event = world.delete("a");
    for kind in [ErrorKind::Missing, ErrorKind::AccessDenied("HEAD".to_owned()), ErrorKind::Unavailable] {
        world.faults.at("source.head", 1, Fate::FailBefore(kind.clone()));
        world.try_handle(&event).await.unwrap_err();
        assert_eq!(mirrored(&world, "a").as_deref(), Some("one"), "{kind:?}");
    }
    world.handle(&event).await;
    assert_eq!(mirrored(&world, "a"), None);
}

#[tokio::test]
async fn deletes_are_journalled_before_and_rows_show_what_is_mirrored() {
    let world = world();
    world.protect("a", "one").await;
    assert_eq!(world.rows("a").len(), 1);
    world.recorder.clear();
    world.remove("a").await;
    let effects = world.recorder.effects();
    let place = |text: &str| effects.iter().position(|line| line == text).unwrap_or_else(|| panic!("{effects:?}"));
    assert!(place("catalog.bury a") < place("journal.append mirror-delete"));
    assert!(place("journal.append mirror-delete") < place("purger.purge 1"));
    assert_eq!(world.rows("a").len(), 0);
}

#[tokio::test]
async fn a_mass_deletion_trips_the_breaker_and_the_rest_is_deleted_after_its_release() {
    let breaker = BreakerRule { window: SpanMs::hours(1), deletes: 3, share: 0.2 };
    let world = World::in_mode(Mode::Mirror, Source::Versioned, Rules { breaker: Some(breaker), ..rules() });
    for n in 0..8 {
        world.protect(&format!("k{n}"), "content").await;
    }
    for n in 0..6 {
        world.remove(&format!("k{n}")).await;
    }
    world.logs.expect("the breaker tripped");
    assert_eq!(world.copies(), 8 - 3, "three deletes are fine, the fourth trips");
    assert!(world.memory.catalog.state().await.unwrap().tripped.is_some());
    clean(&world.policy, &CancellationToken::new()).await.unwrap();
    assert_eq!(world.copies(), 5);

    world.advance(SpanMs(1));
    release(&world.policy, "alice").await.unwrap();
    world.advance(SpanMs(1));
    let report = reconcile(&world.policy, Orphans::OfAge, &Silent, &CancellationToken::new()).await.unwrap();
    assert_eq!(report.counted("gap"), 0);
    assert_equal(&world, "after release and reconcile");
}

/// What a person has released is deleted, however much it is; what is removed later counts anew.
#[tokio::test]
async fn a_release_lets_everything_go_that_was_held() {
    let breaker = BreakerRule { window: SpanMs::hours(1), deletes: 3, share: 0.2 };
    let world = World::in_mode(Mode::Mirror, Source::Versioned, Rules { breaker: Some(breaker), ..rules() });
    for n in 0..20 {
        world.protect(&format!("k{n:02}"), "content").await;
    }
    for n in 0..15 {
        world.remove(&format!("k{n:02}")).await;
    }
    world.logs.expect("the breaker tripped");
    assert!(world.copies() > 10, "{}", world.copies());
    world.advance(SpanMs(1));
    release(&world.policy, "alice").await.unwrap();
    world.advance(SpanMs(1));
    reconcile(&world.policy, Orphans::OfAge, &Silent, &CancellationToken::new()).await.unwrap();
    assert_equal(&world, "after release and reconcile");
    for n in 0..5 {
        world.protect(&format!("k{n:02}"), "again").await;
    }
    for n in 0..5 {
        world.remove(&format!("k{n:02}")).await;
    }
    world.logs.expect("the breaker tripped");
    assert!(world.copies() > 5, "{}", world.copies());
}

#[tokio::test]
async fn a_source_that_never_rests_is_put_back_after_the_limit() {
    let world = world();
    world.put("a", "zero");
    for round in 1..=2 * engine::limits::MIRROR_ROUNDS {
        let source = Arc::clone(&world.memory.source);
        let other = async move {
            source.put_object(&key("a"), format!("{round}"), Attributes::default());
        };
        world.faults.at("source.head", round, Fate::First(Box::pin(other)));
    }
    mirror(&world.policy, &key("a")).await.unwrap_err();
    mirror(&world.policy, &key("a")).await.unwrap();
    assert_equal(&world, "once it rests");
}

/// How many rows the catalog has of that key.
async fn rows(world: &World, name: &str) -> usize {
    world.memory.catalog.partition(&key(name)).await.unwrap().rows.len()
}

#[tokio::test]
async fn a_row_whose_object_went_before_a_crash_goes_with_the_redelivery() {
    let world = world();
    world.protect("a", "one").await;
    let removed = world.delete("a");
    world.faults.at("catalog.change", 1, Fate::FailBefore(ErrorKind::Unavailable));
    engine::flows::handle::handle(&world.policy, &key("a"), std::slice::from_ref(&removed)).await.unwrap_err();
    assert_eq!((mirrored(&world, "a"), rows(&world, "a").await), (None, 1), "bytes, then row");
    world.handle(&removed).await;
    assert_eq!(rows(&world, "a").await, 0);
}

#[tokio::test]
async fn an_object_whose_row_a_crash_kept_back_gets_it_with_the_redelivery() {
    let world = world();
    let put = world.put("a", "one");
    world.faults.at("catalog.record_mirrored", 1, Fate::FailBefore(ErrorKind::Unavailable));
    engine::flows::handle::handle(&world.policy, &key("a"), std::slice::from_ref(&put)).await.unwrap_err();
    assert_eq!((mirrored(&world, "a").as_deref(), rows(&world, "a").await), (Some("one"), 0), "bytes, then row");
    world.handle(&put).await;
    assert_eq!(rows(&world, "a").await, 1);
}

/// A world with an object whose row a crash kept back, and another process that deletes it before that call.
async fn deleted_before(call: &'static str, nth: usize) -> (World, ObjectEvent) {
    let world = world();
    let put = world.put("a", "one");
    world.faults.at("catalog.record_mirrored", 1, Fate::FailBefore(ErrorKind::Unavailable));
    engine::flows::handle::handle(&world.policy, &key("a"), std::slice::from_ref(&put)).await.unwrap_err();
    let (source, other) = (Arc::clone(&world.memory.source), world.memory.policy(Mode::Mirror, rules()));
    let removal = async move {
        source.delete_object(&key("a"));
        mirror(&other, &key("a")).await.unwrap();
    };
    world.faults.at(call, nth, Fate::First(Box::pin(removal)));
    (world, put)
}

/// A row without an object would stay for ever: nobody is told of it.
#[tokio::test]
async fn a_delete_at_any_call_of_putting_a_missing_row_leaves_no_row_behind() {
    let calls = ["source.head", "copies.head", "catalog.partition", "catalog.record_mirrored"];
    let mut deleted = 0;
    for (call, nth) in calls.into_iter().flat_map(|call| [(call, 1), (call, 2), (call, 3), (call, 4)]) {
        let (by_redelivery, put) = deleted_before(call, nth).await;
        by_redelivery.handle(&put).await;
        let (by_reconcile, _) = deleted_before(call, nth).await;
        let orphans = Orphans::Before(by_reconcile.memory.clock.now());
        reconcile(&by_reconcile.policy, orphans, &Silent, &CancellationToken::new()).await.unwrap();
        for world in [by_redelivery, by_reconcile] {
            let there = world.original("a").is_some();
            deleted += usize::from(!there);
            assert_eq!(rows(&world, "a").await, usize::from(there), "before {call} {nth}");
            assert_equal(&world, &format!("before {call} {nth}"));
        }
    }
    assert!(deleted >= 12, "{deleted}");
}

#[tokio::test]
async fn reconcile_mends_rows_that_crashes_left_without_objects_and_objects_without_rows() {
    let world = world();
    world.protect("a", "one").await;
    world.protect("b", "one").await;
    let (removed, put) = (world.delete("a"), world.put("c", "one"));
    world.faults.at("catalog.change", 1, Fate::FailBefore(ErrorKind::Unavailable));
    engine::flows::handle::handle(&world.policy, &key("a"), &[removed]).await.unwrap_err();
    world.faults.at("catalog.record_mirrored", 1, Fate::FailBefore(ErrorKind::Unavailable));
    engine::flows::handle::handle(&world.policy, &key("c"), &[put]).await.unwrap_err();
    assert_equal(&world, "only rows differ");

    for keys in [3, 2] {
        let report = reconcile(&world.policy, Orphans::OfAge, &Silent, &CancellationToken::new()).await.unwrap();
        assert_eq!((report.counted("keys"), report.counted("gap"), report.is_success()), (keys, 0, true));
        let rows = [rows(&world, "a").await, rows(&world, "b").await, rows(&world, "c").await];
        assert_eq!(rows, [0, 1, 1]);
    }
}
