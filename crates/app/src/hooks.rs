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
        if self.instance.config.policies.iter().any(|policy| policy.is_source(bucket.as_str())) {
            return Ok(Some("the configuration names it".to_owned()));
        }
        Ok(match self.instance.store.spool().waits_for(bucket.as_str()).await? {
            Some(false) => None,
            Some(true) => Some("its last events are not handled yet; try again in a moment".to_owned()),
            None => Some("too many events wait to tell whether any are its own; try again in a moment".to_owned()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instance::tests::opened;
    use engine::memory::clock::MemoryClock;
    use lifecycle::event::{Happened, ObjectEvent};
    use lifecycle::ids::ObjectKey;
    use lifecycle::time::UnixMs;

    #[tokio::test]
    async fn a_bucket_may_go_while_only_events_of_others_wait() {
        let (_root, instance) = opened(Arc::new(MemoryClock::at(UnixMs(1_795_245_972_000)))).await;
        let hooks = Hooks { instance, tasks: TaskTracker::new(), cancel: CancellationToken::new() };
        let photos = BucketName::new("photos").unwrap();
        for (bucket, stays) in [("others", false), ("photos", true)] {
            let key = ObjectKey::new("a").unwrap();
            let event = ObjectEvent { key, time: UnixMs(1), order: None, what: Happened::Removed };
            hooks.instance.store.spool().push(bucket, vec![event]).await.unwrap();
            assert_eq!(hooks.keep_bucket(&photos).await.unwrap().is_some(), stays, "events of {bucket} wait");
        }
    }
}
