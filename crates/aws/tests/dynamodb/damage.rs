//! Items that this program would not have written: an error with the item's name, never a panic and never a guess; and what
//! a newer version wrote is left alone.

use super::server::Engine;
use super::{id, key, removal, row};
use aws::dynamodb::{DynamoDbCatalog, Table};
use aws_sdk_dynamodb::types::AttributeValue;
use engine::error::{ErrorKind, PortError};
use engine::ports::catalog::{Catalog, CatalogRead, IndexQuery, Indexed, RowChange, RowSet, StateChange};
use lifecycle::row::{CopyState, Reason};
use lifecycle::time::UnixMs;

fn s(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}

fn n(digits: &str) -> AttributeValue {
    AttributeValue::N(digits.to_owned())
}

/// Sets an attribute of an item behind the catalog's back, or takes it away.
async fn set(engine: &Engine, table: &str, keys: (&str, &str), attribute: &str, value: Option<AttributeValue>) {
    let verb = if value.is_some() { "SET #a = :v" } else { "REMOVE #a" };
    let update = engine.client.update_item().table_name(table).update_expression(verb);
    let update =
        update.key("original_key", s(keys.0)).key("copy_key", s(keys.1)).expression_attribute_names("#a", attribute);
    let update = update.set_expression_attribute_values(value.map(|value| [(":v".to_owned(), value)].into()));
    // What the recorder asks of every call of the catalog's.
    let update = update.return_consumed_capacity(aws_sdk_dynamodb::types::ReturnConsumedCapacity::Total);
    update.send().await.unwrap();
}

fn is_damaged(error: &PortError, which: &str, attribute: &str) {
    assert!(matches!(&error.kind, ErrorKind::Damaged(what) if what.contains(&format!("`{attribute}`"))), "{error}");
    assert!(error.to_string().contains(which), "{error}");
}

