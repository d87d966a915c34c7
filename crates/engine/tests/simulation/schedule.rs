//! One run: first everything at once and by chance, then rest: no more faults, every event delivered, time past every
//! grace, clean, reconcile; the oracle judges at each stop.

use crate::oracle;
use crate::rng::Rng;
use crate::setup::{Arrival, Setup};
use crate::world::{Outcome, Work, World};
use engine::limits::{LEASE_FOR, ORPHAN_AGE};
use engine::policy::Mode;
use engine::ports::clock::Clock;
use engine::report::Report;
use lifecycle::guards::Guards;
use lifecycle::time::{SpanMs, UnixMs};
use std::collections::BTreeMap;
use std::task::{Context, Poll, Waker};

/// Steps after which the first part of a run ends, whatever is left.
const STEPS: u64 = 1_500;

/// What a run did, for those who tune the chances.
#[derive(Clone, Debug, Default)]
pub(crate) struct Numbers {
    pub steps: u64,
    pub calls: u64,
    /// How often what happened.
    pub happened: BTreeMap<String, u64>,
}

/// A run that failed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub why: String,
    pub steps: usize,
    /// Empty unless traced.
    pub trace: String,
}

type Check = Result<(), String>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Deed,
    Handler,
    Step,
    Crash,
    Clean,
    Reconcile,
    Undelete,
    Release,
    Late,
    Advance,
    StepBack,
    Freeze,
}

/// Runs one seed.
pub(crate) fn run(seed: u64, guards: Guards, traced: bool) -> Result<Numbers, Failure> {
    let mut rng = Rng::of(seed);
    let setup = Setup::drawn(&mut rng, guards);
    let mut world = World::new(setup, rng, traced);
    let outcome = everything_at_once(&mut world).and_then(|()| rest(&mut world));
    match outcome {
        Ok(()) => Ok(Numbers { steps: world.step, calls: world.gate.calls(), happened: world.happened }),
        Err(why) => Err(Failure { why, steps: world.step as usize, trace: world.gate.trace() }),
    }
}

fn everything_at_once(world: &mut World) -> Check {
    let mut deeds = world.setup.deeds;
    for _ in 0..STEPS {
        world.collect_mail();
        let deliverable = world.deliverable();
        if deeds == 0 && world.tasks.is_empty() && deliverable.is_empty() && world.rng.chance(300) {
            break;
        }
        let Some(turn) = world.rng.weighed(&weights(world, deeds, &deliverable)) else { break };
        deeds -= usize::from(turn == Turn::Deed);
        take(world, turn, &deliverable);
        if let Some(violation) = world.watch.violation.take() {
            return Err(violation);
        }
    }
    Ok(())
}

fn weights(world: &World, deeds: usize, deliverable: &[usize]) -> [(usize, Turn); 12] {
    let running = |work: &Work| world.tasks.iter().filter(|task| task.work == *work).count();
    let handlers = world.tasks.iter().filter(|task| matches!(task.work, Work::Handle(_))).count();
    let setup = &world.setup;
    let if_ = |condition: bool, weight: usize| if condition { weight } else { 0 };
    let per_step = |rate: u64| if_(!world.tasks.is_empty(), rate as usize);
    [
        (if_(deeds > 0, 25), Turn::Deed),
        (if_(handlers < setup.handlers && !deliverable.is_empty(), 60), Turn::Handler),
        (if_(!world.tasks.is_empty(), 1_000), Turn::Step),
        (per_step(setup.rates.crash), Turn::Crash),
        (if_(running(&Work::Clean) < 2, 12), Turn::Clean),
        (if_(setup.reconciles && running(&Work::Reconcile) < 2, 6), Turn::Reconcile),
        (if_(setup.undeletes && running(&Work::Undelete) < 1, 8), Turn::Undelete),
        (if_(setup.rules.breaker.is_some() && running(&Work::Release) < 1, 4), Turn::Release),
        (if_(world.gate.has_late(), 60), Turn::Late),
        (if setup.ties { 8 } else { 60 }, Turn::Advance),
        (setup.rates.step_back as usize, Turn::StepBack),
        (if_(setup.stale_index, 12), Turn::Freeze),
    ]
}

