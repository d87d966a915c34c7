//! Undelete: the object and its history come back, and nothing takes them away again.

use crate::world::{GRACE, Source, World, keep, key, rules};
use engine::error::ErrorKind;
use engine::flows::clean::clean;
use engine::flows::reconcile::{Orphans, reconcile};
use engine::flows::undelete::{Depth, Removed, undelete};
use engine::limits::{LIST_PAGE, ORPHAN_AGE};
use engine::memory::bucket::RETRIEVAL;
use engine::ports::clock::Clock;
use engine::ports::objects::ObjectWrite;
use engine::ports::progress::Silent;
use engine::report::Report;
use engine::wrap::faults::{Death, Faults};
use engine::wrap::tap::Fate;
use lifecycle::event::ObjectEvent;
use lifecycle::restore::{Selection, Wanted, select};
use lifecycle::row::{CopyRow, Reason};
use lifecycle::time::{SpanMs, UnixMs};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

async fn undeleted(world: &World, what: Removed, depth: Depth) -> Report {
    let source: Arc<dyn ObjectWrite> = Arc::clone(&world.memory.source) as _;
    undelete(&world.policy, &what, depth, &source, "alice", &Silent, &CancellationToken::new()).await
}

fn the_key() -> Removed {
    Removed::Key(key("a"))
}

async fn removed() -> World {
    let world = World::new(Source::Versioned, rules());
    for content in ["one", "two", "three"] {
        world.protect("a", content).await;
    }
    world.remove("a").await;
    world
}

async fn reconciled(world: &World) -> Report {
    world.advance(SpanMs(ORPHAN_AGE.0 + 1));
    let report = reconcile(&world.policy, Orphans::OfAge, &Silent, &CancellationToken::new()).await.unwrap();
    assert_eq!(report.counted("gap"), 0, "{report:?}");
    report
}

#[tokio::test]
async fn the_newest_comes_back_byte_for_byte_and_the_older_ones_into_the_history() {
    let world = removed().await;
    let created_at = |rows: Vec<CopyRow>| -> Vec<_> { rows.iter().map(|row| row.created_at).collect() };
    let times = created_at(world.rows("a"));
    let report = undeleted(&world, the_key(), Depth::All).await;
    assert_eq!((report.counted("undeleted"), report.counted("copies"), report.failures), (1, 3, 0), "{report:?}");
    assert_eq!(world.original("a").as_deref(), Some("three"));
    assert_eq!(world.active("a"), ["three", "two", "one"]);
    let active: Vec<CopyRow> = world.rows("a").into_iter().filter(CopyRow::is_active).collect();
    assert_eq!(created_at(active), times, "they keep the times of their versions");
    world.assert_laws("after the undelete");
}

/// The old copies are asked for together; and so is what came back, if it lies in an archive before it is put back.
#[tokio::test]
async fn archived_copies_are_asked_for_until_the_object_is_back() {
    let world = removed().await;
    let archive = |rows: Vec<CopyRow>| {
        rows.iter().for_each(|row| world.memory.destination.archive(row.copy_key.object()));
    };
    archive(world.rows("a"));
    let told = async || {
        let report = undeleted(&world, the_key(), Depth::All).await;
        assert!(report.failures == 1 && report.failed[0].why.contains("is on its way"), "{report:?}");
        world.advance(RETRIEVAL);
    };
    told().await;
    // Its copies can be read now, all of them; it dies before the object itself is back.
    let faults = Arc::new(Faults::default());
    faults.at("target.put", 1, Fate::FailBefore(ErrorKind::Unavailable));
    let (source, cancel) = (world.write_through("target", faults), CancellationToken::new());
    undelete(&world.policy, &the_key(), Depth::All, &source, "alice", &Silent, &cancel).await;
    assert_eq!(world.active("a"), ["three", "two", "one"]);
    archive(world.rows("a").into_iter().filter(CopyRow::is_active).collect());
    told().await;
    let report = undeleted(&world, the_key(), Depth::All).await;
    assert_eq!((report.counted("undeleted"), report.failures), (1, 0), "{report:?}");
    assert_eq!(world.original("a").as_deref(), Some("three"));
}

