//! Deleted records of a table, from the outside: archived by the daemon from an engine that runs in the test's own process,
//! whoever is killed.

use crate::process::{Folder, Serving};
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{BehaviorVersion, Config, Credentials, Region};
use aws_sdk_dynamodb::types::AttributeValue::{self, N, S};
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType, StreamSpecification,
    StreamViewType, TimeToLiveSpecification, WriteRequest,
};
use dynoxide::Database;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;
use tokio::runtime::Runtime;

/// The engine, and what clients of the table do.
pub(crate) struct Tables {
    pub(crate) runtime: Runtime,
    pub(crate) database: Database,
    pub(crate) client: Client,
    pub(crate) url: String,
}

impl Tables {
    pub(crate) fn start() -> Tables {
        let runtime = Runtime::new().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let database = Database::memory().unwrap();
        // It ends with the runtime.
        runtime.spawn(dynoxide::server::serve_with_shutdown(listener, database.clone(), std::future::pending()));
        let config = Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::new("us-east-1"))
            .endpoint_url(&url)
            .credentials_provider(Credentials::new("test", "test", None, None, "test"))
            .build();
        Tables { runtime, database, client: Client::from_conf(config), url }
    }

    /// A table whose key is these attributes, without a stream.
    pub(crate) fn make_with_key(&self, table: &str, names: &[&str]) {
        self.create(table, names, None);
    }

    fn create(&self, table: &str, names: &[&str], stream: Option<StreamSpecification>) {
        let mut request = self.client.create_table().table_name(table).billing_mode(BillingMode::PayPerRequest);
        for (name, kind) in names.iter().zip([KeyType::Hash, KeyType::Range]) {
            let key = KeySchemaElement::builder().attribute_name(*name).key_type(kind).build().unwrap();
            let typed = AttributeDefinition::builder().attribute_name(*name).attribute_type(ScalarAttributeType::S);
            request = request.key_schema(key).attribute_definitions(typed.build().unwrap());
        }
        self.runtime.block_on(request.set_stream_specification(stream).send()).unwrap();
    }

    pub(crate) fn make(&self, table: &str, view: StreamViewType) {
        let stream = StreamSpecification::builder().stream_enabled(true).stream_view_type(view).build().unwrap();
        self.create(table, &["id"], Some(stream));
        let ttl = TimeToLiveSpecification::builder().enabled(true).attribute_name("until").build().unwrap();
        let request = self.client.update_time_to_live().table_name(table).time_to_live_specification(ttl);
        self.runtime.block_on(request.send()).unwrap();
    }

    pub(crate) fn put(&self, table: &str, id: &str, more: &[(&str, AttributeValue)]) {
        let mut item = HashMap::from([("id".to_owned(), S(id.to_owned()))]);
        item.extend(more.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        self.runtime.block_on(self.client.put_item().table_name(table).set_item(Some(item)).send()).unwrap();
    }

    pub(crate) fn delete(&self, table: &str, id: &str) {
        self.runtime.block_on(self.client.delete_item().table_name(table).key("id", S(id.to_owned())).send()).unwrap();
    }

    pub(crate) fn get(&self, table: &str, id: &str) -> Option<HashMap<String, AttributeValue>> {
        let request = self.client.get_item().table_name(table).key("id", S(id.to_owned()));
        self.runtime.block_on(request.send()).unwrap().item
    }

    /// Puts records whose time is over, and has the time to live delete them.
    pub(crate) fn expire(&self, table: &str, ids: &[&str]) {
        let over = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() - 60;
        for id in ids {
            self.put(table, id, &[("until", N(over.to_string()))]);
        }
        assert_eq!(self.database.sweep_ttl().unwrap(), ids.len());
    }

    /// Puts and deletes many, 25 to a call.
    pub(crate) fn put_and_delete(&self, table: &str, ids: &[String]) {
        for ids in ids.chunks(25) {
            let puts = ids.iter().map(|id| {
                let put = aws_sdk_dynamodb::types::PutRequest::builder().item("id", S(id.clone())).build().unwrap();
                WriteRequest::builder().put_request(put).build()
            });
            let deletes = ids.iter().map(|id| {
                let delete =
                    aws_sdk_dynamodb::types::DeleteRequest::builder().key("id", S(id.clone())).build().unwrap();
                WriteRequest::builder().delete_request(delete).build()
            });
            for requests in [puts.collect::<Vec<_>>(), deletes.collect()] {
                let request = self.client.batch_write_item().request_items(table, requests);
                self.runtime.block_on(request.send()).unwrap();
            }
        }
    }

    /// A configuration that archives the table to a bucket of the data folder.
    pub(crate) fn configure(&self, folder: &Folder, table: &str, more: &str) {
        let text = format!(
            "default_policy = \"off\"\n[[service]]\nname = \"engine\"\nendpoint = \"{}\"\n[[archive]]\n\
             table = \"dynamodb://engine@{table}\"\nservice = \"orders\"\ndestination = \"local://archive\"\n{more}\n",
            self.url
        );
        fs::write(folder.root().join("records.toml"), text).unwrap();
    }
}

