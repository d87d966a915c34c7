//! Rows and tombstones, as columns and back. What does not read back is damage, said with the row that has it.

use super::schema::{CATALOG, ROW_FORMAT};
use crate::sqlite::error_map::Fault;
use engine::error::{ErrorKind, PortError, PortResult};
use engine::format::{checksum_text, read_checksum};
use engine::ports::catalog::RowId;
use lifecycle::ids::{CopyKey, ETag, ObjectKey, Rev, VersionId};
use lifecycle::row::{CopyRow, CopyState, Origin, Partition, Tombstone};
use lifecycle::time::UnixMs;
use rusqlite::{CachedStatement, Connection, OptionalExtension, Row, ToSql, params};
use std::str::FromStr;

const COLUMNS: &str = "original_key, copy_key, created_at, status, disowned_at, removed_at, reason, \"order\", \
    floating, origin, rev, version_id, etag, size, checksum, storage_class";

/// A row's state, as the columns `status`, `disowned_at` and `reason` have it.
pub(super) fn state_columns(state: CopyState) -> (&'static str, Option<i64>, Option<&'static str>) {
    match state {
        CopyState::Active { due_at: None } => ("active", None, None),
        CopyState::Active { due_at: Some(at) } => ("surplus", Some(at.0), None),
        CopyState::Disowned { at, reason } => ("disowned", Some(at.0), Some(reason.code())),
    }
}

/// The statement that puts a new row; whether it does nothing or replaces when the row is there, `otherwise` says.
fn insert<'a>(tx: &'a Connection, otherwise: &str) -> rusqlite::Result<CachedStatement<'a>> {
    tx.prepare_cached(&format!(
        "INSERT INTO copies ({COLUMNS}, format) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, {ROW_FORMAT}) {otherwise}"
    ))
}

fn run_insert(
    mut statement: CachedStatement<'_>,
    original: &ObjectKey,
    row: &CopyRow,
    rev: &Rev,
) -> Result<bool, Fault> {
    let (status, disowned_at, reason) = state_columns(row.state);
    let values: [&dyn ToSql; 16] = [
        &original.as_str(),
        &row.copy_key.as_str(),
        &row.created_at.0,
        &status,
        &disowned_at,
        &row.removed_at.map(|at| at.0),
        &reason,
        &row.order.to_string(),
        &row.floating,
        &origin_text(row.origin),
        &rev.as_str(),
        &row.version_id.as_ref().map(VersionId::as_str),
        &row.etag.as_str(),
        &bytes_column(row.size),
        &row.checksum.map(checksum_text),
        &row.storage_class,
    ];
    Ok(statement.execute(values)? > 0)
}

/// Puts the row unless one of its key is there; whether it did.
pub(super) fn insert_new(tx: &Connection, original: &ObjectKey, row: &CopyRow, rev: &Rev) -> Result<bool, Fault> {
    run_insert(insert(tx, "ON CONFLICT DO NOTHING")?, original, row, rev)
}

/// Puts the row, or replaces all of the one that is there.
pub(super) fn insert_or_replace(tx: &Connection, original: &ObjectKey, row: &CopyRow, rev: &Rev) -> Result<(), Fault> {
    run_insert(
        insert(
            tx,
            "ON CONFLICT DO UPDATE SET created_at = excluded.created_at, status = excluded.status, \
        disowned_at = excluded.disowned_at, removed_at = excluded.removed_at, reason = excluded.reason, \
        \"order\" = excluded.\"order\", floating = excluded.floating, origin = excluded.origin, rev = excluded.rev, \
        version_id = excluded.version_id, etag = excluded.etag, size = excluded.size, checksum = excluded.checksum, \
        storage_class = excluded.storage_class, format = excluded.format",
        )?,
        original,
        row,
        rev,
    )?;
    Ok(())
}

/// Sets what the row that is there lacks, and nothing else (V3: an upsert never revives, guard 3).
pub(super) fn fill_in(tx: &Connection, original: &ObjectKey, row: &CopyRow, rev: &Rev) -> Result<(), Fault> {
    let sql = "UPDATE copies SET rev = ?3, removed_at = coalesce(removed_at, ?4), \
        version_id = coalesce(version_id, ?5), checksum = coalesce(checksum, ?6), \
        storage_class = coalesce(storage_class, ?7) WHERE original_key = ?1 AND copy_key = ?2";
    tx.prepare_cached(sql)?.execute(params![
        original.as_str(),
        row.copy_key.as_str(),
        rev.as_str(),
        row.removed_at.map(|at| at.0),
        row.version_id.as_ref().map(VersionId::as_str),
        row.checksum.map(checksum_text),
        row.storage_class,
    ])?;
    Ok(())
}

/// All of one key.
pub(super) fn partition(tx: &Connection, key: &ObjectKey) -> Result<Partition, Fault> {
    let mut found = Partition::default();
    let mut statement = tx.prepare_cached(&format!("SELECT {COLUMNS} FROM copies WHERE original_key = ?1"))?;
    let mut rows = statement.query([key.as_str()])?;
    while let Some(row) = rows.next()? {
        found.rows.push(read_row(row)?);
    }
    found.tombstone = tombstone(tx, key)?;
    Ok(found)
}

