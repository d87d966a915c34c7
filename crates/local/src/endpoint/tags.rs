//! Tags of objects. Changing them makes no event, as in S3.

use super::attributes::tags_from_set;
use super::faults::from_store;
use super::service::{Service, object_key};
use crate::store::StoreError;
use s3s::dto::{
    DeleteObjectTaggingInput, DeleteObjectTaggingOutput, GetObjectTaggingInput, GetObjectTaggingOutput,
    PutObjectTaggingInput, PutObjectTaggingOutput, Tag,
};
use s3s::{S3Response, S3Result};
use std::collections::BTreeMap;

/// Reads the tags.
pub(super) async fn get(
    service: &Service,
    input: GetObjectTaggingInput,
) -> S3Result<S3Response<GetObjectTaggingOutput>> {
    let bucket = service.bucket(&input.bucket)?;
    let key = object_key(input.key)?;
    let info = bucket.head(&key, None).await.map_err(from_store)?;
    let info = info.ok_or_else(|| from_store(StoreError::NoSuchKey(key.to_string())))?;
    let tags = info.attributes.tags.into_iter();
    let tag_set = tags.map(|(key, value)| Tag { key: Some(key), value: Some(value) }).collect();
    Ok(S3Response::new(GetObjectTaggingOutput { tag_set, version_id: None }))
}

/// Replaces the tags.
pub(super) async fn put(
    service: &Service,
    input: PutObjectTaggingInput,
) -> S3Result<S3Response<PutObjectTaggingOutput>> {
    let bucket = service.bucket(&input.bucket)?;
    let tags = tags_from_set(input.tagging.tag_set)?;
    bucket.set_tags(&object_key(input.key)?, tags).await.map_err(from_store)?;
    Ok(S3Response::new(PutObjectTaggingOutput::default()))
}

/// Removes the tags.
pub(super) async fn delete(
    service: &Service,
    input: DeleteObjectTaggingInput,
) -> S3Result<S3Response<DeleteObjectTaggingOutput>> {
    let bucket = service.bucket(&input.bucket)?;
    bucket.set_tags(&object_key(input.key)?, BTreeMap::new()).await.map_err(from_store)?;
    Ok(S3Response::new(DeleteObjectTaggingOutput::default()))
}
