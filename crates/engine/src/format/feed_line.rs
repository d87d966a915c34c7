//! A line of a feed: what is told of one archived deletion, as JSON.
//!
//! The same deletion gives the same `id` whenever it is told, so that whoever reads the feed can drop what comes twice. Members
//! may be added; one that changes its meaning gets another version. Pure.

use crate::format::archived::Stored;
use crate::ports::streams::DeletedRecord;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Version of the layout.
const VERSION: u32 = 1;

/// What a line says besides its deletion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToldOf<'a> {
    /// Where the archive is, as the configuration names it.
    pub destination: &'a str,
    /// The shard that told it.
    pub shard: &'a str,
    /// With the record's last image.
    pub with_image: bool,
}

#[derive(Serialize)]
struct Line<'a> {
    v: u32,
    id: String,
    service: &'a str,
    table: &'a str,
    keys: &'a Value,
    cause: &'a str,
    deleted_at: String,
    sequence: &'a str,
    shard: &'a str,
    object: ObjectOf<'a>,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<&'a Value>,
}

#[derive(Serialize)]
struct ObjectOf<'a> {
    destination: &'a str,
    key: &'a str,
}

/// The one member that is read back.
#[derive(Deserialize)]
struct Named {
    id: String,
}

/// The line of an archived deletion, without its end.
pub fn line(record: &DeletedRecord, stored: &Stored, told: &ToldOf<'_>) -> String {
    let deletion = &record.deletion;
    let line = Line {
        v: VERSION,
        id: deletion.identity(),
        service: deletion.service.as_str(),
        table: &deletion.table,
        keys: &record.record["dynamodb"]["Keys"],
        cause: record.cause.as_str(),
        deleted_at: deletion.at.to_string(),
        sequence: deletion.sequence.as_str(),
        shard: told.shard,
        object: ObjectOf { destination: told.destination, key: stored.name.as_str() },
        size: stored.size,
        image: told.with_image.then(|| &record.record["dynamodb"]["OldImage"]),
    };
    escaped(serde_json::to_string(&line).expect("strings, numbers and JSON"))
}

/// The same JSON, with `\u` and four digits for what JSON leaves as it is and queues refuse (SQS takes what XML does), or
/// terminals act upon.
fn escaped(json: String) -> String {
    let is_refused = |c: char| matches!(c, '\u{7f}'..='\u{9f}' | '\u{fffe}' | '\u{ffff}');
    if !json.contains(is_refused) {
        return json;
    }
    let escape = |text: String, c| match is_refused(c) {
        true => text + &format!("\\u{:04x}", u32::from(c)),
        false => text + c.encode_utf8(&mut [0; 4]),
    };
    json.chars().fold(String::with_capacity(json.len()), escape)
}

/// The id of a line; `None`: it is none.
pub fn id_of(line: &str) -> Option<String> {
    serde_json::from_str(line).ok().map(|Named { id }| id)
}

/// The same line without its image, where that is too large for whoever takes it: it says so, and where the object is.
pub fn without_image(line: &str) -> Option<String> {
    let mut line: Value = serde_json::from_str(line).ok()?;
    line.as_object_mut()?.remove("image")?;
    line["image_left_out"] = Value::Bool(true);
    Some(escaped(line.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use lifecycle::archive::{Cause, Deletion, KeyValue, Sequence, ServiceName};
    use lifecycle::ids::ObjectKey;
    use lifecycle::time::UnixMs;
    use serde_json::json;

    /// Lines of version 1 are these, for ever.
    #[test]
    fn a_line_says_what_was_deleted_where_it_is_and_its_image_if_asked() {
        let deletion = Deletion {
            service: ServiceName::new("orders").unwrap(),
            table: "Orders".to_owned(),
            key: vec![KeyValue::Text("a".to_owned())],
            at: UnixMs(1_795_245_972_000),
            sequence: Sequence::new("100000000000000000001").unwrap(),
        };
        let record = json!({ "dynamodb": { "Keys": { "id": { "S": "a" } }, "OldImage": { "id": { "S": "a" }, "n": { "N": "1e3" } } } });
        let record = DeletedRecord { deletion, key_names: vec!["id".to_owned()], cause: Cause::Ttl, record };
        let stored = Stored { name: ObjectKey::new("orders/2026/11/21/a.json").unwrap(), size: 417 };
        let told = ToldOf { destination: "s3://archive", shard: "shard-1", with_image: false };
        let plain = line(&record, &stored, &told);
        let expected = concat!(
            r#"{"v":1,"id":"100000000000000000001-1fd0d4ea837b92f2cad054532435f3ac","service":"orders","table":"Orders","#,
            r#""keys":{"id":{"S":"a"}},"cause":"ttl","deleted_at":"2026-11-21T07:26:12.000Z","sequence":"100000000000000000001","#,
            r#""shard":"shard-1","object":{"destination":"s3://archive","key":"orders/2026/11/21/a.json"},"size":417}"#
        );
        assert_eq!(plain, expected);
        assert_eq!(id_of(&plain), Some(record.deletion.identity()));
        let whole = line(&record, &stored, &ToldOf { with_image: true, ..told });
        assert_eq!(serde_json::from_str::<Value>(&whole).unwrap()["image"]["n"]["N"], "1e3");
        let left_out = without_image(&whole).unwrap();
        assert!(left_out.contains(r#""image_left_out":true"#) && !left_out.contains("1e3"), "{left_out}");
        assert_eq!((without_image(&plain), id_of("{")), (None, None));
    }

    /// `\u{ffff}` behind a sort key is how one asks DynamoDB for all that begins with it, so that keys have it.
    #[test]
    fn what_no_queue_takes_is_escaped_and_reads_back_as_it_was() {
        let odd = "a\u{7f}\u{85}\u{9f}\u{a0}\u{fffd}\u{fffe}\u{ffff}\u{10000}\u{e000}\n\"";
        let line = json!({ "id": odd, "image": odd }).to_string();
        for sent in [escaped(line.clone()), without_image(&line).unwrap()] {
            assert!(
                sent.contains(r"a\u007f\u0085\u009f") && sent.contains("\u{fffd}\\ufffe\\uffff\u{10000}"),
                "{sent}"
            );
            let takes = |c| matches!(c, ' '..='\u{7e}' | '\u{a0}'..='\u{fffd}' | '\u{10000}'..);
            assert!(sent.chars().all(takes), "{sent}");
            assert_eq!(id_of(&sent).as_deref(), Some(odd));
        }
    }
}
