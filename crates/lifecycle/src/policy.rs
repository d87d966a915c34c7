//! The rules of one policy, validated.

use crate::breaker::BreakerRule;
use crate::guards::Guards;
use crate::keep::Keep;
use crate::order::Basis;
use crate::time::SpanMs;

/// What one policy does with the copies of its source.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// What the source's orders are made of.
    pub basis: Basis,
    /// Which active copies stay.
    pub keep: Keep,
    /// The age under which nothing is purged, counted from the version's creation. Never longer than `grace`.
    pub protect_for: SpanMs,
    /// How long a disowned copy waits.
    pub grace: SpanMs,
    /// When a mass deletion stops every purge; `None` switches it off.
    pub breaker: Option<BreakerRule>,
    /// All on, but in tests of the tests.
    pub guards: Guards,
}
