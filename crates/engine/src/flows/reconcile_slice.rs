//! Reconcile, a slice at a time, for who may not run as long as the whole takes: the same comparison of every key as in
//! `reconcile.rs`, window by window in the order of the original keys, from a checkpoint on.
//!
//! A window is what one page of the source's listing (and of the catalog's keys) and some pages of the destination's cover
//! together: all three list in key order, so that everything up to the nearest of their ends is known. Memory holds one
//! window, and nothing is sorted on disk. Copies of `a` lie among those of `a+b` and `a.b`, so a few lie in another window
//! than their original: rows whose bytes the window does not show are looked up one by one before anything is said of them,
//! and a copy whose original is elsewhere is looked up in the catalog where it is met.
//!
//! The checkpoint moves after every key. A crash goes back to the one that was kept; comparing a key twice changes nothing.
//! Laws: I2, I9, I11, V8, as the whole comparison keeps them.

use crate::error::{FlowResult, PortResult};
use crate::flows::reconcile::{Orphans, Run, copy_listed, mirrored_key};
use crate::flows::settle::settle;
use crate::limits::{KEYS_IN_FLIGHT, LIST_PAGE, SLICES_OF_ONE_KEY, WINDOW_PAGES};
use crate::policy::{Mode, Policy};
use crate::ports::catalog::{RowId, StateChange};
use crate::ports::objects::Listed;
use crate::report::{Report, chain};
use crate::steps::by_original::ListedCopy;
use futures_util::future::ready;
use futures_util::{StreamExt, stream};
use lifecycle::ids::{CopyKey, ObjectKey};
use lifecycle::settle::Ask;
use lifecycle::time::UnixMs;
use std::collections::{BTreeMap, BTreeSet};
use tokio_util::sync::CancellationToken;

/// How far a comparison has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// All keys up to this one are compared; `None`: none is.
    pub after: Option<ObjectKey>,
    /// Differences that are left among them.
    pub gap: u64,
    /// The first key that was begun and not ended, and how often in a row: a slice was dropped there.
    pub under_way: Option<(ObjectKey, u32)>,
}

/// Goes on with the comparison from `checkpoint`, and moves it with every key, until all is compared or `cancel` says to
/// stop. Adds to the report what this slice did, as [`reconcile`](crate::flows::reconcile::reconcile)'s counts it; it stays
/// `cancelled` until all is compared. Then the policy's state has what all slices together left.
///
/// Checkpoint and report are the caller's, and true between any two keys: what was done before a listing failed, or before
/// the slice was dropped, is told all the same. An error is a listing's, or the policy's state could not be written.
pub async fn reconcile_slice(
    policy: &Policy,
    orphans: Orphans,
    checkpoint: &mut Checkpoint,
    report: &mut Report,
    cancel: &CancellationToken,
) -> FlowResult<()> {
    let adopt_before = orphans.written_before(policy);
    let gap_before = checkpoint.gap;
    report.cancelled = true;
    loop {
        let window = match cancel.is_cancelled() {
            true => None,
            false => Some(Window::after(policy, checkpoint.after.as_ref(), report).await?),
        };
        let whole = match &window {
            Some(window) => window.compare(policy, adopt_before, (checkpoint, gap_before), report, cancel).await,
            None => false,
        };
        let Some(window) = window.filter(|_| whole) else { return Ok(()) };
        match window.until {
            Some(until) => checkpoint.after = Some(until),
            None => break,
        }
    }
    policy.catalog.set_state(StateChange::Reconciled(policy.clock.now(), checkpoint.gap)).await?;
    report.cancelled = false;
    Ok(())
}

/// What the listings have between the checkpoint and `until`.
struct Window {
    /// The last key of it; `None`: there is nothing beyond.
    until: Option<ObjectKey>,
    source: BTreeMap<ObjectKey, Listed>,
    /// Keys with rows; `None` where the catalog cannot list them.
    rows: Option<BTreeSet<ObjectKey>>,
    /// Of a mirror: its objects by their key.
    mirrored: BTreeMap<ObjectKey, Listed>,
    /// Copies of originals of this window.
    copies: BTreeMap<ObjectKey, Vec<ListedCopy>>,
    /// Copies that lie here, of originals that do not, or may not: those whose names had to be cut. By original, in the order
    /// of the listing.
    strays: BTreeMap<ObjectKey, Vec<ListedCopy>>,
}

