//! What is due, by time, and the keys in order: ranges of an index, in work proportional to what they return (I9).

use super::rows::{copy_key_of, object_key_of, unreadable};
use crate::limits::INDEX_PAGE_MAX;
use crate::sqlite::error_map::Fault;
use engine::ports::catalog::{IndexEntry, IndexQuery, Indexed};
use engine::ports::objects::Page;
use lifecycle::ids::ObjectKey;
use lifecycle::time::UnixMs;
use rusqlite::{Connection, params};

const COPIES: &str = "SELECT disowned_at, original_key, copy_key FROM copies \
    WHERE status = ?1 AND disowned_at <= ?2 AND (disowned_at, original_key, copy_key) > (?3, ?4, ?5) \
    ORDER BY disowned_at, original_key, copy_key LIMIT ?6";
const TOMBSTONES: &str = "SELECT noted_at, original_key FROM tombstones \
    WHERE noted_at <= ?1 AND (noted_at, original_key) > (?2, ?3) ORDER BY noted_at, original_key LIMIT ?4";

/// The statements whose plans a test looks at.
#[cfg(test)]
pub(super) const STATEMENTS: [&str; 2] = [COPIES, TOMBSTONES];

/// Entries of the index in order of time.
pub(super) fn page(tx: &Connection, query: &IndexQuery) -> Result<Page<IndexEntry, IndexEntry>, Fault> {
    let limit = query.limit.min(INDEX_PAGE_MAX);
    let one_more = i64::try_from(limit + 1).unwrap_or(i64::MAX);
    // Keys are never empty: (from, "", "") stands before every entry of that time.
    let start = query.after.as_ref().filter(|after| after.at >= query.from);
    let (at, original, copy_key) = match start {
        Some(after) => {
            (after.at.0, after.original.as_str(), after.copy_key.as_ref().map_or("", |copy_key| copy_key.as_str()))
        }
        None => (query.from.0, "", ""),
    };
    let mut items = Vec::new();
    let status = match query.what {
        Indexed::Disowned => "disowned",
        Indexed::Surplus => "surplus",
        Indexed::Removed => {
            let mut statement = tx.prepare_cached(TOMBSTONES)?;
            let mut rows = statement.query(params![query.until.0, at, original, one_more])?;
            while let Some(row) = rows.next()? {
                items.push(IndexEntry {
                    at: UnixMs(row.get(0)?),
                    original: object_key_of(row.get(1)?)?,
                    copy_key: None,
                });
            }
            return Ok(cut(items, limit));
        }
    };
    let mut statement = tx.prepare_cached(COPIES)?;
    let mut rows = statement.query(params![status, query.until.0, at, original, copy_key, one_more])?;
    while let Some(row) = rows.next()? {
        let copy_key: String = row.get(2)?;
        let copy_key = copy_key_of(copy_key.clone()).ok_or_else(|| unreadable(copy_key, "copy_key"))?;
        let original = object_key_of(row.get(1)?)?;
        items.push(IndexEntry { at: UnixMs(row.get(0)?), original, copy_key: Some(copy_key) });
    }
    Ok(cut(items, limit))
}

/// Keys with at least one row, under `prefix`, in key order, after `after`.
pub(super) fn keys(
    tx: &Connection,
    prefix: &str,
    after: Option<&ObjectKey>,
    limit: usize,
) -> Result<Page<ObjectKey>, Fault> {
    let limit = limit.min(INDEX_PAGE_MAX);
    let after = after.map_or("", ObjectKey::as_str);
    // The keys under a prefix stand together, and the first key after them ends the reading.
    let sql = "SELECT DISTINCT original_key FROM copies WHERE original_key >= ?1 AND original_key > ?2 \
        ORDER BY original_key";
    let mut statement = tx.prepare_cached(sql)?;
    let mut rows = statement.query([prefix, after])?;
    let mut items = Vec::new();
    while items.len() <= limit
        && let Some(row) = rows.next()?
    {
        let key = object_key_of(row.get(0)?)?;
        if !key.as_str().starts_with(prefix) {
            break;
        }
        items.push(key);
    }
    Ok(cut(items, limit))
}

fn cut<T: Clone>(mut items: Vec<T>, limit: usize) -> Page<T, T> {
    let more = items.len() > limit;
    items.truncate(limit);
    Page { next: items.last().filter(|_| more).cloned(), items }
}
