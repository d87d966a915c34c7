//! Making tables: what must be so before the engine makes anything, and what it left half-made is taken away again.
//!
//! The engine keeps every table and index in an SQLite table of its own, whose names SQLite does not tell apart by case; and it
//! makes a table in many small transactions, the stream last. So a name that would meet another one is refused here, before
//! anything is made: it would eat that table. What fails all the same is deleted, since its records would go untold.
//!
//! A crash half-way leaves a table without a stream, that nobody was told of: it is taken away at the next opening, or
//! gets its stream if there is anything in it.

use super::limits::TABLES_MAX;
use super::{Said, Tables, all, failed, operations, unknown};
use bytes::Bytes;
use dynoxide::Database;
use dynoxide::storage::TableMetadata;
use engine::config::is_reserved_table;
use engine::error::{ErrorKind, PortError, PortResult};
use rusqlite::OptionalExtension;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

/// Where a request to make a table, and one to change it, names indexes.
const INDEXES: [&str; 3] = ["GlobalSecondaryIndexes", "LocalSecondaryIndexes", "VectorIndexes"];
const INDEX_UPDATES: [&str; 2] = ["GlobalSecondaryIndexUpdates", "VectorIndexUpdates"];

impl Tables {
    /// Makes a table, once there is a place for its deleted records.
    pub(super) async fn make(&self, body: Bytes) -> Said {
        let _one_at_a_time = self.making.lock().await;
        let Some(request) = Request::read(&body) else { return self.run("CreateTable".to_owned(), body).await };
        let table = request.table.as_str();
        match self.may_be_made(&request).await {
            Ok(None) => {}
            Ok(Some(refused)) => return refused,
            Err(error) => return unknown(&error),
        }
        // Nobody writes to it before it is whole.
        let alone = self.streams.write().await;
        let was_there = match self.is_there(table).await {
            Ok(was_there) => was_there,
            Err(error) => return unknown(&error),
        };
        let said = self.run("CreateTable".to_owned(), body).await;
        // Only what provably was not there is taken away.
        if said.status != 200 && !was_there {
            self.unmake(table).await;
        }
        drop(alone);
        if said.status == 200
            && let Some(hooks) = self.hooks.get()
        {
            hooks.begin(table).await;
        }
        said
    }

    /// Why it must not be made. Whatever else is wrong with the request, the engine says.
    async fn may_be_made(&self, request: &Request) -> PortResult<Option<Said>> {
        let (table, all) = (&request.table, self.all().await?);
        if all.contains(table) {
            return Ok(None);
        }
        if let Some(why) = self.name_is_taken(table, &all).await?.or_else(|| indexes_meet(&request.indexes)) {
            return Ok(Some(Said::refused(400, "ValidationException", &why)));
        }
        if all.len() >= TABLES_MAX {
            let why = format!("this endpoint has {TABLES_MAX} tables at most");
            return Ok(Some(Said::refused(400, "LimitExceededException", &why)));
        }
        let Some(hooks) = self.hooks.get() else { return Ok(None) };
        Ok(hooks.prepare(table).await.err().map(|error| {
            let why = format!("its deleted records could not be archived: {}", engine::report::chain(&error));
            Said::refused(400, "ValidationException", &why)
        }))
    }

    /// Which of the names that are there a new table of this name would meet.
    async fn name_is_taken(&self, table: &str, all: &[String]) -> PortResult<Option<String>> {
        if let Some(other) = all.iter().find(|other| other.eq_ignore_ascii_case(table)) {
            return Ok(Some(format!(
                "this endpoint does not tell table names apart by upper and lower case, and there is the table {other}: \
                 choose another name than {table}"
            )));
        }
        let (beside, name) = (Arc::clone(&self.beside), table.to_owned());
        let known = self.blocking(move || {
            let connection = beside.lock().unwrap_or_else(PoisonError::into_inner);
            let known = "SELECT 1 FROM sqlite_master WHERE name = ?1 COLLATE NOCASE";
            let known = connection.query_row(known, [&name], |_| Ok(())).optional();
            known.map_err(|error| PortError::new("look for name", &name, ErrorKind::Unavailable).because(error))
        });
        let is_taken = is_reserved_table(table) || known.await?.is_some();
        let why = || format!("the endpoint itself uses the name {table}: choose another one");
        Ok(is_taken.then(why))
    }

