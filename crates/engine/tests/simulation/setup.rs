//! What one seed chooses before it starts: the kind of source, the rules, how many keys, which faults and how often.

use crate::rng::Rng;
use engine::policy::Mode;
use lifecycle::breaker::BreakerRule;
use lifecycle::guards::Guards;
use lifecycle::keep::Keep;
use lifecycle::order::Basis;
use lifecycle::policy::Rules;
use lifecycle::time::SpanMs;

/// How the source treats what is overwritten or deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flavour {
    /// Every version stays readable by its id.
    Versioned,
    /// Only the current content is there; events name no version.
    Unversioned,
    /// As one machine's own buckets: a version stays readable until its event was handled.
    Spooled,
}

/// In which order events reach handlers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    OldestFirst,
    NewestFirst,
    AnyOrder,
}

/// How often, of a thousand calls or steps, what goes wrong.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rates {
    /// A call fails and did nothing: no answer, not allowed, slow down.
    pub fail_before: u64,
    /// A call takes effect and is reported as failed.
    pub fail_after: u64,
    /// Of a batch a part fails.
    pub fail_part: u64,
    /// The caller dies in the middle of a batch.
    pub die_part: u64,
    /// The caller dies, and the call takes effect later.
    pub die_late: u64,
    /// A handler or command dies between two calls (per step).
    pub crash: u64,
    /// An event is handed to a second handler while the first has it, or after it was handled (per start).
    pub duplicate: u64,
    /// The clock steps back (per step).
    pub step_back: u64,
}

/// Everything that the seed chose.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub mode: Mode,
    pub flavour: Flavour,
    pub rules: Rules,
    pub keys: usize,
    /// How many things happen at the source.
    pub deeds: usize,
    pub handlers: usize,
    pub arrival: Arrival,
    pub rates: Rates,
    /// Versions and markers are deleted for good, too.
    pub version_deletes: bool,
    /// `undelete` is asked for.
    pub undeletes: bool,
    /// `reconcile` runs while events are on their way.
    pub reconciles: bool,
    /// The index lags behind.
    pub stale_index: bool,
    /// The catalog lists its keys.
    pub lists_keys: bool,
    /// Source and destination know checksums.
    pub checksums: bool,
    /// Some events carry no order.
    pub orderless: bool,
    /// Time stands still between most deeds, so that times tie.
    pub ties: bool,
    /// After all has come to rest, some events are delivered again 15 days later.
    pub echoes: bool,
}

impl Setup {
    pub(crate) fn drawn(rng: &mut Rng, guards: Guards) -> Setup {
        let mode = if rng.chance(130) { Mode::Mirror } else { Mode::Copies };
        let flavour = *rng.pick(&[Flavour::Versioned, Flavour::Unversioned, Flavour::Spooled]);
        let rules = drawn_rules(rng, flavour, guards);
        let faulty = rng.below(4);
        Setup {
            mode,
            flavour,
            rules,
            keys: 1 + rng.below(3),
            deeds: 1 + rng.below(8),
            handlers: 1 + rng.below(3),
            arrival: *rng.pick(&[Arrival::OldestFirst, Arrival::NewestFirst, Arrival::AnyOrder]),
            rates: drawn_rates(rng, faulty),
            version_deletes: flavour == Flavour::Versioned && rng.chance(500),
            undeletes: mode == Mode::Copies && rng.chance(250),
            reconciles: rng.chance(350),
            stale_index: rng.chance(400),
            lists_keys: rng.chance(750),
            checksums: rng.chance(800),
            orderless: rng.chance(120),
            ties: rng.chance(400),
            echoes: rng.chance(300),
        }
    }
}

fn drawn_rules(rng: &mut Rng, flavour: Flavour, guards: Guards) -> Rules {
    let basis = match flavour {
        Flavour::Spooled => Basis::Sequencer,
        Flavour::Versioned | Flavour::Unversioned => *rng.pick(&[Basis::Sequencer, Basis::Time]),
    };
    let grace = *rng.pick(&[SpanMs::seconds(10), SpanMs::minutes(10), SpanMs::hours(6)]);
    let short = SpanMs(grace.0 / 2);
    Rules {
        basis,
        keep: Keep { within: rng.chance(150).then_some(SpanMs::minutes(20)), ..Keep::last(1 + rng.below(3) as u32) },
        protect_for: if rng.chance(150) { short } else { SpanMs::ZERO },
        grace,
        breaker: rng.chance(250).then_some(BreakerRule { window: SpanMs::hours(1), deletes: 1, share: 0.3 }),
        guards,
    }
}

/// From "nothing goes wrong" to "much does".
fn drawn_rates(rng: &mut Rng, faulty: usize) -> Rates {
    let mut up_to = |most: usize| if faulty == 0 || rng.chance(400) { 0 } else { rng.below(most * faulty) as u64 };
    Rates {
        fail_before: up_to(25),
        fail_after: up_to(20),
        fail_part: up_to(15),
        die_part: up_to(10),
        die_late: up_to(15),
        crash: up_to(25),
        duplicate: 20 + up_to(150),
        step_back: up_to(15),
    }
}
