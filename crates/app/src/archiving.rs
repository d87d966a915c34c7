//! Tables whose deleted records are archived: each table's streams are followed, as long as `serve` runs.
//!
//! What keeps one table's stream from being read holds up nothing else: it is tried again, `status` says it, and the records
//! wait in the stream, for a day.

use crate::exit::Failure;
use crate::home::{Home, Kept};
use crate::instance::{Instance, UNPOISONED};
use crate::limits::{STREAMS_AGAIN, STREAMS_LOOK_EVERY};
use aws::{DynamoDbStream, SqsQueue};
use engine::config::{ArchiveConfig, LOCAL_SERVICE};
use engine::flows::archive::Archive;
use engine::flows::feed::FeedSeen;
use engine::flows::follow::{Follower, Seen};
use engine::ports::metrics::{Counter, Metrics};
use engine::ports::objects::{ObjectPurge, ObjectRead, ObjectWrite};
use engine::ports::streams::RecordStream;
use engine::steps::aside::AsidePurger;
use engine::steps::outbox::Outbox;
use engine::steps::shard_places::ShardPlaces;
use engine::wrap::retry::Retries;
use engine::wrap::unpacked::Unpacked;
use lifecycle::time::UnixMs;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, OnceLock, RwLock};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Where leases are that are no table's, in the data folder.
pub(crate) const LEASES_FILE: &str = "leases.sqlite";

/// What is said of a task that panicked.
const BROKE_OFF: &str = "their reader broke off, for which the log says why; another one is begun within a minute";

/// One table.
pub(crate) struct Archiving {
    /// As configured.
    pub(crate) config: ArchiveConfig,
    /// Where its records go.
    pub(crate) destination: Home,
    /// Who reads which shard.
    pub(crate) leases: Kept,
    /// The queue of what Lambda gave up.
    failures: Option<Arc<SqsQueue>>,
    /// What is to be told, once it was asked for.
    outbox: OnceLock<Arc<Outbox>>,
    /// What is seen of its feed.
    pub(crate) feed_seen: Arc<FeedSeen>,
    /// The streams that are followed, by their names: what is seen of each, and how it is stopped.
    followed: RwLock<BTreeMap<String, (Arc<Seen>, CancellationToken)>>,
    /// Why its streams cannot be opened.
    trouble: RwLock<Option<String>>,
    /// When the schedule packed it last without success, and why.
    pub(crate) not_packed: Mutex<Option<(UnixMs, String)>>,
}

impl Archiving {
    pub(crate) fn new(
        config: ArchiveConfig,
        destination: Home,
        leases: Kept,
        failures: Option<Arc<SqsQueue>>,
    ) -> Archiving {
        let (followed, trouble, not_packed) = (RwLock::default(), RwLock::default(), Mutex::default());
        let (outbox, feed_seen) = (OnceLock::new(), Arc::default());
        Archiving { config, destination, leases, failures, outbox, feed_seen, followed, trouble, not_packed }
    }

    /// The queue of what Lambda gave up, as the configuration names it.
    pub(crate) fn failures(&self) -> Option<(String, Arc<SqsQueue>)> {
        let name = self.config.failures.as_ref().map(|queue| format!("sqs://{queue}"));
        name.zip(self.failures.clone())
    }

    /// What is seen of its streams, by their names.
    pub(crate) fn followed(&self) -> BTreeMap<String, Arc<Seen>> {
        let followed = self.followed.read().expect(UNPOISONED);
        followed.iter().map(|(name, (seen, _))| (name.clone(), seen.clone())).collect()
    }

