//! The table that archived records are put back into: one conditional put each, every type exact. What else is done to a
//! person's table stands in `record_edit.rs` and `table_switch.rs`.

use crate::error_map::Call;
use async_trait::async_trait;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::{AttributeValue, TimeToLiveStatus};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use engine::error::{ErrorKind, PortResult};
use engine::ports::tables::{PutOnto, RecordTable, TableShape};
use serde_json::{Map, Value};

/// A table of somebody's records.
pub struct DynamoDbTable {
    pub(super) client: Client,
    pub(super) table: String,
}

impl DynamoDbTable {
    /// By its name. It is asked nothing yet.
    pub fn new(client: Client, table: &str) -> DynamoDbTable {
        DynamoDbTable { client, table: table.to_owned() }
    }
}

#[async_trait]
impl RecordTable for DynamoDbTable {
    async fn shape(&self) -> PortResult<TableShape> {
        let key_names = super::key_of_table(&self.client, &self.table).await?;
        let call = Call::new("look at time to live", "dynamodb:DescribeTimeToLive", &self.table);
        let answer = self.client.describe_time_to_live().table_name(&self.table).send().await;
        let ttl = answer.map_err(|error| call.sdk(error))?.time_to_live_description;
        let on = |status: Option<&TimeToLiveStatus>| {
            matches!(status, Some(TimeToLiveStatus::Enabled | TimeToLiveStatus::Enabling))
        };
        let ttl = ttl.filter(|ttl| on(ttl.time_to_live_status())).and_then(|ttl| ttl.attribute_name);
        Ok(TableShape { key_names, ttl })
    }

    async fn put(&self, record: &Map<String, Value>, shape: &TableShape, onto: PutOnto) -> PortResult<bool> {
        let call = Call::new("put record", "dynamodb:PutItem", &self.table);
        let mut request = self.client.put_item().table_name(&self.table);
        for (name, value) in record {
            let value = attribute(value).ok_or_else(|| {
                call.failed(ErrorKind::Invalid(format!("its attribute `{name}` is no value of DynamoDB's JSON")))
            })?;
            request = request.item(name, value);
        }
        if onto == PutOnto::Nothing {
            // A record that is there has every attribute of its key.
            let [key, ..] = shape.key_names.as_slice() else { return Err(call.failed(ErrorKind::Unsupported)) };
            request =
                request.condition_expression("attribute_not_exists(#key)").expression_attribute_names("#key", key);
        }
        match request.send().await {
            Ok(_) => Ok(true),
            Err(error) if super::is_refused(&error) => Ok(false),
            Err(error) => Err(call.sdk(error)),
        }
    }
}

/// A value of DynamoDB's JSON.
pub(super) fn attribute(value: &Value) -> Option<AttributeValue> {
    let (kind, value) = value.as_object().filter(|value| value.len() == 1)?.iter().next()?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let blob = |value: &Value| Some(Blob::new(STANDARD.decode(value.as_str()?).ok()?));
    let all = |value: &Value| value.as_array().cloned();
    Some(match kind.as_str() {
        "S" => AttributeValue::S(text(value)?),
        "N" => AttributeValue::N(text(value)?),
        "B" => AttributeValue::B(blob(value)?),
        "BOOL" => AttributeValue::Bool(value.as_bool()?),
        "NULL" => AttributeValue::Null(value.as_bool()?),
        "SS" => AttributeValue::Ss(all(value)?.iter().map(text).collect::<Option<_>>()?),
        "NS" => AttributeValue::Ns(all(value)?.iter().map(text).collect::<Option<_>>()?),
        "BS" => AttributeValue::Bs(all(value)?.iter().map(blob).collect::<Option<_>>()?),
        "L" => AttributeValue::L(all(value)?.iter().map(attribute).collect::<Option<_>>()?),
        "M" => {
            let members = value.as_object()?.iter();
            AttributeValue::M(
                members.map(|(name, value)| Some((name.clone(), attribute(value)?))).collect::<Option<_>>()?,
            )
        }
        _ => return None,
    })
}
