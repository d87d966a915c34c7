//! The table: made whole, and refused with every difference when it is another one.

use super::server::Engine;
use super::{key, removal, row};
use aws::dynamodb::{DynamoDbCatalog, Table, check_table, create_table};
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, GlobalSecondaryIndex, KeySchemaElement, KeyType, Projection, ProjectionType,
    ScalarAttributeType, TimeToLiveSpecification,
};
use engine::error::ErrorKind;
use engine::ports::catalog::{Catalog, CatalogRead, PolicyState, StateChange};
use lifecycle::time::UnixMs;

/// A table of any shape: its keys, its index with keys, what expires it.
struct Shape {
    keys: [(&'static str, ScalarAttributeType); 2],
    index: Option<(&'static str, [(&'static str, ScalarAttributeType); 2])>,
    ttl: Option<&'static str>,
}

const RIGHT_KEYS: [(&str, ScalarAttributeType); 2] =
    [("original_key", ScalarAttributeType::S), ("copy_key", ScalarAttributeType::S)];
const RIGHT_INDEX: [(&str, ScalarAttributeType); 2] =
    [("status", ScalarAttributeType::S), ("disowned_at", ScalarAttributeType::N)];
const INDEX: &str = "status-disowned_at-index";

async fn make(engine: &Engine, shape: Shape) -> String {
    let name = engine.name();
    let schema = |keys: &[(&str, ScalarAttributeType); 2]| {
        let kinds = [KeyType::Hash, KeyType::Range];
        let element = |(name, kind): (&str, KeyType)| {
            KeySchemaElement::builder().attribute_name(name).key_type(kind).build().unwrap()
        };
        keys.iter().map(|(name, _)| *name).zip(kinds).map(element).collect::<Vec<_>>()
    };
    let mut create = engine.client.create_table().table_name(&name).billing_mode(BillingMode::PayPerRequest);
    let all = shape.keys.iter().chain(shape.index.iter().flat_map(|(_, keys)| keys));
    for (name, kind) in all {
        let definition = AttributeDefinition::builder().attribute_name(*name).attribute_type(kind.clone()).build();
        create = create.attribute_definitions(definition.unwrap());
    }
    create = create.set_key_schema(Some(schema(&shape.keys)));
    if let Some((index, keys)) = &shape.index {
        let all = Projection::builder().projection_type(ProjectionType::All).build();
        let index =
            GlobalSecondaryIndex::builder().index_name(*index).set_key_schema(Some(schema(keys))).projection(all);
        create = create.global_secondary_indexes(index.build().unwrap());
    }
    create.send().await.unwrap();
    if let Some(attribute) = shape.ttl {
        let on = TimeToLiveSpecification::builder().enabled(true).attribute_name(attribute).build().unwrap();
        engine.client.update_time_to_live().table_name(&name).time_to_live_specification(on).send().await.unwrap();
    }
    name
}

