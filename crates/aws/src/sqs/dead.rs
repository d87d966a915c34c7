//! What becomes of messages that nobody can handle: they go to the queue that the queue's redrive policy names, as they
//! came, with the reason as attributes of the message.
//!
//! Sent first, deleted afterwards: a crash between leaves the message in both queues, never in none (I8). Without such a
//! queue it stays where it is, hidden for a while, and the error says what to set up.

use super::Inner;
use super::held::Message;
use crate::error_map::Call;
use crate::limits::{REASON_BYTES_MAX, STUCK_SECONDS};
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
pub(super) enum Reason {
    /// It is no message with events of S3.
    Unreadable,
    /// Its events could not be handled.
    GivenUp,
}

impl Reason {
    fn code(self) -> &'static str {
        match self {
            Reason::Unreadable => "unreadable",
            Reason::GivenUp => "given-up",
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
        let mut request = self.client.send_message().queue_url(dead_url).message_body(&message.body);
        for (name, kind, value) in [
            (ATTRIBUTE_REASON, "String", reason.code().to_owned()),
            (ATTRIBUTE_WHY, "String", printable(why)),
            (ATTRIBUTE_ATTEMPTS, "Number", message.attempts.to_string()),
        ] {
            let value = MessageAttributeValue::builder().data_type(kind).string_value(value).build();
            request = request.message_attributes(name, value.map_err(|error| super::unbuilt(&call, error))?);
        }
        request.send().await.map_err(|error| call.sdk(error))?;
        self.delete_batch(vec![message.handle.clone()]).await
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
