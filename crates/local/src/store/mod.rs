//! The bucket store: buckets of objects on the file system, with an index in `state.sqlite`.
//!
//! Place: the S3 endpoint serves clients from it ([`Bucket`]), the engine reaches it through the object ports. A write to a
//! source bucket ends in one transaction {object row, event}: acknowledged means in the spool (I8). Bytes are durable
//! before any row says that they are there (I1). The layout of files and tables stands in `docs/formats.md`; what a crash
//! leaves stands at the head of each part: `write.rs`, `copy.rs`, `multipart.rs`, `purge.rs`, `reclaim.rs`, `reindex.rs`.

mod blocking;
mod bucket;
mod copy;
mod crc;
mod error;
mod folder;
mod held;
mod index;
mod intake;
mod limits;
mod marker;
mod meta;
mod multipart;
mod path;
mod ports;
mod purge;
mod read;
pub(crate) mod reclaim;
mod reindex;
mod schema;
mod tree;
mod types;
mod upload_rows;
mod write;

#[cfg(test)]
mod tests;

pub use bucket::Bucket;
pub use error::{StoreError, StoreResult};
pub use folder::FolderTarget;
pub use marker::is_bucket_folder;
pub use reindex::Reindexed;
pub use types::{
    BodyCheck, BodyDigest, BucketInfo, BucketName, BucketSpec, CompleteExpectation, CompletePart, CopyAttributes,
    CopySpec, DeleteItem, Deleted, Found, ListEntry, ListFrom, ListPage, ListRequest, Mismatch, ObjectInfo, PartInfo,
    PartPage, PutRequest, ReadRange, Role, UploadId, UploadInfo, UploadPage,
};

use crate::spool::Spool;
use crate::sqlite::error_map::Fault;
use crate::sqlite::open::Database;
use blocking::Blocking;
use engine::error::{ErrorKind, PortError, PortResult};
use engine::ports::clock::{Clock, Nonces};
use engine::ports::objects::{ObjectCopy, ObjectPurge, ObjectRead, ObjectWrite};
use error::io_error;
use held::Held;
use lifecycle::ids::ObjectKey;
use lifecycle::time::UnixMs;
use limits::BLOCKING_AT_ONCE;
use marker::Owner;
use path::Sequencer;
use reclaim::Reclaimer;
use rusqlite::{Connection, params};
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use tree::Tree;

/// The file of the index, the spool and the dead letters in the data folder.
pub const STATE_FILE: &str = "state.sqlite";
/// The folder of the buckets in the data folder.
pub const BUCKETS_FOLDER: &str = "buckets";

/// All buckets of one data folder.
pub struct Store {
    data_dir: PathBuf,
    /// How folders outside of the data folder know it.
    owner: Owner,
    db: Arc<Database>,
    clock: Arc<dyn Clock>,
    nonces: Arc<dyn Nonces>,
    buckets: RwLock<BTreeMap<String, Arc<Held>>>,
    last_sequencer: Mutex<Sequencer>,
    /// The last sequencer that the index knew when it was opened.
    known_at_open: Sequencer,
    /// Held while a bucket is made or deleted, so that of two who ask for one name, one gets it.
    naming: tokio::sync::Mutex<()>,
    blocking: Blocking,
    spool: Arc<Spool>,
    reclaimer: Reclaimer,
    #[cfg(test)]
    fault: Mutex<Option<tests::Fault>>,
}

/// Where a fault may strike in a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The temporary file is written, nothing is durable.
    Written,
    /// The temporary file is durable.
    Synced,
    /// The file has its name, durably; no row says so.
    Published,
    /// The row is durable; nobody was told.
    Committed,
}

