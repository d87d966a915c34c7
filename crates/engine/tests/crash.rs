//! Every flow, killed at every effect, in every way: before it, after it, in the middle of a batch, and with the request
//! still on its way, to take effect before the redelivery, after it, or after everything. Then comes what would come: the
//! redelivery of what was not acknowledged, a reconcile, a clean. And then the laws hold: no active row without bytes,
//! rows and objects one to one, the current content has its copy, nothing purged before its grace, nothing left of what is
//! gone (I1, I2, I7, V3, V4, guard 11).

#![allow(clippy::unwrap_used, reason = "a panic is how a test says what is wrong")]

mod world;

use engine::flows::clean::clean;
use engine::flows::handle::handle;
use engine::flows::reconcile::{Orphans, reconcile};
use engine::flows::release::release;
use engine::flows::restore::{Archived, Newer, RestoreRequest, Selected, restore};
use engine::flows::undelete::{Depth, Removed, undelete};
use engine::limits::ORPHAN_AGE;
use engine::policy::{Mode, Policy};
use engine::ports::journal::Action;
use engine::ports::objects::ObjectWrite;
use engine::ports::progress::Silent;
use engine::wrap::faults::{Death, Faults};
use lifecycle::breaker::BreakerRule;
use lifecycle::event::ObjectEvent;
use lifecycle::keep::Keep;
use lifecycle::policy::Rules;
use lifecycle::restore::Wanted;
use lifecycle::time::SpanMs;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use world::{GRACE, Source, World, keep, key, rules};

/// What is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    /// A put that makes an older copy surplus.
    Replicate,
    /// A put whose version is overwritten before its redelivery.
    ReplicateOverwritten,
    /// A put that only a look finds, since its event has no order.
    ReplicateByLook,
    /// A delete.
    Disown,
    /// The permanent delete of the only version.
    VersionRemoved,
    /// Due copies, and one that time alone made surplus.
    Clean,
    /// A mass deletion: the breaker trips.
    Trip,
    /// A person releases it.
    Release,
    /// A put, an overwrite, a delete of mirrored objects.
    Mirror,
    /// One object, to the source.
    Restore,
    /// A removed object with three copies.
    Undelete,
    /// Bytes without a row, a row without bytes, a put and a delete that nobody told of.
    Reconcile,
}

/// When a request that was on its way takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arrives {
    BeforeRedelivery,
    AfterRedelivery,
    AfterRecovery,
}

impl Flow {
    /// The world just before the flow runs, and the events that it is to handle.
    async fn prepare(self, source: Source) -> (World, Vec<ObjectEvent>) {
        let world = match self {
            Flow::Mirror => World::in_mode(Mode::Mirror, source, rules()),
            Flow::Clean => {
                let within = Keep { within: Some(SpanMs::minutes(30)), ..Keep::last(1) };
                World::new(source, Rules { keep: within, ..rules() })
            }
            Flow::Trip | Flow::Release => {
                let breaker = BreakerRule { window: SpanMs::hours(6), deletes: 1, share: 0.1 };
                World::new(source, Rules { breaker: Some(breaker), ..rules() })
            }
            Flow::Replicate => World::new(source, keep(1)),
            _ => World::new(source, rules()),
        };
        world.protect("other", "stays").await;
        let mut events = Vec::new();
        match self {
            Flow::Replicate | Flow::ReplicateOverwritten => {
                world.protect("a", "one").await;
                events.push(world.put("a", "two"));
            }
            Flow::ReplicateByLook => {
                world.protect("a", "one").await;
                events.push(ObjectEvent { order: None, ..world.put("a", "two") });
            }
            Flow::Disown => {
                world.protect("a", "one").await;
                world.protect("a", "two").await;
                events.push(world.delete("a"));
            }
            Flow::VersionRemoved => {
                world.protect("a", "one").await;
                let version = world.head("a").version.version_id.expect("only of versioned sources");
                events.push(world.delete_version("a", version.as_str()));
            }
            Flow::Clean => {
                for name in ["a", "b", "c"] {
                    world.protect(name, "one").await;
                    world.protect(name, "two").await;
                    if name != "c" {
                        world.remove(name).await;
                    }
                }
                world.advance(GRACE);
            }
            Flow::Trip | Flow::Release => {
                for name in ["a", "b"] {
                    world.protect(name, "one").await;
                    world.remove(name).await;
                }
                if self == Flow::Release {
                    clean(&world.policy, &CancellationToken::new()).await.unwrap();
                }
            }
            Flow::Mirror => {
                for name in ["b", "c"] {
                    world.protect(name, "one").await;
                }
                events.extend([world.put("a", "one"), world.put("b", "two"), world.delete("c")]);
            }
            Flow::Restore | Flow::Undelete => {
                for content in ["one", "two", "three"] {
                    world.protect("a", content).await;
                }
                world.remove("a").await;
            }
            Flow::Reconcile => {
                for name in ["a", "b"] {
                    world.protect(name, "one").await;
                }
                world.delete("a");
                world.memory.destination.delete_object(world.rows("b")[0].copy_key.object());
                world.put("c", "one");
                let faults = Arc::new(Faults::die_at(2, Death::Before));
                let (dying, event) = (world.policy_through(Arc::clone(&faults) as _), world.put("d", "one"));
                tokio::select! {
                    biased;
                    () = faults.death() => {}
                    _ = handle(&dying, &event.key, std::slice::from_ref(&event)) => panic!("it survived"),
                }
                world.delete("d");
                world.advance(SpanMs(ORPHAN_AGE.0 + 1));
            }
        }
        (world, events)
    }

