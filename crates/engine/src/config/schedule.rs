//! When something runs: `every minute`, or a cron expression in UTC. Pure: the next run follows from a moment.

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::TimeZone;
use lifecycle::time::{SpanMs, UnixMs};
use std::fmt;

/// A schedule, in UTC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    text: String,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    /// At every whole multiple of the span since 1970: `every 15 minutes` runs at :00, :15, :30 and :45.
    Every(SpanMs),
    Cron(Box<Cron>),
}

/// What a schedule looks like, for messages.
pub(super) const EXAMPLES: &str =
    "\"every minute\", \"every 15 minutes\", \"every day\", or cron in UTC: \"30 3 * * *\"";

impl Schedule {
    /// `every minute`.
    pub fn every_minute() -> Schedule {
        Schedule { text: "every minute".to_owned(), kind: Kind::Every(SpanMs::minutes(1)) }
    }

    /// Reads `every minute`, `every 15 minutes`, five fields of cron, or the forms `cron(…)` and `rate(…)` of AWS.
    /// The error says what is wrong.
    pub fn parse(text: &str) -> Result<Schedule, String> {
        let text = text.trim();
        let kind = if let Some(rest) = text.strip_prefix("every ") {
            every(rest)?
        } else if let Some(rest) = inside(text, "rate(") {
            every(rest)?
        } else if let Some(rest) = inside(text, "cron(") {
            aws(rest)?
        } else {
            let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
            Kind::Cron(Box::new(parser.parse(text).map_err(|error| error.to_string())?))
        };
        let schedule = Schedule { text: text.to_owned(), kind };
        match schedule.next_after(UnixMs(0)) {
            Some(_) => Ok(schedule),
            None => Err("it never comes".to_owned()),
        }
    }

    /// The first run after `moment`; `None`: there is none any more (an AWS expression with a year that has passed).
    pub fn next_after(&self, moment: UnixMs) -> Option<UnixMs> {
        match &self.kind {
            Kind::Every(span) => {
                let span = i64::try_from(span.0).ok()?;
                moment.0.div_euclid(span).checked_add(1)?.checked_mul(span).map(UnixMs)
            }
            Kind::Cron(cron) => {
                let start = moment.timestamp().to_zoned(TimeZone::UTC);
                let next = cron.find_next_occurrence(&start, false).ok()?;
                Some(UnixMs(next.timestamp().as_millisecond()))
            }
        }
    }

    /// When a run is `periods` late: the moment of the run that many places after the one at or before `last`.
    pub fn late_after(&self, last: UnixMs, periods: u64) -> Option<UnixMs> {
        (0..periods.max(1)).try_fold(last, |moment, _| self.next_after(moment))
    }
}

impl fmt::Display for Schedule {
    /// As it was written.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn inside<'a>(text: &'a str, open: &str) -> Option<&'a str> {
    text.strip_prefix(open)?.strip_suffix(')')
}

fn every(rest: &str) -> Result<Kind, String> {
    let words: Vec<&str> = rest.split_whitespace().collect();
    let (number, unit) = match words[..] {
        [unit] => (1, unit),
        [number, unit] => (number.parse::<u64>().map_err(|_| format!("`{number}` is no whole number"))?, unit),
        _ => return Err("it has too many words".to_owned()),
    };
    let size = match unit {
        "second" | "seconds" => 1_000,
        "minute" | "minutes" => 60_000,
        "hour" | "hours" => 3_600_000,
        "day" | "days" => 86_400_000,
        _ => return Err(format!("`{unit}` is none of seconds, minutes, hours, days")),
    };
    match number.checked_mul(size).filter(|span| i64::try_from(*span).is_ok()) {
        Some(0) => Err("it would never rest".to_owned()),
        Some(span) => Ok(Kind::Every(SpanMs(span))),
        None => Err("it is too long".to_owned()),
    }
}

/// Minutes, hours, day of month, month, day of week (1 is Sunday), year: six fields, of which one day is `?`.
fn aws(fields: &str) -> Result<Kind, String> {
    if fields.split_whitespace().count() != 6 {
        return Err("the AWS form has six fields: minutes hours day-of-month month day-of-week year".to_owned());
    }
    let parser = CronParser::builder()
        .seconds(Seconds::Required)
        .year(Year::Optional)
        .alternative_weekdays(true)
        .sloppy_ranges(true)
        .build();
    parser.parse(&format!("0 {fields}")).map(|cron| Kind::Cron(Box::new(cron))).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> UnixMs {
        UnixMs(text.parse::<jiff::Timestamp>().expect("a timestamp").as_millisecond())
    }

    #[test]
    fn the_next_run_follows_from_a_moment_in_utc() {
        let table = [
            ("every minute", "2026-11-21T07:26:12.345Z", "2026-11-21T07:27:00Z"),
            ("every minute", "2026-11-21T07:27:00Z", "2026-11-21T07:28:00Z"),
            ("every 10 seconds", "2026-11-21T07:26:12Z", "2026-11-21T07:26:20Z"),
            ("every 15 minutes", "2026-11-21T07:26:12Z", "2026-11-21T07:30:00Z"),
            ("every day", "2026-12-31T23:59:59.999Z", "2027-01-01T00:00:00Z"),
            ("rate(1 hour)", "2026-11-21T07:26:12Z", "2026-11-21T08:00:00Z"),
            ("30 3 * * *", "2026-11-21T03:30:00Z", "2026-11-22T03:30:00Z"),
            ("0 0 29 2 *", "2026-11-21T00:00:00Z", "2028-02-29T00:00:00Z"),
            ("0 4 * * 0", "2026-11-21T00:00:00Z", "2026-11-22T04:00:00Z"),
            ("cron(0 12 * * ? *)", "2026-11-21T12:00:00Z", "2026-11-22T12:00:00Z"),
            ("cron(0/15 8-9 ? * 2-6 *)", "2026-11-21T00:00:00Z", "2026-11-23T08:00:00Z"),
            ("cron(0 0 1 1 ? 2030)", "2026-11-21T00:00:00Z", "2030-01-01T00:00:00Z"),
        ];
        for (text, from, to) in table {
            let schedule = Schedule::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(schedule.next_after(at(from)), Some(at(to)), "{text} after {from}");
        }
    }

    #[test]
    fn a_schedule_may_come_to_an_end() {
        let once = Schedule::parse("cron(0 0 1 1 ? 2030)").expect("parses");
        assert_eq!(once.next_after(at("2031-01-01T00:00:00Z")), None);
    }

    #[test]
    fn what_is_no_schedule_is_refused() {
        let words =
            ["", "now", "every", "every 0 minutes", "every 5 fortnights", "61 * * * *", "* * * *", "0 0 31 2 *"];
        for text in words.into_iter().chain(["cron(0 12 * * *)", "* * * * * *", "every 1.5 hours", "rate(5)"]) {
            assert!(Schedule::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_run_is_late_after_that_many_periods() {
        let daily = Schedule::parse("30 3 * * *").expect("parses");
        assert_eq!(daily.late_after(at("2026-11-21T03:30:05Z"), 3), Some(at("2026-11-24T03:30:00Z")));
    }
}
