//! Moments and spans, in milliseconds. The core has no clock: a moment always comes in as an argument.

use std::fmt;

/// A moment: milliseconds since 1970-01-01T00:00:00Z. Never negative in practice; arithmetic saturates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixMs(pub i64);

/// A length of time in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpanMs(pub u64);

/// 9999-12-30T22:00:00Z: the last moment that every time zone's calendar can tell.
const LAST_MS: i64 = 253_402_207_200_000;

impl UnixMs {
    /// The moment `span` after this one (saturating).
    pub fn plus(self, span: SpanMs) -> UnixMs {
        UnixMs(self.0.saturating_add_unsigned(span.0))
    }

    /// The moment `span` before this one (saturating).
    pub fn minus(self, span: SpanMs) -> UnixMs {
        UnixMs(self.0.saturating_sub_unsigned(span.0))
    }

    /// How long ago `earlier` was; zero when it lies ahead (clocks step back).
    pub fn since(self, earlier: UnixMs) -> SpanMs {
        SpanMs(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// Whether a span that began here still runs at `now`, and if so until when. A span of no length never does, even when
    /// this moment lies ahead of `now` (clocks differ).
    pub fn runs_until(self, span: SpanMs, now: UnixMs) -> Option<UnixMs> {
        let end = self.plus(span);
        (span > SpanMs::ZERO && end > now).then_some(end)
    }

    /// The same moment as a `jiff` timestamp, clamped to what that can express with four digits of year: 1970 to the last
    /// days of 9999.
    pub fn timestamp(self) -> jiff::Timestamp {
        let clamped = self.0.clamp(0, LAST_MS);
        jiff::Timestamp::from_millisecond(clamped).expect("clamped to the range of timestamps")
    }
}

impl fmt::Display for UnixMs {
    /// ISO 8601 in UTC with milliseconds, for people: `2026-11-21T07:26:12.345Z`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.timestamp().strftime("%Y-%m-%dT%H:%M:%S.%3fZ"))
    }
}

impl SpanMs {
    /// No time at all.
    pub const ZERO: SpanMs = SpanMs(0);

    /// `n` seconds.
    pub const fn seconds(n: u64) -> SpanMs {
        SpanMs(n * 1_000)
    }

    /// `n` minutes.
    pub const fn minutes(n: u64) -> SpanMs {
        SpanMs(n * 60_000)
    }

    /// `n` hours.
    pub const fn hours(n: u64) -> SpanMs {
        SpanMs(n * 3_600_000)
    }

    /// `n` days of 24 hours.
    pub const fn days(n: u64) -> SpanMs {
        SpanMs(n * 86_400_000)
    }
}

impl fmt::Display for SpanMs {
    /// The largest units that matter, for people: `2d 4h`, `3m 10s`, `250ms`, `0s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u64, &str); 5] = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s"), (1, "ms")];
        let Some(first) = UNITS.iter().position(|(size, _)| self.0 >= *size) else {
            return f.write_str("0s");
        };
        let (size, unit) = UNITS[first];
        write!(f, "{}{unit}", self.0 / size)?;
        match UNITS.get(first + 1) {
            Some((next, unit)) if first < 3 && self.0 % size / next > 0 => write!(f, " {}{unit}", self.0 % size / next),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_and_spans_read_well_and_saturate() {
        assert_eq!(UnixMs(1_795_245_972_345).to_string(), "2026-11-21T07:26:12.345Z");
        assert_eq!(UnixMs(5).since(UnixMs(9)), SpanMs::ZERO);
        assert_eq!(UnixMs(i64::MAX).plus(SpanMs(1)), UnixMs(i64::MAX));
        assert_eq!(UnixMs(i64::MIN).minus(SpanMs(1)), UnixMs(i64::MIN));
        assert_eq!(UnixMs(i64::MIN).to_string(), "1970-01-01T00:00:00.000Z");
        assert!(UnixMs(i64::MAX).to_string().starts_with("9999-12-"));
        assert_eq!(UnixMs(5).runs_until(SpanMs(10), UnixMs(14)), Some(UnixMs(15)));
        assert_eq!(UnixMs(5).runs_until(SpanMs(10), UnixMs(15)), None);
        assert_eq!(UnixMs(5).runs_until(SpanMs::ZERO, UnixMs(0)), None);
        for (ms, text) in [(0, "0s"), (250, "250ms"), (1_500, "1s"), (61_000, "1m 1s"), (187_200_000, "2d 4h")] {
            assert_eq!(SpanMs(ms).to_string(), text);
        }
    }
}
