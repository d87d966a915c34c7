//! The catalog on DynamoDB, shown against an engine that speaks its protocol: the port's suite in a table of its own, over
//! several shards, in a table shared with other policies, and on a service without statements; then what only this adapter
//! can get wrong, by subject.

#![expect(clippy::unwrap_used, reason = "a panic is a test's message")]

mod calls;
mod damage;
mod index;
mod server;
mod table;
mod writes;

use aws::dynamodb::Table;
use engine::conformance;
use engine::ports::catalog::{Catalog, RowId};
use lifecycle::ids::{Checksum, CopyKey, ETag, ObjectKey, Rev, VersionId};
use lifecycle::order::Order;
use lifecycle::row::{CopyRow, CopyState, Origin, Tombstone};
use lifecycle::time::UnixMs;
use server::Engine;
use std::sync::Arc;

fn key(text: &str) -> ObjectKey {
    ObjectKey::new(text).unwrap()
}

fn order(hex: &str) -> Order {
    Order::from_sequencer(hex).unwrap()
}

fn id(original: &str, copy: &str) -> RowId {
    RowId { original: key(original), copy_key: CopyKey::of(key(copy)) }
}

fn row(copy: &str) -> CopyRow {
    CopyRow {
        copy_key: CopyKey::of(key(copy)),
        order: order("5"),
        floating: false,
        origin: Origin::Undelete { at: UnixMs(77) },
        created_at: UnixMs(1_000),
        state: CopyState::Active { due_at: None },
        removed_at: None,
        version_id: Some(VersionId::from("v1")),
        etag: ETag::from("tag"),
        size: 7,
        checksum: Some(Checksum(1)),
        storage_class: None,
        rev: Rev::from(""),
    }
}

fn removal(hex: &str, noted_at: i64) -> Tombstone {
    Tombstone { order: order(hex), time: UnixMs(1), noted_at: UnixMs(noted_at), floating: false }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_catalog_conforms_in_a_table_of_its_own() {
    let engine = Engine::start().await;
    conformance::catalog::catalog(|| async { engine.catalog().await as Arc<dyn Catalog> }).await;
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_catalog_conforms_over_shards_in_a_table_that_policies_share() {
    let engine = Engine::start().await;
    let shared = engine.name();
    conformance::catalog::catalog(|| async {
        let table = Table { prefix: Some(engine.name()), index_shards: 4, ..Table::named(&shared) };
        engine.make(table).await as Arc<dyn Catalog>
    })
    .await;
    engine.stop().await;
}

/// Services that speak the protocol but know no PartiQL, as ScyllaDB's Alternator: everything goes one by one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_catalog_conforms_on_a_service_without_statements() {
    let engine = Engine::start().await;
    *engine.between.unknown.lock().unwrap() = Some("BatchExecuteStatement");
    conformance::catalog::catalog(|| async { engine.catalog().await as Arc<dyn Catalog> }).await;
    engine.stop().await;
}
