//! A bucket in memory, versioned or not: what S3 does with one object at a time.
//!
//! Every write takes the next *sequencer*, 16 hex digits that grow over the whole bucket; in a versioned bucket it is the
//! version id, too. Entity tags depend on the bucket's name as well as on the content, because equal content has unequal
//! tags in two buckets of the real world. Laws: I1 (a put is there whole or not at all). Nothing outlives the process.

use crate::error::{ErrorKind, PortError, PortResult};
use crate::limits::{LIST_PAGE, STREAM_CHUNK};
use crate::memory::lock;
use crate::ports::clock::Clock;
use crate::ports::objects::{
    Attributes, ByteStream, Head, Listed, Object, ObjectPurge, ObjectRead, ObjectWrite, Onto, Page, PurgeItem, Purged,
    Reach, Retrieval, Written,
};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, TryStreamExt, stream};
use lifecycle::event::Version;
use lifecycle::ids::{Checksum, ETag, ObjectKey, VersionId};
use lifecycle::time::{SpanMs, UnixMs};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Bound, Range};
use std::sync::{Arc, Mutex};

/// Whether a bucket keeps what is overwritten and deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Versioning {
    /// Every version stays readable by its id; a delete puts a marker.
    On,
    /// Only the current content is there.
    Off,
}

/// How long it takes until an archived object can be read.
pub const RETRIEVAL: SpanMs = SpanMs::hours(5);
/// The class of what lies in an archive tier.
const GLACIER: &str = "GLACIER";

/// Whether a bucket tells checksums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Checksums {
    Known,
    Unknown,
}

/// One content of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// What a HEAD tells.
    pub head: Head,
    /// What travels with it.
    pub attributes: Attributes,
    /// The bytes.
    pub bytes: Bytes,
}

/// One entry of a key's history.
#[derive(Clone, Debug)]
struct Entry {
    sequencer: String,
    /// `None`: a delete marker.
    content: Option<Stored>,
}

#[derive(Debug, Default)]
struct State {
    /// Oldest first. In an unversioned bucket at most one, and never a marker.
    keys: BTreeMap<ObjectKey, Vec<Entry>>,
    writes: u64,
    /// What lies in an archive tier, and from when on it can be read, once that was asked for.
    archived: BTreeMap<ObjectKey, Option<UnixMs>>,
    /// How often an archive tier was asked for something.
    retrievals: u64,
}

/// The bucket.
pub struct MemoryBucket {
    name: String,
    versioning: Versioning,
    checksums: Checksums,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

impl fmt::Debug for MemoryBucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBucket").field("name", &self.name).finish_non_exhaustive()
    }
}

impl MemoryBucket {
    /// An empty bucket.
    pub fn new(name: impl Into<String>, versioning: Versioning, clock: Arc<dyn Clock>) -> MemoryBucket {
        let (name, state) = (name.into(), Mutex::default());
        MemoryBucket { name, versioning, checksums: Checksums::Known, clock, state }
    }

