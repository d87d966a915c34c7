//! The stream of a table: against an engine that speaks the protocol, every type exact; and against a server of the test's
//! own that says what an engine with one shard never says: splits over pages, iterators that have grown too old, records
//! that are forgotten, ends.

#![expect(clippy::unwrap_used, reason = "a panic is a test's message")]

use aws::{DynamoDbStream, SdkConfig, Service};
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region, SharedCredentialsProvider};
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue::{self, B, Bool, Bs, L, M, N, Ns, Null, S, Ss};
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType, StreamSpecification,
    StreamViewType, TimeToLiveSpecification,
};
use dynoxide::Database;
use engine::error::ErrorKind;
use engine::ports::streams::{Change, DeletedRecord, Position, Read, RecordStream, Shard, ShardId, StreamRecord};
use lifecycle::archive::{Cause, KeyValue, Sequence, ServiceName};
use serde_json::{Value, json};
use std::collections::{HashMap, VecDeque};
use std::io::{BufRead, BufReader, Read as _, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::thread;

fn service() -> ServiceName {
    ServiceName::new("orders").unwrap()
}

fn config(url: &str) -> SdkConfig {
    let keys = Credentials::new("test", "test", None, None, "test");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new("eu-central-1"))
        .endpoint_url(url)
        .retry_config(RetryConfig::disabled())
        .credentials_provider(SharedCredentialsProvider::new(keys))
        .build()
}

struct Engine {
    database: Database,
    tables: aws_sdk_dynamodb::Client,
    config: SdkConfig,
}

impl Engine {
    async fn start() -> Engine {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let config = config(&format!("http://{}", listener.local_addr().unwrap()));
        let database = Database::memory().unwrap();
        // It ends with the test's runtime.
        let never = std::future::pending();
        tokio::spawn(dynoxide::server::serve_with_shutdown(listener, database.clone(), never));
        Engine { database, tables: aws_sdk_dynamodb::Client::new(&config), config }
    }

    async fn make(&self, table: &str, view: Option<StreamViewType>) {
        let key = |name: &str, kind| KeySchemaElement::builder().attribute_name(name).key_type(kind).build().unwrap();
        let typed = |name: &str, kind| {
            AttributeDefinition::builder().attribute_name(name).attribute_type(kind).build().unwrap()
        };
        let stream = view
            .map(|view| StreamSpecification::builder().stream_enabled(true).stream_view_type(view).build().unwrap());
        let request = self.tables.create_table().table_name(table).billing_mode(BillingMode::PayPerRequest);
        let request = request.key_schema(key("who", KeyType::Hash)).key_schema(key("at", KeyType::Range));
        let request = request.attribute_definitions(typed("who", ScalarAttributeType::B));
        let request = request.attribute_definitions(typed("at", ScalarAttributeType::N));
        request.set_stream_specification(stream).send().await.unwrap();
    }

    async fn stream(&self, table: &str) -> engine::error::PortResult<DynamoDbStream> {
        let streams = Service::default().streams(&self.config);
        DynamoDbStream::open(&self.tables, streams, service(), table).await
    }
}

fn key(n: u32) -> HashMap<String, AttributeValue> {
    HashMap::from([("who".to_owned(), B(Blob::new([0xfb, 0xff]))), ("at".to_owned(), N(n.to_string()))])
}

/// All that the stream's one shard has.
async fn all(stream: &DynamoDbStream) -> Vec<StreamRecord> {
    let shards = stream.shards().await.unwrap();
    assert_eq!(shards.len(), 1);
    let mut reader = stream.open(&shards[0].id, Position::Oldest).await.unwrap();
    let mut records = Vec::new();
    loop {
        match reader.next().await.unwrap() {
            Read::Records(more) if more.is_empty() => return records,
            Read::Records(more) => records.extend(more),
            other => panic!("the shard is open: {other:?}"),
        }
    }
}

