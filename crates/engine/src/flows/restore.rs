//! Restore: select a copy by the rule (`lifecycle/src/restore.rs`), verify it while it is written, leave alone what is the
//! same or newer, and say of every key what was done and why.
//!
//! A crash leaves whole objects only: each write is atomic, and a restore can simply be given again (what is the same is
//! skipped). Laws: I5 (the only writers of a source are this flow and `undelete`), I11, I12.

use crate::error::{ErrorKind, FlowResult, PortError, PortResult};
use crate::limits::{COMMAND_KEYS_IN_FLIGHT, RETRIEVAL_LOOK_EVERY};
use crate::policy::Policy;
use crate::ports::journal::Action;
use crate::ports::objects::{Head, ObjectWrite, Onto, Written};
use crate::ports::progress::Progress;
use crate::report::{Report, chain};
use crate::steps::journal_lines::about_copy;
use crate::steps::keys::Keys;
use crate::steps::put_back::put_back;
use futures_util::future::ready;
use futures_util::{StreamExt, stream};
use lifecycle::ids::ObjectKey;
use lifecycle::restore::{Selection, Wanted, select};
use lifecycle::row::CopyRow;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Which keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selected {
    /// One.
    One(ObjectKey),
    /// All under a prefix; empty: all.
    Prefix(String),
}

/// What to do with an object that is newer than the copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Newer {
    /// Leave it alone.
    Keep,
    /// Overwrite it.
    Overwrite,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoreRequest {
    /// Which keys.
    pub keys: Selected,
    /// Which copy of each.
    pub wanted: Wanted,
    /// What to do with newer objects.
    pub newer: Newer,
    /// Only say what would be done.
    pub dry_run: bool,
    /// What to do about copies in an archive tier.
    pub archived: Archived,
}

/// What to do about copies that lie in an archive tier, after asking for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Archived {
    /// Say so: they are failures of this run.
    Tell,
    /// Wait for them.
    Await,
}