/// What there is to compare under one name: a key, strays of which this is the first, or both.
struct There<'a> {
    is_key: bool,
    strays: &'a [ListedCopy],
}

impl Window {
    async fn after(policy: &Policy, after: Option<&ObjectKey>, report: &mut Report) -> PortResult<Window> {
        let source = policy.source.list(&policy.source_prefix, after, LIST_PAGE).await?;
        let mut until = source.next;
        let rows = match &policy.keys {
            None => None,
            Some(keys) => {
                let page = keys.keys(&policy.source_prefix, after, LIST_PAGE).await?;
                until = nearest(until, page.next);
                Some(page.items)
            }
        };
        let (there, until) = list_destination(policy, after, until).await?;
        let within = |key: &ObjectKey| until.as_ref().is_none_or(|until| key <= until);
        let mut window = Window {
            source: source.items.into_iter().filter(|l| within(&l.key)).map(|l| (l.key.clone(), l)).collect(),
            rows: rows.map(|rows| rows.into_iter().filter(within).collect()),
            mirrored: BTreeMap::new(),
            copies: BTreeMap::new(),
            strays: BTreeMap::new(),
            until: until.clone(),
        };
        for listed in there.into_iter().filter(|listed| within(&listed.key)) {
            window.put(policy, after, listed, report).await?;
        }
        Ok(window)
    }

    /// Notes an object of the destination.
    async fn put(
        &mut self,
        policy: &Policy,
        after: Option<&ObjectKey>,
        listed: Listed,
        report: &mut Report,
    ) -> PortResult<()> {
        if policy.mode == Mode::Mirror {
            self.mirrored.insert(listed.key.clone(), listed);
            return Ok(());
        }
        let Some(copy) = copy_listed(policy, listed, report).await? else { return Ok(()) };
        let original = copy.original.clone();
        let within = after.is_none_or(|after| original > *after) && self.until.as_ref().is_none_or(|u| original <= *u);
        // One whose name had to cut its original may lie on the other side of a checkpoint between the two.
        let whole = copy.copy.as_str().starts_with(original.as_str());
        let of = if within && whole { &mut self.copies } else { &mut self.strays };
        of.entry(original).or_default().push(copy);
        Ok(())
    }

    /// Compares its keys, some at the same time, and moves the checkpoint over those that are done without a gap; `false`:
    /// stopped before the last one.
    async fn compare(
        &self,
        policy: &Policy,
        adopt_before: UnixMs,
        (checkpoint, gap_before): (&mut Checkpoint, u64),
        report: &mut Report,
        cancel: &CancellationToken,
    ) -> bool {
        let rows = self.rows.iter().flatten();
        let keys = self.source.keys().chain(self.mirrored.keys()).chain(self.copies.keys()).chain(rows);
        let keys: BTreeSet<&ObjectKey> = keys.collect();
        // Those of one original with the first of them, one after the other: each is settled, and would copy what the others
        // do.
        let strays: BTreeMap<&ObjectKey, &[ListedCopy]> =
            self.strays.values().filter_map(|copies| Some((&copies.first()?.copy, copies.as_slice()))).collect();
        // In one order: the checkpoint that passes a key has passed the strays before it, too.
        let places: BTreeSet<&ObjectKey> = keys.iter().chain(strays.keys()).copied().collect();
        let places: Vec<ObjectKey> = places.into_iter().cloned().collect();
        let dropped_at = checkpoint.under_way.take();
        let tries_of = |place: &ObjectKey| dropped_at.as_ref().filter(|(key, _)| key == place).map_or(0, |(_, n)| *n);
        let begun = |place: &ObjectKey| Some((place.clone(), tries_of(place) + 1));
        // Not before the first: every slice that begins comes forward.
        let mut ended = stream::iter(places.iter().cloned().enumerate())
            .take_while(|(n, _)| ready(*n == 0 || !cancel.is_cancelled()))
            .map(|(_, place)| {
                let tries = tries_of(&place);
                let there =
                    There { is_key: keys.contains(&place), strays: strays.get(&place).copied().unwrap_or_default() };
                async move { self.place(policy, adopt_before, &place, tries, there).await }
            })
            .buffered(KEYS_IN_FLIGHT);
        checkpoint.under_way = places.first().and_then(begun);
        let mut n = 0;
        while let Some(of_place) = ended.next().await {
            report.absorb(of_place);
            checkpoint.after = Some(places[n].clone());
            checkpoint.gap = gap_before + report.counted("gap");
            n += 1;
            // The next one was begun with it, unless the slice is over.
            checkpoint.under_way = places.get(n).and_then(begun);
        }
        checkpoint.under_way = None;
        n == places.len()
    }

