//! A table in memory, for records that are put back. Nothing fails by itself; nothing outlives the process.

use crate::error::PortResult;
use crate::memory::lock;
use crate::ports::tables::{PutOnto, RecordTable, TableShape};
use async_trait::async_trait;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::Mutex;

/// The table.
pub struct MemoryTable {
    shape: TableShape,
    records: Mutex<BTreeMap<String, Map<String, Value>>>,
}

impl MemoryTable {
    /// Empty.
    pub fn new(shape: TableShape) -> MemoryTable {
        MemoryTable { shape, records: Mutex::default() }
    }

    /// All records.
    pub fn records(&self) -> Vec<Map<String, Value>> {
        lock(&self.records).values().cloned().collect()
    }
}

#[async_trait]
impl RecordTable for MemoryTable {
    async fn shape(&self) -> PortResult<TableShape> {
        Ok(self.shape.clone())
    }

    async fn put(&self, record: &Map<String, Value>, shape: &TableShape, onto: PutOnto) -> PortResult<bool> {
        let key: Vec<&Value> = shape.key_names.iter().map(|name| &record[name]).collect();
        let key = serde_json::to_string(&key).expect("values of JSON");
        let mut records = lock(&self.records);
        if onto == PutOnto::Nothing && records.contains_key(&key) {
            return Ok(false);
        }
        records.insert(key, record.clone());
        Ok(true)
    }
}
