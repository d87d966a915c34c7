//! Tables of this machine at work: the DynamoDB endpoint beside the S3 endpoint, and the archive of what is deleted from its
//! tables. Every table has its follower from the moment in which it is made until its stream ends.
//!
//! Nothing is stored for that: the tables themselves are the record, as buckets are of theirs. At every start each table that
//! has a stream is followed again, so a crash between table and follower is repaired by the next start.

use crate::archiving::{self, Archiving};
use crate::exit::Failure;
use crate::instance::{Instance, UNPOISONED};
use crate::limits::{STREAM_END_LOOK_EVERY, STREAM_END_WAIT, STREAM_FORGET_EVERY};
use crate::wiring;
use async_trait::async_trait;
use aws::AnswersHere;
use engine::config::{ArchiveConfig, Config};
use engine::error::{ErrorKind, PortError, PortResult};
use engine::flows::follow::ShardSeen;
use engine::steps::shard_places::{Place, ShardPlaces};
use lifecycle::time::UnixMs;
use local::tables::limits::STREAM_KEPT;
use local::tables::{Said, TABLES_FILE, TableHooks, Tables, TablesEndpoint, serve_tables};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The tables of a data folder.
pub(crate) struct Own(Arc<Tables>);

/// Opens them, unless the configuration switches them off.
pub(crate) async fn open(data: &Path, config: &Config) -> Result<Option<Own>, Failure> {
    if config.tables.is_none() {
        return Ok(None);
    }
    let file = data.join(TABLES_FILE);
    let tables = tokio::task::spawn_blocking(move || Tables::open(&file)).await??;
    Ok(Some(Own(Arc::new(tables))))
}

impl Own {
    /// What clients in this process ask.
    pub(crate) fn answers(&self) -> Arc<dyn AnswersHere> {
        Arc::new(Answers(Arc::clone(&self.0)))
    }

    /// The names of all tables.
    pub(crate) async fn all(&self) -> Result<Vec<String>, Failure> {
        Ok(self.0.all().await?)
    }

    /// The names of those that have a stream.
    pub(crate) async fn with_streams(&self) -> Result<Vec<String>, Failure> {
        Ok(self.0.with_streams().await?)
    }

    /// Ends in good order.
    pub(crate) async fn close(&self) {
        self.0.close().await;
    }

    /// Follows the tables, sweeps them, and serves them to clients. `cancel` ends the endpoint, `driven` all else.
    pub(crate) async fn serve(
        &self,
        instance: &Arc<Instance>,
        listener: TcpListener,
        tasks: &TaskTracker,
        (cancel, driven): (&CancellationToken, &CancellationToken),
    ) -> Result<JoinHandle<()>, Failure> {
        let tables = Arc::clone(&self.0);
        let keeper = Arc::new(Keeper {
            instance: Arc::clone(instance),
            tables: Arc::clone(&tables),
            tasks: tasks.clone(),
            driven: driven.clone(),
            following: Mutex::default(),
        });
        for table in self.with_streams().await? {
            keeper.begin(&table).await;
        }
        tables.set_hooks(keeper.clone());
        tasks.spawn(Arc::clone(&tables).keep_sweeping(instance.clock.clone(), driven.clone()));
        tasks.spawn(keeper.keep_forgetting());
        let endpoint = TablesEndpoint {
            tables,
            keyring: instance.keyring.clone(),
            clock: instance.clock.clone(),
            nonces: instance.nonces.clone(),
        };
        Ok(tokio::spawn(serve_tables(listener, endpoint, cancel.clone())))
    }
}

/// What the followers and `archive restore` ask.
struct Answers(Arc<Tables>);

#[async_trait]
impl AnswersHere for Answers {
    async fn answer(&self, target: String, body: bytes::Bytes) -> (u16, bytes::Bytes) {
        let Said { status, body } = self.0.call(&target, body).await;
        (status, body)
    }
}

/// The daemon, as the tables see it.
struct Keeper {
    instance: Arc<Instance>,
    tables: Arc<Tables>,
    /// Where followers run.
    tasks: TaskTracker,
    /// Ends them.
    driven: CancellationToken,
    /// By table.
    following: Mutex<BTreeMap<String, Following>>,
}

/// The follower of one table.
struct Following {
    archiving: Arc<Archiving>,
    cancel: CancellationToken,
    ended: JoinHandle<()>,
}

#[async_trait]
impl TableHooks for Keeper {
    async fn prepare(&self, table: &str) -> PortResult<()> {
        let prepared = wiring::prepare_own_table(&self.instance, table).await;
        let invalid = |failure: Failure| ErrorKind::Invalid(failure.chain());
        prepared.map_err(|failure| PortError::new("prepare archive of", table, invalid(failure)))
    }

