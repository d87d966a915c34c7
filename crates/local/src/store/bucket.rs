//! One bucket, as clients see it: the operations that the S3 endpoint offers.
//!
//! Place: between the endpoint and the store's parts (`read.rs`, `write.rs`, `copy.rs`, `multipart.rs`). Every method that
//! writes refuses a destination ([`StoreError::ReadOnly`]): whoever can write a source cannot destroy its copies. The
//! engine's own handles are made in `ports.rs`. Laws: I5 (by role), I8 (a write returns after its event is durable).
//!
//! Every write, once its body has arrived, runs to its end even if the caller's future is dropped meanwhile.

use super::Store;
use super::copy::CopyEnd;
use super::error::{StoreError, StoreResult};
use super::held::Held;
use super::limits::DELETE_MAX;
use super::types::{
    BucketInfo, CompleteExpectation, CompletePart, CopySpec, DeleteItem, Deleted, Found, ListPage, ListRequest,
    ObjectInfo, PartInfo, PartPage, PutRequest, ReadRange, UploadId, UploadPage,
};
use engine::ports::objects::{Attributes, ByteStream};
use lifecycle::ids::{ObjectKey, VersionId};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A bucket. Cheap to clone.
#[derive(Clone)]
pub struct Bucket {
    pub(super) store: Arc<Store>,
    pub(super) held: Arc<Held>,
}

impl Bucket {
    /// Name, role, folder.
    pub fn info(&self) -> &BucketInfo {
        &self.held.info
    }

    /// Opens the bucket's folder, if that is not done yet. Errors: it is not there (`Missing`), or another data folder's
    /// (`AccessDenied`).
    pub async fn open(&self) -> StoreResult<()> {
        let held = Arc::clone(&self.held);
        let opened =
            self.store.blocking.run("open bucket", &self.held.info.name, move || held.tree().map(drop)).await?;
        Ok(opened?)
    }

    /// What the object is; `None` when it is definitely absent. `version`: a version that is still kept (source buckets).
    pub async fn head(&self, key: &ObjectKey, version: Option<&VersionId>) -> StoreResult<Option<ObjectInfo>> {
        Ok(self.locate(key, version).await?.map(|row| row.info()))
    }

    /// The object and its bytes. [`StoreError::RangeNotSatisfiable`] when the range begins beyond the end.
    pub async fn get(
        &self,
        key: &ObjectKey,
        version: Option<&VersionId>,
        range: ReadRange,
    ) -> StoreResult<Option<Found>> {
        self.read(key, version, range).await
    }

    /// One page of a listing, in O(page), however many keys a common prefix stands for.
    pub async fn list(&self, request: &ListRequest) -> StoreResult<ListPage> {
        self.list_page(request).await
    }

    /// Writes an object. A body that ends in an error, or that the check refuses, leaves nothing: no object, no event.
    /// Returns when bytes, row and event are durable. [`StoreError::PreconditionFailed`] when `onto` does not hold.
    pub async fn put(&self, request: PutRequest, body: ByteStream) -> StoreResult<ObjectInfo> {
        self.writable()?;
        self.write(request, body).await
    }

    /// Copies an object from `source` (this bucket or another) into this one.
    /// [`StoreError::NoSuchKey`], [`StoreError::SourceChanged`], [`StoreError::PreconditionFailed`].
    pub async fn copy_from(&self, source: &Bucket, spec: &CopySpec) -> StoreResult<ObjectInfo> {
        self.writable()?;
        match self.copy(source, spec.clone()).await? {
            CopyEnd::Done(info) => Ok(*info),
            CopyEnd::SourceGone => Err(StoreError::NoSuchKey(spec.from.to_string())),
            CopyEnd::SourceChanged => Err(StoreError::SourceChanged),
            CopyEnd::DestinationChanged => Err(StoreError::PreconditionFailed),
        }
    }

    /// Deletes an object. [`StoreError::PreconditionFailed`] when it is there with another tag than asked for.
    pub async fn delete(&self, item: &DeleteItem) -> StoreResult<Deleted> {
        self.writable()?;
        self.remove(vec![item.clone()]).await?.pop().unwrap_or(Ok(Deleted::WasAbsent))
    }

    /// Deletes up to 1,000 objects in one transaction; one result each, in the order asked.
    pub async fn delete_many(&self, items: &[DeleteItem]) -> StoreResult<Vec<StoreResult<Deleted>>> {
        self.writable()?;
        if items.len() > DELETE_MAX {
            return Err(StoreError::Invalid(format!("at most {DELETE_MAX} objects are deleted at once")));
        }
        self.remove(items.to_vec()).await
    }

    /// Replaces the tags of the current version (an empty map deletes them). Makes no event, as in S3.
    /// [`StoreError::NoSuchKey`]. Reading tags is [`Bucket::head`].
    pub async fn set_tags(&self, key: &ObjectKey, tags: BTreeMap<String, String>) -> StoreResult<()> {
        self.writable()?;
        self.retag(key.clone(), tags).await
    }

    /// Begins a multipart upload.
    pub async fn create_upload(&self, key: &ObjectKey, attributes: Attributes) -> StoreResult<UploadId> {
        self.writable()?;
        self.begin_upload(key, attributes).await
    }

    /// Stores one part (1 to 10,000), replacing an earlier one of that number. Durable when it returns.
    pub async fn put_part(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        number: u32,
        check: Option<Box<dyn super::types::BodyCheck>>,
        body: ByteStream,
    ) -> StoreResult<PartInfo> {
        self.writable()?;
        self.take_part(key, upload, number, check, body).await
    }

    /// The parts of an upload with numbers above `after`.
    pub async fn parts(&self, key: &ObjectKey, upload: &UploadId, after: u32, limit: usize) -> StoreResult<PartPage> {
        self.parts_page(key, upload, after, limit).await
    }

    /// The object made of these parts, in one step. Asked again, with the same parts, it gives the same answer. Its tag is `"<md5 of the parts' md5s>-<number of parts>"`.
    pub async fn complete_upload(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        parts: &[CompletePart],
        onto: engine::ports::objects::Onto,
        expected: CompleteExpectation,
    ) -> StoreResult<ObjectInfo> {
        self.writable()?;
        self.complete(key, upload, parts, onto, expected).await
    }

    /// What came of an upload that was completed with these parts not long ago: a client that did not hear the answer asks
    /// again. `None`: it was not completed, or with other parts, or long ago.
    pub async fn completed_upload(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        parts: &[CompletePart],
    ) -> StoreResult<Option<ObjectInfo>> {
        self.find_completed(key, upload, parts).await
    }

    /// Forgets an upload and its parts.
    pub async fn abort_upload(&self, key: &ObjectKey, upload: &UploadId) -> StoreResult<()> {
        self.writable()?;
        self.forget_upload(key, upload).await
    }

    /// Uploads under `prefix`, by key and id, after that key (and, of that key, after that id).
    pub async fn uploads(
        &self,
        prefix: &str,
        after: Option<(&str, Option<&UploadId>)>,
        limit: usize,
    ) -> StoreResult<UploadPage> {
        self.uploads_page(prefix, after, limit).await
    }

    fn writable(&self) -> StoreResult<()> {
        match self.held.info.role {
            super::types::Role::Source => Ok(()),
            super::types::Role::Destination => Err(StoreError::ReadOnly(self.held.info.name.to_string())),
        }
    }
}
