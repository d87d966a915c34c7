//! What travels with an object, between S3's headers and the store.

use super::checks::CRC64;
use super::front::percent_decoded;
use super::limits::{ENDPOINT_METADATA_BYTES, ENDPOINT_TAG_KEY_CHARS, ENDPOINT_TAG_VALUE_CHARS, ENDPOINT_TAGS};
use crate::store::ObjectInfo;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use engine::ports::objects::Attributes;
use http::HeaderMap;
use http::header::{
    CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_TYPE, EXPIRES, HeaderName,
};
use s3s::dto::{ChecksumType, Tag};
use s3s::{S3Result, s3_error};
use std::collections::{BTreeMap, HashMap};

/// Reads what a put, a replacing copy or the begin of an upload says about its object. `metadata`: as `s3s` decoded it.
pub(super) fn from_request(
    headers: &HeaderMap,
    metadata: Option<HashMap<String, String>>,
    tagging: Option<&str>,
) -> S3Result<Attributes> {
    let metadata: BTreeMap<String, String> = metadata.unwrap_or_default().into_iter().collect();
    let bytes: usize = metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > ENDPOINT_METADATA_BYTES {
        return Err(s3_error!(
            MetadataTooLarge,
            "the metadata has {bytes} bytes; at most {ENDPOINT_METADATA_BYTES} are kept"
        ));
    }
    let text = |name: HeaderName| -> S3Result<Option<String>> {
        let refused = |_| s3_error!(InvalidRequest, "a header of the object is no plain text");
        headers.get(name).map(|value| value.to_str().map(str::to_owned).map_err(refused)).transpose()
    };
    Ok(Attributes {
        content_type: text(CONTENT_TYPE)?.filter(|kind| !kind.is_empty()),
        content_encoding: text(CONTENT_ENCODING)?.and_then(|encoding| without_aws_chunked(&encoding)),
        content_disposition: text(CONTENT_DISPOSITION)?,
        content_language: text(CONTENT_LANGUAGE)?,
        cache_control: text(CACHE_CONTROL)?,
        expires: text(EXPIRES)?,
        metadata,
        tags: tagging.map(tags_from_header).transpose()?.unwrap_or_default(),
    })
}

/// `aws-chunked` is how the body travelled, not how the object is encoded.
fn without_aws_chunked(encoding: &str) -> Option<String> {
    let kept: Vec<&str> =
        encoding.split(',').map(str::trim).filter(|part| !part.is_empty() && *part != "aws-chunked").collect();
    (!kept.is_empty()).then(|| kept.join(","))
}

/// Reads `x-amz-tagging`: `a=b&c=d`, form-encoded.
pub(super) fn tags_from_header(text: &str) -> S3Result<BTreeMap<String, String>> {
    let decode = |part: &str| percent_decoded(&part.replace('+', " "));
    let parts = text.split('&').filter(|part| !part.is_empty());
    let pairs = parts.map(|part| part.split_once('=').unwrap_or((part, "")));
    checked_tags(pairs.map(|(key, value)| (decode(key), decode(value))))
}

/// Reads the tags of a body.
pub(super) fn tags_from_set(tags: Vec<Tag>) -> S3Result<BTreeMap<String, String>> {
    checked_tags(tags.into_iter().map(|tag| (tag.key.unwrap_or_default(), tag.value.unwrap_or_default())))
}

fn checked_tags(pairs: impl Iterator<Item = (String, String)>) -> S3Result<BTreeMap<String, String>> {
    let mut tags = BTreeMap::new();
    for (key, value) in pairs {
        if key.is_empty() || key.chars().count() > ENDPOINT_TAG_KEY_CHARS {
            return Err(s3_error!(InvalidTag, "a tag's key has 1 to {ENDPOINT_TAG_KEY_CHARS} characters"));
        }
        if value.chars().count() > ENDPOINT_TAG_VALUE_CHARS {
            return Err(s3_error!(InvalidTag, "a tag's value has at most {ENDPOINT_TAG_VALUE_CHARS} characters"));
        }
        if tags.insert(key, value).is_some() {
            return Err(s3_error!(InvalidTag, "two tags have the same key"));
        }
        if tags.len() > ENDPOINT_TAGS {
            return Err(s3_error!(InvalidTag, "an object has at most {ENDPOINT_TAGS} tags"));
        }
    }
    Ok(tags)
}

