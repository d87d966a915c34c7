//! The trace behind each guard of the protocol (`docs/invariants.md`, "Why each guard is there"), step by step as it went
//! wrong without it. Each runs with all guards and must hold; with the feature `sabotage` it runs once more without its
//! guard, and must not: a trace that passes either way shows nothing.

use crate::world::{GRACE, Source, World, key, rules};
use engine::error::ErrorKind;
use engine::flows::clean::clean;
use engine::flows::handle::handle;
use engine::flows::reconcile::{Orphans, reconcile};
use engine::flows::settle::settle;
use engine::flows::undelete::{Depth, Removed, undelete};
use engine::limits::{ORPHAN_AGE, TOMBSTONE_TTL};
use engine::policy::{Mode, Policy};
use engine::ports::catalog::Catalog;
use engine::ports::clock::Clock;
use engine::ports::objects::ObjectWrite;
use engine::ports::progress::Silent;
use engine::wrap::faults::Faults;
use engine::wrap::tap::Fate;
use lifecycle::event::ObjectEvent;
use lifecycle::guards::Guards;
use lifecycle::ids::ObjectKey;
use lifecycle::keep::Keep;
use lifecycle::policy::Rules;
use lifecycle::row::{CopyRow, CopyState};
use lifecycle::settle::Ask;
use lifecycle::time::SpanMs;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

macro_rules! traces {
    ($($name:ident without $guard:ident: $trace:ident;)+) => {
        $(
            #[tokio::test]
            async fn $name() {
                $trace(Guards::default()).await;
            }
        )+

        #[cfg(feature = "sabotage")]
        mod sabotage {
            use futures_util::FutureExt;
            use lifecycle::guards::{Guard, Guards};
            use std::panic::AssertUnwindSafe;

            $(
                #[tokio::test]
                async fn $name() {
                    let trace = super::$trace(Guards::without(Guard::$guard));
                    let outcome = AssertUnwindSafe(trace).catch_unwind().await;
                    assert!(outcome.is_err(), "nothing went wrong without {:?}", Guard::$guard);
                }
            )+
        }
    };
}

traces! {
    guard_01_a_404_or_412_does_not_end_the_handler without SettleAfterGone: gone_before_the_row_was_settled;
    guard_02_bytes_of_a_killed_handler_are_adopted without AdoptAfterGone: killed_between_bytes_and_row_then_overwritten;
    guard_03_an_upsert_never_revives without UpsertNeverRevives: duplicate_after_the_removal;
    guard_03_a_purge_reads_the_row_once_more without PurgeReadsAgain: old_index_page_of_a_row_that_is_active;
    guard_04_time_ordered_policies_look without LookWhenTimeOrdered: clock_steps_back_between_two_puts;
    guard_04_the_look_comes_after_the_read without LookAfterRead: put_between_look_and_read;
    guard_05_permanent_deletes_look without VersionRemovedLooks: current_version_deleted_for_good;
    guard_05_a_deleted_marker_brings_a_copy_back without VersionRemovedLooks: marker_deleted_for_good;
    guard_06_lower_bounds_are_not_trusted_alone without FloatingLooks: late_event_older_than_the_looked_copy;
    guard_07_old_events_only_look without OldEventsOnlyLook: duplicate_after_the_tombstones_lifetime;
    guard_08_differences_are_hints without DifferencesAreHints: put_between_two_listings;
    guard_09_what_was_undeleted_outlives_older_removals without UndeleteOutlivesOldRemovals: late_removal_after_an_undelete;
    guard_10_claims_are_conditional without ClaimIsConditional: raised_between_read_and_claim;
    guard_10_bytes_go_after_the_claim without BytesAfterClaim: killed_right_after_the_bytes;
    guard_11_reconcile_settles_what_it_touches without ReconcileSettles: put_that_nobody_told_of;
    guard_12_looked_names_are_unique without LookedNamesAreUnique: two_looks_at_one_content;
    guard_13_a_mirror_looks_again without MirrorLooksAgain: deleted_between_head_and_copy;
}

fn world(source: Source, keep: u32, guards: Guards) -> World {
    World::new(source, Rules { keep: Keep::last(keep), guards, ..rules() })
}

/// Handles an event in a process that dies on the way.
async fn handle_and_die(policy: &Policy, faults: &Faults, event: &ObjectEvent) {
    tokio::select! {
        biased;
        () = faults.death() => {}
        result = handle(policy, &event.key, std::slice::from_ref(event)) => panic!("it survived: {result:?}"),
    }
}