    /// Changes a table. Its indexes meet as tables do.
    pub(super) async fn change(&self, body: Bytes) -> Said {
        let Some(mut request) = Request::read(&body) else { return self.run("UpdateTable".to_owned(), body).await };
        let _one_at_a_time = match request.indexes.is_empty() {
            true => None,
            false => {
                let alone = self.making.lock().await;
                let found = match self.metadata(&request.table).await {
                    Ok(found) => found,
                    Err(error) => return unknown(&error),
                };
                request.indexes.extend(found.iter().flat_map(indexes_of));
                if let Some(why) = indexes_meet(&request.indexes) {
                    return Said::refused(400, "ValidationException", &why);
                }
                Some(alone)
            }
        };
        match request.has_stream {
            true => self.end_stream("UpdateTable".to_owned(), body).await,
            false => self.run("UpdateTable".to_owned(), body).await,
        }
    }

    async fn is_there(&self, table: &str) -> PortResult<bool> {
        Ok(self.all().await?.iter().any(|other| other == table))
    }

    /// Takes away what was left of a table that could not be made, if anything was.
    async fn unmake(&self, table: &str) {
        match self.is_there(table).await {
            Ok(false) => return,
            Ok(true) => {}
            Err(error) => {
                let why = engine::report::chain(&error);
                tracing::error!(table, "it may be half made, and then nothing of it is archived: delete it: {why}");
                return;
            }
        }
        let (database, name) = (self.database.clone(), table.to_owned());
        let unmade = self.blocking(move || Ok(unmake(&database, &name))).await;
        if !unmade.unwrap_or(false) {
            tracing::error!(table, "it is only half made, and its deleted records are not archived: delete the table");
        }
    }

    /// A table that never had a stream was left behind by a crash in its making.
    pub(super) fn mend(&self) -> PortResult<()> {
        let all = all(&self.database, &self.path)?;
        for table in &all {
            let found = self.database.get_table_metadata(table).map_err(|error| failed(&self.path, error))?;
            if found.is_some_and(|found| !found.stream_enabled && found.stream_label.is_none()) {
                let alone = all.iter().filter(|other| other.eq_ignore_ascii_case(table)).count() == 1;
                if !mend_one(&self.database, table, alone) {
                    tracing::error!(table, "it has no stream, and cannot get one: delete the table, and make it again");
                }
            }
        }
        Ok(())
    }
}

/// What of a request to make or change a table matters here.
struct Request {
    table: String,
    /// The names of the indexes that it makes.
    indexes: Vec<String>,
    has_stream: bool,
}

impl Request {
    /// `None`: it names no table.
    fn read(body: &[u8]) -> Option<Request> {
        let request: Value = serde_json::from_slice(body).ok()?;
        let table = request["TableName"].as_str()?.to_owned();
        let made = INDEXES.iter().flat_map(|kind| named(&request[kind]));
        let added =
            |kind: &&str| request[*kind].as_array().into_iter().flatten().map(|update| update["Create"].clone());
        let added: Vec<Value> = INDEX_UPDATES.iter().flat_map(added).collect();
        let indexes = made.chain(named(&added.into())).collect();
        Some(Request { table, indexes, has_stream: !request["StreamSpecification"].is_null() })
    }
}

/// The names in a list of indexes.
fn named(indexes: &Value) -> Vec<String> {
    let name = |index: &Value| index["IndexName"].as_str().map(str::to_owned);
    indexes.as_array().into_iter().flatten().filter_map(name).collect()
}

/// The names of a table's indexes.
fn indexes_of(table: &TableMetadata) -> Vec<String> {
    let all = [&table.gsi_definitions, &table.lsi_definitions, &table.vector_index_definitions];
    let read = all.into_iter().flatten().filter_map(|indexes| serde_json::from_str::<Value>(indexes).ok());
    read.flat_map(|indexes| named(&indexes)).collect()
}

/// Two names that are one to the engine. Of equal ones the engine says it.
fn indexes_meet(names: &[String]) -> Option<String> {
    let mut seen: BTreeMap<String, &String> = BTreeMap::new();
    let (name, other) = names.iter().find_map(|name| {
        let other = seen.insert(name.to_ascii_lowercase(), name)?;
        (other != name).then_some((name, other))
    })?;
    Some(format!(
        "this endpoint does not tell the indexes of a table apart by upper and lower case, and there are {other} and {name}: \
         choose another name for one"
    ))
}