    /// Runs the flow in a process that may die.
    async fn run(self, policy: &Policy, source: &Arc<dyn ObjectWrite>, events: &[ObjectEvent]) {
        let cancel = CancellationToken::new();
        match self {
            Flow::Clean | Flow::Trip => drop(clean(policy, &cancel).await.unwrap()),
            Flow::Release => drop(release(policy, "alice").await.unwrap()),
            Flow::Reconcile => drop(reconcile(policy, Orphans::OfAge, &Silent, &cancel).await.unwrap()),
            Flow::Undelete => {
                let what = Removed::Key(key("a"));
                drop(undelete(policy, &what, Depth::All, source, "alice", &Silent, &cancel).await);
            }
            Flow::Restore => {
                let keys = Selected::One(key("a"));
                let request = RestoreRequest {
                    keys,
                    wanted: Wanted::Newest,
                    newer: Newer::Keep,
                    dry_run: false,
                    archived: Archived::Tell,
                };
                drop(restore(policy, &request, source, "alice", &Silent, &cancel).await);
            }
            _ => {
                for event in events {
                    handle(policy, &event.key, std::slice::from_ref(event)).await.unwrap();
                }
            }
        }
    }

    /// What must have come of it, besides the laws.
    fn assert_outcome(self, world: &World, context: &str) {
        match self {
            Flow::Replicate => assert_eq!(world.active("a"), ["two"], "{context}"),
            Flow::ReplicateOverwritten => {
                assert_eq!(world.active("a")[0], "three", "{context}");
                if world.source == Source::Versioned {
                    assert_eq!(world.active("a"), ["three", "two", "one"], "{context}");
                }
            }
            Flow::ReplicateByLook => assert_eq!(world.active("a"), ["two", "one"], "{context}"),
            Flow::Disown | Flow::VersionRemoved => assert_eq!(world.rows("a").len(), 0, "{context}"),
            Flow::Clean => {
                assert_eq!((world.rows("a").len(), world.rows("b").len()), (0, 0), "{context}");
                assert_eq!(world.active("c"), ["two"], "{context}");
            }
            Flow::Trip => {
                assert_eq!(world.copies(), 3, "{context}: it holds");
                world.logs.forgive("the breaker tripped");
            }
            // A person who was not answered says it again.
            Flow::Release => {
                let released = world.memory.journal.entries().iter().any(|entry| entry.action == Action::Release);
                assert!(world.copies() == 3 || (released && world.copies() == 1), "{context}: {}", world.copies());
                world.logs.forgive("the breaker tripped");
            }
            Flow::Mirror => {
                let contents = |bucket: &engine::memory::bucket::MemoryBucket| -> BTreeMap<_, _> {
                    bucket.contents().into_iter().map(|(key, stored)| (key, stored.bytes)).collect()
                };
                assert_eq!(contents(&world.memory.source), contents(&world.memory.destination), "{context}");
                world.assert_one_to_one(context);
            }
            // Nobody gives the command again: what it did stays, what it did not do is not done.
            Flow::Restore => {
                let back = world.original("a");
                assert!(back.is_none() || back.as_deref() == Some("three"), "{context}: {back:?}");
            }
            Flow::Undelete => {
                let back = world.original("a");
                assert!(back.is_none() || back.as_deref() == Some("three"), "{context}: {back:?}");
                if back.is_some() {
                    assert_eq!(world.active("a"), ["three", "three", "two", "one"], "{context}");
                }
            }
            Flow::Reconcile => {
                assert_eq!((world.rows("a").len(), world.rows("d").len()), (0, 0), "{context}");
                assert_eq!(
                    (world.active("b"), world.active("c")),
                    (vec!["one".into()], vec!["one".into()]),
                    "{context}"
                );
            }
        }
        if self != Flow::Mirror {
            assert_eq!(world.active("other"), ["stays"], "{context}");
        }
    }
}

