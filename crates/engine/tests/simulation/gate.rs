//! The gate that every port call passes: the scheduler's turns, and the faults.
//!
//! A task stops before each call's effect and after it, and goes on when the scheduler polls it again. So between any two
//! effects of one task anything else may happen, and dropping a stopped task is a crash between two calls.

use crate::rng::Rng;
use crate::setup::Rates;
use engine::error::ErrorKind;
use engine::wrap::tap::{Call, Fate, Probe};
use futures_util::future::BoxFuture;
use std::fmt::Write;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

/// A request on its way whose caller is dead.
pub(crate) struct Late {
    pub task: usize,
    pub call: String,
    pub request: BoxFuture<'static, ()>,
}

struct State {
    rng: Rng,
    rates: Rates,
    /// No faults any more.
    quiet: bool,
    /// The task that is being polled.
    task: usize,
    died: bool,
    calls: u64,
    late: Vec<Late>,
    /// The call on which the task died late, until its request comes in.
    dying: String,
    trace: Option<String>,
}

/// The gate; clones are the same gate.
#[derive(Clone)]
pub(crate) struct Gate(Arc<Mutex<State>>);

/// What polling a task once brought.
pub(crate) enum Polled<T> {
    Done(T),
    Stopped,
    Died,
}

impl Gate {
    pub(crate) fn new(rng: Rng, rates: Rates, traced: bool) -> Gate {
        let state = State {
            rng,
            rates,
            quiet: false,
            task: 0,
            died: false,
            calls: 0,
            late: Vec::new(),
            dying: String::new(),
            trace: traced.then(String::new),
        };
        Gate(Arc::new(Mutex::new(state)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nobody panics while holding it")
    }

    /// Lets a task go on to its next stop.
    pub(crate) fn poll<T>(&self, task: usize, future: &mut Pin<Box<dyn Future<Output = T> + Send>>) -> Polled<T> {
        {
            let mut state = self.state();
            state.task = task;
            state.died = false;
        }
        let polled = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        match (polled, self.state().died) {
            (Poll::Ready(done), _) => Polled::Done(done),
            (Poll::Pending, true) => Polled::Died,
            (Poll::Pending, false) => Polled::Stopped,
        }
    }

    /// From now on nothing fails.
    pub(crate) fn quieten(&self) {
        self.state().quiet = true;
    }

    pub(crate) fn calls(&self) -> u64 {
        self.state().calls
    }

    pub(crate) fn has_late(&self) -> bool {
        !self.state().late.is_empty()
    }

    pub(crate) fn has_late_of(&self, task: usize) -> bool {
        self.state().late.iter().any(|late| late.task == task)
    }

    /// Takes one of the requests on their way, by chance.
    pub(crate) fn take_late(&self, rng: &mut Rng) -> Option<Late> {
        let mut state = self.state();
        let at = rng.below(state.late.len());
        (at < state.late.len()).then(|| state.late.remove(at))
    }

    /// Writes a line of the trace, if there is one.
    pub(crate) fn say(&self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.state().trace {
            trace.push_str(&line());
            trace.push('\n');
        }
    }

    pub(crate) fn trace(&self) -> String {
        self.state().trace.clone().unwrap_or_default()
    }

    fn drawn(state: &mut State, call: &Call) -> Fate {
        if state.quiet {
            return Fate::Pass;
        }
        let rates = state.rates;
        let rng = &mut state.rng;
        if rng.chance(rates.fail_before) {
            let kinds =
                [ErrorKind::Unavailable, ErrorKind::Throttled, ErrorKind::AccessDenied("s3:GetObject".to_owned())];
            return Fate::FailBefore(rng.pick(&kinds).clone());
        }
        if !call.effect {
            return Fate::Pass;
        }
        if rng.chance(rates.fail_after) {
            Fate::FailAfter(ErrorKind::Unavailable)
        } else if rng.chance(rates.fail_part) {
            Fate::FailPart(ErrorKind::Throttled)
        } else if rng.chance(rates.die_part) {
            Fate::DiePart
        } else if rng.chance(rates.die_late) {
            Fate::DieLate
        } else {
            Fate::Pass
        }
    }
}

impl Probe for Gate {
    fn before(&self, _call: &Call) -> Option<BoxFuture<'static, ()>> {
        Some(Box::pin(Stop { stopped: false }))
    }

    fn fate(&self, call: &Call) -> Fate {
        let mut state = self.state();
        state.calls += 1;
        let fate = Gate::drawn(&mut state, call);
        if matches!(fate, Fate::DieLate) {
            state.dying = format!("{} {}", call.name(), call.about);
        }
        let task = state.task;
        if let Some(trace) = &mut state.trace {
            let becomes = match &fate {
                Fate::Pass | Fate::First(_) => String::new(),
                Fate::FailBefore(kind) => format!("  FAILS: {kind}"),
                Fate::FailAfter(kind) => format!("  TAKES EFFECT, IS REPORTED AS: {kind}"),
                Fate::FailPart(kind) => format!("  FAILS IN PART: {kind}"),
                Fate::DieBefore | Fate::DieAfter | Fate::DiePart => "  DIES in the middle".to_owned(),
                Fate::DieLate => "  DIES, request on its way".to_owned(),
            };
            writeln!(trace, "    #{task} {} {}{becomes}", call.name(), call.about).expect("writing to a string");
        }
        fate
    }

    fn after(&self, _call: &Call) -> Option<BoxFuture<'static, ()>> {
        (!self.state().quiet).then(|| Box::pin(Stop { stopped: false }) as BoxFuture<'static, ()>)
    }

    fn died(&self) {
        self.state().died = true;
    }

    fn late(&self, request: BoxFuture<'static, ()>) {
        let mut state = self.state();
        let late = Late { task: state.task, call: std::mem::take(&mut state.dying), request };
        state.late.push(late);
    }
}

/// Stops once. Wakes at once, because the scheduler alone decides when to go on.
struct Stop {
    stopped: bool,
}

impl Future for Stop {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.stopped {
            return Poll::Ready(());
        }
        self.stopped = true;
        context.waker().wake_by_ref();
        Poll::Pending
    }
}
