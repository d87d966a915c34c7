//! Undelete: a removed object comes back, and with it the copies that are still there.
//!
//! Disowned is terminal for a copy key (V3), so every copy that comes back gets a new one, with a fresh order above all
//! that is known, and its row says when it was undeleted (guard 9): neither settling, nor `reconcile`, nor the late delete
//! event takes it away again. Then the newest is put back to the source, if nothing is there.
//! A crash leaves bytes without rows (adopted by `reconcile`), or rows whose object is not back yet: given again, the
//! command goes on from there. Laws: I2, I5, I12, V3.

use crate::error::{ErrorKind, FlowError, FlowResult, PortResult};
use crate::flows::settle::settle;
use crate::limits::{COMMAND_KEYS_IN_FLIGHT, LIST_PAGE};
use crate::policy::{Mode, Policy};
use crate::ports::catalog::{IndexQuery, Indexed, StateChange};
use crate::ports::journal::Action;
use crate::ports::objects::{Copied, CopyRequest, ObjectWrite, Onto, Written};
use crate::ports::progress::Progress;
use crate::report::{Report, chain};
use crate::steps::copy_rows;
use crate::steps::journal_lines::{about_copy, about_key};
use crate::steps::keys::Keys;
use crate::steps::put_back::{ON_ITS_WAY, ask_for, open_copy};
use futures_util::future::ready;
use futures_util::{StreamExt, stream};
use lifecycle::copy_key::{CopyName, Identity};
use lifecycle::ids::ObjectKey;
use lifecycle::order::Order;
use lifecycle::row::{self, CopyRow, CopyState, Origin, Partition};
use lifecycle::settle::Ask;
use lifecycle::time::UnixMs;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// What to bring back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removed {
    /// One key.
    Key(ObjectKey),
    /// Every removed key under a prefix.
    Prefix(String),
    /// Everything whose removal was noted since then.
    Since(UnixMs),
}

/// How many of a key's copies come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// All that are still there.
    All,
    /// The newest.
    Newest,
}

/// Brings removed objects back. Counts `undeleted`, `copies`, `skipped-live`, `nothing-left`. After `Since`, a tripped breaker
/// is released if all removals that tripped it are undone. A listing that fails is a failure of the policy's, and the report
/// is `cancelled`: what comes behind it was not begun.
pub async fn undelete(
    policy: &Policy,
    what: &Removed,
    depth: Depth,
    source: &Arc<dyn ObjectWrite>,
    who: &str,
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> Report {
    let mut report = Report::of("undelete");
    if policy.mode == Mode::Mirror {
        report.fail(&policy.name, "a mirror keeps no history: nothing can be undeleted from it");
        return report;
    }
    let one = One { policy, source: source.as_ref(), who, depth };
    let ended = match what {
        Removed::Key(key) => {
            one.undelete(key, &mut report).await;
            Ok(())
        }
        Removed::Prefix(prefix) => one.undelete_under(prefix, &mut report, progress, cancel).await,
        Removed::Since(since) => one.undelete_since(*since, &mut report, progress, cancel).await,
    };
    if let Err(error) = ended {
        report.fail_with(&policy.name, &error);
        report.cancelled = true;
    }
    report
}

struct One<'a> {
    policy: &'a Policy,
    source: &'a dyn ObjectWrite,
    who: &'a str,
    depth: Depth,
}

