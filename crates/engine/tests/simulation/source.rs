//! The source as its users see it, with its true history: what the oracle knows, and all that it knows.
//!
//! Every deed writes the bucket, notes the fact, and emits the event that a store would. `undelete` writes through the
//! same door, so that what it puts back becomes history and an event like any other put.

use crate::setup::Flavour;
use async_trait::async_trait;
use bytes::Bytes;
use engine::conformance::at_rest::Deed;
use engine::error::PortResult;
use engine::memory::bucket::{MemoryBucket, Stored, collect};
use engine::memory::clock::MemoryClock;
use engine::ports::clock::Clock;
use engine::ports::objects::{
    Attributes, ByteStream, Head, Listed, Object, ObjectRead, ObjectWrite, Onto, Page, Retrieval, Written,
};
use lifecycle::event::{Happened, ObjectEvent};
use lifecycle::ids::{ObjectKey, VersionId};
use lifecycle::order::Order;
use lifecycle::time::UnixMs;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};
/// One true fact.
#[derive(Clone, Debug)]
pub(crate) struct Fact {
    pub key: ObjectKey,
    /// Grows from deed to deed, whatever the clock says.
    pub number: u64,
    pub time: UnixMs,
    pub deed: Deed,
    /// The step of the run in which it happened.
    pub step: u64,
}

/// A span of steps during which a key had no current content.
#[derive(Clone, Debug)]
pub(crate) struct Absence {
    pub key: ObjectKey,
    pub from: u64,
    pub until: Option<u64>,
}

#[derive(Default)]
struct State {
    facts: Vec<Fact>,
    absences: Vec<Absence>,
    events: Vec<(u64, ObjectEvent)>,
    /// Versions and markers that were deleted for good.
    gone: BTreeSet<String>,
    step: u64,
}

/// The source.
pub(crate) struct Source {
    pub bucket: Arc<MemoryBucket>,
    clock: Arc<MemoryClock>,
    flavour: Flavour,
    state: Mutex<State>,
}

