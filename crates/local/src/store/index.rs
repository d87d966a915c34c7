//! The object index in `state.sqlite`: statements over one connection, inside whatever transaction the caller has open.
//!
//! Place: every read and write of the store. A source's index is the truth about what is current; a destination's can be
//! made again from its files. HEAD is one look-up, a listing page costs O(page) (I9).

use super::limits::LIST_STEP;
use super::meta::{Stored, checksum_text, parse_checksum};
use super::path::{Sequencer, path_of};
use super::types::{ListEntry, ListFrom, ListPage, ListRequest, ObjectInfo};
use crate::sqlite::error_map::Fault;
use engine::error::{ErrorKind, PortError};
use engine::ports::objects::{Head, Reach};
use lifecycle::event::Version;
use lifecycle::ids::{Checksum, ETag, ObjectKey, VersionId};
use lifecycle::time::UnixMs;
use rusqlite::{Connection, OptionalExtension, Row as SqlRow, params};

/// One version of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// Its key.
    pub(super) key: ObjectKey,
    /// Its data file below the root, where it is not the plain path of the key.
    pub(super) path: Option<String>,
    /// In a source: its position, which is also its version id.
    pub(super) sequencer: Option<Sequencer>,
    /// The event that tells of it.
    pub(super) event: Option<i64>,
    /// The entity tag.
    pub(super) etag: ETag,
    /// Bytes.
    pub(super) size: u64,
    /// When it was written.
    pub(super) last_modified: UnixMs,
    /// The checksum; `None` for a file put there by hand and not read yet.
    pub(super) checksum: Option<Checksum>,
    /// The rest.
    pub(super) stored: Stored,
}

impl Row {
    /// Its data file below the root.
    pub(super) fn data_path(&self) -> String {
        self.path.clone().unwrap_or_else(|| path_of(&self.key, self.sequencer).join("/"))
    }

    /// Remembers where the data file is, shortly.
    pub(super) fn set_data_path(&mut self, path: String) {
        self.path = Some(path).filter(|path| *path != path_of(&self.key, self.sequencer).join("/"));
    }

    /// What is told of it.
    pub(super) fn info(&self) -> ObjectInfo {
        let version_id = self.sequencer.map(|sequencer| VersionId(sequencer.to_string()));
        ObjectInfo {
            key: self.key.clone(),
            version: Version { version_id, etag: self.etag.clone(), size: self.size },
            last_modified: self.last_modified,
            checksum: self.checksum,
            checksums: self.stored.sums.clone(),
            attributes: self.stored.attributes.clone(),
            parts: self.stored.parts,
        }
    }

    /// What the engine's ports tell of it; the row is needed no more.
    pub(super) fn into_head(self) -> Head {
        let version_id = self.sequencer.map(|sequencer| VersionId(sequencer.to_string()));
        Head {
            version: Version { version_id, etag: self.etag, size: self.size },
            last_modified: self.last_modified,
            checksum: self.checksum,
            storage_class: None,
            reach: Reach::Readable,
            metadata: self.stored.attributes.metadata,
        }
    }
}

/// The columns of `objects` and `superseded` in the order that [`read_row`] expects.
macro_rules! columns {
    () => {
        "key, path, sequencer, event, etag, size, last_modified, checksum, attributes"
    };
}

/// The current version of a key.
pub(super) fn find(db: &Connection, bucket: i64, key: &ObjectKey) -> Result<Option<Row>, Fault> {
    const SQL: &str = concat!("SELECT ", columns!(), " FROM objects WHERE bucket = ?1 AND key = ?2");
    let mut statement = db.prepare_cached(SQL)?;
    let mut rows = statement.query(params![bucket, key.as_str()])?;
    rows.next()?.map(read_row).transpose()
}

/// One version of a key, current or superseded but kept.
pub(super) fn find_version(
    db: &Connection,
    bucket: i64,
    key: &ObjectKey,
    version: &VersionId,
) -> Result<Option<Row>, Fault> {
    let Some(sequencer) = Sequencer::parse(version.as_str()) else { return Ok(None) };
    if let Some(row) = find(db, bucket, key)?
        && row.sequencer == Some(sequencer)
    {
        return Ok(Some(row));
    }
    const SQL: &str =
        concat!("SELECT ", columns!(), " FROM superseded WHERE bucket = ?1 AND key = ?2 AND sequencer = ?3");
    let mut statement = db.prepare_cached(SQL)?;
    let mut rows = statement.query(params![bucket, key.as_str(), sequencer.to_string()])?;
    rows.next()?.map(read_row).transpose()
}

/// Makes a version the current one of its key.
pub(super) fn put(db: &Connection, bucket: i64, row: &Row) -> Result<(), Fault> {
    write(
        db,
        concat!("INSERT OR REPLACE INTO objects (bucket, ", columns!(), ") VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10)"),
        bucket,
        row,
    )
}

/// Keeps a version that is current no more.
pub(super) fn put_superseded(db: &Connection, bucket: i64, row: &Row) -> Result<(), Fault> {
    write(
        db,
        concat!("INSERT OR REPLACE INTO superseded (bucket, ", columns!(), ") VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10)"),
        bucket,
        row,
    )
}

