//! From the name of an operation and its body to the engine's call, and back to a body: what DynamoDB says, in its JSON.

use super::Said;
use dynoxide::actions::create_table::StreamSpecification;
use dynoxide::{Database, DynoxideError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

/// The view of the stream that a table gets whose maker asked for none.
pub(super) const VIEW: &str = "OLD_IMAGE";
/// What begins the names of operations in `x-amz-target`.
const TARGETS: [&str; 2] = ["DynamoDB_20120810.", "DynamoDBStreams_20120810."];
/// Marks of the engine's readers in front of what is wrong with a request: they are not for clients.
const VALIDATION: [&str; 3] = ["VALIDATION:", "VALIDATION_REQUEST:", "VALIDATION_AS_READ:"];
const SERIALIZATION: [&str; 2] = ["SERIALIZATION:", "SERIALIZATION_AS_READ:"];

/// The operation that a target names.
pub(super) fn operation(target: &str) -> &str {
    TARGETS.iter().find_map(|prefix| target.strip_prefix(prefix)).unwrap_or_default()
}

/// Whether the operation may change records.
pub(super) fn writes(operation: &str) -> bool {
    matches!(
        operation,
        "PutItem"
            | "DeleteItem"
            | "UpdateItem"
            | "BatchWriteItem"
            | "TransactWriteItems"
            | "ExecuteStatement"
            | "ExecuteTransaction"
            | "BatchExecuteStatement"
    )
}

/// Carries it out. Blocks.
pub(super) fn run(database: &Database, operation: &str, body: &[u8]) -> Said {
    match dispatch(database, operation, body) {
        Ok(said) => said,
        Err(error) => {
            if error.status_code() >= 500 {
                tracing::error!(operation, %error, "the engine of the tables failed");
            }
            Said { status: error.status_code(), body: error.to_json().into() }
        }
    }
}

fn dispatch(database: &Database, operation: &str, body: &[u8]) -> Result<Said, DynoxideError> {
    match operation {
        "CreateTable" => {
            let mut request: dynoxide::actions::create_table::CreateTableRequest = read(body)?;
            if !request.stream_specification.as_ref().is_some_and(|stream| stream.stream_enabled) {
                let view = Some(VIEW.to_owned());
                request.stream_specification =
                    Some(StreamSpecification { stream_enabled: true, stream_view_type: view });
            }
            say(database.create_table(request))
        }
        "DeleteTable" => say(database.delete_table(read(body)?)),
        "DescribeTable" => say(database.describe_table(read(body)?)),
        "ListTables" => say(database.list_tables(read(body)?)),
        "UpdateTable" => say(database.update_table(read(body)?)),
        "PutItem" => say(database.put_item(read(body)?)),
        "GetItem" => say(database.get_item(read(body)?)),
        "DeleteItem" => say(database.delete_item(read(body)?)),
        "UpdateItem" => say(database.update_item(read(body)?)),
        "Query" => say(database.query(read(body)?)),
        "Scan" => say(database.scan(read(body)?)),
        "BatchGetItem" => say(database.batch_get_item(read(body)?)),
        "BatchWriteItem" => say(database.batch_write_item(read(body)?)),
        "TransactWriteItems" => say(database.transact_write_items(read(body)?)),
        "TransactGetItems" => say(database.transact_get_items(read(body)?)),
        "ListStreams" => say(database.list_streams(read(body)?)),
        "DescribeStream" => say(database.describe_stream(read(body)?)),
        "GetShardIterator" => say(database.get_shard_iterator(read(body)?)),
        "GetRecords" => say(database.get_records(read(body)?)),
        "UpdateTimeToLive" => say(database.update_time_to_live(read(body)?)),
        "DescribeTimeToLive" => say(database.describe_time_to_live(read(body)?)),
        "ExecuteStatement" => say(database.execute_statement(read(body)?)),
        "ExecuteTransaction" => say(database.execute_transaction(read(body)?)),
        "BatchExecuteStatement" => say(database.batch_execute_statement(read(body)?)),
        "TagResource" => say(database.tag_resource(read(body)?)),
        "UntagResource" => say(database.untag_resource(read(body)?)),
        "ListTagsOfResource" => say(database.list_tags_of_resource(read(body)?)),
        _ => Ok(Said::refused(400, "UnknownOperationException", "this endpoint does not know the operation")),
    }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, DynoxideError> {
    serde_json::from_slice(body).map_err(|error| {
        let text = error.to_string();
        let place = format!(" at line {} column {}", error.line(), error.column());
        let text = text.strip_suffix(&place).unwrap_or(&text);
        if let Some(why) = VALIDATION.iter().find_map(|mark| text.strip_prefix(mark)) {
            return DynoxideError::ValidationException(why.to_owned());
        }
        if let Some(why) = SERIALIZATION.iter().find_map(|mark| text.strip_prefix(mark)) {
            return DynoxideError::SerializationException(why.to_owned());
        }
        // As DynamoDB does: what is missing or of no known word is invalid, what is of another type cannot be read.
        let invalid = ["missing field", "unknown variant", "invalid type: null", "AttributeValue"];
        match invalid.iter().any(|words| text.contains(words)) {
            true => DynoxideError::ValidationException(text.to_owned()),
            false => DynoxideError::SerializationException(text.to_owned()),
        }
    })
}

fn say(answer: Result<impl Serialize, DynoxideError>) -> Result<Said, DynoxideError> {
    let answer = answer?;
    let body = serde_json::to_vec(&answer).map_err(|error| DynoxideError::InternalServerError(error.to_string()))?;
    Ok(Said { status: 200, body: body.into() })
}

impl Said {
    /// A refusal of ours, in DynamoDB's words.
    pub(super) fn refused(status: u16, code: &str, why: &str) -> Said {
        let body = json!({ "__type": format!("com.amazon.coral.service#{code}"), "message": why });
        Said { status, body: body.to_string().into() }
    }
}
