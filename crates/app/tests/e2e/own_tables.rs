//! This machine's own tables, from the outside: made by a client of DynamoDB, and archived without a word of configuration.

use crate::process::{Folder, Serving};
use crate::records::{lay_aside, removed};
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{BehaviorVersion, Config, Credentials, Region};
use aws_sdk_dynamodb::error::ProvideErrorMetadata;
use aws_sdk_dynamodb::types::AttributeValue::{self, N, S};
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType, StreamSpecification,
    StreamViewType, TimeToLiveSpecification,
};
use serde_json::Value;
use std::collections::HashMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc;
use tokio::runtime::Runtime;

/// A client of the endpoint.
struct Tables {
    runtime: Runtime,
    client: Client,
}

impl Tables {
    fn of(serving: &Serving) -> Tables {
        Tables::with_secret(serving, &serving.s3.secret_key)
    }

    fn with_secret(serving: &Serving, secret: &str) -> Tables {
        let config = Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::new("us-east-1"))
            .endpoint_url(format!("http://{}", serving.tables_address()))
            .credentials_provider(Credentials::new(&serving.s3.access_key, secret, None, None, "test"))
            .retry_config(aws_sdk_dynamodb::config::retry::RetryConfig::disabled())
            .build();
        Tables { runtime: Runtime::new().unwrap(), client: Client::from_conf(config) }
    }

    fn make(&self, table: &str, view: Option<StreamViewType>) {
        let key = KeySchemaElement::builder().attribute_name("id").key_type(KeyType::Hash).build().unwrap();
        let typed = AttributeDefinition::builder().attribute_name("id").attribute_type(ScalarAttributeType::S);
        let stream = view
            .map(|view| StreamSpecification::builder().stream_enabled(true).stream_view_type(view).build().unwrap());
        let request = self.client.create_table().table_name(table).billing_mode(BillingMode::PayPerRequest);
        let request = request.key_schema(key).attribute_definitions(typed.build().unwrap());
        self.runtime.block_on(request.set_stream_specification(stream).send()).unwrap();
    }

    fn drop(&self, table: &str) {
        self.runtime.block_on(self.client.delete_table().table_name(table).send()).unwrap();
    }

    /// Whether it was acknowledged.
    fn put(&self, table: &str, id: &str, more: &[(&str, AttributeValue)]) -> bool {
        let mut item = HashMap::from([("id".to_owned(), S(id.to_owned()))]);
        item.extend(more.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        self.runtime.block_on(self.client.put_item().table_name(table).set_item(Some(item)).send()).is_ok()
    }

    /// Whether it was acknowledged.
    fn delete(&self, table: &str, id: &str) -> bool {
        let request = self.client.delete_item().table_name(table).key("id", S(id.to_owned()));
        self.runtime.block_on(request.send()).is_ok()
    }

    fn get(&self, table: &str, id: &str) -> Option<HashMap<String, AttributeValue>> {
        let request = self.client.get_item().table_name(table).key("id", S(id.to_owned()));
        self.runtime.block_on(request.send()).unwrap().item
    }
}

/// The keys of the archived records of a table.
fn archived(folder: &Folder, table: &str) -> Vec<String> {
    let ended = folder.run(&["archive", "ls", table, "--json"]);
    let record = |line: &str| serde_json::from_str::<Value>(line).unwrap()["key"].as_str().map(str::to_owned);
    ended.out.lines().filter(|line| line.contains("\"key\"")).filter_map(record).collect()
}

fn until_archived(folder: &Folder, table: &str, how_many: usize) -> Vec<String> {
    folder.wait(&format!("{how_many} archived records"), |_| archived(folder, table).len() >= how_many);
    archived(folder, table)
}

