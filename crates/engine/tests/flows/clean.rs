//! The cleaner: after the grace, in batches, under a lease, held by the breaker, whatever the clock and the index say.

use crate::world::{GRACE, Source, World, keep, key, rules};
use engine::error::ErrorKind;
use engine::flows::clean::clean;
use engine::flows::release::release;
use engine::flows::undelete::{Depth, Removed, undelete};
use engine::limits::{CLEAN_PAGE, LEASE_FOR, TOMBSTONE_TTL};
use engine::ports::catalog::{Catalog, CatalogRead};
use engine::ports::clock::Clock;
use engine::ports::objects::{Attributes, ObjectWrite, Onto, Written};
use engine::ports::progress::Silent;
use engine::report::Report;
use engine::wrap::tap::Fate;
use lifecycle::breaker::BreakerRule;
use lifecycle::copy_key::CopyName;
use lifecycle::event::Version;
use lifecycle::ids::{Rev, VersionId};
use lifecycle::keep::Keep;
use lifecycle::order::Order;
use lifecycle::policy::Rules;
use lifecycle::row::{CopyRow, CopyState, Origin, Reason};
use lifecycle::time::{SpanMs, UnixMs};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

async fn cleaned(world: &World) -> Report {
    clean(&world.policy, &CancellationToken::new()).await.unwrap()
}

#[tokio::test]
async fn nothing_goes_before_the_grace_and_everything_after_it() {
    let world = World::new(Source::Versioned, rules());
    world.protect("a", "one").await;
    world.protect("b", "stays").await;
    world.remove("a").await;
    world.advance(SpanMs(GRACE.0 - 1));
    assert_eq!(cleaned(&world).await.counted("purged"), 0);
    assert_eq!(world.copies(), 2);
    world.advance(SpanMs(1));
    let report = cleaned(&world).await;
    assert_eq!((report.counted("purged"), report.counted("bytes")), (1, 3));
    assert!(report.is_success());
    assert_eq!((world.rows("a").len(), world.copies()), (0, 1));
    assert_eq!(world.active("b"), ["stays"]);
    assert_eq!(world.journal(), ["disown", "purge"]);
    world.assert_laws("after the clean");
}

#[tokio::test]
async fn the_journal_is_written_before_the_bytes_go_and_the_bytes_before_the_row() {
    let world = World::new(Source::Versioned, rules());
    world.protect("a", "one").await;
    world.remove("a").await;
    world.advance(GRACE);
    world.recorder.clear();
    cleaned(&world).await;
    let effects = world.recorder.effects();
    let place = |text: &str| effects.iter().position(|line| line == text).unwrap_or_else(|| panic!("{effects:?}"));
    assert!(place("journal.append purge") < place("purger.purge 1"));
    assert!(place("purger.purge 1") < place("catalog.change deleted"));
}

/// A disowned copy of its own key, without going through the flows: for tests of many.
async fn disowned_copy(world: &World, n: usize, at: UnixMs) {
    let original = key(&format!("many/{n:06}"));
    let name = CopyName::of_event(
        &Version { version_id: Some(VersionId(format!("{n:016x}"))), etag: "e".into(), size: 1 },
        Order::from_sequencer(&format!("{n:016x}")).unwrap(),
        at,
    );
    let (copy_key, _) = name.copy_key(&original);
    let written = world.memory.destination.store(copy_key.object(), "x".into(), Attributes::default(), &Onto::Nothing);
    let Written::Done(head) = written else { panic!("the name is new") };
    let row = CopyRow {
        copy_key,
        order: name.order,
        floating: false,
        origin: Origin::Event,
        created_at: at,
        state: CopyState::Disowned { at, reason: Reason::Removed },
        removed_at: Some(at),
        version_id: None,
        etag: "e".into(),
        size: 1,
        checksum: head.checksum,
        storage_class: None,
        rev: Rev(String::new()),
    };
    world.memory.catalog.upsert(&original, &row).await.unwrap();
}

