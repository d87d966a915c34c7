//! The functions that the view calls: parts of a day, rows of a part, and the image of a row. Each fetches what it needs when
//! SQLite asks for it, and keeps the last few parts, since rows are asked for one after the other.

use super::Source;
use super::plain::plain;
use crate::exit::Failure;
use crate::instance::UNPOISONED;
use engine::error::{ErrorKind, PortError};
use engine::flows::retrieve::note_packs;
use engine::flows::scan::{Part, Rows, parts, rows};
use engine::format::packed::{Column, Columns};
use engine::report::chain;
use engine::steps::away::is_archived;
use engine::steps::originals::is_unreadable;
use engine::wrap::unpacked::Unpacked;
use lifecycle::archive::ServiceName;
use lifecycle::time::UnixMs;
use rusqlite::functions::FunctionFlags;
use rusqlite::{Connection, Error};
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use tokio::runtime::Handle;

/// What the rows of the view need, besides images.
const SHOWN: [Column; 11] = [
    Column::Object,
    Column::Table,
    Column::PartitionKey,
    Column::PartitionKeyType,
    Column::SortKey,
    Column::SortKeyType,
    Column::Cause,
    Column::DeletedAt,
    Column::Sequence,
    Column::Size,
    Column::Etag,
];
/// Parts that are kept.
const KEPT: usize = 3;
/// Names of damaged records that are told.
const TOLD: usize = 1_000;

/// What the functions share.
pub(super) struct State {
    archives: BTreeMap<String, (ServiceName, Arc<Unpacked>)>,
    runtime: Handle,
    parts: Vec<(Arc<Unpacked>, Part)>,
    kept: VecDeque<((usize, bool), Arc<Columns>)>,
    /// The numbers of the parts of each day that was opened: a join may open it again and again.
    days: BTreeMap<(String, String), String>,
    damaged: BTreeMap<String, String>,
    /// And more of them.
    damaged_more: bool,
    failed: Option<PortError>,
    /// Something lies in archive tiers.
    is_away: bool,
}

impl State {
    pub(super) fn of(sources: &[Source], runtime: Handle) -> State {
        let archive =
            |source: &Source| (source.service.as_str().to_owned(), (source.service.clone(), source.archive.clone()));
        State {
            archives: sources.iter().map(archive).collect(),
            runtime,
            parts: Vec::new(),
            kept: VecDeque::new(),
            days: BTreeMap::new(),
            damaged: BTreeMap::new(),
            damaged_more: false,
            failed: None,
            is_away: false,
        }
    }

    /// The numbers of a day's parts, as a JSON array.
    fn parts_of(&mut self, service: &str, day: &str) -> Result<String, PortError> {
        let opened = (service.to_owned(), day.to_owned());
        if let Some(parts) = self.days.get(&opened) {
            return Ok(parts.clone());
        }
        let Some((service, archive)) = self.archives.get(service) else { return Ok("[]".to_owned()) };
        let day = day.replace('-', "/");
        let found = match self.runtime.block_on(parts(archive, service, &day)) {
            Err(error) if is_archived(&error) => {
                self.is_away = true;
                self.runtime.block_on(note_packs(archive, service, &day))?;
                return Ok("[]".to_owned());
            }
            // What that day has is in no row, and the exit code says so; other days are as they are.
            Err(error) if matches!(error.kind, ErrorKind::Damaged(_)) => {
                self.damaged.insert(error.object.clone(), chain(&error));
                return Ok("[]".to_owned());
            }
            found => found?,
        };
        let first = self.parts.len();
        self.parts.extend(found.into_iter().map(|part| (archive.clone(), part)));
        let parts = json!((first..self.parts.len()).collect::<Vec<_>>()).to_string();
        Ok(self.days.entry(opened).or_insert(parts).clone())
    }

    fn columns(&mut self, part: usize, with_image: bool) -> Result<Arc<Columns>, PortError> {
        if let Some((_, columns)) = self.kept.iter().find(|(kept, _)| *kept == (part, with_image)) {
            return Ok(columns.clone());
        }
        let Some((archive, of)) = self.parts.get(part) else { return Ok(Arc::default()) };
        let wanted: &[Column] = if with_image { &[Column::Image] } else { &SHOWN };
        let read = match (self.runtime.block_on(rows(archive, of, wanted)), of) {
            (Err(error), Part::Group { pack, .. }) if is_unreadable(&error) => {
                Rows { columns: Columns::default(), damaged: vec![(pack.name().clone(), error)] }
            }
            (read, _) => read?,
        };
        for (name, error) in read.damaged {
            if is_archived(&error) {
                self.is_away = true;
                self.runtime.block_on(archive.away().note(&name))?;
            } else if self.damaged.len() < TOLD || self.damaged.contains_key(name.as_str()) {
                self.damaged.insert(name.to_string(), chain(&error));
            } else {
                self.damaged_more = true;
            }
        }
        let columns = Arc::new(read.columns);
        // What is not packed has all of its columns at once. So has a row group that is read from its objects, but some of them
        // may be damaged, too: rows that were given already may have other numbers.
        let whole = matches!(of, Part::Objects(_)) && columns.has(Column::Image);
        let keys = if whole { vec![true, false] } else { vec![with_image] };
        self.kept.extend(keys.into_iter().map(|with_image| ((part, with_image), columns.clone())));
        while self.kept.len() > KEPT * 2 {
            self.kept.pop_front();
        }
        Ok(columns)
    }

