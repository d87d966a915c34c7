//! Restore: the right copy, verified, over nothing newer; and a report that says so.

use crate::world::{Source, World, key, rules, text};
use engine::error::ErrorKind;
use engine::flows::restore::{Archived, Newer, RestoreRequest, Selected, restore};
use engine::limits::{RETRIEVAL_LOOK_EVERY, RETRIEVAL_WAIT_MAX};
use engine::memory::bucket::{MemoryBucket, RETRIEVAL, Versioning};
use engine::ports::clock::Clock;
use engine::ports::objects::{Attributes, ObjectWrite, Onto};
use engine::ports::progress::Silent;
use engine::report::Report;
use engine::wrap::faults::Faults;
use engine::wrap::tap::{Fate, Tap};
use lifecycle::restore::Wanted;
use lifecycle::time::SpanMs;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

fn one(name: &str, wanted: Wanted) -> RestoreRequest {
    RestoreRequest {
        keys: Selected::One(key(name)),
        wanted,
        newer: Newer::Keep,
        dry_run: false,
        archived: Archived::Tell,
    }
}

fn all(prefix: &str) -> RestoreRequest {
    RestoreRequest {
        keys: Selected::Prefix(prefix.to_owned()),
        wanted: Wanted::Newest,
        newer: Newer::Keep,
        dry_run: false,
        archived: Archived::Tell,
    }
}

async fn restored(world: &World, request: &RestoreRequest, target: Arc<dyn ObjectWrite>) -> Report {
    restore(&world.policy, request, &target, "alice", &Silent, &CancellationToken::new()).await
}

async fn to_source(world: &World, request: &RestoreRequest) -> Report {
    restored(world, request, Arc::clone(&world.memory.source) as _).await
}

fn elsewhere(world: &World) -> Arc<MemoryBucket> {
    Arc::new(MemoryBucket::new("elsewhere", Versioning::Off, Arc::clone(&world.memory.clock) as Arc<dyn Clock>))
}

fn read(bucket: &MemoryBucket, name: &str) -> Option<String> {
    bucket.read(&key(name), None).as_ref().map(text)
}

#[tokio::test]
async fn the_newest_copy_of_a_deleted_object_comes_back_with_its_attributes() {
    let world = World::new(Source::Versioned, rules());
    world.protect("a", "one").await;
    world.protect("a", "two").await;
    world.remove("a").await;
    let report = to_source(&world, &one("a", Wanted::Newest)).await;
    assert_eq!((report.counted("restored"), report.counted("bytes"), report.failures), (1, 3, 0));
    let Some(stored) = world.memory.source.read(&key("a"), None) else { panic!("it is not back") };
    assert_eq!((text(&stored).as_str(), stored.attributes.content_type.as_deref()), ("two", Some("text/plain")));
    assert_eq!(world.journal().last(), Some(&"restore"));
}

#[tokio::test]
async fn as_of_a_time_gives_what_was_current_then() {
    let world = World::new(Source::Versioned, rules());
    let now = || world.memory.clock.now().minus(SpanMs(1));
    let before = now();
    world.advance(SpanMs(10));
    world.protect("a", "one").await;
    let at_one = now();
    world.protect("a", "two").await;
    let at_two = now();
    world.remove("a").await;
    let while_gone = now();
    world.advance(SpanMs(10));
    world.protect("a", "three").await;
    for (at, expected) in [(at_one, "one"), (at_two, "two"), (now(), "three")] {
        let target = elsewhere(&world);
        restored(&world, &one("a", Wanted::At(at)), Arc::clone(&target) as _).await;
        assert_eq!(read(&target, "a").as_deref(), Some(expected), "at {at}");
    }
    let target = elsewhere(&world);
    let report = restored(&world, &one("a", Wanted::At(while_gone)), Arc::clone(&target) as _).await;
    assert_eq!((report.counted("not-there"), read(&target, "a")), (1, None));
    let report = restored(&world, &one("a", Wanted::At(before)), Arc::clone(&target) as _).await;
    assert_eq!((report.failures, read(&target, "a")), (1, None));
}

#[tokio::test]
async fn a_damaged_copy_is_refused_and_named_and_the_next_older_is_offered() {
    let world = World::new(Source::Versioned, rules());
    world.protect("a", "one").await;
    world.protect("a", "two").await;
    world.remove("a").await;
    let rows = world.rows("a");
    for damage in ["twO", "tw", "two!", ""] {
        world.memory.destination.damage(rows[0].copy_key.object(), damage);
        let report = to_source(&world, &one("a", Wanted::Newest)).await;
        assert_eq!((report.counted("restored"), report.failures), (0, 1), "{damage:?}");
        let why = &report.failed[0].why;
        assert!(why.contains(rows[0].copy_key.as_str()) && why.contains("damaged"), "{why}");
        assert!(why.contains(rows[1].copy_key.as_str()) && why.contains("next older"), "{why}");
        assert_eq!(world.original("a"), None, "nothing half-right is visible");
        assert_eq!(world.journal().last(), Some(&"refuse"));
    }
    let offered = one("a", Wanted::Copy(rows[1].copy_key.clone()));
    assert_eq!(to_source(&world, &offered).await.counted("restored"), 1);
    assert_eq!(world.original("a").as_deref(), Some("one"));
}

