//! Single records of somebody's table: read, changed and deleted, each write on a condition, so that nothing is made that
//! was not there, and nothing is changed that somebody else has changed meanwhile.

use super::records::{DynamoDbTable, attribute};
use crate::error_map::Call;
use async_trait::async_trait;
use aws_sdk_dynamodb::types::AttributeValue;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use engine::error::{ErrorKind, PortResult};
use engine::ports::tables::{AttributeChange, RecordEdit};
use serde_json::{Map, Value, json};
use std::collections::HashMap;

type Item = HashMap<String, AttributeValue>;

#[async_trait]
impl RecordEdit for DynamoDbTable {
    async fn get(&self, key: &Map<String, Value>) -> PortResult<Option<Map<String, Value>>> {
        let call = Call::new("read record", "dynamodb:GetItem", &self.table);
        let request = self.client.get_item().table_name(&self.table).set_key(Some(item(key, &call)?));
        let answer = request.consistent_read(true).send().await.map_err(|error| call.sdk(error))?;
        let Some(found) = answer.item else { return Ok(None) };
        let record = found.iter().map(|(name, value)| Some((name.clone(), in_json(value)?))).collect::<Option<_>>();
        let why = "a value has a type that this version does not know: use a newer one";
        record.map(Some).ok_or_else(|| call.failed(ErrorKind::NotSetUp(why.to_owned())))
    }

    async fn change(&self, key: &Map<String, Value>, changes: &[AttributeChange]) -> PortResult<bool> {
        let call = Call::new("change record", "dynamodb:UpdateItem", &self.table);
        let Some(of_key) = key.keys().next() else { return Err(call.failed(ErrorKind::Unsupported)) };
        let mut request = self.client.update_item().table_name(&self.table).set_key(Some(item(key, &call)?));
        request = request.expression_attribute_names("#key", of_key);
        let mut conditions = vec!["attribute_exists(#key)".to_owned()];
        let (mut set, mut removed) = (Vec::new(), Vec::new());
        for (n, change) in changes.iter().enumerate() {
            request = request.expression_attribute_names(format!("#a{n}"), &change.name);
            match &change.from {
                None => conditions.push(format!("attribute_not_exists(#a{n})")),
                Some(from) => {
                    conditions.push(format!("#a{n} = :from{n}"));
                    request =
                        request.expression_attribute_values(format!(":from{n}"), typed(&change.name, from, &call)?);
                }
            }
            match &change.to {
                None => removed.push(format!("#a{n}")),
                Some(to) => {
                    set.push(format!("#a{n} = :to{n}"));
                    request = request.expression_attribute_values(format!(":to{n}"), typed(&change.name, to, &call)?);
                }
            }
        }
        let clauses = [("SET", set), ("REMOVE", removed)];
        let update = clauses.iter().filter(|(_, parts)| !parts.is_empty());
        let update: Vec<String> = update.map(|(verb, parts)| format!("{verb} {}", parts.join(", "))).collect();
        let request = request.update_expression(update.join(" ")).condition_expression(conditions.join(" AND "));
        match request.send().await {
            Ok(_) => Ok(true),
            Err(error) if super::is_refused(&error) => Ok(false),
            Err(error) => Err(call.sdk(error)),
        }
    }

    async fn delete(&self, key: &Map<String, Value>, attribute: &str, value: &Value) -> PortResult<bool> {
        let call = Call::new("delete record", "dynamodb:DeleteItem", &self.table);
        let request = self.client.delete_item().table_name(&self.table).set_key(Some(item(key, &call)?));
        let request = request.condition_expression("#a = :v").expression_attribute_names("#a", attribute);
        match request.expression_attribute_values(":v", typed(attribute, value, &call)?).send().await {
            Ok(_) => Ok(true),
            Err(error) if super::is_refused(&error) => Ok(false),
            Err(error) => Err(call.sdk(error)),
        }
    }
}

fn item(attributes: &Map<String, Value>, call: &Call) -> PortResult<Item> {
    attributes.iter().map(|(name, value)| Ok((name.clone(), typed(name, value, call)?))).collect()
}

fn typed(name: &str, value: &Value, call: &Call) -> PortResult<AttributeValue> {
    let why = || ErrorKind::Invalid(format!("its attribute `{name}` is no value of DynamoDB's JSON"));
    attribute(value).ok_or_else(|| call.failed(why()))
}

/// A value in DynamoDB's JSON; `None`: of a type that is newer than the client.
fn in_json(value: &AttributeValue) -> Option<Value> {
    let binary = |bytes: &[u8]| STANDARD.encode(bytes);
    Some(match value {
        AttributeValue::S(text) => json!({ "S": text }),
        AttributeValue::N(number) => json!({ "N": number }),
        AttributeValue::B(bytes) => json!({ "B": binary(bytes.as_ref()) }),
        AttributeValue::Bool(is) => json!({ "BOOL": is }),
        AttributeValue::Null(is) => json!({ "NULL": is }),
        AttributeValue::Ss(texts) => json!({ "SS": texts }),
        AttributeValue::Ns(numbers) => json!({ "NS": numbers }),
        AttributeValue::Bs(all) => json!({ "BS": all.iter().map(|bytes| binary(bytes.as_ref())).collect::<Vec<_>>() }),
        AttributeValue::L(items) => json!({ "L": items.iter().map(in_json).collect::<Option<Vec<_>>>()? }),
        AttributeValue::M(members) => {
            let members = members.iter().map(|(name, value)| Some((name.clone(), in_json(value)?)));
            json!({ "M": members.collect::<Option<Map<_, _>>>()? })
        }
        _ => return None,
    })
}
