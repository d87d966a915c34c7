//! The driver: at least once, one key at a time, back-off and dead letters, and no acknowledgement before the facts are
//! durable.

use crate::world::{Source, World, keep, rules};
use async_trait::async_trait;
use engine::driver::{Driver, Policies};
use engine::error::{ErrorKind, PortResult};
use engine::limits::{DELIVERY_ATTEMPTS, OUTAGE_ATTEMPTS, REDELIVERY_WAIT_MAX, REDELIVERY_WAIT_MIN};
use engine::ports::clock::Clock;
use engine::ports::events::{Backlog, DeadLetters, Delivery, EventQueue, Receipt};
use engine::wrap::faults::{Death, Faults};
use engine::wrap::tap::{Fate, Tap};
use lifecycle::time::UnixMs;
use std::sync::{Arc, Mutex};
use tokio_util::sync::CancellationToken;

fn driver_of(world: &World, queue: Arc<dyn EventQueue>, policy: engine::policy::Policy) -> Driver {
    let policies = Policies::default();
    policies.put(policy);
    Driver {
        queue,
        policies,
        clock: Arc::clone(&world.memory.clock) as _,
        nonces: Arc::clone(&world.memory.nonces) as _,
        metrics: Arc::clone(&world.memory.metrics) as _,
    }
}

fn driver(world: &World) -> Driver {
    driver_of(world, Arc::clone(&world.memory.queue) as _, world.policy.clone())
}

fn push(world: &World, event: &lifecycle::event::ObjectEvent) {
    world.memory.queue.push("source", event.clone());
}

#[tokio::test]
async fn events_of_many_keys_are_handled_and_acknowledged() {
    let world = World::new(Source::Versioned, keep(2));
    for round in 0..3 {
        for n in 0..100 {
            push(&world, &world.put(&format!("k{n:03}"), &format!("round {round}")));
        }
    }
    let (driver, cancel) = (driver(&world), CancellationToken::new());
    let running = tokio::spawn({
        let cancel = cancel.clone();
        async move { driver.run(&cancel).await }
    });
    world.memory.queue.until_empty().await;
    cancel.cancel();
    running.await.unwrap().unwrap();
    for n in 0..100 {
        assert_eq!(world.active(&format!("k{n:03}")), ["round 2", "round 1"]);
    }
    assert_eq!(world.memory.metrics.snapshot()["events_handled"], 300);
    world.assert_laws("after the drain");
}

#[tokio::test]
async fn the_events_of_one_key_in_one_batch_settle_once() {
    let world = World::new(Source::Versioned, keep(1));
    for content in ["one", "two", "three"] {
        push(&world, &world.put("a", content));
    }
    assert_eq!(driver(&world).run_once().await.unwrap(), 3);
    assert_eq!(world.recorder.counts()["catalog.partition"], 1);
    assert_eq!(world.active("a"), ["three"]);
    assert_eq!(world.memory.queue.backlog().await.unwrap().waiting, 0);
}

#[tokio::test]
async fn a_failed_event_comes_again_later_and_later_and_is_not_acknowledged() {
    let world = World::new(Source::Versioned, rules());
    push(&world, &world.put("a", "one"));
    let queue = Arc::new(Noting { inner: Arc::clone(&world.memory.queue) as _, put_back: Mutex::default() });
    let driver = driver_of(&world, Arc::clone(&queue) as _, world.policy.clone());
    let mut waits = Vec::new();
    for nth in 1..DELIVERY_ATTEMPTS {
        world.faults.at("copier.copy", 1, Fate::FailBefore(ErrorKind::Unavailable));
        assert_eq!(driver.run_once().await.unwrap(), 1, "delivery {nth}");
        assert_eq!(world.memory.queue.backlog().await.unwrap().waiting, 1);
        let due = queue.put_back.lock().unwrap().pop().expect("it was put back");
        waits.push(due.since(world.memory.clock.now()).0);
        world.memory.clock.set(due);
    }
    assert!(waits[0] >= REDELIVERY_WAIT_MIN.0 && waits.iter().all(|wait| *wait <= REDELIVERY_WAIT_MAX.0), "{waits:?}");
    assert!(waits[waits.len() - 1] > 100 * waits[0], "they grow: {waits:?}");
    driver.run_once().await.unwrap();
    assert_eq!(world.active("a"), ["one"]);
    assert_eq!(world.memory.queue.backlog().await.unwrap().waiting, 0);
}

