//! The world of one run: the source with its history, the policy over tapped ports in memory, the events on their way, and
//! the tasks at work: handlers, cleaners, reconcile, undelete, release.

use crate::gate::{Gate, Polled};
use crate::rng::Rng;
use crate::setup::{Arrival, Flavour, Setup};
use crate::source::Source;
use crate::watch::Watch;
use bytes::Bytes;
use engine::error::FlowResult;
use engine::flows::clean::clean;
use engine::flows::handle::handle;
use engine::flows::reconcile::{Orphans, reconcile};
use engine::flows::release::release;
use engine::flows::undelete::{Depth, Removed, undelete};
use engine::memory::bucket::{MemoryBucket, Versioning};
use engine::memory::catalog::MemoryCatalog;
use engine::memory::clock::MemoryClock;
use engine::memory::copier::MemoryCopier;
use engine::memory::journal::MemoryJournal;
use engine::memory::nonces::MemoryNonces;
use engine::memory::wiring::START;
use engine::policy::Policy;
use engine::ports::clock::Clock;
use engine::ports::metrics::Counters;
use engine::ports::objects::{Attributes, ObjectWrite};
use engine::ports::progress::Silent;
use engine::report::Report;
use engine::steps::purge::Purger;
use engine::wrap::tap::Tap;
use lifecycle::event::ObjectEvent;
use lifecycle::ids::{ObjectKey, PolicyName};
use lifecycle::time::SpanMs;
use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Port calls that one task may make before it counts as running away.
const CALLS_OF_A_TASK: u64 = 3_000;

/// One event on its way.
pub(crate) struct Mail {
    /// The number of its fact.
    pub number: u64,
    pub event: ObjectEvent,
    /// It was handled at least once, and acknowledged.
    pub handled: bool,
    /// How many handlers have it now.
    pub in_hands: usize,
    /// How often it may still come again after it was handled.
    pub repeats: usize,
    /// The step in which a handler that had it last failed or died.
    pub failed_in: Option<u64>,
    /// Requests of dead handlers that are still on their way: a request times out before its event is delivered again.
    pub on_the_way: usize,
}

/// What a task does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Handles these events (their places).
    Handle(Vec<usize>),
    Clean,
    Reconcile,
    Undelete,
    Release,
}

pub(crate) enum Outcome {
    Handled(FlowResult<()>),
    Reported(FlowResult<Report>),
}

pub(crate) struct Task {
    pub id: usize,
    pub work: Work,
    pub started: u64,
    future: Pin<Box<dyn Future<Output = Outcome> + Send>>,
    calls_before: u64,
}

/// What became of a command that the run must remember.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Remembered {
    /// A reconcile or undelete died, failed, or left a request on its way: only reconcile repairs that.
    pub command_cut_short: bool,
    /// An undelete was asked for.
    pub undeleted: bool,
    /// Keys of which an event came without its order.
    pub orderless: BTreeSet<ObjectKey>,
    /// Keys of which a handler failed or died, or its late request came in, while or after another handled the same event
    /// to its end: nobody delivers it again, only reconcile repairs that.
    pub overtaken: BTreeSet<ObjectKey>,
}

pub(crate) struct World {
    pub setup: Setup,
    pub rng: Rng,
    pub gate: Gate,
    pub clock: Arc<MemoryClock>,
    pub source: Arc<Source>,
    pub destination: Arc<MemoryBucket>,
    pub catalog: Arc<MemoryCatalog>,
    pub policy: Arc<Policy>,
    writer: Arc<dyn ObjectWrite>,
    pub keys: Vec<ObjectKey>,
    pub mails: Vec<Mail>,
    pub tasks: Vec<Task>,
    pub remembered: Remembered,
    pub watch: Watch,
    /// How often what happened, to know that the chances reach everything.
    pub happened: BTreeMap<String, u64>,
    pub step: u64,
    /// The events of handlers that died with a request on its way.
    late_mail: BTreeMap<usize, Vec<usize>>,
    next_task: usize,
}

