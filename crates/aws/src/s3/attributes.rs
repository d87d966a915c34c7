//! What S3 says of an object, as the engine's types, and back.

use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::primitives::{DateTime, DateTimeFormat};
use aws_sdk_s3::types::{ArchiveStatus, ChecksumType, StorageClass, Tag};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use engine::ports::objects::{Attributes, Head, Reach};
use lifecycle::event::Version;
use lifecycle::ids::{Checksum, ETag, VersionId};
use lifecycle::time::UnixMs;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use std::collections::{BTreeMap, HashMap};

/// The class that S3 does not name, because it is the usual one.
pub(super) const STANDARD: &str = "STANDARD";

/// What a HEAD, or the head of a GET, has told. An expiry is kept as its sender wrote it.
pub(super) struct Told {
    pub(super) head: Head,
    pub(super) attributes: Attributes,
    /// It lies in one of the deepest archive tiers, which are asked for in hours only.
    pub(super) is_deep: bool,
}

/// HEAD and GET answer with the same fields, in two types.
macro_rules! told {
    ($answer:expr, $size:expr, $archive:expr) => {{
        let answer = $answer;
        let archive: Option<&ArchiveStatus> = $archive;
        let metadata: BTreeMap<String, String> = lower_case(answer.metadata());
        let class = answer.storage_class().map(|class| class.as_str().to_owned());
        Told {
            is_deep: matches!(answer.storage_class(), Some(StorageClass::DeepArchive))
                || matches!(archive, Some(ArchiveStatus::DeepArchiveAccess)),
            head: Head {
                version: Version {
                    version_id: version_id(answer.version_id()),
                    etag: etag(answer.e_tag().unwrap_or_default()),
                    size: $size,
                },
                last_modified: answer.last_modified().map_or(UnixMs::default(), unix_ms),
                checksum: checksum(answer.checksum_crc64_nvme(), answer.checksum_type()),
                storage_class: Some(class.unwrap_or_else(|| STANDARD.to_owned())),
                metadata: metadata.clone(),
                reach: reach(answer.storage_class(), archive, answer.restore()),
            },
            attributes: Attributes {
                content_type: answer.content_type().map(str::to_owned),
                content_encoding: answer.content_encoding().map(str::to_owned),
                content_disposition: answer.content_disposition().map(str::to_owned),
                content_language: answer.content_language().map(str::to_owned),
                cache_control: answer.cache_control().map(str::to_owned),
                expires: answer.expires_string().map(str::to_owned),
                metadata,
                tags: BTreeMap::new(),
            },
        }
    }};
}

pub(super) fn of_head(answer: &HeadObjectOutput) -> Told {
    told!(answer, size(answer.content_length()), answer.archive_status())
}

/// Of a range the length of the whole stands behind the slash of `Content-Range`.
pub(super) fn of_get(answer: &GetObjectOutput) -> Told {
    let whole = answer.content_range().and_then(|range| range.rsplit('/').next()?.parse().ok());
    // What is being read can be read: no answer to a GET says anything of tiers inside of intelligent tiering.
    told!(answer, whole.unwrap_or_else(|| size(answer.content_length())), None)
}

fn size(length: Option<i64>) -> u64 {
    u64::try_from(length.unwrap_or(0)).unwrap_or(0)
}

pub(super) fn version_id(id: Option<&str>) -> Option<VersionId> {
    id.filter(|id| !id.is_empty()).map(VersionId::from)
}

/// Tags stand in quotes in HTTP and without in the engine.
pub(super) fn etag(quoted: &str) -> ETag {
    ETag::from(quoted.trim_matches('"'))
}

pub(super) fn quoted(etag: &ETag) -> String {
    format!("\"{etag}\"")
}

/// Only a checksum over the whole object says something about the object.
pub(super) fn checksum(text: Option<&str>, kind: Option<&ChecksumType>) -> Option<Checksum> {
    if kind.is_some_and(|kind| *kind != ChecksumType::FullObject) {
        return None;
    }
    let bytes: [u8; 8] = BASE64.decode(text?).ok()?.try_into().ok()?;
    Some(Checksum(u64::from_be_bytes(bytes)))
}

pub(super) fn checksum_text(checksum: Checksum) -> String {
    BASE64.encode(checksum.0.to_be_bytes())
}