fn take(world: &mut World, turn: Turn, deliverable: &[usize]) {
    match turn {
        Turn::Deed => {
            world.step += 1;
            world.source.at_step(world.step);
            world.deed();
        }
        Turn::Handler => world.start_handler(deliverable),
        Turn::Step => {
            let at = world.rng.below(world.tasks.len());
            world.poll(at);
        }
        Turn::Crash => {
            let at = world.rng.below(world.tasks.len());
            world.bury(at);
        }
        Turn::Clean => world.start(Work::Clean),
        Turn::Reconcile => world.start(Work::Reconcile),
        Turn::Undelete => world.start(Work::Undelete),
        Turn::Release => world.start(Work::Release),
        Turn::Late => one_late(world),
        Turn::Advance => {
            let grace = world.setup.rules.grace;
            let spans = [SpanMs(1), SpanMs(7), SpanMs::seconds(1), SpanMs::minutes(2), LEASE_FOR, grace];
            let span = *world.rng.pick(&spans);
            advance(world, span);
        }
        Turn::StepBack => {
            let span = *world.rng.pick(&[SpanMs(1), SpanMs(8), SpanMs::seconds(2)]);
            world.gate.say(|| format!("the clock steps back by {span}"));
            world.clock.set(world.clock.now().minus(span));
        }
        Turn::Freeze => {
            if world.rng.chance(400) {
                world.gate.say(|| "the index lags behind from here".to_owned());
                world.watch.stale_until = u64::MAX;
                world.catalog.freeze_index();
            } else {
                thaw(world);
            }
        }
    }
}

fn thaw(world: &mut World) {
    if world.watch.stale_until == u64::MAX {
        world.gate.say(|| "the index has caught up".to_owned());
        world.watch.stale_until = world.step;
    }
    world.catalog.thaw_index();
}

fn advance(world: &mut World, span: SpanMs) {
    world.clock.advance(span);
    world.watch.latest = world.watch.latest.max(world.clock.now());
    world.gate.say(|| format!("{span} pass: {}", world.clock.now().0));
}

/// A request whose caller is dead comes in.
fn one_late(world: &mut World) {
    let Some(mut late) = world.gate.take_late(&mut world.rng) else { return };
    world.step += 1;
    world.source.at_step(world.step);
    world.gate.say(|| format!("    the late request of #{} comes in: {}", late.task, late.call));
    let polled = late.request.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert_eq!(polled, Poll::Ready(()), "requests to memory end at once");
    world.late_came_in(late.task);
    world.count("late requests".to_owned(), 1);
    // Its caller began before the run knows: judge it as if it had begun with the run.
    world.look_on(0, &Work::Release);
}

/// Runs one task to its end, with nobody beside it.
fn alone(world: &mut World, work: Work) -> Result<Outcome, String> {
    assert!(world.tasks.is_empty(), "alone means alone");
    world.start(work);
    loop {
        let outcome = world.poll(0);
        if let Some(violation) = world.watch.violation.take() {
            return Err(violation);
        }
        if let Some(outcome) = outcome {
            return Ok(outcome);
        }
    }
}

fn command(world: &mut World, work: Work) -> Result<Report, String> {
    let name = format!("{work:?}");
    match alone(world, work)? {
        Outcome::Reported(Ok(report)) if report.is_success() => Ok(report),
        Outcome::Reported(result) => Err(format!("{name} did not succeed, with nothing in its way: {result:?}")),
        Outcome::Handled(_) => Err(format!("{name} is no handler")),
    }
}

/// Hands the event at that place to a handler that is alone and meets no fault: it must come to rest.
fn deliver(world: &mut World, place: usize) -> Check {
    world.mails[place].in_hands += 1;
    match alone(world, Work::Handle(vec![place]))? {
        Outcome::Handled(Ok(())) => Ok(()),
        Outcome::Handled(Err(error)) => {
            Err(format!("a handler alone, without faults, did not come to rest: {error:?}"))
        }
        Outcome::Reported(_) => Err("a handler does not report".to_owned()),
    }
}