    /// The same bucket, of a store that knows no checksums.
    pub fn without_checksums(self) -> MemoryBucket {
        MemoryBucket { checksums: Checksums::Unknown, ..self }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it keeps versions.
    pub fn versioning(&self) -> Versioning {
        self.versioning
    }

    /// Puts as a client of the source does; gives the write's sequencer and what an event would tell of the content.
    pub fn put_object(&self, key: &ObjectKey, bytes: impl Into<Bytes>, attributes: Attributes) -> (String, Head) {
        let mut state = lock(&self.state);
        let head = self.write(&mut state, key, bytes.into(), attributes);
        (sequencer(state.writes), head)
    }

    /// In an archive tier, and not retrieved yet.
    pub(super) fn lies_in_archive(&self, key: &ObjectKey) -> bool {
        self.reach(key).is_some_and(|reach| reach != Reach::Readable)
    }

    /// Whether what lies in an archive tier can be read; `None`: it lies in none.
    fn reach(&self, key: &ObjectKey) -> Option<Reach> {
        let readable_at = *lock(&self.state).archived.get(key)?;
        Some(match readable_at {
            None => Reach::Archived,
            Some(at) if self.clock.now() < at => Reach::OnItsWay,
            Some(_) => Reach::Readable,
        })
    }

    /// How often an archive tier was asked for something.
    pub fn retrievals(&self) -> u64 {
        lock(&self.state).retrievals
    }

    /// Moves an object to an archive tier: it cannot be read until [`RETRIEVAL`] after that was asked for.
    pub fn archive(&self, key: &ObjectKey) {
        lock(&self.state).archived.insert(key.clone(), None);
    }

    /// Moves an object out of an archive tier.
    pub fn bring_back(&self, key: &ObjectKey) {
        lock(&self.state).archived.remove(key);
    }

    /// How many writes and deletes it has taken: the sequencer of the last one, as a number.
    pub fn writes(&self) -> u64 {
        lock(&self.state).writes
    }

    /// Deletes as a client of the source does: a marker in a versioned bucket. Gives the delete's sequencer.
    pub fn delete_object(&self, key: &ObjectKey) -> String {
        let mut state = lock(&self.state);
        self.remove(&mut state, key);
        sequencer(state.writes)
    }

    /// Deletes one version, or one delete marker, for good; gives the delete's sequencer, or `None` when it is not there.
    pub fn delete_version(&self, key: &ObjectKey, id: &VersionId) -> Option<String> {
        let mut state = lock(&self.state);
        let history = state.keys.get_mut(key)?;
        let place = history.iter().position(|entry| entry.sequencer == id.as_str())?;
        history.remove(place);
        if history.is_empty() {
            state.keys.remove(key);
        }
        state.writes += 1;
        Some(sequencer(state.writes))
    }

    /// Reads the current content, or that version; `None`: definitely nothing, or a delete marker.
    pub fn read(&self, key: &ObjectKey, version: Option<&VersionId>) -> Option<Stored> {
        let state = lock(&self.state);
        let history = state.keys.get(key).map_or(&[][..], Vec::as_slice);
        let entry = match version {
            Some(id) if self.versioning == Versioning::On => {
                history.iter().find(|entry| entry.sequencer == id.as_str())
            }
            Some(_) | None => history.last(),
        };
        entry?.content.clone()
    }

    /// Everything current, by key.
    pub fn contents(&self) -> BTreeMap<ObjectKey, Stored> {
        let state = lock(&self.state);
        let current = |history: &Vec<Entry>| history.last().and_then(|entry| entry.content.clone());
        state.keys.iter().filter_map(|(key, history)| Some((key.clone(), current(history)?))).collect()
    }

    /// Damages the current bytes and nothing else, as a disk does.
    pub fn damage(&self, key: &ObjectKey, bytes: impl Into<Bytes>) {
        let mut state = lock(&self.state);
        let current = state.keys.get_mut(key).and_then(|history| history.last_mut()).and_then(|e| e.content.as_mut());
        current.expect("only what is there can be damaged").bytes = bytes.into();
    }

    /// Writes on a condition, judged at the same moment.
    pub fn store(&self, key: &ObjectKey, bytes: Bytes, attributes: Attributes, onto: &Onto) -> Written {
        let mut state = lock(&self.state);
        let current = current_etag(&state, key);
        let holds = match onto {
            Onto::Anything => true,
            Onto::Nothing => current.is_none(),
            Onto::This(etag) => current == Some(etag),
        };
        if !holds {
            return Written::DestinationChanged;
        }
        Written::Done(self.write(&mut state, key, bytes, attributes))
    }

    fn write(&self, state: &mut State, key: &ObjectKey, bytes: Bytes, attributes: Attributes) -> Head {
        state.writes += 1;
        let sequencer = sequencer(state.writes);
        let version_id = (self.versioning == Versioning::On).then(|| VersionId(sequencer.clone()));
        let head = Head {
            version: Version { version_id, etag: self.etag(&bytes), size: bytes.len() as u64 },
            last_modified: self.clock.now(),
            checksum: (self.checksums == Checksums::Known).then(|| checksum(&bytes)),
            storage_class: None,
            reach: Reach::Readable,
            metadata: attributes.metadata.clone(),
        };
        let history = state.keys.entry(key.clone()).or_default();
        if self.versioning == Versioning::Off {
            history.clear();
        }
        history.push(Entry { sequencer, content: Some(Stored { head: head.clone(), attributes, bytes }) });
        head
    }

    fn remove(&self, state: &mut State, key: &ObjectKey) {
        state.writes += 1;
        match self.versioning {
            Versioning::On => {
                let marker = Entry { sequencer: sequencer(state.writes), content: None };
                state.keys.entry(key.clone()).or_default().push(marker);
            }
            Versioning::Off => {
                state.keys.remove(key);
            }
        }
    }

    fn etag(&self, bytes: &Bytes) -> ETag {
        let digest = Sha256::new().chain_update(self.name.as_bytes()).chain_update(bytes).finalize();
        ETag(digest[..16].iter().map(|byte| format!("{byte:02x}")).collect())
    }

    fn purge_one(&self, item: &PurgeItem) -> Purged {
        if let Some(id) = &item.version_id {
            self.delete_version(&item.key, id);
            return Purged::Done;
        }
        let mut state = lock(&self.state);
        match (current_etag(&state, &item.key), &item.if_match) {
            (None, _) => Purged::Done,
            (Some(current), Some(expected)) if current != expected => Purged::Changed,
            (Some(_), _) => {
                self.remove(&mut state, &item.key);
                Purged::Done
            }
        }
    }
}

fn sequencer(writes: u64) -> String {
    format!("{writes:016x}")
}

fn checksum(bytes: &Bytes) -> Checksum {
    let mut digest = crc64fast_nvme::Digest::new();
    digest.write(bytes);
    Checksum(digest.sum64())
}

fn current_etag<'a>(state: &'a State, key: &ObjectKey) -> Option<&'a ETag> {
    let current = state.keys.get(key)?.last()?.content.as_ref()?;
    Some(&current.head.version.etag)
}

