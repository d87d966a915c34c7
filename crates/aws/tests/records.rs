//! A record's whole way, against an engine that speaks the protocol: put, deleted, told by the stream, archived, put back.
//! What comes back is equal attribute by attribute, whatever types it is made of.

#![expect(clippy::unwrap_used, reason = "a panic is a test's message")]

use aws::dynamodb::DynamoDbTable;
use aws::{DynamoDbStream, SdkConfig, Service};
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region, SharedCredentialsProvider};
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue::{self, B, Bool, Bs, L, M, N, Ns, Null, S, Ss};
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType, StreamSpecification,
    StreamViewType, TimeToLiveSpecification,
};
use dynoxide::Database;
use engine::error::ErrorKind;
use engine::flows::archive::Archive;
use engine::flows::restore_records::{RecordsRequest, RestoreRecords, Wanted};
use engine::memory::bucket::Versioning;
use engine::memory::wiring::Memory;
use engine::ports::progress::Silent;
use engine::ports::streams::{Position, Read, RecordStream};
use engine::ports::tables::{PutOnto, RecordTable, TableShape};
use engine::steps::archived_names::Days;
use engine::steps::met::MetInMemory;
use engine::wrap::unpacked::Unpacked;
use lifecycle::archive::ServiceName;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::json;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

type Item = HashMap<String, AttributeValue>;

/// Items that are put and deleted.
const ITEMS: usize = 200;

async fn engine() -> (Client, SdkConfig) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let keys = Credentials::new("test", "test", None, None, "test");
    let config = SdkConfig::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new("eu-central-1"))
        .endpoint_url(format!("http://{}", listener.local_addr().unwrap()))
        .credentials_provider(SharedCredentialsProvider::new(keys))
        .build();
    // It ends with the test's runtime.
    let database = Database::memory().unwrap();
    tokio::spawn(dynoxide::server::serve_with_shutdown(listener, database, std::future::pending()));
    (Client::new(&config), config)
}

async fn make(client: &Client, table: &str) {
    let key = |name: &str, kind| KeySchemaElement::builder().attribute_name(name).key_type(kind).build().unwrap();
    let typed =
        |name: &str, kind| AttributeDefinition::builder().attribute_name(name).attribute_type(kind).build().unwrap();
    let stream = StreamSpecification::builder().stream_enabled(true).stream_view_type(StreamViewType::OldImage);
    let request = client.create_table().table_name(table).billing_mode(BillingMode::PayPerRequest);
    let request = request.key_schema(key("pk", KeyType::Hash)).key_schema(key("sk", KeyType::Range));
    let request = request.attribute_definitions(typed("pk", ScalarAttributeType::S));
    let request = request.attribute_definitions(typed("sk", ScalarAttributeType::B));
    request.stream_specification(stream.build().unwrap()).send().await.unwrap();
}

fn numbers() -> impl Strategy<Value = String> {
    // As DynamoDB gives them back: at most 38 digits, no zeros at the ends.
    prop_oneof![
        Just("0".to_owned()),
        "-?[1-9][0-9]{0,36}[1-9]",
        "-?[1-9]",
        "-?[1-9][0-9]{0,15}\\.[0-9]{0,15}[1-9]",
        "-?0\\.0{0,20}[1-9][0-9]{0,15}[1-9]",
    ]
}

fn values() -> impl Strategy<Value = AttributeValue> {
    let blob = || proptest::collection::vec(any::<u8>(), 0..40).prop_map(Blob::new);
    let leaf = prop_oneof![
        proptest::collection::vec(any::<char>(), 0..20).prop_map(|chars| S(String::from_iter(chars))),
        numbers().prop_map(N),
        blob().prop_map(B),
        any::<bool>().prop_map(Bool),
        Just(Null(true)),
        proptest::collection::btree_set("[a-zé/]{1,6}", 1..5).prop_map(|set| Ss(set.into_iter().collect())),
        proptest::collection::btree_set("[1-9][0-9]{0,36}", 1..5).prop_map(|set| Ns(set.into_iter().collect())),
        proptest::collection::btree_set(proptest::collection::vec(any::<u8>(), 1..9), 1..5)
            .prop_map(|set| Bs(set.into_iter().map(Blob::new).collect())),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(L),
            proptest::collection::hash_map("[a-z.# ]{1,8}", inner, 0..4).prop_map(M),
        ]
    })
}

fn items() -> impl Strategy<Value = Item> {
    let more = proptest::collection::hash_map("[a-z:é_ ]{3,12}", values(), 0..8);
    let keys = ("[a-zA-Z0-9#/ .é~%_]{1,60}", proptest::collection::vec(any::<u8>(), 1..60));
    (keys, more).prop_map(|((pk, sk), mut item)| {
        item.insert("pk".to_owned(), S(pk));
        item.insert("sk".to_owned(), B(Blob::new(sk)));
        item
    })
}

/// Sets have no order.
fn in_order(value: &AttributeValue) -> AttributeValue {
    fn sorted<T: Ord + Clone>(of: &[T]) -> Vec<T> {
        of.iter().cloned().collect::<BTreeSet<T>>().into_iter().collect()
    }
    match value {
        Ss(set) => Ss(sorted(set)),
        Ns(set) => Ns(sorted(set)),
        Bs(set) => {
            let bytes: Vec<Vec<u8>> = set.iter().map(|blob| blob.as_ref().to_vec()).collect();
            Bs(sorted(&bytes).into_iter().map(Blob::new).collect())
        }
        L(all) => L(all.iter().map(in_order).collect()),
        M(all) => M(all.iter().map(|(name, value)| (name.clone(), in_order(value))).collect()),
        other => other.clone(),
    }
}

