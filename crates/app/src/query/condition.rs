//! `archive restore --where`: a person's condition in SQL, judged for one deletion after the other, over the columns of the
//! view `deletions`.
//!
//! What is given must be an expression, and nothing more: it is prepared between parentheses and between CASE and THEN, and
//! no text that ends one of the two is legal in the other. Other rows than the one that is judged are out of its reach, and
//! so is everything that writes, and what says another thing each time: it is asked more than once. The days on which it can hold are asked of SQLite itself: of a view whose days have no rows,
//! those are opened that its terms on `service` and `day` leave.

use super::functions::shown;
use super::plain::plain;
use super::{guard, why_refused};
use crate::exit::Failure;
use crate::instance::UNPOISONED;
use crate::limits::{CONDITION_BYTES_MAX, CONDITION_STEPS_MAX};
use async_trait::async_trait;
use engine::error::{ErrorKind, PortError, PortResult};
use engine::flows::find_record::Found;
use engine::format::packed::{Column, Original, rows_of};
use engine::steps::condition::Condition;
use lifecycle::archive::parse;
use rusqlite::functions::FunctionFlags;
use rusqlite::types::Null;
use rusqlite::{Connection, ToSql, params_from_iter};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tokio_util::sync::CancellationToken;

/// The view with days that have no rows, the condition left out.
const DAYS: &str = "SELECT 1 FROM (SELECT d.value ->> 0 AS service, d.value ->> 1 AS day, r.value ->> 0 AS deleted_at, \
    r.value ->> 1 AS \"table\", r.value ->> 2 AS cause, r.value ->> 3 AS partition_key, r.value ->> 4 AS partition_key_type, \
    r.value ->> 5 AS sort_key, r.value ->> 6 AS sort_key_type, r.value ->> 7 AS sequence, r.value ->> 8 AS size, \
    r.value ->> 9 AS object, r.value ->> 10 AS image, r.value ->> 11 AS item \
    FROM json_each(afterimage_days()) d CROSS JOIN json_each(afterimage_open(d.value ->> 0, d.value ->> 1)) r) \
    AS deletions WHERE ";
/// The view with the one row that is judged, the condition left out.
const ROW: &str = "SELECT 1 FROM (SELECT ?1 AS service, ?2 AS day, ?3 AS deleted_at, ?4 AS \"table\", ?5 AS cause, \
    ?6 AS partition_key, ?7 AS partition_key_type, ?8 AS sort_key, ?9 AS sort_key_type, ?10 AS sequence, ?11 AS size, \
    ?12 AS object, ?13 AS image, afterimage_plain(?13) AS item) AS deletions WHERE ";
/// Functions that say another thing each time.
const RANDOM: [&str; 2] = ["random", "randomblob"];
/// Steps of SQLite's machine between two looks at whether it is enough.
const STEPS_BETWEEN_LOOKS: i32 = 10_000;

/// A condition, ready to judge.
pub(crate) struct SqlCondition(Arc<Mutex<Judge>>);

/// Days of which it is asked whether they are left: service and date.
#[derive(Default)]
struct Days {
    /// All of them, a JSON array of pairs.
    asked: String,
    /// Those that were opened.
    opened: BTreeSet<(String, String)>,
}

struct Judge {
    text: String,
    database: Connection,
    days: Arc<Mutex<Days>>,
    /// Looks since the last statement began, and whether the command was stopped.
    looks: Arc<AtomicU64>,
    stopped: Arc<AtomicBool>,
}

impl SqlCondition {
    /// Reads a condition. What is none, or cannot be judged, is refused.
    pub(crate) fn new(text: &str, cancel: &CancellationToken) -> Result<SqlCondition, Failure> {
        let judge = Judge::new(text, cancel.clone())?;
        judge.check()?;
        Ok(SqlCondition(Arc::new(Mutex::new(judge))))
    }