#[tokio::test]
async fn a_listing_that_fails_is_told_with_what_was_done_before_it() {
    let world = World::new(Source::Versioned, rules());
    let names: Vec<String> = (0..=LIST_PAGE).map(|n| format!("k{n:04}")).collect();
    for name in &names {
        world.protect(name, name).await;
    }
    for name in &names {
        world.remove(name).await;
    }
    for (what, call) in [(Removed::Prefix("k".to_owned()), "keys.keys"), (Removed::Since(UnixMs(0)), "catalog.index")] {
        world.faults.at(call, 2, Fate::FailBefore(ErrorKind::Unavailable));
        let report = undeleted(&world, what, Depth::Newest).await;
        let done = report.counted("undeleted") + report.counted("skipped-live");
        assert_eq!(done, LIST_PAGE as u64, "{call}: {:?} {:?}", report.counts, report.failed);
        let failed: Vec<&str> = report.failed.iter().map(|failed| failed.object.as_str()).collect();
        assert!(report.cancelled && failed == [world.policy.name.as_str()], "{call}: {failed:?}");
    }
}

/// Right after the delete, before its event was handled; which comes late then, and takes nothing away again.
#[tokio::test]
async fn an_object_whose_removal_nobody_has_handled_yet_comes_back() {
    let world = World::new(Source::Versioned, rules());
    for content in ["one", "two"] {
        world.protect("a", content).await;
    }
    let removal = world.delete("a");
    let report = undeleted(&world, the_key(), Depth::All).await;
    assert_eq!((report.counted("undeleted"), report.failures), (1, 0), "{report:?}");
    assert_eq!(world.original("a").as_deref(), Some("two"));
    world.handle(&world.event_of_current("a")).await;
    world.handle(&removal).await;
    assert_eq!(world.original("a").as_deref(), Some("two"));
    assert!(world.active("a").contains(&"two".to_owned()), "{:?}", world.active("a"));
    reconciled(&world).await;
    world.assert_laws("after the late removal");
}

#[tokio::test]
async fn only_the_newest_comes_back_if_that_is_asked_for() {
    let world = removed().await;
    let report = undeleted(&world, the_key(), Depth::Newest).await;
    assert_eq!((report.counted("undeleted"), report.counted("copies")), (1, 1));
    assert_eq!(world.active("a"), ["three"]);
    assert_eq!(world.original("a").as_deref(), Some("three"));
}

#[tokio::test]
async fn neither_late_events_nor_reconcile_nor_the_cleaner_take_it_away_again() {
    let world = World::new(Source::Versioned, rules());
    let created = world.protect("a", "one").await;
    let removal = world.remove("a").await;
    undeleted(&world, the_key(), Depth::All).await;
    let back = world.event_of_current("a");
    world.handle_all(&[removal.clone(), created.clone(), back.clone(), removal, created]).await;
    assert_eq!(world.active("a"), ["one", "one"], "what was there before the removal, and what was put back");
    reconciled(&world).await;
    world.advance(GRACE);
    clean(&world.policy, &CancellationToken::new()).await.unwrap();
    assert_eq!((world.active("a"), world.copies()), (vec!["one".to_owned(); 2], 2));
    world.assert_laws("after everything");
}

#[tokio::test]
async fn an_undeleted_object_that_is_deleted_again_is_disowned_again() {
    let world = removed().await;
    undeleted(&world, the_key(), Depth::Newest).await;
    world.handle(&world.event_of_current("a")).await;
    world.remove("a").await;
    assert_eq!(world.active("a"), [""; 0]);
    world.assert_laws("after the second removal");
}

/// That the undelete came before the second removal shows by what was put back, even if its time is cut to the second.
#[tokio::test]
async fn a_second_removal_is_noticed_where_the_source_dates_its_versions_to_the_second() {
    for depth in [Depth::All, Depth::Newest] {
        let world = removed().await;
        undeleted(&world, the_key(), depth).await;
        let put_back = world.event_of_current("a");
        world.handle(&ObjectEvent { time: put_back.time.minus(SpanMs(999)), ..put_back }).await;
        world.delete("a");
        reconciled(&world).await;
        assert_eq!(world.active("a"), [""; 0], "{depth:?}");
        world.advance(GRACE);
        clean(&world.policy, &CancellationToken::new()).await.unwrap();
        assert_eq!(world.copies(), 0, "{depth:?}");
        world.assert_laws("after the second removal");
    }
}