fn equal(one: &Item, other: &Item) -> bool {
    let in_order = |item: &Item| -> Item { item.iter().map(|(name, value)| (name.clone(), in_order(value))).collect() };
    in_order(one) == in_order(other)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_deleted_comes_back_equal_attribute_by_attribute() {
    let (client, config) = engine().await;
    make(&client, "Orders").await;
    let mut runner = TestRunner::deterministic();
    let mut put: HashMap<(String, Vec<u8>), Item> = HashMap::new();
    for _ in 0..ITEMS {
        let item = items().new_tree(&mut runner).unwrap().current();
        let key = (item["pk"].as_s().unwrap().clone(), item["sk"].as_b().unwrap().as_ref().to_vec());
        client.put_item().table_name("Orders").set_item(Some(item.clone())).send().await.unwrap();
        put.insert(key, item);
    }
    // What the table itself makes of them is what must come back.
    for item in put.values_mut() {
        let request =
            client.get_item().table_name("Orders").key("pk", item["pk"].clone()).key("sk", item["sk"].clone());
        *item = request.send().await.unwrap().item.unwrap();
        let request = client.delete_item().table_name("Orders");
        request.key("pk", item["pk"].clone()).key("sk", item["sk"].clone()).send().await.unwrap();
    }
    let memory = Memory::new(Versioning::Off);
    let service = ServiceName::new("orders").unwrap();
    let archive = Archive::new("Orders", memory.destination.clone(), memory.metrics.clone());
    let streams = Service::default().streams(&config);
    let stream = DynamoDbStream::open(&client, streams, service.clone(), "Orders").await.unwrap();
    let shard = stream.shards().await.unwrap()[0].id.clone();
    let mut reader = stream.open(&shard, Position::Oldest).await.unwrap();
    while let Read::Records(records) = reader.next().await.unwrap()
        && !records.is_empty()
    {
        assert!(archive.archive(&records).await.iter().all(Result::is_ok));
    }
    assert_eq!(memory.metrics.snapshot()["archived"], put.len() as u64);
    assert_eq!(memory.metrics.snapshot()["laid_aside"], 0);

    let restore = RestoreRecords {
        archive: Arc::new(Unpacked::new(memory.destination.clone())),
        from_table: Some("Orders".to_owned()),
        condition: None,
        table: Arc::new(DynamoDbTable::new(client.clone(), "Orders")),
        journal: memory.journal.clone(),
        clock: memory.clock.clone(),
        who: "alice".to_owned(),
    };
    let wanted = Wanted::Range { days: Days::default(), cause: None };
    let request = RecordsRequest::new(service, wanted);
    let report = restore.run(&request, &MetInMemory::default(), &Silent, &CancellationToken::new()).await;
    assert_eq!((report.counted("restored"), report.failures), (put.len() as u64, 0), "{:?}", report.failed);
    for item in put.values() {
        let request =
            client.get_item().table_name("Orders").key("pk", item["pk"].clone()).key("sk", item["sk"].clone());
        let back = request.send().await.unwrap().item.unwrap();
        assert!(equal(&back, item), "{back:?}\n{item:?}");
    }
    let again = restore.run(&request, &MetInMemory::default(), &Silent, &CancellationToken::new()).await;
    assert_eq!((again.counted("there"), again.failures), (put.len() as u64, 0), "{:?}", again.failed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_says_its_shape_and_takes_a_record_on_condition() {
    let (client, _) = engine().await;
    make(&client, "Orders").await;
    let table = DynamoDbTable::new(client.clone(), "Orders");
    let shape = TableShape { key_names: vec!["pk".to_owned(), "sk".to_owned()], ttl: None };
    assert_eq!(table.shape().await.unwrap(), shape);
    let ttl = TimeToLiveSpecification::builder().enabled(true).attribute_name("until").build().unwrap();
    client.update_time_to_live().table_name("Orders").time_to_live_specification(ttl).send().await.unwrap();
    assert_eq!(table.shape().await.unwrap().ttl.as_deref(), Some("until"));
    let record = |n: &str| {
        let record = json!({ "pk": { "S": "a" }, "sk": { "B": "AA==" }, "n": { "N": n } });
        record.as_object().unwrap().clone()
    };
    assert!(table.put(&record("1"), &shape, PutOnto::Nothing).await.unwrap());
    assert!(!table.put(&record("2"), &shape, PutOnto::Nothing).await.unwrap());
    assert!(table.put(&record("3"), &shape, PutOnto::Anything).await.unwrap());
    let key = client.get_item().table_name("Orders").key("pk", S("a".to_owned())).key("sk", B(Blob::new([0])));
    assert_eq!(key.send().await.unwrap().item.unwrap()["n"], N("3".to_owned()));
    let foreign = json!({ "pk": { "S": "a" }, "sk": { "B": "AA==" }, "x": { "Q": 1 } });
    let refused = table.put(foreign.as_object().unwrap(), &shape, PutOnto::Anything).await.unwrap_err();
    assert!(matches!(&refused.kind, ErrorKind::Invalid(why) if why.contains("`x`")), "{refused}");
    let missing = DynamoDbTable::new(client, "Nowhere").shape().await.unwrap_err();
    assert_eq!(missing.kind, ErrorKind::Missing);
}