    /// Asks on a thread that may block: nobody knows how long a condition takes.
    async fn ask<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Judge) -> rusqlite::Result<T> + Send + 'static,
    ) -> PortResult<T> {
        let judge = self.0.clone();
        let asked = tokio::task::spawn_blocking(move || {
            let judge = judge.lock().expect(UNPOISONED);
            ask(&judge).map_err(|error| {
                let kind = match judge.stopped.load(Ordering::Relaxed) {
                    true => ErrorKind::Cancelled,
                    false => ErrorKind::Invalid(judge.why(&error, 0)),
                };
                PortError::new("judge", "the condition of --where", kind)
            })
        });
        asked.await.map_err(|stopped| {
            PortError::new("judge", "the condition of --where", ErrorKind::Internal(stopped.to_string()))
        })?
    }
}

#[async_trait]
impl Condition for SqlCondition {
    async fn days_left(&self, days: Vec<String>) -> PortResult<Vec<String>> {
        self.ask(move |judge| judge.days_left(days)).await
    }

    async fn holds(&self, found: &Found) -> PortResult<bool> {
        let original =
            Original { object: found.name.clone(), etag: found.etag.clone(), body: found.text.clone().into() };
        let (columns, bad) = rows_of(&[original]);
        if let Some((name, why)) = bad.into_iter().next() {
            return Err(PortError::new("read archived record", name, ErrorKind::Damaged(why.to_string())));
        }
        let day = parse(&found.name).map(|parsed| parsed.day.replace('/', "-")).unwrap_or_default();
        let mut row = vec![Value::from(found.record.service.as_str()), Value::from(day)];
        row.extend(shown(&columns, 0));
        row.push(columns.text(Column::Image, 0).map_or(Value::Null, Value::from));
        self.ask(move |judge| judge.holds(&row)).await
    }
}

impl Judge {
    fn new(text: &str, cancel: CancellationToken) -> Result<Judge, Failure> {
        let database = Connection::open_in_memory()?;
        let days = Arc::new(Mutex::new(Days { asked: "[]".to_owned(), ..Days::default() }));
        let asked = days.clone();
        database.create_scalar_function("afterimage_days", 0, FunctionFlags::SQLITE_UTF8, move |_| {
            Ok(asked.lock().expect(UNPOISONED).asked.clone())
        })?;
        let opens = days.clone();
        database.create_scalar_function("afterimage_open", 2, FunctionFlags::SQLITE_UTF8, move |context| {
            opens.lock().expect(UNPOISONED).opened.insert((context.get(0)?, context.get(1)?));
            Ok("[]")
        })?;
        let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
        database.create_scalar_function("afterimage_plain", 1, flags, |context| {
            Ok(context.get::<Option<String>>(0)?.and_then(|image| plain(&image)))
        })?;
        let (looks, stopped) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (counted, noticed) = (looks.clone(), stopped.clone());
        guard(&database, &RANDOM, STEPS_BETWEEN_LOOKS, move || {
            noticed.fetch_or(cancel.is_cancelled(), Ordering::Relaxed);
            noticed.load(Ordering::Relaxed)
                || counted.fetch_add(1, Ordering::Relaxed) * STEPS_BETWEEN_LOOKS as u64 > CONDITION_STEPS_MAX
        })?;
        Ok(Judge { text: text.to_owned(), database, days, looks, stopped })
    }

    /// Whether it is an expression, and one that can be judged.
    fn check(&self) -> Result<(), Failure> {
        let refused = |why: String| {
            Err(Failure::usage(format!(
                "the condition of --where is refused: {why}. It is an SQL expression over the columns of `deletions`, such \
                 as: item ->> '$.status' = 'paid' AND cause = 'user'"
            )))
        };
        if self.text.trim().is_empty() || self.text.contains('\0') {
            return refused("it says nothing".to_owned());
        }
        if self.text.len() > CONDITION_BYTES_MAX {
            return refused(format!("it has more than {CONDITION_BYTES_MAX} bytes"));
        }
        let cases = [(DAYS, "(", "\n)"), (DAYS, "CASE WHEN ", "\nTHEN 1 END")];
        for (view, before, behind) in cases {
            match self.database.prepare(&format!("{view}{before}{}{behind}", self.text)) {
                Ok(statement) if statement.parameter_count() > 0 => {
                    return refused("it has parameters, and nobody gives them values".to_owned());
                }
                Ok(_) => {}
                Err(error) => return refused(self.why(&error, view.len() + before.len())),
            }
        }
        // Paths into JSON, and the like, are looked at only when they are used. Any text may be JSON.
        let mut row = vec![Value::from("service"), Value::from("2026-11-21")];
        row.extend((0..10).map(|_| Value::from("0")));
        row.push(Value::from("{}"));
        match self.holds(&row) {
            Ok(_) => Ok(()),
            Err(error) => refused(self.why(&error, 0)),
        }
    }

