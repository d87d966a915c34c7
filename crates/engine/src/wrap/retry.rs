//! Tries port calls again: the small hiccups of a store (throttling, a lost answer) end here instead of putting the event
//! back. Every flow stands behind these wrappers; limits are [`CALL_ATTEMPTS`], [`CALL_WAIT_MIN`] and [`CALL_WAIT_MAX`] (I10).
//!
//! A failed call may have taken effect (`Unavailable` says so of itself), so only calls that may be repeated after their
//! own success are repeated. Why each one may:
//!
//! - *reads*: change nothing. Of `get` only the opening is repeated; a body that breaks off is the caller's to see.
//! - *copy*: the same bytes under the same name. With a condition on the destination the second try may meet the first
//!   one's result and answer `DestinationChanged`: the mirror then heads both sides again and finds them equal. When the
//!   source has gone between the tries the answer is `SourceGone` though the bytes are there: replicate adopts them.
//! - *purge*: what is gone is answered `Done`; with `If-Match` another content is left alone.
//! - *upsert*: never revives, never lowers an order. Between a first try that counted and the second another handler may
//!   even have claimed and purged the row, so that the second makes it again without bytes; the facts that made it surplus
//!   stand in the catalog still, and every flow settles the key after its upsert, or puts its event back (V6).
//! - *change*: conditional on the rev that was read, so that a second try after a first one that counted is `Refused`. That
//!   is an answer to be read as "read again": settle does, and carries on from what it finds (V1). Only for a deleted row
//!   the wrapper itself reads again: gone is what was asked for.
//! - *bury*, *lease*, *unlease*, *set_state*: end in the same state; `bury` may answer `false` for its own first try.
//!
//! Not repeated: `put` (its body is spent; the command reports the item and can be given again) and the release of a
//! breaker (a late second release could open a breaker that has tripped again meanwhile: a person says it again). The
//! journal is not wrapped either: a second append would be a second line.
//!
//! Of a batch only the items that failed are tried again. A crash between two tries leaves what a crash after the call
//! leaves.

use crate::error::{ErrorKind, PortError, PortResult, Retry};
use crate::limits::{CALL_ATTEMPTS, CALL_WAIT_MAX, CALL_WAIT_MIN};
use crate::ports::catalog::{
    Catalog, CatalogKeys, CatalogRead, Changed, IndexEntry, IndexQuery, PolicyState, RowChange, RowId, RowSet,
    StateChange, Totals,
};
use crate::ports::clock::{Clock, Nonces};
use crate::ports::metrics::{Counter, Metrics};
use crate::ports::objects::{
    Attributes, ByteStream, Copied, CopyRequest, Head, Listed, Object, ObjectCopy, ObjectPurge, ObjectRead,
    ObjectWrite, Onto, Page, PurgeItem, Purged, Retrieval, Small, Written, small,
};
use async_trait::async_trait;
use lifecycle::ids::{ObjectKey, VersionId};
use lifecycle::row::{CopyRow, Partition, Tombstone};
use lifecycle::time::{SpanMs, UnixMs};
use std::ops::Range;
use std::sync::Arc;

/// What trying again needs, and the maker of the wrappers.
#[derive(Clone)]
pub struct Retries {
    clock: Arc<dyn Clock>,
    nonces: Arc<dyn Nonces>,
    metrics: Arc<dyn Metrics>,
}

impl Retries {
    /// Waits by that clock, with jitter from `nonces`; counts [`Counter::CallsAgain`].
    pub fn new(clock: Arc<dyn Clock>, nonces: Arc<dyn Nonces>, metrics: Arc<dyn Metrics>) -> Retries {
        Retries { clock, nonces, metrics }
    }

    /// Wraps a bucket's reader.
    pub fn read(&self, inner: Arc<dyn ObjectRead>) -> Arc<dyn ObjectRead> {
        Arc::new(Again { inner, retries: self.clone() })
    }

