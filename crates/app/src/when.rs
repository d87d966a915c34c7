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

/// Reads a day (UTC), as its first moment. A time of a day is refused: nobody shall think that it counts.
pub(crate) fn day(text: &str, now: UnixMs) -> Result<UnixMs, String> {
    let text = text.trim();
    let today = now.timestamp().to_zoned(TimeZone::UTC).date();
    let read = || match (text, text.strip_suffix("ago")) {
        ("today" | "now", _) => Some(today),
        (_, Some(_)) => {
            let span = text.parse::<jiff::Span>().ok()?;
            // `36h ago` is a moment of a day.
            let is_of_days = span.get_hours() == 0 && span.get_minutes() == 0 && span.get_seconds() == 0;
            today.checked_add(span).ok().filter(|_| is_of_days)
        }
        // A moment is more than a day, and would be read as one.
        _ => text.parse::<civil::Date>().ok().filter(|_| text.len() <= "2026-11-21".len()),
    };
    let first = |date: civil::Date| date.to_zoned(TimeZone::UTC).ok();
    let at = read().and_then(first).map(|at| UnixMs(at.timestamp().as_millisecond()));
    at.ok_or_else(|| {
        format!(
            "`{text}` is no day, and days are taken whole: write one like 2026-11-21 (UTC), today or `30d ago`. Moments of a \
             day go into a condition: deleted_at >= '2026-11-21T10:00'"
        )
    })
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

    #[test]
    fn days_are_read_and_moments_of_a_day_are_none() {
        let now = UnixMs(1_795_245_972_000); // 2026-11-21T07:26:12Z
        let today = 1_795_219_200_000;
        for (text, at) in [
            ("2026-11-21", today),
            ("20261121", today),
            ("today", today),
            ("0d ago", today),
            ("1 day ago", today - 86_400_000),
            ("1w ago", today - 7 * 86_400_000),
        ] {
            assert_eq!(day(text, now), Ok(UnixMs(at)), "{text}");
        }
        for text in
            ["", "2h ago", "1d 2h ago", "2026-11-21T10:00:00Z", "2026-11-21 10:00", "2026-13-01", "10:00", "30d"]
        {
            assert!(day(text, now).unwrap_err().contains("days are taken whole"), "{text}");
        }
    }
}
