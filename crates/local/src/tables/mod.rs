//! Tables of this machine, for any DynamoDB client: an engine that speaks DynamoDB (`dynoxide`), in this process, on one SQLite
//! file of the data folder.
//!
//! Place: clients come through the endpoint (`front`, which lets nobody in whose signature is not right), the archiver and
//! `archive restore` by a call. Every table has a stream with old images unless its maker chose another, and the program around
//! it follows the stream (`hooks`). What must not be made is refused (`making`). What the engine would do wrong is made up for here: its streams have no index and forget
//! nothing (`streams`), nobody sweeps for records whose time to live is over (`sweep`), and a stream that ends takes along what
//! was not read: so it ends only when everything is archived, and nobody writes meanwhile.
//!
//! A crash half-way leaves what SQLite leaves: a record's change and what the stream tells of it are one transaction, durable
//! before the client is answered (I8). What of a making that was cut off: `making`.

mod front;
mod hooks;
pub mod limits;
mod making;
mod operations;
mod signature;
mod streams;
mod sweep;

pub use hooks::TableHooks;

use crate::credentials::Keyring;
use crate::endpoint::server;
use crate::io_error::io_failed;
use crate::places::{Broken, Places};
use bytes::Bytes;
use dynoxide::Database;
use dynoxide::actions::list_tables::ListTablesRequest;
use dynoxide::storage::TableMetadata;
use engine::error::{ErrorKind, PortError, PortResult};
use engine::ports::clock::{Clock, Nonces};
use front::Front;
use limits::{TABLE_CALLS, TABLE_CONNECTIONS};
use rusqlite::Connection;
use serde::Deserialize;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use tokio::net::TcpListener;
use tokio::sync::RwLock;
use tokio_util::sync::CancellationToken;

/// Name of the file in the data folder.
pub const TABLES_FILE: &str = "tables.sqlite";

/// The tables of a data folder.
pub struct Tables {
    database: Database,
    /// Another connection to the same file, for what the engine does not do.
    beside: Arc<Mutex<Connection>>,
    path: PathBuf,
    places: Places,
    /// Held by many who write records, or by one who ends a stream.
    streams: RwLock<()>,
    /// Held by who makes a table: so they can be counted.
    making: tokio::sync::Mutex<()>,
    hooks: OnceLock<Arc<dyn TableHooks>>,
    /// After so many looks at what tables there are, so many fail, as on a disk that does not answer.
    #[cfg(test)]
    failing_looks: Mutex<(usize, usize)>,
}

/// What an operation answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// The status of HTTP: 200, 400 or 500.
    pub status: u16,
    /// JSON, as DynamoDB says it.
    pub body: Bytes,
}

/// What of the requests that concern streams matters here. Whatever else is wrong with them, the engine says.
#[derive(Deserialize)]
struct AboutTable {
    #[serde(rename = "TableName")]
    table: String,
}