    async fn begin(&self, table: &str) {
        let mut following = self.following.lock().await;
        if following.contains_key(table) {
            return;
        }
        match wiring::archiving_of_own_table(&self.instance, table).await {
            Ok(archiving) => {
                let cancel = self.driven.child_token();
                let follow = archiving::follow(self.instance.clone(), archiving.clone(), cancel.clone());
                let ended = self.tasks.spawn(follow);
                following.insert(table.to_owned(), Following { archiving, cancel, ended });
            }
            // Its stream keeps the records.
            Err(failure) => {
                let why = failure.chain();
                tracing::error!(table, "its deleted records are not archived before the next start: {why}");
            }
        }
    }

    async fn finish(&self, table: &str) -> PortResult<()> {
        let mut all = self.following.lock().await;
        let Some(following) = all.get(table) else { return Ok(()) };
        if self.tables.carries_old_images(table).await {
            self.caught_up(table, &following.archiving).await?;
        }
        if let Some(Following { cancel, ended, .. }) = all.remove(table) {
            cancel.cancel();
            let broke = |_| ErrorKind::Internal("its follower broke off".to_owned());
            ended.await.map_err(|error| PortError::new("follow table", table, broke(error)))?;
        }
        Ok(())
    }

    async fn ended(&self, table: &str, stream: &str) -> PortResult<()> {
        let instance = &self.instance;
        let invalid =
            |failure: Failure| PortError::new("note end of stream of", table, ErrorKind::Internal(failure.chain()));
        let archiving = wiring::archiving_of_own_table(instance, table).await.map_err(invalid)?;
        let places = ShardPlaces::new(archiving.writer(instance).map_err(invalid)?, table, stream);
        for shard in places.known().await? {
            let place = places.read(&shard).await?;
            places.write(&shard, &Place { ended: true, ..place }).await?;
        }
        let is_configured = |archive: &ArchiveConfig| archive.table == archiving.config.table;
        if !instance.config.archives.iter().any(is_configured) {
            instance.archivings.write().expect(UNPOISONED).retain(|other| !other.is_of_own(table));
        }
        Ok(())
    }
}

impl Archiving {
    /// Since when everything that its streams tell is archived; `None`: that is not known of every shard.
    fn caught_up_at(&self) -> Option<UnixMs> {
        let followed = self.followed();
        let shards: Vec<ShardSeen> = followed.values().flat_map(|seen| seen.shards().into_values()).collect();
        // `None` is less than any.
        shards.iter().map(|seen| seen.caught_up_at).min()?
    }
}

impl Keeper {
    /// Waits until nothing is left to read of a table that nobody writes meanwhile.
    async fn caught_up(&self, table: &str, archiving: &Archiving) -> PortResult<()> {
        let clock = &self.instance.clock;
        let begun = clock.now();
        let mut seen: Option<UnixMs> = None;
        loop {
            // A page that was empty may have been asked for before; the one after it was not.
            let at = archiving.caught_up_at().filter(|at| *at > begun);
            match (seen, at) {
                (Some(first), Some(at)) if at > first => return Ok(()),
                (None, Some(at)) => seen = Some(at),
                _ => {}
            }
            if clock.now().since(begun) > STREAM_END_WAIT {
                return Err(PortError::new("archive last records of", table, ErrorKind::Unavailable));
            }
            tokio::select! {
                () = self.driven.cancelled() => {
                    return Err(PortError::new("archive last records of", table, ErrorKind::Cancelled));
                }
                () = clock.sleep(STREAM_END_LOOK_EVERY) => {}
            }
        }
    }

    /// Lets the streams forget what is old and archived, again and again.
    async fn keep_forgetting(self: Arc<Self>) {
        let clock = self.instance.clock.clone();
        loop {
            if let Err(failure) = self.forget().await {
                tracing::warn!("streams of tables keep old records: {}", failure.chain());
            }
            tokio::select! {
                () = self.driven.cancelled() => return,
                () = clock.sleep(STREAM_FORGET_EVERY) => {}
            }
        }
    }

    async fn forget(&self) -> Result<(), Failure> {
        let before = self.instance.now().minus(STREAM_KEPT);
        let following = self.following.lock().await;
        let all: Vec<_> = following.iter().map(|(table, of)| (table.clone(), of.archiving.clone())).collect();
        drop(following);
        for (table, archiving) in all {
            for stream in archiving.followed().keys() {
                let places = ShardPlaces::new(archiving.writer(&self.instance)?, &table, stream);
                for shard in places.known().await? {
                    if let Some((archived, _)) = places.read(&shard).await?.after {
                        self.tables.forget(&table, &archived, before).await?;
                    }
                }
            }
        }
        Ok(())
    }
}