/// A process that dies at that call.
fn dying_at(world: &World, call: &'static str, nth: usize, fate: Fate) -> (Policy, Arc<Faults>) {
    let faults = Arc::new(Faults::default());
    faults.at(call, nth, fate);
    (world.policy_through(Arc::clone(&faults) as _), faults)
}

async fn reconciled(world: &World) {
    world.advance(SpanMs(ORPHAN_AGE.0 + 1));
    let report = reconcile(&world.policy, Orphans::OfAge, &Silent, &CancellationToken::new()).await.unwrap();
    assert_eq!(report.counted("gap"), 0, "{report:?}");
}

async fn cleaned(world: &World) {
    clean(&world.policy, &CancellationToken::new()).await.unwrap();
}

/// Copy; the delete is handled; row; death. The redelivery meets a 404.
async fn gone_before_the_row_was_settled(guards: Guards) {
    let world = world(Source::Unversioned, 3, guards);
    let created = world.put("a", "one");
    let (dying, faults) = dying_at(&world, "catalog.partition", 1, Fate::DieBefore);
    let (other, source, deleted) = (world.policy.clone(), Arc::clone(&world.memory.source), created.clone());
    let removal = async move {
        let order = lifecycle::order::Order::from_sequencer(&source.delete_object(&deleted.key));
        let event = ObjectEvent { order, what: lifecycle::event::Happened::Removed, ..deleted };
        handle(&other, &event.key, std::slice::from_ref(&event)).await.unwrap();
    };
    faults.at("catalog.upsert", 1, Fate::First(Box::pin(removal)));
    handle_and_die(&dying, &faults, &created).await;
    assert_eq!(world.active("a"), ["one"], "so far as the dead handler came");
    world.handle(&created).await;
    world.assert_laws("after the redelivery");
}

async fn killed_between_bytes_and_row_then_overwritten(guards: Guards) {
    let world = world(Source::Unversioned, 3, guards);
    let first = world.put("a", "one");
    let (dying, faults) = dying_at(&world, "catalog.upsert", 1, Fate::DieBefore);
    handle_and_die(&dying, &faults, &first).await;
    let second = world.put("a", "two");
    world.handle_all(&[second, first]).await;
    world.assert_laws("after the redelivery");
    assert_eq!(world.active("a"), ["two", "one"]);
}

async fn duplicate_after_the_removal(guards: Guards) {
    let world = world(Source::Versioned, 3, guards);
    let created = world.protect("a", "one").await;
    world.remove("a").await;
    let (dying, faults) = dying_at(&world, "catalog.partition", 1, Fate::DieBefore);
    handle_and_die(&dying, &faults, &created).await;
    assert_eq!(world.active("a"), [""; 0], "disowned is terminal for a copy key");
}

/// The cleaner's index page is older than the row. Nothing in this version makes a disowned row active again: it stands for
/// whatever else might.
async fn old_index_page_of_a_row_that_is_active(guards: Guards) {
    let world = world(Source::Versioned, 3, guards);
    world.protect("a", "one").await;
    world.remove("a").await;
    world.advance(GRACE);
    world.memory.catalog.freeze_index();
    let row = CopyRow { state: CopyState::Active { due_at: None }, ..world.rows("a").remove(0) };
    world.memory.catalog.record_mirrored(&key("a"), &row).await.unwrap();
    cleaned(&world).await;
    assert_eq!(world.active("a"), ["one"]);
    world.assert_no_wrong_purge("after the clean");
}

/// Put at t = 10, put at t = 9, keep 1.
async fn clock_steps_back_between_two_puts(guards: Guards) {
    let world = world(Source::TimeOrdered, 1, guards);
    let now = world.memory.clock.now();
    world.memory.clock.set(now.plus(SpanMs(10)));
    world.protect("a", "one").await;
    world.memory.clock.set(now.plus(SpanMs(9)));
    world.protect("a", "two").await;
    world.assert_laws("after the second put");
    assert_eq!(world.active("a"), ["two"]);
}

/// A duplicate is settled; between its look and its read, another handler puts the row of a newer content.
async fn put_between_look_and_read(guards: Guards) {
    let world = world(Source::TimeOrdered, 1, guards);
    let first = world.protect("a", "one").await;
    let second = world.put("a", "two");
    // The source shows the second put only after the first look: it is the put that comes between.
    let (other, dead) = dying_at(&world, "catalog.partition", 1, Fate::DieBefore);
    let redelivered = second.clone();
    let half = async move { handle_and_die(&other, &dead, &redelivered).await };
    let held_back = hold_back(&world, "one");
    let put = async move {
        held_back();
        half.await;
    };
    world.faults.at("catalog.partition", 1, Fate::First(Box::pin(put)));
    settle(&world.policy, &first.key, Ask::BY_LOOK).await.unwrap();
    world.assert_safe("after settling");
    world.handle(&second).await;
    world.assert_laws("after the redelivery");
}