impl Tables {
    /// Opens the file, or makes it (mode 0600). Blocks: call it at the start, or off the async threads.
    ///
    /// Errors: `Damaged`, with the remedy, and what the disk says.
    pub fn open(path: &Path) -> PortResult<Tables> {
        let opened = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path);
        opened.map_err(|error| io_failed("open tables", &path.display().to_string(), error))?;
        let text = path.to_str().ok_or_else(|| {
            let why = "the path of the tables must be UTF-8: choose another data folder".to_owned();
            PortError::new("open tables", path.display(), ErrorKind::Invalid(why))
        })?;
        let remedy =
            "stop `serve`, move the file away, and a new one without tables is made; what is archived is elsewhere";
        let damaged = |error: &dyn std::fmt::Display| {
            PortError::new("open tables", path.display(), ErrorKind::Damaged(format!("{error}: {remedy}")))
        };
        let database = Database::new(text).map_err(|error| damaged(&error))?;
        let beside = streams::connect(path).map_err(|error| damaged(&error))?;
        let tables = Tables {
            database,
            beside: Arc::new(Mutex::new(beside)),
            path: path.to_owned(),
            places: Places::new(TABLE_CALLS),
            streams: RwLock::default(),
            making: tokio::sync::Mutex::default(),
            hooks: OnceLock::new(),
            #[cfg(test)]
            failing_looks: Default::default(),
        };
        tables.mend()?;
        Ok(tables)
    }

    /// From now on the program around them is told and asked.
    pub fn set_hooks(&self, hooks: Arc<dyn TableHooks>) {
        // Set by `serve`, once.
        let set = self.hooks.set(hooks).is_ok();
        assert!(set, "the tables have hooks already");
    }

    /// Carries out an operation of DynamoDB or of its streams, named as in the header `x-amz-target`. To drop the future does
    /// not undo it.
    pub async fn call(self: &Arc<Self>, target: &str, body: Bytes) -> Said {
        let (tables, operation) = (Arc::clone(self), operations::operation(target).to_owned());
        // A client that goes away must not leave a table half-way between two streams.
        let called = tokio::spawn(async move { tables.call_whole(operation, body).await });
        called.await.unwrap_or_else(|_| Said::refused(500, "InternalServerError", "the call broke off"))
    }

    async fn call_whole(self: Arc<Self>, operation: String, body: Bytes) -> Said {
        // The engine would take a list for the members in their order, and nobody here would know what it is about.
        if !body.trim_ascii_start().starts_with(b"{") {
            return Said::refused(400, "SerializationException", "the body must be a JSON object");
        }
        match operation.as_str() {
            "CreateTable" => self.make(body).await,
            "DeleteTable" => self.end_stream(operation, body).await,
            "UpdateTable" => self.change(body).await,
            written if operations::writes(written) => {
                let _together = self.streams.read().await;
                self.run(operation, body).await
            }
            _ => self.run(operation, body).await,
        }
    }

    /// What may end a stream, or begin another: only when all that it tells is archived. Which stream there is must be known
    /// before anything is done.
    async fn end_stream(&self, operation: String, body: Bytes) -> Said {
        let Some(AboutTable { table }) = about(&body) else {
            let _alone = self.streams.write().await;
            return self.run(operation, body).await;
        };
        // An archive that does not answer must not keep everybody from writing.
        if let Some(hooks) = self.hooks.get() {
            let near = match self.stream(&table).await {
                Ok(Some(_)) => hooks.near_end(&table).await,
                Ok(None) => Ok(()),
                Err(error) => return unknown(&error),
            };
            if let Err(error) = near {
                return not_archived(&error);
            }
        }
        let _alone = self.streams.write().await;
        let before = match self.stream(&table).await {
            Ok(before) => before,
            Err(error) => return unknown(&error),
        };
        let Some(hooks) = self.hooks.get() else { return self.run(operation, body).await };
        let ready = match &before {
            Some(_) => hooks.finish(&table).await,
            None => hooks.prepare(&table).await,
        };
        if let Err(error) = ready {
            return not_archived(&error);
        }
        let is_deletion = operation == "DeleteTable";
        let said = self.run(operation, body).await;
        let after = match is_deletion && said.status == 200 {
            true => Ok(None),
            false => self.stream(&table).await,
        };
        match after {
            Ok(after) => {
                if let Some(stream) = before.filter(|before| after.as_ref() != Some(before)) {
                    self.note_end(hooks.as_ref(), &table, &stream).await;
                }
                if after.is_some() {
                    hooks.begin(&table).await;
                }
            }
            Err(error) => {
                let why = engine::report::chain(&error);
                tracing::warn!(table, "whether its stream has ended is not known, so it is followed on: {why}");
                hooks.begin(&table).await;
            }
        }
        said
    }

    /// Nothing that the stream kept is needed any more: the engine would tell it again in the table's next one.
    async fn note_end(&self, hooks: &dyn TableHooks, table: &str, stream: &str) {
        if let Err(error) = hooks.ended(table, stream).await {
            tracing::warn!(table, %error, "the end of its stream is not noted: it will be told as a gap, and is none");
        }
        if let Err(error) = self.forget_all(table).await {
            tracing::warn!(table, %error, "what its stream told will be told again, and archived already");
        }
    }

    async fn run(&self, operation: String, body: Bytes) -> Said {
        let database = self.database.clone();
        let done = self.blocking(move || Ok(operations::run(&database, &operation, &body))).await;
        done.unwrap_or_else(|_| Said::refused(500, "InternalServerError", "the engine of the tables broke off"))
    }

    /// Runs what blocks.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> PortResult<T> + Send + 'static,
    ) -> PortResult<T> {
        self.places.run(work).await.unwrap_or_else(|broken| {
            let kind = match broken {
                Broken::Closed => ErrorKind::Cancelled,
                Broken::Panicked => ErrorKind::Internal("it broke off, and the log says where".to_owned()),
            };
            Err(PortError::new("use tables", self.path.display(), kind))
        })
    }

    /// The names of all tables.
    pub async fn all(&self) -> PortResult<Vec<String>> {
        let (database, path) = (self.database.clone(), self.path.clone());
        #[cfg(test)]
        self.fail_this_look()?;
        self.blocking(move || all(&database, &path)).await
    }

    /// The names of the tables that have a stream.
    pub async fn with_streams(&self) -> PortResult<Vec<String>> {
        let mut with = Vec::new();
        for table in self.all().await? {
            if self.stream(&table).await?.is_some() {
                with.push(table);
            }
        }
        Ok(with)
    }

    /// The names of the tables that have no stream, and whether they had one: then it was switched off.
    pub async fn without_streams(&self) -> PortResult<Vec<(String, bool)>> {
        let mut without = Vec::new();
        for table in self.all().await? {
            if let Some(found) = self.metadata(&table).await?.filter(|found| !found.stream_enabled) {
                without.push((table, found.stream_label.is_some()));
            }
        }
        Ok(without)
    }

    /// Whether a table has a stream that tells what was in a record that is deleted.
    pub async fn carries_old_images(&self, table: &str) -> PortResult<bool> {
        let found = self.metadata(table).await?.filter(|found| found.stream_enabled);
        let view = found.and_then(|found| found.stream_view_type);
        Ok(view.is_some_and(|view| view == "OLD_IMAGE" || view == "NEW_AND_OLD_IMAGES"))
    }

    /// The name of the stream that a table has.
    async fn stream(&self, table: &str) -> PortResult<Option<String>> {
        let found = self.metadata(table).await?.filter(|found| found.stream_enabled);
        Ok(found.and_then(|found| found.stream_label))
    }

    /// What the engine knows of a table; `None`: there is none. An error is no answer: the table may be there.
    async fn metadata(&self, table: &str) -> PortResult<Option<TableMetadata>> {
        let (database, path, table) = (self.database.clone(), self.path.clone(), table.to_owned());
        #[cfg(test)]
        self.fail_this_look()?;
        self.blocking(move || database.get_table_metadata(&table).map_err(|error| failed(&path, error))).await
    }

    #[cfg(test)]
    fn fail_looks(&self, after: usize, looks: usize) {
        *self.failing_looks.lock().unwrap() = (after, looks);
    }

    #[cfg(test)]
    fn fail_this_look(&self) -> PortResult<()> {
        let mut failing = self.failing_looks.lock().unwrap();
        match *failing {
            (0, 0) => return Ok(()),
            (0, looks) => *failing = (0, looks - 1),
            (after, looks) => {
                *failing = (after - 1, looks);
                return Ok(());
            }
        }
        Err(PortError::new("read tables", self.path.display(), ErrorKind::Unavailable))
    }

    /// Folds the log in. Without it nothing is lost.
    pub async fn close(&self) {
        let beside = Arc::clone(&self.beside);
        let folded = self.blocking(move || Ok(streams::fold(&beside))).await;
        if let Ok(Err(error)) = folded {
            tracing::debug!(%error, "the log of the tables is folded in at the next start");
        }
    }
}