async fn reconciled(world: &World, context: &str) {
    let report = reconcile(&world.policy, Orphans::OfAge, &Silent, &CancellationToken::new()).await.unwrap();
    assert_eq!((report.counted("gap"), report.failures), (0, 0), "{context}: {report:?}");
    world.logs.forgive("bytes are missing");
}

async fn cleaned(world: &World, context: &str) {
    let report = clean(&world.policy, &CancellationToken::new()).await.unwrap();
    assert_eq!(report.failures, 0, "{context}: {report:?}");
}

/// What comes after a death: redelivery, reconcile, clean; then the grace passes, and all of it once more.
async fn recover(flow: Flow, world: &World, events: &[ObjectEvent], faults: &Faults, arrives: Arrives, context: &str) {
    let arrive = async |now: Arrives| {
        if arrives == now {
            for request in faults.take_late() {
                request.await;
            }
        }
    };
    let before = world.memory.source.contents();
    arrive(Arrives::BeforeRedelivery).await;
    let mut events = events.to_vec();
    if flow == Flow::ReplicateOverwritten {
        events.push(world.put("a", "three"));
    }
    world.handle_all(&events).await;
    arrive(Arrives::AfterRedelivery).await;
    world.handle_all(&told_by_the_source(flow, world)).await;
    world.advance(SpanMs(ORPHAN_AGE.0 + 1));
    reconciled(world, context).await;
    cleaned(world, context).await;
    if flow != Flow::Mirror {
        world.assert_safe(context);
    }
    arrive(Arrives::AfterRecovery).await;
    if before != world.memory.source.contents() {
        world.handle_all(&told_by_the_source(flow, world)).await;
    }
    world.advance(SpanMs(ORPHAN_AGE.0 + 1));
    reconciled(world, context).await;
    if flow != Flow::Mirror {
        world.assert_safe(context);
    }
    for _ in 0..2 {
        world.advance(GRACE);
        cleaned(world, context).await;
        reconciled(world, context).await;
    }
    if flow != Flow::Mirror {
        world.assert_laws(context);
    }
    flow.assert_outcome(world, context);
}

/// What a command put back to the source makes an event, like every write of a client.
fn told_by_the_source(flow: Flow, world: &World) -> Vec<ObjectEvent> {
    let back = matches!(flow, Flow::Restore | Flow::Undelete) && world.original("a").is_some();
    if back { vec![world.event_of_current("a")] } else { Vec::new() }
}

/// Kills the flow at effect 1, 2, … until it ends by itself; how many effects it has.
async fn kill_at_every_effect(flow: Flow, source: Source) -> usize {
    let ways = [
        (Death::Before, Arrives::AfterRecovery),
        (Death::After, Arrives::AfterRecovery),
        (Death::Part, Arrives::AfterRecovery),
        (Death::Late, Arrives::BeforeRedelivery),
        (Death::Late, Arrives::AfterRedelivery),
        (Death::Late, Arrives::AfterRecovery),
    ];
    for k in 1.. {
        for (death, arrives) in ways {
            let context = format!("{flow:?} of a {source:?} source, killed at effect {k}: {death:?}, {arrives:?}");
            let (world, events) = flow.prepare(source).await;
            world.logs.forgive("the breaker tripped");
            let faults = Arc::new(Faults::die_at(k, death));
            let policy = world.policy_through(Arc::clone(&faults) as _);
            let target = world.write_through("target", Arc::clone(&faults) as _);
            let completed = tokio::select! {
                biased;
                () = faults.death() => false,
                () = flow.run(&policy, &target, &events) => true,
            };
            world.logs.forgive("bytes are missing");
            world.assert_no_wrong_purge(&context);
            recover(flow, &world, &events, &faults, arrives, &context).await;
            if completed {
                return k - 1;
            }
        }
    }
    unreachable!("every flow ends")
}

