//! Ports that ask a [`Probe`] what becomes of each call: the one set of wrappers behind [`super::recorder`] and
//! [`super::faults`]. For tests only.
//!
//! A call has one of the fates that the world knows: it passes; it fails before it did anything; it takes effect and is
//! reported as failed; of a batch only a part takes effect; its caller dies before it, after it, or in the middle of a
//! batch; or the caller dies and the request, on its way already, takes effect later. A dead caller's calls never return:
//! whoever runs the flow drops it when the probe says that it died.

use crate::error::{ErrorKind, PortError, PortResult};
use crate::ports::catalog::{
    Catalog, CatalogKeys, CatalogRead, Changed, IndexEntry, IndexQuery, Indexed, PolicyState, RowChange, RowId, RowSet,
    StateChange, Totals,
};
use crate::ports::events::{Backlog, Delivery, EventQueue, Receipt};
use crate::ports::journal::{Entry, Journal};
use crate::ports::objects::{
    Attributes, ByteStream, Copied, CopyRequest, Head, Listed, Object, ObjectCopy, ObjectPurge, ObjectRead,
    ObjectWrite, Onto, Page, PurgeItem, Purged, Retrieval, Written,
};
use async_trait::async_trait;
use futures_util::future::BoxFuture;
use lifecycle::ids::{ObjectKey, VersionId};
use lifecycle::row::{CopyRow, Partition, Tombstone};
use lifecycle::time::UnixMs;
use std::ops::Range;
use std::sync::Arc;

/// One call on its way to a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The port, by the name that it was wrapped with: `source`, `catalog` …
    pub port: &'static str,
    /// The method.
    pub method: &'static str,
    /// What it is about: a key, or what the items of a batch are.
    pub about: String,
    /// It may change something.
    pub effect: bool,
}

impl Call {
    /// `port.method`.
    pub fn name(&self) -> String {
        format!("{}.{}", self.port, self.method)
    }
}

/// What becomes of a call.
pub enum Fate {
    /// It does what it should.
    Pass,
    /// This happens first, then the call does what it should: an interleaving.
    First(BoxFuture<'static, ()>),
    /// It fails and did nothing.
    FailBefore(ErrorKind),
    /// It takes effect and is reported as failed.
    FailAfter(ErrorKind),
    /// Of a batch the first half takes effect and the rest fails; a single call fails and did nothing.
    FailPart(ErrorKind),
    /// The caller dies before the call.
    DieBefore,
    /// The caller dies after the call took effect.
    DieAfter,
    /// Of a batch the first half takes effect, then the caller dies; a single call does nothing.
    DiePart,
    /// The caller dies; the call takes effect when the probe lets it.
    DieLate,
}

/// Decides on calls.
pub trait Probe: Send + Sync {
    /// Awaited before anything becomes of this call: an interleaving at every call.
    fn before(&self, _call: &Call) -> Option<BoxFuture<'static, ()>> {
        None
    }

    /// What becomes of this call.
    fn fate(&self, call: &Call) -> Fate;

    /// Awaited between the call's effect and its caller's learning of it.
    fn after(&self, _call: &Call) -> Option<BoxFuture<'static, ()>> {
        None
    }

    /// The caller is dead from now on.
    fn died(&self) {}

    /// A dead caller's request that is to take effect later.
    fn late(&self, request: BoxFuture<'static, ()>) {
        drop(request);
    }
}

/// Makes the wrappers.
#[derive(Clone)]
pub struct Tap {
    probe: Arc<dyn Probe>,
}

impl Tap {
    /// Wrappers that ask that probe.
    pub fn new(probe: Arc<dyn Probe>) -> Tap {
        Tap { probe }
    }

    /// Wraps a bucket's reader.
    pub fn read(&self, port: &'static str, inner: Arc<dyn ObjectRead>) -> Arc<dyn ObjectRead> {
        Arc::new(self.tapped(port, inner))
    }

