//! Copies inside the endpoint: whole objects, and ranges of them as parts of an upload.
//!
//! The conditions are judged on a look at the source, and the copy is pinned to what was seen; if the source is overwritten
//! in between, the copy starts over with a new look. Reading from a destination is allowed: that is how a person gets a
//! copy back with nothing but an S3 client.

use super::attributes::{ShownChecksums, from_request, tags_from_header, with_sums};
use super::conditions::{Conditions, Verdict, timestamp};
use super::faults::{from_store, not_implemented};
use super::limits::{ENDPOINT_COPY_ROUNDS, ENDPOINT_PUT_BYTES};
use super::multipart::part_number;
use super::objects::{onto, or_missing};
use super::service::{Service, object_key};
use crate::store::{Bucket, CopyAttributes, CopySpec, ObjectInfo, ReadRange, StoreError, UploadId};
use engine::ports::objects::{Attributes, Onto};
use http::HeaderMap;
use lifecycle::ids::ObjectKey;
use s3s::dto::{
    CopyObjectInput, CopyObjectOutput, CopyObjectResult, CopyPartResult, CopySource, ETag, MetadataDirective, Range,
    TaggingDirective, UploadPartCopyInput, UploadPartCopyOutput,
};
use s3s::{S3Request, S3Response, S3Result, s3_error};
use std::collections::BTreeMap;

/// What is to be copied.
struct Source {
    bucket: Bucket,
    key: ObjectKey,
}

impl Source {
    fn of(service: &Service, source: CopySource) -> S3Result<Source> {
        let CopySource::Bucket { bucket, key, version_id } = source else {
            return Err(not_implemented("copying from an access point"));
        };
        if version_id.is_some() {
            return Err(not_implemented("copying a version (`versionId`)"));
        }
        Ok(Source { bucket: service.bucket(&bucket)?, key: object_key(key.into())? })
    }

    async fn look(&self, conditions: &Conditions) -> S3Result<ObjectInfo> {
        let info = self.bucket.head(&self.key, None).await.map_err(from_store)?;
        let info = info.ok_or_else(|| from_store(StoreError::NoSuchKey(self.key.to_string())))?;
        match conditions.judge(&info) {
            Verdict::Holds => Ok(info),
            Verdict::Failed | Verdict::NotModified => Err(from_store(StoreError::SourceChanged)),
        }
    }
}

/// Which attributes the copy shall have.
enum Wanted {
    AsSource,
    /// Attributes of the request; tags of the source, if so asked.
    Replaced {
        attributes: Attributes,
        keep_tags: bool,
    },
    /// Attributes of the source, tags of the request.
    Tagged(BTreeMap<String, String>),
}

impl Wanted {
    fn read(input: &mut CopyObjectInput, headers: &HeaderMap) -> S3Result<Wanted> {
        let replace = match input.metadata_directive.as_ref().map(MetadataDirective::as_str) {
            None | Some(MetadataDirective::COPY) => false,
            Some(MetadataDirective::REPLACE) => true,
            Some(other) => return Err(s3_error!(InvalidArgument, "`{other}` is no metadata directive")),
        };
        let retag = match input.tagging_directive.as_ref().map(TaggingDirective::as_str) {
            None | Some(TaggingDirective::COPY) => false,
            Some(TaggingDirective::REPLACE) => true,
            Some(other) => return Err(s3_error!(InvalidArgument, "`{other}` is no tagging directive")),
        };
        let tagging = input.tagging.as_deref().filter(|_| retag);
        if replace {
            let attributes = from_request(headers, input.metadata.take(), tagging)?;
            return Ok(Wanted::Replaced { attributes, keep_tags: !retag });
        }
        if retag {
            return Ok(Wanted::Tagged(tagging.map(tags_from_header).transpose()?.unwrap_or_default()));
        }
        Ok(Wanted::AsSource)
    }

    fn of(&self, source: &ObjectInfo) -> CopyAttributes {
        match self {
            Wanted::AsSource => CopyAttributes::Keep { add_metadata: BTreeMap::new() },
            Wanted::Replaced { attributes, keep_tags } => {
                let tags = if *keep_tags { source.attributes.tags.clone() } else { attributes.tags.clone() };
                CopyAttributes::Replace(Attributes { tags, ..attributes.clone() })
            }
            Wanted::Tagged(tags) => {
                CopyAttributes::Replace(Attributes { tags: tags.clone(), ..source.attributes.clone() })
            }
        }
    }
}

