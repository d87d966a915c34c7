//! Created events: what they cost, and that late, repeated and reordered ones end alike.

use crate::world::{Source, World, keep, key, rules};
use engine::flows::handle::handle;
use engine::limits::EVENT_AGE_MAX;
use engine::ports::objects::META_ORIGINAL_KEY;
use lifecycle::event::ObjectEvent;
use lifecycle::row::Reason;
use lifecycle::time::SpanMs;

#[tokio::test]
async fn a_created_event_costs_one_copy_one_upsert_and_one_query() {
    let world = World::new(Source::Versioned, rules());
    world.protect("a", "one").await;
    assert_eq!(world.recorder.lines(), ["copier.copy a", "catalog.upsert a", "catalog.partition a"]);
    assert_eq!(world.active("a"), ["one"]);
    world.assert_laws("after one put");
}

#[tokio::test]
async fn a_copy_beyond_the_rule_is_claimed_then_journalled_then_purged() {
    let world = World::new(Source::Versioned, keep(1));
    world.protect("a", "one").await;
    world.recorder.clear();
    world.protect("a", "two").await;
    let effects = [
        "copier.copy a",
        "catalog.upsert a",
        "catalog.change disowned",
        "journal.append purge",
        "purger.purge 1",
        "catalog.change deleted",
    ];
    assert_eq!(world.recorder.effects(), effects);
    assert_eq!(world.active("a"), ["two"]);
    world.assert_laws("after two puts");
}

#[tokio::test]
async fn a_redelivery_changes_nothing() {
    let world = World::new(Source::Versioned, keep(2));
    let events = [world.put("a", "one"), world.put("a", "two"), world.put("a", "three")];
    world.handle_all(&events).await;
    let (rows, copies) = (world.rows("a"), world.memory.destination.contents());
    world.recorder.clear();
    world.handle(&events[2]).await;
    assert_eq!(world.recorder.effects(), ["copier.copy a", "catalog.upsert a"], "settling writes nothing");
    let without_rev = |rows: Vec<lifecycle::row::CopyRow>| -> Vec<_> {
        rows.into_iter().map(|row| lifecycle::row::CopyRow { rev: lifecycle::ids::Rev::from(""), ..row }).collect()
    };
    assert_eq!(without_rev(world.rows("a")), without_rev(rows));
    assert_eq!(world.memory.destination.contents().len(), copies.len());
}

#[tokio::test]
async fn a_late_redelivery_of_what_was_purged_ends_as_if_it_had_not_come() {
    let world = World::new(Source::Versioned, keep(1));
    let first = world.protect("a", "one").await;
    world.protect("a", "two").await;
    world.handle(&first).await;
    assert_eq!(world.active("a"), ["two"]);
    world.assert_laws("after the late redelivery");
}

#[tokio::test]
async fn every_order_of_delivery_ends_alike() {
    for source in [Source::Versioned, Source::Unversioned, Source::TimeOrdered] {
        for order in permutations(4) {
            let world = World::new(source, keep(2));
            let events = [world.put("a", "one"), world.put("a", "two"), world.delete("a"), world.put("a", "three")];
            for place in &order {
                world.handle(&events[*place]).await;
            }
            let context = format!("{source:?} in the order {order:?}");
            assert_eq!(world.active("a"), ["three"], "{context}");
            assert!(world.disowned("a").iter().all(|(_, reason)| *reason == Reason::Removed), "{context}");
            world.assert_laws(&context);
        }
    }
}

fn permutations(n: usize) -> Vec<Vec<usize>> {
    if n == 0 {
        return vec![Vec::new()];
    }
    let shorter = permutations(n - 1);
    let with = |rest: &Vec<usize>, place: usize| {
        let mut whole = rest.clone();
        whole.insert(place, n - 1);
        whole
    };
    shorter.iter().flat_map(|rest| (0..n).map(|place| with(rest, place))).collect()
}

#[tokio::test]
async fn events_of_one_key_are_noted_one_by_one_and_settled_once() {
    let world = World::new(Source::Versioned, keep(1));
    let events = [world.put("a", "one"), world.put("a", "two"), world.put("a", "three")];
    handle(&world.policy, &key("a"), &events).await.unwrap();
    let counts = world.recorder.counts();
    assert_eq!((counts["copier.copy"], counts["catalog.partition"], counts["purger.purge"]), (3, 1, 1));
    assert_eq!(world.active("a"), ["three"]);
}

