//! What can be asked of a data folder: one closed list, executed by one function (`execute.rs`), in the daemon and in a
//! command's own process alike. These types cross the control socket as JSON.

use serde::{Deserialize, Serialize};

/// One command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "kebab-case")]
pub(crate) enum Command {
    /// How everything stands.
    Status {
        /// Fail when a person should look.
        check: bool,
    },
    /// The keys that have copies.
    Ls {
        /// Only of this policy.
        policy: Option<String>,
        /// Only keys under this prefix.
        prefix: String,
    },
    /// The copies of one key.
    History {
        /// Only of this policy.
        policy: Option<String>,
        /// The original's key.
        key: String,
    },
    /// Writes copies to where they are wanted.
    Restore(Restore),
    /// Brings removed objects back, with their history.
    Undelete(Undelete),
    /// Purges what is due, or says what is.
    Clean {
        /// Only this policy.
        policy: Option<String>,
        /// Purge at once.
        now: bool,
    },
    /// Releases tripped breakers.
    Release {
        /// Only this policy's.
        policy: Option<String>,
    },
    /// Compares catalog, destination and source, and settles what differs.
    Reconcile {
        /// Only this policy.
        policy: Option<String>,
    },
    /// Copies what was there before and has no copy yet.
    Backfill {
        /// Only of this policy.
        policy: Option<String>,
        /// Only keys under this prefix.
        prefix: String,
    },
    /// Reads and verifies the journal.
    Audit {
        /// How many of the newest lines to show.
        lines: usize,
    },
    /// Archived records.
    Archive(ArchiveAct),
    /// Records of a table.
    Record(RecordAct),
    /// Events that nobody could handle.
    DeadLetters(DeadLetterAct),
    /// The endpoint's keys.
    Credentials {
        /// Make new ones; the old ones stop working.
        rotate: bool,
    },
}

/// Which keys a command is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum What {
    /// One key.
    Key(String),
    /// All keys under a prefix.
    Prefix(String),
    /// All keys of the policy.
    Everything,
    /// Everything removed since then (Unix ms).
    Since(i64),
}

/// Which copy of each key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Which {
    /// The newest there is.
    Newest,
    /// What was current at that moment (Unix ms).
    At(i64),
    /// This copy, by its name in the destination.
    Copy(String),
}

/// Where restored objects go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum To {
    /// Back to the policy's source.
    Source,
    /// Into a folder on this machine: an absolute path.
    Folder(String),
    /// Into a bucket of the endpoint.
    Bucket(String),
}

/// `archive …`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ArchiveAct {
    /// What is archived.
    Ls {
        /// Of this service.
        service: String,
        /// Deleted on these days.
        days: RecordDays,
        /// Only by this cause.
        cause: Option<String>,
        /// What lies in archive tiers.
        retrieve: RetrieveOf,
    },
    /// One record.
    Get {
        /// Of this service.
        service: String,
        /// Of this table, where several share the service.
        table: Option<String>,
        /// Its key, or the name of an object.
        key: String,
        /// The newest deletion up to this moment (Unix ms).
        at: Option<i64>,
        /// What lies in archive tiers.
        retrieve: RetrieveOf,
    },
    /// Puts records back.
    Restore(RestoreRecordsOf),
    /// A statement over the records of archives.
    Query {
        /// The statement.
        sql: String,
        /// Only of this service.
        service: Option<String>,
        /// Deleted on these days.
        days: RecordDays,
        /// What lies in archive tiers.
        retrieve: RetrieveOf,
    },
    /// How many were deleted, by day, table and cause.
    Report {
        /// Only of this service.
        service: Option<String>,
        /// In which month: `yyyy-mm`.
        month: String,
        /// What lies in archive tiers.
        retrieve: RetrieveOf,
    },
    /// Takes out of an archive what nobody needs any more.
    Drop {
        /// Of which service.
        service: String,
        /// The object.
        object: String,
    },
    /// Packs records.
    Pack {
        /// Of this service.
        service: String,
        /// Deleted on these days.
        days: RecordDays,
        /// Only say what would be packed.
        dry_run: bool,
    },
    /// Sends a record the whole way.
    SelfTest(SelfTestOf),
}

