//! Reconcile: compares the source's listing, the destination's listing and the catalog, key by key, some keys at the same
//! time, in bounded memory.
//! Differences are hints (guard 8): bytes without a row are adopted, rows without bytes disowned, and every key that
//! differs, floats or was touched is settled with a look, by the same code that handles events.
//!
//! It is what repairs crashes that nobody redelivers (guard 11), and what rebuilds a catalog from the destination alone.
//! It runs at start-up, on schedule, and on command; a crash leaves the rest for the next run. Laws: I2, I9, I11, V8: a
//! listing that fails ends the run, it is never read as "nothing is there".

use crate::error::{FlowResult, PortResult};
use crate::flows::mirror::mirror;
use crate::flows::settle::{is_surplus, settle};
use crate::limits::{KEYS_IN_FLIGHT, LIST_PAGE, ORPHAN_AGE};
use crate::policy::{Mode, Policy};
use crate::ports::catalog::{RowChange, RowId, RowSet, StateChange};
use crate::ports::objects::{Listed, ObjectRead};
use crate::ports::progress::Progress;
use crate::report::{Report, chain};
use crate::steps::adopt::adopt;
use crate::steps::by_original::{ByOriginal, Collect, ListedCopy};
use crate::steps::keys::{Keys, original_of};
use crate::wrap::owned::OWNER_KEY;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt, stream};
use lifecycle::copy_key::parse;
use lifecycle::guards::Guard;
use lifecycle::ids::{CopyKey, ObjectKey};
use lifecycle::row::{CopyRow, Partition, Reason};
use lifecycle::settle::{Ask, Step, Verdicts, next_step};
use lifecycle::time::UnixMs;
use std::collections::VecDeque;
use tokio_util::sync::CancellationToken;

/// Objects of ours in a destination that are no copies.
pub const RESERVED_PREFIX: &str = ".afterimage/";

/// Which bytes without a row are adopted: those that hardly any handler is still at work on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Orphans {
    /// Older than [`ORPHAN_AGE`].
    OfAge,
    /// Written before then, since this process is the only handler and started then; or older than that.
    Before(UnixMs),
}

impl Orphans {
    pub(super) fn written_before(self, policy: &Policy) -> UnixMs {
        let of_age = policy.clock.now().minus(ORPHAN_AGE);
        match self {
            Orphans::OfAge => of_age,
            Orphans::Before(start) => start.max(of_age),
        }
    }
}

/// Reconciles one policy. Counts `keys`, `differences`, `adopted`, `bytes-missing`, `settled`, `young` (bytes that a
/// handler may still be at work on), `unexplained` (objects that are no copies), and `gap`: differences that are left.
pub async fn reconcile(
    policy: &Policy,
    orphans: Orphans,
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> FlowResult<Report> {
    let mut report = fresh_report();
    match policy.mode {
        Mode::Copies => {
            let adopt_before = orphans.written_before(policy);
            let copies = sorted_copies(policy, &mut report, progress, cancel).await?;
            absorbed(compare_copies(policy, adopt_before, copies, cancel), &mut report, progress).await?;
        }
        Mode::Mirror => absorbed(compare_mirrored(policy, cancel), &mut report, progress).await?,
    }
    if cancel.is_cancelled() {
        report.cancelled = true;
        let how = "stopped before the end: nothing is half done, the next run goes over all again";
        report.notes.push(how.to_owned());
    }
    if !report.cancelled {
        let gap = report.counted("gap");
        policy.catalog.set_state(StateChange::Reconciled(policy.clock.now(), gap)).await?;
    }
    Ok(report)
}

/// An empty report: what was compared is told even where it is nothing.
pub fn fresh_report() -> Report {
    let mut report = Report::of("reconcile");
    for what in ["keys", "differences", "gap"] {
        report.count(what, 0);
    }
    report
}

/// A listing, read page by page, of which the next item can be seen.
struct Listing<'a> {
    bucket: &'a dyn ObjectRead,
    prefix: &'a str,
    page: VecDeque<Listed>,
    after: Option<ObjectKey>,
    done: bool,
}

