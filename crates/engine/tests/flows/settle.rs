//! Settling: a second time it writes nothing, a refused claim makes it read again, and it gives up after its limit.

use crate::world::{GRACE, Source, World, keep, key, rules};
use engine::error::{ErrorKind, FlowError};
use engine::flows::settle::settle;
use engine::limits::SETTLE_ROUNDS;
use engine::ports::catalog::{Catalog, CatalogRead};
use engine::wrap::tap::Fate;
use lifecycle::keep::Keep;
use lifecycle::policy::Rules;
use lifecycle::row::CopyState;
use lifecycle::settle::Ask;
use lifecycle::time::SpanMs;
use std::sync::Arc;

#[tokio::test]
async fn a_second_settle_writes_nothing() {
    for source in [Source::Versioned, Source::Unversioned, Source::TimeOrdered] {
        let world = World::new(source, keep(2));
        for content in ["one", "two", "three"] {
            world.protect("a", content).await;
        }
        for removal in [false, true] {
            if removal {
                world.remove("a").await;
            }
            for ask in [Ask::BY_FACTS, Ask::BY_LOOK] {
                settle(&world.policy, &key("a"), ask).await.unwrap();
                world.recorder.clear();
                settle(&world.policy, &key("a"), ask).await.unwrap();
                assert_eq!(world.recorder.effects(), [""; 0], "{source:?} {ask:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_refused_claim_is_read_again_and_the_key_comes_to_rest() {
    let world = World::new(Source::Versioned, keep(1));
    let first = world.protect("a", "one").await;
    let event = world.put("a", "two");
    // Between this handler's read and its claim, the redelivery of the first event writes the row.
    let (catalog, row) = (Arc::clone(&world.memory.catalog), world.rows("a").remove(0));
    let other = async move { catalog.upsert(&first.key, &row).await.unwrap() };
    world.faults.at("catalog.change", 1, Fate::First(Box::pin(other)));
    world.handle(&event).await;
    assert_eq!(world.active("a"), ["two"]);
    assert_eq!(world.recorder.counts()["catalog.partition"], 3, "one of the first event, two of this one");
    world.assert_laws("after the conflict");
}

#[tokio::test]
async fn a_key_that_others_keep_writing_is_put_back_after_the_limit() {
    let world = World::new(Source::Versioned, keep(1));
    let first = world.protect("a", "one").await;
    let event = world.put("a", "two");
    for round in 1..=SETTLE_ROUNDS {
        let (catalog, key) = (Arc::clone(&world.memory.catalog), first.key.clone());
        let other = async move {
            let row = catalog.partition(&key).await.unwrap().rows.remove(0);
            catalog.upsert(&key, &row).await.unwrap();
        };
        world.faults.at("catalog.change", round, Fate::First(Box::pin(other)));
    }
    let result = world.try_handle(&event).await;
    assert!(matches!(result, Err(FlowError::Unsettled { rounds: SETTLE_ROUNDS, .. })), "{result:?}");
    world.handle(&event).await;
    assert_eq!(world.active("a"), ["two"]);
}

#[tokio::test]
async fn a_claim_that_was_reported_as_failed_is_found_on_the_redelivery() {
    let world = World::new(Source::Versioned, keep(1));
    world.protect("a", "one").await;
    let event = world.put("a", "two");
    world.faults.at("catalog.change", 1, Fate::FailAfter(ErrorKind::Unavailable));
    world.try_handle(&event).await.unwrap_err();
    world.handle(&event).await;
    assert_eq!(world.active("a"), ["two"]);
    world.assert_laws("after the redelivery");
}

#[tokio::test]
async fn a_copy_that_time_makes_surplus_carries_its_moment_and_goes_by_it() {
    let within = Keep { within: Some(SpanMs::days(1)), ..Keep::last(1) };
    let world = World::new(Source::Versioned, Rules { keep: within, ..rules() });
    world.protect("a", "one").await;
    world.advance(SpanMs::hours(1));
    world.protect("a", "two").await;
    let one = world.rows("a").remove(1);
    assert_eq!(one.state, CopyState::Active { due_at: Some(one.created_at.plus(SpanMs::days(1))) });
    world.advance(SpanMs::days(1));
    settle(&world.policy, &key("a"), Ask::BY_FACTS).await.unwrap();
    assert_eq!(world.active("a"), ["two"]);
    assert_eq!(world.copies(), 1, "surplus waits for no grace");
    assert!(GRACE > SpanMs::ZERO);
}

#[tokio::test]
async fn a_protected_copy_is_not_surplus_before_its_protection_ends() {
    let world = World::new(Source::Versioned, Rules { protect_for: SpanMs::minutes(10), ..keep(1) });
    world.protect("a", "one").await;
    world.protect("a", "two").await;
    assert_eq!(world.active("a"), ["two", "one"]);
    world.advance(SpanMs::minutes(10));
    settle(&world.policy, &key("a"), Ask::BY_FACTS).await.unwrap();
    assert_eq!(world.active("a"), ["two"]);
}
