//! What is laid aside of a record that could not be archived: the record whole, as it came, and why. A layout with a
//! version: a newer one is refused. Pure.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Version of the layout.
const VERSION: u32 = 1;

/// A record that could not be archived.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    format: u32,
    /// Of which table.
    pub table: String,
    /// Why it was not archived.
    pub why: String,
    /// The names of the key's attributes, in the order of the key schema, where they were known: the table may be gone by the
    /// time that the record is archived after all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Vec<String>>,
    /// The record of the stream.
    pub record: Value,
}

impl Note {
    /// A note to be.
    pub fn new(table: &str, why: &str, key: Option<Vec<String>>, record: Value) -> Note {
        Note { format: VERSION, table: table.to_owned(), why: why.to_owned(), key, record }
    }

    /// The version of a newer layout, which this one cannot read.
    pub fn newer(&self) -> Option<u32> {
        (self.format > VERSION).then_some(self.format)
    }
}
