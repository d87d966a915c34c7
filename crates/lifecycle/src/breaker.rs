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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    fn rule(deletes: u64, share: f64) -> BreakerRule {
        BreakerRule { window: SpanMs::hours(1), deletes, share }
    }

    #[test]
    fn both_bounds_must_be_passed() {
        for (deletes, share, removed, live, trips) in [
            (20, 0.2, 20, 0, false), // not more than 20
            (20, 0.2, 21, 0, true),
            (20, 0.2, 21, 84, false), // 21 of 105 are exactly a fifth
            (20, 0.2, 21, 83, true),
            (20, 0.2, 200, 800, false), // a fifth of a thousand
            (20, 0.2, 201, 799, true),
            (0, 0.0, 1, 1_000_000, true), // any removal
            (0, 0.0, 0, 0, false),
            (0, 1.0, 1_000, 0, false), // more than all of them is never
            (5, 0.1, 6, 54, false),
            (5, 0.1, 6, 53, true),
        ] {
            assert_eq!(rule(deletes, share).trips(removed, live), trips, "{removed} removed, {live} left");
            assert_eq!(removed >= rule(deletes, share).trips_at(live), trips, "{removed} removed, {live} left");
        }
    }

    #[test]
    fn a_bucket_of_twenty_objects_is_protected_by_a_bound_below_twenty_only() {
        let emptied = |deletes| (1..=20).find(|removed| rule(deletes, 0.2).trips(*removed, 20 - removed));
        assert_eq!(emptied(10), Some(11));
        assert_eq!(emptied(3), Some(5), "four of twenty are exactly a fifth");
        assert_eq!(emptied(20), None);
    }

    #[test]
    fn shares_that_are_no_shares_are_clamped() {
        assert!(!rule(0, 7.0).trips(1_000, 1));
        assert_eq!(rule(0, 7.0).trips_at(1), u64::MAX);
        assert!(rule(0, -1.0).trips(1, 1_000));
        assert!(rule(0, f64::NAN).trips(1, 1_000));
    }

    proptest! {
        /// `trips_at` is the smallest number that trips, counting each removed key out of the live ones.
        #[test]
        fn it_trips_exactly_from_trips_at_on(
            deletes in 0u64..50, millionths in 0u32..1_000_000, live in 0u64..100_000, off in 0u64..3,
        ) {
            let rule = rule(deletes, f64::from(millionths) / 1e6);
            let at = rule.trips_at(live);
            prop_assert!(rule.trips(at, live));
            prop_assert!(rule.trips(at + off, live));
            prop_assert!(!rule.trips(at - 1, live));
        }

        #[test]
        fn it_is_the_definition_in_whole_numbers(
            deletes in 0u64..50, percent in 0u64..=100, live in 0u64..100_000, removed in 0u64..100_000,
        ) {
            let defined = removed > deletes && removed * 100 > percent * (live + removed);
            prop_assert_eq!(rule(deletes, percent as f64 / 100.0).trips(removed, live), defined);
        }

        #[test]
        fn no_number_is_too_large(share in any::<f64>(), live: u64, removed in 0..u64::MAX) {
            let rule = rule(0, share);
            prop_assert_eq!(rule.trips(removed, live), removed >= rule.trips_at(live));
        }
    }
}