/// Checksums as answers show them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ShownChecksums {
    pub(super) crc32: Option<String>,
    pub(super) crc32c: Option<String>,
    pub(super) crc64nvme: Option<String>,
    pub(super) sha1: Option<String>,
    pub(super) sha256: Option<String>,
    pub(super) kind: Option<ChecksumType>,
}

/// An answer, or a part of one, with checksums among its other fields: S3 has many types with these fields, and nothing that
/// they have in common.
macro_rules! with_sums {
    ($sums:ident => $answer:ident { $($others:tt)* }) => {
        $answer {
            checksum_crc32: $sums.crc32,
            checksum_crc32c: $sums.crc32c,
            checksum_crc64nvme: $sums.crc64nvme,
            checksum_sha1: $sums.sha1,
            checksum_sha256: $sums.sha256,
            $($others)*
        }
    };
}
pub(super) use with_sums;

impl ShownChecksums {
    /// Those of an object: what its writer sent, or, as in S3, CRC-64/NVME.
    pub(super) fn of(info: &ObjectInfo) -> ShownChecksums {
        let own = info.checksum.map(|checksum| STANDARD.encode(checksum.0.to_be_bytes()));
        ShownChecksums::from_map(&info.checksums, own)
    }

    /// From checksums by algorithm; `otherwise`: the CRC-64/NVME to show when there are none.
    pub(super) fn from_map(sums: &BTreeMap<String, String>, otherwise: Option<String>) -> ShownChecksums {
        let get = |algorithm: &str| sums.get(algorithm).cloned();
        let composite = sums.values().any(|value| value.contains('-'));
        let kind = if composite { ChecksumType::COMPOSITE } else { ChecksumType::FULL_OBJECT };
        let any = !sums.is_empty() || otherwise.is_some();
        ShownChecksums {
            crc32: get("crc32"),
            crc32c: get("crc32c"),
            crc64nvme: get(CRC64).or_else(|| otherwise.filter(|_| sums.is_empty())),
            sha1: get("sha1"),
            sha256: get("sha256"),
            kind: any.then(|| ChecksumType::from_static(kind)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aws_chunked_is_no_encoding_of_the_object() {
        assert_eq!(without_aws_chunked("aws-chunked"), None);
        assert_eq!(without_aws_chunked("aws-chunked, gzip").as_deref(), Some("gzip"));
        assert_eq!(without_aws_chunked("gzip,aws-chunked").as_deref(), Some("gzip"));
        assert_eq!(without_aws_chunked("gzip").as_deref(), Some("gzip"));
        assert_eq!(without_aws_chunked(""), None);
    }

    #[test]
    fn tags_are_decoded_and_bounded() {
        let tags = tags_from_header("a=b+c&%C3%A4=%26&empty").unwrap();
        let expected = [("a", "b c"), ("empty", ""), ("ä", "&")];
        assert_eq!(tags, expected.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
        let eleven: Vec<String> = (0..11).map(|n| format!("k{n}=v")).collect();
        let long = format!("{}=v", "k".repeat(129));
        for bad in ["a=1&a=2", "=v", &long, &eleven.join("&")] {
            assert_eq!(tags_from_header(bad).unwrap_err().code().as_str(), "InvalidTag", "{bad}");
        }
    }

    #[test]
    fn metadata_has_a_limit() {
        let metadata = |bytes: usize| Some(HashMap::from([("n".to_owned(), "v".repeat(bytes - 1))]));
        assert!(from_request(&HeaderMap::new(), metadata(ENDPOINT_METADATA_BYTES), None).is_ok());
        let refused = from_request(&HeaderMap::new(), metadata(ENDPOINT_METADATA_BYTES + 1), None).unwrap_err();
        assert_eq!(refused.code().as_str(), "MetadataTooLarge");
    }

    #[test]
    fn an_object_shows_its_writers_checksum_or_crc64() {
        let sums = BTreeMap::from([("crc32".to_owned(), "AAAAAA==".to_owned())]);
        let shown = ShownChecksums::from_map(&sums, Some("x".to_owned()));
        assert_eq!((shown.crc32.as_deref(), shown.crc64nvme), (Some("AAAAAA=="), None));
        let shown = ShownChecksums::from_map(&BTreeMap::new(), Some("x".to_owned()));
        assert_eq!(shown.crc64nvme.as_deref(), Some("x"));
        let composite = BTreeMap::from([("sha256".to_owned(), "AA==-2".to_owned())]);
        assert_eq!(ShownChecksums::from_map(&composite, None).kind.unwrap().as_str(), ChecksumType::COMPOSITE);
    }
}