#[tokio::test]
async fn ten_thousand_due_copies_go_in_batches_and_what_is_not_due_costs_nothing() {
    let world = World::new(Source::Versioned, rules());
    let now = world.memory.clock.now();
    for n in 0..10_000 {
        disowned_copy(&world, n, now).await;
    }
    world.advance(GRACE);
    for n in 10_000..13_000 {
        disowned_copy(&world, n, world.memory.clock.now()).await;
    }
    let report = cleaned(&world).await;
    assert_eq!(report.counted("purged"), 10_000);
    assert_eq!(world.copies(), 3_000);
    let counts = world.recorder.counts();
    let pages = 10_000 / CLEAN_PAGE;
    for call in ["catalog.rows", "journal.append", "purger.purge", "catalog.change"] {
        assert_eq!(counts[call], pages, "{call}: {counts:?}");
    }
    assert!(counts["catalog.index"] <= pages + 3, "{counts:?}");
    assert!(counts.values().sum::<usize>() < 10 * pages, "{counts:?}");
}

#[tokio::test]
async fn a_stale_index_page_purges_nothing_twice_and_nothing_that_is_active() {
    let world = World::new(Source::Versioned, rules());
    world.protect("a", "one").await;
    world.protect("b", "one").await;
    world.remove("a").await;
    world.advance(GRACE);
    world.memory.catalog.freeze_index();
    assert_eq!(cleaned(&world).await.counted("purged"), 1);
    world.recorder.clear();
    let report = cleaned(&world).await;
    assert_eq!(report.counted("purged"), 0);
    assert!(!world.recorder.counts().contains_key("purger.purge"), "{:?}", world.recorder.lines());
    assert_eq!(world.active("b"), ["one"]);
}

#[tokio::test]
async fn a_second_cleaner_stands_back_while_the_first_holds_the_lease() {
    let world = World::new(Source::Versioned, rules());
    world.protect("a", "one").await;
    world.remove("a").await;
    world.advance(GRACE);
    let now = world.memory.clock.now();
    assert!(world.memory.catalog.lease("clean", "somebody else", now, now.plus(LEASE_FOR)).await.unwrap());
    let report = cleaned(&world).await;
    assert_eq!((report.counted("purged"), report.notes.len()), (0, 1));
    // It died: its lease runs out.
    world.advance(LEASE_FOR);
    assert_eq!(cleaned(&world).await.counted("purged"), 1);
}

#[tokio::test]
async fn a_clock_that_jumps_back_shortens_no_grace_and_one_that_stands_still_ends_none() {
    let world = World::new(Source::Versioned, rules());
    world.protect("a", "one").await;
    world.remove("a").await;
    let disowned_at = world.memory.clock.now();
    for now in [disowned_at, disowned_at, disowned_at.minus(SpanMs::days(30)), disowned_at.plus(GRACE).minus(SpanMs(2))]
    {
        world.memory.clock.set(now);
        assert_eq!(cleaned(&world).await.counted("purged"), 0, "at {now}");
    }
    world.memory.clock.set(disowned_at.plus(GRACE));
    assert_eq!(cleaned(&world).await.counted("purged"), 1);
}

#[tokio::test]
async fn a_delete_that_fails_is_named_and_done_by_the_next_clean() {
    let world = World::new(Source::Versioned, rules());
    for name in ["a", "b"] {
        world.protect(name, "one").await;
        world.remove(name).await;
    }
    world.advance(GRACE);
    world.faults.at("purger.purge", 1, Fate::FailPart(ErrorKind::Throttled));
    let report = cleaned(&world).await;
    assert_eq!((report.counted("purged"), report.failures), (1, 1));
    assert!(report.failed[0].object.starts_with("b."), "{:?}", report.failed);
    assert_eq!(world.memory.catalog.state().await.unwrap().cleaned_at, None, "it did not end well");
    let report = cleaned(&world).await;
    assert_eq!((report.counted("purged"), report.failures), (1, 0));
    assert_eq!(world.memory.catalog.state().await.unwrap().cleaned_at, Some(world.memory.clock.now()));
}

