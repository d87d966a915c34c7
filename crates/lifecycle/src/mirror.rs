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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::UnixMs;

    fn source(version_id: Option<&str>, etag: &str, size: u64, checksum: Option<u64>) -> Look {
        let version = Version { version_id: version_id.map(Into::into), etag: etag.into(), size };
        Look::Present(Current { version, last_modified: UnixMs(1), checksum: checksum.map(Checksum) })
    }

    fn there(etag: &str, size: u64, checksum: Option<u64>, mark: Option<&str>) -> Mirrored {
        let source_mark = mark.map(str::to_owned);
        Mirrored { etag: etag.into(), size, checksum: checksum.map(Checksum), source_mark }
    }

    #[test]
    fn equal_means_equal_in_all_that_both_sides_tell() {
        for (source, there, equal, why) in [
            (source(Some("1"), "a", 3, Some(7)), there("a", 3, Some(7), Some("v1")), true, "equal in everything"),
            (source(Some("1"), "a-2", 3, Some(7)), there("b", 3, Some(7), Some("v1")), true, "tags differ by bucket"),
            (source(Some("1"), "a-2", 3, None), there("b", 3, None, Some("v1")), true, "the mark decides"),
            (
                source(None, "a-2", 3, None),
                there("b", 3, None, Some("ea-2")),
                true,
                "the mark decides without versions",
            ),
            (source(None, "a", 3, Some(7)), there("b", 3, Some(7), None), true, "the checksum decides"),
            (source(None, "a", 3, None), there("a", 3, None, None), true, "nothing but the tag to go by"),
            (source(None, "a", 3, None), there("b", 3, None, None), false, "nothing but the tag to go by"),
            (source(Some("1"), "a", 3, Some(7)), there("a", 4, Some(7), Some("v1")), false, "another size"),
            (
                source(Some("1"), "a", 3, Some(7)),
                there("a", 3, Some(8), Some("v1")),
                false,
                "damaged, whatever it says",
            ),
            (
                source(Some("2"), "a", 3, Some(7)),
                there("a", 3, Some(7), Some("v1")),
                false,
                "its metadata was replaced",
            ),
            (source(Some("1"), "a", 3, Some(7)), there("a", 3, None, Some("v0")), false, "an older content"),
        ] {
            let step = equalise(&source, Some(&there));
            let Look::Present(current) = source else { unreachable!() };
            let copy = Equalise::Copy { version: current.version, onto: Some(there.etag) };
            assert_eq!(step, if equal { Equalise::Nothing } else { copy }, "{why}");
        }
    }

    #[test]
    fn what_the_source_lacks_is_deleted_and_what_the_destination_lacks_is_copied_onto_nothing() {
        assert_eq!(equalise(&Look::Absent, None), Equalise::Nothing);
        let delete = equalise(&Look::Absent, Some(&there("b", 3, None, None)));
        assert_eq!(delete, Equalise::Delete { if_match: "b".into() });
        let Equalise::Copy { version, onto } = equalise(&source(Some("1"), "a", 3, None), None) else { panic!() };
        assert_eq!((version.etag.as_str(), onto), ("a", None));
    }

    #[test]
    fn once_copied_it_is_equal() {
        for version_id in [None, Some("1")] {
            for checksum in [None, Some(7)] {
                let source = source(version_id, "a-2", 3, checksum);
                let Look::Present(current) = &source else { unreachable!() };
                let mark = source_mark(&current.version);
                let copied = there("of the destination", 3, checksum, Some(&mark));
                assert_eq!(equalise(&source, Some(&copied)), Equalise::Nothing);
            }
        }
    }

    #[test]
    fn a_mark_tells_a_version_from_a_tag() {
        let mark = |id: Option<&str>, tag: &str| {
            source_mark(&Version { version_id: id.map(Into::into), etag: tag.into(), size: 1 })
        };
        assert_ne!(mark(Some("x"), "y"), mark(None, "x"));
        assert_ne!(mark(Some("1"), "y"), mark(Some("2"), "y"));
    }
}