/// All comes to rest, and the oracle judges.
fn rest(world: &mut World) -> Check {
    world.gate.say(|| "--- no more faults ---".to_owned());
    world.gate.quieten();
    while world.gate.has_late() {
        one_late(world);
    }
    thaw(world);
    while !world.tasks.is_empty() {
        let at = world.rng.below(world.tasks.len());
        world.poll(at);
        if let Some(violation) = world.watch.violation.take() {
            return Err(violation);
        }
    }
    deliver_all(world)?;
    world.gate.say(|| "--- every event was handled ---".to_owned());
    oracle::events_alone_suffice(world)?;

    pass_every_span(world);
    clean_up(world)?;
    command(world, Work::Reconcile)?;
    pass_every_span(world);
    clean_up(world)?;
    world.gate.say(|| "--- at rest ---".to_owned());
    let again = command(world, Work::Reconcile)?;
    oracle::nothing_left_to_repair(world, &again)?;
    oracle::at_rest(world)?;
    settling_again_writes_nothing(world)?;
    if world.setup.echoes {
        echoes(world)?;
    }
    Ok(())
}

fn deliver_all(world: &mut World) -> Check {
    loop {
        world.collect_mail();
        let mut waiting: Vec<usize> = (0..world.mails.len()).filter(|place| !world.mails[*place].handled).collect();
        if waiting.is_empty() {
            return Ok(());
        }
        match world.setup.arrival {
            Arrival::OldestFirst => {}
            Arrival::NewestFirst => waiting.reverse(),
            Arrival::AnyOrder => waiting = vec![*world.rng.pick(&waiting)],
        }
        deliver(world, waiting[0])?;
        if world.rng.chance(world.setup.rates.duplicate) {
            let place = world.rng.below(world.mails.len());
            deliver(world, place)?;
        }
    }
}

/// Lets more time pass than any rule waits for.
fn pass_every_span(world: &mut World) {
    let rules = &world.setup.rules;
    let longest = rules.grace.max(rules.protect_for).max(rules.keep.within.unwrap_or_default()).max(ORPHAN_AGE);
    let ahead = world.watch.latest.since(world.clock.now());
    advance(world, SpanMs(longest.0 + ahead.0 + 60_000));
}

/// A person releases the breaker where it has tripped; then everything due goes.
fn clean_up(world: &mut World) -> Check {
    for _ in 0..2 {
        command(world, Work::Clean)?;
        if world.catalog.policy_state().tripped.is_none() {
            return Ok(());
        }
        command(world, Work::Release)?;
        advance(world, SpanMs(1));
    }
    command(world, Work::Clean).map(drop)
}

/// Delivering all events once more, at once or in another order, changes nothing that lasts.
fn settling_again_writes_nothing(world: &mut World) -> Check {
    if world.setup.mode == Mode::Mirror {
        return Ok(());
    }
    let young = |time: UnixMs| world.clock.now().since(time) < SpanMs::days(12);
    let last: Vec<usize> = world.keys.iter().filter_map(|key| oracle::newest_mail(world, key)).collect();
    for place in last.into_iter().filter(|place| young(world.mails[*place].event.time)).collect::<Vec<_>>() {
        deliver(world, place)?;
        let (rows, objects) = (oracle::rows_without_rev(world), world.destination.contents());
        deliver(world, place)?;
        oracle::unchanged(world, &rows, &objects)?;
    }
    pass_every_span(world);
    clean_up(world)?;
    oracle::at_rest(world)
}

/// 15 days later tombstones are forgotten, and events come again.
fn echoes(world: &mut World) -> Check {
    world.gate.say(|| "--- 15 days later ---".to_owned());
    advance(world, SpanMs::days(15));
    clean_up(world)?;
    for _ in 0..world.mails.len().min(4) {
        let place = world.rng.below(world.mails.len());
        deliver(world, place)?;
    }
    pass_every_span(world);
    clean_up(world)?;
    oracle::at_rest(world)
}