    /// What is wrong, and where in the condition.
    fn why(&self, error: &rusqlite::Error, before: usize) -> String {
        if let rusqlite::Error::SqliteFailure(failure, _) = error
            && failure.code == rusqlite::ErrorCode::OperationInterrupted
        {
            return format!("it takes more than {CONDITION_STEPS_MAX} steps for one deletion");
        }
        let (why, at) = why_refused(error);
        match at.and_then(|at| at.checked_sub(before)).filter(|at| *at < self.text.len()) {
            Some(at) => format!("{why}, at character {}", at + 1),
            None => why,
        }
    }

    fn days_left(&self, days: Vec<String>) -> rusqlite::Result<Vec<String>> {
        let names = |day: &String| {
            let (service, date) = day.trim_end_matches('/').split_once('/')?;
            Some((service.to_owned(), date.replace('/', "-")))
        };
        let asked: Vec<(String, String)> = days.iter().filter_map(names).collect();
        *self.days.lock().expect(UNPOISONED) = Days { asked: json!(asked).to_string(), ..Days::default() };
        self.looks.store(0, Ordering::Relaxed);
        self.database.query_row(&format!("{DAYS}({}\n)", self.text), [], |_| Ok(())).or_else(none)?;
        let opened = std::mem::take(&mut self.days.lock().expect(UNPOISONED).opened);
        Ok(days.into_iter().filter(|day| names(day).is_none_or(|day| opened.contains(&day))).collect())
    }

    fn holds(&self, row: &[Value]) -> rusqlite::Result<bool> {
        self.looks.store(0, Ordering::Relaxed);
        let values = row.iter().map(|value| match value {
            Value::String(text) => Box::new(text.clone()) as Box<dyn ToSql>,
            Value::Number(number) => Box::new(number.as_i64()),
            _ => Box::new(Null),
        });
        let mut statement = self.database.prepare_cached(&format!("{ROW}({}\n)", self.text))?;
        statement.query_row(params_from_iter(values), |_| Ok(true)).or_else(none)
    }
}

