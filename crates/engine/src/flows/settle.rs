//! Settling a key: read its whole partition, ask the rule (`lifecycle/src/settle.rs`), carry out what it says, until
//! there is nothing left to do.
//!
//! Level-triggered: it reasons from what stands in the catalog, never from what an event says happens next, so that
//! doing it again changes nothing. Every way out is "settled" or an error that puts the event back (V6).
//! A crash leaves: after a claim, a disowned row whose bytes are still there (purged by the next settle or clean); after a
//! looked copy, bytes without a row (adopted by `reconcile`). Laws: I3, I4, V1, V2, V4, V5.

use crate::error::{ErrorKind, FlowError, FlowResult, PortError, PortResult};
use crate::limits::{CLEAN_PAGE, SETTLE_ROUNDS};
use crate::policy::Policy;
use crate::ports::catalog::{Changed, RowChange, RowId, RowSet};
use crate::ports::journal::{Action, Entry};
use crate::ports::metrics::Counter;
use crate::ports::objects::{Copied, CopyRequest, Seen};
use crate::report::Report;
use crate::steps::copy_rows;
use crate::steps::journal_lines::{SERVICE, about_copy};
use crate::steps::look::look_closely;
use crate::steps::purge::{OwnedRow, purge, purge_claimed};
use lifecycle::copy_key::{CopyName, Identity};
use lifecycle::event::Current;
use lifecycle::guards::Guard;
use lifecycle::ids::{CopyKey, ObjectKey};
use lifecycle::order::Order;
use lifecycle::row::{CopyRow, CopyState, Origin, Partition};
use lifecycle::settle::{Ask, Step, Verdicts, next_step};

/// Settles one key.
pub async fn settle(policy: &Policy, key: &ObjectKey, ask: Ask) -> FlowResult<()> {
    for round in 0..SETTLE_ROUNDS {
        policy.metrics.add(if round == 0 { Counter::Settled } else { Counter::SettledAgain }, 1);
        if settle_once(policy, key, &ask).await? == Round::AtRest {
            return Ok(());
        }
    }
    Err(FlowError::Unsettled { key: key.to_string(), rounds: SETTLE_ROUNDS })
}

#[derive(PartialEq, Eq)]
enum Round {
    /// Nothing is left to do.
    AtRest,
    /// A write may have changed the verdicts, or was refused: read again (V1).
    Again,
}

async fn settle_once(policy: &Policy, key: &ObjectKey, ask: &Ask) -> PortResult<Round> {
    let early_look = match policy.rules.guards.hold(Guard::LookAfterRead) {
        true => None,
        false => Some(look_closely(policy, key).await?),
    };
    let partition = policy.catalog.partition(key).await?.in_basis(policy.rules.basis);
    let now = policy.clock.now();
    let mut step = next_step(&partition, ask, None, &policy.rules, now);
    let mut seen = None;
    if step == Step::Look {
        let (found, more) = match early_look {
            None => look_closely(policy, key).await?,
            Some(found) => found,
        };
        seen = more;
        step = next_step(&partition, ask, Some(&found), &policy.rules, now);
    }
    match step {
        Step::Look => {
            let kind = ErrorKind::Internal("the rule asked for a second look at the same rows".to_owned());
            Err(PortError::new("settle", key, kind))
        }
        Step::Bury(tombstone) => {
            policy.catalog.bury(key, &tombstone).await?;
            Ok(Round::Again)
        }
        Step::CopyCurrent { order, current } => {
            copy_current(policy, key, order, &current, seen).await?;
            Ok(Round::Again)
        }
        Step::Raise { copy_key, rev, order } => {
            let id = RowId { original: key.clone(), copy_key };
            change(policy, vec![RowChange { id, if_rev: rev, set: RowSet::Raised { order } }]).await?;
            Ok(Round::Again)
        }
        Step::Apply(verdicts) => apply(policy, key, &partition, verdicts).await,
    }
}

/// Copies the source's current content to a name that no other handler uses (guard 12), then puts its row.
/// `seen`: what else is known of it.
pub(super) async fn copy_current(
    policy: &Policy,
    key: &ObjectKey,
    order: Order,
    current: &Current,
    seen: Option<Seen>,
) -> PortResult<()> {
    let unique = policy.rules.guards.hold(Guard::LookedNamesAreUnique);
    let name = CopyName {
        created_at: current.last_modified,
        order,
        floating: true,
        origin: Origin::Look,
        nonce: Some(if unique { policy.nonces.nonce() } else { "0".to_owned() }),
        identity: Identity::of(&current.version),
    };
    let (copy_key, request) = copy_rows::request(key, &current.version, &name);
    let request = CopyRequest { seen, ..request };
    match policy.copier.copy(&request).await? {
        Copied::Done(there) => {
            let Current { version, .. } = current;
            let row = copy_rows::row(copy_key, &name, version.version_id.clone(), version.etag.clone(), &there);
            copy_rows::put_row(policy, key, &row).await
        }
        // The source moved on: the next round looks again.
        Copied::SourceGone | Copied::SourceChanged | Copied::DestinationChanged => Ok(()),
    }
}