#[test]
fn what_is_deleted_from_a_table_of_this_machine_is_archived_and_comes_back() {
    let folder = Folder::new();
    let serving = folder.serve();
    let tables = Tables::of(&serving);
    tables.make("Orders", None);
    assert!(tables.put("Orders", "USER#1", &[("total", N("12.5".to_owned()))]));
    assert!(tables.delete("Orders", "USER#1"));
    assert_eq!(until_archived(&folder, "Orders", 1), ["USER#1"]);
    let one = folder.json(&["archive", "get", "Orders", "USER#1"]);
    assert_eq!((&one["cause"], &one["image"]["total"]["N"]), (&"user".into(), &"12.5".into()), "{one:#}");
    // And any S3 client reads it, and none writes it.
    let (status, _) = serving.s3.put("records", "mine", b"x").unwrap();
    assert_eq!(status, 403);

    // What the time to live deletes is swept by and by.
    let ttl = TimeToLiveSpecification::builder().enabled(true).attribute_name("until").build().unwrap();
    let request = tables.client.update_time_to_live().table_name("Orders").time_to_live_specification(ttl);
    tables.runtime.block_on(request.send()).unwrap();
    assert!(tables.put("Orders", "over", &[("until", N("1".to_owned()))]));
    until_archived(&folder, "Orders", 2);
    assert_eq!(folder.json(&["archive", "get", "Orders", "over"])["cause"], "ttl");

    folder.ok(&["archive", "restore", "Orders", "USER#1"]);
    assert_eq!(tables.get("Orders", "USER#1").unwrap()["total"], N("12.5".to_owned()));
    let status = folder.json(&["status"]);
    assert_eq!(status["archives"][0]["table"], "local@Orders", "{status:#}");
    assert_eq!(status["problems"], serde_json::json!([]), "{status:#}");
    assert_eq!(serving.stop(), 0, "{}", folder.log());

    // Without the daemon, the same: the table is in the data folder.
    folder.ok(&["archive", "restore", "Orders", "over", "--ttl", "strip"]);
    let serving = folder.serve();
    let tables = Tables::of(&serving);
    assert!(tables.get("Orders", "over").is_some_and(|record| !record.contains_key("until")));
    assert!(tables.delete("Orders", "over"));
    until_archived(&folder, "Orders", 3);
    assert_eq!(serving.stop(), 0, "{}", folder.log());
}

/// The last deletion before the table itself goes is not lost, and nobody is told that it might be; a table of the same name
/// goes on where this one ended.
#[test]
fn a_table_goes_only_when_its_deletions_are_archived() {
    let folder = Folder::new();
    let serving = folder.serve();
    let tables = Tables::of(&serving);
    for (round, id) in ["first", "second"].into_iter().enumerate() {
        tables.make("Orders", Some(StreamViewType::NewAndOldImages));
        assert!(tables.put("Orders", id, &[]) && tables.delete("Orders", id));
        tables.drop("Orders");
        assert_eq!(archived(&folder, "Orders").len(), round + 1, "at once: {}", folder.log());
    }
    // It is gone, and what was archived is not.
    assert_eq!(folder.json(&["archive", "get", "Orders", "second"])["cause"], "user");
    let unknown = folder.run(&["archive", "ls", "Payments"]);
    assert_eq!(unknown.code, 2, "{unknown:?}");
    tables.make("Orders", None);
    assert!(tables.put("Orders", "third", &[]) && tables.delete("Orders", "third"));
    until_archived(&folder, "Orders", 3);
    assert_eq!(folder.run(&["status", "--check"]).code, 0, "{}", folder.json(&["status"]));
    assert_eq!(serving.stop(), 0, "{}", folder.log());
    // The same is known at the next start.
    let serving = folder.serve();
    assert_eq!(folder.run(&["status", "--check"]).code, 0, "{}", folder.json(&["status"]));
    assert_eq!(serving.stop(), 0, "{}", folder.log());
}

/// A table that stays, since the engine refuses what would have ended its stream, is archived as before.
#[test]
fn a_table_whose_deletion_is_refused_is_archived_on() {
    let folder = Folder::new();
    let serving = folder.serve();
    let tables = Tables::of(&serving);
    tables.make("Orders", None);
    let protect = tables.client.update_table().table_name("Orders").deletion_protection_enabled(true);
    tables.runtime.block_on(protect.send()).unwrap();
    for (round, id) in ["first", "second"].into_iter().enumerate() {
        let refused = tables.runtime.block_on(tables.client.delete_table().table_name("Orders").send()).unwrap_err();
        assert!(refused.message().unwrap().contains("protected against deletion"), "{refused:?}");
        assert!(tables.put("Orders", id, &[]) && tables.delete("Orders", id));
        until_archived(&folder, "Orders", round + 1);
    }
    assert_eq!(serving.stop(), 0, "{}", folder.log());
}

