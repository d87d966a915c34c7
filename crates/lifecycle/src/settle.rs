//! Settling a key: what the facts in the catalog, and a look where one is needed, ask for next.
//!
//! The flow (`engine/src/flows/settle.rs`) reads the partition, calls [`next_step`], carries out the one step that it
//! says, and comes back until the step is [`Step::Apply`]. Nothing here reads or writes; every verdict has its reason.
//! Laws: V2 (a look judges only rows read before it), V5 (a floating order is never trusted alone), V9 (orders of different
//! bases are never compared), I4 (the current content of a live key keeps its copy).

use crate::event::{Current, Look};
use crate::guards::Guard;
use crate::ids::{CopyKey, Rev};
use crate::keep::Standing;
use crate::order::{Basis, Order};
use crate::policy::Rules;
use crate::row::{CopyRow, CopyState, Partition, Reason, Tombstone, newer, newest_first};
use crate::time::{SpanMs, UnixMs};
use std::cmp::Ordering;

/// To which the times of a HEAD are cut.
const SECOND: SpanMs = SpanMs(1_000);

/// How the key is to be settled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ask {
    /// Look at the source even if the rows alone would decide.
    pub force: bool,
    /// The order of the event that asks, where that event left no fact of its own (a version's permanent delete).
    pub event_order: Option<Order>,
    /// When that event happened.
    pub event_time: Option<UnixMs>,
    /// An event without an order that could be used asks: only what the look finds tells of it, and that must last.
    pub unordered: bool,
    /// And events before it, which have their orders, may still come: that the key is gone is noted even where nothing is
    /// known of it.
    pub before_others: bool,
}

impl Ask {
    /// Settle by the facts in the catalog; look only where they do not decide.
    pub const BY_FACTS: Ask =
        Ask { force: false, event_order: None, event_time: None, unordered: false, before_others: false };
    /// Settle with a look.
    pub const BY_LOOK: Ask = Ask { force: true, ..Ask::BY_FACTS };

    /// Settle with a look, for an event that leaves no fact of its own.
    pub fn for_event(order: Option<Order>, time: UnixMs) -> Ask {
        let unordered = order.is_none();
        Ask { force: true, event_order: order, event_time: Some(time), unordered, before_others: unordered }
    }

    /// Settle with a look, for an event so old that no older one is listened to either.
    pub const FOR_OLD_EVENT: Ask = Ask { unordered: true, ..Ask::BY_LOOK };

    /// One ask that covers both.
    pub fn and(self, other: Ask) -> Ask {
        let later = match (self.event_order, other.event_order) {
            (Some(a), Some(b)) if b > a => other,
            (Some(_), _) => self,
            (None, _) => other,
        };
        Ask {
            force: self.force || other.force,
            unordered: self.unordered || other.unordered,
            before_others: self.before_others || other.before_others,
            ..later
        }
    }
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// HEAD the source, now, after the rows were read; then ask again with the same rows.
    Look,
    /// Put this tombstone; then read and ask again.
    Bury(Tombstone),
    /// The source's current content has no active copy: copy it to a name of its own, put a floating row with this
    /// order; then read and ask again.
    CopyCurrent {
        /// The order of the new row.
        order: Order,
        /// What to copy.
        current: Current,
    },
    /// The current content outlived the event that asked, or what the rows alone say: give its row this order, the same or
    /// a higher one, and let it float, if it is still active and unchanged; then read and ask again. So the look leaves a
    /// durable fact (guard 5).
    Raise {
        /// Which row.
        copy_key: CopyKey,
        /// As it was read.
        rev: Rev,
        /// The new order.
        order: Order,
    },
    /// Carry these out; if none was refused, the key is settled.
    Apply(Verdicts),
}

/// What settling changes. Empty when the key is settled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdicts {
    /// Rows to disown.
    pub disown: Vec<Verdict>,
    /// Active rows whose due time must be written.
    pub due: Vec<DueChange>,
}