/// `archive self-test`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SelfTestOf {
    /// The table, as a person names it.
    pub(crate) table: String,
    /// The time to live deletes the record.
    pub(crate) ttl: bool,
    /// How long each wait may take.
    pub(crate) within_ms: u64,
}

/// `record …`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "act", rename_all = "kebab-case")]
pub(crate) enum RecordAct {
    /// Marks one, so that its table deletes it later.
    SoftDelete {
        /// The table, as a person names it.
        table: String,
        /// The record's key, as a person types it.
        key: Vec<String>,
        /// How long it stays until then.
        after_ms: u64,
    },
    /// Takes that back.
    Undelete {
        /// The table, as a person names it.
        table: String,
        /// The record's key, as a person types it.
        key: Vec<String>,
    },
}

/// Days, by any of their moments (Unix ms).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RecordDays {
    /// The first.
    pub(crate) from: Option<i64>,
    /// The last.
    pub(crate) to: Option<i64>,
}

/// What becomes of a time to live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum TtlOf {
    /// It stays.
    Keep,
    /// It goes, if it is over.
    Strip,
    /// It is that long from now on, if it is over (ms).
    Extend(u64),
}

/// `archive restore`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RestoreRecordsOf {
    /// Of this service.
    pub(crate) service: String,
    /// This record; `None`: all of the days.
    pub(crate) key: Option<String>,
    /// Its newest deletion up to this moment (Unix ms).
    pub(crate) at: Option<i64>,
    /// Deleted on these days.
    pub(crate) days: RecordDays,
    /// Only by this cause.
    pub(crate) cause: Option<String>,
    /// Only those whose newest deletion meets this condition, in SQL.
    #[serde(rename = "where")]
    pub(crate) condition: Option<String>,
    /// Records of this table, where several share the service.
    pub(crate) from_table: Option<String>,
    /// Into this table.
    pub(crate) to: Option<String>,
    /// Replace what is there.
    pub(crate) overwrite: bool,
    /// What becomes of a time to live.
    pub(crate) ttl: TtlOf,
    /// At most so many a second.
    pub(crate) rate: Option<u32>,
    /// Only say what would happen.
    pub(crate) dry_run: bool,
    /// What lies in archive tiers.
    pub(crate) retrieve: RetrieveOf,
}

/// How fast an archive tier shall give back what it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum SpeedOf {
    /// In hours.
    Standard,
    /// In up to two days.
    Bulk,
    /// In minutes.
    Expedited,
}

/// What to do about what lies in archive tiers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RetrieveOf {
    /// Ask for it, so fast; `None`: only say what it would take.
    pub(crate) speed: Option<SpeedOf>,
    /// For how many days it shall stay readable.
    pub(crate) days: u32,
    /// Wait for it.
    pub(crate) wait: bool,
}

/// `restore`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Restore {
    /// Of this policy.
    pub(crate) policy: Option<String>,
    /// Which keys.
    pub(crate) what: What,
    /// Which copies.
    pub(crate) which: Which,
    /// Where to.
    pub(crate) to: To,
    /// Only say what would happen.
    pub(crate) dry_run: bool,
    /// Replace what is newer.
    pub(crate) overwrite: bool,
    /// Wait for copies in an archive tier.
    pub(crate) wait: bool,
}

/// `undelete`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Undelete {
    /// Of this policy.
    pub(crate) policy: Option<String>,
    /// Which keys.
    pub(crate) what: What,
    /// Only the newest copy of each comes back into the history.
    pub(crate) newest_only: bool,
}

/// `dlq …`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "act", rename_all = "kebab-case")]
pub(crate) enum DeadLetterAct {
    /// Names them.
    List,
    /// Shows one.
    Show {
        /// Its number.
        id: u64,
    },
    /// Puts them back into the queue.
    Redrive {
        /// Their numbers; `None`: all.
        ids: Option<Vec<u64>>,
    },
    /// Forgets them.
    Drop {
        /// Their numbers; `None`: all.
        ids: Option<Vec<u64>>,
    },
}
