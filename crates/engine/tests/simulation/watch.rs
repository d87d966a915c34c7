//! What must never be seen, at no step: the world is compared with what it was one effect before.
//!
//! Knows the rows as any reader of the catalog does, the objects, the source's true history, and nothing of the engine.

use crate::source::Fact;
use crate::world::{Work, World};
use engine::conformance::at_rest::{Deed, same_content};
use engine::memory::bucket::Stored;
use engine::policy::Mode;
use engine::ports::clock::Clock;
use lifecycle::ids::ObjectKey;
use lifecycle::order::{Basis, Order};
use lifecycle::row::{CopyRow, CopyState, Origin, Partition, Reason};
use lifecycle::time::{SpanMs, UnixMs};
use std::collections::BTreeMap;

#[derive(Default)]
pub(crate) struct Watch {
    rows: BTreeMap<ObjectKey, Partition>,
    objects: BTreeMap<ObjectKey, Stored>,
    catalog_writes: u64,
    destination_writes: u64,
    /// The latest that the clock has shown: it steps back.
    pub latest: UnixMs,
    /// Since which step the breaker has been tripped.
    tripped: Option<u64>,
    /// In which step each key's tombstone was noted.
    buried: BTreeMap<ObjectKey, u64>,
    /// In which step each copy's row was first seen.
    appeared: BTreeMap<ObjectKey, u64>,
    /// In which step each copy was last seen disowned.
    disowned_in: BTreeMap<ObjectKey, u64>,
    /// In which steps the index lagged behind, lately.
    pub stale_until: u64,
    pub violation: Option<String>,
}

impl Watch {
    pub(crate) fn from(start: UnixMs) -> Watch {
        Watch { latest: start, ..Watch::default() }
    }

    pub(crate) fn violated(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }

    /// Compares. `started` and `work` tell about the task whose step it was.
    pub(crate) fn look(&mut self, world: &World, started: u64, work: &Work) {
        self.latest = self.latest.max(world.clock.now());
        let catalog_writes = world.catalog.writes();
        if world.destination.writes() != self.destination_writes {
            self.destination_writes = world.destination.writes();
            let now = world.destination.contents();
            self.objects_changed(world, &now, started, work);
            self.objects = now;
        }
        if catalog_writes != self.catalog_writes {
            self.catalog_writes = catalog_writes;
            let now = world.catalog.contents();
            self.rows_changed(world, &now, started);
            self.rows = now;
            self.note_breaker(world);
        }
    }

    fn note_breaker(&mut self, world: &World) {
        let tripped = world.catalog.policy_state().tripped.is_some();
        self.tripped = if tripped { self.tripped.or(Some(world.step)) } else { None };
    }

    fn rows_changed(&mut self, world: &World, now: &BTreeMap<ObjectKey, Partition>, started: u64) {
        let disowned = self.rows.values().flat_map(|partition| &partition.rows).filter(|row| !row.is_active());
        self.disowned_in.extend(disowned.map(|row| (row.copy_key.object().clone(), world.step)));
        for (key, partition) in now {
            let before = self.rows.get(key).cloned();
            let before = before.as_ref();
            if partition.tombstone != before.and_then(|before| before.tombstone) {
                self.buried.insert(key.clone(), world.step);
            }
            for row in &partition.rows {
                let was = before.and_then(|before| before.rows.iter().find(|was| was.copy_key == row.copy_key));
                let Some(was) = was else {
                    self.appeared.insert(row.copy_key.object().clone(), world.step);
                    continue;
                };
                if !was.is_active() && row.is_active() && world.setup.mode == Mode::Copies {
                    self.violated(format!("{}: from disowned to active", row.copy_key));
                }
                if let CopyState::Disowned { reason, .. } = row.state
                    && was.is_active()
                {
                    self.disowned(world, key, was, reason, started);
                }
            }
        }
    }

    /// A negative verdict must have its cause in the true history.
    fn disowned(&mut self, world: &World, key: &ObjectKey, was: &CopyRow, reason: Reason, started: u64) {
        let source = &world.source;
        // After its row by what happened, or by the clock, which steps back; within a second nobody can tell.
        let removal_after = |moment: UnixMs| {
            let appeared = self.appeared.get(was.copy_key.object()).copied().unwrap_or(0);
            let is_after = |fact: &Fact| fact.step >= appeared || fact.time.plus(SpanMs(1_000)) > moment;
            source.facts(key).iter().any(|fact| !matches!(fact.deed, Deed::Put { .. }) && is_after(fact))
        };
        match (reason, was.origin) {
            (Reason::Absent, Origin::Undelete { .. }) => {
                self.violated(format!("{}: undeleted, and disowned as absent", was.copy_key));
            }
            (Reason::Absent, _) if !source.was_absent(key, started, world.step) => {
                self.violated(format!("{}: disowned as absent, and {key} was there all the time", was.copy_key));
            }
            (Reason::Removed, Origin::Undelete { at }) if !removal_after(at) => {
                self.violated(format!("{}: undeleted, and disowned by a removal before that", was.copy_key));
            }
            (Reason::Removed, Origin::Event) if world.setup.rules.basis == Basis::Sequencer => {
                let put = source.facts(key).into_iter().find(|fact| order_of(fact) == Some(was.order));
                let Some(put) = put else { return };
                if !source.was_absent(key, put.step, world.step) {
                    self.violated(format!("{}: disowned as removed, and {key} never was after it", was.copy_key));
                }
            }
            (Reason::BytesMissing, _) if self.objects.contains_key(was.copy_key.object()) => {
                self.violated(format!("{}: disowned for missing bytes, and they are there", was.copy_key));
            }
            _ => {}
        }
    }

