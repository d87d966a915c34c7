//! The engine's object ports over the store: each handle can do what its name says and no more.

use super::bucket::Bucket;
use super::copy::CopyEnd;
use super::error::StoreError;
use super::types::{CopyAttributes, CopySpec, ListEntry, ListFrom, ListRequest, PutRequest, ReadRange};
use async_trait::async_trait;
use engine::error::{ErrorKind, PortError, PortResult};
use engine::ports::objects::{
    Attributes, ByteStream, Copied, CopyRequest, Head, Listed, Object, ObjectCopy, ObjectPurge, ObjectRead,
    ObjectWrite, Onto, Page, PurgeItem, Purged, Retrieval, Small, Written, small,
};
use lifecycle::ids::{ObjectKey, VersionId};
use std::ops::Range;

/// Reads a bucket.
pub(super) struct Reader(pub(super) Bucket);

/// Writes a bucket.
pub(super) struct Writer(pub(super) Bucket);

/// Copies from one bucket to another.
pub(super) struct Copier {
    pub(super) from: Bucket,
    pub(super) to: Bucket,
}

/// Deletes from a destination.
pub(super) struct Purger(pub(super) Bucket);

#[async_trait]
impl ObjectRead for Reader {
    async fn head(&self, key: &ObjectKey, version: Option<&VersionId>) -> PortResult<Option<Head>> {
        Ok(self.0.locate(key, version).await?.map(|row| row.info().head()))
    }

    async fn get(
        &self,
        key: &ObjectKey,
        version: Option<&VersionId>,
        range: Option<Range<u64>>,
    ) -> PortResult<Option<Object>> {
        let range = range.map_or(ReadRange::Whole, ReadRange::Between);
        let found = self.0.read(key, version, range).await.map_err(|error| error.into_port("get object", key))?;
        Ok(found.map(|found| Object { head: found.info.head(), attributes: found.info.attributes, body: found.body }))
    }

    async fn get_small(&self, keys: &[ObjectKey]) -> Vec<PortResult<Option<Small>>> {
        let mut at_once = self.0.read_small(keys).await.unwrap_or_default().into_iter();
        let mut read = Vec::with_capacity(keys.len());
        for key in keys {
            read.push(match at_once.next().flatten() {
                Some(found) => found.map(Some),
                None => small(self, key).await,
            });
        }
        read
    }

    async fn retrieve(&self, key: &ObjectKey, _terms: &Retrieval) -> PortResult<()> {
        Err(PortError::new("retrieve object", key, ErrorKind::Unsupported)) // there are no tiers here
    }

    async fn list(&self, prefix: &str, after: Option<&ObjectKey>, limit: usize) -> PortResult<Page<Listed>> {
        let from = after.map_or(ListFrom::Start, |after| ListFrom::After(after.to_string()));
        let request = ListRequest { prefix: prefix.to_owned(), delimiter: None, from, limit };
        let page = self.0.list_page(&request).await.map_err(|error| error.into_port("list objects", prefix))?;
        let listed = page.entries.into_iter().filter_map(|entry| match entry {
            ListEntry::Object(info) => {
                let (version, last_modified) = (info.version, info.last_modified);
                Some(Listed { key: info.key, version, last_modified, storage_class: None })
            }
            ListEntry::Prefix(_) => None,
        });
        let items: Vec<Listed> = listed.collect();
        let next = items.last().filter(|_| page.truncated).map(|last| last.key.clone());
        Ok(Page { items, next })
    }
}

#[async_trait]
impl ObjectRead for Writer {
    async fn head(&self, key: &ObjectKey, version: Option<&VersionId>) -> PortResult<Option<Head>> {
        Reader(self.0.clone()).head(key, version).await
    }

    async fn get(
        &self,
        key: &ObjectKey,
        version: Option<&VersionId>,
        range: Option<Range<u64>>,
    ) -> PortResult<Option<Object>> {
        Reader(self.0.clone()).get(key, version, range).await
    }

    async fn get_small(&self, keys: &[ObjectKey]) -> Vec<PortResult<Option<Small>>> {
        Reader(self.0.clone()).get_small(keys).await
    }

    async fn retrieve(&self, key: &ObjectKey, terms: &Retrieval) -> PortResult<()> {
        Reader(self.0.clone()).retrieve(key, terms).await
    }

    async fn list(&self, prefix: &str, after: Option<&ObjectKey>, limit: usize) -> PortResult<Page<Listed>> {
        Reader(self.0.clone()).list(prefix, after, limit).await
    }
}

#[async_trait]
impl ObjectWrite for Writer {
    async fn put(&self, key: &ObjectKey, body: ByteStream, attributes: &Attributes, onto: Onto) -> PortResult<Written> {
        let request = PutRequest { key: key.clone(), attributes: attributes.clone(), onto, check: None };
        match self.0.write(request, body).await {
            Ok(info) => Ok(Written::Done(info.head())),
            Err(StoreError::PreconditionFailed) => Ok(Written::DestinationChanged),
            Err(error) => Err(error.into_port("put object", key)),
        }
    }
}

#[async_trait]
impl ObjectCopy for Copier {
    async fn copy(&self, request: &CopyRequest) -> PortResult<Copied> {
        let spec = CopySpec {
            from: request.from.clone(),
            version: request.version.version_id.clone(),
            if_match: Some(request.version.etag.clone()),
            to: request.to.clone(),
            onto: request.onto.clone(),
            attributes: CopyAttributes::Keep { add_metadata: request.add_metadata.clone() },
        };
        match self.to.copy(&self.from, spec).await {
            Ok(CopyEnd::Done(info)) => Ok(Copied::Done(info.head())),
            Ok(CopyEnd::SourceGone) => Ok(Copied::SourceGone),
            Ok(CopyEnd::SourceChanged) => Ok(Copied::SourceChanged),
            Ok(CopyEnd::DestinationChanged) => Ok(Copied::DestinationChanged),
            Err(error) => Err(error.into_port("copy object", &request.from)),
        }
    }
}

#[async_trait]
impl ObjectPurge for Purger {
    async fn purge(&self, items: &[PurgeItem]) -> Vec<PortResult<Purged>> {
        self.0.purge_items(items).await
    }
}