fn about(body: &[u8]) -> Option<AboutTable> {
    serde_json::from_slice(body).ok()
}

/// Nothing was done, since nobody knows what it would have done.
fn unknown(error: &PortError) -> Said {
    Said::refused(500, "InternalServerError", &engine::report::chain(error))
}

fn not_archived(error: &PortError) -> Said {
    let why = format!("its deleted records must be archived first: {}", engine::report::chain(error));
    match error.kind {
        ErrorKind::Internal(_) => Said::refused(500, "InternalServerError", &why),
        _ => Said::refused(400, "ResourceInUseException", &why),
    }
}

fn all(database: &Database, path: &Path) -> PortResult<Vec<String>> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let request = ListTablesRequest { exclusive_start_table_name: after, limit: None };
        let page = database.list_tables(request).map_err(|error| failed(path, error))?;
        all.extend(page.table_names);
        after = page.last_evaluated_table_name;
        if after.is_none() {
            return Ok(all);
        }
    }
}

fn failed(path: &Path, error: dynoxide::DynoxideError) -> PortError {
    PortError::new("read tables", path.display(), ErrorKind::Internal(error.to_string()))
}

/// What the endpoint is made of.
pub struct TablesEndpoint {
    /// The tables.
    pub tables: Arc<Tables>,
    /// The accepted key pair.
    pub keyring: Keyring,
    /// Time, for signatures, for clients that stall and for the end.
    pub clock: Arc<dyn Clock>,
    /// For the request ids.
    pub nonces: Arc<dyn Nonces>,
}

/// Serves the endpoint on this listener until `cancel`, as the S3 endpoint is. Whether the listener is bound to loopback is its
/// maker's decision.
pub async fn serve_tables(listener: TcpListener, endpoint: TablesEndpoint, cancel: CancellationToken) {
    let TablesEndpoint { tables, keyring, clock, nonces } = endpoint;
    let front = Arc::new(Front::new(tables, keyring, Arc::clone(&clock), nonces.nonce()));
    server::serve(listener, front, clock, cancel, TABLE_CONNECTIONS).await;
}
