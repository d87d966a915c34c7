//! A record's image without DynamoDB's types: what a person writes in SQL. Numbers that JSON cannot hold exactly stay text,
//! sets are lists, binary is base64.

use serde_json::{Map, Number, Value};

/// The image as plain JSON; `None`: it is no image.
pub(super) fn plain(image: &str) -> Option<String> {
    let image: Map<String, Value> = serde_json::from_str(image).ok()?;
    map(image).map(|plain| plain.to_string())
}

fn map(image: Map<String, Value>) -> Option<Value> {
    let fields = image.into_iter().map(|(name, typed)| Some((name, value(typed)?)));
    fields.collect::<Option<Map<String, Value>>>().map(Value::Object)
}

fn value(typed: Value) -> Option<Value> {
    let Value::Object(typed) = typed else { return None };
    let (kind, value_of) = typed.into_iter().next()?;
    Some(match (kind.as_str(), value_of) {
        ("M", Value::Object(inner)) => map(inner)?,
        ("L", Value::Array(items)) => Value::Array(items.into_iter().map(value).collect::<Option<_>>()?),
        ("N", Value::String(digits)) => number(digits),
        ("NS", Value::Array(items)) => {
            let digits = |item| if let Value::String(digits) = item { number(digits) } else { item };
            Value::Array(items.into_iter().map(digits).collect())
        }
        ("NULL", _) => Value::Null,
        (_, same) => same,
    })
}

/// A number, if it is the same one in JSON.
fn number(digits: String) -> Value {
    let whole = digits.parse::<i64>().ok().map(Number::from);
    let broken = || digits.parse::<f64>().ok().and_then(Number::from_f64);
    let same = |number: &Number| number.to_string() == digits;
    match whole.or_else(broken).filter(same) {
        Some(number) => Value::Number(number),
        None => Value::String(digits),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_type_loses_its_name_and_no_number_its_digits() {
        let image = json!({
            "s": { "S": "text" }, "n": { "N": "42" }, "half": { "N": "0.5" }, "long": { "N": "12345678901234567890123" },
            "b": { "B": "AAEC" }, "yes": { "BOOL": true }, "no": { "NULL": true }, "ns": { "NS": ["1", "2.50"] },
            "list": { "L": [{ "S": "" }, { "M": { "deep": { "N": "-1" } } }] }, "ss": { "SS": ["a"] },
        });
        let expected = json!({
            "s": "text", "n": 42, "half": 0.5, "long": "12345678901234567890123", "b": "AAEC", "yes": true, "no": null,
            "ns": [1, "2.50"], "list": ["", { "deep": -1 }], "ss": ["a"],
        });
        let plain = plain(&image.to_string()).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&plain).unwrap(), expected);
        assert_eq!(super::plain("[]"), None);
    }
}