    /// Wraps a bucket's writer: its reads are tried again, its `put` is not.
    pub fn write(&self, inner: Arc<dyn ObjectWrite>) -> Arc<dyn ObjectWrite> {
        Arc::new(Again { inner, retries: self.clone() })
    }

    /// Wraps a copier.
    pub fn copy(&self, inner: Arc<dyn ObjectCopy>) -> Arc<dyn ObjectCopy> {
        Arc::new(Again { inner, retries: self.clone() })
    }

    /// Wraps the right to delete, before a `Purger` is made of it.
    pub fn purge(&self, inner: Arc<dyn ObjectPurge>) -> Arc<dyn ObjectPurge> {
        Arc::new(Again { inner, retries: self.clone() })
    }

    /// Wraps a catalog.
    pub fn catalog(&self, inner: Arc<dyn Catalog>) -> Arc<dyn Catalog> {
        Arc::new(Again { inner, retries: self.clone() })
    }

    /// Wraps the listing of a catalog's keys.
    pub fn keys(&self, inner: Arc<dyn CatalogKeys>) -> Arc<dyn CatalogKeys> {
        Arc::new(Again { inner, retries: self.clone() })
    }

    /// Whether a call that failed so, the how-many-th time, is to be tried again.
    fn helps(&self, attempt: u32, error: &PortError) -> bool {
        attempt < CALL_ATTEMPTS && error.retry() != Retry::Never
    }

    async fn pause(&self, attempt: u32, retry: Retry) {
        self.metrics.add(Counter::CallsAgain, 1);
        let whole = wait_before(attempt, retry);
        let half = whole.0 / 2;
        self.clock.sleep(SpanMs(half + self.nonces.jitter(half + 1))).await;
    }
}

/// Calls until it succeeds, until trying again does not help, or [`CALL_ATTEMPTS`] times. A macro, since the futures of
/// borrowing async closures cannot be shown to be `Send`.
macro_rules! again {
    ($retries:expr, $call:expr) => {{
        let mut attempt = 1;
        loop {
            match $call.await {
                Err(error) if $retries.helps(attempt, &error) => {
                    $retries.pause(attempt, error.retry()).await;
                    attempt += 1;
                }
                result => break result,
            }
        }
    }};
}

/// The longest wait after that many attempts (from 1): doubled each time, eight times longer when asked to slow down. The
/// actual one is between half of it and all of it, so that callers that failed together do not come back together.
fn wait_before(attempt: u32, retry: Retry) -> SpanMs {
    let doublings = match retry {
        Retry::Throttled => attempt + 2,
        Retry::Later | Retry::Never => attempt - 1,
    };
    SpanMs(CALL_WAIT_MIN.0.saturating_mul(2u64.saturating_pow(doublings))).min(CALL_WAIT_MAX)
}

/// A port whose calls are tried again.
struct Again<P: ?Sized> {
    inner: Arc<P>,
    retries: Retries,
}

#[async_trait]
impl<P: ObjectRead + ?Sized> ObjectRead for Again<P> {
    async fn head(&self, key: &ObjectKey, version: Option<&VersionId>) -> PortResult<Option<Head>> {
        again!(self.retries, self.inner.head(key, version))
    }

    async fn get(
        &self,
        key: &ObjectKey,
        version: Option<&VersionId>,
        range: Option<Range<u64>>,
    ) -> PortResult<Option<Object>> {
        again!(self.retries, self.inner.get(key, version, range.clone()))
    }

    async fn get_small(&self, keys: &[ObjectKey]) -> Vec<PortResult<Option<Small>>> {
        let mut read = self.inner.get_small(keys).await;
        for (key, answer) in keys.iter().zip(&mut read) {
            if let Err(error) = answer
                && self.retries.helps(1, error)
            {
                self.retries.pause(1, error.retry()).await;
                // One by one, with their bodies: few fail.
                *answer = small(self, key).await;
            }
        }
        read
    }

    async fn retrieve(&self, key: &ObjectKey, terms: &Retrieval) -> PortResult<()> {
        again!(self.retries, self.inner.retrieve(key, terms))
    }