fn write(db: &Connection, sql: &str, bucket: i64, row: &Row) -> Result<(), Fault> {
    db.prepare_cached(sql)?.execute(params![
        bucket,
        row.key.as_str(),
        row.path,
        row.sequencer.map(|sequencer| sequencer.to_string()),
        row.event,
        row.etag.as_str(),
        row.size,
        row.last_modified.0,
        row.checksum.map(checksum_text),
        row.stored.to_json(),
    ])?;
    Ok(())
}

/// Takes the current version of a key out; whether there was one.
pub(super) fn delete(db: &Connection, bucket: i64, key: &ObjectKey) -> Result<bool, Fault> {
    let mut statement = db.prepare_cached("DELETE FROM objects WHERE bucket = ?1 AND key = ?2")?;
    Ok(statement.execute(params![bucket, key.as_str()])? > 0)
}

/// Forgets a superseded version.
pub(super) fn delete_superseded(db: &Connection, bucket: i64, key: &str, sequencer: Sequencer) -> Result<(), Fault> {
    let mut statement =
        db.prepare_cached("DELETE FROM superseded WHERE bucket = ?1 AND key = ?2 AND sequencer = ?3")?;
    statement.execute(params![bucket, key, sequencer.to_string()])?;
    Ok(())
}

/// Remembers that sequencers up to this one were given.
pub(super) fn note_sequencer(db: &Connection, sequencer: Sequencer) -> Result<(), Fault> {
    const SQL: &str = "INSERT INTO meta (name, value) VALUES ('sequencer', ?1) \
                       ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value)";
    db.prepare_cached(SQL)?.execute([sequencer.to_string()])?;
    Ok(())
}

/// The greatest sequencer given so far.
pub(super) fn last_sequencer(db: &Connection) -> Result<Sequencer, Fault> {
    let mut statement = db.prepare_cached("SELECT value FROM meta WHERE name = 'sequencer'")?;
    let text: Option<String> = statement.query_row([], |row| row.get(0)).optional()?;
    match text {
        None => Ok(Sequencer(0)),
        Some(text) => Sequencer::parse(&text).ok_or_else(|| damaged("sequencer", &text)),
    }
}

/// Whether a bucket has objects.
pub(super) fn has_objects(db: &Connection, bucket: i64) -> Result<bool, Fault> {
    Ok(db.prepare_cached("SELECT 1 FROM objects WHERE bucket = ?1 LIMIT 1")?.exists([bucket])?)
}

/// Whether clients have deleted a bucket. Asked inside each transaction that writes to it.
pub(super) fn is_deleted(db: &Connection, bucket: i64) -> Result<bool, Fault> {
    Ok(db.prepare_cached("SELECT deleted FROM buckets WHERE id = ?1")?.query_row([bucket], |row| row.get(0))?)
}

/// Notes that clients have deleted a bucket, or made it again.
pub(super) fn set_deleted(db: &Connection, bucket: i64, deleted: bool) -> Result<(), Fault> {
    db.prepare_cached("UPDATE buckets SET deleted = ?2 WHERE id = ?1 AND deleted <> ?2")?
        .execute(params![bucket, deleted])?;
    Ok(())
}

/// Up to `limit` rows after a key, in key order.
pub(super) fn page(db: &Connection, bucket: i64, after: Option<&str>, limit: usize) -> Result<Vec<Row>, Fault> {
    rows_between(db, bucket, &Bound::After(after.unwrap_or_default().to_owned()), None, limit)
}

enum Bound {
    /// From this name on.
    From(String),
    /// After this name.
    After(String),
}

fn rows_between(
    db: &Connection,
    bucket: i64,
    from: &Bound,
    below: Option<&str>,
    limit: usize,
) -> Result<Vec<Row>, Fault> {
    const FROM: &str =
        concat!("SELECT ", columns!(), " FROM objects WHERE bucket = ?1 AND key >= ?2 ORDER BY key LIMIT ?3");
    const AFTER: &str =
        concat!("SELECT ", columns!(), " FROM objects WHERE bucket = ?1 AND key > ?2 ORDER BY key LIMIT ?3");
    const FROM_BELOW: &str = concat!(
        "SELECT ",
        columns!(),
        " FROM objects WHERE bucket = ?1 AND key >= ?2 AND key < ?4 ORDER BY key LIMIT ?3"
    );
    const AFTER_BELOW: &str = concat!(
        "SELECT ",
        columns!(),
        " FROM objects WHERE bucket = ?1 AND key > ?2 AND key < ?4 ORDER BY key LIMIT ?3"
    );
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let (sql, bound, name) = match (from, below) {
        (Bound::From(name), None) => (FROM, None, name),
        (Bound::After(name), None) => (AFTER, None, name),
        (Bound::From(name), Some(below)) => (FROM_BELOW, Some(below), name),
        (Bound::After(name), Some(below)) => (AFTER_BELOW, Some(below), name),
    };
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = match bound {
        None => statement.query(params![bucket, name, limit])?,
        Some(below) => statement.query(params![bucket, name, limit, below])?,
    };
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(read_row(row)?);
    }
    Ok(found)
}

