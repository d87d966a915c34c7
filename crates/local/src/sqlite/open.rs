//! Opening a database: what it is, whether this program may use it, and whether it is whole.
//!
//! Refused, each with what to do: a file that is no database or is damaged, one of another program, one that a newer
//! version wrote. Migrations run in one transaction each, together with their number in `PRAGMA user_version`: a crash
//! between two of them leaves the older layout, and the next opening goes on from there.
//!
//! A clean stop folds the WAL in and removes it, so a WAL with content says that the last stop was none. Only then, or
//! when the file is small, the whole file is checked: nobody wants 300 MB read at every start.

use super::error_map::{Attempt, Fault};
use super::readers::Readers;
use super::writer::Writer;
use crate::io_error::io_failed;
use crate::limits::{
    BUSY_WAIT_MS, CHECKED_ALWAYS_BYTES, FOLD_CACHE_KIB, PAGE_BYTES, READER_CACHE_KIB, STATEMENTS, WAL_BYTES_KEPT,
    WAL_PAGES_MAX, WRITER_CACHE_KIB,
};
use engine::error::{ErrorKind, PortError, PortResult};
use rusqlite::{Connection, OpenFlags};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The first bytes of every SQLite database (SQLite, "Database File Format").
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// The layout of one kind of database.
#[derive(Debug)]
pub struct Schema {
    /// What it is, for errors and thread names: `catalog`.
    pub what: &'static str,
    /// `PRAGMA application_id`: tells our kinds of database from each other and from foreign ones.
    pub application_id: i32,
    /// SQL that leads from each layout to the next; the first makes an empty file's. Only ever added to.
    pub migrations: &'static [&'static str],
    /// What helps when the file is damaged, as the end of a sentence.
    pub remedy: &'static str,
}

/// One open database: its writer and its readers.
pub struct Database {
    path: PathBuf,
    writer: Writer,
    readers: Readers,
}

impl Database {
    /// Opens the file, or makes it; brings its layout up to date. Blocks: call it at the start, or off the async threads.
    ///
    /// Errors: `Damaged` (with the remedy), `Invalid` (another program's, or a newer version's), and what the disk says.
    pub fn open(path: &Path, schema: &'static Schema) -> PortResult<Database> {
        let object = path.display().to_string();
        let attempt = Attempt { attempted: "open database", object, remedy: schema.remedy };
        let io = |error| io_failed("open database", &attempt.object, error);
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).map_err(io)?;
        let found = look_at_file(path, &attempt)?;

        let connection = connect_writer(path, WRITER_CACHE_KIB).map_err(|fault| attempt.failed(fault))?;
        accept(&connection, schema, &attempt)?;
        if found.unclean || found.bytes <= CHECKED_ALWAYS_BYTES {
            check_whole(&connection, &attempt)?;
        }
        migrate(&connection, schema).map_err(|fault| attempt.failed(fault))?;
        // The file's name must outlive a power cut as well as what is in it.
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(io)?;

        let beside = connect_writer(path, FOLD_CACHE_KIB).map_err(|fault| attempt.failed(fault))?;
        let writer = Writer::start(schema.what, connection, beside, schema.remedy).map_err(io)?;
        let readers = Readers::new(path.to_owned(), schema.remedy);
        Ok(Database { path: path.to_owned(), writer, readers })
    }

    /// Writes: see [`Writer::run`].
    pub async fn write<T, F>(&self, attempted: &'static str, object: impl Into<String>, work: F) -> PortResult<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    {
        self.writer.run(attempted, object, work).await
    }

    /// Reads: see [`Readers::run`].
    pub async fn read<T, F>(&self, attempted: &'static str, object: impl Into<String>, work: F) -> PortResult<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    {
        self.readers.run(attempted, object, work).await
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Answers what was asked before, then closes the file cleanly, so that the next opening need not check it. Without
    /// it nothing is lost; the next opening only takes longer.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

struct Found {
    /// Its size; 0 when there is none yet.
    bytes: u64,
    /// The last stop was not clean.
    unclean: bool,
}

fn look_at_file(path: &Path, attempt: &Attempt) -> PortResult<Found> {
    let io = |error| io_failed(attempt.attempted, &attempt.object, error);
    let mut wal = path.as_os_str().to_owned();
    wal.push("-wal");
    let unclean = std::fs::metadata(wal).is_ok_and(|wal| wal.len() > 0);
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Found { bytes: 0, unclean }),
        Err(error) => return Err(io(error)),
    };
    let bytes = file.metadata().map_err(io)?.len();
    let mut start = [0; MAGIC.len()];
    if bytes > 0 && (bytes < 100 || file.read_exact(&mut start).is_err() || start != *MAGIC) {
        return Err(damaged(attempt, "the file is no database"));
    }
    Ok(Found { bytes, unclean })
}

