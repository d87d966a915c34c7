//! Deleted records for benchmarks: orders of about a kilobyte that share their attributes' names, as a stream tells them. The
//! n-th one is the same in every run, for every side.

use anyhow::{Result, ensure};
use aws::parse::records::{RecordedTable, read_record};
use bytes::Bytes;
use engine::ports::streams::{Change, DeletedRecord, StreamRecord};
use lifecycle::archive::ServiceName;
use serde_json::{Value, json};

/// The table's name, and its stream's ARN.
pub(crate) const TABLE: &str = "Orders";
const STREAM: &str = "arn:aws:dynamodb:us-east-1:000000000000:table/Orders/stream/2026-01-01T00:00:00.000";
/// The service.
pub(crate) const SERVICE: &str = "orders";
/// What is in a text field: words, so that it is neither noise nor one letter.
const WORDS: [&str; 16] = [
    "paid", "shipped", "red", "garden", "chair", "refund", "north", "window", "gift", "letter", "blue", "north",
    "parcel", "evening", "table", "lamp",
];
/// One in so many was deleted by the time to live.
const TTL_EVERY: usize = 4;

/// Whose records they are.
pub(crate) fn recorded() -> Result<RecordedTable> {
    Ok(RecordedTable {
        service: ServiceName::new(SERVICE)?,
        table: TABLE.to_owned(),
        key_names: vec!["pk".to_owned(), "sk".to_owned()],
    })
}

/// Numbers that look like chance, and are the same every time (SplitMix64).
fn scattered(n: u64) -> u64 {
    let mut z = n.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The partition key and the sort key of the n-th record.
pub(crate) fn key(n: usize) -> (String, String) {
    (format!("CUSTOMER#{:08}", scattered(n as u64) % 100_000_000), format!("ORDER#{n:010}"))
}

/// The n-th deletion, at that moment, in the JSON that Lambda gives to functions.
pub(crate) fn removed(n: usize, at_ms: i64) -> Value {
    let (pk, sk) = key(n);
    let (chance, more) = (scattered(n as u64 ^ 0xA5A5), scattered(n as u64 ^ 0x5A5A));
    let words = (0..8).map(|place| WORDS[(more >> (place * 4)) as usize % WORDS.len()]);
    let item = |place: u64| {
        json!({ "M": {
            "sku": { "S": format!("SKU-{:06}", (chance >> (place * 8)) % 100_000) },
            "quantity": { "N": (1 + (chance >> place) % 5).to_string() },
            "price": { "N": format!("{}.{:02}", 1 + (more >> place) % 200, chance % 100) },
        } })
    };
    let mut record = json!({
        "eventID": format!("{chance:016x}{more:016x}"), "eventName": "REMOVE", "eventVersion": "1.1", "eventSource": "aws:dynamodb",
        "awsRegion": "us-east-1", "eventSourceARN": STREAM,
        "dynamodb": {
            "ApproximateCreationDateTime": at_ms / 1_000,
            "Keys": { "pk": { "S": pk }, "sk": { "S": sk } },
            "OldImage": {
                "pk": { "S": pk }, "sk": { "S": sk },
                "status": { "S": WORDS[chance as usize % 2] },
                "total": { "N": format!("{}.{:02}", more % 1_000, chance % 100) },
                "createdAt": { "S": format!("2026-01-{:02}T{:02}:{:02}:00Z", 1 + chance % 28, more % 24, chance % 60) },
                "email": { "S": format!("customer.{}@example.org", chance % 100_000_000) },
                "isGift": { "BOOL": chance.is_multiple_of(7) },
                "lines": { "L": [item(0), item(1), item(2)] },
                "address": { "M": {
                    "street": { "S": format!("{} street {}", WORDS[more as usize % WORDS.len()], chance % 400) },
                    "city": { "S": WORDS[(more >> 8) as usize % WORDS.len()] },
                    "postcode": { "S": format!("{:05}", chance % 100_000) },
                } },
                "note": { "S": words.collect::<Vec<_>>().join(" ") },
            },
            "SequenceNumber": format!("{:021}", n + 1), "SizeBytes": 600, "StreamViewType": "OLD_IMAGE",
        },
    });
    if n.is_multiple_of(TTL_EVERY) {
        record["userIdentity"] = json!({ "type": "Service", "principalId": "dynamodb.amazonaws.com" });
    }
    record
}

/// The same, read.
pub(crate) fn read(record: &Value, table: &RecordedTable) -> Result<StreamRecord> {
    Ok(read_record(record, table)?)
}

/// A deletion as its object: name and body are made by what makes those of real ones.
pub(crate) struct Made {
    pub(crate) record: Box<DeletedRecord>,
    pub(crate) body: Bytes,
}

/// The n-th one.
pub(crate) fn made(n: usize, at_ms: i64, table: &RecordedTable) -> Result<Made> {
    let read = read(&removed(n, at_ms), table)?;
    let Change::Deleted(record) = read.change else { anyhow::bail!("record {n} says nothing of a deletion") };
    let body = engine::format::archived::body(&record);
    ensure!((900..1_600).contains(&body.len()), "record {n} has {} bytes", body.len());
    Ok(Made { record, body })
}
