//! The lines that flows write into the journal (I12).

use crate::policy::Policy;
use crate::ports::journal::{Action, Entry};
use lifecycle::ids::ObjectKey;
use lifecycle::row::CopyRow;

/// Who acts when no person gave the command.
pub const SERVICE: &str = "service";

/// A line about one copy.
pub fn about_copy(policy: &Policy, action: Action, who: &str, key: &ObjectKey, row: &CopyRow, rule: &str) -> Entry {
    Entry {
        copy_key: Some(row.copy_key.clone()),
        size: Some(row.size),
        checksum: row.checksum,
        ..about_key(policy, action, who, Some(key), rule)
    }
}

/// A line about one key, or about the whole policy.
pub fn about_key(policy: &Policy, action: Action, who: &str, key: Option<&ObjectKey>, rule: &str) -> Entry {
    Entry {
        at: policy.clock.now(),
        who: who.to_owned(),
        policy: policy.name.clone(),
        action,
        key: key.cloned(),
        copy_key: None,
        size: None,
        checksum: None,
        rule: rule.to_owned(),
    }
}
