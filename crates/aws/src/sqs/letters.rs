//! The dead letters of a queue, for people: looked at, put back, or forgotten.
//!
//! SQS lists nothing: to look is to receive. What is looked at is hidden meanwhile and let go at the end; a process that dies
//! in between leaves it hidden for [`LETTERS_HIDDEN_SECONDS`]. Putting back sends first and deletes afterwards, so that a crash between leaves
//! the message twice rather than nowhere (I8, I6).

use super::dead::{ATTRIBUTE_ATTEMPTS, ATTRIBUTE_REASON, ATTRIBUTE_WHY};
use super::{Holds, Inner, SqsQueue, batches, number, unbuilt};
use crate::limits::{ANSWERS_IN_FLIGHT, LETTERS_HIDDEN_SECONDS, MESSAGES_PER_CALL};
use crate::parse::{Message, parse};
use aws_sdk_sqs::types::{ChangeMessageVisibilityBatchRequestEntry, Message as SqsMessage, MessageSystemAttributeName};
use engine::error::{ErrorKind, PortResult};
use futures_util::{StreamExt, stream};
use lifecycle::event::ObjectEvent;
use lifecycle::time::UnixMs;
use std::collections::HashSet;

/// One dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueLetter {
    /// Its number: the same whenever it is looked at.
    pub id: u64,
    /// SQS's name for it.
    pub message: String,
    /// What it tells, with the buckets as the policies' sources name them; empty: it cannot be read.
    pub events: Vec<(String, ObjectEvent)>,
    /// How often it was tried.
    pub attempts: u32,
    /// Why it is here.
    pub why: String,
    /// When it came here.
    pub died_at: UnixMs,
    body: String,
    handle: String,
}

impl QueueLetter {
    /// As it was sent.
    pub fn body(&self) -> &str {
        &self.body
    }
}

impl SqsQueue {
    /// Looks at up to so many dead letters, oldest first, and hides them from others; [`SqsQueue::let_go`] ends that.
    pub async fn look_at_letters(&self, limit: usize) -> PortResult<Vec<QueueLetter>> {
        let queue = self.opened().await?;
        let Some(url) = queue.letters_url() else { return Ok(Vec::new()) };
        let holds = queue.settings.holds;
        let (mut letters, mut seen) = (Vec::new(), HashSet::new());
        while letters.len() < limit {
            let messages = queue.receive_letters(url).await?;
            let new: Vec<QueueLetter> = messages
                .into_iter()
                .filter_map(|message| letter(message, holds))
                .filter(|letter| seen.insert(letter.id))
                .collect();
            if new.is_empty() {
                break;
            }
            letters.extend(new);
        }
        letters.sort_by_key(|letter| (letter.died_at, letter.id));
        Ok(letters)
    }

    /// Lets letters be received again, by anyone.
    pub async fn let_go(&self, letters: &[QueueLetter]) -> PortResult<()> {
        let queue = self.opened().await?;
        let Some(url) = queue.letters_url() else { return Ok(()) };
        let handles: Vec<String> = letters.iter().map(|letter| letter.handle.clone()).collect();
        let freed = stream::iter(batches(handles)).map(|batch| queue.free_letters(url, batch));
        freed.buffer_unordered(ANSWERS_IN_FLIGHT).collect::<Vec<PortResult<()>>>().await.into_iter().collect()
    }

    /// Puts a letter back into the queue that it came from, with no attempts counted.
    pub async fn put_letter_back(&self, letter: &QueueLetter) -> PortResult<()> {
        let queue = self.opened().await?;
        let call = queue.call("put dead letter back", "sqs:SendMessage");
        let request = queue.client.send_message().queue_url(&queue.url).message_body(&letter.body);
        request.send().await.map_err(|error| call.sdk(error))?;
        self.forget_letter(letter).await
    }