impl Source {
    pub(crate) fn new(
        bucket: Arc<MemoryBucket>,
        clock: Arc<MemoryClock>,
        flavour: Flavour,
        keys: &[ObjectKey],
    ) -> Source {
        let absence = |key: &ObjectKey| Absence { key: key.clone(), from: 0, until: None };
        let state = State { absences: keys.iter().map(absence).collect(), ..State::default() };
        Source { bucket, clock, flavour, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics while holding it")
    }

    /// A client puts.
    pub(crate) fn put(&self, key: &ObjectKey, bytes: Bytes, attributes: Attributes) -> Head {
        let (_, head) = self.bucket.put_object(key, bytes.clone(), attributes);
        self.note(key, Deed::Put { version: head.version.clone(), bytes });
        head
    }

    /// A client deletes, or a lifecycle rule does.
    pub(crate) fn remove(&self, key: &ObjectKey) {
        self.bucket.delete_object(key);
        self.note(key, Deed::Removed);
    }

    /// Somebody deletes one version, or one marker, for good.
    pub(crate) fn remove_version(&self, key: &ObjectKey, id: &VersionId) {
        self.bucket.delete_version(key, id);
        self.state().gone.insert(id.0.clone());
        self.note(key, Deed::VersionRemoved(id.clone()));
    }

    fn note(&self, key: &ObjectKey, deed: Deed) {
        let (number, time) = (self.bucket.writes(), self.clock.now());
        let present = self.current(key).is_some();
        let mut state = self.state();
        let step = state.step;
        let what = match &deed {
            Deed::Put { version, .. } => Happened::Created(version.clone()),
            Deed::Removed => Happened::Removed,
            Deed::VersionRemoved(id) => Happened::VersionRemoved(id.clone()),
        };
        let order = Order::from_sequencer(&format!("{number:016x}"));
        state.events.push((number, ObjectEvent { key: key.clone(), time, order, what }));
        state.facts.push(Fact { key: key.clone(), number, time, deed, step });
        let open = state.absences.iter_mut().find(|absence| absence.key == *key && absence.until.is_none());
        match (open, present) {
            (Some(absence), true) => absence.until = Some(step),
            (None, false) => state.absences.push(Absence { key: key.clone(), from: step, until: None }),
            (Some(_), false) | (None, true) => {}
        }
    }

    pub(crate) fn at_step(&self, step: u64) {
        self.state().step = step;
    }

    /// The events since the last call, each with its fact's number.
    pub(crate) fn take_events(&self) -> Vec<(u64, ObjectEvent)> {
        std::mem::take(&mut self.state().events)
    }

    pub(crate) fn current(&self, key: &ObjectKey) -> Option<Stored> {
        self.bucket.read(key, None)
    }

    /// The key's true history.
    pub(crate) fn facts(&self, key: &ObjectKey) -> Vec<Fact> {
        self.state().facts.iter().filter(|fact| fact.key == *key).cloned().collect()
    }

    /// Whether the key had no content at some moment between those steps.
    pub(crate) fn was_absent(&self, key: &ObjectKey, from: u64, until: u64) -> bool {
        let overlaps = |absence: &&Absence| absence.from <= until && absence.until.is_none_or(|end| end >= from);
        self.state().absences.iter().filter(|absence| absence.key == *key).any(|absence| overlaps(&absence))
    }

    /// Versions and markers that can still be deleted for good.
    pub(crate) fn versions(&self, key: &ObjectKey) -> Vec<VersionId> {
        let state = self.state();
        let facts = state.facts.iter().filter(|fact| fact.key == *key);
        let there = facts.filter(|fact| !matches!(fact.deed, Deed::VersionRemoved(_)));
        let ids = there.map(|fact| format!("{:016x}", fact.number));
        ids.filter(|id| !state.gone.contains(id)).map(VersionId).collect()
    }

    /// A spooled source forgets the bytes of a version that is not current once its event was handled.
    pub(crate) fn forget_handled(&self, handled: impl Fn(u64) -> bool) {
        if self.flavour != Flavour::Spooled {
            return;
        }
        let puts: Vec<Fact> = {
            let state = self.state();
            let put = |fact: &&Fact| matches!(fact.deed, Deed::Put { .. }) && handled(fact.number);
            state.facts.iter().filter(put).cloned().collect()
        };
        for fact in puts {
            let id = VersionId(format!("{:016x}", fact.number));
            let is_current =
                self.current(&fact.key).is_some_and(|stored| stored.head.version.version_id.as_ref() == Some(&id));
            if !is_current {
                self.bucket.delete_version(&fact.key, &id);
            }
        }
    }
}

#[async_trait]
impl ObjectRead for Source {
    async fn head(&self, key: &ObjectKey, version: Option<&VersionId>) -> PortResult<Option<Head>> {
        self.bucket.head(key, version).await
    }

    async fn get(
        &self,
        key: &ObjectKey,
        version: Option<&VersionId>,
        range: Option<Range<u64>>,
    ) -> PortResult<Option<Object>> {
        self.bucket.get(key, version, range).await
    }

    async fn retrieve(&self, key: &ObjectKey, terms: &Retrieval) -> PortResult<()> {
        self.bucket.retrieve(key, terms).await
    }

    async fn list(&self, prefix: &str, after: Option<&ObjectKey>, limit: usize) -> PortResult<Page<Listed>> {
        self.bucket.list(prefix, after, limit).await
    }
}

#[async_trait]
impl ObjectWrite for Source {
    async fn put(&self, key: &ObjectKey, body: ByteStream, attributes: &Attributes, onto: Onto) -> PortResult<Written> {
        let bytes = collect(body).await?;
        let current = self.current(key).map(|stored| stored.head.version.etag);
        let holds = match &onto {
            Onto::Anything => true,
            Onto::Nothing => current.is_none(),
            Onto::This(etag) => current.as_ref() == Some(etag),
        };
        if !holds {
            return Ok(Written::DestinationChanged);
        }
        Ok(Written::Done(Source::put(self, key, bytes, attributes.clone())))
    }
}