#[tokio::test]
async fn something_newer_is_not_overwritten_unless_asked_to() {
    let world = World::new(Source::Versioned, rules());
    world.protect("a", "one").await;
    let row = world.rows("a").remove(0);
    world.put("a", "newer");
    let report = to_source(&world, &one("a", Wanted::Newest)).await;
    assert_eq!((report.failures, world.original("a").as_deref()), (1, Some("newer")));
    assert!(report.failed[0].why.contains("--overwrite"), "{:?}", report.failed);
    let report = to_source(&world, &all("")).await;
    assert_eq!((report.counted("skipped-newer"), report.failures), (1, 0));
    let overwrite = RestoreRequest { newer: Newer::Overwrite, ..one("a", Wanted::Copy(row.copy_key)) };
    assert_eq!(to_source(&world, &overwrite).await.counted("restored"), 1);
    assert_eq!(world.original("a").as_deref(), Some("one"));
}

#[tokio::test]
async fn an_object_with_the_same_content_is_skipped_and_not_written() {
    let world = World::new(Source::Versioned, rules());
    world.protect("a", "one").await;
    let before = world.head("a");
    let report = to_source(&world, &one("a", Wanted::Newest)).await;
    assert_eq!((report.counted("skipped-same"), report.counted("restored")), (1, 0));
    assert_eq!(world.head("a"), before);
}

#[tokio::test]
async fn a_dry_run_writes_nothing_and_says_what_it_would_do() {
    let world = World::new(Source::Versioned, rules());
    world.protect("a", "one").await;
    world.remove("a").await;
    world.recorder.clear();
    let request = RestoreRequest { dry_run: true, ..one("a", Wanted::Newest) };
    let report = to_source(&world, &request).await;
    assert_eq!((report.counted("would-restore"), world.original("a")), (1, None));
    assert_eq!(world.recorder.effects(), [""; 0]);
}

#[tokio::test]
async fn a_prefix_is_restored_key_by_key_and_one_failure_stops_nothing() {
    let world = World::new(Source::Versioned, rules());
    for name in ["p/a", "p/b", "p/c", "q"] {
        world.protect(name, name).await;
        world.remove(name).await;
    }
    let damaged = world.rows("p/b").remove(0);
    world.memory.destination.damage(damaged.copy_key.object(), "???");
    let report = to_source(&world, &all("p/")).await;
    assert_eq!((report.counted("restored"), report.failures), (2, 1));
    assert_eq!(report.failed[0].object, "p/b");
    let there: Vec<_> = ["p/a", "p/b", "p/c", "q"].iter().map(|name| world.original(name).is_some()).collect();
    assert_eq!(there, [true, false, true, false]);
}

#[tokio::test]
async fn what_somebody_writes_in_the_middle_is_not_overwritten() {
    let world = World::new(Source::Versioned, rules());
    world.protect("a", "one").await;
    world.remove("a").await;
    let faults = Arc::new(Faults::default());
    let source = Arc::clone(&world.memory.source);
    let other = async move {
        source.store(&key("a"), "somebody's".into(), Attributes::default(), &Onto::Anything);
    };
    faults.at("target.put", 1, Fate::First(Box::pin(other)));
    let target = Tap::new(faults).write("target", Arc::clone(&world.memory.source) as _);
    let report = restored(&world, &one("a", Wanted::Newest), target).await;
    assert_eq!((report.failures, world.original("a").as_deref()), (1, Some("somebody's")));
}

#[tokio::test]
async fn a_key_without_copies_and_a_prefix_without_keys_are_failures_that_say_so() {
    let world = World::new(Source::Versioned, rules());
    assert_eq!(to_source(&world, &one("nothing", Wanted::Newest)).await.failures, 1);
    assert_eq!(to_source(&world, &all("nothing/")).await.failures, 1);
}