impl Store {
    /// Opens the data folder's buckets and `state.sqlite` (made if missing). The caller holds the folder's lock.
    ///
    /// A bucket whose folder is not there (a disk that is not mounted) does not hinder the others: its operations fail
    /// until it is.
    pub async fn open(data_dir: &Path, clock: Arc<dyn Clock>, nonces: Arc<dyn Nonces>) -> StoreResult<Arc<Store>> {
        let path = data_dir.join(STATE_FILE);
        let owner = Owner::of(data_dir, nonces.nonce());
        let owner = owner.map_err(|error| io_error("read the id of", data_dir.display(), error))?;
        let opening = tokio::task::spawn_blocking(move || Database::open(&path, &schema::SCHEMA));
        let db = Arc::new(opening.await.map_err(|_| panicked("open database", STATE_FILE))??);
        let (reclaimer, reclaims) = Reclaimer::new();
        let spool = Arc::new(Spool::open(Arc::clone(&db), Arc::clone(&clock), reclaimer.clone()).await?);
        let (last, buckets, unread) = {
            let (data_dir, owner) = (data_dir.to_owned(), owner.clone());
            db.read("read buckets", STATE_FILE, move |db| load(db, &data_dir, &owner)).await?
        };
        let store = Arc::new(Store {
            data_dir: data_dir.to_owned(),
            owner,
            db,
            clock,
            nonces,
            buckets: RwLock::new(buckets),
            last_sequencer: Mutex::new(last),
            known_at_open: last,
            naming: tokio::sync::Mutex::default(),
            blocking: Blocking::new(BLOCKING_AT_ONCE),
            spool,
            reclaimer,
            #[cfg(test)]
            fault: Mutex::default(),
        });
        tokio::spawn(reclaims.serve(Arc::downgrade(&store)));
        store.read_unread(unread).await?;
        Ok(store)
    }

    /// Makes a bucket. [`StoreError::BucketExists`] when the name is taken. The folder may hold files already: those that
    /// the layout can name become objects at once, so that a lost `state.sqlite` is made again by making its buckets.
    pub async fn create_bucket(self: &Arc<Self>, spec: BucketSpec) -> StoreResult<Bucket> {
        let (this, name) = (Arc::clone(self), spec.name.clone());
        to_the_end("create bucket", name, async move { this.create(spec).await }).await
    }

    async fn create(self: &Arc<Self>, spec: BucketSpec) -> StoreResult<Bucket> {
        let root = match spec.root {
            Some(root) => root,
            None => self.data_dir.join(BUCKETS_FOLDER).join(spec.name.as_str()),
        };
        // A folder inside the data folder moves with it.
        let written = root.strip_prefix(&self.data_dir).unwrap_or(&root);
        let Some(root_text) = written.to_str().map(str::to_owned) else {
            return Err(StoreError::Invalid(format!("the folder {} is not named in UTF-8", root.display())));
        };
        let naming = self.naming.lock().await;
        if let Some(held) = self.held(spec.name.as_str()) {
            return self.bring_back(held, spec.role, &root).await;
        }
        let (name, at) = (spec.name.to_string(), root.clone());
        let owner = owner_of(&root, &self.data_dir, &self.owner);
        let claimed = owner.clone();
        let make = move || Tree::create(&at, &name, claimed.as_ref());
        let tree = self.blocking.run("create bucket", &spec.name, make).await?;
        let tree = tree.map_err(|error| io_error("create bucket", root.display(), error))?;

        let info = BucketInfo { name: spec.name, role: spec.role, root, created_at: self.clock.now() };
        let row = info.clone();
        let insert = move |db: &Connection| -> Result<i64, Fault> {
            const SQL: &str = "INSERT INTO buckets (name, role, root, created_at, unread) VALUES (?1, ?2, ?3, ?4, 1)";
            let role = role_text(row.role);
            db.prepare_cached(SQL)?.execute(params![row.name.as_str(), role, root_text, row.created_at.0])?;
            Ok(db.last_insert_rowid())
        };
        let id = self.db.write("create bucket", info.name.as_str(), insert).await?;
        let held = Arc::new(Held::new(id, info, owner, Some(tree)));
        {
            let mut buckets = self.buckets.write().unwrap_or_else(PoisonError::into_inner);
            buckets.insert(held.info.name.to_string(), Arc::clone(&held));
        }
        drop(naming);
        let bucket = Bucket { store: Arc::clone(self), held };
        self.read_files(&bucket).await?;
        Ok(bucket)
    }