pub(crate) const CONFIG: &[&str] = &["--config", "records.toml"];

/// The archived objects under a folder of the archive, by name.
pub(crate) fn archived(folder: &Folder) -> BTreeMap<String, Value> {
    fn walk(folder: &Path, found: &mut BTreeMap<String, Value>) {
        let Ok(entries) = fs::read_dir(folder) else { return };
        for path in entries.map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                walk(&path, found);
            } else {
                let name = path.file_name().unwrap().to_str().unwrap().to_owned();
                found.insert(name, serde_json::from_slice(&fs::read(&path).unwrap()).unwrap());
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(&folder.data().join("buckets/archive/orders"), &mut found);
    found
}

pub(crate) fn until_archived(folder: &Folder, how_many: usize) -> BTreeMap<String, Value> {
    folder.wait(&format!("{how_many} archived records"), |_| archived(folder).len() >= how_many);
    archived(folder)
}

pub(crate) fn serve(folder: &Folder) -> Serving {
    folder.serve_with(CONFIG)
}

#[test]
fn what_users_and_the_time_to_live_delete_is_archived_at_once_with_its_cause() {
    let (tables, folder) = (Tables::start(), Folder::new());
    tables.make("Orders", StreamViewType::NewAndOldImages);
    tables.configure(&folder, "Orders", "");
    let serving = serve(&folder);
    tables.put("Orders", "USER#1", &[("total", N("12.50".to_owned()))]);
    tables.delete("Orders", "USER#1");
    let over = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() - 60;
    tables.put("Orders", "a/../b", &[("until", N(over.to_string()))]);
    assert_eq!(tables.database.sweep_ttl().unwrap(), 1);
    let records = until_archived(&folder, 2);
    let told = |name: &str, what: &str| records[name]["afterimage"][what].as_str().unwrap().to_owned();
    assert_eq!([told("USER#1.json", "cause"), told("a%252F..%252Fb.json", "cause")], ["user", "ttl"]);
    assert_eq!(records["USER#1.json"]["dynamodb"]["OldImage"]["total"]["N"], "12.5");
    // A file is there a moment before it is counted.
    let status = folder.wait("both counted", |status| status["counters"]["archived"] == 2);
    assert_eq!(status["archives"][0]["service"], "orders", "{status:#}");
    assert_eq!((&status["archives"][0]["shards"], &status["archives"][0]["gaps"]), (&1.into(), &0.into()));
    assert_eq!((&status["counters"]["archived"], &status["archives"][0]["aside"]), (&2.into(), &0.into()));
    let told = folder.ok(&["status"]);
    assert!(told.contains("engine@Orders: deleted records -> local://archive/orders/, 1 shard, "), "{told}");
    assert_eq!(serving.stop(), 0, "{}", folder.log());
}

/// Killed again and again while records are deleted: each is archived, once.
#[test]
fn a_daemon_that_is_killed_again_and_again_archives_every_deletion_once() {
    const ROUNDS: usize = 5;
    const EACH: usize = 400;
    let (tables, folder) = (Tables::start(), Folder::new());
    tables.make("Orders", StreamViewType::OldImage);
    tables.configure(&folder, "Orders", "");
    let mut expected = Vec::new();
    for round in 0..ROUNDS {
        let serving = serve(&folder);
        let ids: Vec<String> = (0..EACH).map(|n| format!("r{round}-{n:04}")).collect();
        tables.put_and_delete("Orders", &ids);
        expected.extend(ids);
        // In the middle of its work: some of this round is archived, and not all of it.
        folder.wait("some records", |_| archived(&folder).len() > round * EACH);
        serving.kill();
    }
    let serving = serve(&folder);
    let records = until_archived(&folder, expected.len());
    let names: Vec<&str> = records.keys().map(String::as_str).collect();
    let wanted: Vec<String> = expected.iter().map(|id| format!("{id}.json")).collect();
    assert_eq!(names, wanted, "each once, under its plain name");
    assert_eq!(serving.stop(), 0, "{}", folder.log());
}

/// What a person does about it: looks, reads one, puts one back, and then all of a day.
#[test]
fn archived_records_are_listed_read_and_put_back_by_command() {
    let (tables, folder) = (Tables::start(), Folder::new());
    tables.make("Orders", StreamViewType::OldImage);
    tables.configure(&folder, "Orders", "");
    let serving = serve(&folder);
    let over = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() - 60;
    for (n, id) in ["USER#1", "USER#1", "a/b", "other"].into_iter().enumerate() {
        tables.put("Orders", id, &[("n", N(n.to_string())), ("blank", S(String::new()))]);
        tables.delete("Orders", id);
    }
    tables.put("Orders", "expired", &[("until", N(over.to_string()))]);
    assert_eq!(tables.database.sweep_ttl().unwrap(), 1);
    until_archived(&folder, 5);

    // A file is there a moment before its row is.
    folder.wait("the listing", |_| folder.ok(&["archive", "ls", "orders"]).lines().count() == 6);
    let listed = folder.ok(&["archive", "ls", "orders"]);
    assert!(
        listed.contains("/USER#1.json") && listed.contains("/USER#1~") && listed.contains("/a%2Fb.json"),
        "{listed}"
    );
    let by_ttl = folder.ok(&["archive", "ls", "orders", "--cause", "ttl", "--from", "1d ago", "--json"]);
    let by_ttl: Value = serde_json::from_str(&by_ttl).unwrap();
    assert_eq!((&by_ttl["key"], &by_ttl["cause"]), (&"expired".into(), &"ttl".into()));
    assert!(folder.ok(&["archive", "ls", "orders", "--to", "2020-01-01"]).contains("nothing to list"));

    let one = folder.json(&["archive", "get", "orders", "USER#1"]);
    assert_eq!((&one["image"]["n"]["N"], &one["cause"]), (&"1".into(), &"user".into()), "{one:#}");
    let plain = folder.ok(&["archive", "get", "orders", "a/b"]);
    assert!(plain.contains("deleted from Orders at") && plain.contains("by user"), "{plain}");
    let missing = folder.run(&["archive", "get", "orders", "nobody"]);
    assert_eq!(missing.code, 1);
    assert!(missing.err.contains("no deletion of `nobody` is archived under orders"), "{}", missing.err);
    let unknown = folder.run(&["archive", "ls", "payments"]);
    assert_eq!(unknown.code, 2);
    assert!(unknown.err.contains("no records are archived under `payments`; there are: orders"), "{}", unknown.err);
    // The table's records go under another name from now on: what is there is not forgotten.
    assert_eq!(serving.stop(), 0, "{}", folder.log());
    let text = fs::read_to_string(folder.root().join("records.toml")).unwrap();
    fs::write(folder.root().join("records.toml"), text.replace("\"orders\"", "\"renamed\"")).unwrap();
    let serving = serve(&folder);
    let bare = folder.ok(&["archive", "ls", "renamed"]);
    assert!(bare.contains("no record of renamed is archived yet (there are some of: orders)"), "{bare}");
    let earlier = folder.run(&["archive", "ls", "orders"]);
    assert!(earlier.code == 2 && earlier.err.contains("some from an earlier configuration"), "{earlier:?}");
    assert!(folder.run(&["archive", "ls", "x"]).err.contains("in the archive, of no table now: orders"));
    assert_eq!(serving.stop(), 0, "{}", folder.log());
    fs::write(folder.root().join("records.toml"), &text).unwrap();
    let serving = serve(&folder);

    let said = folder.ok(&["archive", "restore", "orders", "USER#1", "--dry-run"]);
    assert!(said.contains("USER#1"), "{said}");
    assert_eq!(tables.get("Orders", "USER#1"), None);
    folder.ok(&["archive", "restore", "orders", "USER#1"]);
    let back = tables.get("Orders", "USER#1").unwrap();
    assert_eq!((&back["n"], &back["blank"]), (&N("1".to_owned()), &S(String::new())));
    // All of it; what is there already stays, and what was over does not go again.
    let report = folder.json(&["archive", "restore", "orders", "--from", "1d ago"]);
    let counts = &report["reports"][0]["counts"];
    assert_eq!(
        (&counts["restored"], &counts["there"], &counts["ttl-changed"]),
        (&3.into(), &1.into(), &1.into()),
        "{report:#}"
    );
    assert!(!tables.get("Orders", "expired").unwrap().contains_key("until"));
    assert_eq!(tables.get("Orders", "a/b").unwrap()["n"], N("2".to_owned()));
    // Into a table of another kind: refused, by name.
    tables.make_with_key("Ranged", &["id", "at"]);
    let refused = folder.run(&["archive", "restore", "orders", "other", "--to-table", "dynamodb://engine@Ranged"]);
    assert_eq!(refused.code, 1);
    assert!(refused.out.contains("its key is (id), and the table's is (id, at)"), "{}", refused.out);
    let journal = folder.json(&["audit"]);
    assert!(journal["newest"].to_string().contains("archive Orders"), "{journal:#}");
    assert_eq!(serving.stop(), 0, "{}", folder.log());
}

/// The table is made anew while nobody reads: what was not read of the stream before it is told, and the new one is read.
#[test]
fn a_stream_that_is_gone_before_its_end_was_read_is_told_by_status() {
    let (tables, folder) = (Tables::start(), Folder::new());
    tables.make("Orders", StreamViewType::OldImage);
    tables.configure(&folder, "Orders", "");
    let serving = serve(&folder);
    tables.put("Orders", "a", &[]);
    tables.delete("Orders", "a");
    until_archived(&folder, 1);
    serving.kill();
    tables.runtime.block_on(tables.client.delete_table().table_name("Orders").send()).unwrap();
    tables.make("Orders", StreamViewType::OldImage);
    let serving = serve(&folder);
    tables.put("Orders", "b", &[]);
    tables.delete("Orders", "b");
    until_archived(&folder, 2);
    let status = folder.wait("the gap", |status| status["archives"][0]["gaps"] == 1);
    assert!(status["problems"].to_string().contains("deletions may be lost"), "{status:#}");
    assert_eq!(folder.run(&["status", "--check"]).code, 1);
    assert_eq!(serving.stop(), 0, "{}", folder.log());
}

#[test]
fn a_table_that_cannot_be_archived_is_refused_at_the_start_with_the_remedy() {
    let (tables, folder) = (Tables::start(), Folder::new());
    tables.make("Keys", StreamViewType::KeysOnly);
    for (table, why) in [("Keys", "carries KEYS_ONLY only"), ("Nowhere", "it does not exist")] {
        tables.configure(&folder, table, "");
        let ended = folder.run(&[CONFIG, &["serve", "--listen", "127.0.0.1:0"]].concat());
        assert_eq!(ended.code, 1, "{ended:?}");
        assert!(ended.err.contains(&format!("cannot set up the archive of engine@{table}")), "{}", ended.err);
        assert!(ended.err.contains(why), "{}", ended.err);
        let names_a_remedy =
            ended.err.contains("make it, or correct its name") || ended.err.contains("switch a stream on");
        assert!(names_a_remedy, "{}", ended.err);
    }
}

/// Records that could not be archived, laid into the archive as an earlier run left them. The index of the bucket does not
/// know them: it is lost, and made again from the files.
pub(crate) fn lay_aside(folder: &Folder, (bucket, table): (&str, &str), records: &[(&str, Value)]) {
    let aside = folder.data().join(format!("buckets/{bucket}/%2Eafterimage/aside/{table}"));
    fs::create_dir_all(&aside).unwrap();
    for (number, record) in records {
        let note = serde_json::json!({
            "format": 1, "table": table, "key": ["id"], "why": "the store refused it", "record": record,
        });
        let hash = "0123456789abcdef0123456789abcdef";
        fs::write(aside.join(format!("{number}-{hash}.json")), note.to_string()).unwrap();
    }
    for entry in fs::read_dir(folder.data()).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.file_name().unwrap().to_str().unwrap().starts_with("state.sqlite") {
            fs::remove_file(entry).unwrap();
        }
    }
}