/// A row to disown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Which row.
    pub copy_key: CopyKey,
    /// As it was read: the claim is conditional on it (V4).
    pub rev: Rev,
    /// Why.
    pub reason: Reason,
    /// When the original was removed, where that is the reason.
    pub removed_at: Option<UnixMs>,
}

/// An active row whose due time must be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueChange {
    /// Which row.
    pub copy_key: CopyKey,
    /// As it was read.
    pub rev: Rev,
    /// When time alone makes it surplus; `None`: never.
    pub due_at: Option<UnixMs>,
}

/// Says what to do next for one key. `partition` is the whole of it, strongly read; `look`, where given, was made after
/// that read. Rows and tombstones of another basis than the policy's are read as [`Partition::in_basis`] says.
pub fn next_step(partition: &Partition, ask: &Ask, look: Option<&Look>, rules: &Rules, now: UnixMs) -> Step {
    let partition = &*partition.seen_in(rules.basis);
    let event_order = ask.event_order.filter(|order| order.basis() == rules.basis);
    match look {
        None => {
            let judged = judge(partition, None, rules, now);
            if ask.force || always_looks(rules) || touches_floating(&judged, partition.tombstone, rules) {
                return Step::Look;
            }
            Step::Apply(verdicts(judged))
        }
        Some(Look::Absent) => {
            let event = event_order.map(|order| (order, ask.event_time));
            match ask.force.then(|| removal_seen(partition, event, ask.before_others, rules, now)).flatten() {
                Some(tombstone) => Step::Bury(tombstone),
                None => Step::Apply(verdicts(judge(partition, look, rules, now))),
            }
        }
        Some(Look::Present(current)) => match pin(partition, look) {
            None => Step::CopyCurrent {
                order: order_for_look(partition, event_order, current, rules.basis),
                current: current.clone(),
            },
            Some(row) => match outlived(row, partition, event_order, ask.unordered, rules, now) {
                Some(order) => Step::Raise { copy_key: row.copy_key.clone(), rev: row.rev.clone(), order },
                None => Step::Apply(verdicts(judge(partition, look, rules, now))),
            },
        },
    }
}

/// The order that the current content's row must get before anything else, since the look has seen it alive after all that
/// the rows know: above the event that asked; above a tombstone; or the same, only floating, where the rows alone would
/// have it surplus, or where the event that asked has no order: the content may be that event's, put after a removal that
/// nobody has told of yet. Floating, nobody judges it without a look again. Time-ordered policies always look: there the
/// pin protects it, and its own order places it better among the others.
fn outlived(
    row: &CopyRow,
    partition: &Partition,
    event_order: Option<Order>,
    unordered: bool,
    rules: &Rules,
    now: UnixMs,
) -> Option<Order> {
    let above_event = event_order.filter(|order| *order > row.order);
    let above_rows = match rules.basis {
        Basis::Sequencer => {
            let above_tombstone = buried_by(row, partition, rules).map(|tombstone| tombstone.order.next_sub());
            let judged = judge(partition, None, rules, now);
            let stays = judged.iter().any(|one| one.row.copy_key == row.copy_key && one.standing == Ok(Standing::Kept));
            above_tombstone.or((!row.floating && (unordered || !stays)).then_some(row.order))
        }
        Basis::Time => None,
    };
    above_event.into_iter().chain(above_rows).reduce(newer)
}

fn always_looks(rules: &Rules) -> bool {
    rules.basis == Basis::Time && rules.guards.hold(Guard::LookWhenTimeOrdered)
}

