//! What the endpoint asks the program around it: it serves objects, but knows nothing of policies.

use crate::store::BucketName;
use async_trait::async_trait;
use engine::error::PortResult;

/// Ending of the names under which the copies of a bucket are kept; clients cannot create such buckets.
pub const COPIES_SUFFIX: &str = "-copies";

/// Questions of the endpoint to the program that wires policies. Called again after a crash or a failure: safe to repeat.
#[async_trait]
pub trait EndpointHooks: Send + Sync {
    /// A client has created this bucket, or asked for one that is there already. When this returns, its default policy
    /// (with the destination `<bucket>-copies`) is active; the client is answered after that. An error is told to the
    /// client, who may ask again.
    async fn bucket_created(&self, bucket: &BucketName) -> PortResult<()>;

    /// A client wants to delete this empty source bucket: `Some` says why it must stay (its events are not handled yet).
    async fn keep_bucket(&self, bucket: &BucketName) -> PortResult<Option<String>>;
}

/// Hooks of an endpoint without policies, for tests and examples.
#[derive(Clone, Copy, Debug)]
pub struct NoHooks;

#[async_trait]
impl EndpointHooks for NoHooks {
    async fn bucket_created(&self, _bucket: &BucketName) -> PortResult<()> {
        Ok(())
    }

    async fn keep_bucket(&self, _bucket: &BucketName) -> PortResult<Option<String>> {
        Ok(None)
    }
}
