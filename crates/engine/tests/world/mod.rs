//! A whole policy in memory for flow and crash tests: every call recorded, every purge witnessed, unexpected logs fatal.
//!
//! What a client does to the source gives an event, which the test delivers when, as often, and in the order that it likes.

#![allow(dead_code, reason = "every test target uses another part of it")]

mod logs;
mod witness;

use engine::error::FlowResult;
use engine::flows::handle::handle;
use engine::memory::bucket::{Stored, Versioning};
use engine::memory::wiring::Memory;
use engine::policy::{Mode, Policy};
use engine::ports::clock::Clock;
use engine::ports::objects::{Attributes, Head, ObjectWrite};
use engine::steps::purge::Purger;
use engine::wrap::faults::Faults;
use engine::wrap::recorder::Recorder;
use engine::wrap::tap::{Call, Fate, Probe, Tap};
use lifecycle::event::{Happened, ObjectEvent};
use lifecycle::guards::Guards;
use lifecycle::ids::{ObjectKey, VersionId};
use lifecycle::keep::Keep;
use lifecycle::order::{Basis, Order};
use lifecycle::policy::Rules;
use lifecycle::row::{CopyRow, CopyState, Partition, Reason};
use lifecycle::time::SpanMs;
use logs::Logs;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use witness::Witness;

/// The grace of [`rules`].
pub(crate) const GRACE: SpanMs = SpanMs::hours(1);

/// What the source is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// Keeps versions; events carry sequencers. What a bucket on this machine looks like to the engine.
    Versioned,
    /// Keeps the current content only; events carry sequencers.
    Unversioned,
    /// Keeps the current content only; events have nothing but their time.
    TimeOrdered,
}

/// Keep 3, one hour of grace, no breaker.
pub(crate) fn rules() -> Rules {
    Rules {
        basis: Basis::Sequencer,
        keep: Keep::last(3),
        protect_for: SpanMs::ZERO,
        grace: GRACE,
        breaker: None,
        guards: Guards::default(),
    }
}

/// [`rules`] with another number of copies.
pub(crate) fn keep(n: u32) -> Rules {
    Rules { keep: Keep::last(n), ..rules() }
}

pub(crate) fn key(text: &str) -> ObjectKey {
    ObjectKey::new(text).unwrap()
}

/// Records, then lets the faults decide.
struct Watched(Arc<Recorder>, Arc<Faults>);

impl Probe for Watched {
    fn fate(&self, call: &Call) -> Fate {
        self.0.fate(call);
        self.1.fate(call)
    }
}

/// A policy, its world, and what was seen of it.
pub(crate) struct World {
    pub(crate) memory: Memory,
    pub(crate) source: Source,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) faults: Arc<Faults>,
    pub(crate) logs: Logs,
    pub(crate) policy: Policy,
    mode: Mode,
    rules: Rules,
    wrong_purges: Arc<Mutex<Vec<String>>>,
}

impl World {
    pub(crate) fn new(source: Source, rules: Rules) -> World {
        World::in_mode(Mode::Copies, source, rules)
    }

    pub(crate) fn in_mode(mode: Mode, source: Source, rules: Rules) -> World {
        let basis = if source == Source::TimeOrdered { Basis::Time } else { Basis::Sequencer };
        let versioning = if source == Source::Versioned { Versioning::On } else { Versioning::Off };
        let (memory, rules) = (Memory::new(versioning), Rules { basis, ..rules });
        let policy = memory.policy(mode, rules.clone());
        let mut world = World {
            memory,
            source,
            recorder: Arc::default(),
            faults: Arc::default(),
            logs: Logs::collect(),
            policy,
            mode,
            rules,
            wrong_purges: Arc::default(),
        };
        let watched = Watched(Arc::clone(&world.recorder), Arc::clone(&world.faults));
        world.policy = world.policy_through(Arc::new(watched));
        world
    }

    /// The same policy, in the hands of another process whose calls that probe decides on.
    pub(crate) fn policy_through(&self, probe: Arc<dyn Probe>) -> Policy {
        let tap = Tap::new(probe);
        let plain = self.memory.policy(self.mode, self.rules.clone());
        let witness = Witness {
            inner: Arc::clone(&self.memory.destination) as _,
            catalog: Arc::clone(&self.memory.catalog),
            clock: Arc::clone(&self.memory.clock),
            grace: self.rules.grace,
            seen: Arc::clone(&self.wrong_purges),
        };
        Policy {
            source: tap.read("source", plain.source),
            destination: tap.read("copies", plain.destination),
            copier: tap.copy("copier", plain.copier),
            recopier: tap.copy("recopier", plain.recopier),
            purger: Purger::new(tap.purge("purger", Arc::new(witness))),
            catalog: tap.catalog("catalog", plain.catalog),
            keys: plain.keys.map(|keys| tap.keys("keys", keys)),
            journal: tap.journal("journal", plain.journal),
            ..plain
        }
    }

