//! The retention rule: which active copies of one key stay, and until when.
//!
//! Count rules (`last`, `hourly` … `yearly`) have the usual grandfather-father-son meaning: of the newest n hours, days,
//! weeks (ISO), months or years *that have a copy*, the newest copy of each stays. `within` keeps what is younger than a
//! span. A copy stays when any rule keeps it. The first copy always stays, whatever the rule says (I4).

use crate::time::{SpanMs, UnixMs};

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
                for period in &mut periods {
                    kept |= period.keeps(created_at); // every period counts on its own: no short circuit
                }
                let held_for = self.within.unwrap_or(SpanMs::ZERO).max(protect_for);
                let until = created_at.plus(held_for);
                // Held for no time is not held, even if the clock has stepped back behind the creation.
                match (kept, held_for > SpanMs::ZERO && until > now) {
                    (true, _) => Standing::Kept,
                    (false, true) => Standing::KeptUntil(until),
                    (false, false) => Standing::Surplus,
                }
            })
            .collect()
    }

    fn periods(&self) -> [Period; 5] {
        let period = |left, format| Period { left, format, last: None };
        [
            period(self.hourly, "%Y-%m-%d %H"),
            period(self.daily, "%Y-%m-%d"),
            period(self.weekly, "%G-%V"),
            period(self.monthly, "%Y-%m"),
            period(self.yearly, "%Y"),
        ]
    }
}

/// One calendar rule while it walks over the copies.
struct Period {
    left: u32,
    format: &'static str,
    last: Option<String>,
}

impl Period {
    /// Whether this is the first copy of a period that still has a place.
    fn keeps(&mut self, created_at: UnixMs) -> bool {
        if self.left == 0 {
            return false;
        }
        let name = Some(created_at.timestamp().strftime(self.format).to_string());
        if self.last == name {
            return false;
        }
        self.last = name;
        self.left -= 1;
        true
    }
}
