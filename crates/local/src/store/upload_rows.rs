//! The rows of multipart uploads, of their parts, and of what came of them, inside whatever transaction the caller has open.

use super::index::{Row, read_row};
use super::limits::COMPLETED_MAX;
use super::meta::{Stored, checksum_text, parse_checksum};
use super::types::{ObjectInfo, PartInfo, UploadId, UploadInfo};
use crate::sqlite::error_map::Fault;
use engine::error::{ErrorKind, PortError};
use lifecycle::ids::{ETag, ObjectKey};
use lifecycle::time::UnixMs;
use rusqlite::{Connection, OptionalExtension, params};

/// A part and its file below the store's own folder.
#[derive(Clone, Debug)]
pub(super) struct PartRow {
    pub(super) info: PartInfo,
    pub(super) file: String,
}

pub(super) fn insert(
    db: &Connection,
    bucket: i64,
    key: &str,
    id: &str,
    initiated: UnixMs,
    stored: &Stored,
) -> Result<(), Fault> {
    const SQL: &str = "INSERT INTO uploads (bucket, key, id, initiated, attributes) VALUES (?1, ?2, ?3, ?4, ?5)";
    db.prepare_cached(SQL)?.execute(params![bucket, key, id, initiated.0, stored.to_json()])?;
    Ok(())
}

/// What the upload's object will carry; `None`: there is no such upload.
pub(super) fn find(db: &Connection, bucket: i64, key: &str, id: &str) -> Result<Option<Stored>, Fault> {
    const SQL: &str = "SELECT attributes FROM uploads WHERE bucket = ?1 AND key = ?2 AND id = ?3";
    let json: Option<Option<String>> =
        db.prepare_cached(SQL)?.query_row(params![bucket, key, id], |row| row.get(0)).optional()?;
    json.map(|json| Stored::from_json(json.as_deref()).map_err(|_| damaged(key))).transpose()
}

/// Whether any bucket has an upload of that name.
pub(super) fn is_known(db: &Connection, id: &str) -> Result<bool, Fault> {
    Ok(db.prepare_cached("SELECT 1 FROM uploads WHERE id = ?1")?.exists([id])?)
}

/// Whether a bucket has uploads under way.
pub(super) fn any(db: &Connection, bucket: i64) -> Result<bool, Fault> {
    Ok(db.prepare_cached("SELECT 1 FROM uploads WHERE bucket = ?1 LIMIT 1")?.exists([bucket])?)
}

/// Uploads under a prefix, by key and id, after a key (and an id of that key).
pub(super) fn list(
    db: &Connection,
    bucket: i64,
    prefix: &str,
    after: Option<(String, Option<String>)>,
    limit: usize,
) -> Result<Vec<UploadInfo>, Fault> {
    const SQL: &str = "SELECT key, id, initiated FROM uploads WHERE bucket = ?1 AND key >= ?2 \
                       AND (?3 IS NULL OR key > ?3 OR (key = ?3 AND id > ?4)) ORDER BY key, id";
    let (after_key, after_id) = match after {
        None => (None, None),
        // Without an id, all uploads of that key are passed over: no id is greater than NULL.
        Some((key, id)) => (Some(key), id),
    };
    let mut statement = db.prepare_cached(SQL)?;
    let mut rows = statement.query(params![bucket, prefix, after_key, after_id])?;
    let mut uploads = Vec::new();
    while let Some(row) = rows.next()? {
        let key: String = row.get(0)?;
        if uploads.len() == limit || !key.starts_with(prefix) {
            break;
        }
        let object = ObjectKey::new(key.clone()).map_err(|_| damaged(&key))?;
        uploads.push(UploadInfo { key: object, id: UploadId(row.get(1)?), initiated: UnixMs(row.get(2)?) });
    }
    Ok(uploads)
}