/// What could not be archived is not forgotten with its table.
#[test]
fn what_lies_aside_of_a_table_that_is_gone_is_told_and_archived_after_all() {
    let folder = Folder::new();
    let serving = folder.serve();
    let tables = Tables::of(&serving);
    tables.make("Lost", None);
    tables.make("Other", None);
    tables.drop("Lost");
    assert_eq!(serving.stop(), 0, "{}", folder.log());
    let record = removed("100", "USER#1", Some(serde_json::json!({ "id": { "S": "USER#1" } })));
    lay_aside(&folder, ("records", "Lost"), &[("100", record)]);
    let serving = folder.serve();
    let letters = folder.json(&["dlq", "list"]);
    assert_eq!(letters["letters"][0]["table"], "local@Lost", "{letters:#}");
    let checked = folder.run(&["status", "--check"]);
    assert!(checked.code == 1 && checked.out.contains("local@Lost: 1 deleted record lies aside"), "{checked:?}");
    assert!(folder.ok(&["dlq", "redrive", "--all"]).contains("1 redriven"));
    assert_eq!(folder.json(&["archive", "get", "Lost", "USER#1"])["cause"], "ttl");
    assert_eq!(folder.run(&["status", "--check"]).code, 0, "{}", folder.json(&["status"]));
    assert_eq!(serving.stop(), 0, "{}", folder.log());
}

/// As the examples of the documentation are written.
#[test]
fn a_name_alone_is_the_table_of_this_machine() {
    let folder = Folder::new();
    let serving = folder.serve();
    let tables = Tables::of(&serving);
    tables.make("Orders", None);
    let tested = folder.json(&["archive", "self-test", "Orders"]);
    assert_eq!(tested["table"], "dynamodb://local@Orders", "{tested:#}");
    assert_eq!(tested["steps"].as_array().unwrap().iter().filter(|step| step["success"] != true).count(), 0);
    let refused = folder.run(&["archive", "enable", "local@Orders", "--ttl", "until"]);
    assert!(refused.code == 2 && refused.err.contains("aws dynamodb update-time-to-live --table-name Orders"));
    let ttl = TimeToLiveSpecification::builder().enabled(true).attribute_name("until").build().unwrap();
    let request = tables.client.update_time_to_live().table_name("Orders").time_to_live_specification(ttl);
    tables.runtime.block_on(request.send()).unwrap();
    assert!(tables.put("Orders", "a", &[]));
    let marked = folder.ok(&["record", "soft-delete", "Orders", "id=a", "--after", "30d"]);
    assert!(marked.contains("local@Orders") && !marked.contains("nothing brings it back"), "{marked}");
    assert!(tables.get("Orders", "a").unwrap().contains_key("until"));
    assert_eq!(serving.stop(), 0, "{}", folder.log());
}

#[test]
fn a_stream_that_is_switched_off_is_told_and_what_is_archived_is_read_without_the_endpoint() {
    let folder = Folder::new();
    fs::write(folder.root().join("off.toml"), "dynamodb_endpoint = \"off\"\n").unwrap();
    let serving = folder.serve();
    let tables = Tables::of(&serving);
    tables.make("Orders", None);
    assert!(tables.put("Orders", "a", &[]) && tables.delete("Orders", "a"));
    until_archived(&folder, "Orders", 1);
    let off = StreamSpecification::builder().stream_enabled(false).build().unwrap();
    let request = tables.client.update_table().table_name("Orders").stream_specification(off);
    tables.runtime.block_on(request.send()).unwrap();
    let checked = folder.run(&["status", "--check"]);
    assert!(checked.code == 0 && checked.out.contains("note: local@Orders: its stream is switched off"), "{checked:?}");
    assert_eq!(serving.stop(), 0, "{}", folder.log());

    let serving = folder.serve_with(&["--config", "off.toml"]);
    assert_eq!(archived(&folder, "Orders"), ["a"]);
    assert_eq!(folder.json(&["archive", "get", "Orders", "a"])["cause"], "user");
    let restored = folder.run(&["archive", "restore", "Orders", "a"]);
    assert!(restored.code == 1 && restored.err.contains("switched off"), "{restored:?}");
    assert_eq!(serving.stop(), 0, "{}", folder.log());
}