impl One<'_> {
    async fn undelete_under(
        &self,
        prefix: &str,
        report: &mut Report,
        progress: &dyn Progress,
        cancel: &CancellationToken,
    ) -> PortResult<()> {
        let mut keys = Keys::under(self.policy, prefix);
        while let Some(page) = keys.next().await?
            && self.undelete_all(&page, report, progress, cancel).await
        {}
        Ok(())
    }

    /// All keys whose tombstones were noted since then; then the breaker that they tripped.
    async fn undelete_since(
        &self,
        since: UnixMs,
        report: &mut Report,
        progress: &dyn Progress,
        cancel: &CancellationToken,
    ) -> PortResult<()> {
        let started = self.policy.clock.now();
        let until = UnixMs(i64::MAX);
        let mut query = IndexQuery { what: Indexed::Removed, from: since, until, after: None, limit: LIST_PAGE };
        loop {
            let page = self.policy.catalog.index(&query).await?;
            let keys: Vec<ObjectKey> = page.items.into_iter().map(|entry| entry.original).collect();
            query.after = page.next;
            if !self.undelete_all(&keys, report, progress, cancel).await || query.after.is_none() {
                break;
            }
        }
        match report.is_success() {
            true => self.release_if_undone(since, started, report).await,
            false => Ok(()),
        }
    }

    /// Releases a tripped breaker if every removal that it counted has been undone: none was noted before `since`.
    async fn release_if_undone(&self, since: UnixMs, started: UnixMs, report: &mut Report) -> PortResult<()> {
        let policy = self.policy;
        let state = policy.catalog.state().await?;
        let (Some(trip), Some(rule)) = (state.tripped, policy.rules.breaker) else { return Ok(()) };
        let window = trip.at.minus(rule.window);
        let from = state.released_at.map_or(window, |released_at| window.max(UnixMs(released_at.0 + 1)));
        let before = UnixMs(since.0.saturating_sub(1));
        let earlier = IndexQuery { what: Indexed::Removed, from, until: before, after: None, limit: 1 };
        if from <= before && !policy.catalog.index(&earlier).await?.items.is_empty() {
            let why = format!("the breaker stays tripped: it also counted removals before {since}; see `release`");
            report.notes.push(format!("{}: {why}", policy.name));
            return Ok(());
        }
        let rule = format!("undelete since {since}");
        policy.journal.append(&[about_key(policy, Action::Release, self.who, None, &rule)]).await?;
        policy.catalog.set_state(StateChange::Release(started)).await
    }

    /// `false`: stop, the command was cancelled.
    async fn undelete_all(
        &self,
        keys: &[ObjectKey],
        report: &mut Report,
        progress: &dyn Progress,
        cancel: &CancellationToken,
    ) -> bool {
        let mut ended = 0;
        // Cancelled, it begins nothing more and finishes what is under way: the report names all that was done.
        let mut results = stream::iter(keys.to_vec()) // owned, so that the flow may move between threads
            .take_while(|_| ready(!cancel.is_cancelled()))
            .map(|key| async move {
                let mut report = Report::of("undelete");
                self.undelete(&key, &mut report).await;
                report
            })
            .buffer_unordered(COMMAND_KEYS_IN_FLIGHT);
        while let Some(result) = results.next().await {
            report.absorb(result);
            report.count("keys", 1);
            progress.at(report.counted("keys"), None, "keys");
            ended += 1;
        }
        if ended < keys.len() {
            report.cancelled = true;
            report.notes.push("stopped: give the same command again to go on".to_owned());
        }
        !report.cancelled
    }

    async fn undelete(&self, key: &ObjectKey, report: &mut Report) {
        match self.try_undelete(key, report).await {
            Ok(()) => {}
            Err(FlowError::Port(error)) if error.kind == ErrorKind::Archived => {
                report.fail(key, format!("{ON_ITS_WAY}: give the same command again then"));
            }
            Err(error) => report.fail(key, chain(&error)),
        }
    }

    async fn try_undelete(&self, key: &ObjectKey, report: &mut Report) -> FlowResult<()> {
        let mut partition = self.partition(key).await?;
        if is_live(&partition) && self.source.head(key, None).await?.is_none() {
            // It is gone, and the event that says so is on its way: nobody who has just deleted it should wait for that.
            settle(self.policy, key, Ask::BY_LOOK).await?;
            partition = self.partition(key).await?;
        }
        if is_live(&partition) {
            report.skip("skipped-live", key, "it was not removed: `restore` brings older versions back");
            return Ok(());
        }
        let active: Vec<&CopyRow> = newest_first(partition.rows.iter().filter(|row| row.is_active()));
        let mut waiting = once_each(newest_first(partition.rows.iter().filter(|row| is_waiting(row))));
        if let Some(back) = active.first() {
            // An earlier undelete was cut short, or is done. It went from the oldest on: what is newer is left to do.
            let original = waiting.iter().position(|row| back.is_brought_back_from(row));
            let older = || waiting.iter().position(|row| row.created_at < back.created_at); // the original may be purged
            waiting.truncate(original.or_else(older).unwrap_or(waiting.len()));
        }
        let brought = self.bring_back_copies(key, waiting, partition.greatest_order(), report).await?;
        let Some(newest) = brought.or_else(|| active.first().copied().cloned()) else {
            report.skip("nothing-left", key, "no copy of it is left");
            return Ok(());
        };
        let copy = match open_copy(self.policy, &newest).await {
            Err(error) if error.kind == ErrorKind::Archived => {
                ask_for(self.policy, std::slice::from_ref(newest.copy_key.object())).await?;
                return Err(error.into());
            }
            copy => copy?,
        };
        let entry = about_copy(self.policy, Action::Undelete, self.who, key, &newest, "put back");
        self.policy.journal.append(&[entry]).await?;
        match copy.put(self.source, key, Onto::Nothing).await? {
            Written::Done(_) => {
                report.done("undeleted", key, format!("from {}, {} bytes", newest.copy_key, newest.size))
            }
            Written::DestinationChanged => {
                report.skip("skipped-live", key, "an object is there already; it was left alone")
            }
        }
        settle(self.policy, key, Ask::BY_FACTS).await
    }

    async fn partition(&self, key: &ObjectKey) -> PortResult<Partition> {
        Ok(self.policy.catalog.partition(key).await?.in_basis(self.policy.rules.basis))
    }

    /// Gives disowned copies (newest first) new names and rows, oldest first; the newest of the new rows.
    async fn bring_back_copies(
        &self,
        key: &ObjectKey,
        mut copies: Vec<&CopyRow>,
        greatest: Option<Order>,
        report: &mut Report,
    ) -> PortResult<Option<CopyRow>> {
        if self.depth == Depth::Newest {
            copies.truncate(1);
        }
        let mut order = greatest.unwrap_or(Order::lowest(self.policy.rules.basis));
        let mut newest = None;
        while let Some(row) = copies.pop() {
            order = order.next_sub();
            let back = match self.bring_back(key, row, order, report).await {
                // Together, not one a run: each takes as long as all of them.
                Err(error) if error.kind == ErrorKind::Archived => {
                    let wanted: Vec<ObjectKey> =
                        copies.into_iter().chain([row]).map(|row| row.copy_key.object().clone()).collect();
                    ask_for(self.policy, &wanted).await?;
                    return Err(error);
                }
                back => back?,
            };
            if let Some(back) = back {
                report.count("copies", 1);
                newest = Some(back);
            }
        }
        Ok(newest)
    }

    async fn bring_back(
        &self,
        key: &ObjectKey,
        row: &CopyRow,
        order: Order,
        report: &mut Report,
    ) -> PortResult<Option<CopyRow>> {
        let policy = self.policy;
        let old = row.copy_key.object();
        let Some(there) = policy.destination.head(old, None).await? else {
            report.notes.push(format!("{old}: its bytes are gone already"));
            return Ok(None);
        };
        let name = CopyName {
            created_at: row.created_at,
            order,
            floating: false,
            origin: Origin::Undelete { at: policy.clock.now() },
            nonce: Some(policy.nonces.nonce()),
            identity: Identity::Tag(row.etag.clone()),
        };
        let (copy_key, for_source) = copy_rows::request(key, &there.version, &name);
        let entry = about_copy(policy, Action::Undelete, self.who, key, row, copy_key.as_str());
        policy.journal.append(&[entry]).await?;
        // The old copy carries every mark that the new one needs; a longer suffix may cut the key that was whole before.
        let request = CopyRequest { from: old.clone(), ..for_source };
        match policy.recopier.copy(&request).await? {
            Copied::Done(there) => {
                let mut back = copy_rows::row(copy_key, &name, None, row.etag.clone(), &there);
                back.removed_at = row.removed_at;
                copy_rows::put_row(policy, key, &back).await?;
                Ok(Some(back))
            }
            Copied::SourceGone | Copied::SourceChanged | Copied::DestinationChanged => {
                report.notes.push(format!("{old}: its bytes are gone already"));
                Ok(None)
            }
        }
    }
}

