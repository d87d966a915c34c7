//! Back-fill: the objects that were there before the policy, and so made no event, get their copies; of a mirror, their
//! equals. Page by page of the source's listing, the keys of a page side by side.
//!
//! Listings only say where to look, as everywhere. A key of which the destination lists a copy already is settled by its rows
//! and a look; one of which it lists none is copied at once, as listed and under that condition, its row is put, and then its
//! rows are read. A listing of the source made after all those reads is the look (V2): only where both say that nothing is
//! left to do is the key settled by it. All others are settled with a look of their own (V1, V8).
//!
//! Nothing is removed because it is not listed: that is `reconcile`'s, and so is a key whose copies have no rows yet, since the
//! catalog was lost: they are adopted there, and not made once more. A crash leaves some keys done, and bytes without a row of
//! those under way (adopted by `reconcile`); given again, it passes over what has its copy and goes on. Laws: I2, I10, I11.

use crate::error::{FlowResult, PortResult};
use crate::flows::mirror::mirror;
use crate::flows::settle::{copy_current, settle};
use crate::limits::{BACKFILL_KEYS_IN_FLIGHT, LIST_PAGE};
use crate::policy::{Mode, Policy};
use crate::ports::metrics::Counter;
use crate::ports::objects::{Listed, Page, Seen};
use crate::ports::progress::Progress;
use crate::report::{Report, chain};
use crate::steps::keys::may_follow;
use futures_util::future::ready;
use futures_util::{StreamExt, stream};
use lifecycle::copy_key::{always_kept, parse};
use lifecycle::event::{Current, Look};
use lifecycle::ids::ObjectKey;
use lifecycle::row::Partition;
use lifecycle::settle::{Ask, Step, Verdicts, next_step};
use std::collections::{BTreeMap, BTreeSet};
use tokio_util::sync::CancellationToken;

/// Back-fills what one policy watches under `prefix`; empty: all. Counts `keys`, `copied` (of a mirror, `compared`),
/// `there` (what had its copy already), and `left` (for `reconcile`).
pub async fn backfill(policy: &Policy, prefix: &str, progress: &dyn Progress, cancel: &CancellationToken) -> Report {
    let mut report = Report::of("backfill");
    report.count("keys", 0);
    let watched = &policy.source_prefix;
    let prefix = match (prefix.starts_with(watched.as_str()), watched.starts_with(prefix)) {
        (true, _) => prefix,
        (false, true) => watched,
        (false, false) => {
            report.fail(prefix, format!("the policy watches {watched} only"));
            return report;
        }
    };
    let mut after = None;
    while !cancel.is_cancelled() {
        let next = match page(policy, prefix, after.as_ref(), &mut report, progress, cancel).await {
            Ok(next) => next,
            Err(error) => {
                report.fail(prefix, chain(&error));
                break;
            }
        };
        after = next;
        if after.is_none() {
            break;
        }
    }
    if report.counted("left") > 0 {
        let why = "keys have copies, but no rows: `reconcile` adopts those copies, and copies what they are not";
        report.fail(&policy.name, format!("{} {why}", report.counted("left")));
    }
    if cancel.is_cancelled() {
        report.cancelled = true;
        report.notes.push("stopped: given again, it passes over what has its copy and goes on".to_owned());
    }
    report
}