    /// The right to write the source, in the hands of a process whose calls that probe decides on.
    pub(crate) fn write_through(&self, port: &'static str, probe: Arc<dyn Probe>) -> Arc<dyn ObjectWrite> {
        Tap::new(probe).write(port, Arc::clone(&self.memory.source) as _)
    }

    /// The destination, in the hands of who may write it.
    pub(crate) fn write_destination(&self, port: &'static str, probe: Arc<dyn Probe>) -> Arc<dyn ObjectWrite> {
        Tap::new(probe).write(port, Arc::clone(&self.memory.destination) as _)
    }

    // --- what clients do to the source ---

    /// A client puts; one millisecond passes.
    pub(crate) fn put(&self, name: &str, content: &str) -> ObjectEvent {
        let time = self.memory.clock.now();
        let attributes = Attributes { content_type: Some("text/plain".to_owned()), ..Attributes::default() };
        let (sequencer, head) = self.memory.source.put_object(&key(name), content.to_owned(), attributes);
        self.memory.clock.advance(SpanMs(1));
        ObjectEvent { key: key(name), time, order: self.order(&sequencer), what: Happened::Created(head.version) }
    }

    /// A client deletes; one millisecond passes.
    pub(crate) fn delete(&self, name: &str) -> ObjectEvent {
        let time = self.memory.clock.now();
        let sequencer = self.memory.source.delete_object(&key(name));
        self.memory.clock.advance(SpanMs(1));
        ObjectEvent { key: key(name), time, order: self.order(&sequencer), what: Happened::Removed }
    }

    /// A client deletes one version, or one marker, for good; one millisecond passes.
    pub(crate) fn delete_version(&self, name: &str, version: &str) -> ObjectEvent {
        let time = self.memory.clock.now();
        let id = VersionId::from(version);
        let sequencer = self.memory.source.delete_version(&key(name), &id).expect("the version is there");
        self.memory.clock.advance(SpanMs(1));
        ObjectEvent { key: key(name), time, order: self.order(&sequencer), what: Happened::VersionRemoved(id) }
    }

    /// The event of the current content of a versioned source, whoever put it.
    pub(crate) fn event_of_current(&self, name: &str) -> ObjectEvent {
        let head = self.head(name);
        let id = head.version.version_id.clone().expect("the source is versioned");
        let (time, order) = (head.last_modified, self.order(id.as_str()));
        ObjectEvent { key: key(name), time, order, what: Happened::Created(head.version) }
    }

    fn order(&self, sequencer: &str) -> Option<Order> {
        (self.source != Source::TimeOrdered).then(|| Order::from_sequencer(sequencer).unwrap())
    }

    // --- what the service does ---

    pub(crate) async fn try_handle(&self, event: &ObjectEvent) -> FlowResult<()> {
        handle(&self.policy, &event.key, std::slice::from_ref(event)).await
    }

    pub(crate) async fn handle(&self, event: &ObjectEvent) {
        self.try_handle(event).await.unwrap_or_else(|error| panic!("{event:?}: {error}"));
    }

    pub(crate) async fn handle_all(&self, events: &[ObjectEvent]) {
        for event in events {
            self.handle(event).await;
        }
    }

    /// Puts and handles.
    pub(crate) async fn protect(&self, name: &str, content: &str) -> ObjectEvent {
        let event = self.put(name, content);
        self.handle(&event).await;
        event
    }

    /// Deletes and handles.
    pub(crate) async fn remove(&self, name: &str) -> ObjectEvent {
        let event = self.delete(name);
        self.handle(&event).await;
        event
    }

    // --- what stands there ---

    pub(crate) fn advance(&self, span: SpanMs) {
        self.memory.clock.advance(span);
    }

    pub(crate) fn partition(&self, name: &str) -> Partition {
        self.memory.catalog.contents().remove(&key(name)).unwrap_or_default()
    }

    /// Its rows, newest first.
    pub(crate) fn rows(&self, name: &str) -> Vec<CopyRow> {
        let mut rows = self.partition(name).rows;
        rows.sort_by(|a, b| b.order.partial_cmp(&a.order).unwrap().then_with(|| b.copy_key.cmp(&a.copy_key)));
        rows
    }

    /// The contents of its active copies, newest first; `(no bytes)` where there are none.
    pub(crate) fn active(&self, name: &str) -> Vec<String> {
        self.rows(name).iter().filter(|row| row.is_active()).map(|row| self.content(row)).collect()
    }