    /// Wraps a bucket's writer.
    pub fn write(&self, port: &'static str, inner: Arc<dyn ObjectWrite>) -> Arc<dyn ObjectWrite> {
        Arc::new(self.tapped(port, inner))
    }

    /// Wraps a copier.
    pub fn copy(&self, port: &'static str, inner: Arc<dyn ObjectCopy>) -> Arc<dyn ObjectCopy> {
        Arc::new(self.tapped(port, inner))
    }

    /// Wraps the right to delete.
    pub fn purge(&self, port: &'static str, inner: Arc<dyn ObjectPurge>) -> Arc<dyn ObjectPurge> {
        Arc::new(self.tapped(port, inner))
    }

    /// Wraps a catalog.
    pub fn catalog(&self, port: &'static str, inner: Arc<dyn Catalog>) -> Arc<dyn Catalog> {
        Arc::new(self.tapped(port, inner))
    }

    /// Wraps the listing of a catalog's keys.
    pub fn keys(&self, port: &'static str, inner: Arc<dyn CatalogKeys>) -> Arc<dyn CatalogKeys> {
        Arc::new(self.tapped(port, inner))
    }

    /// Wraps a journal.
    pub fn journal(&self, port: &'static str, inner: Arc<dyn Journal>) -> Arc<dyn Journal> {
        Arc::new(self.tapped(port, inner))
    }

    /// Wraps a queue of events.
    pub fn queue(&self, port: &'static str, inner: Arc<dyn EventQueue>) -> Arc<dyn EventQueue> {
        Arc::new(self.tapped(port, inner))
    }

    fn tapped<P: ?Sized>(&self, port: &'static str, inner: Arc<P>) -> Tapped<P> {
        Tapped { tap: self.clone(), port, inner }
    }

    async fn single<T: Send + 'static>(
        &self,
        call: Call,
        request: impl Future<Output = PortResult<T>> + Send + 'static,
    ) -> PortResult<T> {
        let failed = |kind| Err(PortError::new("call", call.name(), kind));
        if let Some(turn) = self.probe.before(&call) {
            turn.await;
        }
        match self.probe.fate(&call) {
            Fate::Pass => {
                let done = request.await;
                if let Some(turn) = self.probe.after(&call) {
                    turn.await;
                }
                done
            }
            Fate::First(other) => {
                other.await;
                request.await
            }
            Fate::FailBefore(kind) | Fate::FailPart(kind) => failed(kind),
            Fate::FailAfter(kind) => {
                request.await?;
                failed(kind)
            }
            Fate::DieBefore | Fate::DiePart => self.die().await,
            Fate::DieAfter => {
                drop(request.await);
                self.die().await
            }
            Fate::DieLate => {
                self.probe.late(Box::pin(async move { drop(request.await) }));
                self.die().await
            }
        }
    }

    async fn batch<I, T, F>(&self, call: Call, items: Vec<I>, request: impl Fn(Vec<I>) -> F) -> Vec<PortResult<T>>
    where
        I: Clone,
        T: Send + 'static,
        F: Future<Output = Vec<PortResult<T>>> + Send + 'static,
    {
        let failed = |kind: &ErrorKind| Err(PortError::new("call", call.name(), kind.clone()));
        let half = items.len().div_ceil(2).min(items.len().saturating_sub(1));
        if let Some(turn) = self.probe.before(&call) {
            turn.await;
        }
        match self.probe.fate(&call) {
            Fate::Pass => {
                let done = request(items).await;
                if let Some(turn) = self.probe.after(&call) {
                    turn.await;
                }
                done
            }
            Fate::First(other) => {
                other.await;
                request(items).await
            }
            Fate::FailBefore(kind) => items.iter().map(|_| failed(&kind)).collect(),
            Fate::FailAfter(kind) => {
                let done = request(items).await;
                done.into_iter().map(|result| result.and_then(|_| failed(&kind))).collect()
            }
            Fate::FailPart(kind) => {
                let mut results = request(items[..half].to_vec()).await;
                results.extend(items[half..].iter().map(|_| failed(&kind)));
                results
            }
            Fate::DieBefore => self.die().await,
            Fate::DieAfter => {
                drop(request(items).await);
                self.die().await
            }
            Fate::DiePart => {
                drop(request(items[..half].to_vec()).await);
                self.die().await
            }
            Fate::DieLate => {
                let request = request(items);
                self.probe.late(Box::pin(async move { drop(request.await) }));
                self.die().await
            }
        }
    }

    async fn die<T>(&self) -> T {
        self.probe.died();
        std::future::pending().await
    }
}