/// One page of the source's listing; where the next begins. An error is a listing's: of keys, the report has them.
async fn page(
    policy: &Policy,
    prefix: &str,
    after: Option<&ObjectKey>,
    report: &mut Report,
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> PortResult<Option<ObjectKey>> {
    let Page { items, next } = policy.source.list(prefix, after, LIST_PAGE).await?;
    let listings = Listings::of(policy, prefix, after, &items, cancel).await?;
    let mut copied = Vec::new();
    // Cancelled, it begins nothing more and finishes what is under way: the report names all that was done.
    let mut ended = stream::iter(items)
        .take_while(|_| ready(!cancel.is_cancelled()))
        .map(|listed| {
            let copies = listings.copies_of(&listed.key);
            async move { (listed.key.clone(), one(policy, listed, copies).await) }
        })
        .buffer_unordered(BACKFILL_KEYS_IN_FLIGHT);
    while let Some((key, how)) = ended.next().await {
        match how {
            Ok(Ended::Copied) => copied.push(key),
            Ok(Ended::Counted(what)) => tell(report, progress, key, Ok(what)),
            Err(error) => tell(report, progress, key, Err(error)),
        }
    }
    drop(ended);
    if !copied.is_empty() {
        settle_copied(policy, prefix, after, copied, report, progress).await;
    }
    Ok(next)
}

/// Says how a key's work ended.
fn tell(report: &mut Report, progress: &dyn Progress, key: ObjectKey, how: FlowResult<&'static str>) {
    report.count("keys", 1);
    match how {
        Ok(what) => report.count(what, 1),
        Err(error) => report.fail(key, chain(&error)),
    }
    progress.at(report.counted("keys"), None, "keys");
}

/// How the first half of a key's work ended.
enum Ended {
    /// It is settled, or left.
    Counted(&'static str),
    /// A copy and its row are there, by what was listed: the rows are to be read, and the source looked at.
    Copied,
}

async fn one(policy: &Policy, listed: Listed, copies: Copies) -> FlowResult<Ended> {
    let key = &listed.key;
    if policy.mode == Mode::Mirror {
        mirror(policy, key).await?;
        return Ok(Ended::Counted("compared"));
    }
    if copies == Copies::NoneOfListed {
        let seen = Look::Present(current(&listed));
        let first = next_step(&Partition::default(), &Ask::BY_LOOK, Some(&seen), &policy.rules, policy.clock.now());
        if let Step::CopyCurrent { order, current } = first {
            let seen = Seen { last_modified: listed.last_modified, storage_class: listed.storage_class };
            copy_current(policy, key, order, &current, Some(seen)).await?;
            return Ok(Ended::Copied);
        }
    }
    let partition = policy.catalog.partition(key).await?;
    if partition.rows.iter().any(|row| row.is_active() && row.matches(&listed.version)) {
        return Ok(Ended::Counted("there"));
    }
    if partition.rows.is_empty() && has_copies(policy, key, copies).await? {
        return Ok(Ended::Counted("left"));
    }
    settle(policy, key, Ask::BY_LOOK).await?;
    Ok(Ended::Counted("copied"))
}

/// Whether the destination has a copy of the key.
async fn has_copies(policy: &Policy, key: &ObjectKey, listed: Copies) -> PortResult<bool> {
    if listed != Copies::Unknown {
        return Ok(listed == Copies::Some);
    }
    let beginning = always_kept(key);
    let beginning = if beginning == key.as_str() { format!("{key}.") } else { beginning.to_owned() };
    let mut after = None;
    loop {
        let page = policy.destination.list(&beginning, after.as_ref(), LIST_PAGE).await?;
        if page.items.iter().filter_map(|listed| parse(&listed.key)).any(|parsed| parsed.original.is_of(key)) {
            return Ok(true);
        }
        after = page.next;
        if after.is_none() {
            return Ok(false);
        }
    }
}

fn current(listed: &Listed) -> Current {
    Current { version: listed.version.clone(), last_modified: listed.last_modified, checksum: None }
}

/// Settles what was copied: every key's rows are read, then the source is listed once more, and what the two leave to be done
/// is done key by key.
async fn settle_copied(
    policy: &Policy,
    prefix: &str,
    after: Option<&ObjectKey>,
    copied: Vec<ObjectKey>,
    report: &mut Report,
    progress: &dyn Progress,
) {
    let read: Vec<(ObjectKey, PortResult<Partition>)> = stream::iter(copied)
        .map(|key| async move {
            let partition = policy.catalog.partition(&key).await;
            (key, partition.map(|partition| partition.in_basis(policy.rules.basis)))
        })
        .buffer_unordered(BACKFILL_KEYS_IN_FLIGHT)
        .collect()
        .await;
    policy.metrics.add(Counter::Looks, 1);
    let listed = match policy.source.list(prefix, after, LIST_PAGE).await {
        Ok(page) => page.items,
        // Then every key is looked at by itself, and says itself what is wrong.
        Err(_) => Vec::new(),
    };
    let listed: BTreeMap<ObjectKey, Listed> = listed.into_iter().map(|listed| (listed.key.clone(), listed)).collect();
    let mut ended = stream::iter(read)
        .map(|(key, partition)| {
            let look = listed.get(&key).map(|listed| Look::Present(current(listed)));
            async move {
                let settled = match (partition, look) {
                    (Ok(partition), Some(look)) => is_settled(policy, &partition, &look),
                    _ => false,
                };
                let how = if settled { Ok(()) } else { settle(policy, &key, Ask::BY_LOOK).await };
                (key, how.map(|()| "copied"))
            }
        })
        .buffer_unordered(BACKFILL_KEYS_IN_FLIGHT);
    while let Some((key, how)) = ended.next().await {
        tell(report, progress, key, how);
    }
}

/// Whether these rows and that look leave nothing to be done.
fn is_settled(policy: &Policy, partition: &Partition, look: &Look) -> bool {
    let at_rest = Step::Apply(Verdicts::default());
    next_step(partition, &Ask::BY_LOOK, Some(look), &policy.rules, policy.clock.now()) == at_rest
}

/// What the destination's listing says of a key's copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Copies {
    /// There are none, and the source's listing says of the object all that a look would.
    NoneOfListed,
    /// There are none.
    None,
    /// There are some.
    Some,
    /// They may lie where nobody has looked: further behind, or elsewhere, if their names had to cut the key.
    Unknown,
}

/// What the listings say of one page's keys.
struct Listings {
    /// The source's listing says of an object all that a look would: the bucket keeps no versions, or they are listed.
    is_exact: bool,
    with_copies: BTreeSet<ObjectKey>,
    /// How far the destination was listed; `None`: to its end.
    read_to: Option<ObjectKey>,
}

impl Listings {
    async fn of(
        policy: &Policy,
        prefix: &str,
        after: Option<&ObjectKey>,
        items: &[Listed],
        cancel: &CancellationToken,
    ) -> PortResult<Listings> {
        let mut listings = Listings { is_exact: false, with_copies: BTreeSet::new(), read_to: after.cloned() };
        let (Some(first), Some(last)) = (items.first(), items.last()) else { return Ok(listings) };
        if policy.mode == Mode::Mirror {
            return Ok(listings);
        }
        // What cannot be looked at says so itself, when its turn comes.
        let head = policy.source.head(&first.key, None).await.ok().flatten();
        listings.is_exact = head.is_some_and(|head| head.version == first.version);
        let keys: BTreeSet<&ObjectKey> = items.iter().map(|listed| &listed.key).collect();
        while !cancel.is_cancelled() {
            let page = policy.destination.list(prefix, listings.read_to.as_ref(), LIST_PAGE).await?;
            for original in page.items.iter().filter_map(|listed| parse(&listed.key)?.original.whole()) {
                if keys.contains(&original) {
                    listings.with_copies.insert(original);
                }
            }
            listings.read_to = page.next;
            match &listings.read_to {
                // Copies of a key begin with it and a dot.
                Some(next) if *next <= last.key || may_follow(&last.key, next) => {}
                Some(_) | None => break,
            }
        }
        Ok(listings)
    }

    fn copies_of(&self, key: &ObjectKey) -> Copies {
        match self.with_copies.contains(key) {
            true => Copies::Some,
            false if always_kept(key) != key.as_str() => Copies::Unknown,
            // Copies of `a` lie behind those of `a+b`, which may be all of the page's others.
            false if self.read_to.as_ref().is_some_and(|read_to| *read_to.as_str() < *format!("{key}/")) => {
                Copies::Unknown
            }
            false if self.is_exact => Copies::NoneOfListed,
            false => Copies::None,
        }
    }
}
