//! Somebody's table: records are put back into it, marked for deletion, and its stream and time to live are switched on.
//! One trait each, so that a handle's type is its privilege.

use crate::error::PortResult;
use crate::ports::clock::Clock;
use async_trait::async_trait;
use serde_json::{Map, Value};

/// What is known of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableShape {
    /// The attributes of its key, in the order of the key schema.
    pub key_names: Vec<String>,
    /// The attribute that says when a record's time is over, if its time to live is switched on.
    pub ttl: Option<String>,
}

/// What must stand in the table for a record to be put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutOnto {
    /// Nothing under its key.
    Nothing,
    /// Whatever is there is replaced.
    Anything,
}

/// Puts records.
#[async_trait]
pub trait RecordTable: Send + Sync {
    /// The table's shape.
    async fn shape(&self) -> PortResult<TableShape>;

    /// Puts a record, given in DynamoDB's JSON, into a table of that shape; every type exact. `false`: the condition did not
    /// hold.
    async fn put(&self, record: &Map<String, Value>, shape: &TableShape, onto: PutOnto) -> PortResult<bool>;
}

/// The type of an attribute of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// `S`.
    Text,
    /// `N`.
    Number,
    /// `B`.
    Binary,
}

impl KeyKind {
    /// As DynamoDB's JSON has it.
    pub fn code(self) -> &'static str {
        match self {
            KeyKind::Text => "S",
            KeyKind::Number => "N",
            KeyKind::Binary => "B",
        }
    }
}

/// An attribute of a table's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPart {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: KeyKind,
}

/// What a table's stream carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamView {
    /// The key alone.
    KeysOnly,
    /// The record as it is now.
    NewImage,
    /// The record as it was.
    OldImage,
    /// Both.
    NewAndOldImages,
}

impl StreamView {
    /// All of them.
    pub const ALL: [StreamView; 4] =
        [StreamView::KeysOnly, StreamView::NewImage, StreamView::OldImage, StreamView::NewAndOldImages];

    /// As DynamoDB calls it.
    pub fn code(self) -> &'static str {
        match self {
            StreamView::KeysOnly => "KEYS_ONLY",
            StreamView::NewImage => "NEW_IMAGE",
            StreamView::OldImage => "OLD_IMAGE",
            StreamView::NewAndOldImages => "NEW_AND_OLD_IMAGES",
        }
    }

    /// Reads it back.
    pub fn parse(code: &str) -> Option<StreamView> {
        StreamView::ALL.into_iter().find(|view| view.code() == code)
    }

    /// Whether what was deleted can be read from it.
    pub fn carries_old_images(self) -> bool {
        matches!(self, StreamView::OldImage | StreamView::NewAndOldImages)
    }
}

/// A table's time to live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TimeToLive {
    /// Records stay.
    Off,
    /// It is being switched off, which takes up to an hour; until then it cannot be switched on.
    EndingSoon,
    /// Records go once the time in that attribute (Unix seconds) is over.
    By(String),
}

/// How a table stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableSetup {
    /// Its key, in the order of the key schema.
    pub key: Vec<KeyPart>,
    /// What its stream carries, if it has one.
    pub stream: Option<StreamView>,
    /// Its time to live.
    pub ttl: TimeToLive,
}

/// Looks how a table stands.
#[async_trait]
pub trait TableLook: Send + Sync {
    /// How it stands.
    async fn setup(&self) -> PortResult<TableSetup>;
}

/// Switches on what an archive needs. Nothing is ever switched off.
#[async_trait]
pub trait TableSwitch: TableLook {
    /// Switches its stream on, and returns when it is.
    async fn switch_stream_on(&self, view: StreamView, clock: &dyn Clock) -> PortResult<()>;

    /// Switches its time to live on, by that attribute.
    async fn switch_ttl_on(&self, attribute: &str) -> PortResult<()>;
}

/// What becomes of one attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttributeChange {
    /// Its name.
    pub name: String,
    /// What it must be for the change to happen, in DynamoDB's JSON; `None`: it must not be there.
    pub from: Option<Value>,
    /// What it is then; `None`: it is not there.
    pub to: Option<Value>,
}

/// Reads, changes and deletes single records, by their whole keys in DynamoDB's JSON.
#[async_trait]
pub trait RecordEdit: TableLook {
    /// The record as it is now (strongly consistent); `None`: there is none.
    async fn get(&self, key: &Map<String, Value>) -> PortResult<Option<Map<String, Value>>>;

    /// Changes attributes of a record that is there, all of them or none. `false`: it is not there, or an attribute is not
    /// what it must be.
    async fn change(&self, key: &Map<String, Value>, changes: &[AttributeChange]) -> PortResult<bool>;

    /// Deletes a record whose attribute has that value. `false`: it is not there, or has another.
    async fn delete(&self, key: &Map<String, Value>, attribute: &str, value: &Value) -> PortResult<bool>;
}
