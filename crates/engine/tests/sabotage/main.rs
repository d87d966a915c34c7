//! The test of the test: each guard of the protocol is taken out, one at a time, and the simulation notices.
//!
//! [`CAUGHT`] keeps one seed for each guard: with all guards it runs green, without that one it fails. When the
//! simulation's choices change, the seeds move: `cargo test --release -p afterimage-engine --features sabotage --test
//! sabotage -- --ignored --nocapture` searches new ones and prints the table. The shortest trace of each guard, written
//! by hand, stands in `crates/engine/tests/flows/guards.rs` and, for guards that a rule holds, in `lifecycle/tests/guards.rs`.

#[path = "../simulation/gate.rs"]
mod gate;
#[path = "../simulation/oracle.rs"]
mod oracle;
#[path = "../simulation/rng.rs"]
mod rng;
#[path = "../simulation/schedule.rs"]
mod schedule;
#[path = "../simulation/setup.rs"]
mod setup;
#[path = "../simulation/source.rs"]
mod source;
#[path = "../simulation/watch.rs"]
mod watch;
#[path = "../simulation/world.rs"]
mod world;

use crate::schedule::{Failure, Numbers};
use lifecycle::guards::{Guard, Guards};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Seeds that the search tries for each guard.
const SEARCHED: u64 = 30_000;
/// Seeds that the kept test tries when none of a guard's own notices any more.
const TRIED_AGAIN: u64 = 1_500;
/// Seeds kept for each guard.
const KEPT: usize = 4;

/// Which seeds notice the loss of which guard. Several each, because a change of a flow gives a seed another run.
const CAUGHT: [(Guard, &[u64]); 14] = [
    (Guard::SettleAfterGone, &[16916, 3648]),
    (Guard::AdoptAfterGone, &[8499, 6722, 7052, 1804]),
    (Guard::UpsertNeverRevives, &[130, 46, 91, 156]),
    (Guard::PurgeReadsAgain, &[19430]),
    (Guard::LookWhenTimeOrdered, &[304, 71, 222, 139]),
    (Guard::VersionRemovedLooks, &[2182, 2094, 1937, 1003]),
    (Guard::FloatingLooks, &[9096, 20449, 15544, 1288]),
    (Guard::OldEventsOnlyLook, &[46, 1559, 786, 1806]),
    (Guard::DifferencesAreHints, &[2354, 2460, 901, 2475]),
    (Guard::UndeleteOutlivesOldRemovals, &[711, 735, 901, 1879]),
    (Guard::ClaimIsConditional, &[11695]),
    (Guard::BytesAfterClaim, &[29, 23, 36, 7]),
    (Guard::ReconcileSettles, &[1606, 1663, 235, 730]),
    (Guard::MirrorLooksAgain, &[12434, 25107, 15222, 26431]),
];

/// Guards that no seed of the search notices reliably, each with the schedule of `crates/engine/tests/flows/guards.rs` that does.
/// Without the first, a put must fall between a look and a read that follow each other at once, and a later event must
/// not look again. Without the second, two handlers must make the same looked copy, and a third must purge the one
/// between the bytes and the row of the other, while the rule still has a place for it.
const BY_TRACE: [(Guard, &str); 2] =
    [(Guard::LookAfterRead, "put_between_look_and_read"), (Guard::LookedNamesAreUnique, "two_looks_at_one_content")];

/// How the seed fails without the guard, and how it runs with all guards; `None` unless both are so.
fn caught(guard: Guard, seed: u64) -> Option<(Failure, Numbers)> {
    let failure = schedule::run(seed, Guards::without(guard), false).err()?;
    Some((failure, schedule::run(seed, Guards::default(), false).ok()?))
}

#[test]
fn sabotage_of_each_guard_is_noticed() {
    for (guard, seeds) in CAUGHT {
        let mut tried = seeds.iter().copied().chain(0..TRIED_AGAIN);
        let Some((seed, whole)) = tried.find_map(|seed| Some((seed, caught(guard, seed)?.1))) else {
            panic!("nothing notices that {guard:?} is missing: search new seeds (see the head of this file)");
        };
        let traced = schedule::run(seed, Guards::without(guard), true).expect_err("it has failed just now");
        println!("--- without {guard:?}, seed {seed}:\n{}{}", traced.trace, traced.why);
        println!("--- whole: {} steps, {} calls, {:?}\n", whole.steps, whole.calls, whole.happened);
    }
}

#[test]
fn sabotage_that_no_seed_notices_has_its_trace() {
    for (guard, trace) in BY_TRACE {
        let written = include_str!("../flows/guards.rs").contains(&format!("async fn {trace}("));
        assert!(written, "the trace of {guard:?}, `{trace}`, is not in tests/flows/guards.rs");
    }
}

/// Prints the table anew.
#[test]
#[ignore = "a search, not a check: run it when the simulation's choices have changed"]
fn sabotage_search() {
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some((guard, _)) = CAUGHT.get(next.fetch_add(1, Ordering::Relaxed)) {
            search(*guard);
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
}

fn search(guard: Guard) {
    let mut found: Vec<(usize, u64, String)> = Vec::new();
    for seed in 0..SEARCHED {
        if let Some((failure, _)) = caught(guard, seed) {
            found.push((failure.steps, seed, failure.why.lines().next().unwrap_or_default().to_owned()));
        }
        if found.len() >= 3 * KEPT {
            break;
        }
    }
    found.sort();
    found.truncate(KEPT);
    let seeds: Vec<u64> = found.iter().map(|(_, seed, _)| *seed).collect();
    println!("    (Guard::{guard:?}, &{seeds:?}), // {:?}", found.first());
}
