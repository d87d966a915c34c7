//! Moments as people write them: `2026-11-21T07:26:12Z`, `2026-11-21 09:26+02`, `2026-11-21`, `2h ago`.

use jiff::{Timestamp, civil, tz::TimeZone};
use lifecycle::time::UnixMs;

/// Reads a moment; a time without an offset is UTC, a date means its first moment.
pub(crate) fn moment(text: &str, now: UnixMs) -> Result<UnixMs, String> {
    let text = text.trim();
    if text == "now" {
        return Ok(now);
    }
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(UnixMs(at.as_millisecond()));
    }
    if let Ok(at) = text.parse::<civil::DateTime>()
        && let Ok(at) = at.to_zoned(TimeZone::UTC)
    {
        return Ok(UnixMs(at.timestamp().as_millisecond()));
    }
    if let Ok(span) = text.parse::<jiff::Span>()
        && text.ends_with("ago")
        && let Ok(at) = now.timestamp().to_zoned(TimeZone::UTC).checked_add(span)
    {
        return Ok(UnixMs(at.timestamp().as_millisecond()));
    }
    Err(format!(
        "`{text}` is no time that can be read; write it like 2026-11-21T07:26:12Z, 2026-11-21 (UTC), or `2h ago`"
    ))
}

/// A moment as a person reads it beside the clock: `3m 10s ago`, `in 2d 4h`.
pub(crate) fn relative(at: UnixMs, now: UnixMs) -> String {
    match (at > now, now.since(at).0.max(at.since(now).0) < 1_000) {
        (_, true) => "now".to_owned(),
        (true, _) => format!("in {}", at.since(now)),
        (false, _) => format!("{} ago", now.since(at)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_as_people_write_them() {
        let now = UnixMs(1_795_245_972_000); // 2026-11-21T07:26:12Z
        for (text, at) in [
            ("now", now.0),
            ("2026-11-21T07:26:12Z", now.0),
            ("2026-11-21T09:26:12+02:00", now.0),
            ("2026-11-21 07:26:12", now.0),
            ("2026-11-21", 1_795_219_200_000),
            ("2h ago", now.0 - 7_200_000),
            ("1 day ago", now.0 - 86_400_000),
            ("90m ago", now.0 - 5_400_000),
        ] {
            assert_eq!(moment(text, now), Ok(UnixMs(at)), "{text}");
        }
        for text in ["", "yesterday", "2h", "25:00", "2026-13-01"] {
            assert!(moment(text, now).is_err(), "{text}");
        }
    }
}