async fn refusal(engine: &Engine, shape: Shape) -> String {
    let name = make(engine, shape).await;
    let error = check_table(&engine.client, &name).await.unwrap_err();
    assert!(error.to_string().contains(&name), "{error}");
    match error.kind {
        ErrorKind::NotSetUp(why) => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_difference_of_a_table_is_named() {
    let engine = Engine::start().await;
    let right = || Shape { keys: RIGHT_KEYS, index: Some((INDEX, RIGHT_INDEX)), ttl: Some("expires_at") };
    check_table(&engine.client, &make(&engine, right()).await).await.unwrap();
    let told = |why: &str| format!("it is no table of a catalog: {why}");

    let none = Shape { index: None, ttl: None, ..right() };
    let expected =
        "index `status-disowned_at-index` is missing; items do not expire: time to live must be on, by `expires_at`";
    assert_eq!(refusal(&engine, none).await, told(expected));

    let turned = [RIGHT_KEYS[1].clone(), RIGHT_KEYS[0].clone()];
    let expected = "the table has partition key `copy_key`, not `original_key`; the table has sort key `original_key`, not `copy_key`";
    assert_eq!(refusal(&engine, Shape { keys: turned, ..right() }).await, told(expected));

    let text = [("status", ScalarAttributeType::S), ("disowned_at", ScalarAttributeType::S)];
    let expected = "key attribute `disowned_at` has type S, not N";
    assert_eq!(refusal(&engine, Shape { index: Some((INDEX, text)), ..right() }).await, told(expected));

    let other = [("state", ScalarAttributeType::S), ("disowned_at", ScalarAttributeType::N)];
    let expected = "index `status-disowned_at-index` has partition key `state`, not `status`; items expire by `ttl`, not `expires_at`";
    assert_eq!(
        refusal(&engine, Shape { index: Some((INDEX, other)), ttl: Some("ttl"), ..right() }).await,
        told(expected)
    );

    let numbers = [("original_key", ScalarAttributeType::B), ("copy_key", ScalarAttributeType::S)];
    let expected = "key attribute `original_key` has type B, not S";
    assert_eq!(refusal(&engine, Shape { keys: numbers, ..right() }).await, told(expected));

    let missing = check_table(&engine.client, "no.such.table").await.unwrap_err();
    assert_eq!(missing.kind, ErrorKind::Missing);
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_table_is_never_opened_and_never_written_to() {
    let engine = Engine::start().await;
    let name = make(&engine, Shape { keys: RIGHT_KEYS, index: None, ttl: None }).await;
    engine.between.take_calls();
    let clock = engine.clock.clone();
    let nonces = std::sync::Arc::new(engine::memory::nonces::MemoryNonces::seeded(1));
    let opened =
        DynamoDbCatalog::open(engine.client.clone(), &Table::named(&name), clock.clone(), nonces.clone()).await;
    assert!(matches!(opened.err().unwrap().kind, ErrorKind::NotSetUp(_)));
    let reads = engine.between.take_calls();
    assert!(reads.keys().all(|operation| operation.starts_with("Describe")), "{reads:?}");

    let bad = Table { index_shards: 65, ..Table::named(&name) };
    let error = DynamoDbCatalog::open(engine.client.clone(), &bad, clock, nonces).await.err().unwrap();
    assert!(error.to_string().contains("write 1 to 64"), "{error}");
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_is_made_once_and_completed_when_the_maker_was_killed() {
    let engine = Engine::start().await;
    let table = Table::named(engine.name());
    let catalog = engine.make(table.clone()).await;
    catalog.upsert(&key("k"), &row("c")).await.unwrap();
    create_table(&engine.client, &table.name, &*engine.clock).await.unwrap();
    assert_eq!(catalog.partition(&key("k")).await.unwrap().rows.len(), 1, "nothing was lost");

    let half = make(&engine, Shape { keys: RIGHT_KEYS, index: Some((INDEX, RIGHT_INDEX)), ttl: None }).await;
    create_table(&engine.client, &half, &*engine.clock).await.unwrap();
    check_table(&engine.client, &half).await.unwrap();
    let foreign = make(&engine, Shape { keys: RIGHT_KEYS, index: None, ttl: None }).await;
    let error = create_table(&engine.client, &foreign, &*engine.clock).await.unwrap_err();
    assert!(error.to_string().contains("is missing"), "{error}");
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn policies_of_one_table_know_nothing_of_each_other() {
    let engine = Engine::start().await;
    let name = engine.name();
    let policy =
        async |prefix: &str| engine.make(Table { prefix: Some(prefix.to_owned()), ..Table::named(&name) }).await;
    let (a, b) = (policy("a").await, policy("b").await);
    a.upsert(&key("k"), &row("c")).await.unwrap();
    a.bury(&key("k"), &removal("5", 1)).await.unwrap();
    a.set_state(StateChange::Cleaned(UnixMs(1))).await.unwrap();
    assert!(a.lease("clean", "x", UnixMs(0), UnixMs(10)).await.unwrap());
    assert_eq!(b.partition(&key("k")).await.unwrap(), Default::default());
    assert_eq!(b.state().await.unwrap(), PolicyState::default());
    assert!(b.lease("clean", "y", UnixMs(0), UnixMs(10)).await.unwrap());
    assert_eq!(b.forget_tombstones(UnixMs(99), 100).await.unwrap(), 0);
    assert!(a.partition(&key("k")).await.unwrap().tombstone.is_some());
    engine.stop().await;
}

/// The engine expires items only when it is told to; AWS does so within a few days, and tells the stream who did it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_tombstones_expire_and_nothing_else() {
    let engine = Engine::start().await;
    let catalog = engine.catalog().await;
    catalog.upsert(&key("k"), &row("c")).await.unwrap();
    catalog.bury(&key("k"), &removal("5", 1_000)).await.unwrap();
    catalog.bury(&key("later"), &removal("5", 32_503_680_000_000)).await.unwrap();
    catalog.lease("clean", "x", UnixMs(0), UnixMs(10)).await.unwrap();
    assert_eq!(engine.database.sweep_ttl().unwrap(), 1);
    let left = catalog.partition(&key("k")).await.unwrap();
    assert_eq!((left.rows.len(), left.tombstone), (1, None));
    assert!(catalog.partition(&key("later")).await.unwrap().tombstone.is_some());
    engine.stop().await;
}
