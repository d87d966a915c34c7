//! Where deletions are told, as lines of JSON: a file, a webhook, a queue.
//!
//! Whoever calls tells a line again until it was taken, so that a sink may be told one twice, and never misses one.

use crate::error::PortResult;
use crate::limits::FEED_LINES;
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
    /// a webhook, in a queue. After an error some of them may have been taken; all are told again. `Invalid`: one of them at
    /// least is refused for good.
    async fn tell(&self, shard: &str, lines: &[FeedLine]) -> PortResult<()>;

    /// How many lines it is told at once, at most.
    fn at_once(&self) -> usize {
        FEED_LINES
    }
}

/// Lines as the body of a webhook's requests.
pub struct ToWebhook(pub Arc<dyn Webhook>);

#[async_trait]
impl FeedSink for ToWebhook {
    async fn tell(&self, _shard: &str, lines: &[FeedLine]) -> PortResult<()> {
        let (Some(first), Some(last)) = (lines.first(), lines.last()) else { return Ok(()) };
        // The same lines are the same message when they are told again. Without a dot: it parts what is signed.
        let id = format!("{}_{}_{}", first.id, last.id, lines.len());
        let body: String = lines.iter().flat_map(|line| [line.text.as_str(), "\n"]).collect();
        let message = Message { id, content_type: "application/x-ndjson", body: body.into() };
        self.0.post(&message).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[derive(Default)]
    struct Posted(Mutex<Vec<Message>>);

    #[async_trait]
    impl Webhook for Posted {
        async fn post(&self, message: &Message) -> PortResult<()> {
            self.0.lock().unwrap().push(message.clone());
            Ok(())
        }
    }

    /// What is signed is id, time and body, joined by dots.
    #[tokio::test]
    async fn the_id_of_a_message_has_no_dot_and_is_the_same_when_it_comes_again() {
        let posted = Arc::new(Posted::default());
        let lines = ["1-ab", "2-cd", "3-ef"].map(|id| FeedLine { id: id.to_owned(), text: "{}".to_owned() });
        for _ in 0..2 {
            ToWebhook(posted.clone()).tell("shard", &lines).await.unwrap();
        }
        let ids: Vec<String> = posted.0.lock().unwrap().iter().map(|message| message.id.clone()).collect();
        assert_eq!(ids, ["1-ab_3-ef_3"; 2]);
    }
}
