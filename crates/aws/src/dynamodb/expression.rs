//! Expressions of DynamoDB: every name and value by placeholder, so that reserved words (`order`, `status`, `size`) and odd
//! characters mean nothing. Pure.

use aws_sdk_dynamodb::types::AttributeValue;
use std::collections::HashMap;

/// An update and its condition in the making.
#[derive(Debug, Default)]
pub(super) struct Expression {
    names: HashMap<String, String>,
    values: HashMap<String, AttributeValue>,
    sets: Vec<String>,
    removes: Vec<String>,
    condition: Option<String>,
}

impl Expression {
    /// The placeholder of an attribute's name.
    pub(super) fn name(&mut self, attribute: &str) -> String {
        let placeholder = format!("#{attribute}");
        self.names.insert(placeholder.clone(), attribute.to_owned());
        placeholder
    }

    /// The placeholder of a value.
    pub(super) fn value(&mut self, value: AttributeValue) -> String {
        let placeholder = format!(":v{}", self.values.len());
        self.values.insert(placeholder.clone(), value);
        placeholder
    }

    /// Sets the attribute.
    pub(super) fn set(&mut self, attribute: &str, value: AttributeValue) {
        let (name, value) = (self.name(attribute), self.value(value));
        self.sets.push(format!("{name} = {value}"));
    }

    /// Sets the attribute where the item lacks it.
    pub(super) fn set_missing(&mut self, attribute: &str, value: AttributeValue) {
        let (name, value) = (self.name(attribute), self.value(value));
        self.sets.push(format!("{name} = if_not_exists({name}, {value})"));
    }

    /// Removes the attribute.
    pub(super) fn remove(&mut self, attribute: &str) {
        let name = self.name(attribute);
        self.removes.push(name);
    }

    /// Only then.
    pub(super) fn only_if(&mut self, condition: String) {
        self.condition = Some(condition);
    }

    /// The update, if there is any.
    pub(super) fn update(&self) -> Option<String> {
        let part = |verb: &str, parts: &[String]| (!parts.is_empty()).then(|| format!("{verb} {}", parts.join(", ")));
        let parts: Vec<String> =
            [part("SET", &self.sets), part("REMOVE", &self.removes)].into_iter().flatten().collect();
        (!parts.is_empty()).then(|| parts.join(" "))
    }

    /// The condition.
    pub(super) fn condition(&self) -> Option<String> {
        self.condition.clone()
    }

    /// Names by placeholder; `None` rather than none, which the service refuses.
    pub(super) fn names(&self) -> Option<HashMap<String, String>> {
        (!self.names.is_empty()).then(|| self.names.clone())
    }

    /// Values by placeholder; `None` rather than none.
    pub(super) fn values(&self) -> Option<HashMap<String, AttributeValue>> {
        (!self.values.is_empty()).then(|| self.values.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values_stand_apart_from_the_text() {
        let mut expression = Expression::default();
        assert_eq!((expression.update(), expression.names(), expression.values()), (None, None, None));
        expression.set("order", AttributeValue::S("s1".to_owned()));
        expression.set_missing("size", AttributeValue::N("1".to_owned()));
        expression.remove("disowned_at");
        let update = expression.update().unwrap();
        assert_eq!(update, "SET #order = :v0, #size = if_not_exists(#size, :v1) REMOVE #disowned_at");
        assert_eq!(expression.names().unwrap()["#order"], "order");
        assert_eq!(expression.values().unwrap().len(), 2);
    }
}