/// An archive that does not answer keeps a table from being deleted, and nobody from writing.
#[test]
fn a_table_whose_archive_does_not_answer_stays_and_says_why() {
    let folder = Folder::new();
    let service = "[[service]]\nname = \"away\"\nregion = \"eu-west-1\"\nendpoint = \"http://127.0.0.1:1\"\n";
    let archive = "[dynamodb_endpoint]\narchive = \"s3://away@records\"\n";
    fs::write(folder.root().join("away.toml"), format!("{archive}{service}")).unwrap();
    let serving = folder.serve_with(&["--config", "away.toml"]);
    let tables = Tables::of(&serving);
    tables.make("Orders", None);
    assert!(tables.put("Orders", "a", &[]) && tables.delete("Orders", "a"));
    let refused = tables.runtime.block_on(tables.client.delete_table().table_name("Orders").send()).unwrap_err();
    let why = refused.message().unwrap();
    assert!(why.contains("Connection refused"), "the cause: {why}");
    assert!(why.contains("`afterimage status`"), "the remedy: {why}");
    assert!(tables.put("Orders", "b", &[]));
    assert_eq!(serving.stop(), 0, "{}", folder.log());
}

/// A log on a disk that is full, or a pipe that nobody reads any more, keeps nothing from being done.
#[test]
fn where_nothing_can_be_told_everything_is_done_all_the_same() {
    let folder = Folder::new();
    let serving = folder.serve_untold();
    let tables = Tables::of(&serving);
    tables.make("Orders", None);
    assert!(tables.put("Orders", "a", &[]) && tables.delete("Orders", "a"));
    assert_eq!(until_archived(&folder, "Orders", 1), ["a"]);
    assert_eq!(serving.stop(), 0);
    // And the same of what is said at the start.
    let mut unread = folder.begin_untold(&["serve", "--listen", "127.0.0.1:0"]);
    unread.until_told("what is said at the start cannot be written");
    unread.signal("-INT");
    assert_eq!(unread.ended().code, 0);
}

/// Killed in the middle, again and again: every deletion that was acknowledged is archived, once.
#[test]
fn deletions_that_were_acknowledged_before_a_kill_are_archived() {
    const ROUNDS: usize = 4;
    let folder = Folder::new();
    let mut acknowledged: Vec<String> = Vec::new();
    for round in 0..ROUNDS {
        let serving = folder.serve();
        let tables = Tables::of(&serving);
        if round == 0 {
            tables.make("Orders", None);
        }
        let (tell, told) = mpsc::channel();
        let writer = std::thread::spawn(move || {
            let mut deleted = Vec::new();
            for n in 0.. {
                let id = format!("r{round}-{n:05}");
                if !(tables.put("Orders", &id, &[]) && tables.delete("Orders", &id)) {
                    return deleted;
                }
                deleted.push(id);
                tell.send(n).unwrap();
            }
            deleted
        });
        // In the middle of a put or a deletion, and of archiving.
        while told.recv().unwrap() < 100 {}
        let drained = std::thread::spawn(move || while told.recv().is_ok() {});
        folder.wait("some of this round", |_| archived(&folder, "Orders").len() > acknowledged.len());
        serving.kill();
        acknowledged.extend(writer.join().unwrap());
        drained.join().unwrap();
    }
    let serving = folder.serve();
    folder.wait("every record", |_| {
        let there = archived(&folder, "Orders");
        acknowledged.iter().all(|id| there.contains(id))
    });
    let mut there = archived(&folder, "Orders");
    let all = there.len();
    there.sort();
    there.dedup();
    assert_eq!(there.len(), all, "each once");
    // One may have been deleted in each round whose answer never came.
    assert!(all <= acknowledged.len() + ROUNDS, "{all} archived, {} acknowledged", acknowledged.len());
    assert_eq!(serving.stop(), 0, "{}", folder.log());
}

