//! Objects in buckets: read, copy, write, purge. One trait each, so that a handle's type is its privilege.
//!
//! The contract is S3's where S3 has one: conditional writes, versions, absence as an answer. "Absent" is a definite 404 or
//! delete marker; everything unknown is an error (V8).

use crate::error::{ErrorKind, PortError, PortResult};
use crate::limits::{RECORD_BYTES_MAX, RETRIEVED_DAYS, SMALL_READS_IN_FLIGHT};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};
use lifecycle::event::{Current, Version};
use lifecycle::ids::{Checksum, ETag, ObjectKey, VersionId};
use lifecycle::time::UnixMs;
use std::collections::BTreeMap;
use std::ops::Range;

/// Metadata name under which a copy carries the base64 of an original key that its own name had to cut.
pub const META_ORIGINAL_KEY: &str = "afterimage-key";
/// Metadata name under which a mirrored object says which content of the source it is (`lifecycle::mirror::source_mark`).
pub const META_SOURCE: &str = "afterimage-source";

/// A body on its way: pieces of any size, in order; an error ends it and nothing of it becomes visible.
pub type ByteStream = BoxStream<'static, PortResult<Bytes>>;

/// What a HEAD tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Version id (in versioned buckets), tag and size.
    pub version: Version,
    /// When it was written.
    pub last_modified: UnixMs,
    /// CRC-64/NVME over the whole object, where the store knows it.
    pub checksum: Option<Checksum>,
    /// Storage class, where the store has any.
    pub storage_class: Option<String>,
    /// User metadata, names in lower case without `x-amz-meta-`.
    pub metadata: BTreeMap<String, String>,
    /// Whether its bytes can be read.
    pub reach: Reach,
}

/// Whether an object's bytes can be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reach {
    /// Now; also those of an archive tier of which a retrieved copy is there.
    #[default]
    Readable,
    /// They lie in an archive tier, and nobody has asked for them.
    Archived,
    /// They lie in an archive tier, and are on their way out of it.
    OnItsWay,
}

/// How fast an archive tier gives bytes back: what is faster costs more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Speed {
    /// Hours.
    #[default]
    Standard,
    /// Half a day to two days; the cheapest.
    Bulk,
    /// Minutes; not of the coldest tiers.
    Expedited,
}

/// On which terms something is retrieved from an archive tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retrieval {
    /// How fast.
    pub speed: Speed,
    /// For how many days the retrieved copy can be read.
    pub days: u32,
}

impl Default for Retrieval {
    fn default() -> Retrieval {
        Retrieval { speed: Speed::default(), days: RETRIEVED_DAYS }
    }
}

impl Head {
    /// The part that the rules look at.
    pub fn current(&self) -> Current {
        Current { version: self.version.clone(), last_modified: self.last_modified, checksum: self.checksum }
    }
}

/// What travels with an object besides its bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// `Content-Type`.
    pub content_type: Option<String>,
    /// `Content-Encoding`.
    pub content_encoding: Option<String>,
    /// `Content-Disposition`.
    pub content_disposition: Option<String>,
    /// `Content-Language`.
    pub content_language: Option<String>,
    /// `Cache-Control`.
    pub cache_control: Option<String>,
    /// `Expires`, as the client sent it.
    pub expires: Option<String>,
    /// User metadata, names in lower case without `x-amz-meta-`.
    pub metadata: BTreeMap<String, String>,
    /// Tags.
    pub tags: BTreeMap<String, String>,
}

/// An object with its body.
pub struct Object {
    /// What a HEAD would tell; `version.size` is the whole object's even when a range was asked for.
    pub head: Head,
    /// What travels with it.
    pub attributes: Attributes,
    /// The bytes asked for.
    pub body: ByteStream,
}

/// An object with all of its bytes.
#[derive(Clone, Debug)]
pub struct Small {
    /// What a HEAD would tell.
    pub head: Head,
    /// The bytes.
    pub content: Bytes,
}

/// Reads one object whole.
pub async fn small<A: ObjectRead + ?Sized>(archive: &A, key: &ObjectKey) -> PortResult<Option<Small>> {
    let Some(mut object) = archive.get(key, None, None).await? else { return Ok(None) };
    let mut content = Vec::new();
    while let Some(piece) = object.body.try_next().await? {
        content.extend_from_slice(&piece);
        if content.len() > RECORD_BYTES_MAX {
            let why = format!("it has more than {RECORD_BYTES_MAX} bytes");
            return Err(PortError::new("read object", key, ErrorKind::Damaged(why)));
        }
    }
    Ok(Some(Small { head: object.head, content: content.into() }))
}