async fn with_row(engine: &Engine) -> (std::sync::Arc<DynamoDbCatalog>, String) {
    let table = Table::named(engine.name());
    let catalog = engine.make(table.clone()).await;
    catalog.upsert(&key("k"), &row("c")).await.unwrap();
    (catalog, table.name)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attribute_that_does_not_read_back_is_damage_with_its_row() {
    let engine = Engine::start().await;
    let spoiled = [
        ("order", Some(s("x"))),
        ("order", None),
        ("order", Some(n("5"))),
        ("floating", Some(s("no"))),
        ("origin", Some(s("elsewhere"))),
        ("created_at", Some(s("1000"))),
        ("created_at", Some(n("1.5"))),
        ("created_at", Some(n("99999999999999999999999999999999999999"))),
        ("status", Some(s("disowned#x"))),
        ("status", Some(s("removed"))),
        ("status", Some(s("disowned"))),
        ("removed_at", Some(AttributeValue::Null(true))),
        ("version_id", Some(AttributeValue::Bool(true))),
        ("etag", None),
        ("size", Some(n("-1"))),
        ("checksum", Some(s("AAA="))),
        ("checksum", Some(s("not base64"))),
        ("storage_class", Some(AttributeValue::Ss(vec!["COLD".to_owned()]))),
        ("rev", None),
        ("format", None),
        ("format", Some(n("0"))),
    ];
    for (attribute, value) in spoiled {
        let (catalog, table) = with_row(&engine).await;
        set(&engine, &table, ("k", "c"), attribute, value).await;
        is_damaged(&catalog.partition(&key("k")).await.unwrap_err(), "k / c", attribute);
        is_damaged(&catalog.rows(&[id("k", "c")]).await.unwrap_err(), "k / c", attribute);
    }
    let (catalog, table) = with_row(&engine).await;
    set(&engine, &table, ("k", "c"), "disowned_at", Some(n("5"))).await;
    is_damaged(&catalog.partition(&key("k")).await.unwrap_err(), "k / c", "status");
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spoiled_tombstone_state_or_index_entry_is_named_too() {
    let engine = Engine::start().await;
    let (catalog, table) = with_row(&engine).await;
    catalog.bury(&key("k"), &removal("5", 1)).await.unwrap();
    set(&engine, &table, ("k", "\u{1}tombstone"), "order", Some(s("?"))).await;
    is_damaged(&catalog.partition(&key("k")).await.unwrap_err(), "tombstone of k", "order");
    is_damaged(&catalog.bury(&key("k"), &removal("6", 1)).await.unwrap_err(), "tombstone of k", "order");

    catalog.set_state(StateChange::Cleaned(UnixMs(1))).await.unwrap();
    set(&engine, &table, ("afterimage", "\u{1}state"), "cleaned_at", Some(s("noon"))).await;
    is_damaged(&catalog.state().await.unwrap_err(), "state of the policy", "cleaned_at");

    let query = |what| IndexQuery { what, from: UnixMs(0), until: UnixMs(99), after: None, limit: 10 };
    set(&engine, &table, ("k", "c"), "status", Some(s("removed"))).await;
    set(&engine, &table, ("k", "c"), "disowned_at", Some(n("7"))).await;
    is_damaged(&catalog.index(&query(Indexed::Removed)).await.unwrap_err(), "k / c", "status");
    set(&engine, &table, ("k", "c"), "status", Some(s("disowned"))).await;
    set(&engine, &table, ("k", "c"), "disowned_at", Some(n("7.5"))).await;
    is_damaged(&catalog.index(&query(Indexed::Disowned)).await.unwrap_err(), "k / c", "disowned_at");
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_newer_version_wrote_is_refused_and_left_as_it_is() {
    let engine = Engine::start().await;
    let (catalog, table) = with_row(&engine).await;
    let newer = |error: PortError| {
        assert!(
            matches!(&error.kind, ErrorKind::Invalid(why) if why.contains("newer Afterimage (format 2;")),
            "{error}"
        );
    };
    set(&engine, &table, ("k", "c"), "format", Some(n("2"))).await;
    newer(catalog.partition(&key("k")).await.unwrap_err());
    newer(catalog.rows(&[id("k", "c")]).await.unwrap_err());
    newer(catalog.upsert(&key("k"), &row("c")).await.unwrap_err());
    newer(catalog.record_mirrored(&key("k"), &row("c")).await.unwrap_err());
    let due = lifecycle::row::CopyRow { state: CopyState::Active { due_at: Some(UnixMs(5)) }, ..row("c") };
    newer(catalog.upsert(&key("k"), &due).await.unwrap_err());

    catalog.bury(&key("t"), &removal("5", 1)).await.unwrap();
    set(&engine, &table, ("t", "\u{1}tombstone"), "format", Some(n("2"))).await;
    newer(catalog.bury(&key("t"), &removal("6", 1)).await.unwrap_err());

    set(&engine, &table, ("afterimage", "\u{1}state"), "format", Some(n("2"))).await;
    newer(catalog.state().await.unwrap_err());
    newer(catalog.set_state(StateChange::Cleaned(UnixMs(1))).await.unwrap_err());
    newer(catalog.set_state(StateChange::Release(UnixMs(1))).await.unwrap_err());
    engine.stop().await;
}

/// What people see who look into the table.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_can_read_the_items() {
    let engine = Engine::start().await;
    let (catalog, table) = with_row(&engine).await;
    catalog.bury(&key("k"), &removal("5", 1_000)).await.unwrap();
    let item = async |sort: &str| {
        let get = engine.client.get_item().table_name(&table).key("original_key", s("k")).key("copy_key", s(sort));
        let get = get.return_consumed_capacity(aws_sdk_dynamodb::types::ReturnConsumedCapacity::Total);
        let item = get.send().await.unwrap().item.unwrap();
        let mut shown: Vec<String> = item
            .iter()
            .filter(|(name, _)| *name != "rev")
            .map(|(name, value)| match value {
                AttributeValue::S(text) => format!("{name}={text}"),
                AttributeValue::N(digits) => format!("{name}:{digits}"),
                AttributeValue::Bool(flag) => format!("{name}?{flag}"),
                other => panic!("{name} is {other:?}"),
            })
            .collect();
        shown.sort();
        shown.join(" ")
    };
    let active = "checksum=AAAAAAAAAAE= copy_key=c created_at:1000 etag=tag floating?false format:1 order=s5 \
        origin=undelete@77 original_key=k size:7 status=active version_id=v1";
    assert_eq!(item("c").await, active);
    let rev = catalog.rows(&[id("k", "c")]).await.unwrap().remove(0).unwrap().rev;
    let set = RowSet::Disowned { at: UnixMs(9), reason: Reason::Twin, removed_at: Some(UnixMs(8)) };
    catalog.change(&[RowChange { id: id("k", "c"), if_rev: rev, set }]).await.remove(0).unwrap();
    let disowned = "checksum=AAAAAAAAAAE= copy_key=c created_at:1000 disowned_at:9 etag=tag floating?false format:1 \
        order=s5 origin=undelete@77 original_key=k reason=surplus:twin removed_at:8 size:7 status=disowned version_id=v1";
    assert_eq!(item("c").await, disowned);
    let tombstone = "copy_key=\u{1}tombstone disowned_at:1000 expires_at:1296001 floating?false format:1 order=s5 \
        original_key=k removed_at:1 status=removed";
    assert_eq!(item("\u{1}tombstone").await, tombstone, "15 days: longer than any redelivery, and a day to spare");
    engine.stop().await;
}
