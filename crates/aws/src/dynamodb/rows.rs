//! Puts rows: an upsert never revives and never lowers an order (V3).
//!
//! Each write is one item's: after a crash the row is there whole, or it is not.

use super::expression::Expression;
use super::inserts::Inserted;
use super::item::{Item, keys, read_row, row_attributes, row_item, text};
use super::layout::{
    CHECKSUM, COPY_KEY, DISOWNED_AT, FORMAT, FORMAT_OF, REASON, REMOVED_AT, REV, STORAGE_CLASS, VERSION_ID,
};
use super::{DynamoDbCatalog, is_refused};
use crate::error_map::Call;
use crate::limits::UPSERT_ROUNDS;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{ReturnConsumedCapacity, ReturnValuesOnConditionCheckFailure};
use engine::error::{ErrorKind, PortResult};
use lifecycle::ids::ObjectKey;
use lifecycle::row::{CopyRow, CopyState};

/// How a conditional write of a whole item ended.
pub(super) enum Put {
    Done,
    /// The condition did not hold; the item that stands there, where there is one.
    Refused(Option<Item>),
}

impl DynamoDbCatalog {
    /// Puts the row if it is new; else sets only attributes that it lacks.
    pub(super) async fn upsert_row(&self, original: &ObjectKey, row: &CopyRow) -> PortResult<()> {
        let call = self.call_for(original, row);
        self.not_reserved(&call, original, row)?;
        // The rule: one call, which makes the row or fills it in; of several at once, one that makes them all. Only a row
        // that comes with a time of its own cannot be put so: `disowned_at` missing says "active" where a row is there, and
        // is no attribute that it lacks.
        if row.state == (CopyState::Active { due_at: None }) {
            if self.insert_row(original, row).await? == Inserted::Done {
                return Ok(());
            }
            return self.put_alone(original, row).await;
        }
        for _ in 0..UPSERT_ROUNDS {
            let mut only_new = Expression::default();
            let copy_key = only_new.name(COPY_KEY);
            only_new.only_if(format!("attribute_not_exists({copy_key})"));
            let item = row_item(&self.layout, original, row, &self.rev());
            if let Put::Done = self.put_item(&call, item, only_new).await? {
                return Ok(());
            }
            match self.fill_in(&call, original, row, true).await? {
                Put::Done => return Ok(()),
                Put::Refused(Some(there)) => return Err(self.not_ours(&call, original, Some(there))),
                // It has just gone: it is new again.
                Put::Refused(None) => {}
            }
        }
        Err(call.failed(ErrorKind::Unavailable))
    }

    /// Makes an active row, or fills it in, by one call.
    pub(super) async fn put_alone(&self, original: &ObjectKey, row: &CopyRow) -> PortResult<()> {
        let call = self.call_for(original, row);
        match self.fill_in(&call, original, row, false).await? {
            Put::Done => Ok(()),
            Put::Refused(there) => Err(self.not_ours(&call, original, there)),
        }
    }

    /// Puts or replaces the row of a mirrored object.
    pub(super) async fn replace_row(&self, original: &ObjectKey, row: &CopyRow) -> PortResult<()> {
        let call = self.call("put mirrored row", "dynamodb:PutItem", format!("{original} / {}", row.copy_key));
        self.not_reserved(&call, original, row)?;
        let mut condition = Expression::default();
        let known = known_format(&mut condition);
        condition.only_if(known);
        match self.put_item(&call, row_item(&self.layout, original, row, &self.rev()), condition).await? {
            Put::Done => Ok(()),
            Put::Refused(there) => Err(self.not_ours(&call, original, there)),
        }
    }

