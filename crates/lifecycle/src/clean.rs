//! The cleaner's rule: which disowned copies may go now.

use crate::policy::Rules;
use crate::row::{CopyRow, CopyState};
use crate::time::UnixMs;

/// Whether a copy's bytes may go: it is disowned, as surplus or with its grace over, and past its protection (I7).
pub fn may_purge(row: &CopyRow, rules: &Rules, now: UnixMs) -> bool {
    let CopyState::Disowned { at, reason } = row.state else { return false };
    let grace_over = reason.is_surplus() || at.plus(rules.grace) <= now;
    grace_over && row.created_at.runs_until(rules.protect_for, now).is_none()
}

/// When a disowned copy may go, if nothing changes. `None` while it is active.
pub fn purge_due(row: &CopyRow, rules: &Rules) -> Option<UnixMs> {
    let CopyState::Disowned { at, reason } = row.state else { return None };
    let grace_ends = if reason.is_surplus() { at } else { at.plus(rules.grace) };
    Some(row.created_at.runs_until(rules.protect_for, grace_ends).unwrap_or(grace_ends))
}
