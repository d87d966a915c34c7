//! Conditional changes of rows, one or a thousand (V4): each names the rev that was read, and gives a new one.
//!
//! A change that comes alone is a call of its own; those that come together, from one caller or from many keys at once, go 25
//! to a call, several calls at a time. A change whose answer was lost is recognised by
//! its own rev where it is tried again. A crash between two calls leaves each row as it was or as it was to be.

use super::expression::Expression;
use super::item::{Item, keys, number, text};
use super::layout::{COPY_KEY, DISOWNED_AT, FLOATING, ORDER, ORIGINAL_KEY, REASON, REMOVED_AT, REV, STATUS, Word};
use super::rows::Put;
use super::statements::{Ended, NoStatements, Statement};
use super::{DynamoDbCatalog, is_refused};
use crate::error_map::Call;
use crate::limits::{BATCH_STATEMENTS_MAX, BATCHES_IN_FLIGHT};
use aws_sdk_dynamodb::types::{AttributeValue, ReturnConsumedCapacity};
use engine::error::{ErrorKind, PortError, PortResult};
use engine::ports::catalog::{Changed, RowChange, RowId, RowSet};
use futures_util::{StreamExt, stream};
use lifecycle::ids::Rev;
use std::collections::HashMap;
use std::sync::atomic::Ordering;

/// What a change writes.
struct Write {
    sets: Vec<(&'static str, AttributeValue)>,
    removes: Vec<&'static str>,
}

impl DynamoDbCatalog {
    /// Conditional changes, one result each, in the order asked. A single one shares its call with others that come at the
    /// same time.
    pub(super) async fn change_rows(&self, changes: &[RowChange]) -> Vec<PortResult<Changed>> {
        let takes_statements = self.takes_statements.load(Ordering::Relaxed);
        let [alone] = changes else { return self.change_all(changes).await };
        if !takes_statements {
            return self.change_all(changes).await;
        }
        let share = |changes: Vec<RowChange>| async move { self.change_all(&changes).await };
        let changed = self.changes.share(Some(alone.id.clone()), alone.clone(), share).await;
        vec![changed.unwrap_or_else(|| {
            let id = format!("{} / {}", alone.id.original, alone.id.copy_key);
            Err(self.call("change catalog row", "dynamodb:UpdateItem", id).failed(ErrorKind::Unavailable))
        })]
    }

    async fn change_all(&self, changes: &[RowChange]) -> Vec<PortResult<Changed>> {
        let mut outcomes: Vec<Option<PortResult<Changed>>> = changes.iter().map(|_| None).collect();
        for mut turn in turns(changes) {
            // Where the catalog keeps something else there is no row.
            turn.retain(|n| {
                let id = &changes[*n].id;
                let is_row = !self.layout.is_reserved(&id.original, &id.copy_key);
                if !is_row {
                    outcomes[*n] = Some(Ok(Changed::Refused));
                }
                is_row
            });
            let batches = turn.chunks(BATCH_STATEMENTS_MAX).map(<[usize]>::to_vec).collect::<Vec<_>>();
            let mut done = stream::iter(batches.into_iter().map(|batch| self.change_batch(changes, batch)))
                .buffer_unordered(BATCHES_IN_FLIGHT);
            while let Some(batch) = done.next().await {
                batch.into_iter().for_each(|(n, outcome)| outcomes[n] = Some(outcome));
            }
        }
        outcomes.into_iter().map(|outcome| outcome.expect("every change has its turn")).collect()
    }

    async fn change_batch(&self, changes: &[RowChange], batch: Vec<usize>) -> Vec<(usize, PortResult<Changed>)> {
        if batch.len() > 1 && self.takes_statements.load(Ordering::Relaxed) {
            match self.change_by_statements(changes, &batch).await {
                Ok(outcomes) => return batch.into_iter().zip(outcomes).collect(),
                Err(NoStatements) => self.takes_statements.store(false, Ordering::Relaxed),
            }
        }
        let mut outcomes = Vec::with_capacity(batch.len());
        for n in batch {
            outcomes.push((n, self.change_one(&changes[n]).await));
        }
        outcomes
    }