impl<'a> Listing<'a> {
    fn of(bucket: &'a dyn ObjectRead, prefix: &'a str) -> Listing<'a> {
        Listing { bucket, prefix, page: VecDeque::new(), after: None, done: false }
    }

    async fn peek(&mut self) -> PortResult<Option<&Listed>> {
        while self.page.is_empty() && !self.done {
            let page = self.bucket.list(self.prefix, self.after.as_ref(), LIST_PAGE).await?;
            self.done = page.next.is_none();
            self.after = page.next;
            self.page.extend(page.items);
        }
        Ok(self.page.front())
    }

    /// The item of that key, if it comes next.
    async fn take(&mut self, key: &ObjectKey) -> PortResult<Option<Listed>> {
        let is_next = self.peek().await?.is_some_and(|listed| listed.key == *key);
        Ok(if is_next { self.page.pop_front() } else { None })
    }
}

/// The catalog's keys, of which the next can be seen; none where the catalog cannot list.
struct CatalogListing<'a> {
    keys: Option<Keys<'a>>,
    can_list: bool,
    page: VecDeque<ObjectKey>,
}

impl<'a> CatalogListing<'a> {
    fn of(policy: &'a Policy) -> CatalogListing<'a> {
        let can_list = policy.keys.is_some();
        let keys = can_list.then(|| Keys::under(policy, &policy.source_prefix));
        CatalogListing { keys, can_list, page: VecDeque::new() }
    }

    async fn peek(&mut self) -> PortResult<Option<&ObjectKey>> {
        while self.page.is_empty() {
            let Some(keys) = &mut self.keys else { break };
            match keys.next().await? {
                Some(page) => self.page.extend(page),
                None => self.keys = None,
            }
        }
        Ok(self.page.front())
    }

    /// Whether that key, if it has not been passed, has rows; `None` where the catalog cannot list.
    async fn take(&mut self, key: &ObjectKey) -> PortResult<Option<bool>> {
        let is_next = self.peek().await? == Some(key);
        if is_next {
            self.page.pop_front();
        }
        Ok(self.can_list.then_some(is_next))
    }
}

/// A key, and what the listings have of it.
struct Found {
    key: ObjectKey,
    here: Option<Listed>,
    bytes: Vec<ListedCopy>,
}

/// Walks over the three listings together, in the order of the original keys, and compares keys side by side.
fn compare_copies<'a>(
    policy: &'a Policy,
    adopt_before: UnixMs,
    copies: ByOriginal,
    cancel: &'a CancellationToken,
) -> BoxStream<'a, PortResult<Report>> {
    let source = Listing::of(policy.source.as_ref(), &policy.source_prefix);
    let walk = (source, CatalogListing::of(policy), copies);
    let found = stream::try_unfold(walk, move |(mut source, mut catalog, mut copies)| async move {
        if cancel.is_cancelled() {
            return Ok(None);
        }
        let heads = [source.peek().await?.map(|listed| &listed.key), catalog.peek().await?, copies.peek().await?];
        let Some(key) = heads.into_iter().flatten().min().cloned() else { return Ok(None) };
        let (here, bytes) = (source.take(&key).await?, copies.take(&key).await?);
        catalog.take(&key).await?;
        PortResult::Ok(Some((Found { key, here, bytes }, (source, catalog, copies))))
    });
    let compared = found.map_ok(move |Found { key, here, bytes }| async move {
        Ok(Run::new(policy, adopt_before).compare(&key, here.as_ref(), &bytes).await)
    });
    compared.try_buffer_unordered(KEYS_IN_FLIGHT).boxed()
}

/// Takes in the reports of keys that are compared side by side. A listing that fails ends the run, after the keys that are
/// under way.
async fn absorbed(
    mut compared: BoxStream<'_, PortResult<Report>>,
    report: &mut Report,
    progress: &dyn Progress,
) -> FlowResult<()> {
    let mut failed = None;
    while let Some(of_key) = compared.next().await {
        match of_key {
            Ok(of_key) => report.absorb(of_key),
            Err(error) => failed = failed.or(Some(error)),
        }
        progress.at(report.counted("keys"), None, "keys");
    }
    failed.map_or(Ok(()), |error| Err(error.into()))
}