/// S3 knows the second (a HEAD can say no more); other stores write milliseconds into listings, which must not look like
/// another time.
pub(super) fn unix_ms(time: &DateTime) -> UnixMs {
    UnixMs(time.secs().saturating_mul(1_000))
}

/// An expiry as S3 takes it; one that is no date is left out, as S3 itself does.
pub(super) fn expires(attributes: &Attributes) -> Option<DateTime> {
    DateTime::from_str(attributes.expires.as_deref()?, DateTimeFormat::HttpDate).ok()
}

pub(super) fn metadata(attributes: &Attributes) -> HashMap<String, String> {
    attributes.metadata.clone().into_iter().collect()
}

/// Tags as the header `x-amz-tagging` has them: like the query of a URL.
pub(super) fn tagging(tags: &BTreeMap<String, String>) -> Option<String> {
    let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let pairs: Vec<String> = tags.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect();
    (!pairs.is_empty()).then(|| pairs.join("&"))
}

pub(super) fn tags_of(set: &[Tag]) -> BTreeMap<String, String> {
    set.iter().map(|tag| (tag.key().to_owned(), tag.value().to_owned())).collect()
}

fn lower_case(metadata: Option<&HashMap<String, String>>) -> BTreeMap<String, String> {
    metadata.into_iter().flatten().map(|(name, value)| (name.to_lowercase(), value.clone())).collect()
}

/// Whether the bytes can be read. Intelligent tiering says in `archive` that they lie in an archive tier; of the classes that
/// are archive tiers, `restore` says `ongoing-request="false"` when a retrieved copy is there.
pub(super) fn reach(class: Option<&StorageClass>, archive: Option<&ArchiveStatus>, restore: Option<&str>) -> Reach {
    let is_ongoing = |state: &str| restore.is_some_and(|text| text.contains(&format!("ongoing-request=\"{state}\"")));
    match (class, archive) {
        (Some(StorageClass::Glacier | StorageClass::DeepArchive), _) if is_ongoing("false") => Reach::Readable,
        (Some(StorageClass::Glacier | StorageClass::DeepArchive), _) | (_, Some(_)) if is_ongoing("true") => {
            Reach::OnItsWay
        }
        (Some(StorageClass::Glacier | StorageClass::DeepArchive), _) | (_, Some(_)) => Reach::Archived,
        _ => Reach::Readable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_reads_back_and_one_of_parts_says_nothing() {
        let text = checksum_text(Checksum(0x0123_4567_89ab_cdef));
        assert_eq!(checksum(Some(&text), Some(&ChecksumType::FullObject)), Some(Checksum(0x0123_4567_89ab_cdef)));
        assert_eq!(checksum(Some(&text), Some(&ChecksumType::Composite)), None);
        assert_eq!(checksum(Some("no base64!"), None), None);
        assert_eq!(checksum(None, None), None);
    }

    #[test]
    fn tags_are_encoded_like_a_query() {
        let tags = BTreeMap::from([("a b".to_owned(), "ä&=+".to_owned()), ("plain".to_owned(), String::new())]);
        assert_eq!(tagging(&tags).as_deref(), Some("a%20b=%C3%A4%26%3D%2B&plain="));
        assert_eq!(tagging(&BTreeMap::new()), None);
    }

    #[test]
    fn what_lies_in_an_archive_tier_can_be_read_once_it_was_retrieved() {
        let there = "ongoing-request=\"false\", expiry-date=\"Fri, 21 Dec 2026 00:00:00 GMT\"";
        let ongoing = "ongoing-request=\"true\"";
        for class in [StorageClass::Glacier, StorageClass::DeepArchive] {
            let of = |restore| reach(Some(&class), None, restore);
            assert_eq!(
                (of(None), of(Some(ongoing)), of(Some(there))),
                (Reach::Archived, Reach::OnItsWay, Reach::Readable)
            );
        }
        let moving = Some(&StorageClass::IntelligentTiering);
        let deep = Some(&ArchiveStatus::DeepArchiveAccess);
        assert_eq!((reach(moving, deep, None), reach(moving, deep, Some(ongoing))), (Reach::Archived, Reach::OnItsWay));
        for class in [moving, Some(&StorageClass::GlacierIr), None] {
            assert_eq!(reach(class, None, None), Reach::Readable);
        }
    }
}