/// Whether a floating row would be changed (disowned, or given another due time), or a row would stay that a removal which
/// only a look has seen may have taken.
fn touches_floating(judged: &[Judged<'_>], tombstone: Option<Tombstone>, rules: &Rules) -> bool {
    let lower_bound = tombstone.is_some_and(|tombstone| tombstone.floating);
    let may_be_gone = |one: &Judged<'_>| lower_bound && one.standing.is_ok() && one.row.undeleted_at().is_none();
    let is_touched = |one: &Judged<'_>| one.row.floating && one.changes() || may_be_gone(one);
    rules.guards.hold(Guard::FloatingLooks) && judged.iter().any(is_touched)
}

/// The removal that a forced look has found, if it is news: nothing is there, so that the key is gone up to the greatest
/// order known.
///
/// When it was removed is known only where the event that asked stands for it. Else it was between the creation of what
/// was there last and now. What `undelete` brought back in between may be what is not put back yet: then the removal is
/// taken to be the one before that (guard 9).
///
/// Where the order is not the event's, it is a lower bound: the tombstone floats. `before_others` asks for that mark at
/// least, so that a version which was removed before, but whose event comes later, meets it.
fn removal_seen(
    partition: &Partition,
    event: Option<(Order, Option<UnixMs>)>,
    before_others: bool,
    rules: &Rules,
    now: UnixMs,
) -> Option<Tombstone> {
    let rows = partition.rows.iter().filter(|row| is_of_source(row));
    let last = rows.min_by(|a, b| newest_first(a, b));
    let (order, time, floating) = match (event, last) {
        (Some((order, time)), last) if last.is_none_or(|last| order >= last.order) => {
            (order, time.unwrap_or(now), false)
        }
        (_, Some(last)) => {
            let waits = |row: &&CopyRow| {
                row.is_active() && row.order <= last.order && !was_put_back(row, partition, partition.rows.iter())
            };
            let brought_back = partition.rows.iter().filter(waits).filter_map(|row| undeleted_at(row, rules));
            let before = brought_back.filter(|undeleted_at| *undeleted_at >= last.created_at).min();
            (last.order, before.unwrap_or(now), true)
        }
        (_, None) => (Order::lowest(rules.basis), now, true),
    };
    let seen = Tombstone { order, time: time.min(now), noted_at: now, floating };
    let known = partition.tombstone;
    let names_versions = last.is_some() || !floating;
    if names_versions && known.is_none_or(|known| seen.order > known.order) {
        return Some(seen);
    }
    let mark = known.map_or(seen, |known| Tombstone { floating: true, ..known });
    (before_others && known.is_none_or(|known| !known.floating)).then_some(mark)
}

/// The order of a copy that a look makes: only a lower bound, unless the event that asked stands above all.
fn order_for_look(partition: &Partition, event_order: Option<Order>, current: &Current, basis: Basis) -> Order {
    match (partition.greatest_order(), event_order, basis) {
        (Some(known), Some(order), _) if order > known => order,
        (Some(known), _, _) => known.next_sub(),
        (None, Some(order), _) => order,
        (None, None, Basis::Time) => Order::from_time(current.last_modified),
        (None, None, Basis::Sequencer) => Order::lowest(basis).next_sub(),
    }
}

/// The newest active row of the content that the look found: never in a verdict (I4).
fn pin<'a>(partition: &'a Partition, look: Option<&Look>) -> Option<&'a CopyRow> {
    let Some(Look::Present(current)) = look else { return None };
    let matching = partition.rows.iter().filter(|row| row.is_active() && row.matches(&current.version));
    matching.min_by(|a, b| newest_first(a, b))
}

/// What the facts say about one active row.
struct Judged<'a> {
    row: &'a CopyRow,
    /// How it stands under the retention rule; or that its original is gone, since when.
    standing: Result<Standing, UnixMs>,
    /// Why it is disowned, if it is.
    reason: Reason,
}

impl Judged<'_> {
    /// Stays, with this due time; `Err`: is disowned, with this time of removal.
    fn outcome(&self) -> Result<Option<UnixMs>, Option<UnixMs>> {
        match self.standing {
            Ok(Standing::Kept) => Ok(None),
            Ok(Standing::KeptUntil(until)) => Ok(Some(until)),
            Ok(Standing::Surplus) => Err(None),
            Err(removed_at) => Err(Some(removed_at)),
        }
    }

    fn changes(&self) -> bool {
        self.outcome().map_or(true, |due_at| self.row.state != (CopyState::Active { due_at }))
    }
}