impl World {
    pub(crate) fn new(setup: Setup, rng: Rng, traced: bool) -> World {
        let clock = Arc::new(MemoryClock::at(START));
        let versioning = match setup.flavour {
            Flavour::Versioned | Flavour::Spooled => Versioning::On,
            Flavour::Unversioned => Versioning::Off,
        };
        let bucket = |name, versioning| {
            let bucket = MemoryBucket::new(name, versioning, Arc::clone(&clock) as Arc<dyn Clock>);
            Arc::new(if setup.checksums { bucket } else { bucket.without_checksums() })
        };
        let keys: Vec<ObjectKey> =
            ["a", "a/b", "a+b"][..setup.keys].iter().map(|key| ObjectKey::new(*key).expect("short")).collect();
        let source = bucket("source", versioning);
        let source = Arc::new(Source::new(source, Arc::clone(&clock), setup.flavour, &keys));
        let destination = bucket("copies", Versioning::Off);
        let catalog = Arc::<MemoryCatalog>::default();
        let mut seeds = rng.clone();
        let gate = Gate::new(Rng::of(seeds.next()), setup.rates, traced);
        let policy = wired(&setup, &gate, &clock, &source, &destination, &catalog, seeds.next());
        let writer = Tap::new(Arc::new(gate.clone())).write("writer", Arc::clone(&source) as _);
        gate.say(|| format!("{setup:?}"));
        World {
            setup,
            rng,
            gate,
            clock,
            source,
            destination,
            catalog,
            policy: Arc::new(policy),
            writer,
            keys,
            mails: Vec::new(),
            tasks: Vec::new(),
            remembered: Remembered::default(),
            watch: Watch::from(START),
            happened: BTreeMap::new(),
            step: 0,
            late_mail: BTreeMap::new(),
            next_task: 0,
        }
    }

    /// Something happens at the source.
    pub(crate) fn deed(&mut self) {
        let key = self.rng.pick(&self.keys).clone();
        let present = self.source.current(&key).is_some();
        let versions = if self.setup.version_deletes { self.source.versions(&key) } else { Vec::new() };
        let weights = [(if present { 5 } else { 8 }, 0), (if present { 4 } else { 1 }, 1), (versions.len().min(3), 2)];
        match self.rng.weighed(&weights).expect("a put is always possible") {
            0 => {
                let text = *self.rng.pick(&["one", "two", "three", ""]);
                let bytes = Bytes::from_static(text.as_bytes());
                self.gate.say(|| format!("source: put {key} = {bytes:?}"));
                self.source.put(&key, bytes, Attributes::default());
            }
            1 => {
                self.gate.say(|| format!("source: delete {key}"));
                self.source.remove(&key);
            }
            _ => {
                // Most often the newest: the current content, or the marker that hides it.
                let newest = self.rng.chance(500).then(|| versions.last()).flatten();
                let id = newest.unwrap_or_else(|| self.rng.pick(&versions)).clone();
                self.gate.say(|| format!("source: delete version {id} of {key} for good"));
                self.source.remove_version(&key, &id);
            }
        }
    }

    /// Takes the events that the source has emitted.
    pub(crate) fn collect_mail(&mut self) {
        for (number, mut event) in self.source.take_events() {
            if self.setup.orderless && self.rng.chance(300) {
                event.order = None;
                self.remembered.orderless.insert(event.key.clone());
            }
            let repeats = if self.rng.chance(self.setup.rates.duplicate) { 1 + self.rng.below(2) } else { 0 };
            self.mails.push(Mail {
                number,
                event,
                handled: false,
                in_hands: 0,
                repeats,
                failed_in: None,
                on_the_way: 0,
            });
        }
    }

    /// Places of the events that a handler may get now.
    pub(crate) fn deliverable(&mut self) -> Vec<usize> {
        let twice = self.rng.chance(self.setup.rates.duplicate);
        let may = |mail: &Mail| match (mail.handled, mail.in_hands) {
            (false, 0) => true,
            (false, _) => twice,
            (true, _) => mail.repeats > 0,
        };
        (0..self.mails.len()).filter(|place| self.mails[*place].on_the_way == 0 && may(&self.mails[*place])).collect()
    }

    /// Hands an event, or several of one key, to a handler.
    pub(crate) fn start_handler(&mut self, deliverable: &[usize]) {
        let place = match self.setup.arrival {
            Arrival::OldestFirst => deliverable[0],
            Arrival::NewestFirst => deliverable[deliverable.len() - 1],
            Arrival::AnyOrder => *self.rng.pick(deliverable),
        };
        let key = self.mails[place].event.key.clone();
        let mut places = vec![place];
        if self.rng.chance(150) {
            places = deliverable.iter().copied().filter(|other| self.mails[*other].event.key == key).collect();
        }
        for place in &places {
            let mail = &mut self.mails[*place];
            mail.in_hands += 1;
            if mail.handled && mail.repeats > 0 {
                // Delivered once more, it is like any other delivery until it is handled once more.
                mail.repeats -= 1;
                mail.handled = false;
            }
        }
        self.start(Work::Handle(places));
    }

