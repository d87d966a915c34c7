//! Restore: select a copy by the rule (`lifecycle/src/restore.rs`), verify it while it is written, leave alone what is the
//! same or newer, and say of every key what was done and why.
//!
//! A crash leaves whole objects only: each write is atomic, and a restore can simply be given again (what is the same is
//! skipped). Laws: I5 (the only writers of a source are this flow and `undelete`), I11, I12.

use crate::error::{ErrorKind, PortError, PortResult, Retry};
use crate::limits::{COMMAND_KEYS_IN_FLIGHT, LIST_PAGE, RETRIEVAL_LOOK_EVERY, RETRIEVAL_WAIT_MAX};
use crate::policy::Policy;
use crate::ports::journal::Action;
use crate::ports::objects::{Head, ObjectWrite, Onto, Written};
use crate::ports::progress::Progress;
use crate::report::{Report, chain};
use crate::steps::by_original::{ByOriginal, Collect, ListedCopy};
use crate::steps::journal_lines::about_copy;
use crate::steps::keys::Keys;
use crate::steps::put_back::{ON_ITS_WAY, ask_for, open_copy};
use futures_util::{StreamExt, stream};
use lifecycle::ids::{CopyKey, ObjectKey};
use lifecycle::restore::{Selection, Wanted, select};
use lifecycle::row::CopyRow;
use lifecycle::time::UnixMs;
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
/// `no-copy`, `retrieving` (copies that an archive was asked for and that have not come); a damaged copy is a failure that
/// names the next older one.
pub async fn restore(
    policy: &Policy,
    request: &RestoreRequest,
    target: &Arc<dyn ObjectWrite>,
    who: &str,
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> Report {
    let one = One { policy, request, target: target.as_ref(), who, waited_since: None };
    let began = policy.clock.now();
    let mut report = Report::of("restore");
    if !request.dry_run {
        report.count("restored", 0);
    }
    let mut archived = Collect::new(&policy.scratch);
    if let Err(error) = one.all(&mut report, &mut archived, progress, cancel).await {
        // What comes behind it was not even asked for. Cut short like this it waits for nothing: a person should know now,
        // not when the others have come.
        report.fail_with(&policy.name, &error);
        report.cancelled = true;
    }
    // Stores tell whole seconds.
    let waited_since = Some(UnixMs(began.0 - began.0.rem_euclid(1_000)));
    let one = One { waited_since, ..one };
    if let Err(error) = one.await_archived(began, &mut report, archived, progress, cancel).await {
        report.fail_with(&policy.name, &error);
    }
    report
}

struct One<'a> {
    policy: &'a Policy,
    request: &'a RestoreRequest,
    target: &'a dyn ObjectWrite,
    who: &'a str,
    /// When the restore began, of copies that it had to wait for.
    waited_since: Option<UnixMs>,
}

/// How one key ended: told in its report; or the copy to wait for.
type Outcome = (Report, Option<ListedCopy>);