/// Copies an object.
pub(super) async fn copy(
    service: &Service,
    request: S3Request<CopyObjectInput>,
) -> S3Result<S3Response<CopyObjectOutput>> {
    let S3Request { mut input, headers, .. } = request;
    let target = service.bucket(&input.bucket)?;
    let to = object_key(input.key.clone())?;
    let wanted = Wanted::read(&mut input, &headers)?;
    let source = Source::of(service, input.copy_source)?;
    let conditions = Conditions {
        if_match: input.copy_source_if_match,
        if_none_match: input.copy_source_if_none_match,
        if_modified_since: input.copy_source_if_modified_since,
        if_unmodified_since: input.copy_source_if_unmodified_since,
    };
    let onto = onto(&headers)?;
    let to_itself = source.bucket.info().name == target.info().name && source.key == to;
    if to_itself && matches!(wanted, Wanted::AsSource) {
        return Err(s3_error!(
            InvalidRequest,
            "This copy request is illegal because it is trying to copy an object to itself without changing the object's metadata."
        ));
    }
    let info = copied(&source, &conditions, &target, &to, &onto, &wanted).await?;
    let sums = ShownChecksums::of(&info);
    let result = with_sums!(sums => CopyObjectResult {
        checksum_type: sums.kind,
        e_tag: Some(ETag::Strong(info.version.etag.to_string())),
        last_modified: Some(timestamp(info.last_modified)),
    });
    Ok(S3Response::new(CopyObjectOutput { copy_object_result: Some(result), ..CopyObjectOutput::default() }))
}

async fn copied(
    source: &Source,
    conditions: &Conditions,
    target: &Bucket,
    to: &ObjectKey,
    onto: &Onto,
    wanted: &Wanted,
) -> S3Result<ObjectInfo> {
    for round in 1.. {
        let seen = source.look(conditions).await?;
        let spec = CopySpec {
            from: source.key.clone(),
            version: seen.version.version_id.clone(),
            if_match: Some(seen.version.etag.clone()),
            to: to.clone(),
            onto: onto.clone(),
            attributes: wanted.of(&seen),
        };
        match target.copy_from(&source.bucket, &spec).await {
            Ok(info) => return Ok(info),
            Err(StoreError::SourceChanged | StoreError::NoSuchKey(_)) if round < ENDPOINT_COPY_ROUNDS => {}
            Err(error) => {
                let matching = matches!(onto, Onto::This(_)).then(|| to.clone());
                return Err(from_store(or_missing(target, matching, error).await));
            }
        }
    }
    unreachable!("the last round returns")
}

/// Copies an object, or a range of it, to a part of an upload.
pub(super) async fn upload_part(
    service: &Service,
    input: UploadPartCopyInput,
) -> S3Result<S3Response<UploadPartCopyOutput>> {
    let target = service.bucket(&input.bucket)?;
    let key = object_key(input.key)?;
    let number = part_number(input.part_number)?;
    let source = Source::of(service, input.copy_source)?;
    let conditions = Conditions {
        if_match: input.copy_source_if_match,
        if_none_match: input.copy_source_if_none_match,
        if_modified_since: input.copy_source_if_modified_since,
        if_unmodified_since: input.copy_source_if_unmodified_since,
    };
    let seen = source.look(&conditions).await?;
    let size = seen.version.size;
    let range = match input.copy_source_range.as_deref() {
        None => 0..size,
        Some(range) => exact_range(range, size)?,
    };
    if range.end - range.start > ENDPOINT_PUT_BYTES {
        return Err(s3_error!(InvalidRequest, "a part has at most {ENDPOINT_PUT_BYTES} bytes: name a range"));
    }
    let wanted = if size == 0 { ReadRange::Whole } else { ReadRange::Between(range) };
    let found = source.bucket.get(&source.key, seen.version.version_id.as_ref(), wanted).await.map_err(from_store)?;
    let found = found.ok_or_else(|| from_store(StoreError::NoSuchKey(source.key.to_string())))?;
    if found.info.version.etag != seen.version.etag {
        return Err(from_store(StoreError::SourceChanged));
    }
    let upload = UploadId(input.upload_id);
    let part = target.put_part(&key, &upload, number, None, found.body).await.map_err(from_store)?;
    let result = CopyPartResult {
        e_tag: Some(ETag::Strong(part.etag.to_string())),
        last_modified: Some(timestamp(part.last_modified)),
        ..CopyPartResult::default()
    };
    Ok(S3Response::new(UploadPartCopyOutput { copy_part_result: Some(result), ..UploadPartCopyOutput::default() }))
}

/// A part's range is `bytes=first-last`, wholly inside the source.
fn exact_range(text: &str, size: u64) -> S3Result<std::ops::Range<u64>> {
    match Range::parse(text) {
        Ok(Range::Int { first, last: Some(last) }) if last < size => Ok(first..last + 1),
        Ok(Range::Int { first: _, last: Some(_) }) => {
            Err(s3_error!(InvalidArgument, "the range `{text}` ends beyond the source's {size} bytes"))
        }
        _ => Err(s3_error!(InvalidArgument, "`x-amz-copy-source-range` has the form `bytes=first-last`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parts_range_lies_wholly_inside_its_source() {
        assert_eq!(exact_range("bytes=0-9", 10).unwrap(), 0..10);
        for bad in ["bytes=0-10", "bytes=-5", "bytes=5-", "bytes=5-2", "0-5"] {
            assert_eq!(exact_range(bad, 10).unwrap_err().code().as_str(), "InvalidArgument", "{bad}");
        }
    }
}
