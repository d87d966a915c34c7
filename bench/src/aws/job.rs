//! What a worker is told, as one line of JSON: the same line for ours, for the bare generator, and for the Python handler.

use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Milliseconds between two events.
const EVENT_EVERY_MS: i64 = 1;

/// One worker's work.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    /// The S3 server, as a URL.
    pub(crate) s3: String,
    /// The DynamoDB engine, as a URL.
    pub(crate) dynamodb: String,
    /// The keys of the S3 server, made for this run.
    pub(crate) access: String,
    pub(crate) secret: String,
    pub(crate) source: String,
    pub(crate) destination: String,
    pub(crate) table: String,
    /// Where a worker may keep files of its own.
    pub(crate) folder: PathBuf,
    /// Events, due rows, or objects, all workers together.
    pub(crate) items: usize,
    /// Keys of the source.
    pub(crate) keys: usize,
    pub(crate) keep: usize,
    /// The tag of every object of the source, without quotes; all have the same content.
    pub(crate) etag: String,
    /// Bytes of every object of the source.
    pub(crate) size: u64,
    /// When the first event happened; what is due is older.
    pub(crate) from_ms: i64,
    /// Which worker of how many: it takes the items whose number leaves that rest.
    pub(crate) worker: usize,
    pub(crate) workers: usize,
    /// Bytes of a part that is copied.
    pub(crate) part: u64,
}

/// One created event: the n-th of all. The events of a key lie as far apart as they can.
#[derive(Clone, Debug)]
pub(crate) struct Created {
    pub(crate) key: String,
    /// 16 hex digits.
    pub(crate) sequencer: String,
    pub(crate) time_ms: i64,
}

impl Job {
    /// Work on an S3 server alone.
    pub(crate) fn alone(s3: &str, folder: &Path, items: usize) -> Job {
        Job {
            s3: s3.to_owned(),
            dynamodb: String::new(),
            access: String::new(),
            secret: String::new(),
            source: "bucket".to_owned(),
            destination: String::new(),
            table: String::new(),
            folder: folder.to_owned(),
            items,
            keys: 0,
            keep: 0,
            etag: String::new(),
            size: 0,
            from_ms: 0,
            worker: 0,
            workers: 1,
            part: 0,
        }
    }

    pub(crate) fn event(&self, n: usize) -> Created {
        let time_ms = self.from_ms + n as i64 * EVENT_EVERY_MS;
        Created { key: source_key(n % self.keys), sequencer: format!("{:016x}", n + 1), time_ms }
    }

    /// A worker of this program.
    pub(crate) fn worker(&self, work: &str) -> Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("worker").arg(work).arg(serde_json::to_string(self)?);
        Ok(command)
    }

    /// A Python script of `bench/baseline`, as so many processes.
    pub(crate) fn handlers(&self, python: &Path, script: &str, work: &str, workers: usize) -> Result<Vec<Command>> {
        let handler = |worker| {
            let mut command = Command::new(python);
            command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("baseline").join(script)).arg(work);
            command.arg(serde_json::to_string(&Job { worker, workers, ..self.clone() })?);
            Ok(command)
        };
        (0..workers).map(handler).collect()
    }
}

/// The n-th key of the source.
pub(crate) fn source_key(n: usize) -> String {
    format!("key-{n:05}")
}