    /// One change, with the calls made for one.
    async fn change_one(&self, change: &RowChange) -> PortResult<Changed> {
        let id = format!("{} / {}", change.id.original, change.id.copy_key);
        let rev = self.rev();
        let Some(write) = self.write_of(change, &rev) else {
            return self.delete_row(&self.call("delete catalog row", "dynamodb:DeleteItem", id), change).await;
        };
        let mut update = Expression::default();
        write.sets.into_iter().for_each(|(attribute, value)| update.set(attribute, value));
        write.removes.into_iter().for_each(|attribute| update.remove(attribute));
        let (rev_name, status) = (update.name(REV), update.name(STATUS));
        let if_rev = update.value(text(change.if_rev.as_str()));
        let active = update.value(text(self.layout.plain(Word::Active)));
        let surplus = update.value(text(self.layout.plain(Word::Surplus)));
        update.only_if(format!("{rev_name} = {if_rev} AND ({status} = {active} OR begins_with({status}, {surplus}))"));
        let call = self.call("change catalog row", "dynamodb:UpdateItem", id);
        match self.update_item(&call, self.key_of(&change.id), update).await? {
            Put::Done => Ok(Changed::Applied(rev)),
            Put::Refused(there) => Ok(refused(there.as_ref(), rev)),
        }
    }

    async fn delete_row(&self, call: &Call, change: &RowChange) -> PortResult<Changed> {
        let mut condition = Expression::default();
        let (rev, if_rev) = (condition.name(REV), condition.value(text(change.if_rev.as_str())));
        condition.only_if(format!("{rev} = {if_rev}"));
        match self.delete_item(call, self.key_of(&change.id), condition).await? {
            true => Ok(Changed::Applied(change.if_rev.clone())),
            false => Ok(Changed::Refused),
        }
    }

    /// Deletes an item on a condition; whether it held.
    pub(super) async fn delete_item(&self, call: &Call, key: Item, condition: Expression) -> PortResult<bool> {
        let delete = self.client.delete_item().table_name(&self.table).set_key(Some(key));
        let delete = delete.set_condition_expression(condition.condition());
        let delete = delete.set_expression_attribute_names(condition.names());
        let delete = delete.set_expression_attribute_values(condition.values());
        match delete.return_consumed_capacity(ReturnConsumedCapacity::Total).send().await {
            Ok(answer) => {
                self.capacity.wrote(answer.consumed_capacity.as_slice());
                Ok(true)
            }
            Err(error) if is_refused(&error) => Ok(false),
            Err(error) => Err(call.sdk(error)),
        }
    }

    /// Up to 25 changes in one call.
    async fn change_by_statements(
        &self,
        changes: &[RowChange],
        batch: &[usize],
    ) -> Result<Vec<PortResult<Changed>>, NoStatements> {
        let first = &changes[batch[0]].id;
        let which = format!("{} / {} and others", first.original, first.copy_key);
        let call = self.call("change catalog rows", "dynamodb:PartiQLUpdate and dynamodb:PartiQLDelete", which);
        let revs: Vec<Rev> = batch.iter().map(|_| self.rev()).collect();
        let statements: Vec<Statement> =
            batch.iter().zip(&revs).map(|(n, rev)| self.statement(&changes[*n], rev)).collect();
        let ended = self.run_statements(&call, &statements).await?;
        let outcomes = batch.iter().zip(revs).zip(ended).map(|((n, rev), ended)| {
            let change = &changes[*n];
            let object = || format!("{} / {} in table {}", change.id.original, change.id.copy_key, self.table);
            Ok(match ended.map_err(|error| PortError { object: object(), ..error })? {
                Ended::Done { returned, maybe_before } if change.set == RowSet::Deleted => {
                    // A row that is not there is deleted with success, and only then nothing comes back.
                    match returned.is_some() || maybe_before {
                        true => Changed::Applied(change.if_rev.clone()),
                        false => Changed::Refused,
                    }
                }
                Ended::Done { .. } => Changed::Applied(rev),
                Ended::Refused(there) => refused(there.as_ref(), rev),
            })
        });
        Ok(outcomes.collect())
    }

