//! The retention rule: which active copies of one key stay, and until when.
//!
//! Count rules (`last`, `hourly` … `yearly`) have the usual grandfather-father-son meaning: of the newest n hours, days,
//! weeks (ISO), months or years *that have a copy* (UTC), the newest copy of each stays. `within` keeps what is younger
//! than a span, counted from now. A copy stays when any rule keeps it. The first copy always stays, whatever the rule says
//! (I4).
//!
//! Unlike the rules of snapshot tools, a count that is not used up keeps no older copy in addition: `daily = 7` keeps one
//! copy of an object that was written three times today.
//!
//! "Newest" follows the order in which the copies count, not their times: clocks tie and step back. A period that comes up
//! again further down is the same period.

use crate::time::{SpanMs, UnixMs};
use jiff::civil::DateTime;
use std::collections::BTreeSet;

/// A retention rule. [`Keep::is_empty`] rules are refused by the configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// The newest n copies.
    pub last: u32,
    /// Every copy younger than this.
    pub within: Option<SpanMs>,
    /// The newest copy of each of the newest n hours that have one (UTC).
    pub hourly: u32,
    /// The same for days.
    pub daily: u32,
    /// The same for ISO weeks.
    pub weekly: u32,
    /// The same for months.
    pub monthly: u32,
    /// The same for years.
    pub yearly: u32,
}

/// How a copy stands under the rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Stays until other copies come or go.
    Kept,
    /// Stays until that moment, when time alone makes it surplus.
    KeptUntil(UnixMs),
    /// No rule keeps it.
    Surplus,
}

impl Keep {
    /// The newest n copies and nothing else.
    pub fn last(n: u32) -> Keep {
        Keep { last: n, ..Keep::default() }
    }

    /// Keeps nothing beyond what I4 forces it to.
    pub fn is_empty(&self) -> bool {
        self.within.is_none_or(|span| span == SpanMs::ZERO)
            && [self.last, self.hourly, self.daily, self.weekly, self.monthly, self.yearly] == [0; 6]
    }

    /// How each copy stands, given the creation times of all active copies of one key, the one that counts first in
    /// front. `protect_for` is the age under which nothing is surplus.
    pub fn standings(&self, protect_for: SpanMs, first_to_last: &[UnixMs], now: UnixMs) -> Vec<Standing> {
        let mut periods = self.periods();
        first_to_last
            .iter()
            .enumerate()
            .map(|(place, &created_at)| {
                let mut kept = place == 0 || place < self.last as usize;
                let civil = jiff::tz::Offset::UTC.to_datetime(created_at.timestamp());
                for period in &mut periods {
                    kept |= period.keeps(civil); // every period counts on its own: no short circuit
                }
                let held_for = self.within.unwrap_or(SpanMs::ZERO).max(protect_for);
                match created_at.runs_until(held_for, now) {
                    _ if kept => Standing::Kept,
                    Some(until) => Standing::KeptUntil(until),
                    None => Standing::Surplus,
                }
            })
            .collect()
    }

    fn periods(&self) -> [Period; 5] {
        let period = |places: u32, number| Period { places: places as usize, number, taken: BTreeSet::new() };
        [
            period(self.hourly, |at| (day_number(at), at.hour().into())),
            period(self.daily, |at| (day_number(at), 0)),
            period(self.weekly, |at| {
                (at.date().iso_week_date().year().into(), at.date().iso_week_date().week().into())
            }),
            period(self.monthly, |at| (at.year().into(), at.month().into())),
            period(self.yearly, |at| (at.year().into(), 0)),
        ]
    }
}

fn day_number(at: DateTime) -> i32 {
    i32::from(at.year()) * 366 + i32::from(at.day_of_year())
}

/// One calendar rule while it walks over the copies.
struct Period {
    /// How many periods have a place.
    places: usize,
    /// Which period a moment lies in.
    number: fn(DateTime) -> (i32, i32),
    /// The periods that have found their copy.
    taken: BTreeSet<(i32, i32)>,
}

