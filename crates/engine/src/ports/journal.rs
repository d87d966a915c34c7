//! The journal (I12): an append-only, hash-chained record of everything that destroys, brings back or refuses. It outlives
//! the copies.

use crate::error::PortResult;
use async_trait::async_trait;
use lifecycle::ids::{Checksum, CopyKey, ObjectKey, PolicyName};
use lifecycle::time::UnixMs;

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// A copy was given up.
    Disown,
    /// A copy's bytes and row were deleted (written just before).
    Purge,
    /// A mirrored object was deleted, because its source was.
    MirrorDelete,
    /// A copy was written to where a person wanted it.
    Restore,
    /// A removed object's copy was brought back into the history.
    Undelete,
    /// The breaker stopped every purge.
    Trip,
    /// A person released the breaker.
    Release,
    /// A restore refused a copy (damaged, or something newer in its way).
    Refuse,
    /// A person marked a record of a table, so that its time to live deletes it later.
    SoftDelete,
    /// A person dropped dead letters: events that nobody will handle.
    DropEvent,
}

impl Action {
    /// The word in the journal.
    pub fn code(self) -> &'static str {
        match self {
            Action::Disown => "disown",
            Action::Purge => "purge",
            Action::MirrorDelete => "mirror-delete",
            Action::Restore => "restore",
            Action::Undelete => "undelete",
            Action::Trip => "trip",
            Action::Release => "release",
            Action::Refuse => "refuse",
            Action::SoftDelete => "soft-delete",
            Action::DropEvent => "drop-event",
        }
    }
}

/// One line to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When.
    pub at: UnixMs,
    /// Who: `service`, or the user who gave the command.
    pub who: String,
    /// Of which policy.
    pub policy: PolicyName,
    /// What.
    pub action: Action,
    /// The original's key; `None` for what concerns the whole policy.
    pub key: Option<ObjectKey>,
    /// Which copy.
    pub copy_key: Option<CopyKey>,
    /// Its size in bytes.
    pub size: Option<u64>,
    /// Its checksum.
    pub checksum: Option<Checksum>,
    /// By which rule or for which reason: a code.
    pub rule: String,
}

/// One line as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its number, from 1.
    pub number: u64,
    /// What it says; `action` as a word, since later versions may write words that this one does not know.
    pub at: UnixMs,
    /// Who.
    pub who: String,
    /// Of which policy.
    pub policy: PolicyName,
    /// What.
    pub action: String,
    /// The original's key.
    pub key: Option<String>,
    /// Which copy.
    pub copy_key: Option<String>,
    /// Its size in bytes.
    pub size: Option<u64>,
    /// Its checksum.
    pub checksum: Option<Checksum>,
    /// By which rule.
    pub rule: String,
}

impl Line {
    /// What an entry becomes as the line of that number.
    pub fn of(number: u64, entry: &Entry) -> Line {
        Line {
            number,
            at: entry.at,
            who: entry.who.clone(),
            policy: entry.policy.clone(),
            action: entry.action.code().to_owned(),
            key: entry.key.as_ref().map(ToString::to_string),
            copy_key: entry.copy_key.as_ref().map(ToString::to_string),
            size: entry.size,
            checksum: entry.checksum,
            rule: entry.rule.clone(),
        }
    }
}

/// What `audit` found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audit {
    /// Lines read.
    pub lines: u64,
    /// The hash of the last line: note it elsewhere to notice a journal cut short.
    pub head: String,
    /// Where the chain is broken, each with what is wrong: file and line.
    pub faults: Vec<String>,
}

/// Writes the journal.
#[async_trait]
pub trait Journal: Send + Sync {
    /// Appends the lines, in order; durable when it returns. Called before the act.
    async fn append(&self, entries: &[Entry]) -> PortResult<()>;
}

/// Reads the journal.
#[async_trait]
pub trait JournalRead: Send + Sync {
    /// The newest lines about a key (`None`: about anything), oldest first, at most `limit`.
    async fn about(&self, key: Option<&ObjectKey>, limit: usize) -> PortResult<Vec<Line>>;

    /// Reads everything and checks every link of the chain.
    async fn audit(&self) -> PortResult<Audit>;
}