/// Reads the destination's listing and sorts it by original.
async fn sorted_copies(
    policy: &Policy,
    report: &mut Report,
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> PortResult<ByOriginal> {
    let mut copies = Collect::new(&policy.scratch);
    let mut after = None;
    let mut read = 0;
    loop {
        let page = policy.destination.list("", after.as_ref(), LIST_PAGE).await?;
        for listed in page.items {
            if let Some(copy) = copy_listed(policy, listed, report).await? {
                copies.add(&copy).await?;
            }
            read += 1;
        }
        progress.at(read, None, "copies listed");
        after = page.next;
        if after.is_none() || cancel.is_cancelled() {
            return copies.sorted().await;
        }
    }
}

/// The copy of this policy's that an object of the destination is; `None`: it is none, which the report says unless it is
/// the program's own.
pub(super) async fn copy_listed(
    policy: &Policy,
    listed: Listed,
    report: &mut Report,
) -> PortResult<Option<ListedCopy>> {
    if listed.key.as_str().starts_with(RESERVED_PREFIX) && parse(&listed.key).is_none() {
        return Ok(None);
    }
    match original_of(policy, &listed.key).await? {
        Some(original) if original.as_str().starts_with(&policy.source_prefix) => {
            Ok(Some(ListedCopy { original, copy: listed.key, written_at: listed.last_modified }))
        }
        _ => {
            let why = "it is in the destination, but no copy of this policy's; it is left alone";
            report.skip("unexplained", &listed.key, why);
            Ok(None)
        }
    }
}

/// The comparison of one key.
pub(super) struct Run<'a> {
    pub(super) policy: &'a Policy,
    adopt_before: UnixMs,
    pub(super) report: Report,
}

