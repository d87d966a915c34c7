//! Which records a command has met: of a record that was deleted more than once, only the first deletion that it comes upon
//! counts. There may be as many as an archive has, so that the application keeps them outside of memory.

use crate::error::PortResult;
use async_trait::async_trait;
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// Notes records for one command. Nothing of it outlives the command.
#[async_trait]
pub trait Met: Send + Sync {
    /// Notes a record; `false`: it was met before. `record` is what no other record has.
    async fn note(&self, record: String) -> PortResult<bool>;
}

/// In memory: for a few.
#[derive(Debug, Default)]
pub struct MetInMemory(Mutex<BTreeSet<String>>);

#[async_trait]
impl Met for MetInMemory {
    async fn note(&self, record: String) -> PortResult<bool> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(record))
    }
}