/// A body of those bytes, in pieces.
pub fn body(bytes: Bytes) -> ByteStream {
    let pieces: Vec<PortResult<Bytes>> = (0..bytes.len())
        .step_by(STREAM_CHUNK)
        .map(|at| Ok(bytes.slice(at..bytes.len().min(at + STREAM_CHUNK))))
        .collect();
    stream::iter(pieces).boxed()
}

/// All bytes of a body.
pub async fn collect(body: ByteStream) -> PortResult<Bytes> {
    let append = |mut all: BytesMut, piece: Bytes| async move {
        all.extend_from_slice(&piece);
        Ok(all)
    };
    Ok(body.try_fold(BytesMut::new(), append).await?.freeze())
}

#[async_trait]
impl ObjectRead for MemoryBucket {
    async fn head(&self, key: &ObjectKey, version: Option<&VersionId>) -> PortResult<Option<Head>> {
        let head = self.read(key, version).map(|stored| stored.head);
        Ok(head.map(|head| match self.reach(key) {
            Some(reach) => Head { reach, storage_class: Some(GLACIER.to_owned()), ..head },
            None => head,
        }))
    }

    async fn get(
        &self,
        key: &ObjectKey,
        version: Option<&VersionId>,
        range: Option<Range<u64>>,
    ) -> PortResult<Option<Object>> {
        let Some(Stored { head, attributes, bytes }) = self.read(key, version) else { return Ok(None) };
        if self.lies_in_archive(key) {
            return Err(PortError::new("get object", key, ErrorKind::Archived));
        }
        let size = bytes.len() as u64;
        let range = range.unwrap_or(0..size);
        if range.start > range.end || (range.start >= size && size > 0) {
            let why = format!("the range {}..{} does not lie in {size} bytes", range.start, range.end);
            return Err(PortError::new("get object", key, ErrorKind::Invalid(why)));
        }
        let bytes = bytes.slice(range.start.min(size) as usize..range.end.min(size) as usize);
        Ok(Some(Object { head, attributes, body: body(bytes) }))
    }

    async fn retrieve(&self, key: &ObjectKey, _terms: &Retrieval) -> PortResult<()> {
        let mut state = lock(&self.state);
        state.retrievals += 1;
        if let Some(readable_at) = state.archived.get_mut(key) {
            readable_at.get_or_insert(self.clock.now().plus(RETRIEVAL));
        }
        Ok(())
    }