/// A queue that notes until when events were put back.
struct Noting {
    inner: Arc<dyn EventQueue>,
    put_back: Mutex<Vec<UnixMs>>,
}

#[async_trait]
impl EventQueue for Noting {
    async fn receive(&self, limit: usize) -> PortResult<Vec<Delivery>> {
        self.inner.receive(limit).await
    }

    async fn done(&self, receipts: &[Receipt]) -> PortResult<()> {
        self.inner.done(receipts).await
    }

    async fn again(&self, receipt: &Receipt, not_before: UnixMs, why: &str) -> PortResult<()> {
        self.put_back.lock().unwrap().push(not_before);
        self.inner.again(receipt, not_before, why).await
    }

    async fn give_up(&self, receipt: &Receipt, why: &str) -> PortResult<()> {
        self.inner.give_up(receipt, why).await
    }

    async fn backlog(&self) -> PortResult<Backlog> {
        self.inner.backlog().await
    }
}

#[tokio::test]
async fn an_event_that_nobody_can_handle_goes_to_the_dead_letters_and_can_be_redriven() {
    let world = World::new(Source::Versioned, rules());
    push(&world, &world.put("a", "one"));
    let driver = driver(&world);
    for _ in 0..OUTAGE_ATTEMPTS {
        world.faults.at("copier.copy", 1, Fate::FailBefore(ErrorKind::AccessDenied("s3:PutObject".to_owned())));
        driver.run_once().await.unwrap();
        world.advance(REDELIVERY_WAIT_MAX);
    }
    world.logs.expect("an event was given up");
    let dead = world.memory.queue.list(None, 10).await.unwrap();
    assert_eq!((dead.len(), dead[0].attempts), (1, OUTAGE_ATTEMPTS));
    assert!(dead[0].why.contains("s3:PutObject"), "{}", dead[0].why);
    assert_eq!(world.memory.queue.redrive(&[dead[0].id]).await.unwrap(), 1);
    driver.run_once().await.unwrap();
    assert_eq!(world.active("a"), ["one"]);
}

#[tokio::test]
async fn what_can_never_succeed_is_given_up_at_once() {
    let world = World::new(Source::Versioned, rules());
    push(&world, &world.put("a", "one"));
    world.faults.at("copier.copy", 1, Fate::FailBefore(ErrorKind::Invalid("too large".to_owned())));
    driver(&world).run_once().await.unwrap();
    world.logs.expect("an event was given up");
    assert_eq!(world.memory.queue.backlog().await.unwrap().dead, 1);
}

#[tokio::test]
async fn an_event_that_can_never_succeed_takes_no_other_of_its_key_with_it() {
    let world = World::new(Source::Versioned, rules());
    for content in ["one", "two", "three"] {
        push(&world, &world.put("a", content));
    }
    // The second version is the one that cannot be copied: once in the batch of three, once alone.
    let damaged = || Fate::FailBefore(ErrorKind::Damaged("its bytes do not match its checksum".to_owned()));
    world.faults.at("copier.copy", 2, damaged());
    world.faults.at("copier.copy", 4, damaged());
    driver(&world).run_once().await.unwrap();
    assert_eq!(world.active("a"), ["three", "one"]);
    assert_eq!(world.memory.queue.backlog().await.unwrap().waiting, 1);
}

#[tokio::test]
async fn a_flow_that_panics_is_a_failed_event_and_the_other_keys_go_on() {
    let world = World::new(Source::Versioned, rules());
    for name in ["a", "b"] {
        push(&world, &world.put(name, name));
    }
    world.faults.at("copier.copy", 1, Fate::First(Box::pin(async { panic!("a bug in a flow") })));
    driver(&world).run_once().await.unwrap();
    assert_eq!((world.active("a").len(), world.active("b")), (0, vec!["b".to_owned()]));
    assert_eq!(world.memory.queue.backlog().await.unwrap().waiting, 1);
    world.advance(REDELIVERY_WAIT_MAX);
    driver(&world).run_once().await.unwrap();
    assert_eq!(world.active("a"), ["a"]);
}

