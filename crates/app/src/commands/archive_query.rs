//! `archive query` and `archive report`: SQL over archived records, and the month's numbers, which are a statement, too.

use super::archive::to_look_into;
use crate::answer::{Answer, Deletions, DeletionsLine, ItemView, Queried};
use crate::command::RecordDays;
use crate::exit::Failure;
use crate::feed::{Feed, Frame};
use crate::instance::Instance;
use crate::query::{Looked, Sink, Source, query};
use engine::steps::archived_names::days_back_from;
use lifecycle::archive::ServiceName;
use lifecycle::time::{SpanMs, UnixMs};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

/// The month's numbers. The days are in the statement, too, so that it is one that a person could type.
const REPORT: &str = "SELECT service, \"table\", day, cause, count(*), sum(size) FROM deletions \
                      WHERE day >= ':first' AND day <= ':last' GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4";

/// Runs a person's statement.
pub(super) async fn run(
    instance: &Instance,
    sql: &str,
    service: Option<&ServiceName>,
    days: RecordDays,
    feed: &Feed,
    cancel: &CancellationToken,
) -> Result<Answer, Failure> {
    let bounds = [days.from, days.to].map(|at| at.map(|at| day_of(UnixMs(at))));
    let sources = sources(instance, service, &bounds).await?;
    let (looked, _) = query(sources, sql.to_owned(), ToFeed(feed.clone()), cancel).await?;
    let Looked { rows, days, damaged, cancelled } = looked;
    Ok(Answer::Queried(Queried { rows, days, damaged: views(damaged), cancelled }))
}

/// Counts a month's deletions.
pub(super) async fn report(
    instance: &Instance,
    month: &str,
    service: Option<&ServiceName>,
    cancel: &CancellationToken,
) -> Result<Answer, Failure> {
    let no_month = || Failure::usage(format!("`{month}` is no month: write such as 2026-10"));
    let first: jiff::civil::Date = format!("{month}-01").parse().map_err(|_| no_month())?;
    if first.strftime("%Y-%m").to_string() != month {
        return Err(no_month());
    }
    let bounds = [first, first.last_of_month()].map(|date| Some(date.strftime("%Y-%m-%d").to_string()));
    let sources = sources(instance, service, &bounds).await?;
    let [first, last] = bounds.map(Option::unwrap_or_default);
    let sql = REPORT.replace(":first", &first).replace(":last", &last);
    let (looked, Kept(rows)) = query(sources, sql, Kept::default(), cancel).await?;
    Ok(Answer::Deletions(Deletions {
        month: month.to_owned(),
        made_at_ms: instance.now().0,
        lines: rows.into_iter().filter_map(line).collect(),
        damaged: views(looked.damaged),
        cancelled: looked.cancelled,
    }))
}

/// The archives, each with the days that it may have between those bounds.
async fn sources(
    instance: &Instance,
    service: Option<&ServiceName>,
    [first, last]: &[Option<String>; 2],
) -> Result<Vec<Source>, Failure> {
    let mut sources: Vec<Source> = Vec::new();
    for archiving in to_look_into(instance, service).await? {
        let (service, archive) = (archiving.config.service.clone(), archiving.reader(instance)?);
        if sources.iter().any(|source| source.service == service) {
            return Err(Failure::usage(format!(
                "records of {service} lie in several destinations, and a statement looks into one: give each table a \
                 service of its own"
            )));
        }
        // A clock of the table's service may be ahead.
        let days = days_back_from(&archive, &service, instance.now().plus(SpanMs::days(1))).await?;
        let days = days.iter().map(|day| day[service.as_str().len() + 1..].trim_end_matches('/').replace('/', "-"));
        let within = |day: &String| {
            first.as_ref().is_none_or(|first| day >= first) && last.as_ref().is_none_or(|last| day <= last)
        };
        let mut days: Vec<String> = days.filter(within).collect();
        days.reverse();
        sources.push(Source { service, archive, days });
    }
    match sources.is_empty() {
        true => Err(Failure::usage("no table's deleted records are archived: add an [[archive]] to the configuration")),
        false => Ok(sources),
    }
}

fn day_of(at: UnixMs) -> String {
    at.timestamp().strftime("%Y-%m-%d").to_string()
}

fn views(damaged: Vec<(String, String)>) -> Vec<ItemView> {
    damaged.into_iter().map(|(object, why)| ItemView { object, why }).collect()
}

fn line(row: Vec<Value>) -> Option<DeletionsLine> {
    let text = |place: usize| row.get(place)?.as_str().map(str::to_owned);
    let number = |place: usize| row.get(place)?.as_u64();
    let (service, table, day, cause) = (text(0)?, text(1)?, text(2)?, text(3)?);
    Some(DeletionsLine { service, table, day, cause, records: number(4)?, bytes: number(5)? })
}

/// Rows to whoever asked.
struct ToFeed(Feed);

impl Sink for ToFeed {
    fn columns(&mut self, names: Vec<String>) -> bool {
        self.0.send_blocking(Frame::Columns(names))
    }

    fn row(&mut self, row: Vec<Value>) -> bool {
        self.0.send_blocking(Frame::Row(row))
    }
}

/// Rows of a statement of ours, of which there are few: a line for each day, table and cause.
#[derive(Default)]
struct Kept(Vec<Vec<Value>>);

impl Sink for Kept {
    fn columns(&mut self, _names: Vec<String>) -> bool {
        true
    }

    fn row(&mut self, row: Vec<Value>) -> bool {
        self.0.push(row);
        true
    }
}
