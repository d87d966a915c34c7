//! From a record of a table's stream to what was deleted. The record is in the JSON that Lambda gives to functions (DynamoDB
//! developer guide, "DynamoDB Streams record format"); a reader of the stream itself writes it so first
//! (`streams/record_json.rs`), so that there is one reading of it.

use super::{Field, ParseError};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use engine::ports::streams::{Change, DeletedRecord, StreamRecord};
use lifecycle::archive::{Cause, Deletion, KeyValue, Sequence, ServiceName};
use lifecycle::time::UnixMs;
use serde_json::Value;

/// Whose records they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedTable {
    /// What the archive calls the table's application.
    pub service: ServiceName,
    /// The table's name.
    pub table: String,
    /// The attributes of its key, in the order of the key schema.
    pub key_names: Vec<String>,
}

/// The table that a stream belongs to, from its ARN: `arn:aws:dynamodb:REGION:ACCOUNT:table/NAME/stream/LABEL`.
pub fn table_of_stream(arn: &str) -> Option<&str> {
    arn.split_once(":table/")?.1.split('/').next().filter(|name| !name.is_empty())
}

/// Reads a record. An error: not even its place in the stream is there.
pub fn read_record(record: &Value, table: &RecordedTable) -> Result<StreamRecord, ParseError> {
    let root = Field::root(record);
    let about = root.get("dynamodb")?;
    let number = about.get("SequenceNumber")?;
    let sequence = Sequence::new(number.text()?).ok_or_else(|| number.wrong("it is no number of at most 40 digits"))?;
    let unreadable = |why: String| Change::Unreadable { why, record: record.clone() };
    let (at, name) = match (about.get("ApproximateCreationDateTime").and_then(|at| at.seconds()), root.get("eventName"))
    {
        (Ok(at), Ok(name)) => (at, name.text().unwrap_or_default()),
        // It holds up nothing behind it.
        (at, name) => {
            let why = at.err().or(name.err()).map(|error| error.to_string()).unwrap_or_default();
            return Ok(StreamRecord { sequence, at: UnixMs::default(), change: unreadable(why) });
        }
    };
    let change = match name {
        "INSERT" | "MODIFY" => Change::Written,
        "REMOVE" => match deletion(&root, &about, table, at, &sequence) {
            Ok(deletion) => Change::Deleted(Box::new(DeletedRecord {
                deletion,
                key_names: table.key_names.clone(),
                cause: cause_of_record(record),
                record: record.clone(),
            })),
            Err(error) => unreadable(error.to_string()),
        },
        other => unreadable(format!("`eventName` is `{other}`")),
    };
    Ok(StreamRecord { sequence, at, change })
}

fn deletion(
    root: &Field<'_>,
    about: &Field<'_>,
    table: &RecordedTable,
    at: UnixMs,
    sequence: &Sequence,
) -> Result<Deletion, ParseError> {
    if root.some_text("eventSourceARN").and_then(table_of_stream).is_some_and(|name| name != table.table) {
        return Err(root.get("eventSourceARN")?.wrong(format!("it is not of the table {}", table.table)));
    }
    let keys = about.get("Keys")?;
    let image = about.get("OldImage")?;
    if image.value.as_object().is_none_or(serde_json::Map::is_empty) {
        return Err(image.wrong("the stream does not carry old images"));
    }
    let key = table.key_names.iter().map(|name| {
        image.get(name)?;
        key_value(&keys.get(name)?)
    });
    Ok(Deletion {
        service: table.service.clone(),
        table: table.table.clone(),
        key: key.collect::<Result<_, _>>()?,
        at,
        sequence: sequence.clone(),
    })
}

fn key_value(value: &Field<'_>) -> Result<KeyValue, ParseError> {
    if let Ok(text) = value.get("S") {
        return Ok(KeyValue::Text(text.text()?.to_owned()));
    }
    if let Ok(number) = value.get("N") {
        return Ok(KeyValue::Number(number.text()?.to_owned()));
    }
    let binary = value.get("B")?;
    let bytes = STANDARD.decode(binary.text()?).map_err(|error| binary.wrong(error))?;
    Ok(KeyValue::Binary(bytes))
}

/// Deletions by the time to live carry the service's own identity; replicas of a global table see them without.
pub fn cause_of_record(record: &Value) -> Cause {
    let root = Field::root(record);
    let by_service = root.get("userIdentity").is_ok_and(|identity| {
        let says =
            |name: &str, value: &str| identity.some_text(name).is_some_and(|text| text.eq_ignore_ascii_case(value));
        says("type", "Service") && says("principalId", "dynamodb.amazonaws.com")
    });
    if by_service { Cause::Ttl } else { Cause::User }
}