#[tokio::test]
async fn one_key_that_fails_does_not_hold_up_the_others() {
    let world = World::new(Source::Versioned, rules());
    for name in ["a", "b", "c"] {
        push(&world, &world.put(name, name));
    }
    world.faults.at("copier.copy", 1, Fate::FailBefore(ErrorKind::Unavailable));
    driver(&world).run_once().await.unwrap();
    assert_eq!(
        (world.active("a").len(), world.active("b"), world.active("c")),
        (0, vec!["b".into()], vec!["c".into()])
    );
}

#[tokio::test]
async fn an_event_of_a_bucket_that_no_policy_covers_is_acknowledged() {
    let world = World::new(Source::Versioned, rules());
    let event = world.put("a", "one");
    world.memory.queue.push("another bucket", event);
    driver(&world).run_once().await.unwrap();
    world.logs.expect("no policy looks after it");
    assert_eq!(world.memory.queue.backlog().await.unwrap().waiting, 0);
    assert_eq!(world.recorder.lines(), [""; 0]);
}

/// V7: at every effect of the handling, whoever dies there has acknowledged nothing; the redelivery does the rest.
#[tokio::test]
async fn no_death_loses_an_event() {
    for k in 1.. {
        let world = World::new(Source::Versioned, keep(1));
        world.protect("a", "zero").await;
        for event in [world.put("a", "one"), world.put("b", "two"), world.delete("b")] {
            push(&world, &event);
        }
        let faults = Arc::new(Faults::die_at(k, Death::Before));
        let queue = Tap::new(Arc::clone(&faults) as _).queue("queue", Arc::clone(&world.memory.queue) as _);
        let dying = driver_of(&world, queue, world.policy_through(Arc::clone(&faults) as _));
        let completed = tokio::select! {
            biased;
            () = faults.death() => false,
            result = dying.run_once() => { result.unwrap(); true }
        };
        if !completed {
            assert!(world.memory.queue.backlog().await.unwrap().waiting > 0, "k = {k}");
            world.memory.queue.take_back();
            driver(&world).run_once().await.unwrap();
        }
        assert_eq!(world.memory.queue.backlog().await.unwrap().waiting, 0, "k = {k}");
        assert_eq!((world.active("a"), world.active("b").len()), (vec!["one".to_owned()], 0), "k = {k}");
        world.assert_laws(&format!("k = {k}"));
        if completed {
            return;
        }
    }
}

#[tokio::test]
async fn a_stopped_driver_finishes_what_it_has_and_takes_nothing_more() {
    let world = World::new(Source::Versioned, rules());
    push(&world, &world.put("a", "one"));
    let (driver, cancel) = (driver(&world), CancellationToken::new());
    // The stop comes in the middle of the handling.
    let stop = cancel.clone();
    let (queue, event) = (Arc::clone(&world.memory.queue), world.put("b", "two"));
    let other = async move {
        stop.cancel();
        queue.push("source", event);
    };
    world.faults.at("copier.copy", 1, Fate::First(Box::pin(other)));
    driver.run(&cancel).await.unwrap();
    assert_eq!((world.active("a"), world.active("b").len()), (vec!["one".to_owned()], 0));
    assert_eq!(world.memory.queue.backlog().await.unwrap().waiting, 1);
}

#[tokio::test]
async fn a_drain_handles_what_is_there_and_when_cancelled_begins_no_other_key() {
    let world = World::new(Source::Versioned, keep(1));
    for n in 0..200 {
        push(&world, &world.put(&format!("k{n:03}"), "one"));
    }
    let cancel = CancellationToken::new();
    driver(&world).drain(100, &cancel).await.unwrap();
    assert_eq!(world.memory.queue.backlog().await.unwrap().waiting, 100);
    cancel.cancel();
    driver(&world).drain(100, &cancel).await.unwrap();
    assert_eq!((world.memory.queue.backlog().await.unwrap().waiting, world.copies()), (100, 100));
    world.memory.queue.take_back();
    driver(&world).drain(100, &CancellationToken::new()).await.unwrap();
    assert_eq!(world.memory.queue.backlog().await.unwrap().waiting, 0);
    world.assert_laws("after the drain");
}