/// A deletion as the stream told it.
pub(crate) fn removed(number: &str, id: &str, image: Option<Value>) -> Value {
    let mut record = serde_json::json!({
        "eventName": "REMOVE", "eventSource": "aws:dynamodb",
        "userIdentity": { "type": "Service", "principalId": "dynamodb.amazonaws.com" },
        "dynamodb": {
            "ApproximateCreationDateTime": 1_795_245_972, "SequenceNumber": number, "Keys": { "id": { "S": id } },
        },
    });
    if let Some(image) = image {
        record["dynamodb"]["OldImage"] = image;
    }
    record
}

#[test]
fn records_that_lie_aside_are_dead_letters_named_shown_redriven_and_dropped() {
    let (tables, folder) = (Tables::start(), Folder::new());
    tables.make("Orders", StreamViewType::OldImage);
    tables.configure(&folder, "Orders", "");
    assert_eq!(serve(&folder).stop(), 0, "{}", folder.log());
    let image = serde_json::json!({ "id": { "S": "USER#1" }, "n": { "N": "1e3" } });
    let aside = [("100", removed("100", "USER#1", Some(image))), ("101", removed("101", "lost", None))];
    lay_aside(&folder, ("archive", "Orders"), &aside);
    let serving = serve(&folder);
    let letters = || folder.json(&["dlq", "list"])["letters"].as_array().unwrap().clone();
    let [first, second] = &letters()[..] else { panic!("two lie aside: {:#?}", letters()) };
    assert_eq!(
        (&first["table"], &first["cause"], &first["key"], &first["why"]),
        (&"engine@Orders".into(), &"ttl".into(), &r#"{"id":{"S":"USER#1"}}"#.into(), &"the store refused it".into())
    );
    assert_eq!(first["happened_at_ms"], 1_795_245_972_000_i64);
    let id = first["id"].to_string();
    assert!(folder.ok(&["dlq", "show", &id]).contains("\"OldImage\""));
    assert_eq!(folder.json(&["status"])["archives"][0]["aside"], 2);
    let checked = folder.run(&["status", "--check"]);
    assert!(
        checked.out.contains("2 deleted records lie aside, not archived: `afterimage dlq list` says why"),
        "{checked:?}"
    );
    // One has no image: it stays, with the reason.
    let redriven = folder.run(&["dlq", "redrive", "--all"]);
    assert_eq!(redriven.code, 1, "{redriven:?}");
    assert!(redriven.out.contains("1 redriven") && redriven.out.contains("still not"), "{redriven:?}");
    let found = folder.json(&["archive", "get", "orders", "USER#1"]);
    assert_eq!((&found["image"]["n"]["N"], &found["cause"]), (&"1e3".into(), &"ttl".into()), "{found:#}");
    assert_eq!(letters().len(), 1);
    assert!(folder.ok(&["dlq", "drop", &second["id"].to_string()]).contains("1 dropped"));
    assert!(folder.ok(&["dlq", "list"]).contains("no dead letters"));
    assert_eq!(folder.run(&["status", "--check"]).code, 0);
    let journal = folder.json(&["audit"])["newest"].to_string();
    assert!(
        journal.contains("drop-event") && journal.contains("archive Orders") && journal.contains("lost"),
        "{journal}"
    );
    assert_eq!(serving.stop(), 0, "{}", folder.log());
}