struct Tapped<P: ?Sized> {
    tap: Tap,
    port: &'static str,
    inner: Arc<P>,
}

impl<P: ?Sized> Tapped<P> {
    fn reads(&self, method: &'static str, about: impl ToString) -> Call {
        Call { port: self.port, method, about: about.to_string(), effect: false }
    }

    fn writes(&self, method: &'static str, about: impl ToString) -> Call {
        Call { port: self.port, method, about: about.to_string(), effect: true }
    }
}

#[async_trait]
impl<P: ObjectRead + ?Sized + 'static> ObjectRead for Tapped<P> {
    async fn head(&self, key: &ObjectKey, version: Option<&VersionId>) -> PortResult<Option<Head>> {
        let (inner, call, key, version) = (self.inner.clone(), self.reads("head", key), key.clone(), version.cloned());
        self.tap.single(call, async move { inner.head(&key, version.as_ref()).await }).await
    }

    async fn get(
        &self,
        key: &ObjectKey,
        version: Option<&VersionId>,
        range: Option<Range<u64>>,
    ) -> PortResult<Option<Object>> {
        let (inner, call, key, version) = (self.inner.clone(), self.reads("get", key), key.clone(), version.cloned());
        self.tap.single(call, async move { inner.get(&key, version.as_ref(), range).await }).await
    }

    async fn retrieve(&self, key: &ObjectKey, terms: &Retrieval) -> PortResult<()> {
        let (inner, call, key, terms) = (self.inner.clone(), self.writes("retrieve", key), key.clone(), *terms);
        self.tap.single(call, async move { inner.retrieve(&key, &terms).await }).await
    }

    async fn list(&self, prefix: &str, after: Option<&ObjectKey>, limit: usize) -> PortResult<Page<Listed>> {
        let (inner, call) = (self.inner.clone(), self.reads("list", prefix));
        let (prefix, after) = (prefix.to_owned(), after.cloned());
        self.tap.single(call, async move { inner.list(&prefix, after.as_ref(), limit).await }).await
    }
}

#[async_trait]
impl ObjectWrite for Tapped<dyn ObjectWrite> {
    async fn put(&self, key: &ObjectKey, body: ByteStream, attributes: &Attributes, onto: Onto) -> PortResult<Written> {
        let (inner, call) = (self.inner.clone(), self.writes("put", key));
        let (key, attributes) = (key.clone(), attributes.clone());
        self.tap.single(call, async move { inner.put(&key, body, &attributes, onto).await }).await
    }

    async fn heeds_conditions(&self, probe: &ObjectKey) -> PortResult<bool> {
        self.inner.heeds_conditions(probe).await
    }
}

#[async_trait]
impl ObjectCopy for Tapped<dyn ObjectCopy> {
    async fn copy(&self, request: &CopyRequest) -> PortResult<Copied> {
        let (inner, call, request) = (self.inner.clone(), self.writes("copy", &request.from), request.clone());
        self.tap.single(call, async move { inner.copy(&request).await }).await
    }
}

