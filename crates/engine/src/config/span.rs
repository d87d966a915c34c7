//! Spans of time as people write them: a whole number and a unit. Pure.

use lifecycle::time::SpanMs;

const UNITS: [(&str, u64); 5] =
    [("w", 7 * 86_400_000), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)];

/// What a span looks like, for messages.
pub(super) const EXAMPLES: &str = "\"10s\", \"15m\", \"1h\", \"30d\" or \"2w\"";

/// Reads `10s`, `15m`, `1h`, `30d`, `2w`. `None`: no whole number, no unit, another unit, or too long.
pub fn parse_span(text: &str) -> Option<SpanMs> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, size) = UNITS.iter().find(|(name, _)| *name == unit.trim_start())?;
    let span = number.parse::<u64>().ok()?.checked_mul(*size)?;
    i64::try_from(span).ok().map(|_| SpanMs(span))
}

/// Writes a span so that [`parse_span`] reads the same one back. Spans of the configuration are whole seconds.
pub fn format_span(span: SpanMs) -> String {
    match UNITS.iter().find(|(name, size)| *name != "w" && span.0 > 0 && span.0.is_multiple_of(*size)) {
        Some((unit, size)) => format!("{}{unit}", span.0 / size),
        None => format!("{}s", span.0 / 1_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_need_a_whole_number_and_a_known_unit() {
        for (text, ms) in [("0s", 0), ("10s", 10_000), ("15m", 900_000), ("1 h", 3_600_000), ("2w", 1_209_600_000)] {
            assert_eq!(parse_span(text), Some(SpanMs(ms)), "{text}");
        }
        for text in
            ["", "10", "s", "1.5h", "-1d", "10 seconds", "3y", "1d 2h", "99999999999999999999s", "300000000000w"]
        {
            assert_eq!(parse_span(text), None, "{text}");
        }
    }

    #[test]
    fn a_span_is_written_in_the_largest_unit_that_fits() {
        for (ms, text) in [(0, "0s"), (10_000, "10s"), (90_000, "90s"), (604_800_000, "7d"), (90_000_000, "25h")] {
            assert_eq!(format_span(SpanMs(ms)), text);
        }
    }
}