    /// Starts a task; it stops before its first call.
    pub(crate) fn start(&mut self, work: Work) {
        let policy = Arc::clone(&self.policy);
        let cancel = CancellationToken::new();
        let future: Pin<Box<dyn Future<Output = Outcome> + Send>> = match &work {
            Work::Handle(places) => {
                let events: Vec<ObjectEvent> = places.iter().map(|place| self.mails[*place].event.clone()).collect();
                Box::pin(async move { Outcome::Handled(handle(&policy, &events[0].key, &events).await) })
            }
            Work::Clean => Box::pin(async move { Outcome::Reported(clean(&policy, &cancel).await) }),
            Work::Reconcile => {
                Box::pin(async move { Outcome::Reported(reconcile(&policy, Orphans::OfAge, &Silent, &cancel).await) })
            }
            Work::Undelete => {
                self.remembered.undeleted = true;
                let what = match self.rng.below(3) {
                    0 => Removed::Key(self.rng.pick(&self.keys).clone()),
                    1 => Removed::Prefix(String::new()),
                    _ => Removed::Since(self.clock.now().minus(SpanMs::hours(1))),
                };
                let depth = *self.rng.pick(&[Depth::All, Depth::Newest]);
                let writer = Arc::clone(&self.writer);
                Box::pin(async move {
                    Outcome::Reported(Ok(undelete(&policy, &what, depth, &writer, "sim", &Silent, &cancel).await))
                })
            }
            Work::Release => Box::pin(async move { Outcome::Reported(release(&policy, "sim").await) }),
        };
        self.next_task += 1;
        let id = self.next_task;
        self.gate.say(|| match &work {
            Work::Handle(places) => {
                let events: Vec<String> = places.iter().map(|place| told(&self.mails[*place])).collect();
                format!("#{id} handles {}", events.join(" and "))
            }
            work => format!("#{id} begins: {work:?}"),
        });
        self.tasks.push(Task { id, work, started: self.step, future, calls_before: self.gate.calls() });
    }

    /// Lets the task at that place go on to its next stop; its outcome if that was its end.
    pub(crate) fn poll(&mut self, at: usize) -> Option<Outcome> {
        self.step += 1;
        self.source.at_step(self.step);
        let task = &mut self.tasks[at];
        let (id, started, work) = (task.id, task.started, task.work.clone());
        let polled = self.gate.poll(id, &mut task.future);
        if self.gate.calls() - task.calls_before > CALLS_OF_A_TASK {
            self.watch.violated(format!("#{id} made more than {CALLS_OF_A_TASK} calls: {work:?}"));
        }
        self.look_on(started, &work);
        match polled {
            Polled::Stopped => None,
            Polled::Died => {
                if let (Work::Handle(places), true) = (&work, self.gate.has_late_of(id)) {
                    places.iter().for_each(|place| self.mails[*place].on_the_way += 1);
                    self.late_mail.insert(id, places.clone());
                }
                self.bury(at);
                None
            }
            Polled::Done(outcome) => {
                self.tasks.swap_remove(at);
                self.ended(id, started, &work, &outcome);
                Some(outcome)
            }
        }
    }

    /// Compares the world with what it was before the last step.
    pub(crate) fn look_on(&mut self, started: u64, work: &Work) {
        let mut watch = std::mem::take(&mut self.watch);
        watch.look(self, started, work);
        self.watch = watch;
    }

    /// The task at that place is dead: its events come again, once what it left on its way has come in.
    pub(crate) fn bury(&mut self, at: usize) {
        let task = self.tasks.swap_remove(at);
        self.gate.say(|| format!("#{} is dead", task.id));
        self.count(format!("died: {}", named(&task.work)), 1);
        self.put_back(&task.work);
        self.unsettled(&task.work);
        self.remembered.command_cut_short |= is_command(&task.work);
    }

    /// The late request of that task has come in.
    pub(crate) fn late_came_in(&mut self, task: usize) {
        for place in self.late_mail.remove(&task).unwrap_or_default() {
            self.mails[place].on_the_way -= 1;
            self.overtaken_if(place, |mail| mail.handled);
        }
    }

