//! The ports: what the flows need of the world, as object-safe traits split by privilege.
//!
//! The type of a handle says what it may do: a source is only ever [`objects::ObjectRead`]; only `steps/purge.rs`,
//! `steps/aside.rs` and `steps/outbox.rs` hold an
//! [`objects::ObjectPurge`]; a dashboard holds [`catalog::CatalogRead`]. Each port has a conformance suite in
//! `crate::conformance`, which every adapter passes.

pub mod bucket_rules;
pub mod catalog;
pub mod clock;
pub mod events;
pub mod feed;
pub mod journal;
pub mod metrics;
pub mod objects;
pub mod progress;
pub mod streams;
pub mod tables;
pub mod webhook;
