//! The seeded simulation: several handlers, cleaners, `reconcile`, `undelete` and mirrors interleaved at every external
//! call, with every fault that the protocol names, judged by an oracle that knows only the source's true history.
//!
//! One seed determines one run. 500 seeds run with the other tests; more with
//! `AFTERIMAGE_SEEDS=20000 cargo test --release -p afterimage-engine --test simulation -- --nocapture`, or a range with
//! `AFTERIMAGE_SEEDS=100..200`. A failing seed is printed with its trace; put it into `seeds.txt`, whose seeds always run.
//!
//! `world.rs` is what is simulated, `schedule.rs` one run of it, `gate.rs` the turns and the faults, `watch.rs` what must
//! never be seen at any step, `oracle.rs` what must be true at rest.

mod gate;
mod oracle;
mod rng;
mod schedule;
mod setup;
mod source;
mod watch;
mod world;

use lifecycle::guards::Guards;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Mutex;

/// Seeds of a usual run.
const SEEDS: u64 = 500;

/// The seeds to run: `AFTERIMAGE_SEEDS` is a count or a range.
#[allow(clippy::disallowed_methods, reason = "the one place of this test that reads its environment")]
fn wanted() -> Range<u64> {
    let Ok(text) = std::env::var("AFTERIMAGE_SEEDS") else { return 0..SEEDS };
    let number =
        |text: &str| text.trim().parse::<u64>().expect("AFTERIMAGE_SEEDS is a count, or a range like 100..200");
    match text.split_once("..") {
        Some((from, to)) => number(from)..number(to),
        None => 0..number(&text),
    }
}

/// Seeds that failed once.
fn kept() -> Vec<u64> {
    let lines = include_str!("seeds.txt").lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    lines.filter(|line| !line.is_empty()).map(|line| line.parse().expect("seeds.txt holds numbers")).collect()
}

/// Failures that are listed before a run gives up.
const FAILURES_LISTED: usize = 25;

/// Runs the seeds on all processors; lists what failed, and shows the trace of the shortest.
fn run_green(seeds: impl Iterator<Item = u64> + Send) {
    let seeds = Mutex::new(seeds);
    let failed: Mutex<Vec<(usize, u64, String)>> = Mutex::default();
    let next = || seeds.lock().expect("no seed panics while it is taken").next();
    let work = || {
        while let Some(seed) = next() {
            let Err(failure) = schedule::run(seed, Guards::default(), false) else { continue };
            let mut failed = failed.lock().expect("nothing panics while it is held");
            failed.push((failure.steps, seed, failure.why));
            if failed.len() >= FAILURES_LISTED {
                return;
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));

    let mut failed = failed.into_inner().expect("all threads have ended");
    failed.sort();
    let Some((_, seed, _)) = failed.first() else { return };
    let shortest = schedule::run(*seed, Guards::default(), true).expect_err("a seed determines its run");
    println!("the trace of seed {seed}:\n{}\n", shortest.trace);
    for (steps, seed, why) in &failed {
        println!("seed {seed} ({steps} steps): {}", why.lines().next().unwrap_or_default());
    }
    panic!("seed {seed}: {}", shortest.why);
}

#[test]
fn seeds_run_green() {
    run_green(wanted());
}

#[test]
fn seeds_that_failed_once_run_green() {
    run_green(kept().into_iter());
}

/// What a usual run must reach, or it shows nothing about it.
const REACHED: [&str; 19] = [
    "clean: purged",
    "clean: settled",
    "clean: tombstones-forgotten",
    "died: clean",
    "died: handler",
    "died: reconcile",
    "died: undelete",
    "handler: put back",
    "late requests",
    "reconcile: adopted",
    "reconcile: differences",
    "reconcile: settled",
    "reconcile: young",
    "release: released",
    "undelete: copies",
    "undelete: nothing-left",
    "undelete: skipped-live",
    "undelete: undeleted",
    "clean: held-policies",
];

#[test]
fn the_chances_reach_every_fault_and_every_repair() {
    let mut happened: BTreeMap<String, u64> = BTreeMap::new();
    for seed in 0..SEEDS {
        let Ok(numbers) = schedule::run(seed, Guards::default(), false) else { continue };
        for (what, n) in numbers.happened {
            *happened.entry(what).or_default() += n;
        }
    }
    println!("{happened:#?}");
    let missed: Vec<&str> = REACHED.into_iter().filter(|what| !happened.contains_key(*what)).collect();
    assert!(missed.is_empty(), "never happened in {SEEDS} seeds: {missed:?}");
}

#[test]
fn a_seed_determines_its_run() {
    for seed in 0..20 {
        let numbers = |traced| schedule::run(seed, Guards::default(), traced).expect("a green seed");
        let (first, second) = (numbers(false), numbers(true));
        assert_eq!((first.steps, first.calls), (second.steps, second.calls), "seed {seed}");
    }
}