    /// Takes in the files that a bucket's folder holds, and notes that it is done. Until then nobody may take a file
    /// without a row for garbage: killed half-way, the next opening goes on.
    async fn read_files(&self, bucket: &Bucket) -> StoreResult<()> {
        bucket.reindex_files().await?;
        let id = bucket.held.id;
        let read = move |db: &Connection| -> Result<(), Fault> {
            db.prepare_cached("UPDATE buckets SET unread = 0 WHERE id = ?1")?.execute([id])?;
            Ok(())
        };
        Ok(self.db.write("change bucket", bucket.held.info.name.as_str(), read).await?)
    }

    /// Goes on where the making of a bucket over its files was cut short. A source that cannot be read keeps everything
    /// closed: to go on without its objects would look like their deletion (V8).
    async fn read_unread(self: &Arc<Self>, unread: Vec<String>) -> StoreResult<()> {
        for held in unread.iter().filter_map(|name| self.held(name)) {
            let role = held.info.role;
            let bucket = Bucket { store: Arc::clone(self), held };
            match (self.read_files(&bucket).await, role) {
                (Ok(()), _) => {}
                (Err(error), Role::Source) => return Err(error),
                (Err(error), Role::Destination) => {
                    tracing::warn!(bucket = %bucket.held.info.name, "its files are not all known yet: {error}");
                }
            }
        }
        Ok(())
    }

    /// A bucket that was deleted, but whose folder still had versions that events wait for, is made anew.
    async fn bring_back(self: &Arc<Self>, held: Arc<Held>, role: Role, root: &Path) -> StoreResult<Bucket> {
        let exists = || Err(StoreError::BucketExists(held.info.name.to_string()));
        if held.info.role != role || held.info.root != root {
            return exists();
        }
        // Also when memory knows of no deletion: one that reported failure may be durable, and refuses every write.
        let id = held.id;
        let set = move |db: &Connection| index::set_deleted(db, id, false);
        self.db.write("change bucket", held.info.name.as_str(), set).await?;
        if !held.is_deleted() {
            return exists();
        }
        held.set_deleted(false);
        Ok(Bucket { store: Arc::clone(self), held })
    }

    /// Deletes an empty bucket: clients see it no more. Its folder stays, since events may still wait for versions in it.
    /// Looking and deleting are one transaction, and so is every write with its look at whether the bucket is still there:
    /// of a write and a deletion at the same time, the one that comes second is refused.
    /// [`StoreError::NoSuchBucket`], [`StoreError::BucketNotEmpty`], and [`StoreError::ReadOnly`] for a destination.
    pub async fn delete_bucket(self: &Arc<Self>, name: &BucketName) -> StoreResult<()> {
        let (this, wanted) = (Arc::clone(self), name.clone());
        to_the_end("delete bucket", name, async move { this.delete(&wanted).await }).await
    }

    async fn delete(&self, name: &BucketName) -> StoreResult<()> {
        let _naming = self.naming.lock().await;
        let held = self.visible(name.as_str())?;
        if held.info.role == Role::Destination {
            return Err(StoreError::ReadOnly(name.to_string()));
        }
        let id = held.id;
        let delete = move |db: &Connection| -> Result<bool, Fault> {
            if index::has_objects(db, id)? || upload_rows::any(db, id)? {
                return Ok(false);
            }
            index::set_deleted(db, id, true).map(|()| true)
        };
        if !self.db.write("delete bucket", name.as_str(), delete).await? {
            return Err(StoreError::BucketNotEmpty(name.to_string()));
        }
        held.set_deleted(true);
        Ok(())
    }

    /// Takes a folder over that another data folder has marked as its own, for the bucket of that name: its data folder is
    /// lost, or will never be served again. Refused while a process works on it. A folder that is nobody's is left as it is.
    pub async fn take_over(&self, bucket: &BucketName, root: &Path) -> StoreResult<()> {
        let (folder, name, owner) = (root.to_owned(), bucket.to_string(), self.owner.clone());
        let take = move || marker::take_over(&folder, &name, &owner);
        let taken = self.blocking.run("take over", root.display(), take).await?;
        Ok(taken.map_err(|error| io_error("take over", root.display(), error))?)
    }

