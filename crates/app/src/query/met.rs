//! Which records a bulk restore has met, in a temporary database, which has no name and goes with the command.

use crate::instance::UNPOISONED;
use crate::limits::NOTED_CACHE_KIB;
use async_trait::async_trait;
use engine::error::{ErrorKind, PortError, PortResult};
use engine::steps::met::Met;
use lifecycle::archive::hash_of;
use rusqlite::Connection;
use std::sync::{Arc, Mutex};

/// A database for one command.
pub(crate) struct MetOnDisk(Arc<Mutex<Connection>>);

impl MetOnDisk {
    /// An empty one.
    pub(crate) fn new() -> rusqlite::Result<MetOnDisk> {
        // Without a name: SQLite keeps it in a file of its own, once it outgrows the cache.
        let noted = Connection::open("")?;
        noted.execute_batch(&format!(
            "PRAGMA journal_mode = OFF; PRAGMA cache_size = -{NOTED_CACHE_KIB};
             CREATE TABLE noted (record TEXT PRIMARY KEY) WITHOUT ROWID; BEGIN"
        ))?;
        Ok(MetOnDisk(Arc::new(Mutex::new(noted))))
    }
}

#[async_trait]
impl Met for MetOnDisk {
    async fn note(&self, record: String) -> PortResult<bool> {
        let noted = self.0.clone();
        let note = move || {
            let noted = noted.lock().expect(UNPOISONED);
            let mut insert = noted.prepare_cached("INSERT OR IGNORE INTO noted VALUES (?1)")?;
            insert.execute([hash_of(record.as_bytes())])
        };
        let failed = |why: String| PortError::new("note", "a restored record", ErrorKind::Internal(why));
        let noted = tokio::task::spawn_blocking(note).await.map_err(|stopped| failed(stopped.to_string()))?;
        noted.map(|rows| rows == 1).map_err(|error: rusqlite::Error| failed(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_record_is_noted_once() {
        let met = MetOnDisk::new().unwrap();
        assert!(met.note("a".to_owned()).await.unwrap() && !met.note("a".to_owned()).await.unwrap());
        assert!(met.note("b".to_owned()).await.unwrap());
    }
}