#[tokio::test]
async fn a_source_that_does_not_answer_puts_the_event_back() {
    use engine::error::ErrorKind;
    use engine::wrap::tap::Fate;
    let world = World::new(Source::Versioned, rules());
    let event = world.put("a", "one");
    world.faults.at("copier.copy", 1, Fate::FailBefore(ErrorKind::Unavailable));
    world.try_handle(&event).await.unwrap_err();
    assert_eq!(world.copies(), 0);
    world.handle(&event).await;
    assert_eq!(world.active("a"), ["one"]);
}

#[tokio::test]
async fn an_overwritten_version_of_an_unversioned_source_makes_no_copy_and_the_key_is_settled_all_the_same() {
    let world = World::new(Source::Unversioned, rules());
    let events = [world.put("a", "one"), world.put("a", "two")];
    world.handle_all(&events).await;
    assert_eq!(world.active("a"), ["two"]);
    world.assert_laws("after both");
}

#[tokio::test]
async fn a_key_too_long_for_its_suffix_stands_whole_in_the_metadata_and_in_the_row() {
    let world = World::new(Source::Versioned, keep(1));
    let name = "ä".repeat(512);
    world.protect(&name, "one").await;
    world.protect(&name, "two").await;
    assert_eq!(world.active(&name), ["two"]);
    let row = world.rows(&name).remove(0);
    assert!(row.copy_key.as_str().len() <= 1_024);
    let Some(copy) = world.memory.destination.read(row.copy_key.object(), None) else { panic!("no bytes") };
    assert!(copy.head.metadata.contains_key(META_ORIGINAL_KEY));
    world.assert_laws("with a long key");
}

#[tokio::test]
async fn attributes_travel_with_the_copy() {
    let world = World::new(Source::Versioned, rules());
    world.protect("a", "one").await;
    let Some(copy) = world.memory.destination.read(world.rows("a")[0].copy_key.object(), None) else {
        panic!("no bytes")
    };
    assert_eq!(copy.attributes.content_type.as_deref(), Some("text/plain"));
}

#[tokio::test]
async fn an_event_without_an_order_only_looks_where_orders_are_sequencers() {
    let world = World::new(Source::Versioned, rules());
    let event = ObjectEvent { order: None, ..world.put("a", "one") };
    world.handle(&event).await;
    assert_eq!(world.recorder.lines()[..2], ["catalog.partition a", "source.head a"]);
    assert_eq!(world.active("a"), ["one"]);
    assert!(world.rows("a")[0].floating);
}

#[tokio::test]
async fn a_clock_that_stands_still_gives_every_version_its_copy() {
    let world = World::new(Source::Versioned, rules());
    let now = engine::ports::clock::Clock::now(&*world.memory.clock);
    for content in ["one", "two", "three"] {
        let event = world.put("a", content);
        world.memory.clock.set(now);
        world.handle(&event).await;
        world.memory.clock.set(now);
    }
    assert_eq!(world.active("a"), ["three", "two", "one"]);
    world.assert_laws("with a clock that stands still");
}

#[tokio::test]
async fn a_clock_that_jumps_back_loses_neither_the_order_nor_a_copy() {
    for source in [Source::Versioned, Source::Unversioned, Source::TimeOrdered] {
        let world = World::new(source, keep(1));
        world.protect("a", "one").await;
        let now = engine::ports::clock::Clock::now(&*world.memory.clock);
        world.memory.clock.set(now.minus(SpanMs::days(2)));
        world.protect("a", "two").await;
        assert_eq!(world.active("a"), ["two"], "{source:?}");
        world.assert_laws(&format!("{source:?} after the jump"));
    }
}

#[tokio::test]
async fn an_event_from_before_the_tombstones_lifetime_copies_nothing_by_itself() {
    let world = World::new(Source::Versioned, rules());
    let event = world.put("a", "one");
    world.put("a", "two");
    world.advance(SpanMs(EVENT_AGE_MAX.0 + 1));
    world.handle(&event).await;
    assert_eq!(world.active("a"), ["two"], "what is current has a copy, what the old event names has none");
}