    async fn list(&self, prefix: &str, after: Option<&ObjectKey>, limit: usize) -> PortResult<Page<Listed>> {
        let limit = limit.min(LIST_PAGE);
        let state = lock(&self.state);
        let from = after.map_or(Bound::Unbounded, |after| Bound::Excluded(after.clone()));
        let current = |(key, history): (&ObjectKey, &Vec<Entry>)| {
            let head = &history.last()?.content.as_ref()?.head;
            let archived = state.archived.contains_key(key).then(|| GLACIER.to_owned());
            let (version, storage_class) = (head.version.clone(), archived.or(head.storage_class.clone()));
            Some(Listed { key: key.clone(), version, last_modified: head.last_modified, storage_class })
        };
        let listed = state.keys.range((from, Bound::Unbounded)).filter_map(current);
        let mut items: Vec<Listed> =
            listed.filter(|listed| listed.key.as_str().starts_with(prefix)).take(limit + 1).collect();
        let more = items.len() > limit;
        items.truncate(limit);
        Ok(Page { next: items.last().filter(|_| more).map(|last| last.key.clone()), items })
    }
}

#[async_trait]
impl ObjectWrite for MemoryBucket {
    async fn put(&self, key: &ObjectKey, body: ByteStream, attributes: &Attributes, onto: Onto) -> PortResult<Written> {
        let bytes = collect(body).await?;
        Ok(self.store(key, bytes, attributes.clone(), &onto))
    }
}

#[async_trait]
impl ObjectPurge for MemoryBucket {
    async fn purge(&self, items: &[PurgeItem]) -> Vec<PortResult<Purged>> {
        items.iter().map(|item| Ok(self.purge_one(item))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::clock::MemoryClock;
    use lifecycle::time::UnixMs;

    fn bucket(versioning: Versioning) -> MemoryBucket {
        MemoryBucket::new("b", versioning, Arc::new(MemoryClock::at(UnixMs(5))))
    }

    fn key(text: &str) -> ObjectKey {
        ObjectKey::new(text).unwrap()
    }

    #[tokio::test]
    async fn a_versioned_bucket_keeps_what_is_overwritten_and_deleted() {
        let bucket = bucket(Versioning::On);
        let (first, _) = bucket.put_object(&key("a"), "one", Attributes::default());
        let (second, _) = bucket.put_object(&key("a"), "two", Attributes::default());
        let marker = bucket.delete_object(&key("a"));
        assert!(first < second && second < marker);
        assert_eq!(bucket.head(&key("a"), None).await.unwrap(), None);
        let old = bucket.get(&key("a"), Some(&VersionId(first)), None).await.unwrap().unwrap();
        assert_eq!(collect(old.body).await.unwrap(), "one");
        bucket.delete_version(&key("a"), &VersionId(marker));
        assert_eq!(bucket.head(&key("a"), None).await.unwrap().unwrap().version.version_id, Some(VersionId(second)));
    }

    #[tokio::test]
    async fn listings_come_in_pages_in_key_order_without_markers() {
        let bucket = bucket(Versioning::On);
        for name in ["p/b", "p/a", "p/c", "q", "p/gone"] {
            bucket.put_object(&key(name), "x", Attributes::default());
        }
        bucket.delete_object(&key("p/gone"));
        let first = bucket.list("p/", None, 2).await.unwrap();
        assert_eq!(first.next, Some(key("p/b")));
        let rest = bucket.list("p/", first.next.as_ref(), 2).await.unwrap();
        assert_eq!((rest.items.len(), &rest.items[0].key, rest.next), (1, &key("p/c"), None));
    }

    #[tokio::test]
    async fn conditions_are_judged_on_the_current_content() {
        let bucket = bucket(Versioning::Off);
        let put = |text: &'static str, onto| bucket.store(&key("a"), Bytes::from(text), Attributes::default(), &onto);
        let Written::Done(head) = put("one", Onto::Nothing) else { panic!("the key was free") };
        assert_eq!(put("two", Onto::Nothing), Written::DestinationChanged);
        assert_eq!(put("two", Onto::This(ETag("other".to_owned()))), Written::DestinationChanged);
        assert!(matches!(put("two", Onto::This(head.version.etag.clone())), Written::Done(_)));
        let old = PurgeItem { key: key("a"), version_id: None, if_match: Some(head.version.etag) };
        assert_eq!(bucket.purge(std::slice::from_ref(&old)).await[0].clone().unwrap(), Purged::Changed);
        assert_eq!(bucket.purge(&[PurgeItem { if_match: None, ..old }]).await[0].clone().unwrap(), Purged::Done);
        assert_eq!(bucket.contents().len(), 0);
    }
}
