//! Faults that can be replayed: at named calls, at the k-th effect, or drawn from a seed. For tests only.
//!
//! [`Faults`] is a [`Probe`]: tap the ports of one process with it. Death is for good: from then on no call of that process
//! returns, and [`Faults::death`] wakes whoever runs it, who then drops what it was running. Requests that were on their
//! way when it died take effect when [`Faults::take_late`]'s futures are awaited.

use super::tap::{Call, Fate, Probe};
use crate::error::ErrorKind;
use futures_util::future::BoxFuture;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio_util::sync::CancellationToken;

/// How a process dies at an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// Before the effect.
    Before,
    /// After it, before the caller learns of it.
    After,
    /// In the middle of a batch.
    Part,
    /// On the way: the effect comes later.
    Late,
}

impl Death {
    /// All of them.
    pub const ALL: [Death; 4] = [Death::Before, Death::After, Death::Part, Death::Late];
}

/// How often, of a thousand calls, what happens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// The call fails and did nothing.
    pub fail_before: u16,
    /// The call takes effect and is reported as failed.
    pub fail_after: u16,
    /// Of a batch a part fails.
    pub fail_part: u16,
    /// The other side asks to slow down.
    pub throttle: u16,
    /// Everything else that is ready goes first.
    pub delay: u16,
}

/// A scripted fault: at the n-th call (from 1) of that `port.method`.
struct Scripted {
    name: &'static str,
    nth: usize,
    fate: Fate,
}

#[derive(Default)]
struct State {
    effects: usize,
    die_at: Option<(usize, Death)>,
    script: Vec<Scripted>,
    seeded: Option<(u64, Rates)>,
    late: Vec<BoxFuture<'static, ()>>,
}

/// The faults of one process.
#[derive(Default)]
pub struct Faults {
    state: Mutex<State>,
    dead: CancellationToken,
}

impl Faults {
    /// Dies at the k-th effect, from 1.
    pub fn die_at(k: usize, death: Death) -> Faults {
        Faults { state: Mutex::new(State { die_at: Some((k, death)), ..State::default() }), ..Faults::default() }
    }

    /// Faults drawn from a seed: the same calls in the same order meet the same faults.
    pub fn seeded(seed: u64, rates: Rates) -> Faults {
        Faults { state: Mutex::new(State { seeded: Some((seed, rates)), ..State::default() }), ..Faults::default() }
    }

    /// That becomes of the n-th call of `port.method` from now on, counted from 1.
    pub fn at(&self, name: &'static str, nth: usize, fate: Fate) {
        self.state().script.push(Scripted { name, nth, fate });
    }

    /// Effects so far.
    pub fn effects(&self) -> usize {
        self.state().effects
    }

    /// Whether the process has died.
    pub fn is_dead(&self) -> bool {
        self.dead.is_cancelled()
    }

    /// Waits until the process dies.
    pub async fn death(&self) {
        self.dead.cancelled().await;
    }

    /// The requests of the dead that are still on their way: await them when they are to take effect.
    pub fn take_late(&self) -> Vec<BoxFuture<'static, ()>> {
        std::mem::take(&mut self.state().late)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner) // every field is whole at any time
    }
}

impl Probe for Faults {
    fn fate(&self, call: &Call) -> Fate {
        if self.is_dead() {
            return Fate::DieBefore; // nothing comes out of the dead
        }
        let mut state = self.state();
        state.effects += usize::from(call.effect);
        if let Some((k, death)) = state.die_at
            && call.effect
            && state.effects == k
        {
            return match death {
                Death::Before => Fate::DieBefore,
                Death::After => Fate::DieAfter,
                Death::Part => Fate::DiePart,
                Death::Late => Fate::DieLate,
            };
        }
        if let Some(fate) = state.scripted(call) {
            return fate;
        }
        state.drawn(call)
    }

    fn died(&self) {
        self.dead.cancel();
    }

    fn late(&self, request: BoxFuture<'static, ()>) {
        self.state().late.push(request);
    }
}

impl State {
    fn scripted(&mut self, call: &Call) -> Option<Fate> {
        let name = call.name();
        let mut hit = None;
        for (place, scripted) in self.script.iter_mut().enumerate().filter(|(_, scripted)| scripted.name == name) {
            scripted.nth = scripted.nth.saturating_sub(1);
            if scripted.nth == 0 && hit.is_none() {
                hit = Some(place);
            }
        }
        hit.map(|place| self.script.remove(place).fate)
    }

    fn drawn(&mut self, call: &Call) -> Fate {
        let Some((seed, rates)) = &mut self.seeded else { return Fate::Pass };
        let mut draw = (splitmix(seed) % 1_000) as u16;
        let mut falls = |rate: u16| match draw.checked_sub(rate) {
            None => true,
            Some(rest) => {
                draw = rest;
                false
            }
        };
        if falls(rates.fail_before) {
            Fate::FailBefore(ErrorKind::Unavailable)
        } else if falls(rates.throttle) {
            Fate::FailBefore(ErrorKind::Throttled)
        } else if falls(rates.delay) {
            Fate::First(Box::pin(tokio::task::yield_now()))
        } else if call.effect && falls(rates.fail_after) {
            Fate::FailAfter(ErrorKind::Unavailable)
        } else if call.effect && falls(rates.fail_part) {
            Fate::FailPart(ErrorKind::Throttled)
        } else {
            Fate::Pass
        }
    }
}

/// SplitMix64 (Steele, Lea and Flood, 2014): small, and the same on every machine.
fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
