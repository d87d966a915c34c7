//! A table in memory, for records that are put back, marked and deleted. Nothing fails by itself; nothing outlives the
//! process.

use crate::error::PortResult;
use crate::memory::lock;
use crate::ports::clock::Clock;
use crate::ports::tables::{
    AttributeChange, KeyKind, KeyPart, PutOnto, RecordEdit, RecordTable, StreamView, TableLook, TableSetup, TableShape,
    TableSwitch, TimeToLive,
};
use async_trait::async_trait;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::Mutex;

/// The table.
pub struct MemoryTable {
    setup: Mutex<TableSetup>,
    records: Mutex<BTreeMap<String, Map<String, Value>>>,
}

impl MemoryTable {
    /// Empty, without a stream; its key is text.
    pub fn new(shape: TableShape) -> MemoryTable {
        let key = shape.key_names.into_iter().map(|name| KeyPart { name, kind: KeyKind::Text }).collect();
        let ttl = shape.ttl.map_or(TimeToLive::Off, TimeToLive::By);
        MemoryTable::with_setup(TableSetup { key, stream: None, ttl })
    }

    /// Empty.
    pub fn with_setup(setup: TableSetup) -> MemoryTable {
        MemoryTable { setup: Mutex::new(setup), records: Mutex::default() }
    }

    /// All records.
    pub fn records(&self) -> Vec<Map<String, Value>> {
        lock(&self.records).values().cloned().collect()
    }

    /// Removes a record, as a user or the time to live does; what it was.
    pub fn remove(&self, key: &Map<String, Value>) -> Option<Map<String, Value>> {
        lock(&self.records).remove(&self.place(key))
    }

    /// Where a record stands, by the attributes of its key.
    fn place(&self, record: &Map<String, Value>) -> String {
        let key: Vec<Value> = lock(&self.setup).key.iter().map(|part| record[&part.name].clone()).collect();
        Value::Array(key).to_string()
    }
}

#[async_trait]
impl RecordTable for MemoryTable {
    async fn shape(&self) -> PortResult<TableShape> {
        let setup = lock(&self.setup).clone();
        let ttl = match setup.ttl {
            TimeToLive::By(attribute) => Some(attribute),
            TimeToLive::Off | TimeToLive::EndingSoon => None,
        };
        Ok(TableShape { key_names: setup.key.into_iter().map(|part| part.name).collect(), ttl })
    }

    async fn put(&self, record: &Map<String, Value>, _shape: &TableShape, onto: PutOnto) -> PortResult<bool> {
        let place = self.place(record);
        let mut records = lock(&self.records);
        if onto == PutOnto::Nothing && records.contains_key(&place) {
            return Ok(false);
        }
        records.insert(place, record.clone());
        Ok(true)
    }
}

#[async_trait]
impl TableLook for MemoryTable {
    async fn setup(&self) -> PortResult<TableSetup> {
        Ok(lock(&self.setup).clone())
    }
}

#[async_trait]
impl TableSwitch for MemoryTable {
    async fn switch_stream_on(&self, view: StreamView, _clock: &dyn Clock) -> PortResult<()> {
        lock(&self.setup).stream = Some(view);
        Ok(())
    }

    async fn switch_ttl_on(&self, attribute: &str) -> PortResult<()> {
        lock(&self.setup).ttl = TimeToLive::By(attribute.to_owned());
        Ok(())
    }
}

#[async_trait]
impl RecordEdit for MemoryTable {
    async fn get(&self, key: &Map<String, Value>) -> PortResult<Option<Map<String, Value>>> {
        Ok(lock(&self.records).get(&self.place(key)).cloned())
    }

    async fn change(&self, key: &Map<String, Value>, changes: &[AttributeChange]) -> PortResult<bool> {
        let place = self.place(key);
        let mut records = lock(&self.records);
        let Some(record) = records.get_mut(&place) else { return Ok(false) };
        if changes.iter().any(|change| record.get(&change.name) != change.from.as_ref()) {
            return Ok(false);
        }
        for AttributeChange { name, to, .. } in changes {
            match to {
                Some(value) => drop(record.insert(name.clone(), value.clone())),
                None => drop(record.remove(name)),
            }
        }
        Ok(true)
    }

    async fn delete(&self, key: &Map<String, Value>, attribute: &str, value: &Value) -> PortResult<bool> {
        let place = self.place(key);
        let mut records = lock(&self.records);
        if records.get(&place).and_then(|record| record.get(attribute)) != Some(value) {
            return Ok(false);
        }
        records.remove(&place);
        Ok(true)
    }
}