impl<'a> Run<'a> {
    pub(super) fn new(policy: &'a Policy, adopt_before: UnixMs) -> Run<'a> {
        Run { policy, adopt_before, report: Report::of("reconcile") }
    }

    /// One key, of which a failure is noted and holds no other one up.
    pub(super) async fn compare(mut self, key: &ObjectKey, listed: Option<&Listed>, bytes: &[ListedCopy]) -> Report {
        if let Err(error) = self.key(key, listed, bytes).await {
            self.report.count("gap", 1);
            self.report.fail(key, chain(&error));
        }
        self.report.count("keys", 1);
        self.report
    }

    /// One key: adopt, disown what has no bytes, settle what differs.
    async fn key(&mut self, key: &ObjectKey, listed: Option<&Listed>, bytes: &[ListedCopy]) -> FlowResult<()> {
        let policy = self.policy;
        let partition = policy.catalog.partition(key).await?.in_basis(policy.rules.basis);
        let mut touched = false;
        for copy in bytes.iter().filter(|copy| !has_row(&partition, &copy.copy)) {
            touched |= self.orphan(key, copy).await?;
        }
        for row in partition.rows.iter().filter(|row| row.is_active() && !has_bytes(bytes, row)) {
            touched |= self.without_bytes(key, row).await?;
        }
        if !touched && !differs(policy, &partition, listed) {
            return Ok(());
        }
        self.report.count("differences", 1);
        if !policy.rules.guards.hold(Guard::DifferencesAreHints) {
            disown_by_snapshot(policy, key, &partition, listed).await?;
        }
        if policy.rules.guards.hold(Guard::ReconcileSettles) {
            settle(policy, key, Ask::BY_LOOK).await?;
            self.report.count("settled", 1);
        }
        Ok(())
    }

    /// Bytes without a row: adopted, unless a handler may still be at work on them.
    pub(super) async fn orphan(&mut self, key: &ObjectKey, copy: &ListedCopy) -> PortResult<bool> {
        if copy.written_at > self.adopt_before {
            self.report.count("young", 1);
            return Ok(false);
        }
        let Some(parsed) = parse(&copy.copy) else { return Ok(false) };
        let Some(there) = self.policy.destination.head(&copy.copy, None).await? else { return Ok(false) };
        let adopted = adopt(self.policy, key, &CopyKey::of(copy.copy.clone()), &parsed, &there).await?;
        self.report.count("adopted", u64::from(adopted));
        Ok(adopted)
    }

    /// A row whose bytes were not in the listing: two definite 404s, then it is disowned.
    async fn without_bytes(&mut self, key: &ObjectKey, row: &CopyRow) -> PortResult<bool> {
        for _ in 0..2 {
            if self.policy.destination.head(row.copy_key.object(), None).await?.is_some() {
                return Ok(false);
            }
        }
        let set = RowSet::Disowned { at: self.policy.clock.now(), reason: Reason::BytesMissing, removed_at: None };
        let id = RowId { original: key.clone(), copy_key: row.copy_key.clone() };
        let change = RowChange { id, if_rev: row.rev.clone(), set };
        self.policy.catalog.change(&[change]).await.into_iter().try_for_each(|result| result.map(drop))?;
        let why = format!("the bytes of its copy {} were not in the destination", row.copy_key);
        self.report.done("bytes-missing", key, why);
        tracing::warn!(policy = %self.policy.name, %key, copy = %row.copy_key, "a copy's bytes are missing");
        Ok(true)
    }
}

fn has_row(partition: &Partition, copy: &ObjectKey) -> bool {
    partition.rows.iter().any(|row| row.copy_key.object() == copy)
}

fn has_bytes(bytes: &[ListedCopy], row: &CopyRow) -> bool {
    bytes.iter().any(|copy| copy.copy == *row.copy_key.object())
}

/// Whether the listings and the rows tell different stories, a row's order cannot be trusted, or a surplus copy was left
/// that nobody purged (by a crash, or by a breaker that has been released since). Only a hint.
fn differs(policy: &Policy, partition: &Partition, listed: Option<&Listed>) -> bool {
    let mut active = partition.rows.iter().filter(|row| row.is_active());
    let story = match listed {
        Some(listed) => !active.clone().any(|row| row.matches(&listed.version)),
        None => active.clone().any(|row| row.undeleted_at().is_none()),
    };
    let at_rest = Step::Apply(Verdicts::default());
    story
        || active.any(|row| row.floating)
        || partition.rows.iter().any(is_surplus)
        || next_step(partition, &Ask::BY_FACTS, None, &policy.rules, policy.clock.now()) != at_rest
}

/// What the code would do without the guard "differences are hints": believe the listing.
async fn disown_by_snapshot(
    policy: &Policy,
    key: &ObjectKey,
    partition: &Partition,
    listed: Option<&Listed>,
) -> PortResult<()> {
    if listed.is_some() {
        return Ok(());
    }
    let now = policy.clock.now();
    let set = RowSet::Disowned { at: now, reason: Reason::Absent, removed_at: Some(now) };
    let active = partition.rows.iter().filter(|row| row.is_active());
    let changes: Vec<RowChange> = active
        .map(|row| RowChange {
            id: RowId { original: key.clone(), copy_key: row.copy_key.clone() },
            if_rev: row.rev.clone(),
            set: set.clone(),
        })
        .collect();
    policy.catalog.change(&changes).await.into_iter().try_for_each(|result| result.map(drop))
}

/// Walks over both listings of a mirror and the catalog's keys, which sort alike, and makes equal what is not.
fn compare_mirrored<'a>(policy: &'a Policy, cancel: &'a CancellationToken) -> BoxStream<'a, PortResult<Report>> {
    let source = Listing::of(policy.source.as_ref(), &policy.source_prefix);
    let destination = Listing::of(policy.destination.as_ref(), &policy.source_prefix);
    let walk = (source, destination, CatalogListing::of(policy));
    let found = stream::try_unfold(walk, move |(mut source, mut destination, mut catalog)| async move {
        if cancel.is_cancelled() {
            return Ok(None);
        }
        let heads = [
            source.peek().await?.map(|listed| &listed.key),
            destination.peek().await?.map(|listed| &listed.key),
            catalog.peek().await?,
        ];
        let Some(key) = heads.into_iter().flatten().min().cloned() else { return Ok(None) };
        let (here, there) = (source.take(&key).await?, destination.take(&key).await?);
        let has_row = catalog.take(&key).await?;
        PortResult::Ok(Some(((key, here, there, has_row), (source, destination, catalog))))
    });
    let compared = found.map_ok(move |(key, here, there, has_row)| async move {
        Ok(mirrored_key(policy, &key, (here.as_ref(), there.as_ref(), has_row)).await)
    });
    compared.try_buffer_unordered(KEYS_IN_FLIGHT).boxed()
}

/// One key of a mirror: what the source and the destination list of it, and whether the catalog has a row, where it says so.
pub(super) async fn mirrored_key(
    policy: &Policy,
    key: &ObjectKey,
    (here, there, has_row): (Option<&Listed>, Option<&Listed>, Option<bool>),
) -> Report {
    let mut report = Report::of("reconcile");
    if key.as_str() == OWNER_KEY || here.is_none() && key.as_str().starts_with(RESERVED_PREFIX) {
        return report;
    }
    report.count("keys", 1);
    let content = |listed: &Listed| (listed.version.etag.clone(), listed.version.size);
    let row_fits = has_row.is_none_or(|has_row| has_row == there.is_some());
    if here.map(content) == there.map(content) && row_fits {
        return report;
    }
    report.count("differences", 1);
    match mirror(policy, key).await {
        Ok(()) => report.count("settled", 1),
        Err(error) => {
            report.count("gap", 1);
            report.fail(key, chain(&error));
        }
    }
    report
}
