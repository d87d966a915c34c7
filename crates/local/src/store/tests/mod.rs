//! Tests of the bucket store: what it promises, and what each kind of crash and bad input leaves.

mod buckets;
mod clients;
mod conformance;
mod crash;
mod folders;
mod keys;
mod multipart;

use super::{
    Bucket, BucketName, BucketSpec, DeleteItem, Deleted, PutRequest, ReadRange, Role, Step, Store, StoreError,
    StoreResult,
};
use bytes::Bytes;
use engine::error::{ErrorKind, PortError, PortResult};
use engine::memory::bucket::{body, collect};
use engine::memory::clock::MemoryClock;
use engine::ports::events::{Delivery, EventQueue};
use engine::ports::objects::{Attributes, Onto};
use lifecycle::ids::{ObjectKey, VersionId};
use lifecycle::time::UnixMs;
use std::path::Path;
use std::sync::{Arc, PoisonError};
use tempfile::TempDir;

/// Strikes at a step of a write: an error of kind `Cancelled` is a crash there, any other a failing disk.
pub(super) type Fault = Arc<dyn Fn(Step, &ObjectKey) -> PortResult<()> + Send + Sync>;

/// A store in a folder of its own.
struct World {
    folder: TempDir,
    clock: Arc<MemoryClock>,
    store: Arc<Store>,
    source: Bucket,
    copies: Bucket,
}

impl World {
    async fn new() -> World {
        let folder = TempDir::new().unwrap();
        let clock = Arc::new(MemoryClock::at(UnixMs(1_795_000_000_000)));
        let store = open(folder.path(), &clock).await;
        let source = store.create_bucket(spec("source", Role::Source)).await.unwrap();
        let copies = store.create_bucket(spec("copies", Role::Destination)).await.unwrap();
        World { folder, clock, store, source, copies }
    }

    /// What a crash and a new start leave.
    async fn crashed(self) -> World {
        let World { folder, clock, store, source, copies } = self;
        drop((source, copies));
        drop(store);
        World::at(folder, clock).await
    }

    async fn at(folder: TempDir, clock: Arc<MemoryClock>) -> World {
        let store = open(folder.path(), &clock).await;
        let (source, copies) = (store.bucket("source").unwrap(), store.bucket("copies").unwrap());
        World { folder, clock, store, source, copies }
    }

    fn fail_at(&self, step: Step, kind: ErrorKind) {
        let fault: Fault = Arc::new(move |at, key| match at == step {
            true => Err(PortError::new("test", key, kind.clone())),
            false => Ok(()),
        });
        *self.store.fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(fault);
    }

    /// All files below a bucket's folder, in order.
    fn files(&self, bucket: &str) -> Vec<String> {
        let tree = self.store.bucket(bucket).unwrap().held.tree().unwrap();
        let mut files = Vec::new();
        tree.walk(&mut |path| {
            files.push(path.to_owned());
            Ok(())
        })
        .unwrap();
        files.sort();
        files
    }

    fn temporary_files(&self, bucket: &str) -> usize {
        let root = &self.store.bucket(bucket).unwrap().info().root.join(".afterimage/tmp");
        std::fs::read_dir(root).unwrap().count()
    }

    async fn waiting(&self) -> u64 {
        self.store.spool().backlog().await.unwrap().waiting
    }

    async fn events(&self) -> Vec<Delivery> {
        self.store.spool().receive(100).await.unwrap()
    }

    async fn handle_all(&self) {
        while self.waiting().await > 0 {
            let receipts: Vec<_> = self.events().await.into_iter().map(|delivery| delivery.receipt).collect();
            self.store.spool().done(&receipts).await.unwrap();
        }
        self.store.reclaimed().await;
    }
}

async fn open(folder: &Path, clock: &Arc<MemoryClock>) -> Arc<Store> {
    let nonces = Arc::new(crate::clock::SystemNonces::new().unwrap());
    Store::open(folder, Arc::clone(clock) as _, nonces).await.unwrap()
}

fn name(text: &str) -> BucketName {
    BucketName::new(text).unwrap()
}

fn spec(text: &str, role: Role) -> BucketSpec {
    BucketSpec { name: name(text), role, root: None }
}

fn key(text: &str) -> ObjectKey {
    ObjectKey::new(text).unwrap()
}

async fn try_put(bucket: &Bucket, text: &str, bytes: impl Into<Bytes>, onto: Onto) -> StoreResult<VersionId> {
    let request = PutRequest { key: key(text), attributes: Attributes::default(), onto, check: None };
    let info = bucket.put(request, body(bytes.into())).await?;
    Ok(info.version.version_id.unwrap())
}

async fn put(bucket: &Bucket, text: &str, bytes: impl Into<Bytes>) -> VersionId {
    try_put(bucket, text, bytes, Onto::Anything).await.unwrap()
}

async fn get(bucket: &Bucket, text: &str) -> Option<Bytes> {
    let found = bucket.get(&key(text), None, ReadRange::Whole).await.unwrap()?;
    Some(collect(found.body).await.unwrap())
}

async fn get_version(bucket: &Bucket, text: &str, version: &VersionId) -> Option<Bytes> {
    let found = bucket.get(&key(text), Some(version), ReadRange::Whole).await.unwrap()?;
    Some(collect(found.body).await.unwrap())
}

async fn delete(bucket: &Bucket, text: &str) -> Deleted {
    bucket.delete(&DeleteItem { key: key(text), if_match: None }).await.unwrap()
}