/// Judges every active row. With a look they are judged against the current content.
fn judge<'a>(partition: &'a Partition, look: Option<&Look>, rules: &Rules, now: UnixMs) -> Vec<Judged<'a>> {
    let pin = pin(partition, look);
    let is_pin = |row: &CopyRow| pin.is_some_and(|pin| pin.copy_key == row.copy_key);
    let mut judged: Vec<Judged<'a>> = Vec::with_capacity(partition.rows.len());
    let mut staying: Vec<&CopyRow> = Vec::with_capacity(partition.rows.len());
    for row in partition.rows.iter().filter(|row| row.is_active()) {
        match removal_of(row, partition, look, is_pin(row), rules, now) {
            Some((reason, removed_at)) => judged.push(Judged { row, standing: Err(removed_at), reason }),
            None => staying.push(row),
        }
    }
    staying.sort_by(|a, b| is_pin(b).cmp(&is_pin(a)).then_with(|| newest_first(a, b)));
    loop {
        let (surplus, stay): (Vec<_>, Vec<_>) = judge_by_rule(&staying, is_pin, rules, now)
            .into_iter()
            .partition(|one| one.standing == Ok(Standing::Surplus));
        if surplus.is_empty() {
            judged.extend(stay);
            return judged;
        }
        // What is surplus may have stood between two twins: a settling that reads these rows again must find nothing new.
        staying.retain(|row| surplus.iter().all(|one| one.row.copy_key != row.copy_key));
        judged.extend(surplus);
    }
}

/// Judges rows whose originals are not gone, the one that counts first in front.
fn judge_by_rule<'a>(
    staying: &[&'a CopyRow],
    is_pin: impl Fn(&CopyRow) -> bool,
    rules: &Rules,
    now: UnixMs,
) -> Vec<Judged<'a>> {
    let (put_back, others): (Vec<&CopyRow>, Vec<&CopyRow>) = staying.iter().partition(|row| is_put_back(row, staying));
    let (twins, counted): (Vec<&CopyRow>, Vec<&CopyRow>) =
        others.into_iter().partition(|row| !is_pin(row) && is_older_twin(row, staying));
    let created: Vec<UnixMs> = counted.iter().map(|row| row.created_at).collect();
    let standings = rules.keep.standings(rules.protect_for, &created, now);
    let by_rule = counted.into_iter().zip(standings);
    let by_rule = by_rule.map(|(row, standing)| Judged { row, standing: Ok(standing), reason: Reason::BeyondKeep });
    let twins = twins.into_iter().map(|row| {
        let held = row.created_at.runs_until(rules.protect_for, now);
        let standing = Ok(held.map_or(Standing::Surplus, Standing::KeptUntil));
        Judged { row, standing, reason: Reason::Twin }
    });
    let put_back = put_back.into_iter();
    let put_back = put_back.map(|row| Judged { row, standing: Ok(Standing::Kept), reason: Reason::BeyondKeep });
    by_rule.chain(twins).chain(put_back).collect()
}

/// What has to be written, each with its reason.
fn verdicts(judged: Vec<Judged<'_>>) -> Verdicts {
    let mut found = Verdicts::default();
    for one in judged.into_iter().filter(Judged::changes) {
        let (copy_key, rev) = (one.row.copy_key.clone(), one.row.rev.clone());
        match one.outcome() {
            Ok(due_at) => found.due.push(DueChange { copy_key, rev, due_at }),
            Err(removed_at) => found.disown.push(Verdict { copy_key, rev, reason: one.reason, removed_at }),
        }
    }
    found
}

/// Whether the row's original is gone, why, and since when.
fn removal_of(
    row: &CopyRow,
    partition: &Partition,
    look: Option<&Look>,
    is_pin: bool,
    rules: &Rules,
    now: UnixMs,
) -> Option<(Reason, UnixMs)> {
    if let Some(tombstone) = buried_by(row, partition, rules)
        && !is_pin
    {
        return Some((Reason::Removed, tombstone.time));
    }
    (look == Some(&Look::Absent) && undeleted_at(row, rules).is_none()).then_some((Reason::Absent, now))
}