fn damaged(attempt: &Attempt, what: &str) -> PortError {
    PortError::new(attempt.attempted, &attempt.object, ErrorKind::Damaged(format!("{what}; {}", attempt.remedy)))
}

fn connect_writer(path: &Path, cache_kib: u32) -> Result<Connection, Fault> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.pragma_update(None, "busy_timeout", BUSY_WAIT_MS)?;
    connection.pragma_update(None, "page_size", PAGE_BYTES)?;
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        let why = format!("the file system does not allow a write-ahead log here (journal mode `{mode}`)");
        return Err(PortError::new("open database", path.display(), ErrorKind::Invalid(why)).into());
    }
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "wal_autocheckpoint", WAL_PAGES_MAX)?;
    connection.pragma_update(None, "journal_size_limit", WAL_BYTES_KEPT)?;
    set_memory(&connection, cache_kib)?;
    Ok(connection)
}

/// Opens one more connection, which can only read.
pub(super) fn connect_reader(path: &Path) -> Result<Connection, Fault> {
    // Opened for writing because a WAL database's shared index must be written even by readers; `query_only` keeps the
    // tables out of reach.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.pragma_update(None, "busy_timeout", BUSY_WAIT_MS)?;
    connection.pragma_update(None, "query_only", true)?;
    set_memory(&connection, READER_CACHE_KIB)?;
    Ok(connection)
}

fn set_memory(connection: &Connection, cache_kib: u32) -> Result<(), Fault> {
    connection.pragma_update(None, "cache_size", -i64::from(cache_kib))?;
    // No memory map: its pages would count as resident memory, and a failing disk would be a signal, not an error.
    connection.pragma_update(None, "mmap_size", 0)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(())
}

/// Refuses what another program or a newer version wrote.
fn accept(connection: &Connection, schema: &Schema, attempt: &Attempt) -> PortResult<()> {
    let number = |sql| -> PortResult<i64> {
        connection.query_row(sql, [], |row| row.get(0)).map_err(|error| attempt.failed(error.into()))
    };
    let application = number("PRAGMA application_id")?;
    let layout = number("PRAGMA user_version")?;
    let tables = number("SELECT count(*) FROM sqlite_schema")?;
    let invalid = |why| Err(PortError::new(attempt.attempted, &attempt.object, ErrorKind::Invalid(why)));
    let empty = application == 0 && layout == 0 && tables == 0;
    if !empty && application != i64::from(schema.application_id) {
        return invalid(format!("it is a database of something else than Afterimage's {}", schema.what));
    }
    let known = schema.migrations.len();
    if usize::try_from(layout).is_ok_and(|layout| layout > known) {
        return invalid(format!(
            "written by a newer Afterimage (layout {layout}; this one knows up to {known}): start that version again"
        ));
    }
    Ok(())
}

fn check_whole(connection: &Connection, attempt: &Attempt) -> PortResult<()> {
    let verdict: Result<String, _> = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0));
    match verdict.map_err(|error| attempt.failed(error.into()))?.as_str() {
        "ok" => Ok(()),
        what => Err(damaged(attempt, &format!("the database file is corrupt ({what})"))),
    }
}

fn migrate(connection: &Connection, schema: &Schema) -> Result<(), Fault> {
    let layout: usize = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    for (done, sql) in schema.migrations.iter().enumerate().skip(layout) {
        let transaction = connection.unchecked_transaction()?;
        transaction.execute_batch(sql)?;
        transaction.pragma_update(None, "application_id", schema.application_id)?;
        transaction.pragma_update(None, "user_version", done + 1)?;
        transaction.commit()?;
    }
    Ok(())
}