/// Restores to `target`. Counts `restored` (or `would-restore`), `bytes`, `skipped-same`, `skipped-newer`, `not-there`,
/// `no-copy`, `retrieving` (copies that an archive was asked for); a damaged copy is a failure that names the next older one.
pub async fn restore(
    policy: &Policy,
    request: &RestoreRequest,
    target: &Arc<dyn ObjectWrite>,
    who: &str,
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> FlowResult<Report> {
    let mut restored_before = (0, 0);
    loop {
        let mut report = pass(policy, request, target, who, progress, cancel).await?;
        let waits = request.archived == Archived::Await && report.counted("retrieving") > 0 && !report.cancelled;
        // What an earlier pass restored is the same by now.
        let (objects, bytes) = restored_before;
        if let Some(same) = report.counts.get_mut("skipped-same") {
            *same = same.saturating_sub(objects);
        }
        report.count("restored", objects);
        report.count("bytes", bytes);
        restored_before = (report.counted("restored"), report.counted("bytes"));
        if !waits {
            return Ok(report);
        }
        progress.at(report.counted("restored"), None, "objects; the others are on their way out of an archive");
        tokio::select! {
            () = cancel.cancelled() => {
                report.cancelled = true;
                report.notes.push("stopped while copies were on their way out of an archive: give the same command again".to_owned());
                return Ok(report);
            }
            () = policy.clock.sleep(RETRIEVAL_LOOK_EVERY) => {}
        }
    }
}

/// Goes over all keys once.
async fn pass(
    policy: &Policy,
    request: &RestoreRequest,
    target: &Arc<dyn ObjectWrite>,
    who: &str,
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> FlowResult<Report> {
    let mut report = Report::of("restore");
    let one = One { policy, request, target: target.as_ref(), who };
    let prefix = match &request.keys {
        Selected::One(key) => {
            report.absorb(one.restore(key).await);
            return Ok(report);
        }
        Selected::Prefix(prefix) => prefix,
    };
    let mut keys = Keys::under(policy, prefix);
    let mut done = 0;
    while let Some(page) = keys.next().await? {
        let (one, until) = (&one, done + page.len() as u64);
        // Cancelled, it begins nothing more and finishes what is under way: the report names all that was done.
        let mut results = stream::iter(page)
            .take_while(|_| ready(!cancel.is_cancelled()))
            .map(|key| async move { one.restore(&key).await })
            .buffer_unordered(COMMAND_KEYS_IN_FLIGHT);
        while let Some(result) = results.next().await {
            report.absorb(result);
            done += 1;
            progress.at(done, None, "objects");
        }
        if done < until {
            report.cancelled = true;
            report.notes.push(format!("stopped after {done} objects: give the same command again to go on"));
            return Ok(report);
        }
    }
    if done == 0 {
        report.fail(prefix, "no key under this prefix has a copy");
    }
    Ok(report)
}

struct One<'a> {
    policy: &'a Policy,
    request: &'a RestoreRequest,
    target: &'a dyn ObjectWrite,
    who: &'a str,
}

impl One<'_> {
    async fn restore(&self, key: &ObjectKey) -> Report {
        let mut report = Report::of("restore");
        if let Err(error) = self.try_restore(key, &mut report).await {
            report.fail(key, chain(&error));
        }
        report
    }

    async fn try_restore(&self, key: &ObjectKey, report: &mut Report) -> PortResult<()> {
        let rows = self.policy.catalog.partition(key).await?.in_basis(self.policy.rules.basis).rows;
        let candidates = match select(&rows, &self.request.wanted) {
            Selection::Take(candidates) => candidates,
            Selection::NotThere { removed_at } => {
                report.skip("not-there", key, format!("it did not exist then: it had been deleted at {removed_at}"));
                return Ok(());
            }
            Selection::NoCopy => {
                let why = "no copy of it is that old, or there is none: see `afterimage history`";
                match self.request.keys {
                    Selected::One(_) => report.fail(key, why),
                    Selected::Prefix(_) => report.skip("no-copy", key, why),
                }
                return Ok(());
            }
        };
        let row = candidates[0];
        let there = self.target.head(key, None).await?;
        let Some(onto) = self.may_write(key, row, there.as_ref(), report).await? else { return Ok(()) };
        if self.request.dry_run {
            report.count("bytes", row.size);
            report.done("would-restore", key, format!("from {}, {} bytes", row.copy_key, row.size));
            return Ok(());
        }
        self.journal(Action::Restore, key, row, "restore").await?;
        match put_back(self.policy, row, self.target, key, onto).await {
            Ok(Written::Done(_)) => {
                report.count("bytes", row.size);
                report.done("restored", key, format!("from {}, {} bytes", row.copy_key, row.size));
                Ok(())
            }
            Ok(Written::DestinationChanged) => {
                report.fail(key, "somebody wrote it during the restore; nothing was overwritten: look, then try again");
                Ok(())
            }
            Err(PortError { kind: ErrorKind::Damaged(what), .. }) => {
                self.refuse_damaged(key, row, candidates.get(1).copied(), &what, report).await
            }
            Err(PortError { kind: ErrorKind::Archived, .. }) => self.retrieve(key, row, report).await,
            Err(error) => Err(error),
        }
    }

    /// Asks for a copy that lies in an archive tier.
    async fn retrieve(&self, key: &ObjectKey, row: &CopyRow, report: &mut Report) -> PortResult<()> {
        self.policy.destination.retrieve(row.copy_key.object()).await?;
        let why = "its copy lies in an archive tier and is on its way, which takes minutes to days";
        match self.request.archived {
            Archived::Await => report.skip("retrieving", key, why),
            Archived::Tell => {
                report.count("retrieving", 1);
                report.fail(key, format!("{why}: give the same command again then, or now with --wait"));
            }
        }
        Ok(())
    }

    /// On which condition the copy may be written; `None`: not at all, and the report says why.
    async fn may_write(
        &self,
        key: &ObjectKey,
        row: &CopyRow,
        there: Option<&Head>,
        report: &mut Report,
    ) -> PortResult<Option<Onto>> {
        let Some(there) = there else { return Ok(Some(Onto::Nothing)) };
        if same_content(row, there) {
            report.skip("skipped-same", key, "it has the same content already");
            return Ok(None);
        }
        if there.last_modified >= row.created_at && self.request.newer == Newer::Keep {
            let why = format!("the object there is newer ({}): --overwrite replaces it", there.last_modified);
            match self.request.keys {
                Selected::One(_) => report.fail(key, why),
                Selected::Prefix(_) => report.skip("skipped-newer", key, why),
            }
            if !self.request.dry_run {
                self.journal(Action::Refuse, key, row, "newer object in its way").await?;
            }
            return Ok(None);
        }
        Ok(Some(Onto::This(there.version.etag.clone())))
    }

    async fn refuse_damaged(
        &self,
        key: &ObjectKey,
        row: &CopyRow,
        older: Option<&CopyRow>,
        what: &str,
        report: &mut Report,
    ) -> PortResult<()> {
        self.journal(Action::Refuse, key, row, "damaged").await?;
        let advice = match older {
            Some(older) => format!("the next older copy is {}: restore it with --copy", older.copy_key),
            None => "there is no older copy".to_owned(),
        };
        report.fail(key, format!("the copy {} is damaged ({what}) and was not restored; {advice}", row.copy_key));
        Ok(())
    }

    async fn journal(&self, action: Action, key: &ObjectKey, row: &CopyRow, rule: &str) -> PortResult<()> {
        self.policy.journal.append(&[about_copy(self.policy, action, self.who, key, row, rule)]).await
    }
}

fn same_content(row: &CopyRow, there: &Head) -> bool {
    let same = match (row.checksum, there.checksum) {
        (Some(copy), Some(there)) => copy == there,
        _ => row.etag == there.version.etag,
    };
    same && row.size == there.version.size
}