    /// Why its streams cannot be opened.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.trouble.read().expect(UNPOISONED).clone()
    }

    /// Why what is deleted now would not be archived now.
    #[cfg(feature = "dynamodb")]
    pub(crate) fn held_up(&self) -> Option<String> {
        let followed = self.followed();
        let of_shards =
            followed.values().flat_map(|seen| seen.shards().into_values()).filter_map(|shard| shard.trouble);
        self.trouble().into_iter().chain(followed.values().filter_map(|seen| seen.trouble())).chain(of_shards).next()
    }

    /// The archive's objects, to read.
    pub(crate) fn objects(&self, instance: &Instance) -> Result<Arc<dyn ObjectRead>, Failure> {
        self.destination.reader(&instance.store, &retries(instance))
    }

    /// Whether it is that of a table of this machine.
    pub(crate) fn is_own(&self) -> bool {
        self.config.table.service.as_deref() == Some(LOCAL_SERVICE)
    }

    /// Whether it is that of this table of this machine.
    pub(crate) fn is_of_own(&self, table: &str) -> bool {
        self.is_own() && self.config.table.name == table
    }

    /// The archive, packs and all, to read.
    pub(crate) fn reader(&self, instance: &Instance) -> Result<Arc<Unpacked>, Failure> {
        Ok(Arc::new(Unpacked::new(self.objects(instance)?)))
    }

    /// The right to delete from it, for a `Purger` only (I3).
    pub(crate) fn purger(&self, instance: &Instance) -> Result<Arc<dyn ObjectPurge>, Failure> {
        self.destination.purger(&instance.store, &retries(instance))
    }

    /// The right to write it.
    pub(crate) fn writer(&self, instance: &Instance) -> Result<Arc<dyn ObjectWrite>, Failure> {
        let writer = self.destination.writer(&instance.store)?;
        Ok(match &self.destination {
            Home::Here(_) => retries(instance).write(writer),
            Home::There(_) => writer,
        })
    }

    /// The archive, for records that are archived after all.
    pub(crate) fn archive(&self, instance: &Instance) -> Result<Archive, Failure> {
        let archive = Archive::new(&self.config.table.name, self.writer(instance)?, instance.metrics.clone());
        Ok(archive.for_late_ones())
    }

    /// What is to be told of what is archived; `None`: nobody is.
    pub(crate) fn outbox(&self, instance: &Instance) -> Result<Option<Arc<Outbox>>, Failure> {
        let Some(feed) = &self.config.feed else { return Ok(None) };
        if let Some(outbox) = self.outbox.get() {
            return Ok(Some(outbox.clone()));
        }
        let (table, destination) = (&self.config.table.name, self.config.destination.to_string());
        let outbox = Arc::new(Outbox::new(self.writer(instance)?, table, &destination, feed.with_image));
        Ok(Some(self.outbox.get_or_init(|| outbox).clone()))
    }

    /// The right to remove what lies aside.
    pub(crate) fn aside(&self, instance: &Instance) -> Result<AsidePurger, Failure> {
        Ok(AsidePurger::new(self.destination.purger(&instance.store, &retries(instance))?))
    }

    fn follower(
        &self,
        instance: &Instance,
        stream: DynamoDbStream,
        cancel: &CancellationToken,
    ) -> Result<Follower, Failure> {
        let (destination, table) = (self.writer(instance)?, self.config.table.name.as_str());
        let seen = Arc::new(Seen::default());
        let entry = (seen.clone(), cancel.clone());
        self.followed.write().expect(UNPOISONED).insert(stream.name().to_owned(), entry);
        Ok(Follower {
            places: ShardPlaces::new(destination.clone(), table, stream.name()),
            archive: Archive::new(table, destination, instance.metrics.clone()),
            outbox: self.outbox(instance)?,
            stream: Arc::new(stream),
            leases: self.leases.catalog(&retries(instance)),
            clock: instance.clock.clone(),
            holder: holder(instance),
            nonces: instance.nonces.clone(),
            seen,
        })
    }
}

/// Who this process is towards others: the folder's lock makes it one process's.
pub(crate) fn holder(instance: &Instance) -> String {
    format!("data folder {}", instance.store.data_folder().0)
}

/// How calls to what is on this machine are tried again.
pub(crate) fn retries(instance: &Instance) -> Retries {
    Retries::new(instance.clock.clone(), instance.nonces.clone(), instance.metrics.clone())
}

