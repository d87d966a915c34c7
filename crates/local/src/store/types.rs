//! What the bucket store is asked and what it answers: names, requests, descriptions. No I/O.
//!
//! Place: the S3 endpoint builds these from requests and turns the answers into responses; the engine's ports are served by
//! thin adapters on top (`ports.rs`).

use super::error::{StoreError, StoreResult};
use engine::ports::objects::{Attributes, Head, Onto, Reach};
use lifecycle::event::Version;
use lifecycle::ids::{Checksum, ETag, ObjectKey, VersionId};
use lifecycle::time::UnixMs;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

/// A bucket's name: 3 to 63 of lower-case letters, digits, `.` and `-`, beginning and ending with a letter or digit,
/// without `..`. Safe as the name of a folder.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BucketName(String);

impl BucketName {
    /// Checks the name.
    pub fn new(name: impl Into<String>) -> StoreResult<BucketName> {
        let name = name.into();
        let bytes = name.as_bytes();
        let ordinary = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let fits = (3..=63).contains(&bytes.len())
            && bytes.iter().all(|byte| ordinary(byte) || matches!(byte, b'.' | b'-'))
            && bytes.first().is_some_and(ordinary)
            && bytes.last().is_some_and(ordinary)
            && !name.contains("..");
        if fits { Ok(BucketName(name)) } else { Err(StoreError::BadBucketName(name)) }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BucketName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a bucket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Clients write it; every write becomes an event, in the same transaction.
    Source,
    /// It holds copies: clients read it and never write it.
    Destination,
}

/// A bucket to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketSpec {
    /// Its name.
    pub name: BucketName,
    /// What it is for.
    pub role: Role,
    /// Its folder, on any disk; `None`: `buckets/<name>` in the data folder.
    pub root: Option<PathBuf>,
}

/// A bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketInfo {
    /// Its name.
    pub name: BucketName,
    /// What it is for.
    pub role: Role,
    /// Its folder.
    pub root: PathBuf,
    /// When it was created.
    pub created_at: UnixMs,
}

/// Everything the store knows about one object version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Its key.
    pub key: ObjectKey,
    /// Version id (source buckets only: the sequencer, 16 hex digits), tag and size. S3 clients are not shown the version id.
    pub version: Version,
    /// When it was written.
    pub last_modified: UnixMs,
    /// CRC-64/NVME over the whole object.
    pub checksum: Option<Checksum>,
    /// Checksums that the client sent and the endpoint verified, by algorithm, as [`BodyCheck::finish`] returned them.
    pub checksums: BTreeMap<String, String>,
    /// Content type and the like, user metadata, tags.
    pub attributes: Attributes,
    /// Of how many parts it was uploaded, if in parts.
    pub parts: Option<u32>,
}

impl ObjectInfo {
    /// What the engine's ports tell of it.
    pub fn head(&self) -> Head {
        Head {
            version: self.version.clone(),
            last_modified: self.last_modified,
            checksum: self.checksum,
            storage_class: None,
            reach: Reach::Readable,
            metadata: self.attributes.metadata.clone(),
        }
    }
}

/// Which bytes of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadRange {
    /// All.
    Whole,
    /// From the first up to, not including, the second; the end may lie beyond the object's.
    Between(Range<u64>),
    /// From here to the end.
    From(u64),
    /// The last so many.
    Last(u64),
}

/// An object with bytes on their way.
pub struct Found {
    /// What HEAD would tell.
    pub info: ObjectInfo,
    /// Which bytes the body has; `0..size` when all were asked for.
    pub range: Range<u64>,
    /// The bytes. A whole body is checked against its checksum: a damaged one ends in an error before its last piece.
    pub body: engine::ports::objects::ByteStream,
}

/// Where a listing begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ListFrom {
    /// At the beginning.
    #[default]
    Start,
    /// After this name, whether or not it is there: a key, or a common prefix (whose keys are then all passed over).
    After(String),
}

/// A listing, of which one page comes back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListRequest {
    /// Only keys that begin so.
    pub prefix: String,
    /// Keys with this text after the prefix are rolled up into one common prefix.
    pub delimiter: Option<String>,
    /// Where to begin. A name that ends with the delimiter is taken as a common prefix already given.
    pub from: ListFrom,
    /// At most so many entries, 1,000 at most.
    pub limit: usize,
}

/// One entry of a listing, in key order (bytes of UTF-8).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListEntry {
    /// An object.
    Object(Box<ObjectInfo>),
    /// A common prefix, delimiter included.
    Prefix(String),
}