impl Period {
    /// Whether this is the first copy of a period that still has a place.
    fn keeps(&mut self, created_at: DateTime) -> bool {
        self.taken.len() < self.places && self.taken.insert((self.number)(created_at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq, proptest};

    const NONE: Keep = Keep { last: 0, within: None, hourly: 0, daily: 0, weekly: 0, monthly: 0, yearly: 0 };

    fn at(text: &str) -> UnixMs {
        UnixMs(text.parse::<jiff::Timestamp>().expect("a timestamp").as_millisecond())
    }

    /// Which copies stay, as a word: one letter for each, `k`ept, kept `u`ntil, or surplus (`-`).
    fn stays(keep: Keep, created: &[&str]) -> String {
        let created: Vec<UnixMs> = created.iter().map(|text| at(text)).collect();
        let standings = keep.standings(SpanMs::ZERO, &created, at("2027-11-21T12:00:00Z"));
        let letter = |standing: &Standing| match standing {
            Standing::Kept => 'k',
            Standing::KeptUntil(_) => 'u',
            Standing::Surplus => '-',
        };
        standings.iter().map(letter).collect()
    }

    #[test]
    fn count_rules() {
        let days = ["2026-11-21T10:00:00Z", "2026-11-21T09:59:59Z", "2026-11-20T23:59:59Z", "2026-11-18T00:00:00Z"];
        for (keep, expected) in [
            (Keep::last(1), "k---"),
            (Keep::last(3), "kkk-"),
            (Keep::last(9), "kkkk"),
            (Keep { hourly: 2, ..NONE }, "kk--"),
            (Keep { hourly: 3, ..NONE }, "kkk-"),
            (Keep { daily: 2, ..NONE }, "k-k-"), // the newest of each day
            (Keep { daily: 3, ..NONE }, "k-kk"), // days without a copy take no place
            (Keep { daily: 7, ..NONE }, "k-kk"),
            (Keep { weekly: 4, ..NONE }, "k---"),
            (Keep { last: 2, daily: 2, ..NONE }, "kkk-"), // any rule keeps
            (Keep { yearly: 1, ..NONE }, "k---"),
        ] {
            assert_eq!(stays(keep, &days), expected, "{keep:?}");
        }
    }

    #[test]
    fn weeks_are_iso_weeks_and_months_and_years_end_at_midnight_utc() {
        // 2026-12-31 is a Thursday: it shares ISO week 2026-W53 with the Friday 2027-01-01.
        let turn = ["2027-01-04T00:00:00Z", "2027-01-01T00:00:00Z", "2026-12-31T23:59:59Z", "2026-12-01T00:00:00Z"];
        assert_eq!(stays(Keep { weekly: 3, ..NONE }, &turn), "kk-k");
        assert_eq!(stays(Keep { monthly: 2, ..NONE }, &turn), "k-k-");
        assert_eq!(stays(Keep { yearly: 2, ..NONE }, &turn), "k-k-");
        let years = ["2027-11-21T00:00:00Z", "2026-11-21T00:00:00Z", "2025-11-21T00:00:00Z"];
        assert_eq!(stays(Keep { monthly: 2, ..NONE }, &years), "kk-", "November of another year is another month");
        assert_eq!(stays(Keep { weekly: 2, ..NONE }, &years), "kk-");
        assert_eq!(stays(Keep { daily: 2, ..NONE }, &years), "kk-");
        assert_eq!(stays(Keep { hourly: 2, ..NONE }, &years), "kk-");
    }

    #[test]
    fn a_clock_that_steps_back_gives_a_period_no_second_place() {
        let back = ["2026-11-20T08:00:00Z", "2026-11-21T09:00:00Z", "2026-11-20T07:00:00Z", "2026-11-19T07:00:00Z"];
        assert_eq!(stays(Keep { daily: 3, ..NONE }, &back), "kk-k");
    }

    #[test]
    fn within_and_protection_end_to_the_millisecond() {
        let created = UnixMs(1_000_000);
        let newer = UnixMs(2_000_000);
        for (within, protect_for, held) in [(500, 0, 500), (0, 500, 500), (300, 500, 500), (500, 300, 500)] {
            let keep = Keep { last: 1, within: Some(SpanMs(within)), ..NONE };
            let standing = |now| keep.standings(SpanMs(protect_for), &[newer, created], UnixMs(now))[1];
            let due = 1_000_000 + held;
            assert_eq!(standing(due - 1), Standing::KeptUntil(UnixMs(due)));
            assert_eq!(standing(due), Standing::Surplus);
        }
    }

    #[test]
    fn a_copy_from_the_future_is_held_for_its_whole_span_and_without_one_not_at_all() {
        let ahead = [UnixMs(0), UnixMs(500)];
        assert_eq!(Keep::last(1).standings(SpanMs::ZERO, &ahead, UnixMs(0))[1], Standing::Surplus);
        let keep = Keep { within: Some(SpanMs(10)), ..NONE };
        assert_eq!(
            keep.standings(SpanMs::ZERO, &[UnixMs(0), UnixMs(500)], UnixMs(0))[1],
            Standing::KeptUntil(UnixMs(510))
        );
    }

    #[test]
    fn rules_that_keep_nothing_are_empty() {
        assert!(NONE.is_empty());
        assert!(Keep { within: Some(SpanMs::ZERO), ..NONE }.is_empty());
        assert!(!Keep { within: Some(SpanMs(1)), ..NONE }.is_empty());
        assert!(!Keep { yearly: 1, ..NONE }.is_empty());
        assert!(!Keep::last(1).is_empty());
    }

    fn keeps() -> impl Strategy<Value = Keep> {
        let within = proptest::option::of((0u64..400).prop_map(SpanMs::hours));
        (0u32..5, within, 0u32..5, 0u32..5, 0u32..4, 0u32..4, 0u32..3).prop_map(
            |(last, within, hourly, daily, weekly, monthly, yearly)| Keep {
                last,
                within,
                hourly,
                daily,
                weekly,
                monthly,
                yearly,
            },
        )
    }

    fn moments() -> impl Strategy<Value = Vec<UnixMs>> {
        proptest::collection::vec((1_700_000_000_000i64..1_800_000_000_000).prop_map(UnixMs), 1..40)
    }

    proptest! {
        #[test]
        fn the_first_always_stays(keep in keeps(), created in moments(), now in any::<i64>()) {
            prop_assert_eq!(keep.standings(SpanMs::ZERO, &created, UnixMs(now))[0], Standing::Kept);
        }

        /// Time alone changes one thing: what was kept until a moment is surplus from that moment on.
        #[test]
        fn time_changes_nothing_but_what_is_due(
            keep in keeps(), hours in 0u64..100, created in moments(),
            a in 1_700_000_000_000i64..1_900_000_000_000, b in 1_700_000_000_000i64..1_900_000_000_000,
        ) {
            let (earlier, later) = (UnixMs(a.min(b)), UnixMs(a.max(b)));
            let standings = |now| keep.standings(SpanMs::hours(hours), &created, now);
            for (before, after) in standings(earlier).into_iter().zip(standings(later)) {
                match before {
                    Standing::KeptUntil(until) if until <= later => prop_assert_eq!(after, Standing::Surplus),
                    unchanged => prop_assert_eq!(after, unchanged),
                }
            }
        }

        #[test]
        fn the_newest_n_stay_and_protection_holds(keep in keeps(), hours in 0u64..100, created in moments(), now: i64) {
            let standings = keep.standings(SpanMs::hours(hours), &created, UnixMs(now));
            for (place, (standing, created)) in standings.iter().zip(&created).enumerate() {
                prop_assert!(place >= keep.last as usize || *standing == Standing::Kept);
                let protected = created.runs_until(SpanMs::hours(hours), UnixMs(now)).is_some();
                prop_assert!(!protected || *standing != Standing::Surplus);
            }
        }

        /// Dropping what is surplus changes nothing for what stays: settling twice is settling once.
        #[test]
        fn what_stays_stays_when_the_surplus_is_gone(keep in keeps(), created in moments(), now: i64) {
            let first = keep.standings(SpanMs::ZERO, &created, UnixMs(now));
            let left = |standings: &[Standing], created: &[UnixMs]| -> Vec<(UnixMs, Standing)> {
                let both = created.iter().copied().zip(standings.iter().copied());
                both.filter(|(_, standing)| *standing != Standing::Surplus).collect()
            };
            let first_left = left(&first, &created);
            let created: Vec<UnixMs> = first_left.iter().map(|(created, _)| *created).collect();
            let second = keep.standings(SpanMs::ZERO, &created, UnixMs(now));
            prop_assert_eq!(left(&second, &created), first_left);
        }

        /// A copy that stays among all copies stays among any part of them: copies that arrive late, in any order, end alike
        /// (I6).
        #[test]
        fn nothing_is_dropped_early_because_others_arrive_late(
            keep in keeps(), created in moments(), arrived: u64, now: i64,
        ) {
            let all = keep.standings(SpanMs::ZERO, &created, UnixMs(now));
            let here = |place: usize| arrived >> (place % 64) & 1 == 1;
            let some: Vec<UnixMs> =
                created.iter().enumerate().filter(|(place, _)| here(*place)).map(|(_, created)| *created).collect();
            let some = keep.standings(SpanMs::ZERO, &some, UnixMs(now));
            let all = all.into_iter().enumerate().filter(|(place, _)| here(*place)).map(|(_, standing)| standing);
            for (with_all, with_some) in all.zip(some) {
                prop_assert!(with_all == Standing::Surplus || with_some != Standing::Surplus);
            }
        }
    }
}
