//! What the endpoint asks: a bucket that a client makes is protected by the default policy before the client is answered.
//!
//! Nothing is stored for that: the bucket itself is the record. At every start each source bucket that no configured
//! policy names gets the default policy again, so a crash between bucket and policy is repaired by the next start.

use crate::instance::Instance;
use crate::schedule;
use crate::wiring;
use async_trait::async_trait;
use engine::error::{ErrorKind, PortError, PortResult};
use local::endpoint::EndpointHooks;
use local::store::BucketName;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The daemon, as the endpoint sees it.
pub(crate) struct Hooks {
    /// The folder at work.
    pub(crate) instance: Arc<Instance>,
    /// Where a new policy's schedules run.
    pub(crate) tasks: TaskTracker,
    /// Ends them.
    pub(crate) cancel: CancellationToken,
}

#[async_trait]
impl EndpointHooks for Hooks {
    async fn bucket_created(&self, bucket: &BucketName) -> PortResult<()> {
        let refused = |why: String| PortError::new("protect bucket", bucket, ErrorKind::Invalid(why));
        let Some(name) = wiring::protect(&self.instance, bucket).await.map_err(|failure| refused(failure.chain()))?
        else {
            return Ok(());
        };
        schedule::start(&self.instance, &name, &self.tasks, &self.cancel);
        Ok(())
    }

    async fn keep_bucket(&self, bucket: &BucketName) -> PortResult<Option<String>> {
        if self.instance.config.policies.iter().any(|policy| policy.source.bucket == bucket.as_str()) {
            return Ok(Some("the configuration names it".to_owned()));
        }
        let waiting = self.instance.queue.backlog().await?.waiting;
        Ok((waiting > 0).then(|| format!("{waiting} events are not handled yet; try again in a moment")))
    }
}
