//! Making a mirrored key equal to its source. Created and removed alike are hints: both heads are read, the rule
//! (`lifecycle/src/mirror.rs`) says what makes them equal, every write is conditional on what was seen, and the source is
//! looked at once more before the key is at rest (guard 13).
//!
//! A crash leaves the destination at an older state of the source, or an object without its row, or a row without its object;
//! the redelivery, or `reconcile`, makes them equal. A removal is buried first, so that the breaker counts it before anything is deleted (I7). Laws: V6, V8.

use crate::error::{FlowError, FlowResult, PortResult};
use crate::flows::breaker::{Breaker, check};
use crate::limits::MIRROR_ROUNDS;
use crate::policy::Policy;
use crate::ports::catalog::{RowChange, RowId, RowSet};
use crate::ports::metrics::Counter;
use crate::ports::objects::{Copied, CopyRequest, Head, META_SOURCE, Onto};
use crate::steps::copy_rows;
use crate::steps::look::look;
use crate::steps::purge::delete_mirrored;
use crate::wrap::owned::OWNER_KEY;
use lifecycle::copy_key::CopyName;
use lifecycle::event::{Current, Look, Version};
use lifecycle::guards::Guard;
use lifecycle::ids::{CopyKey, ETag, ObjectKey};
use lifecycle::mirror::{Equalise, Mirrored, equalise, source_mark};
use lifecycle::order::Order;
use lifecycle::row::{CopyRow, Tombstone};

/// Makes one key equal.
pub async fn mirror(policy: &Policy, key: &ObjectKey) -> FlowResult<()> {
    if key.as_str() == OWNER_KEY {
        tracing::warn!(policy = %policy.name, %key, "not mirrored: under this name a destination says whose it is");
        return Ok(());
    }
    let (rounds, looks_again) = match policy.rules.guards.hold(Guard::MirrorLooksAgain) {
        true => (MIRROR_ROUNDS, true),
        false => (1, false),
    };
    for _ in 0..rounds {
        let source = look(policy, key).await?;
        let destination = policy.destination.head(key, None).await?;
        let met = match equalise(&source, destination.as_ref().map(mirrored).as_ref()) {
            Equalise::Nothing => {
                // An earlier handler may have died between object and row: this redelivery is the last that comes by.
                let has_row = !policy.catalog.partition(key).await?.rows.is_empty();
                if has_row != matches!(source, Look::Present(_)) {
                    settle_row(policy, key).await?;
                }
                true
            }
            Equalise::Delete { if_match } => delete(policy, key, &if_match).await?,
            Equalise::Copy { version, onto } => copy(policy, key, &source, version, onto).await?,
        };
        if !looks_again || met && look(policy, key).await? == source {
            return Ok(());
        }
    }
    Err(FlowError::Unsettled { key: key.to_string(), rounds })
}

fn mirrored(head: &Head) -> Mirrored {
    Mirrored {
        etag: head.version.etag.clone(),
        size: head.version.size,
        checksum: head.checksum,
        source_mark: head.metadata.get(META_SOURCE).cloned(),
    }
}

/// Deletes what the source has no more, unless the breaker holds. `true`: done, or held until `release` (whose reconcile
/// comes back to it).
async fn delete(policy: &Policy, key: &ObjectKey, if_match: &ETag) -> PortResult<bool> {
    if !is_forgiven(policy, key).await? {
        let now = policy.clock.now();
        policy
            .catalog
            .bury(key, &Tombstone { order: removal_order(policy), time: now, noted_at: now, floating: false })
            .await?;
    }
    if check(policy).await? == Breaker::Tripped {
        return Ok(true);
    }
    if !delete_mirrored(policy, key, if_match).await? {
        return Ok(false);
    }
    settle_row(policy, key).await?;
    Ok(true)
}

/// Whether this removal was noted already and a person has released the breaker since: noted anew it would count anew, and
/// trip the breaker again over what was released. A key that was mirrored again after its tombstone is removed anew.
async fn is_forgiven(policy: &Policy, key: &ObjectKey) -> PortResult<bool> {
    let Some(released_at) = policy.catalog.state().await?.released_at else { return Ok(false) };
    let partition = policy.catalog.partition(key).await?;
    let Some(buried) = partition.tombstone.filter(|buried| buried.noted_at <= released_at) else { return Ok(false) };
    Ok(partition.rows.iter().all(|row| row.order <= buried.order))
}

/// Removals of a mirror are ordered by the time at which they were seen: no event's order takes part in a mirror.
fn removal_order(policy: &Policy) -> Order {
    Order::from_time(policy.clock.now())
}

/// Copies the source's content if the destination still is what was seen. `false`: either has changed.
async fn copy(
    policy: &Policy,
    key: &ObjectKey,
    source: &Look,
    version: Version,
    onto: Option<ETag>,
) -> PortResult<bool> {
    let request = CopyRequest {
        from: key.clone(),
        add_metadata: [(META_SOURCE.to_owned(), source_mark(&version))].into(),
        version,
        to: key.clone(),
        onto: onto.map_or(Onto::Nothing, Onto::This),
        seen: None,
    };
    let there = match policy.copier.copy(&request).await? {
        Copied::Done(there) => there,
        Copied::SourceGone | Copied::SourceChanged | Copied::DestinationChanged => return Ok(false),
    };
    if let Look::Present(current) = source {
        record(policy, key, current, &there).await?;
    }
    policy.metrics.add(Counter::Mirrored, 1);
    Ok(true)
}

/// The row of a mirrored object: for `ls` and `status`, never a reason to skip anything.
async fn record(policy: &Policy, key: &ObjectKey, current: &Current, there: &Head) -> PortResult<()> {
    let version = &current.version;
    let name = CopyName::of_event(version, Order::from_time(current.last_modified), current.last_modified);
    let copy_key = CopyKey::of(key.clone());
    let row = copy_rows::row(copy_key, &name, version.version_id.clone(), version.etag.clone(), there);
    policy.catalog.record_mirrored(key, &row).await
}

/// Makes the row of a key fit its objects, where those are equal: a crash between an object and its row leaves the one
/// without the other. The rows are read before the objects, so that a row which a handler has just written stays. Whoever
/// puts a row looks at the source again after it (guard 13): who deleted the object in between found no row to take along.
async fn settle_row(policy: &Policy, key: &ObjectKey) -> PortResult<()> {
    let rows = policy.catalog.partition(key).await?.rows;
    let source = look(policy, key).await?;
    let destination = policy.destination.head(key, None).await?;
    match (&source, &destination) {
        (Look::Absent, None) => {
            let forget = |row: CopyRow| RowChange {
                id: RowId { original: key.clone(), copy_key: row.copy_key },
                if_rev: row.rev,
                set: RowSet::Deleted,
            };
            let changes: Vec<RowChange> = rows.into_iter().map(forget).collect();
            if changes.is_empty() {
                return Ok(());
            }
            policy.catalog.change(&changes).await.into_iter().try_for_each(|result| result.map(drop))
        }
        (Look::Present(current), Some(there))
            if rows.is_empty() && equalise(&source, Some(&mirrored(there))) == Equalise::Nothing =>
        {
            record(policy, key, current, there).await
        }
        _ => Ok(()),
    }
}
