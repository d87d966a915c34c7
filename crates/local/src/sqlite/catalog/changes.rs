//! Writes of rows and tombstones, each a conditional statement, with the totals in the same transaction.
//!
//! Laws: V3 (an upsert never revives, never lowers an order), V4 (a change names the rev that was read). A crash before the
//! commit leaves rows and totals as they were; after it both are changed.

use super::rows::{bytes_column, fill_in, insert_new, insert_or_replace, row, tombstone};
use crate::sqlite::error_map::Fault;
use engine::ports::catalog::{Changed, RowChange, RowId, RowSet};
use lifecycle::ids::{ObjectKey, Rev};
use lifecycle::row::{CopyRow, Tombstone};
use lifecycle::time::UnixMs;
use rusqlite::{Connection, OptionalExtension, ToSql, params};

/// What one job adds to the totals.
#[derive(Default)]
struct Delta {
    live_keys: i64,
    active: i64,
    disowned: i64,
    bytes: i64,
}

impl Delta {
    /// A row came (`by` = 1) or went (`by` = −1).
    fn row(&mut self, active: bool, size: i64, by: i64) {
        *(if active { &mut self.active } else { &mut self.disowned }) += by;
        self.bytes += by * size;
    }

    fn write(&self, tx: &Connection) -> Result<(), Fault> {
        let Delta { live_keys, active, disowned, bytes } = self;
        if (live_keys, active, disowned, bytes) != (&0, &0, &0, &0) {
            let sql = "UPDATE totals SET live_keys = live_keys + ?1, active = active + ?2, \
                disowned = disowned + ?3, bytes = bytes + ?4";
            tx.prepare_cached(sql)?.execute([live_keys, active, disowned, bytes])?;
        }
        Ok(())
    }
}

/// Whether the key has an active row.
fn is_live(tx: &Connection, original: &ObjectKey) -> Result<bool, Fault> {
    let sql = "SELECT EXISTS (SELECT 1 FROM copies WHERE original_key = ?1 AND status <> 'disowned')";
    Ok(tx.prepare_cached(sql)?.query_row([original.as_str()], |row| row.get(0))?)
}

/// Whether the key has an active row besides this one.
fn is_live_without(tx: &Connection, original: &ObjectKey, row: &CopyRow) -> Result<bool, Fault> {
    let sql = "SELECT EXISTS (SELECT 1 FROM copies \
        WHERE original_key = ?1 AND copy_key <> ?2 AND status <> 'disowned')";
    let keys = [original.as_str(), row.copy_key.as_str()];
    Ok(tx.prepare_cached(sql)?.query_row(keys, |row| row.get(0))?)
}

/// Puts the row if it is new; else sets only attributes that it lacks.
pub(super) fn upsert(tx: &Connection, original: &ObjectKey, row: &CopyRow, rev: &Rev) -> Result<(), Fault> {
    if !insert_new(tx, original, row, rev)? {
        return fill_in(tx, original, row, rev);
    }
    let mut delta = Delta::default();
    delta.row(row.is_active(), bytes_column(row.size), 1);
    if row.is_active() && !is_live_without(tx, original, row)? {
        delta.live_keys = 1;
    }
    delta.write(tx)
}

/// Puts or replaces the row of a mirrored object.
pub(super) fn record_mirrored(tx: &Connection, original: &ObjectKey, new: &CopyRow, rev: &Rev) -> Result<(), Fault> {
    let id = RowId { original: original.clone(), copy_key: new.copy_key.clone() };
    let mut delta = Delta::default();
    let live_before = is_live(tx, original)?;
    if let Some(old) = row(tx, &id)? {
        delta.row(old.is_active(), bytes_column(old.size), -1);
    }
    insert_or_replace(tx, original, new, rev)?;
    delta.row(new.is_active(), bytes_column(new.size), 1);
    delta.live_keys = i64::from(is_live(tx, original)?) - i64::from(live_before);
    delta.write(tx)
}

/// Carries out conditional changes, one result each; `rev` gives each its new rev.
pub(super) fn change(tx: &Connection, changes: &[RowChange], rev: impl Fn() -> Rev) -> Result<Vec<Changed>, Fault> {
    let mut delta = Delta::default();
    let outcomes = changes.iter().map(|change| change_one(tx, change, rev(), &mut delta)).collect();
    delta.write(tx)?;
    outcomes
}