/// Takes the source back to an earlier content; the closure puts the later one there again.
fn hold_back(world: &World, earlier: &'static str) -> impl FnOnce() + Send + use<> {
    let source = Arc::clone(&world.memory.source);
    let later = source.contents().remove(&key("a")).unwrap();
    source.put_object(&key("a"), earlier, later.attributes.clone());
    move || drop(source.put_object(&key("a"), later.bytes, later.attributes))
}

async fn current_version_deleted_for_good(guards: Guards) {
    let world = world(Source::Versioned, 3, guards);
    world.protect("a", "one").await;
    let version = world.head("a").version.version_id.unwrap();
    let event = world.delete_version("a", version.as_str());
    world.handle(&event).await;
    world.assert_laws("after the permanent delete");
}

/// The key is live again, and stays so when the removal is delivered once more.
async fn marker_deleted_for_good(guards: Guards) {
    let world = world(Source::Versioned, 3, guards);
    world.protect("a", "one").await;
    let removal = world.remove("a").await;
    let marker = format!("{:016x}", 2);
    let event = world.delete_version("a", &marker);
    assert_eq!(world.original("a").as_deref(), Some("one"), "it was the marker");
    world.handle_all(&[event, removal]).await;
    world.assert_laws("after the marker's delete");
    assert_eq!(world.active("a"), ["one"]);
}

/// Only a look has found the current content; then the late event of an older version comes, with an order above its.
async fn late_event_older_than_the_looked_copy(guards: Guards) {
    let world = world(Source::Versioned, 1, guards);
    let late = world.put("a", "one");
    world.put("a", "two");
    reconciled(&world).await;
    assert_eq!(world.active("a"), ["two"]);
    world.handle(&late).await;
    world.assert_laws("after the late event");
    assert_eq!(world.active("a"), ["two"]);
}

async fn duplicate_after_the_tombstones_lifetime(guards: Guards) {
    let world = world(Source::Versioned, 3, guards);
    let created = world.protect("a", "one").await;
    world.remove("a").await;
    world.advance(SpanMs(TOMBSTONE_TTL.0 + 1));
    cleaned(&world).await;
    assert_eq!(world.memory.catalog.contents().len(), 0, "nothing is remembered");
    world.handle(&created).await;
    world.assert_laws("after the duplicate");
}

/// Reconcile has listed the source; then comes a put, whose handler puts the row; then reconcile lists the catalog.
async fn put_between_two_listings(guards: Guards) {
    let world = world(Source::Versioned, 3, guards);
    let (other, source) = (world.policy.clone(), Arc::clone(&world.memory.source));
    let time = world.memory.clock.now();
    let put = async move {
        let (sequencer, head) = source.put_object(&key("a"), "one", Default::default());
        let what = lifecycle::event::Happened::Created(head.version);
        let order = lifecycle::order::Order::from_sequencer(&sequencer);
        let event = ObjectEvent { key: key("a"), time, order, what };
        handle(&other, &event.key, std::slice::from_ref(&event)).await.unwrap();
    };
    world.faults.at("keys.keys", 1, Fate::First(Box::pin(put)));
    reconciled(&world).await;
    assert_eq!((world.active("a"), world.disowned("a")), (vec!["one".to_owned()], vec![]));
}

/// Reconcile noticed the removal before its event came; the object was undeleted; then the event comes.
async fn late_removal_after_an_undelete(guards: Guards) {
    let world = world(Source::Versioned, 3, guards);
    world.protect("a", "one").await;
    let removal = world.delete("a");
    reconciled(&world).await;
    let source: Arc<dyn ObjectWrite> = Arc::clone(&world.memory.source) as _;
    let (what, cancel) = (Removed::Key(key("a")), CancellationToken::new());
    undelete(&world.policy, &what, Depth::All, &source, "alice", &Silent, &cancel).await;
    world.handle(&removal).await;
    assert_eq!(world.active("a"), ["one"]);
    reconciled(&world).await;
    assert_eq!(world.active("a"), ["one"]);
}