/// One row.
pub(super) fn row(tx: &Connection, id: &RowId) -> Result<Option<CopyRow>, Fault> {
    let sql = format!("SELECT {COLUMNS} FROM copies WHERE original_key = ?1 AND copy_key = ?2");
    let mut statement = tx.prepare_cached(&sql)?;
    let mut rows = statement.query([id.original.as_str(), id.copy_key.as_str()])?;
    let found = rows.next()?.map(read_row).transpose()?;
    Ok(found)
}

/// The tombstone of a key.
pub(super) fn tombstone(tx: &Connection, key: &ObjectKey) -> Result<Option<Tombstone>, Fault> {
    let mut statement =
        tx.prepare_cached("SELECT \"order\", removed_at, noted_at, floating FROM tombstones WHERE original_key = ?1")?;
    let read = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
    let columns = statement.query_row([key.as_str()], read).optional()?;
    let Some((order, time, noted_at, floating)): Option<(String, i64, i64, bool)> = columns else { return Ok(None) };
    let order = parsed(&order, || format!("tombstone of {key}"))?;
    Ok(Some(Tombstone { order, time: UnixMs(time), noted_at: UnixMs(noted_at), floating }))
}

fn read_row(row: &Row<'_>) -> Result<CopyRow, Fault> {
    let original: String = row.get(0)?;
    let copy_key: String = row.get(1)?;
    let which = || format!("{original} / {copy_key}");
    let damaged = |what: &str| unreadable(which(), what);
    let state = read_state(row, &which)?;
    Ok(CopyRow {
        copy_key: copy_key_of(copy_key.clone()).ok_or_else(|| damaged("copy_key"))?,
        order: parsed(row.get_ref(7)?.as_str().map_err(|_| damaged("order"))?, which)?,
        floating: row.get(8)?,
        origin: read_origin(row.get_ref(9)?.as_str().map_err(|_| damaged("origin"))?)
            .ok_or_else(|| damaged("origin"))?,
        created_at: UnixMs(row.get(2)?),
        state,
        removed_at: row.get::<_, Option<i64>>(5)?.map(UnixMs),
        version_id: row.get::<_, Option<String>>(11)?.map(VersionId),
        etag: ETag(row.get(12)?),
        size: u64::try_from(row.get::<_, i64>(13)?).map_err(|_| damaged("size"))?,
        checksum: match row.get::<_, Option<String>>(14)? {
            Some(text) => Some(read_checksum(&text).ok_or_else(|| damaged("checksum"))?),
            None => None,
        },
        storage_class: row.get(15)?,
        rev: Rev(row.get(10)?),
    })
}

fn read_state(row: &Row<'_>, which: &impl Fn() -> String) -> Result<CopyState, Fault> {
    let at = row.get::<_, Option<i64>>(4)?.map(UnixMs);
    let reason: Option<String> = row.get(6)?;
    let status: String = row.get(3)?;
    match (status.as_str(), at, reason) {
        ("active", None, _) => Ok(CopyState::Active { due_at: None }),
        ("surplus", Some(at), _) => Ok(CopyState::Active { due_at: Some(at) }),
        ("disowned", Some(at), Some(reason)) => Ok(CopyState::Disowned { at, reason: parsed(&reason, which)? }),
        _ => Err(unreadable(which(), "status").into()),
    }
}

/// A key read from the file.
pub(super) fn object_key_of(text: String) -> PortResult<ObjectKey> {
    let which = text.clone();
    ObjectKey::new(text).map_err(|error| unreadable(which, "original_key").because(error))
}

/// A copy's key read from the file.
pub(super) fn copy_key_of(text: String) -> Option<CopyKey> {
    ObjectKey::new(text).ok().map(CopyKey::of)
}

fn parsed<T>(text: &str, which: impl Fn() -> String) -> PortResult<T>
where
    T: FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    text.parse().map_err(|error: T::Err| unreadable(which(), "a column").because(error))
}

/// The error of a column that this program would not have written.
pub(super) fn unreadable(which: String, column: &str) -> PortError {
    let what = format!("{column} does not read back; {}", CATALOG.remedy);
    PortError::new("read catalog row", which, ErrorKind::Damaged(what))
}

fn origin_text(origin: Origin) -> String {
    match origin {
        Origin::Event => "event".to_owned(),
        Origin::Look => "look".to_owned(),
        Origin::Undelete { at } => format!("undelete@{}", at.0),
    }
}

fn read_origin(text: &str) -> Option<Origin> {
    match text {
        "event" => Some(Origin::Event),
        "look" => Some(Origin::Look),
        _ => text.strip_prefix("undelete@")?.parse().ok().map(|at| Origin::Undelete { at: UnixMs(at) }),
    }
}

/// SQLite's numbers end at 2^63 − 1, far beyond any object.
pub(super) fn bytes_column(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}