    /// Deletes a letter.
    pub async fn forget_letter(&self, letter: &QueueLetter) -> PortResult<()> {
        let queue = self.opened().await?;
        let call = queue.call("delete dead letter", "sqs:DeleteMessage");
        let url = queue.letters_url().ok_or_else(|| call.failed(ErrorKind::Missing))?;
        let request = queue.client.delete_message().queue_url(url).receipt_handle(&letter.handle);
        request.send().await.map(drop).map_err(|error| call.sdk(error))
    }
}

impl Inner {
    async fn receive_letters(&self, url: &str) -> PortResult<Vec<SqsMessage>> {
        // Waiting, however short, asks all of the queue's servers.
        let request = self.client.receive_message().queue_url(url).wait_time_seconds(1);
        let request = request
            .max_number_of_messages(i32::try_from(MESSAGES_PER_CALL).unwrap_or(1))
            .visibility_timeout(LETTERS_HIDDEN_SECONDS)
            .message_system_attribute_names(MessageSystemAttributeName::SentTimestamp)
            .message_attribute_names("All");
        let call = self.call("look at dead letters", "sqs:ReceiveMessage");
        Ok(request.send().await.map_err(|error| call.sdk(error))?.messages.unwrap_or_default())
    }

    async fn free_letters(&self, url: &str, handles: Vec<String>) -> PortResult<()> {
        let call = self.call("let dead letters go", "sqs:ChangeMessageVisibility");
        let mut request = self.client.change_message_visibility_batch().queue_url(url);
        for (place, handle) in handles.into_iter().enumerate() {
            let entry = ChangeMessageVisibilityBatchRequestEntry::builder().id(place.to_string());
            let entry = entry.receipt_handle(handle).visibility_timeout(0).build();
            request = request.entries(entry.map_err(|error| unbuilt(&call, error))?);
        }
        // One that fails is gone, or free in a while by itself.
        request.send().await.map(drop).map_err(|error| call.sdk(error))
    }
}

fn letter(received: SqsMessage, holds: Holds) -> Option<QueueLetter> {
    let died_at = number(&received, &MessageSystemAttributeName::SentTimestamp).unwrap_or(0);
    let told = |name: &str| {
        let attribute = received.message_attributes.as_ref()?.get(name)?;
        attribute.string_value().map(str::to_owned)
    };
    let why = match (told(ATTRIBUTE_REASON), told(ATTRIBUTE_WHY)) {
        (Some(reason), Some(why)) => format!("{reason}: {why}"),
        _ => match holds {
            Holds::Events => "SQS moved it here by itself: the queue's maxReceiveCount is too low",
            Holds::Failures => "Lambda gave it up",
        }
        .to_owned(),
    };
    let attempts = told(ATTRIBUTE_ATTEMPTS).and_then(|count| count.parse().ok()).unwrap_or(0);
    let (message, handle) = (received.message_id?, received.receipt_handle?);
    let body = received.body.unwrap_or_default();
    let events = match parse(body.as_bytes()) {
        Ok(Message::Events(events)) => {
            events.into_iter().map(|found| (format!("s3://{}", found.bucket), found.event)).collect()
        }
        // What cannot be read tells nothing; `why` says so.
        _ => Vec::new(),
    };
    let died_at = UnixMs(i64::try_from(died_at).unwrap_or(i64::MAX));
    Some(QueueLetter { id: short_number(&message), message, events, attempts, why, died_at, body, handle })
}

/// A number for people from SQS's name, 48 bits of it: none of those that a spool counts from 1, in practice.
fn short_number(message: &str) -> u64 {
    let digits = message.chars().filter_map(|c| c.to_digit(16)).take(12);
    digits.fold(0, |number, digit| number << 4 | u64::from(digit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_that_sqs_moved_by_itself_says_so_and_one_that_cannot_be_read_has_no_events() {
        let received = SqsMessage::builder().message_id("0000000a-0001-4000-8000-000000000000").receipt_handle("h");
        let found = letter(received.body("{ no json").build(), Holds::Events).unwrap();
        assert_eq!((found.id, found.events.len()), (0xa_0001, 0));
        assert!(found.why.contains("maxReceiveCount"), "{}", found.why);
    }
}