fn change_one(tx: &Connection, change: &RowChange, rev: Rev, delta: &mut Delta) -> Result<Changed, Fault> {
    let (original, copy_key) = (change.id.original.as_str(), change.id.copy_key.as_str());
    let if_rev = change.if_rev.as_str();
    // Runs one conditional statement on the active row; its size if the condition held.
    let on_active = |set: &str, values: &[&dyn ToSql]| {
        let sql = format!(
            "UPDATE copies SET rev = ?4, {set} WHERE original_key = ?1 AND copy_key = ?2 AND rev = ?3 \
             AND status <> 'disowned' RETURNING size"
        );
        let condition: [&dyn ToSql; 4] = [&original, &copy_key, &if_rev, &rev.0];
        let all = condition.iter().chain(values).copied().collect::<Vec<_>>();
        tx.prepare_cached(&sql)?.query_row(all.as_slice(), |row| row.get::<_, i64>(0)).optional()
    };
    let met = match &change.set {
        RowSet::Disowned { at, reason, removed_at } => {
            let set = "status = 'disowned', disowned_at = ?5, reason = ?6, removed_at = coalesce(?7, removed_at)";
            let size = on_active(set, &[&at.0, &reason.code(), &removed_at.map(|at| at.0)])?;
            if let Some(size) = size {
                delta.row(true, size, -1);
                delta.row(false, size, 1);
                delta.live_keys -= i64::from(!is_live(tx, &change.id.original)?);
            }
            size.is_some()
        }
        RowSet::Raised { order } => on_active("\"order\" = ?5, floating = 1", &[&order.to_string()])?.is_some(),
        RowSet::Due { at } => {
            let status = if at.is_some() { "surplus" } else { "active" };
            on_active("status = ?5, disowned_at = ?6", &[&status, &at.map(|at| at.0)])?.is_some()
        }
        RowSet::Deleted => return delete(tx, change, delta),
    };
    Ok(if met { Changed::Applied(rev) } else { Changed::Refused })
}

fn delete(tx: &Connection, change: &RowChange, delta: &mut Delta) -> Result<Changed, Fault> {
    let sql = "DELETE FROM copies WHERE original_key = ?1 AND copy_key = ?2 AND rev = ?3 \
        RETURNING status <> 'disowned', size";
    let keys = [change.id.original.as_str(), change.id.copy_key.as_str(), change.if_rev.as_str()];
    let gone = tx.prepare_cached(sql)?.query_row(keys, |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    let Some((active, size)): Option<(bool, i64)> = gone else { return Ok(Changed::Refused) };
    delta.row(active, size, -1);
    if active {
        delta.live_keys -= i64::from(!is_live(tx, &change.id.original)?);
    }
    Ok(Changed::Applied(change.if_rev.clone()))
}

/// Puts the tombstone unless one of the same or a greater order (of the same basis) is there.
pub(super) fn bury(tx: &Connection, key: &ObjectKey, new: &Tombstone) -> Result<bool, Fault> {
    // Orders compare in the rules, not in SQL; nobody else writes between this read and the write.
    let Some(new) = new.replaces(tombstone(tx, key)?.as_ref()) else { return Ok(false) };
    let sql = "INSERT INTO tombstones (original_key, \"order\", removed_at, noted_at, floating) \
        VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO UPDATE SET \"order\" = excluded.\"order\", \
        removed_at = excluded.removed_at, noted_at = excluded.noted_at, floating = excluded.floating";
    let values = params![key.as_str(), new.order.to_string(), new.time.0, new.noted_at.0, new.floating];
    tx.prepare_cached(sql)?.execute(values)?;
    Ok(true)
}

/// Forgets the oldest tombstones noted before then.
pub(super) fn forget_tombstones(tx: &Connection, noted_before: UnixMs, limit: usize) -> Result<u64, Fault> {
    let sql = "DELETE FROM tombstones WHERE original_key IN \
        (SELECT original_key FROM tombstones WHERE noted_at < ?1 ORDER BY noted_at LIMIT ?2)";
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let forgotten = tx.prepare_cached(sql)?.execute([noted_before.0, limit])?;
    Ok(forgotten as u64)
}
