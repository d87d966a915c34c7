//! Reads of one key and of single rows, strongly consistent (V1). Nothing is written.

use super::DynamoDbCatalog;
use super::item::{Item, keys, read_row, read_tombstone, text};
use super::layout::{COPY_KEY, ORIGINAL_KEY, TOMBSTONE};
use crate::error_map::Call;
use crate::limits::{BATCH_GET_MAX, BATCHES_IN_FLIGHT, LEFT_OVER_ROUNDS, PARTITION_PAGES_MAX};
use aws_sdk_dynamodb::types::{AttributeValue, KeysAndAttributes, ReturnConsumedCapacity};
use engine::error::{ErrorKind, PortResult};
use engine::ports::catalog::RowId;
use futures_util::{StreamExt, TryStreamExt, stream};
use lifecycle::ids::{ObjectKey, Rev};
use lifecycle::row::{CopyRow, Partition, Tombstone};
use std::collections::HashMap;

/// An item's two keys, as they stand in the table.
type StoredKey = (String, String);

fn stored_key(item: &Item) -> Option<StoredKey> {
    let text = |name: &str| item.get(name).and_then(|value| value.as_s().ok()).cloned();
    Some((text(ORIGINAL_KEY)?, text(COPY_KEY)?))
}

impl DynamoDbCatalog {
    /// All rows and the tombstone of one key.
    pub(super) async fn read_partition(&self, key: &ObjectKey) -> PortResult<Partition> {
        let call = self.call("read catalog partition", "dynamodb:Query", key);
        let mut found = Partition::default();
        let mut start: Option<Item> = None;
        for _ in 0..PARTITION_PAGES_MAX {
            let query = self.client.query().table_name(&self.table).consistent_read(true);
            let query = query.key_condition_expression("#k = :k").expression_attribute_names("#k", ORIGINAL_KEY);
            let query = query.expression_attribute_values(":k", text(self.layout.partition(key)));
            let query = query.return_consumed_capacity(ReturnConsumedCapacity::Total).set_exclusive_start_key(start);
            let answer = query.send().await.map_err(|error| call.sdk(error))?;
            self.capacity.read(answer.consumed_capacity.as_slice());
            for item in answer.items() {
                self.take_in(key, item, &mut found)?;
            }
            start = answer.last_evaluated_key;
            if start.is_none() {
                return Ok(found);
            }
        }
        let why = format!("the rows of one key fill more than {PARTITION_PAGES_MAX} MB");
        Err(call.failed(ErrorKind::Invalid(why)))
    }

    fn take_in(&self, key: &ObjectKey, item: &Item, found: &mut Partition) -> PortResult<()> {
        let sort = item.get(COPY_KEY).and_then(|value| value.as_s().ok()).map_or("", String::as_str);
        if sort == TOMBSTONE {
            found.tombstone = Some(read_tombstone(key, item)?.0);
        } else if !self.layout.is_of_policy(key, sort) {
            found.rows.push(read_row(&self.layout, key, item)?);
        }
        Ok(())
    }

    /// The tombstone of a key, with its rev.
    pub(super) async fn read_tombstone(&self, key: &ObjectKey) -> PortResult<Option<(Tombstone, Rev)>> {
        let call = self.call("read tombstone", "dynamodb:GetItem", key);
        let item = self.get_item(&call, keys(self.layout.partition(key), TOMBSTONE)).await?;
        item.map(|item| read_tombstone(key, &item)).transpose()
    }

    /// One item.
    pub(super) async fn get_item(&self, call: &Call, key: Item) -> PortResult<Option<Item>> {
        let get = self.client.get_item().table_name(&self.table).set_key(Some(key)).consistent_read(true);
        let answer = get.return_consumed_capacity(ReturnConsumedCapacity::Total).send().await;
        let answer = answer.map_err(|error| call.sdk(error))?;
        self.capacity.read(answer.consumed_capacity.as_slice());
        Ok(answer.item)
    }

    /// Single rows, in the order asked.
    pub(super) async fn read_rows(&self, ids: &[RowId]) -> PortResult<Vec<Option<CopyRow>>> {
        // The service refuses a batch that names one item twice.
        let stored = |id: &RowId| (self.layout.partition(&id.original), id.copy_key.as_str().to_owned());
        let mut wanted: Vec<StoredKey> = ids.iter().map(stored).collect();
        wanted.sort_unstable();
        wanted.dedup();
        let batches = wanted.chunks(BATCH_GET_MAX).map(<[StoredKey]>::to_vec).collect::<Vec<_>>();
        let found: Vec<Vec<Item>> = stream::iter(batches.into_iter().map(|batch| self.get_batch(batch)))
            .buffer_unordered(BATCHES_IN_FLIGHT)
            .try_collect()
            .await?;
        let items: HashMap<StoredKey, Item> =
            found.into_iter().flatten().filter_map(|item| Some((stored_key(&item)?, item))).collect();
        let row = |id: &RowId| match items.get(&stored(id)) {
            // What has a place of its own is no row.
            Some(_) if self.layout.is_reserved(&id.original, &id.copy_key) => Ok(None),
            Some(item) => read_row(&self.layout, &id.original, item).map(Some),
            None => Ok(None),
        };
        ids.iter().map(row).collect()
    }

    /// At most [`BATCH_GET_MAX`] items, those that the service left out at first included.
    async fn get_batch(&self, wanted: Vec<StoredKey>) -> PortResult<Vec<Item>> {
        let which = wanted.first().map(|(original, copy)| format!("{original} / {copy} and others"));
        let call = self.call("read catalog rows", "dynamodb:BatchGetItem", which.unwrap_or_default());
        let asked = wanted.iter().map(|(original, copy)| keys(original.clone(), copy)).collect();
        let mut left = Some(request(&call, asked)?);
        let (mut found, mut round) = (Vec::new(), 0);
        while let Some(ask) = left.take() {
            let many = ask.keys().len();
            let batch = self.client.batch_get_item().request_items(&self.table, ask);
            let answer = batch.return_consumed_capacity(ReturnConsumedCapacity::Total).send().await;
            let answer = answer.map_err(|error| call.sdk(error))?;
            self.capacity.read(answer.consumed_capacity());
            found.extend(answer.responses.into_iter().flat_map(HashMap::into_values).flatten());
            let unprocessed = answer.unprocessed_keys.and_then(|mut tables| tables.remove(&self.table));
            let Some(unprocessed) = unprocessed.filter(|ask| !ask.keys().is_empty()) else { break };
            // Rounds that brought nothing count; one that brought something starts the count anew.
            round = if unprocessed.keys().len() < many { 0 } else { round + 1 };
            if round >= LEFT_OVER_ROUNDS {
                return Err(call.failed(ErrorKind::Throttled));
            }
            left = Some(request(&call, unprocessed.keys)?);
            self.wait(round).await;
        }
        Ok(found)
    }
}

fn request(call: &Call, keys: Vec<HashMap<String, AttributeValue>>) -> PortResult<KeysAndAttributes> {
    let built = KeysAndAttributes::builder().set_keys(Some(keys)).consistent_read(true).build();
    built.map_err(|error| call.failed(ErrorKind::Internal("a batch without keys".to_owned())).because(error))
}