    /// Whether a bucket has objects. [`StoreError::NoSuchBucket`].
    pub async fn has_objects(&self, name: &BucketName) -> StoreResult<bool> {
        let id = self.visible(name.as_str())?.id;
        Ok(self.db.read("list objects", name.as_str(), move |db| index::has_objects(db, id)).await?)
    }

    /// All buckets by name.
    pub fn buckets(&self) -> Vec<BucketInfo> {
        let buckets = self.buckets.read().unwrap_or_else(PoisonError::into_inner);
        buckets.values().filter(|held| !held.is_deleted()).map(|held| held.info.clone()).collect()
    }

    /// The bucket of that name; [`StoreError::NoSuchBucket`].
    pub fn bucket(self: &Arc<Self>, name: &str) -> StoreResult<Bucket> {
        Ok(Bucket { store: Arc::clone(self), held: self.visible(name)? })
    }

    /// The events of all source buckets.
    pub fn spool(&self) -> &Arc<Spool> {
        &self.spool
    }

    /// For the engine: reads a bucket, also one that clients have deleted.
    pub fn reader(self: &Arc<Self>, bucket: &BucketName) -> StoreResult<Arc<dyn ObjectRead>> {
        Ok(Arc::new(ports::Reader(self.any(bucket)?)))
    }

    /// For the engine's `restore` and `undelete`: writes a bucket.
    pub fn writer(self: &Arc<Self>, bucket: &BucketName) -> StoreResult<Arc<dyn ObjectWrite>> {
        Ok(Arc::new(ports::Writer(self.any(bucket)?)))
    }

    /// For the engine: copies from one bucket to another.
    pub fn copier(self: &Arc<Self>, from: &BucketName, to: &BucketName) -> StoreResult<Arc<dyn ObjectCopy>> {
        Ok(Arc::new(ports::Copier { from: self.any(from)?, to: self.any(to)? }))
    }

    /// For the engine: deletes from a destination. Refused for a source (I5).
    pub fn purger(self: &Arc<Self>, bucket: &BucketName) -> StoreResult<Arc<dyn ObjectPurge>> {
        let bucket = self.any(bucket)?;
        match bucket.held.info.role {
            Role::Destination => Ok(Arc::new(ports::Purger(bucket))),
            Role::Source => Err(StoreError::Invalid(format!("bucket `{}` is a source", bucket.held.info.name))),
        }
    }

    /// Compares a bucket's index with its files and repairs both: see [`Reindexed`].
    pub async fn reindex(self: &Arc<Self>, bucket: &BucketName) -> StoreResult<Reindexed> {
        self.any(bucket)?.reindex().await
    }

    /// The data folder's own name of itself, which it keeps wherever it is moved, and where it is.
    pub fn data_folder(&self) -> (&str, &str) {
        (&self.owner.id, &self.owner.at)
    }

    /// Waits until the bytes of all versions that nobody waits for are deleted.
    pub async fn reclaimed(&self) {
        self.reclaimer.flush().await;
    }

    /// Finishes what is under way and closes `state.sqlite`, so that the next opening need not check it.
    pub async fn close(&self) {
        self.reclaimed().await;
        let buckets: Vec<Arc<Held>> = {
            let buckets = self.buckets.read().unwrap_or_else(PoisonError::into_inner);
            buckets.values().map(Arc::clone).collect()
        };
        for held in buckets {
            held.all_indexed().await;
        }
        self.db.close().await;
    }

    fn any(self: &Arc<Self>, name: &BucketName) -> StoreResult<Bucket> {
        let held = self.held(name.as_str()).ok_or_else(|| StoreError::NoSuchBucket(name.to_string()))?;
        Ok(Bucket { store: Arc::clone(self), held })
    }