#[async_trait]
impl ObjectPurge for Tapped<dyn ObjectPurge> {
    async fn purge(&self, items: &[PurgeItem]) -> Vec<PortResult<Purged>> {
        let call = self.writes("purge", items.len());
        let request = |items: Vec<PurgeItem>| {
            let inner = self.inner.clone();
            async move { inner.purge(&items).await }
        };
        self.tap.batch(call, items.to_vec(), request).await
    }
}

#[async_trait]
impl CatalogRead for Tapped<dyn Catalog> {
    async fn partition(&self, key: &ObjectKey) -> PortResult<Partition> {
        let (inner, call, key) = (self.inner.clone(), self.reads("partition", key), key.clone());
        self.tap.single(call, async move { inner.partition(&key).await }).await
    }

    async fn rows(&self, ids: &[RowId]) -> PortResult<Vec<Option<CopyRow>>> {
        let (inner, call, ids) = (self.inner.clone(), self.reads("rows", ids.len()), ids.to_vec());
        self.tap.single(call, async move { inner.rows(&ids).await }).await
    }

    async fn index(&self, query: &IndexQuery) -> PortResult<Page<IndexEntry, IndexEntry>> {
        let what = match query.what {
            Indexed::Disowned => "disowned",
            Indexed::Surplus => "surplus",
            Indexed::Removed => "removed",
        };
        let (inner, call, query) = (self.inner.clone(), self.reads("index", what), query.clone());
        self.tap.single(call, async move { inner.index(&query).await }).await
    }

    async fn totals(&self) -> PortResult<Totals> {
        let inner = self.inner.clone();
        self.tap.single(self.reads("totals", ""), async move { inner.totals().await }).await
    }

    async fn state(&self) -> PortResult<PolicyState> {
        let inner = self.inner.clone();
        self.tap.single(self.reads("state", ""), async move { inner.state().await }).await
    }
}

#[async_trait]
impl Catalog for Tapped<dyn Catalog> {
    async fn upsert(&self, original: &ObjectKey, row: &CopyRow) -> PortResult<()> {
        let (inner, call) = (self.inner.clone(), self.writes("upsert", original));
        let (original, row) = (original.clone(), row.clone());
        self.tap.single(call, async move { inner.upsert(&original, &row).await }).await
    }

    async fn record_mirrored(&self, original: &ObjectKey, row: &CopyRow) -> PortResult<()> {
        let (inner, call) = (self.inner.clone(), self.writes("record_mirrored", original));
        let (original, row) = (original.clone(), row.clone());
        self.tap.single(call, async move { inner.record_mirrored(&original, &row).await }).await
    }

    async fn change(&self, changes: &[RowChange]) -> Vec<PortResult<Changed>> {
        let call = self.writes("change", words_of(changes));
        let request = |changes: Vec<RowChange>| {
            let inner = self.inner.clone();
            async move { inner.change(&changes).await }
        };
        self.tap.batch(call, changes.to_vec(), request).await
    }

    async fn bury(&self, key: &ObjectKey, tombstone: &Tombstone) -> PortResult<bool> {
        let (inner, call) = (self.inner.clone(), self.writes("bury", key));
        let (key, tombstone) = (key.clone(), *tombstone);
        self.tap.single(call, async move { inner.bury(&key, &tombstone).await }).await
    }

    async fn forget_tombstones(&self, noted_before: UnixMs, limit: usize) -> PortResult<u64> {
        let inner = self.inner.clone();
        let call = self.writes("forget_tombstones", "");
        self.tap.single(call, async move { inner.forget_tombstones(noted_before, limit).await }).await
    }

    async fn set_state(&self, change: StateChange) -> PortResult<()> {
        let word = match change {
            StateChange::Trip(_) => "trip",
            StateChange::Release(_) => "release",
            StateChange::Cleaned(_) => "cleaned",
            StateChange::Reconciled(..) => "reconciled",
        };
        let inner = self.inner.clone();
        self.tap.single(self.writes("set_state", word), async move { inner.set_state(change).await }).await
    }

