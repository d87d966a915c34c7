//! The mirror rule: what makes the destination's object equal to the source's. Events are hints; both heads are facts.

use crate::event::{Look, Version};
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

/// How a mirrored object names the content that it is a copy of: unlike tag and checksum it also changes when only the
/// metadata did.
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

fn is_copy(current: &crate::event::Current, there: &Mirrored) -> bool {
    let content = current.version.size == there.size
        && match (current.checksum, there.checksum) {
            (Some(here), Some(there)) => here == there,
            _ => current.version.etag == there.etag,
        };
    content && there.source_mark.as_ref().is_none_or(|mark| *mark == source_mark(&current.version))
}