    fn visible(&self, name: &str) -> StoreResult<Arc<Held>> {
        let held = self.held(name).filter(|held| !held.is_deleted());
        held.ok_or_else(|| StoreError::NoSuchBucket(name.to_owned()))
    }

    fn held(&self, name: &str) -> Option<Arc<Held>> {
        self.buckets.read().unwrap_or_else(PoisonError::into_inner).get(name).map(Arc::clone)
    }

    fn held_by_id(&self, id: i64) -> Option<Arc<Held>> {
        let buckets = self.buckets.read().unwrap_or_else(PoisonError::into_inner);
        buckets.values().find(|held| held.id == id).map(Arc::clone)
    }

    /// The next sequencer: grows even when the clock stands still or steps back.
    fn next_sequencer(&self, now: UnixMs) -> Sequencer {
        let mut last = self.last_sequencer.lock().unwrap_or_else(PoisonError::into_inner);
        let by_clock = u64::try_from(now.0).unwrap_or(0) << 20;
        *last = Sequencer(by_clock.max(last.0 + 1));
        *last
    }

    /// Sequencers up to this one were given by an earlier life of this folder.
    fn raise_sequencer(&self, found: Sequencer) {
        let mut last = self.last_sequencer.lock().unwrap_or_else(PoisonError::into_inner);
        *last = (*last).max(found);
    }

    #[cfg(test)]
    fn at(&self, step: Step, key: &ObjectKey) -> PortResult<()> {
        let fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner).clone();
        fault.map_or(Ok(()), |fault| fault(step, key))
    }

    #[cfg(not(test))]
    fn at(&self, _step: Step, _key: &ObjectKey) -> PortResult<()> {
        Ok(())
    }
}

/// Lets the work run to its end even when the caller is dropped: what has begun to be durable must get its row.
async fn to_the_end<T: Send + 'static>(
    attempted: &'static str,
    object: impl fmt::Display,
    work: impl Future<Output = StoreResult<T>> + Send + 'static,
) -> StoreResult<T> {
    tokio::spawn(work).await.map_err(|_| StoreError::Port(panicked(attempted, object)))?
}

fn panicked(attempted: &'static str, object: impl fmt::Display) -> PortError {
    PortError::new(attempted, object, ErrorKind::Internal("the task panicked".to_owned()))
}

/// A bucket's folder inside the data folder needs no owner: whoever holds the one holds the other.
fn owner_of(root: &Path, data_dir: &Path, owner: &Owner) -> Option<Owner> {
    (!root.starts_with(data_dir)).then(|| owner.clone())
}

fn role_text(role: Role) -> &'static str {
    match role {
        Role::Source => "source",
        Role::Destination => "destination",
    }
}

/// The last sequencer, the buckets, and the names of those whose files have not all become rows yet.
type Loaded = (Sequencer, BTreeMap<String, Arc<Held>>, Vec<String>);

fn load(db: &Connection, data_dir: &Path, owner: &Owner) -> Result<Loaded, Fault> {
    let (mut buckets, mut unread) = (BTreeMap::new(), Vec::new());
    let mut statement = db.prepare_cached("SELECT id, name, role, root, created_at, deleted, unread FROM buckets")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let name: String = row.get(1)?;
        let role: String = row.get(2)?;
        let role = if role == role_text(Role::Source) { Role::Source } else { Role::Destination };
        let damaged =
            |_| PortError::new("read bucket", &name, ErrorKind::Damaged("it has no bucket's name".to_owned()));
        let bucket_name = BucketName::new(name.clone()).map_err(damaged)?;
        let root = data_dir.join(row.get::<_, String>(3)?);
        let info = BucketInfo { name: bucket_name, role, root, created_at: UnixMs(row.get(4)?) };
        let bucket_owner = owner_of(&info.root, data_dir, owner);
        let held = Held::new(row.get(0)?, info, bucket_owner, None);
        held.set_deleted(row.get(5)?);
        if row.get(6)? {
            unread.push(name.clone());
        }
        buckets.insert(name, Arc::new(held));
    }
    Ok((index::last_sequencer(db)?, buckets, unread))
}