#[tokio::test]
async fn rows_whose_bytes_are_gone_already_go_too() {
    let world = World::new(Source::Versioned, rules());
    world.protect("a", "one").await;
    world.remove("a").await;
    world.advance(GRACE);
    world.faults.at("catalog.change", 1, Fate::FailBefore(ErrorKind::Unavailable));
    assert_eq!(cleaned(&world).await.failures, 1);
    assert_eq!((world.copies(), world.rows("a").len()), (0, 1));
    assert_eq!(cleaned(&world).await.counted("purged"), 1);
    assert_eq!(world.rows("a").len(), 0);
}

#[tokio::test]
async fn a_cancelled_clean_stops_between_pages_and_gives_its_lease_back() {
    let world = World::new(Source::Versioned, rules());
    world.protect("a", "one").await;
    world.remove("a").await;
    world.advance(GRACE);
    let cancel = CancellationToken::new();
    cancel.cancel();
    let report = clean(&world.policy, &cancel).await.unwrap();
    assert!(report.cancelled && !report.is_success());
    assert_eq!(world.copies(), 1);
    assert_eq!(cleaned(&world).await.counted("purged"), 1);
}

#[tokio::test]
async fn a_copy_that_time_made_surplus_is_found_without_any_event() {
    let within = Keep { within: Some(SpanMs::days(1)), ..Keep::last(1) };
    let world = World::new(Source::Versioned, Rules { keep: within, ..rules() });
    world.protect("a", "one").await;
    world.protect("a", "two").await;
    assert_eq!(world.active("a").len(), 2);
    world.advance(SpanMs::days(1));
    let report = cleaned(&world).await;
    assert_eq!(report.counted("settled"), 1);
    assert_eq!(world.active("a"), ["two"]);
    assert_eq!(world.copies(), 1);
}

#[tokio::test]
async fn tombstones_are_forgotten_after_their_lifetime() {
    let world = World::new(Source::Versioned, rules());
    world.protect("a", "one").await;
    world.remove("a").await;
    world.advance(SpanMs(TOMBSTONE_TTL.0));
    cleaned(&world).await;
    assert!(world.partition("a").tombstone.is_some());
    world.advance(SpanMs(1));
    assert_eq!(cleaned(&world).await.counted("tombstones-forgotten"), 1);
    assert_eq!(world.partition("a"), lifecycle::row::Partition::default());
}

// --- mass deletion ---

fn breaker() -> Rules {
    Rules { breaker: Some(BreakerRule { window: SpanMs::hours(6), deletes: 3, share: 0.2 }), ..keep(2) }
}

async fn mass_deletion() -> World {
    let world = World::new(Source::Versioned, breaker());
    for n in 0..8 {
        world.protect(&format!("k{n}"), "content").await;
    }
    for n in 0..5 {
        world.remove(&format!("k{n}")).await;
    }
    world
}

#[tokio::test]
async fn a_mass_deletion_trips_the_breaker_which_holds_every_purge_until_released() {
    let world = mass_deletion().await;
    world.advance(GRACE);
    let report = cleaned(&world).await;
    world.logs.expect("the breaker tripped");
    assert_eq!((report.counted("purged"), world.copies()), (0, 8));
    let trip = world.memory.catalog.state().await.unwrap().tripped.expect("tripped");
    assert_eq!((trip.removed, trip.live), (4, 3), "counting stops at the limit");

    // However long it lasts, and although the window has passed; surplus of other keys is held, too.
    world.advance(SpanMs::days(3));
    for content in ["two", "three", "four"] {
        world.protect("k7", content).await;
    }
    assert_eq!(cleaned(&world).await.counted("purged"), 0);
    assert_eq!(world.copies(), 11);
    assert_eq!(world.active("k7"), ["four", "three"]);

    let report = release(&world.policy, "alice").await.unwrap();
    assert_eq!(report.counted("released"), 1);
    assert_eq!(cleaned(&world).await.counted("purged"), 5);
    world.advance(GRACE);
    assert_eq!(cleaned(&world).await.counted("purged"), 2, "the surplus that was held");
    assert_eq!(world.copies(), 2 + 2);
    let journal = world.journal();
    assert_eq!(journal.iter().filter(|action| ["trip", "release"].contains(*action)).count(), 2, "{journal:?}");
    world.assert_laws("after the release");
}

