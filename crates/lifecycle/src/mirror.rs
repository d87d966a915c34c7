//! The mirror rule: what makes the destination's object equal to the source's. Events are hints; both heads are facts.

use crate::event::{Current, Look, Version};
use crate::ids::{Checksum, ETag};

/// The destination's object, as its HEAD tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirrored {
    /// Its own entity tag, for conditional writes.
    pub etag: ETag,
    /// Size in bytes.
    pub size: u64,
    /// CRC-64/NVME over the whole object, where known.
    pub checksum: Option<Checksum>,
    /// Which content of the source it was copied from ([`source_mark`]), where the copy says so.
    pub source_mark: Option<String>,
}

/// What to do, on which conditions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Equalise {
    /// They are equal.
    Nothing,
    /// Delete the destination's object, if it still is this one.
    Delete {
        /// The tag that was seen.
        if_match: ETag,
    },
    /// Copy this content of the source.
    Copy {
        /// The content, as the source's HEAD told it.
        version: Version,
        /// The destination's object must still be this one; `None`: there must be none.
        onto: Option<ETag>,
    },
}

/// How a mirrored object names the content that it is a copy of. Where the source has versions it changes, unlike tag and
/// checksum, also when only the metadata did.
pub fn source_mark(version: &Version) -> String {
    match &version.version_id {
        Some(id) => format!("v{id}"),
        None => format!("e{}", version.etag),
    }
}

/// What makes the destination equal to the source.
pub fn equalise(source: &Look, destination: Option<&Mirrored>) -> Equalise {
    match (source, destination) {
        (Look::Absent, None) => Equalise::Nothing,
        (Look::Absent, Some(there)) => Equalise::Delete { if_match: there.etag.clone() },
        (Look::Present(current), there) => match there {
            Some(there) if is_copy(current, there) => Equalise::Nothing,
            _ => Equalise::Copy { version: current.version.clone(), onto: there.map(|there| there.etag.clone()) },
        },
    }
}

/// Whether the destination's object is a copy of the source's current content.
///
/// Sizes must agree, and so must every statement about the content that both sides make: checksum and mark. The tag is
/// asked only where neither can be compared, since tags of different buckets differ for equal bytes (multipart, SSE-KMS);
/// the copy that a wrong "differs" costs carries a mark, so that it is the last.
fn is_copy(current: &Current, there: &Mirrored) -> bool {
    if current.version.size != there.size {
        return false;
    }
    let same_checksum = current.checksum.zip(there.checksum).map(|(here, there)| here == there);
    let same_mark = there.source_mark.as_ref().map(|mark| *mark == source_mark(&current.version));
    match (same_checksum, same_mark) {
        (None, None) => current.version.etag == there.etag,
        (checksum, mark) => checksum != Some(false) && mark != Some(false),
    }
}
