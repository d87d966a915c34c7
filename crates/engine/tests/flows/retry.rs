//! Calls tried again: which, how often, how long apart, and what a flow makes of the answer to a second try.

use crate::world::{GRACE, Source, World, keep, key, rules};
use engine::error::{ErrorKind, Retry};
use engine::flows::clean::clean;
use engine::flows::handle::handle;
use engine::limits::{CALL_ATTEMPTS, CALL_WAIT_MAX, CALL_WAIT_MIN};
use engine::memory::clock::MemoryClock;
use engine::memory::wiring::START;
use engine::policy::{Mode, Policy};
use engine::ports::catalog::{Changed, RowChange, RowId, RowSet, StateChange};
use engine::ports::clock::Clock;
use engine::ports::metrics::Counters;
use engine::ports::objects::{Attributes, Onto};
use engine::steps::purge::Purger;
use engine::steps::verify::body_of;
use engine::wrap::faults::{Faults, Rates};
use engine::wrap::retry::Retries;
use engine::wrap::tap::{Fate, Tap};
use lifecycle::time::UnixMs;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Retries whose sleeps pass at once, with their clock and their counters.
fn retries(world: &World) -> (Retries, Arc<MemoryClock>, Arc<Counters>) {
    let (clock, metrics) = (Arc::new(MemoryClock::skipping(START)), Arc::new(Counters::default()));
    let nonces = Arc::clone(&world.memory.nonces);
    (Retries::new(Arc::clone(&clock) as _, nonces, Arc::clone(&metrics) as _), clock, metrics)
}

fn calls_again(metrics: &Counters) -> u64 {
    metrics.snapshot()["calls_again"]
}

/// The world's policy with retries in front of faults.
fn patient(world: &World, faults: &Arc<Faults>) -> (Policy, Arc<Counters>) {
    let (retries, _, metrics) = retries(world);
    let tapped = world.policy_through(Arc::clone(faults) as _);
    let purge = Tap::new(Arc::clone(faults) as _).purge("purger", Arc::clone(&world.memory.destination) as _);
    let policy = Policy {
        source: retries.read(tapped.source),
        destination: retries.read(tapped.destination),
        copier: retries.copy(tapped.copier),
        recopier: retries.copy(tapped.recopier),
        purger: Purger::new(retries.purge(purge)),
        catalog: retries.catalog(tapped.catalog),
        keys: tapped.keys.map(|keys| retries.keys(keys)),
        ..world.memory.policy(Mode::Copies, tapped.rules.clone())
    };
    (policy, metrics)
}

#[tokio::test]
async fn a_call_is_tried_up_to_its_limit_with_growing_waits() {
    for (failures, succeeds) in [(CALL_ATTEMPTS - 1, true), (CALL_ATTEMPTS, false)] {
        let world = World::new(Source::Versioned, rules());
        world.put("a", "one");
        let (retries, clock, metrics) = retries(&world);
        for nth in 1..=failures {
            world.faults.at("source.head", nth as usize, Fate::FailBefore(ErrorKind::Unavailable));
        }
        let source = retries.read(Arc::clone(&world.policy.source));
        assert_eq!(source.head(&key("a"), None).await.is_ok(), succeeds);
        assert_eq!(calls_again(&metrics), u64::from(CALL_ATTEMPTS - 1));
        let waited = clock.now().since(START).0;
        let longest: u64 = (0..CALL_ATTEMPTS - 1).map(|n| CALL_WAIT_MIN.0 << n).sum();
        assert!((longest / 2..=longest).contains(&waited), "{waited} of at most {longest}");
    }
}

#[tokio::test]
async fn throttling_is_answered_with_longer_waits_within_the_limit() {
    let world = World::new(Source::Versioned, rules());
    let (retries, clock, _) = retries(&world);
    world.faults.at("source.head", 1, Fate::FailBefore(ErrorKind::Throttled));
    retries.read(Arc::clone(&world.policy.source)).head(&key("a"), None).await.unwrap();
    let waited = clock.now().since(START).0;
    assert!((4 * CALL_WAIT_MIN.0..=CALL_WAIT_MAX.0).contains(&waited), "{waited}");
}

#[tokio::test]
async fn what_will_fail_again_is_not_tried_again() {
    let world = World::new(Source::Versioned, rules());
    let (retries, _, metrics) = retries(&world);
    world.faults.at("source.head", 1, Fate::FailBefore(ErrorKind::Invalid("400".to_owned())));
    let error = retries.read(Arc::clone(&world.policy.source)).head(&key("a"), None).await.unwrap_err();
    assert_eq!((error.retry(), calls_again(&metrics)), (Retry::Never, 0));
}

#[tokio::test]
async fn a_put_whose_body_is_spent_is_not_tried_again() {
    let world = World::new(Source::Versioned, rules());
    let (retries, _, metrics) = retries(&world);
    let faults = Arc::new(Faults::default());
    faults.at("target.put", 1, Fate::FailBefore(ErrorKind::Unavailable));
    let target = retries.write(world.write_through("target", faults));
    target.put(&key("a"), body_of("one"), &Attributes::default(), Onto::Nothing).await.unwrap_err();
    assert_eq!((calls_again(&metrics), target.head(&key("a"), None).await.unwrap()), (0, None));
}