/// One object of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its key.
    pub key: ObjectKey,
    /// Its current content.
    pub version: Version,
    /// When it was written.
    pub last_modified: UnixMs,
    /// Storage class, where the store has any.
    pub storage_class: Option<String>,
}

/// Part of a long answer, and where the next part begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T, C = ObjectKey> {
    /// The items, in order.
    pub items: Vec<T>,
    /// Pass this as `after` for the next page; `None`: this was the last.
    pub next: Option<C>,
}

/// Reads a bucket.
#[async_trait]
pub trait ObjectRead: Send + Sync {
    /// The object's current content, or that version; `None` when it is definitely absent.
    async fn head(&self, key: &ObjectKey, version: Option<&VersionId>) -> PortResult<Option<Head>>;

    /// The object with its bytes, or the bytes of `range` (of which the end may lie beyond the object's).
    async fn get(
        &self,
        key: &ObjectKey,
        version: Option<&VersionId>,
        range: Option<Range<u64>>,
    ) -> PortResult<Option<Object>>;

    /// Small objects, whole: one result each, in the order asked, as [`ObjectRead::get`] gives them. One that is larger than
    /// [`RECORD_BYTES_MAX`] is an error (`Damaged`). A store that has less to do for many at once does less; whoever asks bounds
    /// how many bytes they have. Each read may take a connection: no more than [`SMALL_READS_IN_FLIGHT`] go on at once.
    async fn get_small(&self, keys: &[ObjectKey]) -> Vec<PortResult<Option<Small>>> {
        let reads: Vec<_> = keys.iter().map(|key| small(self, key)).collect();
        stream::iter(reads).buffered(SMALL_READS_IN_FLIGHT).collect().await
    }

    /// Asks that an object in an archive tier (whose bytes answer with `Archived`) be brought to where they can be read, which
    /// takes minutes to days and costs money. Asking again does no harm. A store without such tiers answers `Unsupported`.
    async fn retrieve(&self, key: &ObjectKey, terms: &Retrieval) -> PortResult<()>;

    /// Objects under `prefix` in key order (bytes of UTF-8), those after `after`, at most `limit` (≤ 1,000).
    async fn list(&self, prefix: &str, after: Option<&ObjectKey>, limit: usize) -> PortResult<Page<Listed>>;
}

/// What must stand at the destination for a write to happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Onto {
    /// Whatever is there is replaced.
    Anything,
    /// Nothing (`If-None-Match: *`).
    Nothing,
    /// This content (`If-Match`).
    This(ETag),
}

/// A server-side copy from the bucket that the handle reads to the bucket that it writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyRequest {
    /// What to copy.
    pub from: ObjectKey,
    /// Which content: by version id where it has one, and only if the tag still matches.
    pub version: Version,
    /// Where to.
    pub to: ObjectKey,
    /// On which condition.
    pub onto: Onto,
    /// User metadata to add to what the source has.
    pub add_metadata: BTreeMap<String, String>,
    /// What whoever asks was told of that content a moment ago.
    pub seen: Option<Seen>,
}

/// What a look or a listing told of a content besides its [`Version`]: a copier that needs no more of it need not ask again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// When it was written.
    pub last_modified: UnixMs,
    /// Storage class, where the store has any.
    pub storage_class: Option<String>,
}

/// How a copy ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Copied {
    /// The bytes are durable at the destination, with the source's attributes. The head is the destination's; its metadata
    /// are there only where the copier had to know them.
    Done(Head),
    /// The source has no such object or version any more (404).
    SourceGone,
    /// The source's content is another one by now (412).
    SourceChanged,
    /// The destination did not meet the condition (412, 409).
    DestinationChanged,
}

/// Copies from one bucket to another without moving bytes through this process where the store can.
#[async_trait]
pub trait ObjectCopy: Send + Sync {
    /// Copies; safe to repeat. After `Done` the bytes survive a power cut.
    async fn copy(&self, request: &CopyRequest) -> PortResult<Copied>;
}

