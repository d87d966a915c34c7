//! What `history` and `audit` answer: the copies of a key, and what the journal says. Times are Unix milliseconds (`_ms`).

use serde::{Deserialize, Serialize};

/// `history`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct History {
    /// The original's key.
    pub(crate) key: String,
    /// When the answer was given.
    pub(crate) now_ms: i64,
    /// One part per policy that knows the key.
    pub(crate) policies: Vec<PolicyHistory>,
}

/// What one policy has of a key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct PolicyHistory {
    /// The policy.
    pub(crate) policy: String,
    /// The copies, newest first.
    pub(crate) copies: Vec<Copy>,
    /// When the newest removal happened, as far as it is remembered.
    pub(crate) removed_at_ms: Option<i64>,
    /// What the journal knows about the key, oldest first.
    pub(crate) journal: Vec<JournalLine>,
}

/// One copy.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Copy {
    /// Its name in the destination.
    pub(crate) copy_key: String,
    /// `active` or `disowned`.
    pub(crate) state: String,
    /// When its version was created at the source.
    pub(crate) created_at_ms: i64,
    /// Bytes.
    pub(crate) size: u64,
    /// The content's tag at the source.
    pub(crate) etag: String,
    /// The version at the source.
    pub(crate) version_id: Option<String>,
    /// `event`, `look` or `undelete`.
    pub(crate) origin: String,
    /// When it was disowned.
    pub(crate) disowned_at_ms: Option<i64>,
    /// When its original was removed.
    pub(crate) removed_at_ms: Option<i64>,
    /// Why it was disowned: a code.
    pub(crate) reason: Option<String>,
    /// The same in words.
    pub(crate) reason_text: Option<String>,
    /// When something happens next by time alone: it becomes surplus, or may be purged.
    pub(crate) next_at_ms: Option<i64>,
    /// What happens next, in words.
    pub(crate) next: String,
}

/// One line of the journal.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct JournalLine {
    /// Its number.
    pub(crate) number: u64,
    /// When.
    pub(crate) at_ms: i64,
    /// Who.
    pub(crate) who: String,
    /// Of which policy.
    pub(crate) policy: String,
    /// What.
    pub(crate) action: String,
    /// The original's key.
    pub(crate) key: Option<String>,
    /// Which copy.
    pub(crate) copy_key: Option<String>,
    /// Its size in bytes.
    pub(crate) size: Option<u64>,
    /// By which rule.
    pub(crate) rule: String,
}

/// `audit`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Audit {
    /// Lines read.
    pub(crate) lines: u64,
    /// The hash of the last line.
    pub(crate) head: String,
    /// Where the chain is broken.
    pub(crate) faults: Vec<String>,
    /// The newest lines, oldest first.
    pub(crate) newest: Vec<JournalLine>,
}
