//! SQL over archives: one view, `deletions`, in an SQLite database in memory that has nothing else.
//!
//! SQLite plans, filters and groups; what it asks for is fetched when it asks. The view joins the days of the archives with
//! their parts and those with their rows, in this order, by functions of ours: a condition on `service` or `day` is judged
//! before the day is opened, and an image is read only where a statement mentions it. Nothing is written: the statement may
//! read, and no more.

mod condition;
mod functions;
mod met;
mod plain;

use crate::exit::Failure;
use engine::wrap::unpacked::Unpacked;
use functions::{Shared, State};
use lifecycle::archive::ServiceName;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::limits::Limit;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Error};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

pub(crate) use condition::SqlCondition;
pub(crate) use met::MetOnDisk;

/// Bytes of one value: the rows of a part, without their images, are one.
const VALUE_BYTES_MAX: i32 = 128 << 20;
/// Steps of SQLite's machine between two looks at whether the command was stopped.
const STEPS_BETWEEN_LOOKS: i32 = 10_000;

/// The view: a row for each deletion. Joined in this order (`CROSS JOIN` says so to SQLite).
const VIEW: &str = "
CREATE TABLE days (service TEXT NOT NULL, day TEXT NOT NULL, PRIMARY KEY (service, day)) WITHOUT ROWID;
CREATE VIEW deletions AS SELECT
    d.service AS service, d.day AS day, r.value ->> 0 AS deleted_at, r.value ->> 1 AS \"table\", r.value ->> 2 AS cause,
    r.value ->> 3 AS partition_key, r.value ->> 4 AS partition_key_type, r.value ->> 5 AS sort_key,
    r.value ->> 6 AS sort_key_type, r.value ->> 7 AS sequence, r.value ->> 8 AS size, r.value ->> 9 AS object,
    afterimage_image(p.value, r.key) AS image, afterimage_item(p.value, r.key) AS item
FROM days d CROSS JOIN json_each(afterimage_parts(d.service, d.day)) p CROSS JOIN json_each(afterimage_rows(p.value)) r;
";

/// Archives to look into, each for one service, and the days that they may have: `yyyy-mm-dd`.
#[derive(Clone)]
pub(crate) struct Source {
    /// Whose records.
    pub(crate) service: ServiceName,
    /// The archive.
    pub(crate) archive: Arc<Unpacked>,
    /// Its days.
    pub(crate) days: Vec<String>,
}

/// What a statement gave, besides its rows.
#[derive(Debug, Default)]
pub(crate) struct Looked {
    /// How many rows it gave.
    pub(crate) rows: u64,
    /// How many days were opened.
    pub(crate) days: u64,
    /// What did not read back: names, and why.
    pub(crate) damaged: Vec<(String, String)>,
    /// Packs that are damaged and not needed, and why: their records are read from their objects.
    pub(crate) passed_over: Vec<(String, String)>,
    /// Something lies in archive tiers: the archives' handles say what. From then on no row was given, since none would be
    /// right.
    pub(crate) is_away: bool,
    /// Stopped before the end.
    pub(crate) cancelled: bool,
}

/// Where rows go; `false`: nobody wants more.
pub(crate) trait Sink: Send + 'static {
    /// The names of the columns: once, first.
    fn columns(&mut self, names: Vec<String>) -> bool;
    /// A row.
    fn row(&mut self, row: Vec<Value>) -> bool;
}

/// Runs a statement over archives, on a thread for it.
pub(crate) async fn query<S: Sink>(
    sources: Vec<Source>,
    sql: String,
    sink: S,
    cancel: &CancellationToken,
) -> Result<(Looked, S), Failure> {
    let (cancel, runtime) = (cancel.clone(), Handle::current());
    let work = move || run(sources, &sql, sink, cancel, runtime);
    tokio::task::spawn_blocking(work).await.map_err(|stopped| Failure::Failed(stopped.into()))?
}