/// How a write ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    /// Durable.
    Done(Head),
    /// The destination did not meet the condition.
    DestinationChanged,
}

/// Writes a bucket. A source's is held by `restore` and `undelete` only (I5).
#[async_trait]
pub trait ObjectWrite: ObjectRead {
    /// Writes the whole body, atomically. If the body ends in an error, nothing is visible and that error comes back.
    async fn put(&self, key: &ObjectKey, body: ByteStream, attributes: &Attributes, onto: Onto) -> PortResult<Written>;

    /// The same, of a body that has `size` bytes: where a body is sent in parts, their size follows from it, so that none is
    /// too large for the store.
    async fn put_sized(
        &self,
        key: &ObjectKey,
        body: ByteStream,
        size: u64,
        attributes: &Attributes,
        onto: Onto,
    ) -> PortResult<Written> {
        let _every_body_is_stored_alike = size;
        self.put(key, body, attributes, onto).await
    }

    /// Writes a small object if nothing is there; `false`: something is. Only for a store of which it is known that it heeds the
    /// condition (below): then it is one request.
    async fn put_new(&self, key: &ObjectKey, content: Bytes, attributes: &Attributes) -> PortResult<bool> {
        let (size, body) = (content.len() as u64, Box::pin(futures_util::stream::iter([Ok(content)])));
        let written = self.put_sized(key, body, size, attributes, Onto::Nothing).await?;
        Ok(matches!(written, Written::Done(_)))
    }

    /// Whether the store itself refuses a write whose condition does not hold, whatever else writes at that moment. A store of
    /// which that is not known is asked with `probe`, a small object of ours.
    async fn heeds_conditions(&self, probe: &ObjectKey) -> PortResult<bool> {
        let _known = probe;
        Ok(true)
    }
}

/// One object to delete for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PurgeItem {
    /// Its key.
    pub key: ObjectKey,
    /// Which version, in a versioned destination.
    pub version_id: Option<VersionId>,
    /// Only if it still has this content.
    pub if_match: Option<ETag>,
}

/// How a delete ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purged {
    /// It is gone (or was gone before).
    Done,
    /// It has another content by now, and was left alone.
    Changed,
}

/// Deletes from a destination. Held by `steps/purge.rs`, and for an archive's notes and outbox by `steps/aside.rs` and
/// `steps/outbox.rs`, only (I3).
#[async_trait]
pub trait ObjectPurge: Send + Sync {
    /// Deletes up to 1,000 objects; one result each, in the order asked.
    async fn purge(&self, items: &[PurgeItem]) -> Vec<PortResult<Purged>>;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// A store that counts how many reads go on at once.
    #[derive(Default)]
    struct Counting {
        now: AtomicUsize,
        most: AtomicUsize,
    }

    #[async_trait]
    impl ObjectRead for Counting {
        async fn head(&self, _: &ObjectKey, _: Option<&VersionId>) -> PortResult<Option<Head>> {
            unreachable!("whole objects are asked for")
        }

        async fn get(&self, _: &ObjectKey, _: Option<&VersionId>, _: Option<Range<u64>>) -> PortResult<Option<Object>> {
            let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(now, Ordering::SeqCst);
            // The turn of the others.
            tokio::task::yield_now().await;
            self.now.fetch_sub(1, Ordering::SeqCst);
            Ok(None)
        }

        async fn retrieve(&self, _: &ObjectKey, _: &Retrieval) -> PortResult<()> {
            unreachable!("whole objects are asked for")
        }

        async fn list(&self, _: &str, _: Option<&ObjectKey>, _: usize) -> PortResult<Page<Listed>> {
            unreachable!("whole objects are asked for")
        }
    }

    #[tokio::test]
    async fn of_many_small_objects_of_a_pack_few_are_read_at_once() {
        let store = Counting::default();
        let keys: Vec<ObjectKey> = (0..1_000).map(|n| ObjectKey::new(format!("k{n}")).unwrap()).collect();
        assert_eq!(store.get_small(&keys).await.len(), keys.len());
        assert_eq!(store.most.load(Ordering::SeqCst), SMALL_READS_IN_FLIGHT);
        assert_eq!(crate::limits::PACK_BATCHES_IN_FLIGHT * SMALL_READS_IN_FLIGHT, 64);
    }
}
