//! What a source says has happened to one key. Events arrive at least once, late, twice and out of order; nothing here
//! or in the flows reasons from the order of their arrival.

use crate::ids::{Checksum, ETag, ObjectKey, VersionId};
use crate::order::Order;
use crate::time::UnixMs;

/// One event of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectEvent {
    /// The key it is about, decoded.
    pub key: ObjectKey,
    /// When the source says it happened.
    pub time: UnixMs,
    /// Its place among the events of its key; `None` when the source gave none.
    pub order: Option<Order>,
    /// What happened.
    pub what: Happened,
}

/// What happened to a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happened {
    /// A new content: put, copy, or completed upload.
    Created(Version),
    /// The key has no current content any more: deleted, marked deleted, or expired.
    Removed,
    /// One version, or one delete marker, was deleted for good. Says nothing by itself about the current content.
    VersionRemoved(VersionId),
}

/// One content of a key, as its source identifies it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// The version id, where the source has versions.
    pub version_id: Option<VersionId>,
    /// The entity tag.
    pub etag: ETag,
    /// Size in bytes.
    pub size: u64,
}

/// The current content of a key, as a HEAD of the source tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Current {
    /// Which content it is.
    pub version: Version,
    /// When the source says it was written.
    pub last_modified: UnixMs,
    /// CRC-64/NVME over the whole object, where the source knows it.
    pub checksum: Option<Checksum>,
}

/// What a HEAD of the source, made after the rows were read, has found (V2). "Unknown" (403, timeout, 5xx) is no look:
/// it is an error of the flow (V8).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// A definite 404 or a delete marker.
    Absent,
    /// The current content.
    Present(Current),
}
