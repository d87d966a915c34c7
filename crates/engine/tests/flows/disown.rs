//! Removed events: they disown and delete nothing; late and repeated ones do no harm; what is unknown is never "removed".

use crate::world::{GRACE, Source, World, keep, rules};
use engine::error::ErrorKind;
use engine::wrap::tap::Fate;
use lifecycle::row::{CopyState, Reason};
use lifecycle::time::SpanMs;

#[tokio::test]
async fn a_removed_event_costs_one_tombstone_one_query_and_one_batch() {
    let world = World::new(Source::Versioned, rules());
    world.protect("a", "one").await;
    world.protect("a", "two").await;
    world.recorder.clear();
    world.remove("a").await;
    let lines = ["catalog.bury a", "catalog.partition a", "journal.append disown disown", "catalog.change disowned×2"];
    assert_eq!(world.recorder.lines(), lines);
    assert_eq!(world.disowned("a"), [("two".to_owned(), Reason::Removed), ("one".to_owned(), Reason::Removed)]);
    assert_eq!(world.copies(), 2, "nothing is deleted");
    world.assert_laws("after the removal");
}

#[tokio::test]
async fn a_redelivered_removal_changes_nothing() {
    let world = World::new(Source::Versioned, rules());
    world.protect("a", "one").await;
    let removal = world.remove("a").await;
    let (partition, writes) = (world.partition("a"), world.memory.catalog.writes());
    world.handle(&removal).await;
    assert_eq!((world.partition("a"), world.memory.catalog.writes()), (partition, writes));
}

#[tokio::test]
async fn a_late_removal_does_not_touch_what_came_after_it() {
    let world = World::new(Source::Versioned, rules());
    world.protect("a", "one").await;
    let removal = world.delete("a");
    world.protect("a", "two").await;
    world.handle(&removal).await;
    assert_eq!(world.active("a"), ["two"]);
    assert_eq!(world.disowned("a"), [("one".to_owned(), Reason::Removed)]);
}

#[tokio::test]
async fn a_removal_that_comes_before_its_creation_still_counts() {
    let world = World::new(Source::Versioned, rules());
    let (created, removed) = (world.put("a", "one"), world.delete("a"));
    world.handle_all(&[removed, created]).await;
    assert_eq!(world.disowned("a"), [("one".to_owned(), Reason::Removed)]);
}

#[tokio::test]
async fn the_grace_counts_from_the_handling_and_the_removal_from_the_event() {
    let world = World::new(Source::Versioned, rules());
    world.protect("a", "one").await;
    let removal = world.delete("a");
    world.advance(SpanMs(GRACE.0 * 3));
    world.handle(&removal).await;
    let row = world.rows("a").remove(0);
    let now = engine::ports::clock::Clock::now(&*world.memory.clock);
    assert_eq!(row.state, CopyState::Disowned { at: now, reason: Reason::Removed });
    assert_eq!(row.removed_at, Some(removal.time));
}

#[tokio::test]
async fn the_permanent_delete_of_an_old_version_changes_nothing() {
    let world = World::new(Source::Versioned, rules());
    let first = world.protect("a", "one").await;
    world.protect("a", "two").await;
    let event = world.delete_version("a", &version_of(&first));
    world.handle(&event).await;
    assert_eq!(world.active("a"), ["two", "one"]);
}

fn version_of(event: &lifecycle::event::ObjectEvent) -> String {
    match &event.what {
        lifecycle::event::Happened::Created(version) => version.version_id.as_ref().unwrap().to_string(),
        other => panic!("{other:?} made no version"),
    }
}

#[tokio::test]
async fn the_permanent_delete_of_the_only_version_disowns_it() {
    let world = World::new(Source::Versioned, rules());
    let only = world.protect("a", "one").await;
    let event = world.delete_version("a", &version_of(&only));
    world.handle(&event).await;
    assert_eq!(world.active("a"), [""; 0]);
    assert_eq!(world.copies(), 1);
    world.assert_laws("after the permanent delete");
}

/// The look that a permanent delete asks for meets a source that does not answer, in every way that is not a definite 404.
#[tokio::test]
async fn an_unknown_source_is_never_read_as_deleted() {
    let unknown = [
        ErrorKind::Missing,
        ErrorKind::AccessDenied("s3:GetObject".to_owned()),
        ErrorKind::Throttled,
        ErrorKind::Unavailable,
        ErrorKind::Damaged("half an answer".to_owned()),
        ErrorKind::Invalid("400".to_owned()),
        ErrorKind::Internal("500".to_owned()),
    ];
    for kind in unknown {
        let world = World::new(Source::Versioned, keep(2));
        let old = world.protect("a", "zero").await;
        world.protect("a", "one").await;
        let event = world.delete_version("a", &version_of(&old));
        let partition = world.partition("a");
        world.faults.at("source.head", 1, Fate::FailBefore(kind.clone()));
        world.try_handle(&event).await.unwrap_err();
        assert_eq!(world.partition("a"), partition, "{kind:?}");
        assert_eq!(world.copies(), 2, "{kind:?}");
    }
}
