//! Tables of this machine at work: the DynamoDB endpoint beside the S3 endpoint, and the archive of what is deleted from its
//! tables. Every table has its follower from the moment in which it is made until its stream ends.
//!
//! Nothing is stored for that: the tables themselves are the record, as buckets are of theirs. At every start each table that
//! has a stream is followed again, so a crash between table and follower is repaired by the next start.

use crate::archiving::{self, Archiving};
use crate::exit::Failure;
use crate::instance::{Instance, UNPOISONED, Untold};
use crate::limits::{STREAM_END_LOOK_EVERY, STREAM_END_WAIT, STREAM_FORGET_EVERY, STREAMS_AGAIN};
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
use std::collections::btree_map::Entry;
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

    /// Those that have none.
    pub(crate) async fn untold(&self) -> Result<Untold, Failure> {
        let mut untold = Untold::default();
        for (table, had_one) in self.0.without_streams().await? {
            if had_one { &mut untold.switched_off } else { &mut untold.unfinished }.push(table);
        }
        Ok(untold)
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
        tasks.spawn(Arc::clone(&keeper).keep_beginning());
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
        // Its stream keeps the records meanwhile.
        if let Err(failure) = self.start(&mut following, table).await {
            let why = failure.chain();
            tracing::error!(table, "its deleted records are not archived yet, which is tried again: {why}");
        }
    }

    async fn near_end(&self, table: &str) -> PortResult<()> {
        if !self.tables.carries_old_images(table).await? {
            return Ok(());
        }
        let mut all = self.following.lock().await;
        let archiving = self.start(&mut all, table).await.map_err(|failure| not_ended(table, failure.chain()))?;
        let archiving = archiving.archiving.clone();
        drop(all);
        let begun = self.instance.now();
        // While others write, it may never be read to its end.
        while self.instance.now().since(begun) <= STREAM_END_WAIT
            && archiving.caught_up_at().is_none_or(|at| at <= begun)
        {
            self.look_again(table, &archiving).await?;
        }
        Ok(())
    }

    async fn finish(&self, table: &str) -> PortResult<()> {
        let mut all = self.following.lock().await;
        if self.tables.carries_old_images(table).await? {
            // Nobody may have followed it yet: what it tells is archived now, or it does not end.
            let started = self.start(&mut all, table).await;
            let invalid = |failure: Failure| ErrorKind::Invalid(failure.chain());
            let following =
                started.map_err(|failure| PortError::new("archive last records of", table, invalid(failure)))?;
            self.caught_up(table, &following.archiving).await?;
        }
        self.instance.not_archived.write().expect(UNPOISONED).remove(table);
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

fn not_ended(table: &str, why: String) -> PortError {
    let fix = format!("{why}; once `afterimage status` says that it is caught up, give the command again");
    PortError::new("archive last records of", table, ErrorKind::NotSetUp(fix))
}

impl Keeper {
    /// Follows a table, unless it is followed. What fails is noted for `status`, and for who tries again.
    async fn start<'a>(
        &self,
        following: &'a mut BTreeMap<String, Following>,
        table: &str,
    ) -> Result<&'a Following, Failure> {
        let place = match following.entry(table.to_owned()) {
            Entry::Occupied(there) => return Ok(there.into_mut()),
            Entry::Vacant(place) => place,
        };
        let opened = wiring::archiving_of_own_table(&self.instance, table).await;
        let mut not_archived = self.instance.not_archived.write().expect(UNPOISONED);
        match opened {
            Ok(archiving) => {
                not_archived.remove(table);
                let cancel = self.driven.child_token();
                let follow = archiving::follow(self.instance.clone(), archiving.clone(), cancel.clone());
                let ended = self.tasks.spawn(follow);
                Ok(place.insert(Following { archiving, cancel, ended }))
            }
            Err(failure) => {
                not_archived.insert(table.to_owned(), failure.chain());
                Err(failure)
            }
        }
    }

    /// Tries again to follow what could not be followed, again and again.
    async fn keep_beginning(self: Arc<Self>) {
        let clock = self.instance.clock.clone();
        loop {
            tokio::select! {
                () = self.driven.cancelled() => return,
                () = clock.sleep(STREAMS_AGAIN) => self.begin_the_rest().await,
            }
        }
    }

    async fn begin_the_rest(&self) {
        let mut following = self.following.lock().await;
        // Under the lock: a table whose stream ends meanwhile is in neither.
        let left: Vec<String> = self.instance.not_archived.read().expect(UNPOISONED).keys().cloned().collect();
        for table in left {
            if let Err(failure) = self.start(&mut following, &table).await {
                tracing::debug!(table, "its deleted records are still not archived: {}", failure.chain());
            }
        }
    }

    /// Waits for a moment; an error if waiting is in vain.
    async fn look_again(&self, table: &str, archiving: &Archiving) -> PortResult<()> {
        if let Some(why) = archiving.held_up() {
            return Err(not_ended(table, why));
        }
        tokio::select! {
            () = self.driven.cancelled() => Err(PortError::new("archive last records of", table, ErrorKind::Cancelled)),
            () = self.instance.clock.sleep(STREAM_END_LOOK_EVERY) => Ok(()),
        }
    }

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
                return Err(not_ended(table, format!("that is not done after {STREAM_END_WAIT}")));
            }
            self.look_again(table, archiving).await?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archiving::LEASES_FILE;
    use crate::commands::status::status;
    use crate::instance::tests::opened;
    use engine::steps::archived_names::{Days, days};
    use lifecycle::archive::ServiceName;
    use local::clock::SystemClock;
    use std::fs;
    use std::path::PathBuf;

    async fn call(keeper: &Keeper, operation: &str, request: &str) {
        let target = format!("DynamoDB_20120810.{operation}");
        let said = keeper.tables.call(&target, request.to_owned().into()).await;
        assert_eq!(said.status, 200, "{operation}: {}", String::from_utf8_lossy(&said.body));
    }

    /// What is in the way of every archive.
    fn in_the_way(instance: &Instance) -> PathBuf {
        instance.folder.path().join(LEASES_FILE)
    }

    /// A keeper of the table Orders, from which a record was deleted before anybody followed it; its archive cannot be opened.
    async fn unfollowed() -> (tempfile::TempDir, Arc<Keeper>) {
        let (root, instance) = opened(Arc::new(SystemClock)).await;
        fs::create_dir(in_the_way(&instance)).unwrap();
        let Some(Own(tables)) = &instance.tables else { panic!("they are on") };
        let keeper = Arc::new(Keeper {
            tables: Arc::clone(tables),
            tasks: TaskTracker::new(),
            driven: CancellationToken::new(),
            following: Mutex::default(),
            instance: Arc::clone(&instance),
        });
        let schema = r#""KeySchema":[{"AttributeName":"id","KeyType":"HASH"}],"BillingMode":"PAY_PER_REQUEST","#;
        let typed = r#""AttributeDefinitions":[{"AttributeName":"id","AttributeType":"S"}]"#;
        call(&keeper, "CreateTable", &format!(r#"{{"TableName":"Orders",{schema}{typed}}}"#)).await;
        call(&keeper, "PutItem", r#"{"TableName":"Orders","Item":{"id":{"S":"a"}}}"#).await;
        call(&keeper, "DeleteItem", r#"{"TableName":"Orders","Key":{"id":{"S":"a"}}}"#).await;
        (root, keeper)
    }

    async fn problems(keeper: &Keeper) -> usize {
        let answer = serde_json::to_value(status(&keeper.instance).await.unwrap()).unwrap();
        let all = answer["problems"].as_array().unwrap();
        all.iter().filter(|problem| problem.as_str().unwrap().starts_with("local@Orders: deleted records")).count()
    }

    #[tokio::test]
    async fn a_stream_that_nobody_follows_ends_only_once_it_is_archived() {
        let (_root, keeper) = unfollowed().await;
        let instance = &keeper.instance;
        keeper.begin("Orders").await;
        assert_eq!(problems(&keeper).await, 1);
        let refused = keeper.finish("Orders").await.unwrap_err();
        assert!(engine::report::chain(&refused).contains(LEASES_FILE), "{refused:?}");
        // And as long as it is in the way, trying again changes nothing.
        keeper.begin_the_rest().await;
        assert_eq!((problems(&keeper).await, keeper.following.lock().await.len()), (1, 0));

        fs::remove_dir(in_the_way(instance)).unwrap();
        keeper.finish("Orders").await.unwrap();
        assert_eq!((problems(&keeper).await, keeper.following.lock().await.len()), (0, 0));
        let archiving = wiring::archiving_of_own_table(instance, "Orders").await.unwrap();
        let (reader, service) = (archiving.reader(instance).unwrap(), ServiceName::new("Orders").unwrap());
        assert_eq!(days(reader.as_ref(), &service, Days::default()).await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_table_that_could_not_be_followed_is_followed_once_it_can_be() {
        let (_root, keeper) = unfollowed().await;
        keeper.begin("Orders").await;
        fs::remove_dir(in_the_way(&keeper.instance)).unwrap();
        keeper.begin_the_rest().await;
        assert_eq!((problems(&keeper).await, keeper.following.lock().await.len()), (0, 1));
        keeper.finish("Orders").await.unwrap();
    }
}