    async fn list(&self, prefix: &str, after: Option<&ObjectKey>, limit: usize) -> PortResult<Page<Listed>> {
        again!(self.retries, self.inner.list(prefix, after, limit))
    }
}

#[async_trait]
impl ObjectWrite for Again<dyn ObjectWrite> {
    async fn put(&self, key: &ObjectKey, body: ByteStream, attributes: &Attributes, onto: Onto) -> PortResult<Written> {
        self.inner.put(key, body, attributes, onto).await
    }

    async fn put_sized(
        &self,
        key: &ObjectKey,
        body: ByteStream,
        size: u64,
        attributes: &Attributes,
        onto: Onto,
    ) -> PortResult<Written> {
        self.inner.put_sized(key, body, size, attributes, onto).await
    }

    async fn heeds_conditions(&self, probe: &ObjectKey) -> PortResult<bool> {
        again!(self.retries, self.inner.heeds_conditions(probe))
    }
}

#[async_trait]
impl ObjectCopy for Again<dyn ObjectCopy> {
    async fn copy(&self, request: &CopyRequest) -> PortResult<Copied> {
        again!(self.retries, self.inner.copy(request))
    }
}

#[async_trait]
impl ObjectPurge for Again<dyn ObjectPurge> {
    async fn purge(&self, items: &[PurgeItem]) -> Vec<PortResult<Purged>> {
        let mut batch = Batch::new(items);
        while let Some((items, places)) = batch.open() {
            let answers = self.inner.purge(&items).await;
            batch.close(&places, answers);
            batch.pause(&self.retries).await;
        }
        batch.results()
    }
}

#[async_trait]
impl CatalogRead for Again<dyn Catalog> {
    async fn partition(&self, key: &ObjectKey) -> PortResult<Partition> {
        again!(self.retries, self.inner.partition(key))
    }

    async fn rows(&self, ids: &[RowId]) -> PortResult<Vec<Option<CopyRow>>> {
        again!(self.retries, self.inner.rows(ids))
    }

    async fn index(&self, query: &IndexQuery) -> PortResult<Page<IndexEntry, IndexEntry>> {
        again!(self.retries, self.inner.index(query))
    }

    async fn totals(&self) -> PortResult<Totals> {
        again!(self.retries, self.inner.totals())
    }

    async fn state(&self) -> PortResult<PolicyState> {
        again!(self.retries, self.inner.state())
    }
}

#[async_trait]
impl Catalog for Again<dyn Catalog> {
    async fn upsert(&self, original: &ObjectKey, row: &CopyRow) -> PortResult<()> {
        again!(self.retries, self.inner.upsert(original, row))
    }

    async fn record_mirrored(&self, original: &ObjectKey, row: &CopyRow) -> PortResult<()> {
        again!(self.retries, self.inner.record_mirrored(original, row))
    }

    async fn change(&self, changes: &[RowChange]) -> Vec<PortResult<Changed>> {
        let mut batch = Batch::new(changes);
        let mut deleted_before: Vec<usize> = Vec::new();
        while let Some((changes, places)) = batch.open() {
            let answers = self.inner.change(&changes).await;
            if batch.attempt > 1 {
                deleted_before.extend(refused_deletes(&changes, &places, &answers));
            }
            batch.close(&places, answers);
            batch.pause(&self.retries).await;
        }
        let mut results = batch.results();
        if deleted_before.is_empty() {
            return results;
        }
        // Refused on a second try: most likely by our own first one. A row that is gone is what was asked for.
        let ids: Vec<RowId> = deleted_before.iter().map(|&place| changes[place].id.clone()).collect();
        match self.rows(&ids).await {
            Ok(rows) => {
                for (&place, _) in deleted_before.iter().zip(rows).filter(|(_, row)| row.is_none()) {
                    results[place] = Ok(Changed::Applied(changes[place].if_rev.clone()));
                }
            }
            Err(error) => deleted_before.iter().for_each(|&place| results[place] = Err(error.clone())),
        }
        results
    }

