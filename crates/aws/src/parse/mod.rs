//! From the bytes of a message to object events. Pure: no I/O, no clock.
//!
//! Place: before every queue adapter and Lambda entry point. Reads S3 notifications (bare, wrapped by SNS or by SQS, as MinIO
//! and Ceph send them) and EventBridge events; [`parse`] finds out which. Field names and meanings: S3 user guide, "Event
//! message structure" and "EventBridge event message structure".
//!
//! Lenient where senders differ (unknown fields, unknown minor versions, letter case of sequencers), strict where a guess
//! could name the wrong object: a message is understood whole, or refused with the path of what is wrong with it. What is
//! refused will never be understood later, so its queue gives it up at once, with that reason. Laws: I6, V7.

mod eventbridge;
pub mod failures;
mod notification;
pub mod records;

use lifecycle::event::ObjectEvent;
use lifecycle::ids::ObjectKey;
use lifecycle::order::Order;
use lifecycle::time::UnixMs;
use serde_json::Value;

/// Which way an event came. Both carry sequencers, which differ in width and must not be compared with each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Channel {
    /// S3 notifications: to SQS, SNS, Lambda or a webhook.
    Notification,
    /// EventBridge.
    EventBridge,
}

/// One object event of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketEvent {
    /// Which way it came.
    pub channel: Channel,
    /// The bucket that it happened in.
    pub bucket: String,
    /// The region that says so, where it does.
    pub region: Option<String>,
    /// The event.
    pub event: ObjectEvent,
}

/// A message, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// What happened, in the order of the message. A message may hold events that concern no copy (a change of tags, a
    /// restore from an archive tier): they are left out, and a message of only such events is empty.
    Events(Vec<BucketEvent>),
    /// The note that S3 sends when a notification is set up: to be acknowledged, and nothing else.
    TestEvent,
}

/// Why a message is refused. Trying again cannot help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Longer than any message of the services that send them.
    #[error("the message has {0} bytes; at most {max} are read", max = crate::limits::MESSAGE_BYTES_MAX)]
    TooLong(usize),
    /// Truncated, or no JSON to begin with.
    #[error("the message is no JSON: {0}")]
    NotJson(String),
    /// JSON, but neither a notification nor an event of S3's.
    #[error("the message is no S3 event: {0}")]
    Foreign(String),
    /// A field that is needed is not there, or of another type.
    #[error("`{0}` is missing, or is no {1}")]
    Field(String, &'static str),
    /// A field's value cannot be right.
    #[error("`{0}` is wrong: {1}")]
    Value(String, String),
    /// Envelopes in envelopes, further than anybody nests them.
    #[error("the message is wrapped more than {max} times", max = crate::limits::ENVELOPES_MAX)]
    Wrapped,
}

/// Reads a message.
pub fn parse(message: &[u8]) -> Result<Message, ParseError> {
    parse_wrapped(message, 0)
}

fn parse_wrapped(message: &[u8], wraps: usize) -> Result<Message, ParseError> {
    if message.len() > crate::limits::MESSAGE_BYTES_MAX {
        return Err(ParseError::TooLong(message.len()));
    }
    if wraps > crate::limits::ENVELOPES_MAX {
        return Err(ParseError::Wrapped);
    }
    let value: Value = serde_json::from_slice(message).map_err(|error| ParseError::NotJson(error.to_string()))?;
    let root = Field::root(&value);
    if root.get("Event").and_then(|event| event.text()).is_ok_and(|event| event == "s3:TestEvent") {
        return Ok(Message::TestEvent);
    }
    if root.get("detail-type").is_ok() {
        return eventbridge::read(&root);
    }
    if root.get("Type").is_ok() {
        return sns(&root, wraps);
    }
    match root.get("Records") {
        Ok(records) => notification::read_records(&records, wraps),
        Err(_) => Err(ParseError::Foreign(
            "it has none of `Records` (a notification), `detail-type` (EventBridge) and `Type` (SNS)".to_owned(),
        )),
    }
}

/// The message of an SNS envelope: a notification or an EventBridge event as text.
fn sns(root: &Field<'_>, wraps: usize) -> Result<Message, ParseError> {
    match root.get("Type")?.text()? {
        "Notification" => parse_wrapped(root.get("Message")?.text()?.as_bytes(), wraps + 1),
        other => Err(ParseError::Foreign(format!("it is an SNS message of type `{other}`"))),
    }
}

/// A value of the message with the path that leads to it, for the message of an error.
struct Field<'a> {
    value: &'a Value,
    path: String,
}

impl<'a> Field<'a> {
    fn root(value: &'a Value) -> Field<'a> {
        Field { value, path: String::new() }
    }

    /// The field of an object; `null` counts as missing.
    fn get(&self, name: &str) -> Result<Field<'a>, ParseError> {
        let path = if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) };
        match self.value.get(name) {
            None | Some(Value::Null) => Err(ParseError::Field(path, "value")),
            Some(value) => Ok(Field { value, path }),
        }
    }

    fn items(&self) -> Result<impl Iterator<Item = Field<'a>> + '_, ParseError> {
        let items = self.value.as_array().ok_or_else(|| ParseError::Field(self.path.clone(), "list"))?;
        Ok(items.iter().enumerate().map(|(n, value)| Field { value, path: format!("{}[{n}]", self.path) }))
    }

    fn text(&self) -> Result<&'a str, ParseError> {
        self.value.as_str().ok_or_else(|| ParseError::Field(self.path.clone(), "text"))
    }

    /// A text that is there and not empty; some senders write an empty one where they have nothing.
    fn some_text(&self, name: &str) -> Option<&'a str> {
        self.get(name).ok()?.text().ok().filter(|text| !text.is_empty())
    }

    /// Sizes come as numbers; some senders quote them.
    fn size(&self) -> Result<u64, ParseError> {
        let quoted = || self.value.as_str().and_then(|text| text.parse().ok());
        self.value.as_u64().or_else(quoted).ok_or_else(|| ParseError::Field(self.path.clone(), "size"))
    }

    fn time(&self) -> Result<UnixMs, ParseError> {
        let text = self.text()?;
        let time: jiff::Timestamp = text.parse().map_err(|error: jiff::Error| self.wrong(error))?;
        Ok(UnixMs(time.as_millisecond()))
    }

    /// Seconds since 1970, whole or not; rounded down.
    fn seconds(&self) -> Result<UnixMs, ParseError> {
        let seconds = self.value.as_f64().filter(|seconds| (0.0..=253_402_300_799.0).contains(seconds));
        let seconds = seconds.ok_or_else(|| ParseError::Field(self.path.clone(), "time in seconds"))?;
        Ok(UnixMs(seconds as i64 * 1_000))
    }

    fn key(&self, decoded: String) -> Result<ObjectKey, ParseError> {
        ObjectKey::new(decoded).map_err(|error| self.wrong(error))
    }

    fn wrong(&self, why: impl std::fmt::Display) -> ParseError {
        ParseError::Value(self.path.clone(), why.to_string())
    }
}

/// A sequencer, where the object of an event has a usable one.
fn order(object: &Field<'_>) -> Option<Order> {
    Order::from_sequencer(object.some_text("sequencer")?)
}

/// A tag without the quotes that some senders leave on it.
fn bare_tag(tag: &str) -> &str {
    tag.trim_matches('"')
}
