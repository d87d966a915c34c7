//! The stream of a table's changes: what was deleted, shard by shard, in order within a shard.
//!
//! Shaped like DynamoDB Streams: records are kept for a day; a shard ends when it splits, merges or grows old, and its
//! children follow it. All records of one key are in one line of shards, so that parents are read before their children.

use crate::error::PortResult;
use async_trait::async_trait;
use lifecycle::archive::{Cause, Deletion, Sequence};
use lifecycle::time::UnixMs;
use serde_json::Value;
use std::fmt;

/// Names a shard. Opaque.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub String);

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One shard of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Its name.
    pub id: ShardId,
    /// The one that it follows; it may have been forgotten by now.
    pub parent: Option<ShardId>,
}

/// From where on a shard is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Position {
    /// The oldest record that there still is.
    Oldest,
    /// That very record.
    At(Sequence),
    /// The first after that one.
    After(Sequence),
}

/// A record that was deleted, and its last image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeletedRecord {
    /// What its name is made of.
    pub deletion: Deletion,
    /// The names of its key's attributes, in the order of the table's key schema.
    pub key_names: Vec<String>,
    /// Who deleted it.
    pub cause: Cause,
    /// The whole record of the stream, in the JSON that Lambda gives to functions: `dynamodb.Keys`, `dynamodb.OldImage` and
    /// the rest, every value in DynamoDB's own notation.
    pub record: Value,
}

/// One record of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamRecord {
    /// Its position.
    pub sequence: Sequence,
    /// When it happened, to the second.
    pub at: UnixMs,
    /// What happened.
    pub change: Change,
}

/// What a record tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A record was deleted.
    Deleted(Box<DeletedRecord>),
    /// A record was put or changed: nothing for the archive.
    Written,
    /// It cannot be understood, and will not be when it comes again.
    Unreadable {
        /// What is wrong with it.
        why: String,
        /// The record as it came.
        record: Value,
    },
}

/// The next of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// Some records, perhaps none: that is not the end.
    Records(Vec<StreamRecord>),
    /// The shard has ended; its children follow.
    End,
    /// The position is older than what the stream still has: records are lost.
    Trimmed,
    /// The stream does not know the shard any more: what was not read of it is lost.
    Gone,
}

/// Reads a stream.
#[async_trait]
pub trait RecordStream: Send + Sync {
    /// The stream's own name: another one after it was switched off and on.
    fn name(&self) -> &str;

    /// Its shards, the ended ones of the last day included. A stream that does not carry old images is refused (`NotSetUp`).
    async fn shards(&self) -> PortResult<Vec<Shard>>;

    /// Begins to read a shard.
    async fn open(&self, shard: &ShardId, from: Position) -> PortResult<Box<dyn ShardReader>>;
}

/// Reads one shard, from a position on.
#[async_trait]
pub trait ShardReader: Send {
    /// What comes next, at once. After an error the same comes again.
    async fn next(&mut self) -> PortResult<Read>;
}
