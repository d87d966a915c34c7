//! A snapshot of the catalog: one plain file with all that was committed at one moment, while work goes on.
//!
//! Written under another name, made durable, then renamed: a crash leaves the older snapshot, and a `.partial` file that the
//! next one replaces.

use super::schema::CATALOG;
use crate::io_error::io_failed;
use crate::sqlite::error_map::{Attempt, Fault};
use crate::sqlite::open::connect_reader;
use engine::error::PortResult;
use std::fs::File;
use std::path::{Path, PathBuf};

/// How a snapshot ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Snapshot {
    /// The file holds the catalog as it was at a moment during the call.
    Written,
    /// Nothing has changed since the last one: that one still says it all.
    Unchanged,
}

/// Writes the database at `from` to `to`, off the async threads.
pub(super) async fn write(from: PathBuf, to: PathBuf) -> PortResult<()> {
    let attempt = Attempt { attempted: "snapshot catalog", object: to.display().to_string(), remedy: CATALOG.remedy };
    let failed = attempt.clone();
    let outcome = tokio::task::spawn_blocking(move || copy(&from, &to, &attempt)).await;
    outcome.map_err(|_| failed.unanswered())?
}

fn copy(from: &Path, to: &Path, attempt: &Attempt) -> PortResult<()> {
    let io = |error| io_failed(attempt.attempted, &attempt.object, error);
    let mut partial = to.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    match std::fs::remove_file(&partial) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io(error)),
        _ => {}
    }
    // VACUUM INTO reads one snapshot from begin to end; the backup interface would start over at every commit.
    vacuum(from, &partial).map_err(|fault| attempt.failed(fault))?;
    File::open(&partial).and_then(|file| file.sync_all()).map_err(io)?;
    std::fs::rename(&partial, to).map_err(io)?;
    let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(io)
}

fn vacuum(from: &Path, into: &Path) -> Result<(), Fault> {
    let connection = connect_reader(from)?;
    // VACUUM INTO counts as a write, though it only reads this database.
    connection.pragma_update(None, "query_only", false)?;
    let name = into.to_str().ok_or_else(|| rusqlite::Error::InvalidPath(into.to_owned()))?;
    connection.execute("VACUUM INTO ?1", [name])?;
    Ok(())
}
