//! The breaker: a mass deletion at the source stops every purge of the policy until a person says `release`.

use crate::time::SpanMs;

/// More than `deletes` removed keys within `window`, and more than `share` of the keys that were live, trip the breaker.
///
/// The keys that were live are those that are left and those that were removed. `deletes` should be well below the number
/// of keys: a rule with `deletes = 20` can never trip for a bucket of twenty objects.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BreakerRule {
    /// How far back removals count, by the time they were noted.
    pub window: SpanMs,
    /// Up to so many removed keys are always fine.
    pub deletes: u64,
    /// Up to this share of the keys is always fine, 0 to 1, exact to a millionth.
    pub share: f64,
}

/// Shares are counted in millionths, so that both sides of a comparison are whole numbers.
const WHOLE: u128 = 1_000_000;

impl BreakerRule {
    /// The smallest number of removed keys that trips it, while `live` keys are left: no need to count any further.
    /// `u64::MAX` where no number does.
    pub fn trips_at(&self, live: u64) -> u64 {
        // removed > share × (live + removed)  ⇔  removed > share × live ÷ (1 − share)
        let share = self.share_in_millionths();
        let fine_by_share = (share * u128::from(live)).checked_div(WHOLE - share).unwrap_or(u128::MAX);
        let fine_by_share = u64::try_from(fine_by_share).unwrap_or(u64::MAX);
        self.deletes.max(fine_by_share).saturating_add(1)
    }

    /// Whether so many removed keys, with so many keys left, trip it.
    pub fn trips(&self, removed: u64, live: u64) -> bool {
        let fine_by_share =
            u128::from(removed) * WHOLE <= self.share_in_millionths() * (u128::from(live) + u128::from(removed));
        removed > self.deletes && !fine_by_share
    }

    fn share_in_millionths(&self) -> u128 {
        (self.share.clamp(0.0, 1.0) * WHOLE as f64).round() as u128 // no number counts as 0: the careful side
    }
}