    async fn lease(&self, name: &str, holder: &str, now: UnixMs, until: UnixMs) -> PortResult<bool> {
        let (inner, call) = (self.inner.clone(), self.writes("lease", name));
        let (name, holder) = (name.to_owned(), holder.to_owned());
        self.tap.single(call, async move { inner.lease(&name, &holder, now, until).await }).await
    }

    async fn unlease(&self, name: &str, holder: &str) -> PortResult<()> {
        let (inner, call) = (self.inner.clone(), self.writes("unlease", name));
        let (name, holder) = (name.to_owned(), holder.to_owned());
        self.tap.single(call, async move { inner.unlease(&name, &holder).await }).await
    }
}

/// `disowned×2 due`: what the changes of a batch set, in the order of their first appearance.
fn words_of(changes: &[RowChange]) -> String {
    let mut counted: Vec<(&'static str, usize)> = Vec::new();
    for change in changes {
        let word = match change.set {
            RowSet::Disowned { .. } => "disowned",
            RowSet::Raised { .. } => "raised",
            RowSet::Due { .. } => "due",
            RowSet::Deleted => "deleted",
        };
        match counted.iter_mut().find(|(known, _)| *known == word) {
            Some((_, n)) => *n += 1,
            None => counted.push((word, 1)),
        }
    }
    let words = counted.into_iter().map(|(word, n)| if n == 1 { word.to_owned() } else { format!("{word}×{n}") });
    words.collect::<Vec<_>>().join(" ")
}

#[async_trait]
impl CatalogKeys for Tapped<dyn CatalogKeys> {
    async fn keys(&self, prefix: &str, after: Option<&ObjectKey>, limit: usize) -> PortResult<Page<ObjectKey>> {
        let (inner, call) = (self.inner.clone(), self.reads("keys", prefix));
        let (prefix, after) = (prefix.to_owned(), after.cloned());
        self.tap.single(call, async move { inner.keys(&prefix, after.as_ref(), limit).await }).await
    }
}

#[async_trait]
impl Journal for Tapped<dyn Journal> {
    async fn append(&self, entries: &[Entry]) -> PortResult<()> {
        let actions: Vec<&str> = entries.iter().map(|entry| entry.action.code()).collect();
        let (inner, entries) = (self.inner.clone(), entries.to_vec());
        let about = if actions.len() <= 4 { actions.join(" ") } else { format!("{}×{}", actions[0], actions.len()) };
        self.tap.single(self.writes("append", about), async move { inner.append(&entries).await }).await
    }
}

#[async_trait]
impl EventQueue for Tapped<dyn EventQueue> {
    async fn receive(&self, limit: usize) -> PortResult<Vec<Delivery>> {
        let inner = self.inner.clone();
        self.tap.single(self.reads("receive", ""), async move { inner.receive(limit).await }).await
    }

    async fn done(&self, receipts: &[Receipt]) -> PortResult<()> {
        let (inner, receipts) = (self.inner.clone(), receipts.to_vec());
        self.tap.single(self.writes("done", receipts.len()), async move { inner.done(&receipts).await }).await
    }

    async fn again(&self, receipt: &Receipt, not_before: UnixMs, why: &str) -> PortResult<()> {
        let (inner, receipt, why) = (self.inner.clone(), receipt.clone(), why.to_owned());
        self.tap.single(self.writes("again", ""), async move { inner.again(&receipt, not_before, &why).await }).await
    }

    async fn give_up(&self, receipt: &Receipt, why: &str) -> PortResult<()> {
        let (inner, receipt, why) = (self.inner.clone(), receipt.clone(), why.to_owned());
        self.tap.single(self.writes("give_up", ""), async move { inner.give_up(&receipt, &why).await }).await
    }

    async fn backlog(&self) -> PortResult<Backlog> {
        let inner = self.inner.clone();
        self.tap.single(self.reads("backlog", ""), async move { inner.backlog().await }).await
    }
}
