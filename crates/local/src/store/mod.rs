//! The bucket store: buckets of objects on the file system, with an index in `state.sqlite`.
//!
//! Place: the S3 endpoint serves clients from it ([`Bucket`]), the engine reaches it through the object ports. A write to a
//! source bucket ends in one transaction {object row, event}: acknowledged means in the spool (I8).
//! The layout of files and tables stands in `docs/formats.md`.

#![expect(dead_code, reason = "the parts that use these follow")]

mod bucket;
mod error;
mod types;

pub use bucket::Bucket;
pub use error::{StoreError, StoreResult};
pub use types::{
    BodyCheck, BodyDigest, BucketInfo, BucketName, BucketSpec, CompleteExpectation, CompletePart, CopyAttributes,
    CopySpec, DeleteItem, Deleted, Found, ListEntry, ListFrom, ListPage, ListRequest, Mismatch, ObjectInfo, PartInfo,
    PartPage, PutRequest, ReadRange, Role, UploadId, UploadInfo, UploadPage,
};

use engine::error::{ErrorKind, PortError};
use engine::ports::clock::{Clock, Nonces};
use engine::ports::objects::{ObjectCopy, ObjectPurge, ObjectRead, ObjectWrite};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// All buckets of one data folder.
pub struct Store {
    data_dir: PathBuf,
    clock: Arc<dyn Clock>,
    nonces: Arc<dyn Nonces>,
}

impl Store {
    /// Opens the data folder's buckets and `state.sqlite` (made if missing). The caller holds the folder's lock.
    pub async fn open(data_dir: &Path, clock: Arc<dyn Clock>, nonces: Arc<dyn Nonces>) -> StoreResult<Arc<Store>> {
        Ok(Arc::new(Store { data_dir: data_dir.to_owned(), clock, nonces }))
    }

    /// Makes a bucket. [`StoreError::BucketExists`] when the name is taken. The folder may hold files already: those
    /// that the layout can name become objects by [`Store::reindex`].
    pub async fn create_bucket(self: &Arc<Self>, spec: BucketSpec) -> StoreResult<Bucket> {
        let root = spec.root.unwrap_or_else(|| self.data_dir.join("buckets").join(spec.name.as_str()));
        let info = BucketInfo { name: spec.name, role: spec.role, root, created_at: self.clock.now() };
        Ok(Bucket { store: Arc::clone(self), info: Arc::new(info) })
    }

    /// Deletes an empty bucket. [`StoreError::NoSuchBucket`], [`StoreError::BucketNotEmpty`], and
    /// [`StoreError::ReadOnly`] for a destination.
    pub async fn delete_bucket(&self, name: &BucketName) -> StoreResult<()> {
        Err(StoreError::NoSuchBucket(format!("{name} {}", self.nonces.nonce())))
    }

    /// All buckets by name.
    pub fn buckets(&self) -> Vec<BucketInfo> {
        Vec::new()
    }

    /// The bucket of that name; [`StoreError::NoSuchBucket`].
    pub fn bucket(self: &Arc<Self>, name: &str) -> StoreResult<Bucket> {
        Err(StoreError::NoSuchBucket(name.to_owned()))
    }

    /// For the engine: reads a bucket.
    pub fn reader(self: &Arc<Self>, bucket: &BucketName) -> StoreResult<Arc<dyn ObjectRead>> {
        soon(bucket)
    }

    /// For the engine's `restore` and `undelete`: writes a bucket.
    pub fn writer(self: &Arc<Self>, bucket: &BucketName) -> StoreResult<Arc<dyn ObjectWrite>> {
        soon(bucket)
    }

    /// For the engine: copies from one bucket to another.
    pub fn copier(self: &Arc<Self>, from: &BucketName, to: &BucketName) -> StoreResult<Arc<dyn ObjectCopy>> {
        soon((from, to))
    }

    /// For the engine: deletes from a destination. Refused for a source (I5).
    pub fn purger(self: &Arc<Self>, bucket: &BucketName) -> StoreResult<Arc<dyn ObjectPurge>> {
        soon(bucket)
    }
}

fn soon<A, T>(_: A) -> StoreResult<T> {
    Err(PortError::new("use bucket store", "", ErrorKind::Unsupported).into())
}