    fn objects_changed(&mut self, world: &World, now: &BTreeMap<ObjectKey, Stored>, started: u64, work: &Work) {
        let gone: Vec<ObjectKey> = self.objects.keys().filter(|copy| !now.contains_key(*copy)).cloned().collect();
        for copy in gone {
            if self.tripped.is_some_and(|tripped| tripped < started) {
                self.violated(format!("{copy}: purged while the breaker was tripped"));
            }
            match world.setup.mode {
                Mode::Mirror => self.mirrored_gone(world, &copy, started),
                Mode::Copies => self.purged(world, &copy, now, started, work),
            }
        }
    }

    fn mirrored_gone(&mut self, world: &World, key: &ObjectKey, started: u64) {
        if !world.source.was_absent(key, started, world.step) {
            self.violated(format!("{key}: deleted from the mirror, and it was there all the time"));
        }
    }

    fn purged(
        &mut self,
        world: &World,
        copy: &ObjectKey,
        now: &BTreeMap<ObjectKey, Stored>,
        started: u64,
        work: &Work,
    ) {
        let owned = self.rows.iter().find_map(|(key, partition)| {
            let row = partition.rows.iter().find(|row| row.copy_key.object() == copy)?;
            Some((key.clone(), row.clone()))
        });
        let Some((key, row)) = owned else {
            // A request of somebody who died, for bytes that another has purged and a third has copied again.
            return;
        };
        let CopyState::Disowned { at, reason } = row.state else {
            // Legal only if it was disowned when the purge began: others purged it, a redelivery made it anew.
            if self.disowned_in.get(copy).is_none_or(|step| *step < started) {
                self.violated(format!("{copy}: purged while it was active"));
            }
            self.last_copy(world, &key, &row, now);
            return;
        };
        let rules = &world.setup.rules;
        if !reason.is_surplus() && at.plus(rules.grace) > self.latest {
            self.violated(format!("{copy}: purged before its grace was over"));
        }
        if rules.protect_for.0 > 0 && row.created_at.plus(rules.protect_for) > self.latest {
            self.violated(format!("{copy}: purged while it was protected"));
        }
        if !reason.is_surplus() && *work == Work::Clean {
            self.breaker_should_hold(world, copy, started);
        }
        self.last_copy(world, &key, &row, now);
    }

    /// The copy that went must not have been the last one of the current content, unless an event is on its way.
    fn last_copy(&mut self, world: &World, key: &ObjectKey, row: &CopyRow, now: &BTreeMap<ObjectKey, Stored>) {
        let Some(current) = world.source.current(key) else { return };
        let version = &current.head.version;
        if !same_content(row, version) || world.mails.iter().any(|mail| !mail.handled && mail.event.key == *key) {
            return;
        }
        let rows = self.rows.get(key).map(|partition| partition.rows.as_slice()).unwrap_or_default();
        let another =
            rows.iter().any(|other| same_content(other, version) && now.contains_key(other.copy_key.object()));
        if !another {
            self.violated(format!("{}: the last copy of the current content was purged", row.copy_key));
        }
    }

    fn breaker_should_hold(&mut self, world: &World, copy: &ObjectKey, started: u64) {
        let Some(rule) = world.setup.rules.breaker else { return };
        if self.stale_until >= started {
            return;
        }
        let released = world.catalog.policy_state().released_at.unwrap_or(UnixMs(0));
        let counted = |(key, partition): &(&ObjectKey, &Partition)| {
            partition.tombstone.is_some_and(|tombstone| {
                tombstone.noted_at > released
                    && tombstone.noted_at.plus(rule.window) > self.latest
                    && self.buried.get(*key).is_some_and(|step| *step < started)
            })
        };
        let removed = self.rows.iter().filter(counted).count();
        let share = removed as f64 / world.keys.len() as f64;
        if removed as u64 > rule.deletes && share > rule.share && released < self.latest.minus(rule.window) {
            self.violated(format!("{copy}: purged, and the breaker should have tripped: {removed} keys removed"));
        }
    }
}

/// The order that the fact's own event carries.
fn order_of(fact: &Fact) -> Option<Order> {
    Order::from_sequencer(&format!("{:016x}", fact.number))
}