/// The handler of the second put reads both rows and means to claim the first as surplus. Then the second version is
/// deleted for good: the first is current again, and its row is raised.
async fn raised_between_read_and_claim(guards: Guards) {
    let world = world(Source::Versioned, 1, guards);
    world.protect("a", "one").await;
    let second = world.put("a", "two");
    let version = world.head("a").version.version_id.unwrap();
    let (other, source, time) =
        (world.policy_through(Arc::new(Faults::default())), Arc::clone(&world.memory.source), second.time);
    let once = Arc::new(tokio::sync::Mutex::new(Some(async move {
        let sequencer = source.delete_version(&key("a"), &version).unwrap();
        let what = lifecycle::event::Happened::VersionRemoved(version);
        let order = lifecycle::order::Order::from_sequencer(&sequencer);
        let event = ObjectEvent { key: key("a"), time, order, what };
        handle(&other, &event.key, std::slice::from_ref(&event)).await.unwrap();
    })));
    // Right after the read: before the claim, or before what the handler without the guard does instead of it.
    for call in ["catalog.change", "catalog.rows"] {
        let once = Arc::clone(&once);
        let deleted = async move {
            if let Some(delete) = once.lock().await.take() {
                delete.await;
            }
        };
        world.faults.at(call, 1, Fate::First(Box::pin(deleted)));
    }
    world.handle(&second).await;
    world.assert_laws("after both");
    assert_eq!(world.active("a"), ["one"]);
}

async fn killed_right_after_the_bytes(guards: Guards) {
    let world = world(Source::Versioned, 1, guards);
    world.protect("a", "one").await;
    let second = world.put("a", "two");
    let (dying, faults) = dying_at(&world, "purger.purge", 1, Fate::DieAfter);
    handle_and_die(&dying, &faults, &second).await;
    assert!(!world.active("a").contains(&"(no bytes)".to_owned()), "{:?}", world.rows("a"));
    world.assert_no_wrong_purge("after the death");
    world.handle(&second).await;
    world.assert_laws("after the redelivery");
}

async fn put_that_nobody_told_of(guards: Guards) {
    let world = world(Source::Versioned, 3, guards);
    world.put("a", "one");
    reconciled(&world).await;
    world.assert_laws("after reconcile");
}

/// Two handlers look and copy the same content. One puts its row, which becomes surplus and is purged; then the other puts
/// its own, and dies.
async fn two_looks_at_one_content(guards: Guards) {
    let world = world(Source::Versioned, 1, guards);
    world.put("a", "one");
    let (dying, faults) = dying_at(&world, "catalog.partition", 2, Fate::DieBefore);
    let (other, source, time) = (world.policy.clone(), Arc::clone(&world.memory.source), world.memory.clock.now());
    let faster = async move {
        settle(&other, &key("a"), Ask::BY_LOOK).await.unwrap();
        let (sequencer, head) = source.put_object(&key("a"), "two", Default::default());
        let what = lifecycle::event::Happened::Created(head.version);
        let order = lifecycle::order::Order::from_sequencer(&sequencer);
        let event = ObjectEvent { key: key("a"), time, order, what };
        handle(&other, &event.key, std::slice::from_ref(&event)).await.unwrap();
    };
    faults.at("catalog.upsert", 1, Fate::First(Box::pin(faster)));
    let looked: ObjectKey = key("a");
    tokio::select! {
        biased;
        () = faults.death() => {}
        result = settle(&dying, &looked, Ask::BY_LOOK) => panic!("it survived: {result:?}"),
    }
    assert!(!world.active("a").contains(&"(no bytes)".to_owned()), "{:?}", world.rows("a"));
    reconciled(&world).await;
    world.assert_laws("after reconcile");
}

/// The mirror has seen the object; then it is deleted, and that event finds nothing to delete; then the copy is made.
async fn deleted_between_head_and_copy(guards: Guards) {
    let world = World::in_mode(Mode::Mirror, Source::Versioned, Rules { guards, ..rules() });
    let created = world.put("a", "one");
    let (other, source) = (world.policy.clone(), Arc::clone(&world.memory.source));
    let deleted = async move {
        source.delete_object(&key("a"));
        engine::flows::mirror::mirror(&other, &key("a")).await.unwrap();
    };
    world.faults.at("copier.copy", 1, Fate::First(Box::pin(deleted)));
    world.handle(&created).await;
    assert_eq!(world.copies(), 0, "the source has nothing, and no event is left to say so");
}

/// The guards and their deaths above need a source that answers: what is unknown decides nothing (V8).
#[tokio::test]
async fn an_unknown_look_gives_no_verdict() {
    let world = world(Source::TimeOrdered, 1, Guards::default());
    world.protect("a", "one").await;
    let event = world.put("a", "two");
    world.faults.at("source.head", 1, Fate::FailBefore(ErrorKind::AccessDenied("HEAD".to_owned())));
    world.try_handle(&event).await.unwrap_err();
    assert_eq!((world.active("a").len(), world.copies()), (2, 2));
    world.handle(&event).await;
    assert_eq!(world.active("a"), ["two"]);
}