    fn statement(&self, change: &RowChange, rev: &Rev) -> Statement {
        let key = [text(self.layout.partition(&change.id.original)), text(change.id.copy_key.as_str())];
        let if_rev = text(change.if_rev.as_str());
        let at = format!("WHERE \"{ORIGINAL_KEY}\" = ? AND \"{COPY_KEY}\" = ? AND \"{REV}\" = ?");
        let table = &self.table;
        let Some(write) = self.write_of(change, rev) else {
            let statement = format!("DELETE FROM \"{table}\" {at} RETURNING ALL OLD *");
            return Statement { text: statement, parameters: key.into_iter().chain([if_rev]).collect() };
        };
        let sets: String = write.sets.iter().map(|(attribute, _)| format!(" SET \"{attribute}\" = ?")).collect();
        let removes: String = write.removes.iter().map(|attribute| format!(" REMOVE \"{attribute}\"")).collect();
        // A row is active or disowned. Said without an OR: some services then no longer see that the keys are named.
        let is_active = format!("NOT begins_with(\"{STATUS}\", ?)");
        let disowned = text(self.layout.plain(Word::Disowned));
        let values = write.sets.into_iter().map(|(_, value)| value);
        Statement {
            text: format!("UPDATE \"{table}\"{sets}{removes} {at} AND {is_active}"),
            parameters: values.chain(key).chain([if_rev, disowned]).collect(),
        }
    }

    /// What the change writes; `None`: the row goes.
    fn write_of(&self, change: &RowChange, rev: &Rev) -> Option<Write> {
        let status = |word| text(self.layout.status(word, &change.id.original));
        let mut write = Write { sets: vec![(REV, text(rev.as_str()))], removes: Vec::new() };
        match &change.set {
            RowSet::Disowned { at, reason, removed_at } => {
                write.sets.push((STATUS, status(Word::Disowned)));
                write.sets.push((DISOWNED_AT, number(at.0)));
                write.sets.push((REASON, text(reason.code())));
                write.sets.extend(removed_at.map(|at| (REMOVED_AT, number(at.0))));
            }
            RowSet::Raised { order } => {
                write.sets.push((ORDER, text(order.to_string())));
                write.sets.push((FLOATING, AttributeValue::Bool(true)));
            }
            RowSet::Due { at: Some(at) } => {
                write.sets.push((STATUS, status(Word::Surplus)));
                write.sets.push((DISOWNED_AT, number(at.0)));
            }
            RowSet::Due { at: None } => {
                write.sets.push((STATUS, status(Word::Active)));
                write.removes.push(DISOWNED_AT);
            }
            RowSet::Deleted => return None,
        }
        Some(write)
    }

    fn key_of(&self, id: &RowId) -> Item {
        keys(self.layout.partition(&id.original), id.copy_key.as_str())
    }
}

/// A refusal; unless what stands there is this very change, whose first answer was lost.
fn refused(there: Option<&Item>, rev: Rev) -> Changed {
    match there.and_then(|item| item.get(REV)) {
        Some(AttributeValue::S(stands)) if *stands == rev.0 => Changed::Applied(rev),
        _ => Changed::Refused,
    }
}

/// The changes by turn: no row twice in one turn, and a row's changes in the order given.
fn turns(changes: &[RowChange]) -> Vec<Vec<usize>> {
    let mut seen: HashMap<&RowId, usize> = HashMap::with_capacity(changes.len());
    let mut turns: Vec<Vec<usize>> = Vec::new();
    for (n, change) in changes.iter().enumerate() {
        let turn = seen.entry(&change.id).and_modify(|turn| *turn += 1).or_insert(0);
        match turns.get_mut(*turn) {
            Some(members) => members.push(n),
            None => turns.push(vec![n]),
        }
    }
    turns
}