#[tokio::test]
async fn a_release_forgives_what_was_removed_before_it_and_nothing_after_it() {
    let world = mass_deletion().await;
    release(&world.policy, "alice").await.unwrap();
    cleaned(&world).await;
    assert_eq!(world.memory.catalog.state().await.unwrap().tripped, None);
    for n in 0..4 {
        world.protect(&format!("later{n}"), "content").await;
        world.remove(&format!("later{n}")).await;
    }
    cleaned(&world).await;
    world.logs.expect("the breaker tripped");
}

#[tokio::test]
async fn few_removals_and_a_small_share_do_not_trip_it() {
    let world = World::new(Source::Versioned, breaker());
    for n in 0..30 {
        world.protect(&format!("k{n:02}"), "content").await;
    }
    for n in 0..5 {
        world.remove(&format!("k{n:02}")).await;
    }
    world.advance(GRACE);
    assert_eq!(cleaned(&world).await.counted("purged"), 5, "5 of 30 are less than a fifth");
}

#[tokio::test]
async fn removals_outside_the_window_do_not_count() {
    let world = mass_deletion().await;
    world.advance(SpanMs::hours(7));
    assert_eq!(cleaned(&world).await.counted("purged"), 5);
}

#[tokio::test]
async fn undelete_since_brings_everything_back_and_clears_the_breaker() {
    let world = World::new(Source::Versioned, breaker());
    for n in 0..8 {
        world.protect(&format!("k{n}"), &format!("content {n}")).await;
    }
    let before = world.memory.clock.now();
    for n in 0..5 {
        world.remove(&format!("k{n}")).await;
    }
    world.advance(GRACE);
    cleaned(&world).await;
    world.logs.expect("the breaker tripped");
    let source: Arc<dyn ObjectWrite> = Arc::clone(&world.memory.source) as _;
    let since = Removed::Since(before);
    let report =
        undelete(&world.policy, &since, Depth::All, &source, "alice", &Silent, &CancellationToken::new()).await;
    assert_eq!((report.counted("undeleted"), report.failures), (5, 0), "{report:?}");
    assert_eq!(world.memory.catalog.state().await.unwrap().tripped, None);
    for n in 0..5 {
        let name = format!("k{n}");
        let Some(stored) = world.memory.source.read(&key(&name), None) else { panic!("{name} is not back") };
        assert_eq!(crate::world::text(&stored), format!("content {n}"));
        assert_eq!(world.active(&name), [format!("content {n}")]);
    }
    // The old copies go, the new ones stay.
    assert_eq!(cleaned(&world).await.counted("purged"), 5);
    assert_eq!(world.copies(), 8);
    world.assert_laws("after the undelete");
}

#[tokio::test]
async fn a_clean_that_is_cancelled_stops_between_two_keys_and_the_next_one_goes_on() {
    let world = World::new(Source::Versioned, Rules { keep: Keep { within: Some(GRACE), ..Keep::last(1) }, ..rules() });
    for name in ["a", "b"] {
        world.protect(name, "one").await;
        world.protect(name, "two").await;
    }
    world.advance(SpanMs(GRACE.0 + 1));
    let cancel = CancellationToken::new();
    let token = cancel.clone();
    world.faults.at("catalog.partition", 1, Fate::First(Box::pin(async move { token.cancel() })));
    let report = clean(&world.policy, &cancel).await.unwrap();
    assert_eq!((report.cancelled, report.counted("settled")), (true, 1), "{report:?}");
    assert_eq!(world.memory.catalog.state().await.unwrap().cleaned_at, None);
    let report = cleaned(&world).await;
    assert_eq!((report.cancelled, report.counted("settled")), (false, 1), "{report:?}");
    assert_eq!(world.copies(), 2);
}