/// What came back twice would take the places of older versions.
#[tokio::test]
async fn undeleted_again_and_again_every_version_of_the_history_comes_back_once() {
    let world = World::new(Source::Versioned, keep(3));
    for content in ["one", "two", "three"] {
        world.protect("a", content).await;
    }
    for round in 1..=3 {
        world.remove("a").await;
        world.advance(SpanMs(10));
        undeleted(&world, the_key(), Depth::All).await;
        world.handle(&world.event_of_current("a")).await;
        assert_eq!(world.active("a"), ["three", "three", "two", "one"], "put back, and the history: round {round}");
        reconciled(&world).await;
        world.assert_laws(&format!("round {round}"));
    }
    world.advance(GRACE);
    clean(&world.policy, &CancellationToken::new()).await.unwrap();
    assert_eq!((world.active("a"), world.copies()), (["three", "three", "two", "one"].map(str::to_owned).to_vec(), 4));
}

/// What was there before the removal can still be told from what is there since the undelete, also when the copies that the
/// removal disowned are gone.
#[tokio::test]
async fn after_the_grace_as_of_a_time_before_the_undelete_is_still_what_was_current_then() {
    let world = World::new(Source::Versioned, rules());
    let mut moments = Vec::new();
    for content in ["one", "two", "three"] {
        world.protect("a", content).await;
        moments.push((world.memory.clock.now(), Some(content)));
        world.advance(SpanMs(10));
    }
    world.remove("a").await;
    moments.push((world.memory.clock.now(), None));
    world.advance(SpanMs(10));
    undeleted(&world, the_key(), Depth::All).await;
    moments.push((world.memory.clock.now(), Some("three")));
    world.handle(&world.event_of_current("a")).await;
    for _ in 0..2 {
        for (at, content) in &moments {
            let rows = world.rows("a");
            let found = match select(&rows, &Wanted::At(*at)) {
                Selection::Take(found) => Some(world.content(found[0])),
                Selection::NotThere { .. } | Selection::NoCopy => None,
            };
            assert_eq!(found.as_deref(), *content, "as of {at}");
        }
        world.advance(GRACE);
        clean(&world.policy, &CancellationToken::new()).await.unwrap();
    }
    assert_eq!(world.active("a"), ["three", "three", "two", "one"], "what was put back takes no place of its own");
}

#[tokio::test]
async fn a_live_key_and_a_key_without_copies_are_left_alone() {
    let world = World::new(Source::Versioned, rules());
    world.protect("a", "one").await;
    let partition = world.partition("a");
    assert_eq!(undeleted(&world, the_key(), Depth::All).await.counted("skipped-live"), 1);
    assert_eq!(world.partition("a"), partition);
    let report = undeleted(&world, Removed::Key(key("nothing")), Depth::All).await;
    assert_eq!((report.counted("nothing-left"), report.failures), (1, 0));
}

#[tokio::test]
async fn an_object_that_somebody_has_put_meanwhile_is_not_overwritten() {
    let world = removed().await;
    world.put("a", "somebody's");
    let report = undeleted(&world, the_key(), Depth::All).await;
    assert_eq!(report.counted("skipped-live"), 1);
    assert_eq!(world.original("a").as_deref(), Some("somebody's"));
    reconciled(&world).await;
    assert_eq!(world.active("a")[0], "somebody's");
    world.assert_laws("after reconcile");
}

#[tokio::test]
async fn surplus_copies_do_not_come_back() {
    let world = World::new(Source::Versioned, crate::world::keep(1));
    world.protect("a", "one").await;
    let event = world.put("a", "two");
    // The purge of the surplus copy fails: it is disowned and still there when the object is deleted.
    let gone = engine::wrap::tap::Fate::FailBefore(engine::error::ErrorKind::Unavailable);
    world.faults.at("purger.purge", 1, gone);
    world.try_handle(&event).await.unwrap_err();
    assert_eq!(world.disowned("a"), [("one".to_owned(), Reason::BeyondKeep)]);
    let removal = world.delete("a");
    world.faults.at("purger.purge", 1, engine::wrap::tap::Fate::FailBefore(engine::error::ErrorKind::Unavailable));
    world.try_handle(&removal).await.unwrap_err();
    undeleted(&world, the_key(), Depth::All).await;
    assert_eq!(world.active("a"), ["two"]);
}