    /// The contents and reasons of its disowned copies, newest first.
    pub(crate) fn disowned(&self, name: &str) -> Vec<(String, Reason)> {
        let reason = |row: &CopyRow| match row.state {
            CopyState::Disowned { reason, .. } => Some(reason),
            CopyState::Active { .. } => None,
        };
        self.rows(name).iter().filter_map(|row| Some((self.content(row), reason(row)?))).collect()
    }

    pub(crate) fn content(&self, row: &CopyRow) -> String {
        match self.memory.destination.read(row.copy_key.object(), None) {
            Some(stored) => text(&stored),
            None => "(no bytes)".to_owned(),
        }
    }

    /// The current content of the source's object.
    pub(crate) fn original(&self, name: &str) -> Option<String> {
        self.memory.source.read(&key(name), None).as_ref().map(text)
    }

    /// The head of the source's object, which is there.
    pub(crate) fn head(&self, name: &str) -> Head {
        self.memory.source.contents().remove(&key(name)).expect("the object is there").head
    }

    /// How many objects lie in the destination.
    pub(crate) fn copies(&self) -> usize {
        self.memory.destination.contents().len()
    }

    /// The codes of the journal's lines.
    pub(crate) fn journal(&self) -> Vec<&'static str> {
        self.memory.journal.entries().iter().map(|entry| entry.action.code()).collect()
    }

    /// The laws that hold once recovered, whatever waits for its grace: no active row without its bytes, the current
    /// content of a live key active, no active copy of a removed one but what was undeleted, no more active copies than
    /// the rule keeps, and nothing purged too early.
    pub(crate) fn assert_safe(&self, context: &str) {
        let (contents, copies) = (self.memory.catalog.contents(), self.memory.destination.contents());
        for (key, partition) in &contents {
            let active: Vec<&CopyRow> = partition.rows.iter().filter(|row| row.is_active()).collect();
            for row in &active {
                let copy = copies.get(row.copy_key.object());
                let copy = copy.unwrap_or_else(|| panic!("{context}: no bytes: {row:?}"));
                assert_eq!(copy.head.version.size, row.size, "{context}: another size: {row:?}");
                assert_eq!(copy.head.checksum, row.checksum, "{context}: another checksum: {row:?}");
            }
            let kept = self.rules.keep;
            let places = active.iter().filter(|row| !is_put_back(row, &active)).count();
            let too_many = kept.within.is_none() && places > kept.last as usize;
            assert!(!too_many, "{context}: {key} has {} active copies: {active:#?}", active.len());
            if self.original(key.as_str()).is_none() {
                let left = active.iter().find(|row| row.undeleted_at().is_none());
                assert!(left.is_none(), "{context}: {key} is gone and has an active copy: {left:?}");
            }
        }
        for (key, stored) in self.memory.source.contents() {
            let rows = contents.get(&key).map_or(&[][..], |partition| &partition.rows);
            let current = |row: &&CopyRow| row.is_active() && row.matches(&stored.head.version);
            assert!(rows.iter().any(|row| current(&row)), "{context}: {key}'s current content has no copy: {rows:?}");
        }
        self.assert_no_wrong_purge(context);
    }

    /// [`World::assert_safe`], and rows and objects are one to one.
    pub(crate) fn assert_laws(&self, context: &str) {
        self.assert_safe(context);
        self.assert_one_to_one(context);
    }

    /// Every row has its object in the destination, and every object its row.
    pub(crate) fn assert_one_to_one(&self, context: &str) {
        let partitions = self.memory.catalog.contents().into_values();
        let rows: BTreeSet<_> =
            partitions.flat_map(|partition| partition.rows).map(|row| row.copy_key.object().clone()).collect();
        let objects: BTreeSet<_> = self.memory.destination.contents().into_keys().collect();
        assert_eq!(rows, objects, "{context}: rows, and objects of the destination");
    }

    /// Nothing was purged before it was due.
    pub(crate) fn assert_no_wrong_purge(&self, context: &str) {
        let wrong = self.wrong_purges.lock().unwrap();
        assert!(wrong.is_empty(), "{context}: {wrong:?}");
    }
}

impl Drop for World {
    /// Every test ends with this, whatever else it looks at.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.assert_no_wrong_purge("at the end of the test");
            let unexpected = self.logs.unexpected();
            assert!(unexpected.is_empty(), "unexpected logs: {unexpected:?}");
        }
    }
}

pub(crate) fn text(stored: &Stored) -> String {
    String::from_utf8(stored.bytes.to_vec()).unwrap()
}

/// Undelete made it and put it back: with the copy of what it put back it takes one place.
fn is_put_back(row: &CopyRow, active: &[&CopyRow]) -> bool {
    let copy_of_it = |other: &CopyRow| other.undeleted_at().is_none() && other.etag == row.etag;
    row.undeleted_at().is_some() && active.iter().any(|other| copy_of_it(other))
}
