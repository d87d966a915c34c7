//! The only file that deletes from a policy's destination, or archived records (I3): copies that were claimed, mirrored objects
//! whose source is gone, archived objects whose records stand in a pack, and what a person drops by its name.
//!
//! Order of writes: the claim (a disowned row) is durable before this file is called; then the journal's line; then the
//! bytes; then the row. A crash after the bytes leaves a disowned row without bytes, which the next clean, or the next
//! settle of the key, purges again: deleting what is gone succeeds. A crash before the bytes leaves a journal line for a
//! purge that comes later. Laws: I1, I3, I7, I12, V4.

use crate::error::PortResult;
use crate::policy::Policy;
use crate::ports::catalog::{Changed, RowChange, RowId, RowSet};
use crate::ports::journal::{Action, Entry, Journal};
use crate::ports::metrics::Counter;
use crate::ports::objects::{ObjectPurge, PurgeItem, Purged};
use crate::report::Report;
use crate::steps::packs::PackedOriginal;
use lifecycle::archive::ServiceName;
use lifecycle::clean::may_purge;
use lifecycle::guards::Guard;
use lifecycle::ids::{ETag, ObjectKey, PolicyName};
use lifecycle::row::{CopyRow, CopyState};
use lifecycle::time::UnixMs;
use std::sync::Arc;

/// The right to delete from one destination. Nothing but this file can use it.
#[derive(Clone)]
pub struct Purger(Arc<dyn ObjectPurge>);

impl Purger {
    /// Wraps the handle when a policy is wired.
    pub fn new(objects: Arc<dyn ObjectPurge>) -> Purger {
        Purger(objects)
    }
}

/// A row with the key that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedRow {
    /// The original's key.
    pub original: ObjectKey,
    /// The row.
    pub row: CopyRow,
}

impl OwnedRow {
    fn id(&self) -> RowId {
        RowId { original: self.original.clone(), copy_key: self.row.copy_key.clone() }
    }
}

/// Reads the rows once more, strongly, and purges those that may go. For rows known from the index or an earlier read.
pub async fn purge(policy: &Policy, ids: &[RowId], report: &mut Report) -> PortResult<()> {
    let rows = policy.catalog.rows(ids).await?;
    let found =
        ids.iter().zip(rows).filter_map(|(id, row)| Some(OwnedRow { original: id.original.clone(), row: row? }));
    purge_claimed(policy, found.collect(), report).await
}

/// Purges rows that were read, or claimed, just now; the others are left alone. At most 1,000.
///
/// A tripped breaker holds everything (I7): the copies stay disowned and wait.
pub async fn purge_claimed(policy: &Policy, rows: Vec<OwnedRow>, report: &mut Report) -> PortResult<()> {
    let now = policy.clock.now();
    let checked = policy.rules.guards.hold(Guard::PurgeReadsAgain);
    let (due, early): (Vec<_>, Vec<_>) =
        rows.into_iter().partition(|owned| !checked || may_purge(&owned.row, &policy.rules, now));
    report.count("not-due", early.len() as u64);
    if due.is_empty() {
        return Ok(());
    }
    if policy.catalog.state().await?.tripped.is_some() {
        report.count("held", due.len() as u64);
        return Ok(());
    }
    let lines: Vec<Entry> = due.iter().map(|owned| journal_line(policy, owned)).collect();
    policy.journal.append(&lines).await?;

    let items: Vec<PurgeItem> = due.iter().map(|owned| item(owned.row.copy_key.object(), None)).collect();
    let deleted = policy.purger.0.purge(&items).await;
    let mut without_bytes = Vec::with_capacity(due.len());
    for (owned, result) in due.into_iter().zip(deleted) {
        match result {
            Ok(_) => without_bytes.push(owned),
            Err(error) => report.fail_with(&owned.row.copy_key, &error),
        }
    }
    delete_rows(policy, without_bytes, report).await;
    Ok(())
}

/// Takes back a row that was adopted for bytes that are gone, if nobody has changed it since.
pub async fn delete_row_without_bytes(policy: &Policy, owned: OwnedRow) -> PortResult<()> {
    let change = RowChange { id: owned.id(), if_rev: owned.row.rev.clone(), set: RowSet::Deleted };
    policy.catalog.change(&[change]).await.into_iter().try_for_each(|result| result.map(drop))
}