fn run<S: Sink>(
    sources: Vec<Source>,
    sql: &str,
    mut sink: S,
    cancel: CancellationToken,
    runtime: Handle,
) -> Result<(Looked, S), Failure> {
    let database = Connection::open_in_memory()?;
    let state = Shared::new(State::of(&sources, runtime));
    prepare(&database, &sources, &state, cancel.clone())?;
    let mut statement = database.prepare(sql).map_err(refused)?;
    let columns: Vec<String> = statement.column_names().into_iter().map(str::to_owned).collect();
    if columns.is_empty() {
        return Err(Failure::usage("the statement gives no rows: write a SELECT over `deletions`"));
    }
    let width = columns.len();
    let mut looked = Looked::default();
    let (mut wanted, mut columns) = (true, Some(columns));
    let mut rows = statement.query([]).map_err(|error| state.failure(error))?;
    while wanted {
        let row = match rows.next() {
            Ok(Some(row)) => row,
            Ok(None) => break,
            Err(_) if cancel.is_cancelled() => {
                looked.cancelled = true;
                break;
            }
            Err(error) => return Err(state.failure(error)),
        };
        if state.is_away() {
            continue;
        }
        if let Some(columns) = columns.take() {
            wanted = sink.columns(columns);
        }
        let values = (0..width).map(|place| Ok(value(row.get_ref(place)?)));
        wanted = wanted && sink.row(values.collect::<Result<Vec<Value>, Error>>()?);
        looked.rows += 1;
    }
    looked.is_away = state.is_away();
    if let Some(columns) = columns.filter(|_| !looked.is_away) {
        wanted = sink.columns(columns);
    }
    looked.cancelled |= !wanted;
    (looked.days, looked.damaged) = state.looked();
    looked.passed_over = state.passed_over();
    Ok((looked, sink))
}

fn prepare(
    database: &Connection,
    sources: &[Source],
    state: &Shared,
    cancel: CancellationToken,
) -> Result<(), Failure> {
    state.clone().register(database)?;
    database.execute_batch(VIEW)?;
    database.execute_batch("BEGIN")?;
    for Source { service, days, .. } in sources {
        let mut insert = database.prepare("INSERT OR IGNORE INTO days VALUES (?1, ?2)")?;
        for day in days {
            insert.execute([service.as_str(), day])?;
        }
    }
    database.execute_batch("COMMIT")?;
    guard(database, &[], STEPS_BETWEEN_LOOKS, move || cancel.is_cancelled())?;
    Ok(())
}

/// From here on statements only read, within limits and without some functions; every so many steps it is asked whether they
/// are to stop.
fn guard(
    database: &Connection,
    without: &'static [&'static str],
    steps: i32,
    stop: impl FnMut() -> bool + Send + 'static,
) -> rusqlite::Result<()> {
    database.set_limit(Limit::SQLITE_LIMIT_ATTACHED, 0)?;
    database.set_limit(Limit::SQLITE_LIMIT_LENGTH, VALUE_BYTES_MAX)?;
    database.authorizer(Some(move |context: AuthContext<'_>| match context.action {
        AuthAction::Function { function_name } if without.contains(&function_name) => Authorization::Deny,
        AuthAction::Select | AuthAction::Read { .. } | AuthAction::Function { .. } | AuthAction::Recursive => {
            Authorization::Allow
        }
        _ => Authorization::Deny,
    }));
    database.progress_handler(steps, Some(stop));
    Ok(())
}

/// What is wrong with a statement, and where to look.
fn refused(error: Error) -> Failure {
    let why = match why_refused(&error) {
        (why, Some(at)) => format!("{why}, at character {}", at + 1),
        (why, None) => why,
    };
    Failure::usage(format!(
        "the statement is refused: {why}. `SELECT * FROM deletions LIMIT 1` shows the columns; statements can only read"
    ))
}

/// What is wrong with a statement, and at which byte.
fn why_refused(error: &Error) -> (String, Option<usize>) {
    match error {
        Error::SqlInputError { msg, offset, .. } => (msg.clone(), usize::try_from(*offset).ok()),
        Error::MultipleStatement => ("it is more than one statement".to_owned(), None),
        Error::SqliteFailure(_, Some(msg)) => (msg.clone(), None),
        other => (other.to_string(), None),
    }
}

fn value(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => json!(number),
        ValueRef::Real(number) => json!(number),
        ValueRef::Text(text) => Value::String(String::from_utf8_lossy(text).into_owned()),
        ValueRef::Blob(bytes) => Value::String(bytes.iter().map(|byte| format!("{byte:02x}")).collect()),
    }
}