/// As far as the catalog knows, the object is there: it has copies that no undelete made.
fn is_live(partition: &Partition) -> bool {
    partition.rows.iter().any(|row| row.is_active() && row.undeleted_at().is_none())
}

/// Disowned because the object was removed; surplus copies are on their way out.
fn is_waiting(row: &CopyRow) -> bool {
    matches!(row.state, CopyState::Disowned { reason, .. } if !reason.is_surplus())
}

/// One copy of each version of the history, newest first. After an earlier undelete and another removal two of some wait: what
/// that undelete brought back, beside its original; and the copy of what it put back to the source, beside what it put back.
/// If both came back, they would take the places of older versions.
fn once_each(waiting: Vec<&CopyRow>) -> Vec<&CopyRow> {
    let is_back = |row: &CopyRow| row.undeleted_at().is_some();
    let comes_again = |(n, row): (usize, &CopyRow)| {
        let put_back = |next: &CopyRow| is_back(row) && !is_back(next) && next.has_content_of(row);
        let newer = &waiting[..n];
        newer.last().is_some_and(|next| put_back(next)) || newer.iter().any(|back| back.is_brought_back_from(row))
    };
    let each = waiting.iter().copied().enumerate();
    each.filter(|(n, row)| !comes_again((*n, *row))).map(|(_, row)| row).collect()
}

fn newest_first<'a>(rows: impl Iterator<Item = &'a CopyRow>) -> Vec<&'a CopyRow> {
    let mut rows: Vec<&CopyRow> = rows.collect();
    rows.sort_by(|a, b| row::newest_first(a, b));
    rows
}
