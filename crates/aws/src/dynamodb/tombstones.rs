//! Tombstones: the newest removal known of each key, put on the condition that nobody else put one meanwhile.
//!
//! Orders compare in the rules, not in the service: a tombstone is read, compared, and written if the one that was read is
//! still there; else again, within a limit. The service deletes them by itself (`expires_at`), late; the cleaner before that.

use super::DynamoDbCatalog;
use super::expression::Expression;
use super::item::{keys, number, tombstone_item};
use super::layout::{COPY_KEY, DISOWNED_AT, ORIGINAL_KEY, REV, TOMBSTONE};
use super::rows::Put;
use super::statements::{Ended, NoStatements, Statement};
use crate::limits::{BATCH_STATEMENTS_MAX, BURY_ROUNDS};
use engine::error::{ErrorKind, PortResult};
use engine::ports::catalog::{IndexEntry, IndexQuery, Indexed};
use lifecycle::ids::ObjectKey;
use lifecycle::row::Tombstone;
use lifecycle::time::UnixMs;
use std::sync::atomic::Ordering;

impl DynamoDbCatalog {
    /// Puts the tombstone, or what remains of it and the one that is there; whether anything was written.
    pub(super) async fn put_tombstone(&self, key: &ObjectKey, tombstone: &Tombstone) -> PortResult<bool> {
        let call = self.call("put tombstone", "dynamodb:PutItem", key);
        for _ in 0..BURY_ROUNDS {
            let there = self.read_tombstone(key).await?;
            let Some(new) = tombstone.replaces(there.as_ref().map(|(there, _)| there)) else { return Ok(false) };
            let mut unchanged = Expression::default();
            match &there {
                Some((_, rev)) => {
                    let (name, rev) = (unchanged.name(REV), unchanged.value(super::item::text(rev.as_str())));
                    unchanged.only_if(format!("{name} = {rev}"));
                }
                None => {
                    let name = unchanged.name(COPY_KEY);
                    unchanged.only_if(format!("attribute_not_exists({name})"));
                }
            }
            let rev = self.rev();
            match self.put_item(&call, tombstone_item(&self.layout, key, &new, &rev), unchanged).await? {
                Put::Done => return Ok(true),
                // The answer to an earlier try of this very write was lost.
                Put::Refused(Some(item)) if item.get(REV) == Some(&super::item::text(rev.as_str())) => return Ok(true),
                Put::Refused(_) => {}
            }
        }
        Err(call.failed(ErrorKind::Unavailable))
    }

    /// Deletes the oldest tombstones noted before then; how many.
    pub(super) async fn delete_tombstones(&self, noted_before: UnixMs, limit: usize) -> PortResult<u64> {
        let (mut deleted, mut after) = (0, None);
        loop {
            let limit = limit - usize::try_from(deleted).unwrap_or(usize::MAX).min(limit);
            if limit == 0 {
                return Ok(deleted);
            }
            let until = UnixMs(noted_before.0.saturating_sub(1));
            let query = IndexQuery { what: Indexed::Removed, from: UnixMs(i64::MIN), until, after, limit };
            let page = self.index_page(&query).await?;
            for batch in page.items.chunks(BATCH_STATEMENTS_MAX) {
                deleted += self.delete_batch(batch, noted_before).await?;
            }
            // The index may name some that are gone: the next page makes up for them.
            after = page.next;
            if after.is_none() {
                return Ok(deleted);
            }
        }
    }

    async fn delete_batch(&self, batch: &[IndexEntry], noted_before: UnixMs) -> PortResult<u64> {
        let first = batch.first().map(|entry| entry.original.to_string()).unwrap_or_default();
        if batch.len() > 1 && self.takes_statements.load(Ordering::Relaxed) {
            let call = self.call("forget tombstones", "dynamodb:PartiQLDelete", format!("{first} and others"));
            let text = format!(
                "DELETE FROM \"{}\" WHERE \"{ORIGINAL_KEY}\" = ? AND \"{COPY_KEY}\" = ? AND \"{DISOWNED_AT}\" < ? \
                 RETURNING ALL OLD *",
                self.table
            );
            let statement = |entry: &IndexEntry| Statement {
                text: text.clone(),
                parameters: vec![
                    super::item::text(self.layout.partition(&entry.original)),
                    super::item::text(TOMBSTONE),
                    number(noted_before.0),
                ],
            };
            let statements: Vec<Statement> = batch.iter().map(statement).collect();
            match self.run_statements(&call, &statements).await {
                Ok(ended) => return count_done(ended),
                Err(NoStatements) => self.takes_statements.store(false, Ordering::Relaxed),
            }
        }
        let mut deleted = 0;
        for entry in batch {
            let call = self.call("forget tombstone", "dynamodb:DeleteItem", &entry.original);
            let mut old = Expression::default();
            let (noted_at, before) = (old.name(DISOWNED_AT), old.value(number(noted_before.0)));
            old.only_if(format!("{noted_at} < {before}"));
            let key = keys(self.layout.partition(&entry.original), TOMBSTONE);
            deleted += u64::from(self.delete_item(&call, key, old).await?);
        }
        Ok(deleted)
    }
}

/// How many are gone by these statements. A newer one that came meanwhile stays.
fn count_done(ended: Vec<PortResult<Ended>>) -> PortResult<u64> {
    let mut done = 0;
    for ended in ended {
        done += u64::from(matches!(ended?, Ended::Done { returned: Some(_), .. }));
    }
    Ok(done)
}