    pub(crate) fn count(&mut self, what: String, n: u64) {
        if n > 0 {
            *self.happened.entry(what).or_default() += n;
        }
    }

    fn put_back(&mut self, work: &Work) {
        let Work::Handle(places) = work else { return };
        for place in places {
            self.mails[*place].in_hands -= 1;
        }
    }

    /// A handler ended without having settled its events. Those that another handler has finished meanwhile do not come
    /// again, and what this one wrote is looked at by nobody: only reconcile repairs that.
    fn unsettled(&mut self, work: &Work) {
        let Work::Handle(places) = work else { return };
        for place in places {
            self.mails[*place].failed_in = Some(self.step);
            self.overtaken_if(*place, |mail| mail.handled);
        }
    }

    fn overtaken_if(&mut self, place: usize, is: impl Fn(&Mail) -> bool) {
        let mail = &self.mails[place];
        if is(mail) {
            self.remembered.overtaken.insert(mail.event.key.clone());
        }
    }

    fn ended(&mut self, id: usize, started: u64, work: &Work, outcome: &Outcome) {
        self.put_back(work);
        match (work, outcome) {
            (Work::Handle(places), Outcome::Handled(Ok(()))) => {
                self.gate.say(|| format!("#{id} done"));
                for place in places {
                    self.mails[*place].handled = true;
                    self.overtaken_if(*place, |mail| mail.failed_in.is_some_and(|step| step >= started));
                }
                let mails = &self.mails;
                self.source.forget_handled(|number| mails.iter().any(|mail| mail.number == number && mail.handled));
            }
            (_, Outcome::Handled(result)) => {
                self.gate.say(|| format!("#{id} puts back: {result:?}"));
                self.count("handler: put back".to_owned(), 1);
                self.unsettled(work);
            }
            (work, Outcome::Reported(Ok(report))) => {
                self.gate.say(|| format!("#{id} reports: {report:?}"));
                for (what, n) in &report.counts {
                    self.count(format!("{}: {what}", report.operation), *n);
                }
                self.remembered.command_cut_short |= is_command(work) && !report.is_success();
            }
            (work, Outcome::Reported(Err(error))) => {
                self.gate.say(|| format!("#{id} failed: {error:?}"));
                self.remembered.command_cut_short |= is_command(work);
            }
        }
    }
}

fn named(work: &Work) -> &'static str {
    match work {
        Work::Handle(_) => "handler",
        Work::Clean => "clean",
        Work::Reconcile => "reconcile",
        Work::Undelete => "undelete",
        Work::Release => "release",
    }
}

/// Reconcile and undelete are redelivered by nobody.
fn is_command(work: &Work) -> bool {
    matches!(work, Work::Reconcile | Work::Undelete)
}

fn told(mail: &Mail) -> String {
    let again = if mail.handled { " again" } else { "" };
    format!("event {}{again} of {} at {}: {:?}", mail.number, mail.event.key, mail.event.time.0, mail.event.what)
}

fn wired(
    setup: &Setup,
    gate: &Gate,
    clock: &Arc<MemoryClock>,
    source: &Arc<Source>,
    destination: &Arc<MemoryBucket>,
    catalog: &Arc<MemoryCatalog>,
    nonces: u64,
) -> Policy {
    let tap = Tap::new(Arc::new(gate.clone()));
    let copier = |from: &Arc<MemoryBucket>| MemoryCopier::new(Arc::clone(from), Arc::clone(destination));
    Policy {
        name: PolicyName::from("sim"),
        mode: setup.mode,
        rules: setup.rules.clone(),
        source_bucket: "source".to_owned(),
        source_prefix: String::new(),
        source: tap.read("source", Arc::clone(source) as _),
        destination: tap.read("destination", Arc::clone(destination) as _),
        copier: tap.copy("copier", Arc::new(copier(&source.bucket))),
        recopier: tap.copy("recopier", Arc::new(copier(destination))),
        purger: Purger::new(tap.purge("purger", Arc::clone(destination) as _)),
        catalog: tap.catalog("catalog", Arc::clone(catalog) as _),
        keys: setup.lists_keys.then(|| tap.keys("keys", Arc::clone(catalog) as _)),
        scratch: std::env::temp_dir(),
        journal: tap.journal("journal", Arc::new(MemoryJournal::default())),
        clock: Arc::clone(clock) as _,
        nonces: Arc::new(MemoryNonces::seeded(nonces)),
        metrics: Arc::new(Counters::default()),
    }
}