#[tokio::test]
async fn everything_under_a_prefix_comes_back() {
    let world = World::new(Source::Versioned, rules());
    for name in ["p/a", "p/b", "q"] {
        world.protect(name, name).await;
        world.remove(name).await;
    }
    world.protect("p/live", "live").await;
    let report = undeleted(&world, Removed::Prefix("p/".to_owned()), Depth::All).await;
    assert_eq!((report.counted("undeleted"), report.counted("skipped-live")), (2, 1));
    assert_eq!(world.original("q"), None);
}

#[tokio::test]
async fn since_a_time_brings_back_what_was_removed_from_then_on() {
    let world = World::new(Source::Versioned, rules());
    world.protect("early", "e").await;
    world.protect("late", "l").await;
    world.remove("early").await;
    world.advance(SpanMs(1));
    let since = world.memory.clock.now();
    world.remove("late").await;
    let report = undeleted(&world, Removed::Since(since), Depth::All).await;
    assert_eq!(report.counted("undeleted"), 1);
    assert_eq!((world.original("early"), world.original("late").as_deref()), (None, Some("l")));
}

/// `false`: it had fewer effects than that, and did not die.
async fn dies_undeleting(world: &World, k: usize) -> bool {
    let faults = Arc::new(Faults::die_at(k, Death::Before));
    let (policy, source) =
        (world.policy_through(Arc::clone(&faults) as _), world.write_through("target", Arc::clone(&faults) as _));
    let (what, cancel) = (the_key(), CancellationToken::new());
    tokio::select! {
        biased;
        () = faults.death() => true,
        _ = undelete(&policy, &what, Depth::All, &source, "alice", &Silent, &cancel) => false,
    }
}

async fn given_again(world: &World, k: usize) {
    let report = undeleted(world, the_key(), Depth::All).await;
    assert_eq!(report.failures, 0, "k = {k}: {report:?}");
    assert_eq!(world.original("a").as_deref(), Some("three"), "k = {k}");
    world.handle(&world.event_of_current("a")).await;
    reconciled(world).await;
}

/// Given again after a death at any effect, the command ends as if it had not died: the newest content is what comes back.
#[tokio::test]
async fn given_again_after_a_death_it_still_brings_back_the_newest() {
    for k in 1.. {
        let world = removed().await;
        if !dies_undeleting(&world, k).await {
            return;
        }
        world.advance(SpanMs(10));
        given_again(&world, k).await;
        assert_eq!(world.active("a"), ["three", "three", "two", "one"], "put back, and what was there before: k = {k}");
        world.assert_laws(&format!("k = {k}"));
    }
}

/// What a dead undelete brought back last tells how far it came, also when the copy that it came from is purged since.
#[tokio::test]
async fn given_again_after_a_death_and_a_purge_it_still_brings_back_what_is_left() {
    for k in 1.. {
        let world = World::new(Source::Versioned, rules());
        world.protect("a", "one").await;
        world.remove("a").await;
        world.advance(SpanMs(GRACE.0 / 2));
        for content in ["two", "three"] {
            world.protect("a", content).await;
            world.advance(SpanMs(1));
        }
        world.remove("a").await;
        if !dies_undeleting(&world, k).await {
            return;
        }
        world.advance(SpanMs(GRACE.0 / 2));
        clean(&world.policy, &CancellationToken::new()).await.unwrap();
        assert!(world.disowned("a").iter().all(|(content, _)| content != "one"), "its grace is over: k = {k}");
        given_again(&world, k).await;
        let active = world.active("a");
        assert_eq!(active[..3], ["three", "three", "two"], "put back, and what was there before: k = {k}");
        world.assert_laws(&format!("k = {k}"));
    }
}