/// The first text that is greater than every text with this prefix; `None` when there is none.
fn after_prefix(prefix: &str) -> Option<String> {
    let mut text = prefix.to_owned();
    while let Some(last) = text.pop() {
        let next = match last {
            '\u{D7FF}' => Some('\u{E000}'),
            last => char::from_u32(u32::from(last) + 1),
        };
        if let Some(next) = next {
            text.push(next);
            return Some(text);
        }
    }
    None
}

/// One page of a listing. However many keys a common prefix has, it costs one seek.
pub(super) fn list(db: &Connection, bucket: i64, request: &ListRequest) -> Result<ListPage, Fault> {
    let ListRequest { prefix, delimiter, from, limit } = request;
    let delimiter = delimiter.as_deref().filter(|delimiter| !delimiter.is_empty());
    let below = after_prefix(prefix);
    let mut page = ListPage::default();
    let Some(mut bound) = first_bound(prefix, delimiter, from) else { return Ok(page) };
    let mut step = if delimiter.is_none() { limit + 1 } else { LIST_STEP };
    loop {
        let rows = rows_between(db, bucket, &bound, below.as_deref(), step)?;
        let all = rows.len() < step;
        let mut passed = None;
        let mut last = None;
        for row in rows {
            let name = row.key.as_str();
            let common = delimiter.and_then(|delimiter| common_prefix(name, prefix, delimiter));
            if page.entries.len() == *limit {
                page.truncated = true;
                return Ok(page);
            }
            last = Some(name.to_owned());
            match common {
                None => page.entries.push(ListEntry::Object(Box::new(row.info()))),
                Some(common) => {
                    page.entries.push(ListEntry::Prefix(common.to_owned()));
                    passed = Some(after_prefix(common));
                    break;
                }
            }
        }
        match (passed, last) {
            (Some(Some(next)), _) => (bound, step) = (Bound::From(next), LIST_STEP),
            (Some(None), _) | (None, None) => return Ok(page),
            (None, Some(_)) if all => return Ok(page),
            (None, Some(last)) => (bound, step) = (Bound::After(last), (step * 2).min(limit + 1)),
        }
    }
}

/// Where the first seek goes; `None` when nothing can come after.
fn first_bound(prefix: &str, delimiter: Option<&str>, from: &ListFrom) -> Option<Bound> {
    match from {
        ListFrom::After(name) if name.as_str() >= prefix => {
            match delimiter.and_then(|delimiter| common_prefix(name, prefix, delimiter)) {
                // A common prefix that was given already: all of its keys are passed over.
                Some(common) if common == name => after_prefix(common).map(Bound::From),
                _ => Some(Bound::After(name.clone())),
            }
        }
        _ => Some(Bound::From(prefix.to_owned())),
    }
}

fn common_prefix<'a>(name: &'a str, prefix: &str, delimiter: &str) -> Option<&'a str> {
    let rest = name.strip_prefix(prefix)?;
    let at = rest.find(delimiter)?;
    Some(&name[..prefix.len() + at + delimiter.len()])
}

/// Reads a row whose columns are those of `columns!`.
pub(super) fn read_row(row: &SqlRow<'_>) -> Result<Row, Fault> {
    let key: String = row.get(0)?;
    let sequencer: Option<String> = row.get(2)?;
    let checksum: Option<String> = row.get(7)?;
    let json: Option<String> = row.get(8)?;
    let stored = Stored::from_json(json.as_deref()).map_err(|_| damaged(&key, "attributes"))?;
    Ok(Row {
        path: row.get(1)?,
        sequencer: read_text(&key, sequencer, Sequencer::parse)?,
        event: row.get(3)?,
        etag: ETag(row.get(4)?),
        size: row.get(5)?,
        last_modified: UnixMs(row.get(6)?),
        checksum: read_text(&key, checksum, parse_checksum)?,
        stored,
        key: ObjectKey::new(key).map_err(|bad| damaged("key", &bad.to_string()))?,
    })
}

fn read_text<T>(key: &str, text: Option<String>, parse: impl Fn(&str) -> Option<T>) -> Result<Option<T>, Fault> {
    text.map(|text| parse(&text).ok_or_else(|| damaged(key, &text))).transpose()
}

fn damaged(object: &str, what: &str) -> Fault {
    let kind = ErrorKind::Damaged(format!("`{what}` in state.sqlite is none that this program writes"));
    Fault::Port(PortError::new("read object row", object, kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_after_a_prefix_is_the_least_greater_one() {
        assert_eq!(after_prefix("ab"), Some("ac".to_owned()));
        assert_eq!(after_prefix(""), None);
        assert_eq!(after_prefix("a\u{10FFFF}"), Some("b".to_owned()));
        assert_eq!(after_prefix("\u{D7FF}"), Some("\u{E000}".to_owned()));
        assert_eq!(after_prefix("\u{10FFFF}"), None);
    }
}