#[tokio::test]
async fn a_release_is_not_repeated_but_a_trip_is() {
    let world = World::new(Source::Versioned, rules());
    let (retries, _, metrics) = retries(&world);
    let catalog = retries.catalog(Arc::clone(&world.policy.catalog));
    world.faults.at("catalog.set_state", 1, Fate::FailBefore(ErrorKind::Unavailable));
    catalog.set_state(StateChange::Release(UnixMs(1))).await.unwrap_err();
    assert_eq!(calls_again(&metrics), 0);
    world.faults.at("catalog.set_state", 1, Fate::FailAfter(ErrorKind::Unavailable));
    let trip = engine::ports::catalog::Trip { at: UnixMs(2), removed: 9, live: 1 };
    catalog.set_state(StateChange::Trip(trip)).await.unwrap();
    assert_eq!((calls_again(&metrics), catalog.state().await.unwrap().tripped), (1, Some(trip)));
}

#[tokio::test]
async fn of_a_batch_only_the_failed_items_are_tried_again() {
    let world = World::new(Source::Versioned, rules());
    for name in ["a", "b", "c", "d"] {
        world.protect(name, name).await;
        world.remove(name).await;
    }
    world.advance(GRACE);
    let faults = Arc::new(Faults::default());
    faults.at("purger.purge", 1, Fate::FailPart(ErrorKind::Throttled));
    faults.at("purger.purge", 2, Fate::FailPart(ErrorKind::Throttled));
    faults.at("catalog.change", 1, Fate::FailPart(ErrorKind::Unavailable));
    let (policy, metrics) = patient(&world, &faults);
    let report = clean(&policy, &CancellationToken::new()).await.unwrap();
    assert_eq!((report.counted("purged"), report.failures, calls_again(&metrics)), (4, 0, 3), "{report:?}");
    assert_eq!(world.copies(), 0);
}

#[tokio::test]
async fn a_batch_whose_items_keep_failing_names_them_and_ends() {
    let world = World::new(Source::Versioned, rules());
    for name in ["a", "b"] {
        world.protect(name, name).await;
        world.remove(name).await;
    }
    world.advance(GRACE);
    let faults = Arc::new(Faults::default());
    for nth in 1..=CALL_ATTEMPTS as usize {
        faults.at("purger.purge", nth, Fate::FailPart(ErrorKind::Throttled));
    }
    let (policy, _) = patient(&world, &faults);
    let report = clean(&policy, &CancellationToken::new()).await.unwrap();
    assert_eq!((report.counted("purged"), report.failures), (1, 1), "{report:?}");
}

#[tokio::test]
async fn a_deleted_row_that_the_first_try_deleted_already_counts_as_deleted() {
    let world = World::new(Source::Versioned, rules());
    world.protect("a", "one").await;
    let row = world.rows("a").remove(0);
    let (retries, _, _) = retries(&world);
    world.faults.at("catalog.change", 1, Fate::FailAfter(ErrorKind::Unavailable));
    let id = RowId { original: key("a"), copy_key: row.copy_key };
    let change = RowChange { id, if_rev: row.rev.clone(), set: RowSet::Deleted };
    let results = retries.catalog(Arc::clone(&world.policy.catalog)).change(&[change]).await;
    assert_eq!(results.into_iter().next().unwrap().unwrap(), Changed::Applied(row.rev));
}

/// The claim took effect, the answer was lost, the second try is refused: settling reads again and carries on.
#[tokio::test]
async fn a_claim_refused_by_its_own_first_try_ends_right() {
    let world = World::new(Source::Versioned, keep(1));
    world.protect("a", "one").await;
    let event = world.put("a", "two");
    let faults = Arc::new(Faults::default());
    faults.at("catalog.change", 1, Fate::FailAfter(ErrorKind::Unavailable));
    let (policy, metrics) = patient(&world, &faults);
    handle(&policy, &event.key, std::slice::from_ref(&event)).await.unwrap();
    assert_eq!(calls_again(&metrics), 1);
    assert_eq!(world.active("a"), ["two"]);
    world.assert_laws("after the lost answer");
}

/// Every call fails or lies now and then; behind the retries, the flows end as if nothing had been.
#[tokio::test]
async fn with_seeded_faults_everything_ends_as_without() {
    let rates = Rates { fail_before: 40, fail_after: 40, fail_part: 40, throttle: 40, delay: 100 };
    for seed in 0..200 {
        let world = World::new(Source::Versioned, keep(2));
        let faults = Arc::new(Faults::seeded(seed, rates));
        let (policy, _) = patient(&world, &faults);
        for n in 0..6 {
            let name = ["a", "b"][n % 2];
            let event = if n == 4 { world.delete(name) } else { world.put(name, &format!("{n}")) };
            // The journal is not tried again, and few calls fail four times: those events come again.
            while handle(&policy, &event.key, std::slice::from_ref(&event)).await.is_err() {}
        }
        world.advance(GRACE);
        while clean(&policy, &CancellationToken::new()).await.is_ok_and(|report| !report.is_success()) {}
        let context = format!("seed {seed}");
        assert_eq!((world.active("a"), world.active("b")), (vec![], vec!["5".to_owned(), "3".to_owned()]), "{context}");
    }
}

/// Behind the retries, and behind the tap that all these tests stand on, the ports keep their contracts.
#[tokio::test]
async fn wrapped_ports_pass_the_conformance_suites() {
    let made = || {
        let world = World::new(Source::Versioned, rules());
        let (retries, _, _) = retries(&world);
        let tap = Tap::new(Arc::new(Faults::default()));
        let catalog = Arc::clone(&world.memory.catalog);
        let tapped = (tap.catalog("catalog", Arc::clone(&catalog) as _), tap.keys("keys", catalog as _));
        (retries.catalog(tapped.0), retries.keys(tapped.1))
    };
    engine::conformance::catalog::catalog(|| async { made().0 }).await;
    engine::conformance::catalog::catalog_keys(|| async { made() }).await;
}
