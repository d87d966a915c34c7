//! A record's key as a person types it, against the key schema of its table. Pure.
//!
//! In DynamoDB's JSON, `{"pk":{"S":"USER#1"},"n":{"N":"7"}}`; or a word for each attribute, `pk=USER#1 n=7`, whose types the
//! table says: text as it is, numbers in digits, binary in base64. Everything behind the first `=` of a word is the value.

use crate::ports::tables::{KeyKind, KeyPart};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lifecycle::archive::{KeyValue, in_names};
use serde_json::{Map, Value, json};

/// Reads a key; an error says what is wrong, and how it is written.
pub fn read_key(words: &[String], schema: &[KeyPart]) -> Result<Map<String, Value>, String> {
    let key = match words {
        [json] if json.trim_start().starts_with('{') => {
            let value: Value = serde_json::from_str(json).map_err(|error| format!("`{json}` is no JSON: {error}"))?;
            value.as_object().cloned().unwrap_or_default()
        }
        words => by_words(words, schema)?,
    };
    for part in schema {
        let value = key.get(&part.name).ok_or_else(|| format!("the key lacks `{}`: {}", part.name, like(schema)))?;
        let typed = value.get(part.kind.code()).and_then(Value::as_str);
        let is_whole = typed.is_some_and(|text| is_legal(part.kind, text));
        if !is_whole || value.as_object().is_none_or(|members| members.len() != 1) {
            let kind = part.kind.code();
            return Err(format!("`{}` must be of the type {kind}, and is {value}: {}", part.name, like(schema)));
        }
    }
    match key.keys().find(|name| !schema.iter().any(|part| part.name == **name)) {
        Some(other) => Err(format!("`{other}` is no attribute of the table's key: {}", like(schema))),
        None => Ok(key),
    }
}

fn by_words(words: &[String], schema: &[KeyPart]) -> Result<Map<String, Value>, String> {
    let mut key = Map::new();
    for word in words {
        let (name, value) =
            word.split_once('=').ok_or_else(|| format!("`{word}` says no attribute: {}", like(schema)))?;
        let part = schema.iter().find(|part| part.name == name);
        let part = part.ok_or_else(|| format!("`{name}` is no attribute of the table's key: {}", like(schema)))?;
        if key.insert(name.to_owned(), json!({ part.kind.code(): value })).is_some() {
            return Err(format!("`{name}` is given twice: {}", like(schema)));
        }
    }
    Ok(key)
}

fn is_legal(kind: KeyKind, text: &str) -> bool {
    match kind {
        KeyKind::Text => !text.is_empty(),
        KeyKind::Number => {
            let number = text.strip_prefix('-').unwrap_or(text);
            !number.is_empty() && number.parse::<f64>().is_ok_and(f64::is_finite)
        }
        KeyKind::Binary => STANDARD.decode(text).is_ok_and(|bytes| !bytes.is_empty()),
    }
}

/// How a key of that schema is written.
fn like(schema: &[KeyPart]) -> String {
    let value = |kind| match kind {
        KeyKind::Text => "TEXT",
        KeyKind::Number => "NUMBER",
        KeyKind::Binary => "BASE64",
    };
    let words: Vec<String> = schema.iter().map(|part| format!("{}={}", part.name, value(part.kind))).collect();
    let json: Map<String, Value> =
        schema.iter().map(|part| (part.name.clone(), json!({ part.kind.code(): value(part.kind) }))).collect();
    format!("write {}, or '{}'", words.join(" "), Value::Object(json))
}

/// The key as names of archived records have it: what `archive get` takes.
pub fn key_in_names(key: &Map<String, Value>, schema: &[KeyPart]) -> String {
    let values = schema.iter().filter_map(|part| {
        let text = key.get(&part.name)?.get(part.kind.code())?.as_str()?.to_owned();
        Some(in_names(&match part.kind {
            KeyKind::Text => KeyValue::Text(text),
            KeyKind::Number => KeyValue::Number(text),
            KeyKind::Binary => KeyValue::Binary(STANDARD.decode(text).ok()?),
        }))
    });
    values.collect::<Vec<_>>().join("_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema() -> Vec<KeyPart> {
        let part = |name: &str, kind| KeyPart { name: name.to_owned(), kind };
        vec![part("pk", KeyKind::Text), part("n", KeyKind::Number)]
    }

    fn read(words: &[&str]) -> Result<Map<String, Value>, String> {
        let words: Vec<String> = words.iter().map(ToString::to_string).collect();
        read_key(&words, &schema())
    }

    #[test]
    fn words_and_json_say_the_same_key() {
        let expected = json!({ "pk": { "S": "USER#1=2" }, "n": { "N": "-7.5" } });
        assert_eq!(Value::Object(read(&["pk=USER#1=2", "n=-7.5"]).unwrap()), expected);
        assert_eq!(Value::Object(read(&[&expected.to_string()]).unwrap()), expected);
        assert_eq!(key_in_names(expected.as_object().unwrap(), &schema()), "USER#1=2_-7.5");
        let binary = [KeyPart { name: "b".to_owned(), kind: KeyKind::Binary }];
        let key = read_key(&["b=/+8=".to_owned()], &binary).unwrap();
        assert_eq!(key_in_names(&key, &binary), "_-8");
    }

    #[test]
    fn what_is_no_key_of_the_table_is_refused_with_how_it_is_written() {
        for (words, part) in [
            (&["pk=a"][..], "the key lacks `n`"),
            (&["pk=a", "n=1", "x=2"], "`x` is no attribute of the table's key"),
            (&["pk=a", "n=1", "n=2"], "`n` is given twice"),
            (&["pk=a", "n=one"], "`n` must be of the type N"),
            (&["pk=", "n=1"], "`pk` must be of the type S"),
            (&["USER#1"], "says no attribute"),
            (&["{"], "is no JSON"),
            (&[r#"{"pk":{"S":"a"},"n":{"S":"1"}}"#], "`n` must be of the type N"),
            (&[r#"{"pk":{"S":"a","N":"1"},"n":{"N":"1"}}"#], "`pk` must be of the type S"),
            (&[r#"{"pk":{"S":"a"},"n":{"N":"1"},"x":{"S":"b"}}"#], "`x` is no attribute"),
        ] {
            let refused = read(words).unwrap_err();
            assert!(refused.contains(part), "{words:?}: {refused}");
        }
        assert!(
            read(&["pk=a"])
                .unwrap_err()
                .contains(r#"write pk=TEXT n=NUMBER, or '{"n":{"N":"NUMBER"},"pk":{"S":"TEXT"}}'"#)
        );
    }
}