/// The tombstone, if it stands for a removal of this row's content: one at or above its order and, where `undelete` brought
/// the content back, one after that (guard 9): by its time, or because it also took what was created or put back since. (What
/// floats may stand above it: it proves nothing.)
fn buried_by(row: &CopyRow, partition: &Partition, rules: &Rules) -> Option<Tombstone> {
    let tombstone = partition.tombstone.filter(|tombstone| row.order <= tombstone.order)?;
    let Some(undeleted_at) = undeleted_at(row, rules) else { return Some(tombstone) };
    let taken = || partition.rows.iter().filter(|other| !other.floating && other.order <= tombstone.order);
    let since = |other: &CopyRow| row.order < other.order && is_of_source(other) && other.created_at > undeleted_at;
    let after = tombstone.time > undeleted_at || taken().any(since) || was_put_back(row, partition, taken());
    after.then_some(tombstone)
}

/// What the undelete of this row, or a later one, brought back was at the source again: among those rows is the source's copy
/// of it. Its time alone would not tell that, since a HEAD cuts it to the second.
fn was_put_back<'a>(row: &CopyRow, partition: &Partition, mut among: impl Iterator<Item = &'a CopyRow>) -> bool {
    let back = partition.rows.iter().filter(|back| back.order >= row.order);
    let back: Vec<_> = back.filter_map(|back| Some((back, back.undeleted_at()?))).collect();
    among.any(|other| {
        let is_copy_of = |back: &CopyRow| back.order < other.order && is_of_source(other) && other.has_content_of(back);
        let is_since = |undeleted_at| other.created_at.plus(SECOND) > undeleted_at;
        back.iter().any(|(back, undeleted_at)| is_copy_of(back) && is_since(*undeleted_at))
    })
}

/// A copy of what stood at the source, not of another copy.
fn is_of_source(row: &CopyRow) -> bool {
    row.undeleted_at().is_none()
}

fn undeleted_at(row: &CopyRow, rules: &Rules) -> Option<UnixMs> {
    row.undeleted_at().filter(|_| rules.guards.hold(Guard::UndeleteOutlivesOldRemovals))
}

/// `undelete` made the row and put its content back to the source, and the next newer row is the copy of that. The two take
/// one place of the retention rule, and both stay: the older says since when the content was there and when it was not, the
/// newer may have other attributes (a person may have put the same bytes once more).
fn is_put_back(row: &CopyRow, rows: &[&CopyRow]) -> bool {
    let copy_of_it = |next: &CopyRow| is_of_source(next) && next.has_content_of(row);
    row.undeleted_at().is_some() && next_newer(row, rows).is_some_and(copy_of_it)
}

/// A newer row among `rows` is a copy of the same version: of the same version id; or, where the two cannot be compared
/// by version id, of the same tag right beside it while the place of one of them is not an event's own: it floats; or of
/// the same tag at the same place. (Two copies that one `undelete` brought back are two versions of the history, even if
/// their content is the same: it gives each a place. At one place stand two copies of one version, the first made by an
/// undelete that died.)
fn is_older_twin(row: &CopyRow, rows: &[&CopyRow]) -> bool {
    let same_version = |other: &CopyRow| row.version_id.is_some() && other.version_id == row.version_id;
    if rows.iter().any(|other| is_newer(other, row) && same_version(other)) {
        return true;
    }
    let Some(next) = next_newer(row, rows) else { return false };
    let incomparable = row.version_id.is_none() || next.version_id.is_none();
    let no_own_place = row.floating || next.floating || row.order == next.order;
    incomparable && no_own_place && next.has_tag_of(row)
}

fn is_newer(other: &CopyRow, row: &CopyRow) -> bool {
    newest_first(other, row) == Ordering::Less
}

/// The row right above it in the order.
fn next_newer<'a>(row: &CopyRow, rows: &[&'a CopyRow]) -> Option<&'a CopyRow> {
    rows.iter().copied().filter(|other| is_newer(other, row)).max_by(|a, b| newest_first(a, b))
}
