//! The spool's statements, inside whatever transaction the caller has open.

use crate::sqlite::error_map::Fault;
use crate::store::reclaim::{Freed, freed_by_event};
use engine::error::{ErrorKind, PortError};
use engine::ports::events::DeadLetter;
use lifecycle::event::{Happened, ObjectEvent, Version};
use lifecycle::ids::{ETag, ObjectKey, VersionId};
use lifecycle::time::UnixMs;
use rusqlite::{Connection, OptionalExtension, Row, params};

/// One event of the spool.
pub(super) struct Waiting {
    pub(super) id: i64,
    pub(super) attempts: u32,
    pub(super) not_before: i64,
    pub(super) bucket: String,
    pub(super) event: ObjectEvent,
}

/// Where events are forgotten.
#[derive(Clone, Copy)]
pub(super) enum From {
    /// They are done.
    Spool,
    /// A person dropped them.
    Dead,
}

/// The earliest time that an event can be put back to; 0 says that it never was.
const AT_ONCE: i64 = 1;

/// The columns of an event in the order that [`read_event`] expects.
macro_rules! columns {
    () => {
        "id, attempts, bucket, key, time, position, what, version_id, etag, size"
    };
}

/// Puts an event into the spool; its number.
pub(crate) fn insert(db: &Connection, bucket: &str, event: &ObjectEvent) -> Result<i64, Fault> {
    const SQL: &str = "INSERT INTO spool (bucket, key, time, position, what, version_id, etag, size) \
                       VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
    let (what, version_id, content) = match &event.what {
        Happened::Created(version) => ("created", version.version_id.as_ref(), Some(version)),
        Happened::Removed => ("removed", None, None),
        Happened::VersionRemoved(version_id) => ("version-removed", Some(version_id), None),
    };
    db.prepare_cached(SQL)?.execute(params![
        bucket,
        event.key.as_str(),
        event.time.0,
        event.order.map(|order| order.to_string()),
        what,
        version_id.map(VersionId::as_str),
        content.map(|version| version.etag.as_str()),
        content.map(|version| version.size),
    ])?;
    Ok(db.last_insert_rowid())
}

/// Whether somebody may still ask for what the event tells of.
pub(crate) fn pending(db: &Connection, event: i64) -> Result<bool, Fault> {
    const SQL: &str = "SELECT 1 FROM spool WHERE id = ?1 UNION ALL SELECT 1 FROM dead WHERE id = ?1";
    Ok(db.prepare_cached(SQL)?.exists([event])?)
}

pub(super) fn count_waiting(db: &Connection) -> Result<i64, Fault> {
    Ok(db.query_row("SELECT count(*) FROM spool", [], |row| row.get(0))?)
}