impl One<'_> {
    /// Goes over all keys. What lies in an archive, and is to be awaited, goes to `archived`.
    async fn all(
        &self,
        report: &mut Report,
        archived: &mut Collect,
        progress: &dyn Progress,
        cancel: &CancellationToken,
    ) -> PortResult<()> {
        let prefix = match &self.request.keys {
            Selected::One(key) => {
                let wanted = (key.clone(), self.request.wanted.clone());
                self.page(vec![wanted], report, archived, progress, cancel).await?;
                return Ok(());
            }
            Selected::Prefix(prefix) => prefix,
        };
        let mut keys = Keys::under(self.policy, prefix);
        let mut found = false;
        while let Some(page) = keys.next().await? {
            found |= !page.is_empty();
            let page = page.into_iter().map(|key| (key, self.request.wanted.clone())).collect();
            if !self.page(page, report, archived, progress, cancel).await? {
                return Ok(());
            }
        }
        if !found {
            report.fail(prefix, "no key under this prefix has a copy");
        }
        Ok(())
    }

    /// Restores what an archive was asked for, as it comes. Only that: what was restored is its owner's again.
    async fn await_archived(
        &self,
        began: UnixMs,
        report: &mut Report,
        mut archived: Collect,
        progress: &dyn Progress,
        cancel: &CancellationToken,
    ) -> PortResult<()> {
        let until = began.plus(RETRIEVAL_WAIT_MAX);
        loop {
            let mut waiting = archived.sorted().await?;
            if waiting.peek().await?.is_none() {
                return Ok(());
            }
            let late = self.policy.clock.now() >= until;
            if late || report.cancelled || cancel.is_cancelled() {
                return self.give_up(waiting, late, report).await;
            }
            progress.at(report.counted("restored"), None, "objects; the others are on their way out of an archive");
            tokio::select! {
                () = cancel.cancelled() => return self.give_up(waiting, false, report).await,
                () = self.policy.clock.sleep(RETRIEVAL_LOOK_EVERY) => {}
            }
            archived = Collect::new(&self.policy.scratch);
            while !report.cancelled {
                let page = next_page(&mut waiting).await?;
                if page.is_empty() || !self.page(page, report, &mut archived, progress, cancel).await? {
                    break;
                }
            }
            if report.cancelled {
                self.give_up(waiting, false, report).await?;
            }
        }
    }

    /// Says of every copy that has not come that it has not.
    async fn give_up(&self, mut waiting: ByOriginal, late: bool, report: &mut Report) -> PortResult<()> {
        let remedy = match late {
            true => {
                "for days it has not come, or could not be written (the log says why): give the same command again then"
            }
            false => "stopped before it came: give the same command again then",
        };
        report.cancelled |= !late;
        while let Some(key) = waiting.peek().await?.cloned() {
            waiting.take(&key).await?;
            report.count("retrieving", 1);
            report.fail(key, format!("{ON_ITS_WAY}; {remedy}"));
        }
        Ok(())
    }

    /// Restores some keys side by side; `false`: stopped.
    async fn page(
        &self,
        page: Vec<(ObjectKey, Wanted)>,
        report: &mut Report,
        archived: &mut Collect,
        progress: &dyn Progress,
        cancel: &CancellationToken,
    ) -> PortResult<bool> {
        let mut stopped = false;
        let mut waits = Vec::new();
        // Cancelled, it begins nothing more and finishes what is under way: the report names all that was done.
        let mut results = stream::iter(page)
            .map(|(key, wanted)| async move {
                match cancel.is_cancelled() {
                    true => self.not_begun(&key, &wanted),
                    false => self.restore(&key, &wanted).await,
                }
            })
            .buffer_unordered(COMMAND_KEYS_IN_FLIGHT);
        while let Some((of_key, waits_for)) = results.next().await {
            stopped |= of_key.cancelled;
            report.absorb(of_key);
            waits.extend(waits_for);
            progress.at(report.counted("restored"), None, "objects");
        }
        drop(results);
        // Not before: what fails here must not drop writes that are under way.
        for copy in &waits {
            archived.add(copy).await?;
        }
        if stopped {
            report.notes.push("stopped before the end: give the same command again to go on".to_owned());
        }
        Ok(!stopped)
    }

    /// What was waited for still is.
    fn not_begun(&self, key: &ObjectKey, wanted: &Wanted) -> Outcome {
        let report = Report { cancelled: true, ..Report::of("restore") };
        (report, self.awaited(key, wanted))
    }

    /// The copy that is being waited for, if that is what is wanted.
    fn awaited(&self, key: &ObjectKey, wanted: &Wanted) -> Option<ListedCopy> {
        match (wanted, self.waited_since) {
            (Wanted::Copy(copy), Some(_)) => Some(ListedCopy::waiting(key, copy.object())),
            _ => None,
        }
    }

    async fn restore(&self, key: &ObjectKey, wanted: &Wanted) -> Outcome {
        let mut report = Report::of("restore");
        let waits_for = match self.try_restore(key, wanted, &mut report).await {
            Ok(waits_for) => waits_for,
            // Days of waiting are not lost to a minute's outage.
            Err(error) => match self.awaited(key, wanted).filter(|_| error.retry() != Retry::Never) {
                Some(copy) => {
                    tracing::warn!(%key, "it is looked for again: {}", chain(&error));
                    Some(copy)
                }
                None => {
                    report.fail_with(key, &error);
                    None
                }
            },
        };
        (report, waits_for)
    }

    /// The copy to wait for, if it lies in an archive and is to be awaited.
    async fn try_restore(
        &self,
        key: &ObjectKey,
        wanted: &Wanted,
        report: &mut Report,
    ) -> PortResult<Option<ListedCopy>> {
        let rows = self.policy.catalog.partition(key).await?.in_basis(self.policy.rules.basis).rows;
        let candidates = match select(&rows, wanted) {
            Selection::Take(candidates) => candidates,
            Selection::NotThere { removed_at } => {
                report.skip("not-there", key, format!("it did not exist then: it had been deleted at {removed_at}"));
                return Ok(None);
            }
            Selection::NoCopy => {
                let why = "no copy of it is that old, or there is none: see `afterimage history`";
                match (&self.request.keys, self.waited_since) {
                    (_, Some(_)) => report.fail(key, "its copy has gone while it was on its way"),
                    (Selected::One(_), None) => report.fail(key, why),
                    (Selected::Prefix(_), None) => report.skip("no-copy", key, why),
                }
                return Ok(None);
            }
        };
        let row = candidates[0];
        let there = self.target.head(key, None).await?;
        let Some(onto) = self.may_write(key, row, there.as_ref(), report).await? else { return Ok(None) };
        if self.request.dry_run {
            report.count("bytes", row.size);
            report.done("would-restore", key, format!("from {}, {} bytes", row.copy_key, row.size));
            return Ok(None);
        }
        match self.write(key, row, onto).await {
            Ok(Written::Done(_)) => {
                report.count("bytes", row.size);
                report.done("restored", key, format!("from {}, {} bytes", row.copy_key, row.size));
            }
            Ok(Written::DestinationChanged) => {
                report.fail(key, "somebody wrote it during the restore; nothing was overwritten: look, then try again");
            }
            Err(PortError { kind: ErrorKind::Damaged(what), .. }) => {
                self.refuse_damaged(key, row, candidates.get(1).copied(), &what, report).await?;
            }
            Err(PortError { kind: ErrorKind::Archived, .. }) => return self.retrieve(key, row, report).await,
            Err(error) => return Err(error),
        }
        Ok(None)
    }

    async fn write(&self, key: &ObjectKey, row: &CopyRow, onto: Onto) -> PortResult<Written> {
        let copy = open_copy(self.policy, row).await?;
        self.journal(Action::Restore, key, row, "restore").await?;
        copy.put(self.target, key, onto).await
    }

    /// Asks for a copy that lies in an archive tier.
    async fn retrieve(&self, key: &ObjectKey, row: &CopyRow, report: &mut Report) -> PortResult<Option<ListedCopy>> {
        let copy = row.copy_key.object().clone();
        ask_for(self.policy, std::slice::from_ref(&copy)).await?;
        if self.request.archived == Archived::Await {
            return Ok(Some(ListedCopy::waiting(key, &copy)));
        }
        report.count("retrieving", 1);
        report.fail(key, format!("{ON_ITS_WAY}: give the same command again then, or now with --wait"));
        Ok(None)
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
        let since = self.waited_since.is_some_and(|began| there.last_modified >= began);
        if since || there.last_modified >= row.created_at && self.request.newer == Newer::Keep {
            let why = match since {
                true => format!(
                    "it was written while its copy was on its way ({}): look, then try again",
                    there.last_modified
                ),
                false => format!("the object there is newer ({}): --overwrite replaces it", there.last_modified),
            };
            match self.request.keys {
                Selected::Prefix(_) if !since => report.skip("skipped-newer", key, why),
                Selected::One(_) | Selected::Prefix(_) => report.fail(key, why),
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
            None if self.waited_since.is_some() => "see `afterimage history` for others".to_owned(),
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

/// Some of the copies that are waited for; none at the end.
async fn next_page(waiting: &mut ByOriginal) -> PortResult<Vec<(ObjectKey, Wanted)>> {
    let mut page = Vec::new();
    while page.len() < LIST_PAGE
        && let Some(key) = waiting.peek().await?.cloned()
    {
        let copies = waiting.take(&key).await?.into_iter();
        page.extend(copies.map(|copy| (copy.original, Wanted::Copy(CopyKey::of(copy.copy)))));
    }
    Ok(page)
}

fn same_content(row: &CopyRow, there: &Head) -> bool {
    let same = match (row.checksum, there.checksum) {
        (Some(copy), Some(there)) => copy == there,
        _ => row.etag == there.version.etag,
    };
    same && row.size == there.version.size
}
