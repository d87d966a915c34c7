//! Buckets: a new one is protected before its creator is answered.

use super::conditions::timestamp;
use super::faults::{from_port, from_store, not_implemented};
use super::hooks::{COPIES_SUFFIX, EndpointHooks};
use super::limits::ENDPOINT_PAGE;
use super::service::Service;
use super::{REGION, owner};
use crate::store::{BucketName, BucketSpec, Role, Store, StoreError};
use s3s::dto::{
    Bucket, CreateBucketInput, CreateBucketOutput, DeleteBucketOutput, HeadBucketOutput, ListBucketsInput,
    ListBucketsOutput,
};
use s3s::{S3Response, S3Result, s3_error};
use std::sync::Arc;

/// Longest bucket name in S3.
const NAME_BYTES_MAX: usize = 63;

/// All buckets, destinations too, by name.
pub(super) fn list(service: &Service, input: ListBucketsInput) -> S3Result<S3Response<ListBucketsOutput>> {
    let limit = match input.max_buckets {
        None => usize::MAX,
        Some(limit) => usize::try_from(limit)
            .ok()
            .filter(|limit| (1..=10_000).contains(limit))
            .ok_or_else(|| s3_error!(InvalidArgument, "max-buckets lies between 1 and 10,000"))?,
    };
    let prefix = input.prefix.clone().unwrap_or_default();
    let after = input.continuation_token.unwrap_or_default();
    let mut infos = service.store.buckets();
    infos.retain(|info| info.name.as_str().starts_with(&prefix) && info.name.as_str() > after.as_str());
    let more = infos.len() > limit;
    infos.truncate(limit);
    let token = infos.last().filter(|_| more).map(|info| info.name.to_string());
    let shown = infos.into_iter().map(|info| Bucket {
        bucket_region: None,
        creation_date: Some(timestamp(info.created_at)),
        name: Some(info.name.to_string()),
    });
    Ok(S3Response::new(ListBucketsOutput {
        buckets: Some(shown.collect()),
        continuation_token: token,
        owner: Some(owner()),
        prefix: input.prefix,
    }))
}

/// Whether it is there.
pub(super) fn head(service: &Service, bucket: &str) -> S3Result<S3Response<HeadBucketOutput>> {
    service.bucket(bucket)?;
    Ok(S3Response::new(HeadBucketOutput { bucket_region: Some(REGION.to_owned()), ..HeadBucketOutput::default() }))
}

/// Makes a bucket and waits until its default policy is active. Asking again for one's own bucket is no error (as in
/// S3's oldest region), and repairs what a crash between the two left undone.
pub(super) async fn create(service: &Service, input: CreateBucketInput) -> S3Result<S3Response<CreateBucketOutput>> {
    let configuration = input.create_bucket_configuration.unwrap_or_default();
    if configuration.bucket.is_some() || configuration.location.is_some() {
        return Err(not_implemented("a directory bucket"));
    }
    let name = BucketName::new(input.bucket).map_err(from_store)?;
    if name.as_str().ends_with(COPIES_SUFFIX) {
        return Err(s3_error!(
            InvalidBucketName,
            "names that end in `{COPIES_SUFFIX}` are kept for the copies of the bucket whose name stands before it"
        ));
    }
    if name.as_str().len() + COPIES_SUFFIX.len() > NAME_BYTES_MAX {
        return Err(s3_error!(
            InvalidBucketName,
            "the name is too long: `{name}{COPIES_SUFFIX}`, where its copies are to be kept, has more than {NAME_BYTES_MAX} bytes"
        ));
    }
    let location = format!("/{name}");
    // On its own: a client that hangs up must not leave a bucket without its policy.
    let made = tokio::spawn(create_protected(Arc::clone(&service.store), Arc::clone(&service.hooks), name));
    made.await.map_err(|error| s3_error!(InternalError, "creating the bucket ended early: {error}"))??;
    Ok(S3Response::new(CreateBucketOutput { location: Some(location) }))
}

async fn create_protected(store: Arc<Store>, hooks: Arc<dyn EndpointHooks>, name: BucketName) -> S3Result<()> {
    match store.create_bucket(BucketSpec { name: name.clone(), role: Role::Source, root: None }).await {
        Ok(_) => {}
        Err(StoreError::BucketExists(_)) => {
            if store.bucket(name.as_str()).map_err(from_store)?.info().role == Role::Destination {
                return Err(s3_error!(BucketAlreadyExists, "`{name}` is there already and holds copies"));
            }
        }
        Err(error) => return Err(from_store(error)),
    }
    hooks.bucket_created(&name).await.map_err(|error| from_port(&error))
}

/// Deletes an empty source bucket (destinations are refused at the gate).
pub(super) async fn delete(service: &Service, bucket: &str) -> S3Result<S3Response<DeleteBucketOutput>> {
    let bucket = service.bucket(bucket)?;
    let name = &bucket.info().name;
    if let Some(why) = service.hooks.keep_bucket(name).await.map_err(|error| from_port(&error))? {
        return Err(s3_error!(OperationAborted, "`{name}` cannot be deleted now: {why}"));
    }
    service.store.delete_bucket(name).await.map_err(from_store)?;
    Ok(S3Response::new(DeleteBucketOutput::default()))
}

/// How many entries of a page are asked for; S3 gives at most 1,000.
pub(super) fn page_limit(asked: Option<i32>, what: &str) -> S3Result<usize> {
    match asked {
        None => Ok(ENDPOINT_PAGE),
        Some(asked) => usize::try_from(asked)
            .map(|asked| asked.min(ENDPOINT_PAGE))
            .map_err(|_| s3_error!(InvalidArgument, "{what} must not be negative")),
    }
}
