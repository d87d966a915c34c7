//! Where deletions are told, as lines of JSON: a file, a webhook, a queue.
//!
//! Whoever calls tells a line again until it was taken, so that a sink may be told one twice, and never misses one.

use crate::error::PortResult;
use crate::ports::webhook::{Message, Webhook};
use async_trait::async_trait;
use std::sync::Arc;

/// A line to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedLine {
    /// The same whenever this deletion is told.
    pub id: String,
    /// The line, without its end.
    pub text: String,
}

/// Takes lines.
#[async_trait]
pub trait FeedSink: Send + Sync {
    /// Tells some lines of one shard, in their order. Once it is done they are the other side's: durable in a file, answered by
    /// a webhook, in a queue. After an error some of them may have been taken; all are told again.
    async fn tell(&self, shard: &str, lines: &[FeedLine]) -> PortResult<()>;
}

/// Lines as the body of a webhook's requests.
pub struct ToWebhook(pub Arc<dyn Webhook>);

#[async_trait]
impl FeedSink for ToWebhook {
    async fn tell(&self, _shard: &str, lines: &[FeedLine]) -> PortResult<()> {
        let (Some(first), Some(last)) = (lines.first(), lines.last()) else { return Ok(()) };
        // The same lines are the same message when they are told again.
        let id = format!("{}.{}.{}", first.id, last.id, lines.len());
        let body: String = lines.iter().flat_map(|line| [line.text.as_str(), "\n"]).collect();
        let message = Message { id, content_type: "application/x-ndjson", body: body.into() };
        self.0.post(&message).await
    }
}
