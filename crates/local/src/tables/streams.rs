//! What the engine's streams lack: an index, without which every write reads all that they keep; and an end to what they
//! keep, which is a day in DynamoDB.
//!
//! It is done on a connection of its own to the engine's file, in its table of stream records, whose layout is the pinned
//! version's. Only what is archived is forgotten: the engine does not tell a reader that the records it would go on from are
//! gone. A crash half-way leaves records that are forgotten later.

use super::Tables;
use super::limits::STREAM_FORGET_PAGE;
use crate::limits::BUSY_WAIT_MS;
use engine::error::{ErrorKind, PortError, PortResult};
use lifecycle::archive::Sequence;
use lifecycle::time::UnixMs;
use rusqlite::{Connection, params};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What the engine adds to a stored sequence number before it tells it.
const TOLD_FROM: u128 = 100_000_000_000_000_000_000;

/// Connects to the engine's file, which the engine has opened before.
pub(super) fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_millis(BUSY_WAIT_MS.into()))?;
    connection.execute_batch(
        "CREATE INDEX IF NOT EXISTS afterimage_stream_records
         ON _stream_records (table_name, CAST(sequence_number AS INTEGER))",
    )?;
    Ok(connection)
}

/// Folds the log into the file.
pub(super) fn fold(beside: &Mutex<Connection>) -> rusqlite::Result<()> {
    let connection = beside.lock().unwrap_or_else(PoisonError::into_inner);
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
}

impl Tables {
    /// Forgets what the stream of a table tells up to `archived` and from before `before`; how many records that were. The
    /// newest one stays: the engine counts on from it.
    pub async fn forget(&self, table: &str, archived: &Sequence, before: UnixMs) -> PortResult<usize> {
        let told: u128 = archived.as_str().parse().unwrap_or(0);
        let Ok(stored) = i64::try_from(told.saturating_sub(TOLD_FROM)) else { return Ok(0) };
        let newest = "SELECT MAX(CAST(sequence_number AS INTEGER)) FROM _stream_records WHERE table_name = ?1";
        let which = format!(
            "table_name = ?1 AND CAST(sequence_number AS INTEGER) <= ?2 AND created_at < ?3
             AND CAST(sequence_number AS INTEGER) < ({newest})"
        );
        self.forget_pages(table, which, stored, before.0 / 1_000).await
    }

    /// Forgets all that the streams of a table told, which have ended.
    pub(super) async fn forget_all(&self, table: &str) -> PortResult<usize> {
        // The other two are bound, too.
        let which = "table_name = ?1 AND ?2 = 0 AND ?3 = 0".to_owned();
        self.forget_pages(table, which, 0, 0).await
    }

    async fn forget_pages(&self, table: &str, which: String, stored: i64, before: i64) -> PortResult<usize> {
        let mut forgotten = 0;
        loop {
            let (beside, table, which) = (Arc::clone(&self.beside), table.to_owned(), which.clone());
            let page = self.blocking(move || {
                let connection = beside.lock().unwrap_or_else(PoisonError::into_inner);
                let page = connection.execute(
                    &format!(
                        "DELETE FROM _stream_records WHERE id IN (SELECT id FROM _stream_records WHERE {which} LIMIT ?4)"
                    ),
                    params![table, stored, before, STREAM_FORGET_PAGE as i64],
                );
                page.map_err(|error| {
                    PortError::new("forget records of stream", &table, ErrorKind::Unavailable).because(error)
                })
            });
            let page = page.await?;
            forgotten += page;
            if page < STREAM_FORGET_PAGE {
                return Ok(forgotten);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    async fn tables_with_deletions(path: &Path, how_many: usize) -> Arc<Tables> {
        let tables = Arc::new(Tables::open(path).unwrap());
        let key = json!([{ "AttributeName": "id", "KeyType": "HASH" }]);
        let typed = json!([{ "AttributeName": "id", "AttributeType": "S" }]);
        let made = json!({ "TableName": "Orders", "KeySchema": key, "AttributeDefinitions": typed,
                           "BillingMode": "PAY_PER_REQUEST" });
        call(&tables, "CreateTable", made).await;
        for n in 0..how_many {
            let id = json!({ "id": { "S": n.to_string() } });
            call(&tables, "PutItem", json!({ "TableName": "Orders", "Item": id })).await;
            call(&tables, "DeleteItem", json!({ "TableName": "Orders", "Key": id })).await;
        }
        tables
    }

    async fn call(tables: &Arc<Tables>, operation: &str, body: serde_json::Value) -> serde_json::Value {
        let said = tables.call(&format!("DynamoDB_20120810.{operation}"), body.to_string().into()).await;
        assert_eq!(said.status, 200, "{operation}: {:?}", said.body);
        serde_json::from_slice(&said.body).unwrap()
    }

    async fn told(tables: &Arc<Tables>) -> Vec<String> {
        let described = call(tables, "DescribeTable", json!({ "TableName": "Orders" })).await;
        let arn = &described["Table"]["LatestStreamArn"];
        let shards = call(tables, "DescribeStream", json!({ "StreamArn": arn })).await;
        let shard = &shards["StreamDescription"]["Shards"][0]["ShardId"];
        let from = json!({ "StreamArn": arn, "ShardId": shard, "ShardIteratorType": "TRIM_HORIZON" });
        let iterator = call(tables, "GetShardIterator", from).await;
        let records = call(tables, "GetRecords", json!({ "ShardIterator": iterator["ShardIterator"] })).await;
        let number = |record: &serde_json::Value| record["dynamodb"]["SequenceNumber"].as_str().unwrap().to_owned();
        records["Records"].as_array().unwrap().iter().map(number).collect()
    }

    /// A table whose maker asked for no stream has one; of that, only what is archived and old is forgotten.
    #[tokio::test]
    async fn a_stream_forgets_what_is_archived_and_old_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let tables = tables_with_deletions(&folder.path().join("tables.sqlite"), 3).await;
        let before = told(&tables).await;
        assert_eq!(before.len(), 6, "puts and deletions");
        let archived = Sequence::new(&before[3]).unwrap();
        let (early, late) = (UnixMs(0), UnixMs(i64::MAX));
        assert_eq!(tables.forget("Orders", &archived, early).await.unwrap(), 0);
        assert_eq!(tables.forget("Others", &archived, late).await.unwrap(), 0);
        assert_eq!(tables.forget("Orders", &archived, late).await.unwrap(), 4);
        assert_eq!(told(&tables).await, before[4..]);
        let newest = Sequence::new(&before[5]).unwrap();
        assert_eq!(tables.forget("Orders", &newest, late).await.unwrap(), 1, "the newest stays");
    }

    /// What the engine asks at every write must not read all that the stream keeps.
    #[tokio::test]
    async fn the_engines_look_for_the_newest_record_uses_the_index() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tables.sqlite");
        let tables = tables_with_deletions(&path, 1).await;
        tables.close().await;
        let connection = Connection::open(&path).unwrap();
        let plan: String = connection
            .query_row(
                "EXPLAIN QUERY PLAN SELECT COALESCE(MAX(CAST(sequence_number AS INTEGER)), 0) + 1
                 FROM _stream_records WHERE table_name = 'Orders'",
                [],
                |row| row.get(3),
            )
            .unwrap();
        assert!(plan.contains("SEARCH") && plan.contains("afterimage_stream_records"), "{plan}");
        // And what is acknowledged is on the disk: SQLite's own default, which the engine leaves as it is.
        let synchronous: i64 = connection.query_row("PRAGMA synchronous", [], |row| row.get(0)).unwrap();
        assert_eq!(synchronous, 2, "FULL");
    }
}