    /// Compares what there is under one name.
    async fn place(
        &self,
        policy: &Policy,
        adopt_before: UnixMs,
        place: &ObjectKey,
        tries: u32,
        there: There<'_>,
    ) -> Report {
        // It was the first of a slice and outlasted it: another try would be the same, and nothing behind it be compared.
        if tries >= SLICES_OF_ONE_KEY {
            let mut report = Report::of("reconcile");
            report.count("gap", 1);
            let why = format!(
                "it took longer than {tries} slices, and was passed over: `afterimage serve` has no such limit"
            );
            report.fail(place, why);
            return report;
        }
        let mut report = Report::of("reconcile");
        for copy in there.strays {
            report.absorb(Run::new(policy, adopt_before).stray(copy).await);
        }
        if there.is_key {
            report.absorb(self.compare_key(policy, adopt_before, place).await);
        }
        report
    }

    async fn compare_key(&self, policy: &Policy, adopt_before: UnixMs, key: &ObjectKey) -> Report {
        let here = self.source.get(key);
        match policy.mode {
            Mode::Copies => {
                let bytes = self.copies.get(key).map_or(&[][..], Vec::as_slice);
                Run::new(policy, adopt_before).compare(key, here, bytes).await
            }
            Mode::Mirror => {
                let has_row = self.rows.as_ref().map(|rows| rows.contains(key));
                mirrored_key(policy, key, (here, self.mirrored.get(key), has_row)).await
            }
        }
    }
}

impl Run<'_> {
    /// A copy of a key that is compared elsewhere, or nowhere: if it has no row it is adopted, as it would be there; if its
    /// original is gone, that is noticed here.
    async fn stray(mut self, copy: &ListedCopy) -> Report {
        if let Err(error) = self.adopt_stray(copy).await {
            self.report.count("gap", 1);
            self.report.fail(&copy.original, chain(&error));
        }
        self.report
    }

    async fn adopt_stray(&mut self, copy: &ListedCopy) -> FlowResult<()> {
        let policy = self.policy;
        let id = RowId { original: copy.original.clone(), copy_key: CopyKey::of(copy.copy.clone()) };
        let differs = match policy.catalog.rows(&[id]).await?.into_iter().next().flatten() {
            None => self.orphan(&copy.original, copy).await?,
            // Where the catalog cannot list its keys, a key without an object is known by its copies alone.
            Some(row) if row.is_active() && policy.keys.is_none() => {
                row.undeleted_at().is_none() && policy.source.head(&copy.original, None).await?.is_none()
            }
            Some(_) => false,
        };
        if differs {
            self.report.count("differences", 1);
            settle(policy, &copy.original, Ask::BY_LOOK).await?;
            self.report.count("settled", 1);
        }
        Ok(())
    }
}

/// The nearer of two ends, of which `None` is none.
fn nearest(a: Option<ObjectKey>, b: Option<ObjectKey>) -> Option<ObjectKey> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// Lists the destination up to `until`, or as many pages as a window may have; and how far that is.
async fn list_destination(
    policy: &Policy,
    after: Option<&ObjectKey>,
    until: Option<ObjectKey>,
) -> PortResult<(Vec<Listed>, Option<ObjectKey>)> {
    // Objects of a mirror are called as their originals; of copies, what is no copy shall be seen, wherever it is.
    let prefix = if policy.mode == Mode::Mirror { policy.source_prefix.as_str() } else { "" };
    let mut listed = Vec::new();
    let mut after = after.cloned();
    for _ in 0..WINDOW_PAGES {
        let page = policy.destination.list(prefix, after.as_ref(), LIST_PAGE).await?;
        listed.extend(page.items);
        match page.next {
            Some(next) if until.as_ref().is_none_or(|until| next < *until) => after = Some(next),
            _ => return Ok((listed, until)),
        }
    }
    Ok((listed, after))
}