/// Whether events of that bucket are among the oldest so many; `None`: they are not, but there are more.
pub(super) fn waits_for(db: &Connection, bucket: &str, limit: usize) -> Result<Option<bool>, Fault> {
    const SQL: &str =
        "SELECT count(*), coalesce(max(bucket = ?1), 0) FROM (SELECT bucket FROM spool ORDER BY id LIMIT ?2)";
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut statement = db.prepare_cached(SQL)?;
    let (looked_at, found): (i64, bool) = statement.query_row((bucket, limit), |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(if found || looked_at < limit { Some(found) } else { None })
}

pub(super) fn oldest_and_dead(db: &Connection) -> Result<(Option<i64>, u64), Fault> {
    let mut oldest = db.prepare_cached("SELECT time FROM spool ORDER BY id LIMIT 1")?;
    let oldest = oldest.query_row([], |row| row.get(0)).optional()?;
    let dead = db.prepare_cached("SELECT count(*) FROM dead")?.query_row([], |row| row.get(0))?;
    Ok((oldest, dead))
}

/// What a look at the spool is for.
#[derive(Clone, Copy)]
pub(super) struct Look {
    /// The time.
    pub(super) now: i64,
    /// New events have greater numbers.
    pub(super) seen: i64,
    /// New events wanted at most.
    pub(super) new: usize,
    /// Events wanted at most that have waited.
    pub(super) due: usize,
}

/// What a look found.
pub(super) struct Looked {
    /// Those whose time has come, the longest due first.
    pub(super) due: Vec<i64>,
    /// When the next one's time comes.
    pub(super) next: Option<i64>,
    /// Those that were never put back, by number.
    pub(super) new: Vec<Waiting>,
    /// There are no more new ones up to this number.
    pub(super) all_seen: Option<i64>,
}

/// Looks at what there is. An event either was never put back, and then is found by its number, or is found by its time.
pub(super) fn look(db: &Connection, look: Look) -> Result<Looked, Fault> {
    const DUE: &str = "SELECT id FROM spool WHERE not_before > 0 AND not_before <= ?1 ORDER BY not_before, id LIMIT ?2";
    const LATER: &str = "SELECT min(not_before) FROM spool WHERE not_before > 0 AND not_before > ?1";
    const NEW: &str =
        concat!("SELECT ", columns!(), ", not_before FROM spool WHERE id > ?1 AND not_before = 0 ORDER BY id LIMIT ?2");
    let mut due = db.prepare_cached(DUE)?;
    let due = due.query_map(params![look.now, limit(look.due)], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let next = db.prepare_cached(LATER)?.query_row([look.now], |row| row.get(0))?;
    let mut statement = db.prepare_cached(NEW)?;
    let mut rows = statement.query(params![look.seen, limit(look.new)])?;
    let mut new = Vec::new();
    while let Some(row) = rows.next()? {
        new.push(read_waiting(row)?);
    }
    let all_seen = match new.len() < look.new {
        true => db.prepare_cached("SELECT max(id) FROM spool")?.query_row([], |row| row.get(0))?,
        false => None,
    };
    Ok(Looked { due, next, new, all_seen })
}

fn limit(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}

/// These events, as far as they are there, in order of their numbers.
pub(super) fn read(db: &Connection, ids: &[i64]) -> Result<Vec<Waiting>, Fault> {
    const SQL: &str = concat!("SELECT ", columns!(), ", not_before FROM spool WHERE id = ?1");
    let mut found = Vec::with_capacity(ids.len());
    for id in ids {
        let mut statement = db.prepare_cached(SQL)?;
        let mut rows = statement.query([id])?;
        if let Some(row) = rows.next()? {
            found.push(read_waiting(row)?);
        }
    }
    found.sort_by_key(|waiting| waiting.id);
    Ok(found)
}

/// Forgets events; how many there were, and the superseded versions that waited for them.
pub(super) fn forget(db: &Connection, ids: &[i64], from: From) -> Result<(u64, Vec<Freed>), Fault> {
    let sql = match from {
        From::Spool => "DELETE FROM spool WHERE id = ?1",
        From::Dead => "DELETE FROM dead WHERE id = ?1",
    };
    let (mut gone, mut freed) = (0, Vec::new());
    for id in ids {
        if db.prepare_cached(sql)?.execute([id])? > 0 {
            gone += 1;
            freed_by_event(db, *id, &mut freed)?;
        }
    }
    Ok((gone, freed))
}

/// Puts an event back until then. Whatever the clock says, one that was put back is found by its time.
pub(super) fn again(db: &Connection, id: i64, attempts: u32, not_before: UnixMs, why: &str) -> Result<(), Fault> {
    const SQL: &str = "UPDATE spool SET attempts = ?2, not_before = ?3, why = ?4 WHERE id = ?1";
    db.prepare_cached(SQL)?.execute(params![id, attempts, not_before.0.max(AT_ONCE), why])?;
    Ok(())
}

pub(super) fn bury(db: &Connection, id: i64, attempts: u32, why: &str, died_at: UnixMs) -> Result<(), Fault> {
    const SQL: &str = "INSERT INTO dead (id, attempts, bucket, key, time, position, what, version_id, etag, size, why, \
                       died_at) SELECT id, ?2, bucket, key, time, position, what, version_id, etag, size, ?3, ?4 \
                       FROM spool WHERE id = ?1";
    db.prepare_cached(SQL)?.execute(params![id, attempts, why, died_at.0])?;
    db.prepare_cached("DELETE FROM spool WHERE id = ?1")?.execute([id])?;
    Ok(())
}

/// Puts dead letters back; those that were there.
pub(super) fn redrive(db: &Connection, ids: &[i64]) -> Result<Vec<i64>, Fault> {
    // The same number again: versions that wait for the event know it by that.
    const SQL: &str = "INSERT INTO spool (id, bucket, key, time, position, what, version_id, etag, size, not_before) \
                       SELECT id, bucket, key, time, position, what, version_id, etag, size, ?2 FROM dead WHERE id = ?1";
    let mut back = Vec::new();
    for id in ids {
        if db.prepare_cached(SQL)?.execute([*id, AT_ONCE])? > 0 {
            db.prepare_cached("DELETE FROM dead WHERE id = ?1")?.execute([id])?;
            back.push(*id);
        }
    }
    Ok(back)
}

pub(super) fn dead(db: &Connection, after: u64, limit: usize) -> Result<Vec<DeadLetter>, Fault> {
    const SQL: &str = concat!("SELECT ", columns!(), ", why, died_at FROM dead WHERE id > ?1 ORDER BY id LIMIT ?2");
    let mut statement = db.prepare_cached(SQL)?;
    let mut rows = statement.query(params![after, self::limit(limit)])?;
    let mut letters = Vec::new();
    while let Some(row) = rows.next()? {
        letters.push(DeadLetter {
            id: row.get(0)?,
            attempts: row.get(1)?,
            bucket: row.get(2)?,
            event: read_event(row)?,
            why: row.get(10)?,
            died_at: UnixMs(row.get(11)?),
        });
    }
    Ok(letters)
}

fn read_waiting(row: &Row<'_>) -> Result<Waiting, Fault> {
    Ok(Waiting {
        id: row.get(0)?,
        attempts: row.get(1)?,
        not_before: row.get(10)?,
        bucket: row.get(2)?,
        event: read_event(row)?,
    })
}

fn read_event(row: &Row<'_>) -> Result<ObjectEvent, Fault> {
    let id: i64 = row.get(0)?;
    let bad = |what: &str| {
        let kind = ErrorKind::Damaged(format!("`{what}` in state.sqlite is none that this program writes"));
        Fault::Port(PortError::new("read event", id, kind))
    };
    let position: Option<String> = row.get(5)?;
    let order = position.map(|text| text.parse().map_err(|_| bad(&text))).transpose()?;
    let version_id = row.get::<_, Option<String>>(7)?.map(VersionId);
    let what: String = row.get(6)?;
    let what = match (what.as_str(), version_id) {
        ("created", version_id) => {
            Happened::Created(Version { version_id, etag: ETag(row.get(8)?), size: row.get(9)? })
        }
        ("removed", _) => Happened::Removed,
        ("version-removed", Some(version_id)) => Happened::VersionRemoved(version_id),
        _ => return Err(bad(&what)),
    };
    let key = ObjectKey::new(row.get::<_, String>(3)?).map_err(|error| bad(&error.to_string()))?;
    Ok(ObjectEvent { key, time: UnixMs(row.get(4)?), order, what })
}
