//! A feed into a queue of SQS: a message for each line.
//!
//! A queue in FIFO order (its name ends in `.fifo`) gets them one after the other, in the order of their shard, which is the
//! message group, and drops by itself what comes twice within five minutes. Other queues have no order, and get them ten at a time.
//! A line that is larger than every queue takes is told without its image.

use crate::error_map::Call;
use crate::limits::{FEED_MESSAGE_BYTES, FEED_ORDERED_LINES, MESSAGES_PER_CALL};
use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::SendMessageBatchRequestEntry;
use engine::error::{ErrorKind, PortResult};
use engine::format::feed_line::without_image;
use engine::limits::FEED_LINES;
use engine::ports::feed::{FeedLine, FeedSink};
use engine::wrap::lazy::Lazy;
use std::borrow::Cow;

/// A queue that is told.
pub struct QueueFeed {
    client: Client,
    name: String,
    /// Known once the service has told where it is.
    url: Lazy<String>,
}

impl QueueFeed {
    /// A queue by its name. Nothing is asked yet.
    pub fn new(config: &SdkConfig, name: &str) -> QueueFeed {
        QueueFeed { client: Client::new(config), name: name.to_owned(), url: Lazy::new() }
    }

    fn call(&self, attempted: &'static str, action: &'static str) -> Call {
        Call::new(attempted, action, format!("sqs://{}", self.name))
    }

    /// Whether it keeps an order.
    fn is_fifo(&self) -> bool {
        self.name.ends_with(".fifo")
    }

    async fn find(&self) -> PortResult<String> {
        let call = self.call("open queue", "sqs:GetQueueUrl");
        let answer =
            self.client.get_queue_url().queue_name(&self.name).send().await.map_err(|error| call.sdk(error))?;
        answer.queue_url.ok_or_else(|| call.failed(ErrorKind::Missing))
    }

    async fn one(&self, url: &str, shard: &str, line: &FeedLine) -> PortResult<()> {
        let call = self.call("send to queue", "sqs:SendMessage");
        let request = self.client.send_message().queue_url(url).message_body(fitting(&line.text));
        let request = request.message_group_id(shard).message_deduplication_id(&line.id);
        request.send().await.map(drop).map_err(|error| call.sdk(error))
    }

    async fn batch(&self, url: &str, lines: Vec<Cow<'_, str>>) -> PortResult<()> {
        let call = self.call("send to queue", "sqs:SendMessage");
        let entries = lines.into_iter().enumerate().map(|(place, text)| {
            let entry = SendMessageBatchRequestEntry::builder().id(place.to_string()).message_body(text);
            entry.build().map_err(|error| super::unbuilt(&call, error))
        });
        let entries = entries.collect::<PortResult<Vec<_>>>()?;
        let request = self.client.send_message_batch().queue_url(url).set_entries(Some(entries));
        let answer = request.send().await.map_err(|error| call.sdk(error))?;
        match answer.failed.first() {
            None => Ok(()),
            Some(failed) => Err(call.item(&failed.code, failed.message.as_deref().unwrap_or_default())),
        }
    }
}

#[async_trait]
impl FeedSink for QueueFeed {
    async fn tell(&self, shard: &str, lines: &[FeedLine]) -> PortResult<()> {
        let url = self.url.get(|| self.find()).await?;
        if self.is_fifo() {
            for line in lines {
                self.one(&url, shard, line).await?;
            }
            return Ok(());
        }
        let (mut batch, mut bytes) = (Vec::new(), 0);
        for text in lines.iter().map(|line| fitting(&line.text)) {
            if batch.len() == MESSAGES_PER_CALL || !batch.is_empty() && bytes + text.len() > FEED_MESSAGE_BYTES {
                self.batch(&url, std::mem::take(&mut batch)).await?;
                bytes = 0;
            }
            bytes += text.len();
            batch.push(text);
        }
        if batch.is_empty() { Ok(()) } else { self.batch(&url, batch).await }
    }

    /// One after the other takes its time, and who tells renews its lease in between.
    fn at_once(&self) -> usize {
        if self.is_fifo() { FEED_ORDERED_LINES } else { FEED_LINES }
    }
}

/// The line as a queue takes it.
fn fitting(text: &str) -> Cow<'_, str> {
    let smaller = if text.len() > FEED_MESSAGE_BYTES { without_image(text) } else { None };
    smaller.map_or(Cow::Borrowed(text), Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_too_large_for_a_queue_is_told_without_its_image() {
        let line = |bytes: usize| format!(r#"{{"id":"1","image":{{"x":{{"S":"{}"}}}}}}"#, "x".repeat(bytes));
        assert_eq!(fitting(&line(10)), line(10));
        assert_eq!(fitting(&line(FEED_MESSAGE_BYTES)), r#"{"id":"1","image_left_out":true}"#);
    }
}
