//! The table that records are put back into.

use crate::error::PortResult;
use async_trait::async_trait;
use serde_json::{Map, Value};

/// What is known of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableShape {
    /// The attributes of its key, in the order of the key schema.
    pub key_names: Vec<String>,
    /// The attribute that says when a record's time is over, if its time to live is switched on.
    pub ttl: Option<String>,
}

/// What must stand in the table for a record to be put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutOnto {
    /// Nothing under its key.
    Nothing,
    /// Whatever is there is replaced.
    Anything,
}

/// Puts records.
#[async_trait]
pub trait RecordTable: Send + Sync {
    /// The table's shape.
    async fn shape(&self) -> PortResult<TableShape>;

    /// Puts a record, given in DynamoDB's JSON, into a table of that shape; every type exact. `false`: the condition did not
    /// hold.
    async fn put(&self, record: &Map<String, Value>, shape: &TableShape, onto: PutOnto) -> PortResult<bool>;
}
