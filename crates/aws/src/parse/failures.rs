//! From a message about records that could not be archived to the records, or to where they stand.
//!
//! Lambda's own message (developer guide, "Retain discarded batches for a DynamoDB event source"), which a function's event
//! source mapping sends to its destination for failures, holds only a place: `DDBStreamBatchInfo` with the stream's ARN, the
//! shard, and the first and last sequence number. What the function makes of it, before the stream forgets what stood there,
//! holds the records whole: an event of the stream, as the function itself takes it. Wrapped by SNS or not. Pure.

use super::{Field, ParseError};
use engine::flows::resolve::Stretch;
use engine::ports::streams::ShardId;
use lifecycle::archive::Sequence;
use lifecycle::time::UnixMs;
use serde_json::{Value, json};

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FailedRecords {
    /// The records themselves, in the JSON of streams.
    Whole(Vec<Value>),
    /// Where they stand.
    Place(Box<Place>),
}

/// Where records stand that Lambda gave up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The stream's ARN.
    pub stream: String,
    /// Which of its records.
    pub stretch: Stretch,
    /// When the first of them happened, where that is said.
    pub at: Option<UnixMs>,
    /// How many there are, where that is said.
    pub records: Option<u64>,
    /// Why Lambda gave them up, in its word: `RetryAttemptsExhausted`, `RecordAgeExceeded`.
    pub condition: String,
}

impl FailedRecords {
    /// The stream that they came from; of whole records, the first one's.
    pub fn stream(&self) -> Option<&str> {
        match self {
            FailedRecords::Whole(records) => records.first()?["eventSourceARN"].as_str(),
            FailedRecords::Place(place) => Some(&place.stream),
        }
    }
}

/// Reads a message.
pub fn read_failed(message: &[u8]) -> Result<FailedRecords, ParseError> {
    let value: Value = serde_json::from_slice(message).map_err(|error| ParseError::NotJson(error.to_string()))?;
    let root = Field::root(&value);
    if root.get("Type").and_then(|kind| kind.text()).is_ok_and(|kind| kind == "Notification") {
        let inner = root.get("Message")?.text()?;
        let value: Value = serde_json::from_str(inner).map_err(|error| ParseError::NotJson(error.to_string()))?;
        return failed(&Field::root(&value));
    }
    failed(&root)
}

/// The message that holds one record whole.
pub fn whole(record: &Value) -> String {
    json!({ "Records": [record] }).to_string()
}

/// The message that says where one record of those stands: for one that is too large to be sent whole.
pub fn place_of(place: &Place, sequence: &Sequence) -> String {
    let at = place.at.map(|at| at.to_string());
    json!({
        "requestContext": { "condition": place.condition },
        "DDBStreamBatchInfo": {
            "streamArn": place.stream, "shardId": place.stretch.shard.0, "batchSize": 1,
            "startSequenceNumber": sequence.as_str(), "endSequenceNumber": sequence.as_str(),
            "approximateArrivalOfFirstRecord": at,
        },
    })
    .to_string()
}

fn failed(root: &Field<'_>) -> Result<FailedRecords, ParseError> {
    if let Ok(records) = root.get("Records") {
        let of_stream = |record: &Field<'_>| record.some_text("eventSource") == Some("aws:dynamodb");
        return match records.items()?.find(|record| !of_stream(record)) {
            Some(record) => Err(record.wrong("it is no record of a table's stream")),
            // Of no table, so that nobody could ever do anything with it.
            None if records.items()?.next().is_none() => Err(records.wrong("no record is in it")),
            None => Ok(FailedRecords::Whole(records.value.as_array().cloned().unwrap_or_default())),
        };
    }
    let Ok(batch) = root.get("DDBStreamBatchInfo") else {
        let what = "it has neither `DDBStreamBatchInfo` (a batch that Lambda gave up) nor `Records` (of a stream)";
        return Err(ParseError::Foreign(what.to_owned()));
    };
    let number = |name: &str| {
        let field = batch.get(name)?;
        Sequence::new(field.text()?).ok_or_else(|| field.wrong("it is no number of at most 40 digits"))
    };
    let condition = root.get("requestContext").ok().and_then(|context| context.some_text("condition"));
    Ok(FailedRecords::Place(Box::new(Place {
        stream: batch.get("streamArn")?.text()?.to_owned(),
        stretch: Stretch {
            shard: ShardId(batch.get("shardId")?.text()?.to_owned()),
            from: number("startSequenceNumber")?,
            to: number("endSequenceNumber")?,
        },
        at: batch.get("approximateArrivalOfFirstRecord").and_then(|at| at.time()).ok(),
        records: batch.get("batchSize").and_then(|size| size.size()).ok(),
        condition: condition.unwrap_or("without a reason").to_owned(),
    })))
}