/// Deletes a mirrored object, if it still has that content. `false`: it has another by now.
pub async fn delete_mirrored(policy: &Policy, key: &ObjectKey, etag: &ETag) -> PortResult<bool> {
    let entry = Entry {
        at: policy.clock.now(),
        who: "service".to_owned(),
        policy: policy.name.clone(),
        action: Action::MirrorDelete,
        key: Some(key.clone()),
        copy_key: None,
        size: None,
        checksum: None,
        rule: "mirror".to_owned(),
    };
    policy.journal.append(&[entry]).await?;
    let results = policy.purger.0.purge(&[item(key, Some(etag.clone()))]).await;
    let outcomes: Vec<Purged> = results.into_iter().collect::<PortResult<_>>()?;
    let deleted = outcomes == [Purged::Done];
    policy.metrics.add(Counter::MirrorDeleted, u64::from(deleted));
    Ok(deleted)
}

/// Deletes archived objects whose records stand in a pack that was read back long ago (`who` does it for that service, now):
/// those that are still what was packed. Counts `originals-removed` and `originals-changed`.
pub async fn purge_originals(
    purger: &Purger,
    journal: &dyn Journal,
    (service, who, now): (&ServiceName, &str, UnixMs),
    originals: Vec<PackedOriginal>,
    report: &mut Report,
) -> PortResult<()> {
    if originals.is_empty() {
        return Ok(());
    }
    let line = |original: &PackedOriginal| Entry {
        at: now,
        who: who.to_owned(),
        policy: PolicyName(format!("archive {service}")),
        action: Action::Purge,
        key: Some(original.object.clone()),
        copy_key: None,
        size: Some(original.size),
        checksum: None,
        rule: "packed".to_owned(),
    };
    journal.append(&originals.iter().map(line).collect::<Vec<Entry>>()).await?;
    let if_same = |original: &PackedOriginal| item(&original.object, Some(original.etag.clone()));
    let items: Vec<PurgeItem> = originals.iter().map(if_same).collect();
    for (original, result) in originals.iter().zip(purger.0.purge(&items).await) {
        match result {
            Ok(Purged::Done) => report.count("originals-removed", 1),
            Ok(Purged::Changed) => {
                report.skip("originals-changed", &original.object, "it is not what was packed any more, and stays");
            }
            Err(error) => report.fail_with(&original.object, &error),
        }
    }
    Ok(())
}

/// Deletes objects of a service's archive that a person named and that are not needed (`crates/engine/src/flows/drop_object.rs`).
/// Counts `dropped`.
pub async fn purge_dropped(
    purger: &Purger,
    journal: &dyn Journal,
    (service, who, now): (&ServiceName, &str, UnixMs),
    names: &[ObjectKey],
    report: &mut Report,
) -> PortResult<()> {
    let line = |name: &ObjectKey| Entry {
        at: now,
        who: who.to_owned(),
        policy: PolicyName(format!("archive {service}")),
        action: Action::Purge,
        key: Some(name.clone()),
        copy_key: None,
        size: None,
        checksum: None,
        rule: "dropped".to_owned(),
    };
    journal.append(&names.iter().map(line).collect::<Vec<Entry>>()).await?;
    let items: Vec<PurgeItem> = names.iter().map(|name| item(name, None)).collect();
    for (name, result) in names.iter().zip(purger.0.purge(&items).await) {
        match result {
            Ok(_) => report.done("dropped", name, "as asked"),
            Err(error) => report.fail_with(name, &error),
        }
    }
    Ok(())
}

async fn delete_rows(policy: &Policy, rows: Vec<OwnedRow>, report: &mut Report) {
    let changes: Vec<RowChange> = rows
        .iter()
        .map(|owned| RowChange { id: owned.id(), if_rev: owned.row.rev.clone(), set: RowSet::Deleted })
        .collect();
    let results = policy.catalog.change(&changes).await;
    for (owned, result) in rows.into_iter().zip(results) {
        match result {
            Ok(Changed::Applied(_)) => {
                report.count("purged", 1);
                report.count("bytes", owned.row.size);
                policy.metrics.add(Counter::Purged, 1);
                policy.metrics.add(Counter::PurgedBytes, owned.row.size);
            }
            // Somebody wrote the row meanwhile: it is disowned still, and found again.
            Ok(Changed::Refused) => report.count("changed-meanwhile", 1),
            Err(error) => report.fail_with(&owned.row.copy_key, &error),
        }
    }
}

fn item(key: &ObjectKey, if_match: Option<ETag>) -> PurgeItem {
    PurgeItem { key: key.clone(), version_id: None, if_match }
}

fn journal_line(policy: &Policy, owned: &OwnedRow) -> Entry {
    let rule = match owned.row.state {
        CopyState::Disowned { reason, .. } => reason.code(),
        CopyState::Active { .. } => "active",
    };
    Entry {
        at: policy.clock.now(),
        who: "service".to_owned(),
        policy: policy.name.clone(),
        action: Action::Purge,
        key: Some(owned.original.clone()),
        copy_key: Some(owned.row.copy_key.clone()),
        size: Some(owned.row.size),
        checksum: owned.row.checksum,
        rule: rule.to_owned(),
    }
}
