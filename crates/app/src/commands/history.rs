//! `history KEY`: the copies of one key, what state they are in and why, when what happens to them next, and what the
//! journal knows of those that are gone.

use super::audit::line;
use super::clean::next_clean;
use crate::answer::{Answer, Copy, History, JournalLine, PolicyHistory};
use crate::exit::Failure;
use crate::instance::{Instance, object_key};
use crate::when::relative;
use engine::limits::HISTORY_JOURNAL_LINES;
use engine::policy::{Mode, Policy};
use engine::ports::journal::JournalRead;
use lifecycle::clean::purge_due;
use lifecycle::ids::ObjectKey;
use lifecycle::row::{CopyRow, CopyState, Origin, Partition};
use lifecycle::time::UnixMs;

/// Reads it.
pub(crate) async fn history(instance: &Instance, policy: Option<&str>, key: &str) -> Result<Answer, Failure> {
    let key = object_key(key)?;
    let now = instance.now();
    let lines = instance.journal_read.about(Some(&key), HISTORY_JOURNAL_LINES).await?;
    let lines: Vec<JournalLine> = lines.into_iter().map(line).collect();
    let mut policies = Vec::new();
    for policy in instance.selected(policy)? {
        let part = of_policy(instance, &policy, &key, &lines, now).await?;
        if !part.copies.is_empty() || !part.journal.is_empty() || part.removed_at_ms.is_some() {
            policies.push(part);
        }
    }
    Ok(Answer::History(History { key: key.to_string(), now_ms: now.0, policies }))
}

async fn of_policy(
    instance: &Instance,
    policy: &Policy,
    key: &ObjectKey,
    lines: &[JournalLine],
    now: UnixMs,
) -> Result<PolicyHistory, Failure> {
    let Partition { mut rows, tombstone } = policy.catalog.partition(key).await?.in_basis(policy.rules.basis);
    rows.sort_by(|a, b| {
        let by_order = b.order.partial_cmp(&a.order).unwrap_or_else(|| b.created_at.cmp(&a.created_at));
        by_order.then_with(|| b.copy_key.cmp(&a.copy_key))
    });
    let tripped = policy.catalog.state().await?.tripped.is_some();
    Ok(PolicyHistory {
        policy: policy.name.to_string(),
        copies: rows.iter().map(|row| copy(instance, policy, row, tripped, now)).collect(),
        removed_at_ms: tombstone.map(|tombstone| tombstone.time.0),
        journal: lines.iter().filter(|line| line.policy == policy.name.as_str()).cloned().collect(),
    })
}

fn copy(instance: &Instance, policy: &Policy, row: &CopyRow, tripped: bool, now: UnixMs) -> Copy {
    let (state, disowned_at, reason) = match row.state {
        CopyState::Active { .. } => ("active", None, None),
        CopyState::Disowned { at, reason } => ("disowned", Some(at.0), Some(reason)),
    };
    let next_at = match row.state {
        CopyState::Active { due_at } => due_at,
        CopyState::Disowned { .. } => purge_due(row, &policy.rules),
    };
    Copy {
        copy_key: row.copy_key.to_string(),
        state: state.to_owned(),
        created_at_ms: row.created_at.0,
        size: row.size,
        etag: row.etag.to_string(),
        version_id: row.version_id.as_ref().map(ToString::to_string),
        origin: match row.origin {
            Origin::Event => "event",
            Origin::Look => "look",
            Origin::Undelete { .. } => "undelete",
        }
        .to_owned(),
        disowned_at_ms: disowned_at,
        removed_at_ms: row.removed_at.map(|at| at.0),
        reason: reason.map(|reason| reason.code().to_owned()),
        reason_text: reason.map(|reason| reason.to_string()),
        next_at_ms: next_at.map(|at| at.0),
        next: next(instance, policy, row, next_at, tripped, now),
    }
}

/// What happens next by time alone, in words.
fn next(
    instance: &Instance,
    policy: &Policy,
    row: &CopyRow,
    next_at: Option<UnixMs>,
    tripped: bool,
    now: UnixMs,
) -> String {
    match (row.is_active(), next_at) {
        (true, _) if policy.mode == Mode::Mirror => "equal to the source".to_owned(),
        (true, None) => "kept".to_owned(),
        (true, Some(at)) => format!("surplus {}", relative(at, now)),
        (false, _) if tripped => "held by the breaker until `release`".to_owned(),
        (false, Some(at)) if at > now => format!("may be purged {}", relative(at, now)),
        (false, _) => match next_clean(instance, policy, now) {
            Some(at) => format!("purged by the next clean, {}", relative(at, now)),
            None => "purged by the next clean".to_owned(),
        },
    }
}