#[tokio::test]
async fn archived_copies_are_asked_for_and_told_of_or_waited_for() {
    let world = World::new(Source::Versioned, rules());
    for name in ["p/archived", "p/at hand"] {
        world.protect(name, name).await;
        world.delete(name);
    }
    let row = world.rows("p/archived").remove(0);
    world.memory.destination.archive(row.copy_key.object());
    let report = to_source(&world, &all("p/")).await;
    assert_eq!((report.counted("restored"), report.counted("retrieving"), report.failures), (1, 1, 1), "{report:?}");
    assert!(report.failed[0].why.contains("--wait"), "{report:?}");

    world.advance(SpanMs(RETRIEVAL.0 - 2 * RETRIEVAL_LOOK_EVERY.0));
    let clock = Arc::clone(&world.memory.clock);
    let cancel = CancellationToken::new();
    let request = RestoreRequest { archived: Archived::Await, newer: Newer::Overwrite, ..all("p/") };
    let source: Arc<dyn ObjectWrite> = Arc::clone(&world.memory.source) as _;
    let waiting = restore(&world.policy, &request, &source, "alice", &Silent, &cancel);
    let time = async {
        for _ in 0..2 {
            clock.until_asleep(1).await;
            world.put("p/at hand", "written while others were awaited");
            clock.advance(RETRIEVAL_LOOK_EVERY);
        }
    };
    let (report, ()) = tokio::join!(waiting, time);
    assert_eq!((report.counted("restored"), report.counted("skipped-same"), report.failures), (1, 1, 0), "{report:?}");
    assert_eq!(world.original("p/archived").as_deref(), Some("p/archived"));
    assert_eq!(world.original("p/at hand").as_deref(), Some("written while others were awaited"));
    let restored = world.journal().iter().filter(|action| **action == "restore").count();
    assert_eq!(restored, 2, "one line for each, and none for what did not come yet");
}

#[tokio::test]
async fn what_was_written_while_its_copy_was_on_its_way_is_left_alone() {
    let world = World::new(Source::Versioned, rules());
    world.protect("a", "removed").await;
    world.delete("a");
    world.memory.destination.archive(world.rows("a").remove(0).copy_key.object());
    let clock = Arc::clone(&world.memory.clock);
    let request = RestoreRequest { archived: Archived::Await, newer: Newer::Overwrite, ..one("a", Wanted::Newest) };
    let source: Arc<dyn ObjectWrite> = Arc::clone(&world.memory.source) as _;
    let cancel = CancellationToken::new();
    let waiting = restore(&world.policy, &request, &source, "alice", &Silent, &cancel);
    let time = async {
        clock.until_asleep(1).await;
        clock.advance(RETRIEVAL);
        world.put("a", "made anew");
    };
    let (report, ()) = tokio::join!(waiting, time);
    assert!(report.failed[0].why.contains("while its copy was on its way"), "{report:?}");
    assert_eq!(world.original("a").as_deref(), Some("made anew"));
}

#[tokio::test]
async fn an_outage_while_copies_are_awaited_is_waited_for_too() {
    let world = World::new(Source::Versioned, rules());
    world.protect("a", "removed").await;
    world.delete("a");
    world.memory.destination.archive(world.rows("a").remove(0).copy_key.object());
    let faults = Arc::new(Faults::default());
    faults.at("copies.get", 2, Fate::FailBefore(ErrorKind::Unavailable));
    let policy = world.policy_through(Arc::clone(&faults) as _);
    let clock = Arc::clone(&world.memory.clock);
    let request = RestoreRequest { archived: Archived::Await, ..all("") };
    let source: Arc<dyn ObjectWrite> = Arc::clone(&world.memory.source) as _;
    let cancel = CancellationToken::new();
    let waiting = restore(&policy, &request, &source, "alice", &Silent, &cancel);
    let time = async {
        loop {
            clock.until_asleep(1).await;
            clock.advance(RETRIEVAL);
            tokio::task::yield_now().await; // the sleeper's turn
        }
    };
    let report = tokio::select! {
        biased;
        report = waiting => report,
        () = time => unreachable!("it goes on for ever"),
    };
    assert_eq!((report.counted("restored"), report.failures), (1, 0), "{report:?}");
    world.logs.expect("it is looked for again");
}

#[tokio::test]
async fn what_does_not_come_out_of_an_archive_is_told_by_name() {
    let world = World::new(Source::Versioned, rules());
    for stopped in [true, false] {
        world.protect("a", "removed").await;
        world.delete("a");
        let row = world.rows("a").into_iter().find(|row| row.is_active()).unwrap();
        world.memory.destination.archive(row.copy_key.object());
        let clock = Arc::clone(&world.memory.clock);
        let request = RestoreRequest { archived: Archived::Await, ..one("a", Wanted::Newest) };
        let source: Arc<dyn ObjectWrite> = Arc::clone(&world.memory.source) as _;
        let cancel = CancellationToken::new();
        let waiting = restore(&world.policy, &request, &source, "alice", &Silent, &cancel);
        let time = async {
            clock.until_asleep(1).await;
            match stopped {
                true => cancel.cancel(),
                false => {
                    world.memory.destination.archive(row.copy_key.object());
                    clock.set(clock.now().plus(RETRIEVAL_WAIT_MAX));
                    clock.advance(RETRIEVAL_LOOK_EVERY);
                }
            }
        };
        let (report, ()) = tokio::join!(waiting, time);
        let told = (report.counted("retrieving"), report.failures, report.cancelled);
        assert_eq!(told, (1, 1, stopped), "{report:?}");
    }
}
