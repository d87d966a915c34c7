//! The breaker: a mass deletion at the source stops every purge of the policy until a person says `release`.

use crate::time::SpanMs;

/// More than `deletes` removed keys within `window`, and more than `share` of the keys that were live, trip the breaker.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BreakerRule {
    /// How far back removals count, by the time they were noted.
    pub window: SpanMs,
    /// Up to so many removed keys are always fine.
    pub deletes: u64,
    /// Up to this share of the keys is always fine, 0 to 1.
    pub share: f64,
}

impl BreakerRule {
    /// The smallest number of removed keys that trips it, while `live` keys are left: no need to count any further.
    pub fn trips_at(&self, live: u64) -> u64 {
        // removed > share × (live + removed)  ⇔  removed > share × live ÷ (1 − share)
        let by_share = if self.share >= 1.0 {
            u64::MAX
        } else {
            (self.share * live as f64 / (1.0 - self.share)).floor() as u64 // saturates
        };
        self.deletes.max(by_share).saturating_add(1)
    }

    /// Whether so many removed keys, with so many keys left, trip it.
    pub fn trips(&self, removed: u64, live: u64) -> bool {
        removed >= self.trips_at(live)
    }
}