/// What a request without a header of its own is answered.
fn raw(serving: &Serving, head: &str) -> String {
    let mut socket = TcpStream::connect(serving.tables_address()).unwrap();
    let end = "Content-Length: 2\r\nConnection: close\r\n\r\n{}";
    socket.write_all(format!("{head}\r\nHost: {}\r\n{end}", serving.tables_address()).as_bytes()).unwrap();
    let mut said = String::new();
    socket.read_to_string(&mut said).unwrap();
    said
}

#[test]
fn only_who_has_the_keys_gets_in_and_no_web_page() {
    let folder = Folder::new();
    let serving = folder.serve();
    let target = "X-Amz-Target: DynamoDB_20120810.ListTables\r\nContent-Type: application/x-amz-json-1.0";
    let unsigned = raw(&serving, &format!("POST / HTTP/1.1\r\n{target}"));
    assert!(unsigned.starts_with("HTTP/1.1 400") && unsigned.contains("MissingAuthenticationToken"), "{unsigned}");
    assert!(unsigned.contains("afterimage credentials show"), "the remedy: {unsigned}");
    for head in [
        format!("POST / HTTP/1.1\r\nOrigin: http://localhost:3000\r\n{target}"),
        "OPTIONS / HTTP/1.1\r\nOrigin: null\r\nAccess-Control-Request-Method: POST".to_owned(),
        "OPTIONS / HTTP/1.1".to_owned(),
    ] {
        let refused = raw(&serving, &head);
        assert!(refused.starts_with("HTTP/1.1 403") && refused.contains("web pages"), "{refused}");
        assert!(!refused.to_ascii_lowercase().contains("access-control-allow"), "{refused}");
    }
    let health = raw(&serving, "GET / HTTP/1.1");
    assert!(health.starts_with("HTTP/1.1 404"), "{health}");
    let wrong = Tables::with_secret(&serving, "not the secret");
    let refused = wrong.runtime.block_on(wrong.client.list_tables().send()).unwrap_err();
    assert_eq!(refused.code(), Some("InvalidSignatureException"), "{refused:?}");
    // After a rotation, the old keys are nobody's.
    let tables = Tables::of(&serving);
    folder.ok(&["credentials", "rotate"]);
    let refused = tables.runtime.block_on(tables.client.list_tables().send()).unwrap_err();
    assert_eq!(refused.code(), Some("UnrecognizedClientException"), "{refused:?}");
    assert_eq!(serving.stop(), 0, "{}", folder.log());
}

#[test]
fn a_switch_turns_it_off_and_a_bucket_in_the_way_is_told_before_a_table_is_made() {
    let folder = Folder::new();
    fs::write(folder.root().join("off.toml"), "dynamodb_endpoint = \"off\"\n").unwrap();
    let serving = folder.serve_with(&["--config", "off.toml"]);
    assert!(!serving.printed.contains("DynamoDB"), "{}", serving.printed);
    assert!(!folder.data().join("tables.sqlite").exists());
    assert_eq!(serving.s3.make_bucket("records").unwrap().0, 200);
    assert_eq!(serving.stop(), 0, "{}", folder.log());

    fs::write(folder.root().join("off.toml"), "").unwrap();
    let serving = folder.serve_with(&["--config", "off.toml"]);
    let tables = Tables::of(&serving);
    let key = KeySchemaElement::builder().attribute_name("id").key_type(KeyType::Hash).build().unwrap();
    let typed = AttributeDefinition::builder().attribute_name("id").attribute_type(ScalarAttributeType::S);
    let request = tables.client.create_table().table_name("Orders").billing_mode(BillingMode::PayPerRequest);
    let request = request.key_schema(key).attribute_definitions(typed.build().unwrap());
    let refused = tables.runtime.block_on(request.send()).unwrap_err();
    assert!(refused.message().unwrap().contains("bucket records is a source"), "{refused:?}");
    assert_eq!(serving.stop(), 0, "{}", folder.log());
}