/// Takes away what was made of a table; whether it is gone.
fn unmake(database: &Database, table: &str) -> bool {
    let unprotected = json!({ "TableName": table, "DeletionProtectionEnabled": false });
    // Whatever it answers: the next one says whether it could be done.
    operations::run(database, "UpdateTable", unprotected.to_string().as_bytes());
    operations::run(database, "DeleteTable", json!({ "TableName": table }).to_string().as_bytes()).status == 200
}

/// Ends the making of a table that was cut off; `false`: it is as before. `alone`: no other one is called alike.
fn mend_one(database: &Database, table: &str, alone: bool) -> bool {
    let look = operations::run(database, "Scan", json!({ "TableName": table, "Limit": 1 }).to_string().as_bytes());
    let seen: Value = serde_json::from_slice(&look.body).unwrap_or_default();
    if look.status == 200 && alone && seen["Count"] == 0 {
        return unmake(database, table);
    }
    let stream = json!({ "StreamEnabled": true, "StreamViewType": operations::VIEW });
    let request = json!({ "TableName": table, "StreamSpecification": stream });
    operations::run(database, "UpdateTable", request.to_string().as_bytes()).status == 200
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::from_slice;
    use std::path::Path;

    async fn call(tables: &Arc<Tables>, operation: &str, request: &Value) -> (u16, Value) {
        let said = tables.call(&format!("DynamoDB_20120810.{operation}"), request.to_string().into()).await;
        (said.status, from_slice(&said.body).unwrap())
    }

    fn table(name: &str, indexes: &[&str]) -> Value {
        let key = json!([{ "AttributeName": "id", "KeyType": "HASH" }]);
        let typed = json!([{ "AttributeName": "id", "AttributeType": "S" }]);
        let mut made = json!({ "TableName": name, "KeySchema": key, "AttributeDefinitions": typed,
                               "BillingMode": "PAY_PER_REQUEST" });
        if !indexes.is_empty() {
            made["GlobalSecondaryIndexes"] = indexes.iter().map(|name| index(name)).collect();
        }
        made
    }

    fn index(name: &str) -> Value {
        let key = json!([{ "AttributeName": "id", "KeyType": "HASH" }]);
        json!({ "IndexName": name, "KeySchema": key, "Projection": { "ProjectionType": "ALL" } })
    }

    /// A file with the table Orders, and a record in it.
    async fn with_orders(path: &Path) -> Arc<Tables> {
        let tables = Arc::new(Tables::open(path).unwrap());
        assert_eq!(call(&tables, "CreateTable", &table("Orders", &["idx"])).await.0, 200);
        let put = json!({ "TableName": "Orders", "Item": { "id": { "S": "a" } } });
        assert_eq!(call(&tables, "PutItem", &put).await.0, 200);
        tables
    }

    #[tokio::test]
    async fn a_name_that_the_engine_would_take_for_another_is_refused_before_anything_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let tables = with_orders(&folder.path().join("tables.sqlite")).await;
        let names = [
            "orders",
            "_Tables",
            "_config",
            "_stream_records",
            "sqlite_Master",
            "sqlite_foo",
            "afterimage_stream_records",
        ];
        for name in names {
            let (status, said) = call(&tables, "CreateTable", &table(name, &[])).await;
            let why = said["message"].as_str().unwrap();
            assert!(status == 400 && why.contains("choose another") && why.contains(name), "{said}");
        }
        let (status, said) = call(&tables, "CreateTable", &table("Half", &["x", "X"])).await;
        assert!(status == 400 && said["message"].as_str().unwrap().contains("x and X"), "{said}");
        let typed = json!([{ "AttributeName": "id", "AttributeType": "S" }]);
        let grown = json!({ "TableName": "Orders", "AttributeDefinitions": typed,
                            "GlobalSecondaryIndexUpdates": [{ "Create": index("IDX") }] });
        let (status, said) = call(&tables, "UpdateTable", &grown).await;
        assert!(status == 400 && said["message"].as_str().unwrap().contains("IDX and idx"), "{said}");
        let list = tables.call("DynamoDB_20120810.CreateTable", r#"["orders"]"#.into()).await;
        assert_eq!(list.status, 400);
        assert_eq!(tables.all().await.unwrap(), ["Orders"]);
        let there = call(&tables, "Scan", &json!({ "TableName": "Orders" })).await;
        assert_eq!((there.0, &there.1["Count"]), (200, &1.into()));
        // One that is there the engine itself refuses.
        assert_eq!(call(&tables, "CreateTable", &table("Orders", &[])).await.0, 400);
    }

    /// What else may go wrong in the middle of it: a table of an index that was left behind.
    #[tokio::test]
    async fn what_the_engine_could_not_make_whole_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tables.sqlite");
        let tables = Arc::new(Tables::open(&path).unwrap());
        tables.beside.lock().unwrap().execute_batch("CREATE TABLE \"Half::gsi::idx\" (x)").unwrap();
        let mut half = table("Half", &["idx"]);
        half["DeletionProtectionEnabled"] = true.into();
        assert_eq!(call(&tables, "CreateTable", &half).await.0, 500);
        assert_eq!(tables.all().await.unwrap(), [""; 0]);
    }

    /// Takes down what it is told.
    #[derive(Default)]
    struct Heard(std::sync::Mutex<Vec<&'static str>>);

    impl Heard {
        fn note(&self, what: &'static str) -> PortResult<()> {
            self.0.lock().unwrap().push(what);
            Ok(())
        }

        fn all(&self) -> Vec<&'static str> {
            std::mem::take(&mut *self.0.lock().unwrap())
        }
    }

    #[async_trait::async_trait]
    impl crate::tables::TableHooks for Heard {
        async fn prepare(&self, _: &str) -> PortResult<()> {
            self.note("prepare")
        }
        async fn begin(&self, _: &str) {
            self.note("begin").unwrap();
        }
        async fn near_end(&self, _: &str) -> PortResult<()> {
            self.note("near_end")
        }
        async fn finish(&self, _: &str) -> PortResult<()> {
            self.note("finish")
        }
        async fn ended(&self, _: &str, _: &str) -> PortResult<()> {
            self.note("ended")
        }
    }

    /// A look that fails says nothing: neither that a table is not there, nor that its stream is none.
    #[tokio::test]
    async fn a_look_that_fails_refuses_what_would_take_a_table_or_a_stream_away_and_ends_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let tables = with_orders(&folder.path().join("tables.sqlite")).await;
        let heard = Arc::new(Heard::default());
        tables.set_hooks(heard.clone());
        let fail = |looks| tables.fail_looks(0, looks);
        let orders = json!({ "TableName": "Orders" });
        // Whichever of the looks fails, a table that is there stays with its records.
        for looks in 1..4 {
            fail(looks);
            assert_ne!(call(&tables, "CreateTable", &table("Orders", &[])).await.0, 200);
            fail(0);
            assert_eq!(call(&tables, "Scan", &orders).await.1["Count"], 1, "{looks} looks failed");
        }
        fail(1);
        assert_eq!(call(&tables, "DeleteTable", &orders).await.0, 500);
        assert_eq!((heard.all(), tables.all().await.unwrap()), (vec![], vec!["Orders".to_owned()]));
        assert!(tables.carries_old_images("Orders").await.unwrap());

        // An update that changes nothing of the stream, and the look after it fails: it is followed on, and nothing has ended.
        let stream = json!({ "StreamEnabled": true, "StreamViewType": "OLD_IMAGE" });
        let same = json!({ "TableName": "Orders", "StreamSpecification": stream });
        tables.fail_looks(2, 1);
        call(&tables, "UpdateTable", &same).await;
        assert_eq!(heard.all(), ["near_end", "finish", "begin"]);

        // What is deleted is gone, whatever a look says.
        tables.fail_looks(2, 1);
        assert_eq!(call(&tables, "DeleteTable", &orders).await.0, 200);
        assert_eq!(heard.all(), ["near_end", "finish", "ended"]);
    }

    #[tokio::test]
    async fn a_making_that_was_cut_off_is_ended_at_the_next_opening() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tables.sqlite");
        let tables = with_orders(&path).await;
        assert_eq!(call(&tables, "CreateTable", &table("Empty", &[])).await.0, 200);
        let unfinished = "UPDATE _tables SET stream_enabled = 0, stream_label = NULL";
        tables.beside.lock().unwrap().execute_batch(unfinished).unwrap();
        drop(tables);
        let tables = Arc::new(Tables::open(&path).unwrap());
        assert_eq!(tables.with_streams().await.unwrap(), ["Orders"]);
        assert_eq!(tables.all().await.unwrap(), ["Orders"], "nobody was told of the other");
    }
}