/// Kills the flow at every effect, and what repairs it (redelivery, reconcile, clean) at every effect, too.
async fn kill_the_recovery(flow: Flow) {
    let (mut k, mut j) = (1, 1);
    loop {
        let (world, events) = flow.prepare(Source::Versioned).await;
        let faults = Arc::new(Faults::die_at(k, Death::Before));
        let policy = world.policy_through(Arc::clone(&faults) as _);
        let target = world.write_through("target", Arc::clone(&faults) as _);
        let completed = tokio::select! {
            biased;
            () = faults.death() => false,
            () = flow.run(&policy, &target, &events) => true,
        };
        world.advance(SpanMs(ORPHAN_AGE.0 + 1));
        let context = format!("{flow:?}, killed at effect {k}, and its recovery at effect {j}");
        let faults = Arc::new(Faults::die_at(j, Death::Before));
        let policy = world.policy_through(Arc::clone(&faults) as _);
        let repaired = tokio::select! {
            biased;
            () = faults.death() => false,
            () = repair(&policy, &events) => true,
        };
        for expected in ["the breaker tripped", "bytes are missing"] {
            world.logs.forgive(expected);
        }
        recover(flow, &world, &events, &faults, Arrives::AfterRecovery, &context).await;
        match (completed, repaired) {
            (true, true) => return,
            (false, true) => (k, j) = (k + 1, 1),
            (_, false) => j += 1,
        }
    }
}

async fn repair(policy: &Policy, events: &[ObjectEvent]) {
    for event in events {
        handle(policy, &event.key, std::slice::from_ref(event)).await.unwrap();
    }
    let cancel = CancellationToken::new();
    reconcile(policy, Orphans::OfAge, &Silent, &cancel).await.unwrap();
    clean(policy, &cancel).await.unwrap();
}

#[tokio::test]
async fn killed_again_in_the_middle_of_the_recovery() {
    for flow in [
        Flow::Replicate,
        Flow::ReplicateOverwritten,
        Flow::ReplicateByLook,
        Flow::Disown,
        Flow::VersionRemoved,
        Flow::Clean,
        Flow::Trip,
        Flow::Release,
        Flow::Mirror,
        Flow::Restore,
        Flow::Undelete,
        Flow::Reconcile,
    ] {
        kill_the_recovery(flow).await;
    }
}

macro_rules! killed_at_every_effect {
    ($($name:ident: $flow:ident of $($source:ident)+, at least $least:literal effects;)+) => {$(
        #[tokio::test]
        async fn $name() {
            for source in [$(Source::$source),+] {
                let effects = kill_at_every_effect(Flow::$flow, source).await;
                assert!(effects >= $least, "{source:?}: {effects} effects: does the test still reach what it is about?");
            }
        }
    )+};
}

killed_at_every_effect! {
    replicate: Replicate of Versioned Unversioned TimeOrdered, at least 6 effects;
    replicate_overwritten: ReplicateOverwritten of Versioned Unversioned TimeOrdered, at least 2 effects;
    replicate_by_look: ReplicateByLook of Versioned Unversioned, at least 2 effects;
    disown: Disown of Versioned Unversioned TimeOrdered, at least 3 effects;
    version_removed: VersionRemoved of Versioned, at least 3 effects;
    clean_due_copies: Clean of Versioned, at least 9 effects;
    trip: Trip of Versioned, at least 4 effects;
    release_the_breaker: Release of Versioned, at least 2 effects;
    mirror: Mirror of Versioned Unversioned, at least 8 effects;
    restore_to_the_source: Restore of Versioned, at least 2 effects;
    undelete_a_key: Undelete of Versioned, at least 11 effects;
    reconcile_after_crashes: Reconcile of Versioned, at least 8 effects;
}
