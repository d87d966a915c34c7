//! Deleting objects, one or up to a thousand. A missing key counts as deleted, as in S3.

use super::faults::{destination, from_store, not_implemented};
use super::limits::ENDPOINT_DELETE_KEYS;
use super::objects::onto;
use super::service::{Service, object_key};
use crate::store::{Bucket, DeleteItem, Role, StoreError};
use engine::ports::objects::Onto;
use http::{HeaderMap, header};
use lifecycle::ids::{ETag as Tag, ObjectKey};
use s3s::dto::{
    DeleteObjectInput, DeleteObjectOutput, DeleteObjectsInput, DeleteObjectsOutput, DeletedObject, Error,
    ObjectIdentifier,
};
use s3s::{S3Error, S3Request, S3Response, S3Result, s3_error};

/// Deletes one object.
pub(super) async fn one(
    service: &Service,
    request: S3Request<DeleteObjectInput>,
) -> S3Result<S3Response<DeleteObjectOutput>> {
    let S3Request { input, headers, .. } = request;
    let bucket = service.bucket(&input.bucket)?;
    let key = object_key(input.key)?;
    let if_match = condition(&bucket, &key, &headers).await?;
    bucket.delete(&DeleteItem { key, if_match }).await.map_err(from_store)?;
    Ok(S3Response::new(DeleteObjectOutput::default()))
}

/// `If-Match`; `*` asks that there is an object, whichever.
async fn condition(bucket: &Bucket, key: &ObjectKey, headers: &HeaderMap) -> S3Result<Option<Tag>> {
    if headers.get(header::IF_MATCH).is_some_and(|value| value == "*") {
        let info = bucket.head(key, None).await.map_err(from_store)?;
        return info.map(|info| Some(info.version.etag)).ok_or_else(|| from_store(StoreError::PreconditionFailed));
    }
    match onto(headers)? {
        Onto::Anything => Ok(None),
        Onto::This(tag) => Ok(Some(tag)),
        Onto::Nothing => Err(not_implemented("deleting with `If-None-Match`")),
    }
}

/// Deletes many objects; each key has its own result. On a destination every key is refused.
pub(super) async fn many(service: &Service, input: DeleteObjectsInput) -> S3Result<S3Response<DeleteObjectsOutput>> {
    let bucket = service.bucket(&input.bucket)?;
    let objects = input.delete.objects;
    if objects.is_empty() || objects.len() > ENDPOINT_DELETE_KEYS {
        return Err(s3_error!(MalformedXML, "a batch delete names 1 to {ENDPOINT_DELETE_KEYS} keys"));
    }
    let mut results: Vec<(String, S3Result<()>)> = Vec::with_capacity(objects.len());
    let mut items = Vec::with_capacity(objects.len());
    let mut places = Vec::with_capacity(objects.len());
    for object in objects {
        let name = object.key.clone();
        let item = match bucket.info().role {
            Role::Destination => Err(destination(&input.bucket)),
            Role::Source => item(object),
        };
        match item {
            Ok(item) => {
                places.push(results.len());
                items.push(item);
                results.push((name, Ok(())));
            }
            Err(error) => results.push((name, Err(error))),
        }
    }
    if !items.is_empty() {
        let answers = bucket.delete_many(&items).await.map_err(from_store)?;
        for (place, answer) in places.into_iter().zip(answers) {
            results[place].1 = answer.map(|_| ()).map_err(from_store);
        }
    }
    Ok(S3Response::new(told(results, input.delete.quiet.unwrap_or(false))))
}

fn item(object: ObjectIdentifier) -> S3Result<DeleteItem> {
    if object.version_id.is_some() {
        return Err(not_implemented("deleting a version"));
    }
    if object.size.is_some() || object.last_modified_time.is_some() {
        return Err(not_implemented("deleting on condition of a size or a date"));
    }
    let if_match = object.e_tag.map(|tag| Tag(tag.into_value()));
    Ok(DeleteItem { key: object_key(object.key)?, if_match })
}

fn told(results: Vec<(String, S3Result<()>)>, quiet: bool) -> DeleteObjectsOutput {
    let mut deleted = Vec::new();
    let mut errors = Vec::new();
    for (key, result) in results {
        match result {
            Ok(()) if quiet => {}
            Ok(()) => deleted.push(DeletedObject { key: Some(key), ..DeletedObject::default() }),
            Err(error) => errors.push(told_error(key, &error)),
        }
    }
    DeleteObjectsOutput { deleted: Some(deleted), errors: Some(errors), request_charged: None }
}

fn told_error(key: String, error: &S3Error) -> Error {
    Error {
        code: Some(error.code().as_str().to_owned()),
        key: Some(key),
        message: error.message().map(str::to_owned),
        version_id: None,
    }
}