/// Puts a part's row; the file of the part that it replaces.
pub(super) fn put_part(db: &Connection, upload: &str, part: &PartRow) -> Result<Option<String>, Fault> {
    let replaced = db
        .prepare_cached("SELECT file FROM parts WHERE upload = ?1 AND number = ?2")?
        .query_row(params![upload, part.info.number], |row| row.get(0))
        .optional()?;
    const SQL: &str = "INSERT OR REPLACE INTO parts (upload, number, file, etag, size, last_modified, checksum, sums) \
                       VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
    let PartRow { info, file } = part;
    let stored = Stored { sums: info.checksums.clone(), ..Stored::default() };
    db.prepare_cached(SQL)?.execute(params![
        upload,
        info.number,
        file,
        info.etag.as_str(),
        info.size,
        info.last_modified.0,
        checksum_text(info.checksum),
        stored.to_json(),
    ])?;
    Ok(replaced)
}

/// Parts with numbers above `after`.
pub(super) fn parts(db: &Connection, upload: &str, after: u32, limit: usize) -> Result<Vec<PartRow>, Fault> {
    const SQL: &str = "SELECT number, file, etag, size, last_modified, checksum, sums FROM parts \
                       WHERE upload = ?1 AND number > ?2 ORDER BY number LIMIT ?3";
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut statement = db.prepare_cached(SQL)?;
    let mut rows = statement.query(params![upload, after, limit])?;
    let mut parts = Vec::new();
    while let Some(row) = rows.next()? {
        let checksum: String = row.get(5)?;
        let json: Option<String> = row.get(6)?;
        let info = PartInfo {
            number: row.get(0)?,
            etag: ETag(row.get(2)?),
            size: row.get(3)?,
            last_modified: UnixMs(row.get(4)?),
            checksum: parse_checksum(&checksum).ok_or_else(|| damaged(upload))?,
            checksums: Stored::from_json(json.as_deref()).map_err(|_| damaged(upload))?.sums,
        };
        parts.push(PartRow { info, file: row.get(1)? });
    }
    Ok(parts)
}

/// Forgets an upload and its parts; whether it was there.
pub(super) fn delete(db: &Connection, bucket: i64, key: &str, id: &str) -> Result<bool, Fault> {
    const SQL: &str = "DELETE FROM uploads WHERE bucket = ?1 AND key = ?2 AND id = ?3";
    let gone = db.prepare_cached(SQL)?.execute(params![bucket, key, id])? > 0;
    if gone {
        db.prepare_cached("DELETE FROM parts WHERE upload = ?1")?.execute([id])?;
    }
    Ok(gone)
}

/// Remembers what came of an upload, and forgets the oldest beyond the limit.
pub(super) fn remember(db: &Connection, bucket: i64, upload: &str, row: &Row) -> Result<(), Fault> {
    const SQL: &str = "INSERT INTO completed \
                       (bucket, key, upload, sequencer, etag, size, last_modified, checksum, attributes) \
                       VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
    db.prepare_cached(SQL)?.execute(params![
        bucket,
        row.key.as_str(),
        upload,
        row.sequencer.map(|sequencer| sequencer.to_string()),
        row.etag.as_str(),
        row.size,
        row.last_modified.0,
        row.checksum.map(checksum_text),
        row.stored.to_json(),
    ])?;
    let oldest = db.last_insert_rowid() - COMPLETED_MAX;
    db.prepare_cached("DELETE FROM completed WHERE number <= ?1")?.execute([oldest])?;
    Ok(())
}

/// What came of an upload that was completed after `since`.
pub(super) fn completed(
    db: &Connection,
    bucket: i64,
    key: &ObjectKey,
    upload: &str,
    since: UnixMs,
) -> Result<Option<ObjectInfo>, Fault> {
    const SQL: &str = "SELECT key, NULL, sequencer, NULL, etag, size, last_modified, checksum, attributes FROM completed \
                       WHERE upload = ?1 AND bucket = ?2 AND key = ?3 AND last_modified >= ?4";
    let mut statement = db.prepare_cached(SQL)?;
    let mut rows = statement.query(params![upload, bucket, key.as_str(), since.0])?;
    Ok(rows.next()?.map(read_row).transpose()?.map(|row| row.info()))
}

fn damaged(object: &str) -> Fault {
    let kind = ErrorKind::Damaged("a value in state.sqlite is none that this program writes".to_owned());
    Fault::Port(PortError::new("read upload", object, kind))
}
