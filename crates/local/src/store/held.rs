//! A bucket in memory: its folder once it is opened, and the locks of its keys.
//!
//! Whoever changes an object holds its key's lock from before its sequencer is given until its row is durable, so that
//! rows of one key are committed in the order of their sequencers and conditions stay true until the write.

use super::error::io_error;
use super::limits::KEY_LOCKS;
use super::marker::Owner;
use super::tree::Tree;
use super::types::BucketInfo;
use engine::error::{ErrorKind, PortError, PortResult};
use lifecycle::ids::ObjectKey;
use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard, OwnedRwLockReadGuard, RwLock};

/// The lock of a key, held.
pub(super) type KeyLock = OwnedMutexGuard<()>;

/// A bucket in memory.
pub(super) struct Held {
    /// Its number in `state.sqlite`.
    pub(super) id: i64,
    /// What it is.
    pub(super) info: BucketInfo,
    /// The data folder, if the bucket's folder lies outside of it.
    owner: Option<Owner>,
    deleted: AtomicBool,
    tree: Mutex<Option<Arc<Tree>>>,
    locks: Vec<Arc<AsyncMutex<()>>>,
    /// Shared by copies whose index rows are on their way.
    indexing: Arc<RwLock<()>>,
    /// The file system said that it cannot share blocks between files: not asked again.
    pub(super) no_reflink: AtomicBool,
}

impl Held {
    pub(super) fn new(id: i64, info: BucketInfo, owner: Option<Owner>, tree: Option<Tree>) -> Held {
        Held {
            id,
            info,
            owner,
            deleted: AtomicBool::new(false),
            tree: Mutex::new(tree.map(Arc::new)),
            locks: (0..KEY_LOCKS).map(|_| Arc::default()).collect(),
            indexing: Arc::default(),
            no_reflink: AtomicBool::new(false),
        }
    }

    /// Clients have deleted it.
    pub(super) fn is_deleted(&self) -> bool {
        self.deleted.load(Ordering::Acquire)
    }

    pub(super) fn set_deleted(&self, deleted: bool) {
        self.deleted.store(deleted, Ordering::Release);
    }

    /// Its folder. `Missing` while it is not there.
    pub(super) fn tree(&self) -> PortResult<Arc<Tree>> {
        let mut tree = self.tree.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tree) = tree.as_ref() {
            return Ok(Arc::clone(tree));
        }
        // Once in a life, or while the folder is missing: a few calls on the caller's thread do no harm.
        match Tree::open(&self.info.root, self.info.name.as_str(), self.owner.as_ref()) {
            Ok(opened) => {
                let opened = Arc::new(opened);
                *tree = Some(Arc::clone(&opened));
                Ok(opened)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(self.folder_is_missing()),
            Err(error) => Err(io_error("open bucket", self.info.root.display(), error)),
        }
    }

    /// The folder is not there, or not this bucket's any more.
    pub(super) fn folder_is_missing(&self) -> PortError {
        let root = self.info.root.display();
        let why = format!("the folder {root} of bucket `{}` is not there: is its disk mounted?", self.info.name);
        PortError::new("open bucket", &self.info.name, ErrorKind::Missing).because(io::Error::other(why))
    }

    /// Held while an index row is on its way.
    pub(super) async fn index_soon(&self) -> OwnedRwLockReadGuard<()> {
        Arc::clone(&self.indexing).read_owned().await
    }

    /// Waits for the index rows that are on their way.
    pub(super) async fn all_indexed(&self) {
        drop(self.indexing.write().await);
    }

    /// Locks one key.
    pub(super) async fn lock(&self, key: &ObjectKey) -> KeyLock {
        Arc::clone(&self.locks[lock_of(key)]).lock_owned().await
    }

    /// Locks many keys; always in the same order, so that two callers never wait for each other.
    pub(super) async fn lock_all(&self, keys: impl Iterator<Item = &ObjectKey>) -> Vec<KeyLock> {
        let numbers: BTreeSet<usize> = keys.map(lock_of).collect();
        let mut locks = Vec::with_capacity(numbers.len());
        for number in numbers {
            locks.push(Arc::clone(&self.locks[number]).lock_owned().await);
        }
        locks
    }
}

fn lock_of(key: &ObjectKey) -> usize {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    (hasher.finish() % KEY_LOCKS as u64) as usize
}