    async fn bury(&self, key: &ObjectKey, tombstone: &Tombstone) -> PortResult<bool> {
        again!(self.retries, self.inner.bury(key, tombstone))
    }

    async fn forget_tombstones(&self, noted_before: UnixMs, limit: usize) -> PortResult<u64> {
        again!(self.retries, self.inner.forget_tombstones(noted_before, limit))
    }

    async fn set_state(&self, change: StateChange) -> PortResult<()> {
        match change {
            StateChange::Release(_) => self.inner.set_state(change).await,
            StateChange::Trip(_) | StateChange::Cleaned(_) | StateChange::Reconciled(..) => {
                again!(self.retries, self.inner.set_state(change))
            }
        }
    }

    async fn lease(&self, name: &str, holder: &str, now: UnixMs, until: UnixMs) -> PortResult<bool> {
        again!(self.retries, self.inner.lease(name, holder, now, until))
    }

    async fn unlease(&self, name: &str, holder: &str) -> PortResult<()> {
        again!(self.retries, self.inner.unlease(name, holder))
    }
}

#[async_trait]
impl CatalogKeys for Again<dyn CatalogKeys> {
    async fn keys(&self, prefix: &str, after: Option<&ObjectKey>, limit: usize) -> PortResult<Page<ObjectKey>> {
        again!(self.retries, self.inner.keys(prefix, after, limit))
    }
}

/// A batch on its way: which items still want an answer that stays.
struct Batch<'a, I, T> {
    items: &'a [I],
    answers: Vec<Option<PortResult<T>>>,
    attempt: u32,
}

impl<'a, I: Clone, T> Batch<'a, I, T> {
    fn new(items: &'a [I]) -> Batch<'a, I, T> {
        Batch { items, answers: items.iter().map(|_| None).collect(), attempt: 0 }
    }

    /// The items to ask for (again), with their places; `None` when every answer stays.
    fn open(&mut self) -> Option<(Vec<I>, Vec<usize>)> {
        let places: Vec<usize> = (0..self.items.len()).filter(|&place| self.is_open(place)).collect();
        self.attempt += 1;
        let items = places.iter().map(|&place| self.items[place].clone()).collect();
        (!places.is_empty()).then_some((items, places))
    }

    fn is_open(&self, place: usize) -> bool {
        match &self.answers[place] {
            None => self.attempt == 0,
            Some(Ok(_)) => false,
            Some(Err(error)) => error.retry() != Retry::Never && self.attempt < CALL_ATTEMPTS,
        }
    }

    fn close(&mut self, places: &[usize], answers: Vec<PortResult<T>>) {
        for (&place, answer) in places.iter().zip(answers) {
            self.answers[place] = Some(answer);
        }
    }

    /// Waits if something is to be asked again: as long as the most pressing answer asks for.
    async fn pause(&self, retries: &Retries) {
        let open = self.answers.iter().enumerate().filter(|(place, _)| self.is_open(*place));
        let asked = open.filter_map(|(_, answer)| answer.as_ref()?.as_ref().err().map(PortError::retry));
        let slowest = asked.max_by_key(|retry| u8::from(*retry == Retry::Throttled));
        if let Some(retry) = slowest {
            retries.pause(self.attempt, retry).await;
        }
    }

    fn results(self) -> Vec<PortResult<T>> {
        let missing = || {
            let why = "the batch has fewer answers than items".to_owned();
            Err(PortError::new("call in a batch", "item", ErrorKind::Internal(why)))
        };
        self.answers.into_iter().map(|answer| answer.unwrap_or_else(missing)).collect()
    }
}

/// Places of deletes that this try refused.
fn refused_deletes(changes: &[RowChange], places: &[usize], answers: &[PortResult<Changed>]) -> Vec<usize> {
    let asked = changes.iter().zip(places).zip(answers);
    let refused =
        asked.filter(|((change, _), answer)| change.set == RowSet::Deleted && matches!(answer, Ok(Changed::Refused)));
    refused.map(|((_, &place), _)| place).collect()
}