impl ListEntry {
    /// Its key or prefix.
    pub fn name(&self) -> &str {
        match self {
            ListEntry::Object(info) => info.key.as_str(),
            ListEntry::Prefix(prefix) => prefix,
        }
    }
}

/// One page of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListPage {
    /// The entries.
    pub entries: Vec<ListEntry>,
    /// There are more: go on after the last entry's name.
    pub truncated: bool,
}

/// What the store found out about a body while it wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyDigest {
    /// Bytes.
    pub size: u64,
    /// MD5.
    pub md5: [u8; 16],
    /// CRC-64/NVME.
    pub crc64: Checksum,
}

/// A body that is not what the client said it would be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} of the body is {actual}, but the request says {expected}")]
pub struct Mismatch {
    /// What differs: `Content-MD5`, `x-amz-checksum-crc32`, `Content-Length`.
    pub what: String,
    /// As the request says.
    pub expected: String,
    /// As it is.
    pub actual: String,
}

/// Looks at a body on its way to the disk. Nothing becomes visible before [`BodyCheck::finish`] has agreed, so that
/// checksums may come in a trailer, after the bytes. Runs on a thread that may block.
pub trait BodyCheck: Send {
    /// The next bytes.
    fn update(&mut self, piece: &[u8]);

    /// The end. Agrees with the checksums to be kept with the object (algorithm → base64), or refuses the body.
    fn finish(self: Box<Self>, body: &BodyDigest) -> Result<BTreeMap<String, String>, Mismatch>;
}

/// An object to be written.
pub struct PutRequest {
    /// Its key.
    pub key: ObjectKey,
    /// What travels with it.
    pub attributes: Attributes,
    /// On which condition.
    pub onto: Onto,
    /// What the body must be like.
    pub check: Option<Box<dyn BodyCheck>>,
}

/// Where the attributes of a copy come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopyAttributes {
    /// From the original, with this user metadata added.
    Keep {
        /// Added to the original's.
        add_metadata: BTreeMap<String, String>,
    },
    /// These instead.
    Replace(Attributes),
}

/// A copy inside the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopySpec {
    /// What to copy.
    pub from: ObjectKey,
    /// Which version of it; `None`: the current one.
    pub version: Option<VersionId>,
    /// Only if it has this tag.
    pub if_match: Option<ETag>,
    /// Where to.
    pub to: ObjectKey,
    /// On which condition.
    pub onto: Onto,
    /// With which attributes.
    pub attributes: CopyAttributes,
}

/// One key to delete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteItem {
    /// Which.
    pub key: ObjectKey,
    /// Only if it has this tag.
    pub if_match: Option<ETag>,
}

/// How a delete ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deleted {
    /// It is gone, and its event is in the spool.
    Done,
    /// There was none: no event either.
    WasAbsent,
}

/// Names one multipart upload.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UploadId(pub String);

/// A multipart upload that is not completed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadInfo {
    /// Of which key.
    pub key: ObjectKey,
    /// Which upload.
    pub id: UploadId,
    /// When it began.
    pub initiated: UnixMs,
}

/// One page of uploads, by key and id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UploadPage {
    /// The uploads.
    pub uploads: Vec<UploadInfo>,
    /// There are more: go on after the last one.
    pub truncated: bool,
}

/// One part that was uploaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartInfo {
    /// Its number, 1 to 10,000.
    pub number: u32,
    /// Its tag: the MD5.
    pub etag: ETag,
    /// Bytes.
    pub size: u64,
    /// When it was uploaded.
    pub last_modified: UnixMs,
    /// CRC-64/NVME.
    pub checksum: Checksum,
    /// Checksums that the client sent and the endpoint verified.
    pub checksums: BTreeMap<String, String>,
}

/// One page of parts, by number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartPage {
    /// The parts.
    pub parts: Vec<PartInfo>,
    /// There are more: go on after the last number.
    pub truncated: bool,
}

/// A part that a completed upload is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompletePart {
    /// Its number.
    pub number: u32,
    /// The tag that the client was told.
    pub etag: ETag,
}

/// What the client says about the object that an upload completes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CompleteExpectation {
    /// Size in bytes.
    pub size: Option<u64>,
    /// CRC-64/NVME over the whole object.
    pub crc64: Option<Checksum>,
    /// Checksums to keep with the object, which the endpoint has verified (composite ones, from those of the parts).
    pub checksums: BTreeMap<String, String>,
}