    /// The rows of a part, as a JSON array of arrays.
    fn rows_of(&mut self, part: usize) -> Result<String, PortError> {
        let columns = self.columns(part, false)?;
        let rows: Vec<Value> = (0..columns.rows).map(|row| Value::Array(shown(&columns, row))).collect();
        Ok(Value::Array(rows).to_string())
    }

    /// The image of a row; `None`: it does not read back, which is told.
    fn image_of(&mut self, part: usize, row: usize) -> Result<Option<String>, PortError> {
        let images = self.columns(part, true)?;
        let row = match images.has(Column::Object) {
            false => row,
            true => {
                let shown = self.columns(part, false)?;
                let Some(name) = shown.text(Column::Object, row) else { return Ok(None) };
                let place = images.from_object(name);
                if images.text(Column::Object, place) != Some(name) {
                    return Ok(None);
                }
                place
            }
        };
        Ok(images.text(Column::Image, row).map(str::to_owned))
    }
}

/// A row as the view has it, from `deleted_at` to `object`.
pub(super) fn shown(columns: &Columns, row: usize) -> Vec<Value> {
    let text = |column| Value::from(columns.text(column, row));
    vec![
        Value::from(columns.int(Column::DeletedAt, row).map(|at| UnixMs(at).to_string())),
        text(Column::Table),
        text(Column::Cause),
        text(Column::PartitionKey),
        text(Column::PartitionKeyType),
        text(Column::SortKey),
        text(Column::SortKeyType),
        text(Column::Sequence),
        Value::from(columns.int(Column::Size, row)),
        text(Column::Object),
    ]
}

/// The state, in all functions' hands.
#[derive(Clone)]
pub(super) struct Shared(Arc<Mutex<State>>);

impl Shared {
    pub(super) fn new(state: State) -> Shared {
        Shared(Arc::new(Mutex::new(state)))
    }

    /// Gives the functions to a database.
    pub(super) fn register(self, database: &Connection) -> rusqlite::Result<()> {
        let flags = FunctionFlags::SQLITE_UTF8;
        let shared = self.clone();
        database.create_scalar_function("afterimage_parts", 2, flags, move |context| {
            let (service, day): (String, String) = (context.get(0)?, context.get(1)?);
            shared.with(|state| state.parts_of(&service, &day))
        })?;
        let shared = self.clone();
        database.create_scalar_function("afterimage_rows", 1, flags, move |context| {
            let part: usize = context.get(0)?;
            shared.with(|state| state.rows_of(part))
        })?;
        let shared = self.clone();
        database.create_scalar_function("afterimage_image", 2, flags, move |context| {
            let (part, row): (usize, usize) = (context.get(0)?, context.get(1)?);
            shared.with(|state| state.image_of(part, row))
        })?;
        database.create_scalar_function("afterimage_item", 2, flags, move |context| {
            let (part, row): (usize, usize) = (context.get(0)?, context.get(1)?);
            let image = self.with(|state| state.image_of(part, row))?;
            Ok(image.and_then(|image| plain(&image)))
        })
    }

    /// SQLite hands on an error's text alone: the error itself is kept.
    fn with<T>(&self, ask: impl FnOnce(&mut State) -> Result<T, PortError>) -> rusqlite::Result<T> {
        let mut state = self.0.lock().expect(UNPOISONED);
        ask(&mut state).map_err(|error| {
            state.failed = Some(error.clone());
            Error::UserFunctionError(Box::new(error))
        })
    }

    /// What ended a statement.
    pub(super) fn failure(&self, error: Error) -> Failure {
        match self.0.lock().expect(UNPOISONED).failed.take() {
            Some(error) => error.into(),
            None => Failure::failed(format!("the statement failed: {error}")),
        }
    }

    /// Whether something lies in archive tiers.
    pub(super) fn is_away(&self) -> bool {
        self.0.lock().expect(UNPOISONED).is_away
    }

    /// Packs that are damaged, and that nobody needed.
    pub(super) fn passed_over(&self) -> Vec<(String, String)> {
        let state = self.0.lock().expect(UNPOISONED);
        let damaged = state.archives.values().flat_map(|(_, archive)| archive.damaged());
        damaged.map(|(name, error)| (name.to_string(), chain(&error))).collect()
    }

    /// How many days were opened, and what did not read back.
    pub(super) fn looked(&self) -> (u64, Vec<(String, String)>) {
        let state = self.0.lock().expect(UNPOISONED);
        let more = state.damaged_more.then(|| {
            ("others".to_owned(), format!("more than {TOLD} do not read back, and only the first of them are named"))
        });
        let days = state.days.values().filter(|parts| *parts != "[]").count();
        (days as u64, state.damaged.clone().into_iter().chain(more).collect())
    }
}
