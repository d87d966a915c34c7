//! What `dlq` answers. Times are Unix milliseconds (`_ms`).

use serde::{Deserialize, Serialize};

/// `dlq list` and `dlq show`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct DeadLetters {
    /// When the answer was given.
    pub(crate) now_ms: i64,
    /// The letters, oldest first.
    pub(crate) letters: Vec<DeadLetterView>,
    /// All that there are.
    pub(crate) total: u64,
    /// Where there may be more, and why that is not known.
    #[serde(default)]
    pub(crate) unknown: Vec<String>,
}

/// One dead letter.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct DeadLetterView {
    /// Its number.
    pub(crate) id: u64,
    /// The bucket.
    pub(crate) bucket: String,
    /// The key.
    pub(crate) key: String,
    /// What happened: `created`, `removed`, `version-removed`, `record-removed`; `unreadable`.
    pub(crate) event: String,
    /// When it happened.
    pub(crate) happened_at_ms: i64,
    /// How often it was tried.
    pub(crate) attempts: u32,
    /// The last failure.
    pub(crate) why: String,
    /// When it was given up.
    pub(crate) died_at_ms: i64,
    /// Of a deleted record that could not be archived: its table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) table: Option<String>,
    /// Of such a record: who deleted it, `user` or `ttl`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cause: Option<String>,
    /// Of such a record, where one letter is shown: all of it, as the stream told it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) record: Option<serde_json::Value>,
}
