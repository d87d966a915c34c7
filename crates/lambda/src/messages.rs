//! What an invocation brings: messages, each with the events in it. A batch from SQS has many, any other payload is one.
//! Pure.
//!
//! Each message is read for itself: one that cannot be read says nothing about the others.

use crate::failure::Failure;
use aws::parse::{self, BucketEvent, parse};
use serde_json::Value;

/// How the messages came, and so how they are answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// From a queue: every message is answered for itself.
    Sqs {
        /// The queue's ARN.
        queue: String,
    },
    /// Directly: the invocation succeeds or fails.
    Direct,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    /// The queue's name for it; empty when it came directly.
    pub(crate) id: String,
    /// As it came.
    pub(crate) body: String,
    /// How often it was delivered, this time included.
    pub(crate) attempts: u32,
    /// Its events, or why there are none.
    pub(crate) events: Result<Vec<BucketEvent>, String>,
}

/// Reads a payload. Fails only where no message could be answered for itself.
pub(crate) fn read(payload: &Value) -> Result<(Way, Vec<Message>), Failure> {
    let records = payload["Records"].as_array().map(Vec::as_slice).unwrap_or_default();
    let queued = records.iter().filter(|record| record["eventSource"] == "aws:sqs").count();
    if queued == 0 {
        return Ok((Way::Direct, vec![message(String::new(), payload.to_string(), 1)]));
    }
    let read = |record: &Value| {
        let id = record["messageId"].as_str().filter(|id| !id.is_empty() && record["eventSource"] == "aws:sqs")?;
        let attempts = record["attributes"]["ApproximateReceiveCount"].as_str().and_then(|n| n.parse().ok());
        let body = record["body"].as_str().unwrap_or_default();
        Some(message(id.to_owned(), body.to_owned(), attempts.unwrap_or(1)))
    };
    let messages: Option<Vec<Message>> = records.iter().map(read).collect();
    let messages = messages.ok_or_else(|| Failure::new("payload", "a record of the batch is no message of SQS"))?;
    let queue = records.iter().find_map(|record| record["eventSourceARN"].as_str()).unwrap_or_default().to_owned();
    Ok((Way::Sqs { queue }, messages))
}

fn message(id: String, body: String, attempts: u32) -> Message {
    let events = match parse(body.as_bytes()) {
        Ok(parse::Message::Events(events)) => Ok(events),
        Ok(parse::Message::TestEvent) => Ok(Vec::new()),
        Err(refused) => Err(refused.to_string()),
    };
    Message { id, body, attempts, events }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn one_message_that_cannot_be_read_says_nothing_about_the_others() {
        let good = include_str!("../../aws/tests/fixtures/notification-put.json");
        let record = |id: &str, body: &str, count: &str| {
            json!({ "messageId": id, "body": body, "eventSource": "aws:sqs", "eventSourceARN": "arn:aws:sqs:r:a:events",
                    "attributes": { "ApproximateReceiveCount": count } })
        };
        let test = r#"{"Service":"Amazon S3","Event":"s3:TestEvent"}"#;
        let batch =
            json!({ "Records": [record("1", good, "1"), record("2", "{ no json", "3"), record("3", test, "1")] });
        let (way, messages) = read(&batch).unwrap();
        assert_eq!(way, Way::Sqs { queue: "arn:aws:sqs:r:a:events".to_owned() });
        assert_eq!(messages[0].events.as_ref().unwrap().len(), 1);
        assert!(messages[1].events.as_ref().unwrap_err().starts_with("the message is no JSON"));
        assert_eq!((messages[1].attempts, messages[1].body.as_str()), (3, "{ no json"));
        assert_eq!(messages[2].events, Ok(Vec::new()));
    }

    #[test]
    fn what_does_not_come_from_a_queue_is_one_message() {
        for fixture in [
            include_str!("../../aws/tests/fixtures/eventbridge-created.json"),
            include_str!("../../aws/tests/fixtures/sns-to-lambda.json"),
            include_str!("../../aws/tests/fixtures/notification-put.json"),
        ] {
            let (way, messages) = read(&serde_json::from_str(fixture).unwrap()).unwrap();
            assert_eq!((way, messages.len()), (Way::Direct, 1));
            assert!(messages[0].events.as_ref().is_ok_and(|events| !events.is_empty()), "{messages:?}");
        }
    }

    #[test]
    fn a_message_without_a_name_cannot_be_answered() {
        let batch = json!({ "Records": [{ "eventSource": "aws:sqs", "body": "{}" }] });
        assert_eq!(read(&batch).unwrap_err().kind, "payload");
    }
}