    /// Writes a whole item on a condition.
    pub(super) async fn put_item(&self, call: &Call, item: Item, condition: Expression) -> PortResult<Put> {
        let put = self.client.put_item().table_name(&self.table).set_item(Some(item));
        let put = put.set_condition_expression(condition.condition());
        let put = put.set_expression_attribute_names(condition.names());
        let put = put.set_expression_attribute_values(condition.values());
        let put = put.return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        match put.return_consumed_capacity(ReturnConsumedCapacity::Total).send().await {
            Ok(answer) => {
                self.capacity.wrote(answer.consumed_capacity.as_slice());
                Ok(Put::Done)
            }
            Err(error) if is_refused(&error) => match error.into_service_error() {
                PutItemError::ConditionalCheckFailedException(told) => Ok(Put::Refused(told.item)),
                _ => Ok(Put::Refused(None)),
            },
            Err(error) => Err(call.sdk(error)),
        }
    }

    /// Changes an item on a condition.
    pub(super) async fn update_item(&self, call: &Call, key: Item, update: Expression) -> PortResult<Put> {
        let request = self.client.update_item().table_name(&self.table).set_key(Some(key));
        let request = request.set_update_expression(update.update()).set_condition_expression(update.condition());
        let request = request.set_expression_attribute_names(update.names());
        let request = request.set_expression_attribute_values(update.values());
        let request = request.return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        match request.return_consumed_capacity(ReturnConsumedCapacity::Total).send().await {
            Ok(answer) => {
                self.capacity.wrote(answer.consumed_capacity.as_slice());
                Ok(Put::Done)
            }
            Err(error) if is_refused(&error) => match error.into_service_error() {
                UpdateItemError::ConditionalCheckFailedException(told) => Ok(Put::Refused(told.item)),
                _ => Ok(Put::Refused(None)),
            },
            Err(error) => Err(call.sdk(error)),
        }
    }

    /// Sets what the row lacks, and a new rev. Where there is no row it makes it, unless it `must_exist`.
    async fn fill_in(&self, call: &Call, original: &ObjectKey, row: &CopyRow, must_exist: bool) -> PortResult<Put> {
        let mut update = Expression::default();
        for (attribute, value) in row_attributes(&self.layout, original, row) {
            // What a row that is there lacks on purpose is not filled in: an active one has neither time nor reason.
            let fills = [REMOVED_AT, VERSION_ID, CHECKSUM, STORAGE_CLASS].contains(&attribute);
            if fills || !(must_exist || attribute == DISOWNED_AT || attribute == REASON) {
                update.set_missing(attribute, value);
            }
        }
        update.set(REV, text(self.rev().0));
        let known = known_format(&mut update);
        let condition = match must_exist {
            true => format!("attribute_exists({}) AND {known}", update.name(COPY_KEY)),
            false => known,
        };
        update.only_if(condition);
        self.update_item(call, keys(self.layout.partition(original), row.copy_key.as_str()), update).await
    }

    fn call_for(&self, original: &ObjectKey, row: &CopyRow) -> Call {
        self.call("put catalog row", "dynamodb:UpdateItem", format!("{original} / {}", row.copy_key))
    }

    fn not_reserved(&self, call: &Call, original: &ObjectKey, row: &CopyRow) -> PortResult<()> {
        if self.layout.is_reserved(original, &row.copy_key) {
            let why = "the catalog keeps something else under this name: such an object cannot be mirrored".to_owned();
            return Err(call.failed(ErrorKind::Invalid(why)));
        }
        Ok(())
    }

    /// The error of a row that a newer version wrote, or that is damaged.
    fn not_ours(&self, call: &Call, original: &ObjectKey, there: Option<Item>) -> engine::error::PortError {
        let told = there.map(|item| read_row(&self.layout, original, &item));
        match told {
            Some(Err(error)) => error,
            // It was changed between the refusal and now, or the service does not show it.
            Some(Ok(_)) | None => call.failed(ErrorKind::Unavailable),
        }
    }
}

/// The condition that no newer version wrote what stands there.
pub(super) fn known_format(expression: &mut Expression) -> String {
    let (format, known) = (expression.name(FORMAT_OF), expression.value(super::item::number(FORMAT)));
    format!("(attribute_not_exists({format}) OR {format} <= {known})")
}