/// Follows a table's streams until cancelled; one that comes anew beside those that it had before.
pub(crate) async fn follow(instance: Arc<Instance>, archiving: Arc<Archiving>, cancel: CancellationToken) {
    let following = TaskTracker::new();
    while !cancel.is_cancelled() {
        // In a task of its own: what breaks off in there is told, and begun again.
        let begun = begin(instance.clone(), archiving.clone(), following.clone(), cancel.clone());
        let begun = tokio::spawn(begun).await.unwrap_or_else(|_| Err(Failure::failed(BROKE_OFF)));
        let trouble = begun.err().map(|failure| failure.chain());
        let before = std::mem::replace(&mut *archiving.trouble.write().expect(UNPOISONED), trouble.clone());
        if let Some(why) = trouble.as_ref().filter(|_| before != trouble) {
            tracing::error!(table = archiving.config.table.name, "deleted records are not archived: {why}");
        }
        let wait = if trouble.is_none() { STREAMS_LOOK_EVERY } else { STREAMS_AGAIN };
        tokio::select! {
            () = cancel.cancelled() => {}
            () = instance.clock.sleep(wait) => {}
        }
    }
    following.close();
    following.wait().await;
    // Nobody reads them any more: whoever follows this table next must not take them for read.
    archiving.followed.write().expect(UNPOISONED).clear();
}

async fn begin(
    instance: Arc<Instance>,
    archiving: Arc<Archiving>,
    following: TaskTracker,
    cancel: CancellationToken,
) -> Result<(), Failure> {
    let table = archiving.config.table.name.as_str();
    let streams = instance.services.streams(&archiving.config).await?;
    let there: BTreeSet<String> = streams.iter().map(|stream| stream.name().to_owned()).collect();
    for stream in streams {
        if archiving.followed().contains_key(stream.name()) {
            continue;
        }
        tracing::info!(table, stream = stream.name(), "following the stream");
        let cancel = cancel.child_token();
        let name = stream.name().to_owned();
        let follower = archiving.follower(&instance, stream, &cancel)?;
        following.spawn(watched(archiving.clone(), name, async move { follower.run(&cancel).await }));
    }
    leave_the_forgotten(&instance, &archiving, &there).await
}

/// A reader that breaks off is a mistake of ours. It is told, and until another one is begun, `status` says so.
async fn watched(archiving: Arc<Archiving>, stream: String, reader: impl Future<Output = ()> + Send + 'static) {
    if tokio::spawn(reader).await.is_err() {
        *archiving.trouble.write().expect(UNPOISONED) = Some(BROKE_OFF.to_owned());
        archiving.followed.write().expect(UNPOISONED).remove(&stream);
        tracing::error!(table = archiving.config.table.name, stream, "deleted records are not archived: {BROKE_OFF}");
    }
}

/// A stream is forgotten a day after the table got another one, or none: it is left, and what was not read of it is told.
async fn leave_the_forgotten(
    instance: &Instance,
    archiving: &Archiving,
    there: &BTreeSet<String>,
) -> Result<(), Failure> {
    archiving.followed.write().expect(UNPOISONED).retain(|name, (_, cancel)| {
        if !there.contains(name) {
            cancel.cancel();
        }
        there.contains(name)
    });
    let (writer, table) = (archiving.writer(instance)?, archiving.config.table.name.as_str());
    for stream in ShardPlaces::streams(writer.as_ref(), table).await? {
        if there.contains(&stream) {
            continue;
        }
        let places = ShardPlaces::new(writer.clone(), table, &stream);
        for shard in places.known().await? {
            if places.note_forgotten(&shard, instance.now()).await? {
                instance.metrics.add(Counter::Gaps, 1);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::status::status;
    use crate::instance::tests::opened;
    use crate::wiring::archiving_of_own_table;
    use engine::memory::clock::MemoryClock;

    #[tokio::test]
    async fn a_reader_that_breaks_off_is_told_and_is_begun_anew() {
        let (_root, instance) = opened(Arc::new(MemoryClock::at(UnixMs(1_795_245_972_000)))).await;
        let archiving = archiving_of_own_table(&instance, "Orders").await.unwrap();
        let entry = (Arc::new(Seen::default()), CancellationToken::new());
        archiving.followed.write().unwrap().insert("stream".to_owned(), entry);
        watched(archiving.clone(), "stream".to_owned(), async { panic!("in a test") }).await;
        assert!(archiving.followed().is_empty(), "whoever looks for streams begins it again");
        let answer = serde_json::to_value(status(&instance).await.unwrap()).unwrap();
        let problem = answer["problems"][0].as_str().unwrap();
        assert!(
            problem.starts_with("local@Orders: deleted records are not archived: their reader broke off"),
            "{answer}"
        );
    }
}