fn deletions(records: &[StreamRecord]) -> Vec<&DeletedRecord> {
    let deleted = records.iter().filter_map(|record| match &record.change {
        Change::Deleted(deleted) => Some(deleted.as_ref()),
        Change::Written => None,
        Change::Unreadable { why, .. } => panic!("{why}"),
    });
    deleted.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_users_and_the_time_to_live_delete_comes_whole_and_exact() {
    let engine = Engine::start().await;
    engine.make("Orders", Some(StreamViewType::NewAndOldImages)).await;
    let ttl = TimeToLiveSpecification::builder().enabled(true).attribute_name("until").build().unwrap();
    engine.tables.update_time_to_live().table_name("Orders").time_to_live_specification(ttl).send().await.unwrap();
    let mut item = key(7);
    let digits = "-12345678901234567890.123456789012345678";
    item.extend([
        ("number".to_owned(), N(digits.to_owned())),
        ("empty".to_owned(), S(String::new())),
        ("binary".to_owned(), B(Blob::new([0, 255]))),
        ("no".to_owned(), Bool(false)),
        ("nothing".to_owned(), Null(true)),
        ("texts".to_owned(), Ss(vec!["a".to_owned(), "é".to_owned()])),
        ("numbers".to_owned(), Ns(vec!["1".to_owned()])),
        ("binaries".to_owned(), Bs(vec![Blob::new([1])])),
        ("nested".to_owned(), L(vec![M(HashMap::from([("x".to_owned(), L(Vec::new()))])), S("y".to_owned())])),
    ]);
    engine.tables.put_item().table_name("Orders").set_item(Some(item)).send().await.unwrap();
    engine.tables.delete_item().table_name("Orders").set_key(Some(key(7))).send().await.unwrap();
    let mut over = key(8);
    over.insert("until".to_owned(), N("1000000000".to_owned()));
    // Long past: the engine, as AWS, leaves what is more than five years over.
    let long_over = over.clone();
    engine.tables.put_item().table_name("Orders").set_item(Some(long_over)).send().await.unwrap();
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    over.insert("until".to_owned(), N((now - 60).to_string()));
    engine.tables.put_item().table_name("Orders").set_item(Some(over)).send().await.unwrap();
    assert_eq!(engine.database.sweep_ttl().unwrap(), 1);

    let stream = engine.stream("Orders").await.unwrap();
    let records = all(&stream).await;
    let deleted = deletions(&records);
    assert_eq!(deleted.iter().map(|deleted| deleted.cause).collect::<Vec<_>>(), [Cause::User, Cause::Ttl]);
    let first = deleted[0];
    assert_eq!(first.key_names, ["who", "at"]);
    let values = [KeyValue::Binary(vec![0xfb, 0xff]), KeyValue::Number("7".to_owned())];
    assert_eq!((&first.deletion.key[..], first.deletion.table.as_str()), (&values[..], "Orders"));
    assert!(first.deletion.plain_name().as_str().ends_with("/-_8_7.json"), "{}", first.deletion.plain_name());
    let image = json!({
        "who": { "B": "+/8=" }, "at": { "N": "7" }, "number": { "N": digits }, "empty": { "S": "" },
        "binary": { "B": "AP8=" }, "no": { "BOOL": false }, "nothing": { "NULL": true },
        "texts": { "SS": ["a", "é"] }, "numbers": { "NS": ["1"] }, "binaries": { "BS": ["AQ=="] },
        "nested": { "L": [{ "M": { "x": { "L": [] } } }, { "S": "y" }] },
    });
    assert_eq!(first.record["dynamodb"]["OldImage"], image);
    assert_eq!(first.record["eventName"], "REMOVE");
    assert_eq!(deleted[1].record["userIdentity"]["principalId"], "dynamodb.amazonaws.com");
    // From a place in the middle on, only what is behind it.
    let shard = stream.shards().await.unwrap()[0].id.clone();
    let mut reader = stream.open(&shard, Position::After(records[1].sequence.clone())).await.unwrap();
    assert_eq!(reader.next().await.unwrap(), Read::Records(records[2..].to_vec()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_whose_stream_cannot_be_archived_is_refused_with_the_remedy() {
    let engine = Engine::start().await;
    engine.make("None", None).await;
    engine.make("Keys", Some(StreamViewType::KeysOnly)).await;
    engine.make("New", Some(StreamViewType::NewImage)).await;
    engine.make("Old", Some(StreamViewType::OldImage)).await;
    for (table, why) in [("None", "it has no stream"), ("Keys", "KEYS_ONLY only"), ("New", "NEW_IMAGE only")] {
        let Err(refused) = engine.stream(table).await else { panic!("{table} is taken") };
        let ErrorKind::NotSetUp(text) = &refused.kind else { panic!("{refused}") };
        assert!(text.contains(why) && text.contains("OLD_IMAGE or NEW_AND_OLD_IMAGES"), "{text}");
    }
    engine.stream("Old").await.unwrap();
    let Err(missing) = engine.stream("Nowhere").await else { panic!("there is no such table") };
    assert_eq!(missing.kind, ErrorKind::Missing);
}

/// A body, or the code of an error.
type Answer = Result<Value, &'static str>;

/// What the server answers to calls of an operation, in order; and what it was asked.
#[derive(Clone, Default)]
struct Script {
    answers: Arc<Mutex<HashMap<&'static str, VecDeque<Answer>>>>,
    asked: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Script {
    fn answer(&self, operation: &'static str, answer: Answer) {
        self.answers.lock().unwrap().entry(operation).or_default().push_back(answer);
    }

    fn asked(&self, operation: &str) -> Vec<Value> {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|(name, _)| name == operation).map(|(_, body)| body.clone()).collect()
    }

    /// A stream at a server that answers by this script.
    async fn stream(&self) -> DynamoDbStream {
        self.answer(
            "DescribeTable",
            Ok(json!({ "Table": {
            "TableName": "Orders",
            "KeySchema": [
                { "AttributeName": "sk", "KeyType": "RANGE" }, { "AttributeName": "pk", "KeyType": "HASH" },
            ],
            "StreamSpecification": { "StreamEnabled": true, "StreamViewType": "OLD_IMAGE" },
            "LatestStreamArn": "arn:aws:dynamodb:eu-central-1:1:table/Orders/stream/2026-11-21T00:00:00.000",
            "LatestStreamLabel": "2026-11-21T00:00:00.000",
        } })),
        );
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let config = config(&format!("http://{}", listener.local_addr().unwrap()));
        let script = self.clone();
        // It ends with the test's process.
        thread::spawn(move || listener.incoming().for_each(|client| script.serve(client.unwrap())));
        let tables = aws_sdk_dynamodb::Client::new(&config);
        DynamoDbStream::open(&tables, Service::default().streams(&config), service(), "Orders").await.unwrap()
    }

    fn serve(&self, mut client: std::net::TcpStream) {
        let mut request = BufReader::new(client.try_clone().unwrap());
        let mut headers = HashMap::new();
        let mut line = String::new();
        while request.read_line(&mut line).unwrap() > 2 {
            if let Some((name, value)) = line.trim_end().split_once(": ") {
                headers.insert(name.to_lowercase(), value.to_owned());
            }
            line.clear();
        }
        let mut body = vec![0; headers["content-length"].parse().unwrap()];
        request.read_exact(&mut body).unwrap();
        let operation = headers["x-amz-target"].rsplit('.').next().unwrap().to_owned();
        let next = self.answers.lock().unwrap().get_mut(operation.as_str()).and_then(VecDeque::pop_front);
        self.asked.lock().unwrap().push((operation, serde_json::from_slice(&body).unwrap()));
        let (status, text) = match next {
            Some(Ok(answer)) => ("200 OK", answer),
            Some(Err(code)) => ("400 Bad Request", json!({ "__type": format!("x#{code}"), "message": "no" })),
            None => ("500 Internal Server Error", json!({ "__type": "x#InternalServerError" })),
        };
        let text = text.to_string();
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", text.len());
        client.write_all(format!("{head}{text}").as_bytes()).unwrap();
    }
}

fn iterator(name: &str) -> Answer {
    Ok(json!({ "ShardIterator": name }))
}

/// A page with the deletions of these numbers.
fn page(numbers: &[u32], next: Option<&str>) -> Answer {
    let records: Vec<Value> = numbers
        .iter()
        .map(|n| {
            json!({
                "eventID": n.to_string(), "eventName": "REMOVE",
                "dynamodb": {
                    "ApproximateCreationDateTime": 1_795_245_972, "SequenceNumber": format!("{n:021}"),
                    "Keys": { "pk": { "S": "a" }, "sk": { "S": n.to_string() } },
                    "OldImage": { "pk": { "S": "a" }, "sk": { "S": n.to_string() } },
                },
            })
        })
        .collect();
    Ok(json!({ "Records": records, "NextShardIterator": next }))
}

fn numbers(read: &Read) -> Vec<String> {
    let Read::Records(records) = read else { panic!("{read:?}") };
    deletions(records).iter().map(|deleted| deleted.deletion.key_in_names()).collect()
}

#[tokio::test]
async fn shards_are_listed_over_pages_with_their_parents() {
    let script = Script::default();
    let stream = script.stream().await;
    let shard = |id: &str, parent: Option<&str>| json!({ "ShardId": id, "ParentShardId": parent });
    script.answer(
        "DescribeStream",
        Ok(json!({ "StreamDescription": {
        "Shards": [shard("s0", Some("long-gone")), shard("s1", Some("s0"))], "LastEvaluatedShardId": "s1",
    } })),
    );
    script.answer("DescribeStream", Ok(json!({ "StreamDescription": { "Shards": [shard("s2", None)] } })));
    let wanted = [("s0", Some("long-gone")), ("s1", Some("s0")), ("s2", None)].map(|(id, parent)| Shard {
        id: ShardId(id.to_owned()),
        parent: parent.map(|parent| ShardId(parent.to_owned())),
    });
    assert_eq!(stream.shards().await.unwrap(), wanted);
    assert_eq!(script.asked("DescribeStream")[1]["ExclusiveStartShardId"], "s1");
    assert_eq!(stream.name(), "2026-11-21T00:00:00.000");
}

#[tokio::test]
async fn an_empty_page_is_not_the_end_and_the_end_is_the_end() {
    let script = Script::default();
    let stream = script.stream().await;
    script.answer("GetShardIterator", iterator("i1"));
    for answer in [page(&[1, 2], Some("i2")), page(&[], Some("i3")), page(&[3], None)] {
        script.answer("GetRecords", answer);
    }
    let mut reader = stream.open(&ShardId("s".to_owned()), Position::Oldest).await.unwrap();
    assert_eq!(numbers(&reader.next().await.unwrap()), ["a_1", "a_2"]);
    assert_eq!(reader.next().await.unwrap(), Read::Records(Vec::new()));
    assert_eq!(numbers(&reader.next().await.unwrap()), ["a_3"]);
    for _ in 0..2 {
        assert_eq!(reader.next().await.unwrap(), Read::End);
    }
    let asked: Vec<Value> = script.asked("GetRecords").iter().map(|body| body["ShardIterator"].clone()).collect();
    assert_eq!(asked, ["i1", "i2", "i3"]);
    assert_eq!(script.asked("GetShardIterator")[0]["ShardIteratorType"], "TRIM_HORIZON");
}

#[tokio::test]
async fn an_iterator_that_grew_too_old_is_asked_for_again_behind_what_was_read_and_not_for_ever() {
    let script = Script::default();
    let stream = script.stream().await;
    for name in ["i1", "i2", "i3", "i4", "i5", "i6"] {
        script.answer("GetShardIterator", iterator(name));
    }
    script.answer("GetRecords", page(&[1], Some("old")));
    script.answer("GetRecords", Err("ExpiredIteratorException"));
    script.answer("GetRecords", page(&[2], Some("next")));
    let mut reader = stream.open(&ShardId("s".to_owned()), Position::Oldest).await.unwrap();
    assert_eq!(numbers(&reader.next().await.unwrap()), ["a_1"]);
    assert_eq!(numbers(&reader.next().await.unwrap()), ["a_2"]);
    let again = &script.asked("GetShardIterator")[1];
    assert_eq!(again["ShardIteratorType"], "AFTER_SEQUENCE_NUMBER");
    assert_eq!(again["SequenceNumber"], format!("{:021}", 1));
    for _ in 0..4 {
        script.answer("GetRecords", Err("ExpiredIteratorException"));
    }
    assert_eq!(reader.next().await.unwrap_err().kind, ErrorKind::Unavailable);
}

#[tokio::test]
async fn after_a_failure_the_same_comes_again() {
    let script = Script::default();
    let stream = script.stream().await;
    script.answer("GetShardIterator", iterator("i1"));
    script.answer("GetShardIterator", iterator("i2"));
    script.answer("GetRecords", page(&[1], Some("next")));
    script.answer("GetRecords", Err("ProvisionedThroughputExceededException"));
    script.answer("GetRecords", page(&[2], Some("next")));
    let mut reader = stream.open(&ShardId("s".to_owned()), Position::Oldest).await.unwrap();
    assert_eq!(numbers(&reader.next().await.unwrap()), ["a_1"]);
    assert_eq!(reader.next().await.unwrap_err().kind, ErrorKind::Throttled);
    assert_eq!(numbers(&reader.next().await.unwrap()), ["a_2"]);
    assert_eq!(script.asked("GetShardIterator")[1]["SequenceNumber"], format!("{:021}", 1));
}

#[tokio::test]
async fn what_the_stream_has_forgotten_is_said_wherever_it_says_so() {
    let script = Script::default();
    let stream = script.stream().await;
    let from = Position::After(Sequence::new("5").unwrap());
    script.answer("GetShardIterator", Err("TrimmedDataAccessException"));
    let mut reader = stream.open(&ShardId("s".to_owned()), from.clone()).await.unwrap();
    assert_eq!(reader.next().await.unwrap(), Read::Trimmed);
    script.answer("GetShardIterator", iterator("i1"));
    script.answer("GetRecords", Err("TrimmedDataAccessException"));
    let mut reader = stream.open(&ShardId("s".to_owned()), from.clone()).await.unwrap();
    assert_eq!(reader.next().await.unwrap(), Read::Trimmed);
    script.answer("GetShardIterator", Err("ResourceNotFoundException"));
    let mut reader = stream.open(&ShardId("s".to_owned()), from).await.unwrap();
    assert_eq!(reader.next().await.unwrap(), Read::Gone);
}

/// Streams that the table had before: read, if they have something for the archive.
#[tokio::test]
async fn an_older_stream_is_read_if_it_carries_old_images() {
    let script = Script::default();
    let stream = script.stream().await;
    let arn = |label: &str| format!("arn:aws:dynamodb:eu-central-1:1:table/Orders/stream/{label}");
    let listed = |label: &str| json!({ "StreamArn": arn(label), "StreamLabel": label, "TableName": "Orders" });
    script.answer(
        "ListStreams",
        Ok(json!({
            "Streams": [listed("2026-11-20"), listed("2026-11-21T00:00:00.000")], "LastEvaluatedStreamArn": arn("x"),
        })),
    );
    script.answer("ListStreams", Ok(json!({ "Streams": [listed("2026-11-19")] })));
    let view = |view: &str| Ok(json!({ "StreamDescription": { "StreamViewType": view } }));
    script.answer("DescribeStream", view("NEW_AND_OLD_IMAGES"));
    script.answer("DescribeStream", view("KEYS_ONLY"));
    let older = stream.older().await.unwrap();
    assert_eq!(older.iter().map(|stream| stream.name()).collect::<Vec<_>>(), ["2026-11-20"]);
}
