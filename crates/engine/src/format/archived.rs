//! An archived record: the object's body and metadata.
//!
//! The body is the record of the stream as Lambda gives it to functions, whole and in DynamoDB's JSON, with one member more:
//! `afterimage`, which says in plain words what a reader wants first. The metadata say the same to who only looks. Layouts
//! with a version: a newer one is refused. Pure.

use crate::ports::objects::Head;
use crate::ports::streams::DeletedRecord;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use lifecycle::archive::{Cause, Sequence, ServiceName, hash_of};
use lifecycle::ids::ObjectKey;
use lifecycle::time::UnixMs;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Version of the layout.
const VERSION: u32 = 1;
/// The member of the body that is ours.
const OURS: &str = "afterimage";
/// Metadata name: which deletion it is, as [`lifecycle::archive::Deletion::identity`] says.
pub const META_DELETION: &str = "afterimage-deletion";
/// Metadata name: the hash of the body.
pub const META_HASH: &str = "afterimage-hash";
const META_SERVICE: &str = "afterimage-service";
const META_TABLE: &str = "afterimage-table";
/// Metadata name: who deleted it.
pub const META_CAUSE: &str = "afterimage-cause";
const META_SEQUENCE: &str = "afterimage-sequence";
const META_DELETED_AT: &str = "afterimage-deleted-at";
/// Metadata name: the record's key as JSON, in base64url.
const META_KEY: &str = "afterimage-record-key";
/// S3 takes 2 KiB of metadata in all: a longer key stands in the body only.
const META_KEY_BYTES_MAX: usize = 1_024;

/// Our member of the body.
#[derive(Serialize, Deserialize)]
struct Ours {
    format: u32,
    service: String,
    table: String,
    cause: String,
    deleted_at: String,
    sequence: String,
    /// The names of the key's attributes, in the order of the key schema.
    key: Vec<String>,
}

/// The object that a deletion became, now or before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its name.
    pub name: ObjectKey,
    /// Bytes of its body.
    pub size: u64,
}

/// An archived record, read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Archived {
    /// Whose it was.
    pub service: ServiceName,
    /// In which table.
    pub table: String,
    /// Who deleted it.
    pub cause: Cause,
    /// When.
    pub deleted_at: UnixMs,
    /// The deletion's place in the stream.
    pub sequence: Sequence,
    /// The names of its key's attributes, in the order of the key schema.
    pub key: Vec<String>,
    /// Its last image: attributes in DynamoDB's JSON.
    pub image: Map<String, Value>,
}

impl Archived {
    /// The values of its key, in DynamoDB's JSON.
    pub fn key_values(&self) -> Vec<&Value> {
        self.key.iter().filter_map(|name| self.image.get(name)).collect()
    }

    /// Whether both are deletions of one record.
    pub fn is_of_the_key_of(&self, other: &Archived) -> bool {
        self.table == other.table && self.key_values() == other.key_values()
    }

    /// Deletions of one record in their order.
    pub fn age(&self) -> (UnixMs, &Sequence) {
        (self.deleted_at, &self.sequence)
    }
}

/// Why a body is no archived record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRecord {
    /// It is no JSON, or not all of it is there.
    #[error("it is no JSON: {0}")]
    NotJson(String),
    /// It is JSON, and something else.
    #[error("it is no archived record: {0}")]
    Foreign(String),
    /// A newer version wrote it.
    #[error("its format is {0}, and this version knows 1: a newer version wrote it")]
    Newer(u64),
}

/// The body of a deleted record.
pub fn body(record: &DeletedRecord) -> Bytes {
    let deletion = &record.deletion;
    let ours = Ours {
        format: VERSION,
        service: deletion.service.to_string(),
        table: deletion.table.clone(),
        cause: record.cause.as_str().to_owned(),
        deleted_at: deletion.at.to_string(),
        sequence: deletion.sequence.to_string(),
        key: record.key_names.clone(),
    };
    let mut whole = record.record.as_object().cloned().unwrap_or_default();
    whole.insert(OURS.to_owned(), serde_json::to_value(ours).expect("strings and a number"));
    Value::Object(whole).to_string().into()
}

/// What travels with that body.
pub fn metadata(record: &DeletedRecord, body: &[u8]) -> BTreeMap<String, String> {
    let deletion = &record.deletion;
    let mut metadata: BTreeMap<String, String> = [
        (META_DELETION, deletion.identity()),
        (META_HASH, hash_of(body)),
        (META_SERVICE, deletion.service.to_string()),
        (META_TABLE, deletion.table.clone()),
        (META_CAUSE, record.cause.as_str().to_owned()),
        (META_SEQUENCE, deletion.sequence.to_string()),
        (META_DELETED_AT, deletion.at.to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    let key = URL_SAFE_NO_PAD.encode(record.record["dynamodb"]["Keys"].to_string());
    if key.len() <= META_KEY_BYTES_MAX {
        metadata.insert(META_KEY.to_owned(), key);
    }
    metadata
}

/// What the metadata say of the cause.
pub fn cause_of(head: &Head) -> Option<Cause> {
    Cause::parse(head.metadata.get(META_CAUSE)?)
}

/// Reads a body back.
pub fn read(body: &[u8]) -> Result<Archived, BadRecord> {
    let whole: Value = serde_json::from_slice(body).map_err(|error| BadRecord::NotJson(error.to_string()))?;
    let foreign = |what: &str| BadRecord::Foreign(format!("`{what}` is missing, or is not what it should be"));
    if let Some(newer) = whole[OURS]["format"].as_u64().filter(|format| *format > u64::from(VERSION)) {
        return Err(BadRecord::Newer(newer));
    }
    let ours: Ours = serde_json::from_value(whole[OURS].clone()).map_err(|_| foreign(OURS))?;
    let image = whole["dynamodb"]["OldImage"].as_object().ok_or_else(|| foreign("dynamodb.OldImage"))?;
    if let Some(name) = ours.key.iter().find(|name| !image.contains_key(*name)) {
        return Err(foreign(&format!("dynamodb.OldImage.{name}")));
    }
    Ok(Archived {
        service: ServiceName::new(&ours.service).map_err(|_| foreign("afterimage.service"))?,
        table: ours.table,
        cause: Cause::parse(&ours.cause).ok_or_else(|| foreign("afterimage.cause"))?,
        deleted_at: ours.deleted_at.parse().map(timestamp_ms).map_err(|_| foreign("afterimage.deleted_at"))?,
        sequence: Sequence::new(&ours.sequence).ok_or_else(|| foreign("afterimage.sequence"))?,
        key: ours.key,
        image: image.clone(),
    })
}

fn timestamp_ms(timestamp: jiff::Timestamp) -> UnixMs {
    UnixMs(timestamp.as_millisecond())
}