/// Claims what the verdicts disown, then purges what of it is surplus, and what a crash left disowned as surplus.
async fn apply(policy: &Policy, key: &ObjectKey, partition: &Partition, verdicts: Verdicts) -> PortResult<Round> {
    let now = policy.clock.now();
    let read = |copy_key: &CopyKey| partition.rows.iter().find(|row| row.copy_key == *copy_key);
    let id = |copy_key: &CopyKey| RowId { original: key.clone(), copy_key: copy_key.clone() };

    // What is purged in the same breath is journalled there, once.
    let lines: Vec<Entry> = verdicts
        .disown
        .iter()
        .filter(|verdict| !verdict.reason.is_surplus())
        .filter_map(|verdict| Some((read(&verdict.copy_key)?, verdict.reason)))
        .map(|(row, reason)| about_copy(policy, Action::Disown, SERVICE, key, row, reason.code()))
        .collect();
    if !lines.is_empty() {
        policy.journal.append(&lines).await?;
    }

    let mut changes: Vec<RowChange> = Vec::new();
    for verdict in &verdicts.disown {
        let set = RowSet::Disowned { at: now, reason: verdict.reason, removed_at: verdict.removed_at };
        changes.push(RowChange { id: id(&verdict.copy_key), if_rev: verdict.rev.clone(), set });
    }
    for due in &verdicts.due {
        let set = RowSet::Due { at: due.due_at };
        changes.push(RowChange { id: id(&due.copy_key), if_rev: due.rev.clone(), set });
    }
    if !policy.rules.guards.hold(Guard::BytesAfterClaim) {
        purge_before_claim(policy, key, partition, &verdicts).await?;
    }
    let results = change(policy, changes).await?;
    let refused = results.contains(&Changed::Refused);

    let claimed = verdicts.disown.iter().zip(&results).filter_map(|(verdict, result)| match result {
        Changed::Applied(rev) => {
            let state = CopyState::Disowned { at: now, reason: verdict.reason };
            Some(CopyRow { state, rev: rev.clone(), ..read(&verdict.copy_key)?.clone() })
        }
        Changed::Refused => None,
    });
    let claimed: Vec<CopyRow> = claimed.collect();
    policy.metrics.add(Counter::Disowned, claimed.len() as u64);
    let mine: Vec<OwnedRow> =
        claimed.into_iter().filter(is_surplus).map(|row| OwnedRow { original: key.clone(), row }).collect();
    let left_by_a_crash = partition.rows.iter().filter(|row| is_surplus(row)).map(|row| id(&row.copy_key)).collect();
    let purged = purge_surplus(policy, mine, left_by_a_crash).await?;
    Ok(if refused || purged == Round::Again { Round::Again } else { Round::AtRest })
}

/// Purges surplus rows: those claimed just now as they are, those that somebody else claimed after one more read, since a
/// redelivery may have made the copy anew. [`Round::Again`]: somebody wrote a row whose bytes went meanwhile. A failure
/// fails the settling, so that the event comes back.
async fn purge_surplus(policy: &Policy, mine: Vec<OwnedRow>, left_by_a_crash: Vec<RowId>) -> PortResult<Round> {
    let mut report = Report::of("purge");
    for rows in mine.chunks(CLEAN_PAGE) {
        purge_claimed(policy, rows.to_vec(), &mut report).await?;
    }
    for ids in left_by_a_crash.chunks(CLEAN_PAGE) {
        if report.counted("held") > 0 {
            break; // The breaker has tripped: there may be many, and all of them wait.
        }
        purge(policy, ids, &mut report).await?;
    }
    match report.failed.first() {
        None if report.counted("changed-meanwhile") > 0 => Ok(Round::Again),
        None => Ok(Round::AtRest),
        Some(item) => Err(PortError::new("purge copy", &item.object, ErrorKind::Unavailable)
            .because(std::io::Error::other(item.why.clone()))),
    }
}

/// Disowned as surplus: claimed for a purge that waits for no grace.
pub(crate) fn is_surplus(row: &CopyRow) -> bool {
    matches!(row.state, CopyState::Disowned { reason, .. } if reason.is_surplus())
}

/// Carries out conditional changes; the first failed one fails all, since settling starts over anyway.
async fn change(policy: &Policy, mut changes: Vec<RowChange>) -> PortResult<Vec<Changed>> {
    if changes.is_empty() {
        return Ok(Vec::new());
    }
    if !policy.rules.guards.hold(Guard::ClaimIsConditional) {
        forget_conditions(policy, &mut changes).await?;
    }
    policy.catalog.change(&changes).await.into_iter().collect()
}

/// What the code would do without the guard "claim is conditional": take whatever rev stands there now.
async fn forget_conditions(policy: &Policy, changes: &mut [RowChange]) -> PortResult<()> {
    let ids: Vec<RowId> = changes.iter().map(|change| change.id.clone()).collect();
    for (change, row) in changes.iter_mut().zip(policy.catalog.rows(&ids).await?) {
        if let Some(row) = row {
            change.if_rev = row.rev;
        }
    }
    Ok(())
}

/// What the code would do without the guard "bytes go after the claim".
async fn purge_before_claim(
    policy: &Policy,
    key: &ObjectKey,
    partition: &Partition,
    verdicts: &Verdicts,
) -> PortResult<()> {
    let now = policy.clock.now();
    let surplus = verdicts.disown.iter().filter(|verdict| verdict.reason.is_surplus()).filter_map(|verdict| {
        let row = partition.rows.iter().find(|row| row.copy_key == verdict.copy_key)?;
        let state = CopyState::Disowned { at: now, reason: verdict.reason };
        Some(OwnedRow { original: key.clone(), row: CopyRow { state, ..row.clone() } })
    });
    purge_surplus(policy, surplus.collect(), Vec::new()).await.map(drop)
}
