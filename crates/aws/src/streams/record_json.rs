//! A record as the stream's client gives it, in the JSON that Lambda gives to functions: every value in DynamoDB's own
//! notation, exact (numbers stay the digits that they are, binary is base64).

use aws_sdk_dynamodbstreams::types::{AttributeValue, Record};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use std::collections::HashMap;

/// The whole record; `None`: it has a value of a type that is newer than the client. `stream` is the ARN that it came from.
pub(super) fn in_json(record: &Record, stream: &str) -> Option<Value> {
    let mut whole = Members::default();
    whole.put("eventID", record.event_id());
    whole.put("eventName", record.event_name().map(|name| name.as_str()));
    whole.put("eventVersion", record.event_version());
    whole.put("eventSource", record.event_source());
    whole.put("awsRegion", record.aws_region());
    whole.put("eventSourceARN", Some(stream));
    // Only what the time to live deleted has one; engines that speak the protocol may spell its members in their own way.
    let identity = record.user_identity().map(|who| {
        let (kind, name) = (who.r#type().unwrap_or("Service"), who.principal_id().unwrap_or("dynamodb.amazonaws.com"));
        json!({ "type": kind, "principalId": name })
    });
    whole.put("userIdentity", identity);
    if let Some(about) = record.dynamodb() {
        let mut told = Members::default();
        told.put("ApproximateCreationDateTime", about.approximate_creation_date_time().map(|at| at.secs()));
        for (name, image) in [("Keys", about.keys()), ("NewImage", about.new_image()), ("OldImage", about.old_image())]
        {
            if let Some(image) = image {
                told.put(name, Some(attributes(image)?));
            }
        }
        told.put("SequenceNumber", about.sequence_number());
        told.put("SizeBytes", about.size_bytes());
        told.put("StreamViewType", about.stream_view_type().map(|view| view.as_str()));
        whole.put("dynamodb", Some(told.0));
    }
    Some(whole.0.into())
}

#[derive(Default)]
struct Members(Map<String, Value>);

impl Members {
    /// Only what is there.
    fn put(&mut self, name: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.0.insert(name.to_owned(), value.into());
        }
    }
}

fn attributes(attributes: &HashMap<String, AttributeValue>) -> Option<Value> {
    let members = attributes.iter().map(|(name, attribute)| Some((name.clone(), value(attribute)?)));
    members.collect::<Option<Map<_, _>>>().map(Value::Object)
}

fn value(attribute: &AttributeValue) -> Option<Value> {
    let binary = |bytes: &[u8]| STANDARD.encode(bytes);
    Some(match attribute {
        AttributeValue::S(text) => json!({ "S": text }),
        AttributeValue::N(number) => json!({ "N": number }),
        AttributeValue::B(bytes) => json!({ "B": binary(bytes.as_ref()) }),
        AttributeValue::Bool(is) => json!({ "BOOL": is }),
        AttributeValue::Null(is) => json!({ "NULL": is }),
        AttributeValue::Ss(texts) => json!({ "SS": texts }),
        AttributeValue::Ns(numbers) => json!({ "NS": numbers }),
        AttributeValue::Bs(all) => json!({ "BS": all.iter().map(|bytes| binary(bytes.as_ref())).collect::<Vec<_>>() }),
        AttributeValue::L(items) => json!({ "L": items.iter().map(value).collect::<Option<Vec<_>>>()? }),
        AttributeValue::M(members) => json!({ "M": attributes(members)? }),
        _ => return None,
    })
}