/// No row: it does not hold.
fn none<T: Default>(error: rusqlite::Error) -> rusqlite::Result<T> {
    match error {
        rusqlite::Error::QueryReturnedNoRows => Ok(T::default()),
        error => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(text: &str) -> Result<SqlCondition, String> {
        SqlCondition::new(text, &CancellationToken::new()).map_err(|failure| failure.chain())
    }

    fn found(table: &str, cause: &str, image: Value) -> Found {
        let text = json!({
            "afterimage": {
                "format": 1, "service": "orders", "table": table, "cause": cause,
                "deleted_at": "2026-11-21T10:00:00Z", "sequence": "100", "key": ["pk"],
            },
            "dynamodb": { "Keys": { "pk": image["pk"] }, "OldImage": image },
        });
        let text = text.to_string();
        Found {
            name: lifecycle::ids::ObjectKey::new("orders/2026/11/21/a.json").unwrap(),
            record: engine::format::archived::read(text.as_bytes()).unwrap(),
            text,
            etag: lifecycle::ids::ETag("tag".to_owned()),
        }
    }

    #[test]
    fn what_is_no_expression_is_refused_with_what_is_wrong() {
        for (text, why) in [
            ("", "it says nothing"),
            ("1; DELETE FROM deletions", "near \";\": syntax error, at character 2"),
            ("1;", "at character 2"),
            ("1) OR (1", "near \")\": syntax error"),
            ("1 THEN 1 END, CASE WHEN 1", "near \"THEN\": syntax error"),
            ("1) UNION SELECT 1 FROM (SELECT 1", "syntax error"),
            ("SELECT 1", "near \"SELECT\": syntax error"),
            ("DELETE FROM deletions", "syntax error"),
            ("cause = 'user", "unrecognized token"),
            ("cause = 'user' /* and", "incomplete input"),
            ("colour = 'red'", "no such column: colour, at character 1"),
            ("count(*) > 1", "misuse of aggregate"),
            ("cause = ?", "it has parameters"),
            ("cause = ?1", "it has parameters"),
            ("json_extract(item, 'status') = 1", "bad JSON path"),
            ("EXISTS (SELECT 1 FROM deletions)", "no such table: deletions"),
            ("(WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n)", "steps for one"),
            ("cause IN (SELECT name FROM pragma_database_list)", "not authorized"),
            ("random() % 2", "not authorized"),
        ] {
            let refused = judge(text).err().unwrap_or_else(|| panic!("{text} is taken"));
            assert!(refused.contains(why) && refused.contains("--where is refused"), "{text}: {refused}");
        }
    }

    #[tokio::test]
    async fn it_is_judged_over_the_columns_of_the_view() {
        let image = json!({ "pk": { "S": "a;b" }, "n": { "N": "7.5" }, "tags": { "L": [{ "S": "x" }] } });
        let found = found("Orders", "ttl", image);
        for (text, holds) in [
            ("item ->> '$.n' > 7 AND cause = 'ttl'", true),
            ("deletions.cause = 'user' -- why", false),
            ("partition_key = 'a;b' AND partition_key_type = 'S' AND sort_key IS NULL", true),
            ("day = '2026-11-21' AND deleted_at LIKE '2026-11-21T10%' AND service = 'orders'", true),
            ("image ->> '$.n.N' = '7.5' AND \"table\" = 'Orders' AND sequence = '100' AND size > 10", true),
            ("EXISTS (SELECT 1 FROM json_each(item, '$.tags') WHERE value = 'x')", true),
            ("item ->> '$.missing'", false),
            ("object = 'orders/2026/11/21/a.json'", true),
        ] {
            assert_eq!(judge(text).unwrap().holds(&found).await.unwrap(), holds, "{text}");
        }
    }

    #[tokio::test]
    async fn days_on_which_it_cannot_hold_are_left_out_in_their_order() {
        let days: Vec<String> = [22, 21, 20].iter().map(|day| format!("orders/2026/11/{day}/")).collect();
        for (text, left) in [
            ("cause = 'user'", &[22, 21, 20][..]),
            ("day <= '2026-11-21' AND item ->> '$.n' = 1", &[21, 20]),
            ("cause = 'user' AND day IN ('2026-11-22')", &[22]),
            ("day = '2026-11-20' OR cause = 'ttl'", &[22, 21, 20]),
            ("service = 'other'", &[]),
            ("0", &[]),
        ] {
            let expected: Vec<String> = left.iter().map(|day| format!("orders/2026/11/{day}/")).collect();
            assert_eq!(judge(text).unwrap().days_left(days.clone()).await.unwrap(), expected, "{text}");
        }
    }

    #[tokio::test]
    async fn a_stopped_command_judges_no_more() {
        let cancel = CancellationToken::new();
        let slow = "(WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < CAST(size AS INT)) SELECT count(*) FROM n)";
        let condition = SqlCondition::new(&format!("{slow} > 1"), &cancel).map_err(|failure| failure.chain()).unwrap();
        cancel.cancel();
        let image = json!({ "pk": { "S": "a" }, "long": { "S": "x".repeat(100_000) } });
        let stopped = condition.holds(&found("Orders", "user", image)).await.unwrap_err();
        assert_eq!(stopped.kind, ErrorKind::Cancelled);
    }
}
