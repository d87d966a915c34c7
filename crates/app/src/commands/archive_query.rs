//! `archive query` and `archive report`: SQL over archived records, and the month's numbers, which are a statement, too.

use super::archive::{NO_ARCHIVE, to_look_into};
use super::retrieval::{refused, sum_of};
use crate::answer::{Answer, Deletions, DeletionsLine, ItemView, Queried};
use crate::command::{RecordDays, RetrieveOf};
use crate::exit::Failure;
use crate::feed::{Feed, Frame};
use crate::instance::Instance;
use crate::query::{Looked, Sink, Source, query};
use engine::flows::retrieve::{Waited, wait_for};
use engine::limits::RETRIEVAL_ROUNDS;
use engine::steps::archived_names::days_back_from;
use lifecycle::archive::ServiceName;
use lifecycle::time::{SpanMs, UnixMs};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

/// The month's numbers. The days are in the statement, too, so that it is one that a person could type.
const REPORT: &str = "SELECT service, \"table\", day, cause, count(*), sum(size) FROM deletions \
                      WHERE day >= ':first' AND day <= ':last' GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4";

/// How it is asked, besides the statement.
pub(super) struct Asked<'a> {
    /// Only of this service.
    pub(super) service: Option<&'a ServiceName>,
    /// What to do about what lies in archive tiers.
    pub(super) retrieve: &'a RetrieveOf,
    /// Who is told.
    pub(super) feed: &'a Feed,
    /// Who stops it.
    pub(super) cancel: &'a CancellationToken,
}

/// Runs a person's statement.
pub(super) async fn run(
    instance: &Instance,
    sql: &str,
    days: RecordDays,
    asked: &Asked<'_>,
) -> Result<Answer, Failure> {
    let bounds = [days.from, days.to].map(|at| at.map(|at| day_of(UnixMs(at))));
    let (looked, _) = readable(instance, sql.to_owned(), &bounds, asked, ToFeed(asked.feed.clone())).await?;
    let Looked { rows, days, damaged, passed_over, cancelled, is_away: _ } = looked;
    let (damaged, passed_over) = (views(damaged), views(passed_over));
    Ok(Answer::Queried(Queried { rows, days, damaged, passed_over, cancelled }))
}

/// Counts a month's deletions.
pub(super) async fn report(instance: &Instance, month: &str, asked: &Asked<'_>) -> Result<Answer, Failure> {
    let no_month = || Failure::usage(format!("`{month}` is no month: write such as 2026-10"));
    let first: jiff::civil::Date = format!("{month}-01").parse().map_err(|_| no_month())?;
    if first.strftime("%Y-%m").to_string() != month {
        return Err(no_month());
    }
    let bounds = [first, first.last_of_month()].map(|date| Some(date.strftime("%Y-%m-%d").to_string()));
    let [first, last] = bounds.each_ref().map(|bound| bound.as_deref().unwrap_or_default());
    let sql = REPORT.replace(":first", first).replace(":last", last);
    let (looked, Kept(rows)) = readable(instance, sql, &bounds, asked, Kept::default()).await?;
    let (mut lines, mut damaged) = (Vec::with_capacity(rows.len()), views(looked.damaged));
    for row in rows {
        match line(&row) {
            Some(line) => lines.push(line),
            None => damaged.push(unreadable(row)),
        }
    }
    Ok(Answer::Deletions(Deletions {
        month: month.to_owned(),
        made_at_ms: instance.now().0,
        lines,
        damaged,
        passed_over: views(looked.passed_over),
        cancelled: looked.cancelled,
    }))
}

/// Runs a statement over what can be read. What lies in archive tiers is an error: no number would be right without it. Where it
/// may be asked for, or is awaited, the statement is run before, without its rows, to know what it needs: all of it.
async fn readable<S: Sink>(
    instance: &Instance,
    sql: String,
    bounds: &[Option<String>; 2],
    asked: &Asked<'_>,
    sink: S,
) -> Result<(Looked, S), Failure> {
    let Asked { service, retrieve, feed, cancel } = asked;
    let sources = sources(instance, *service, bounds, retrieve).await?;
    let archives: Vec<_> = sources.iter().map(|source| source.archive.clone()).collect();
    let refused = || refused(&sum_of(&archives));
    if retrieve.speed.is_some() || retrieve.wait {
        for round in 0.. {
            let (looked, _) = query(sources.clone(), sql.clone(), Nowhere, cancel).await?;
            if !looked.is_away {
                break;
            }
            let sum = sum_of(&archives);
            if !retrieve.wait || sum.not_asked > 0 || round == RETRIEVAL_ROUNDS {
                return Err(refused());
            }
            for archive in &archives {
                if wait_for(archive, &retrieve.patience(instance, feed, cancel)).await? != Waited::Come {
                    return Err(refused());
                }
            }
            archives.iter().for_each(|archive| archive.away().forget());
        }
    }
    let (looked, sink) = query(sources, sql, sink, cancel).await?;
    if looked.is_away { Err(refused()) } else { Ok((looked, sink)) }
}

/// The archives, each with the days that it may have between those bounds.
async fn sources(
    instance: &Instance,
    service: Option<&ServiceName>,
    [first, last]: &[Option<String>; 2],
    retrieve: &RetrieveOf,
) -> Result<Vec<Source>, Failure> {
    let mut sources: Vec<Source> = Vec::new();
    for archiving in to_look_into(instance, service).await? {
        let (service, archive) = (archiving.config.service.clone(), retrieve.reader(instance, &archiving)?);
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
        true => Err(Failure::usage(NO_ARCHIVE)),
        false => Ok(sources),
    }
}

fn day_of(at: UnixMs) -> String {
    at.timestamp().strftime("%Y-%m-%d").to_string()
}

fn views(damaged: Vec<(String, String)>) -> Vec<ItemView> {
    damaged.into_iter().map(|(object, why)| ItemView { object, why }).collect()
}

/// A row that is no line of the report is told, not left out.
fn unreadable(row: Vec<Value>) -> ItemView {
    ItemView { object: Value::Array(row).to_string(), why: "it lacks a table, a day, a cause or a number".to_owned() }
}

fn line(row: &[Value]) -> Option<DeletionsLine> {
    let text = |place: usize| row.get(place)?.as_str().map(str::to_owned);
    let number = |place: usize| row.get(place)?.as_u64();
    let (service, table, day, cause) = (text(0)?, text(1)?, text(2)?, text(3)?);
    Some(DeletionsLine { service, table, day, cause, records: number(4)?, bytes: number(5)? })
}

/// Rows that nobody needs yet.
struct Nowhere;

impl Sink for Nowhere {
    fn columns(&mut self, _names: Vec<String>) -> bool {
        true
    }

    fn row(&mut self, _row: Vec<Value>) -> bool {
        true
    }
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
