//! What becomes of messages that nobody can handle: they go to the queue that the queue's redrive policy names, as they
//! came, with the reason as attributes of the message.
//!
//! Sent first, deleted afterwards: a crash between leaves the message in both queues, never in none (I8). Without such a
//! queue it stays where it is, hidden for a while, and the error says what to set up.

use super::Inner;
use super::held::Message;
use crate::error_map::Call;
use crate::limits::{REASON_BYTES_MAX, STUCK_SECONDS};
use aws_config::SdkConfig;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::{MessageAttributeValue, QueueAttributeName};
use engine::error::{ErrorKind, PortResult};
use engine::limits::OUTAGE_ATTEMPTS;
use std::collections::HashMap;

/// The attribute that says which kind of reason it was.
pub(super) const ATTRIBUTE_REASON: &str = "afterimage-reason";
/// The attribute with the reason in words.
pub(super) const ATTRIBUTE_WHY: &str = "afterimage-why";
/// The attribute that says how often it was delivered.
pub(super) const ATTRIBUTE_ATTEMPTS: &str = "afterimage-attempts";

/// Why a message is a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It is no message with events of S3.
    Unreadable,
    /// Its events could not be handled.
    GivenUp,
    /// It holds deleted records that could not be archived.
    NotArchived,
}

impl Reason {
    fn code(self) -> &'static str {
        match self {
            Reason::Unreadable => "unreadable",
            Reason::GivenUp => "given-up",
            Reason::NotArchived => "not-archived",
        }
    }
}

/// Attributes of a queue, of those asked for.
pub(super) async fn attributes(
    client: &Client,
    name: &str,
    url: &str,
    wanted: &[QueueAttributeName],
) -> PortResult<HashMap<QueueAttributeName, String>> {
    let call = Call::new("read attributes of queue", "sqs:GetQueueAttributes", format!("sqs://{name}"));
    let request = client.get_queue_attributes().queue_url(url).set_attribute_names(Some(wanted.to_vec()));
    let answer = request.send().await.map_err(|error| call.sdk(error))?;
    Ok(answer.attributes.unwrap_or_default())
}

/// The address of the queue for dead letters, if there is one.
pub(super) async fn find(client: &Client, name: &str, policy: Option<&String>) -> PortResult<Option<String>> {
    let Some(policy) = policy else { return Ok(None) };
    let call = Call::new("find dead letters of queue", "sqs:GetQueueUrl", format!("sqs://{name}"));
    let wrong = || call.failed(ErrorKind::Invalid(format!("its redrive policy is not understood: {policy}")));
    let policy: serde_json::Value = serde_json::from_str(policy).map_err(|error| wrong().because(error))?;
    let most = &policy["maxReceiveCount"];
    let most = most.as_u64().or_else(|| most.as_str()?.parse().ok());
    if most.is_some_and(|most| most < u64::from(OUTAGE_ATTEMPTS)) {
        tracing::warn!(
            "sqs://{name}: its maxReceiveCount sends events to the dead letters before an outage of a day is over, without a \
             reason: set it to 1000"
        );
    }
    // arn:aws:sqs:REGION:ACCOUNT:NAME
    let arn: Vec<&str> = policy["deadLetterTargetArn"].as_str().ok_or_else(wrong)?.split(':').collect();
    let [.., account, dead] = arn[..] else { return Err(wrong()) };
    let request = client.get_queue_url().queue_name(dead).queue_owner_aws_account_id(account);
    let answer = request.send().await.map_err(|error| call.sdk(error))?;
    Ok(answer.queue_url)
}

impl Inner {
    pub(super) async fn bury(&self, message: &Message, reason: Reason, why: &str) -> PortResult<()> {
        let call = self.call("give message up", "sqs:SendMessage");
        let Some(dead_url) = &self.dead_url else {
            self.hide(&message.handle, STUCK_SECONDS).await?;
            return Err(call.failed(ErrorKind::Invalid(format!(
                "message {} stays in the queue, which has no dead letters: give the queue a redrive policy ({}: {why})",
                message.id,
                reason.code()
            ))));
        };
        let letter = Letter { body: &message.body, attempts: message.attempts, reason, why };
        send(&self.client, &call, dead_url, letter).await?;
        self.delete_batch(vec![message.handle.clone()]).await
    }
}

/// A message to be, with what is said about it.
struct Letter<'a> {
    body: &'a str,
    attempts: u32,
    reason: Reason,
    why: &'a str,
}

async fn send(client: &Client, call: &Call, dead_url: &str, letter: Letter<'_>) -> PortResult<()> {
    let mut request = client.send_message().queue_url(dead_url).message_body(letter.body);
    for (name, kind, value) in [
        (ATTRIBUTE_REASON, "String", letter.reason.code().to_owned()),
        (ATTRIBUTE_WHY, "String", printable(letter.why)),
        (ATTRIBUTE_ATTEMPTS, "Number", letter.attempts.to_string()),
    ] {
        let value = MessageAttributeValue::builder().data_type(kind).string_value(value).build();
        request = request.message_attributes(name, value.map_err(|error| super::unbuilt(call, error))?);
    }
    request.send().await.map(drop).map_err(|error| call.sdk(error))
}

/// The dead letters of a queue that somebody else reads and answers for us: Lambda's poller.
pub struct DeadLetterQueue {
    client: Client,
    name: String,
    url: String,
}

impl DeadLetterQueue {
    /// Those of the queue of that name; `None`: it has no redrive policy.
    pub async fn of_queue(config: &SdkConfig, name: &str) -> PortResult<Option<DeadLetterQueue>> {
        let client = Client::new(config);
        let call = Call::new("open queue", "sqs:GetQueueUrl", format!("sqs://{name}"));
        let answer = client.get_queue_url().queue_name(name).send().await.map_err(|error| call.sdk(error))?;
        let url = answer.queue_url.ok_or_else(|| call.failed(ErrorKind::Missing))?;
        let found = attributes(&client, name, &url, &[QueueAttributeName::RedrivePolicy]).await?;
        let dead_url = find(&client, name, found.get(&QueueAttributeName::RedrivePolicy)).await?;
        Ok(dead_url.map(|url| DeadLetterQueue { client, name: name.to_owned(), url }))
    }

    /// Sends a message there, as it came, with the reason. Its sender deletes it afterwards, by saying that it is done.
    pub async fn bury(&self, body: &str, attempts: u32, reason: Reason, why: &str) -> PortResult<()> {
        let call = Call::new("give message up", "sqs:SendMessage", format!("sqs://{}", self.name));
        send(&self.client, &call, &self.url, Letter { body, attempts, reason, why }).await
    }
}

/// What an attribute may hold: no control characters, not empty, not too long.
fn printable(why: &str) -> String {
    let mut text: String = why.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let end = (0..=REASON_BYTES_MAX.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text.truncate(end.unwrap_or(0));
    if text.is_empty() { "no reason was given".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_fits_into_an_attribute() {
        assert_eq!(printable("a\nb\u{0}c"), "a b c");
        assert_eq!(printable(""), "no reason was given");
        let long = printable(&"ä".repeat(2_000));
        assert_eq!(long.len(), REASON_BYTES_MAX);
    }
}
