//! The driver: takes events from the queue, hands the events of each key to the flow of every policy that covers it, and
//! answers the queue when everything that they ask for is durable (V7).
//!
//! One dispatcher for one closed set of inputs; the map of what reaches which flow. Keys run side by side up to a limit,
//! the events of one key together and in order; while all places are taken, nothing more is received (back-pressure). A
//! crash at any point leaves the events in the queue, which delivers them again. Laws: I6, I8, I10, V6, V7.

use crate::error::{FlowError, PortResult, Retry};
use crate::flows::handle::handle;
use crate::limits::{
    BUCKETS_TOLD_MAX, DELIVERY_ATTEMPTS, EVENT_BATCH, KEYS_IN_FLIGHT, OUTAGE_ATTEMPTS, REDELIVERY_WAIT_MAX,
    REDELIVERY_WAIT_MIN,
};
use crate::policy::Policy;
use crate::ports::clock::{Clock, Nonces};
use crate::ports::events::{Delivery, EventQueue, Receipt};
use crate::ports::metrics::{Counter, Metrics};
use crate::report::chain;
use futures_util::{FutureExt, StreamExt, stream};
use lifecycle::event::ObjectEvent;
use lifecycle::ids::ObjectKey;
use lifecycle::time::{SpanMs, UnixMs};
use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, RwLock};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The policies at work; buckets made by clients add to them while the driver runs.
#[derive(Clone, Default)]
pub struct Policies {
    all: Arc<RwLock<Vec<Arc<Policy>>>>,
    /// Buckets with keys that no policy looks after, told once each.
    passed_over: Arc<Mutex<BTreeSet<String>>>,
}

impl Policies {
    /// Adds a policy, or replaces the one of the same name.
    pub fn put(&self, policy: Policy) {
        let mut policies = self.all.write().expect("no holder of this lock panics");
        policies.retain(|other| other.name != policy.name);
        policies.push(Arc::new(policy));
    }

    /// Takes a policy out.
    pub fn remove(&self, name: &lifecycle::ids::PolicyName) {
        self.all.write().expect("no holder of this lock panics").retain(|policy| policy.name != *name);
    }

    /// All of them.
    pub fn all(&self) -> Vec<Arc<Policy>> {
        self.all.read().expect("no holder of this lock panics").clone()
    }

    /// Those that look after a key of a bucket.
    pub fn covering(&self, bucket: &str, key: &ObjectKey) -> Vec<Arc<Policy>> {
        self.all().into_iter().filter(|policy| policy.covers(bucket, key)).collect()
    }

    /// Whether events of that bucket are passed over for the first time.
    fn are_new_to(&self, bucket: &str) -> bool {
        let mut told = self.passed_over.lock().expect("no holder of this lock panics");
        told.len() < BUCKETS_TOLD_MAX && told.insert(bucket.to_owned())
    }
}

/// Moves events from the queue through the flows.
#[derive(Clone)]
pub struct Driver {
    /// Where events come from.
    pub queue: Arc<dyn EventQueue>,
    /// Who looks after them.
    pub policies: Policies,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Jitter.
    pub nonces: Arc<dyn Nonces>,
    /// Counters.
    pub metrics: Arc<dyn Metrics>,
}

/// The events of one key, oldest first.
struct Batch {
    bucket: String,
    key: ObjectKey,
    deliveries: Vec<Delivery>,
}

impl Driver {
    /// Runs until cancelled; then takes nothing more and finishes what it has.
    pub async fn run(&self, cancel: &CancellationToken) -> PortResult<()> {
        let places = Arc::new(Semaphore::new(KEYS_IN_FLIGHT));
        let tasks = TaskTracker::new();
        let result = self.pump(&places, &tasks, cancel).await;
        tasks.close();
        tasks.wait().await;
        result
    }

    async fn pump(&self, places: &Arc<Semaphore>, tasks: &TaskTracker, cancel: &CancellationToken) -> PortResult<()> {
        loop {
            let received = tokio::select! {
                biased;
                () = cancel.cancelled() => return Ok(()),
                received = self.queue.receive(EVENT_BATCH) => received,
            };
            let deliveries = match received {
                Ok(deliveries) => deliveries,
                Err(error) if error.retry() != Retry::Never => {
                    tracing::warn!("{}; trying again", chain(&error));
                    self.clock.sleep(REDELIVERY_WAIT_MIN).await;
                    continue;
                }
                Err(error) => return Err(error),
            };
            for batch in by_key(deliveries) {
                let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
                let driver = self.clone();
                tasks.spawn(async move {
                    driver.handle_batch(batch).await;
                    drop(place);
                });
            }
        }
    }

    /// Handles what the queue has right now and returns: for tests and for `drain`.
    pub async fn run_once(&self) -> PortResult<usize> {
        let deliveries = self.queue.receive(EVENT_BATCH).await?;
        let count = deliveries.len();
        for batch in by_key(deliveries) {
            self.handle_batch(batch).await;
        }
        Ok(count)
    }

    /// Handles what the queue hands out at once, at most `limit` events, keys side by side, and returns; cancelled, it
    /// begins no other key. Keys are handled inside this future, not in tasks of their own: who drops it stops them all,
    /// between two calls, as a crash would.
    pub async fn drain(&self, limit: usize, cancel: &CancellationToken) -> PortResult<()> {
        let batches = stream::iter(by_key(self.queue.receive(limit).await?)).take_until(cancel.cancelled());
        batches.for_each_concurrent(KEYS_IN_FLIGHT, |batch| self.handle_batch(batch)).await;
        Ok(())
    }

    /// Handles the events of one key for every policy that covers it, then answers the queue. An event that can never
    /// succeed takes no other one with it: of a batch that fails for good each is handled alone.
    async fn handle_batch(&self, batch: Batch) {
        let result = self.handled(&batch).await;
        match result {
            Err(error) if batch.deliveries.len() > 1 && error.retry() == Retry::Never => {
                let Batch { bucket, key, deliveries } = batch;
                for delivery in deliveries {
                    let alone = Batch { bucket: bucket.clone(), key: key.clone(), deliveries: vec![delivery] };
                    let result = self.handled(&alone).await;
                    self.answer(&alone, result).await;
                }
            }
            result => self.answer(&batch, result).await,
        }
    }

    async fn handled(&self, batch: &Batch) -> Result<(), FlowError> {
        let events: Vec<ObjectEvent> = batch.deliveries.iter().map(|delivery| delivery.event.clone()).collect();
        let mut failures: Vec<FlowError> = Vec::new();
        // Every policy has its turn: one whose destination is broken must not keep the others from their copies.
        let covering = self.policies.covering(&batch.bucket, &batch.key);
        if covering.is_empty() && self.policies.are_new_to(&batch.bucket) {
            tracing::warn!(bucket = %batch.bucket, key = %batch.key, "no policy looks after it: its events are passed over");
        }
        for policy in covering {
            // A bug in a flow must not take the daemon down with the other keys: it is a failure like others.
            let handled = AssertUnwindSafe(handle(&policy, &batch.key, &events)).catch_unwind().await;
            failures.extend(handled.unwrap_or_else(|_| Err(panicked(&batch.key))).err());
        }
        // What trying again can mend is tried again, whatever else failed for good.
        let worth_a_retry = failures.iter().position(|error| error.retry() != Retry::Never);
        match failures.is_empty() {
            true => Ok(()),
            false => Err(failures.swap_remove(worth_a_retry.unwrap_or(0))),
        }
    }

    async fn answer(&self, batch: &Batch, result: Result<(), FlowError>) {
        let answered = match result {
            Ok(()) => self.done(batch).await,
            Err(error) => self.failed(batch, &error).await,
        };
        if let Err(error) = answered {
            // The queue delivers again what it could not note down: nothing is lost.
            tracing::warn!(key = %batch.key, "{}", chain(&error));
        }
    }

    async fn done(&self, batch: &Batch) -> PortResult<()> {
        let receipts: Vec<Receipt> = batch.deliveries.iter().map(|delivery| delivery.receipt.clone()).collect();
        self.queue.done(&receipts).await?;
        self.metrics.add(Counter::EventsHandled, receipts.len() as u64);
        Ok(())
    }

    async fn failed(&self, batch: &Batch, error: &FlowError) -> PortResult<()> {
        let why = chain(error);
        let attempts = if error.retry() == Retry::Never { DELIVERY_ATTEMPTS } else { OUTAGE_ATTEMPTS };
        let mut answered = Ok(());
        for delivery in &batch.deliveries {
            if delivery.attempts >= attempts || is_hopeless(error) {
                tracing::error!(
                    bucket = %batch.bucket, key = %batch.key, attempts = delivery.attempts,
                    "an event was given up: {why}; see `afterimage dlq list`"
                );
                answered = answered.and(self.queue.give_up(&delivery.receipt, &why).await);
                self.metrics.add(Counter::EventsGivenUp, 1);
            } else {
                tracing::info!(bucket = %batch.bucket, key = %batch.key, attempts = delivery.attempts, "put back: {why}");
                let not_before = self.not_before(delivery.attempts);
                answered = answered.and(self.queue.again(&delivery.receipt, not_before, &why).await);
                self.metrics.add(Counter::EventsAgain, 1);
            }
        }
        answered
    }

    /// Doubling waits with jitter, between the limits.
    fn not_before(&self, attempts: u32) -> UnixMs {
        let doubled = REDELIVERY_WAIT_MIN.0.saturating_mul(1 << attempts.min(20));
        let wait = doubled.min(REDELIVERY_WAIT_MAX.0);
        self.clock.now().plus(SpanMs(wait / 2 + self.nonces.jitter(wait / 2 + 1)))
    }
}

/// Failures that no later delivery changes.
fn is_hopeless(error: &FlowError) -> bool {
    use crate::error::ErrorKind;
    matches!(error, FlowError::Port(error) if matches!(error.kind, ErrorKind::Invalid(_) | ErrorKind::Unsupported))
}

fn panicked(key: &ObjectKey) -> FlowError {
    use crate::error::{ErrorKind, PortError};
    FlowError::Port(PortError::new("handle events of", key, ErrorKind::Internal("a flow panicked".to_owned())))
}

/// Groups deliveries by bucket and key, each group in the order of delivery, the groups in the order of their first event.
fn by_key(deliveries: Vec<Delivery>) -> Vec<Batch> {
    let mut places: BTreeMap<(String, ObjectKey), usize> = BTreeMap::new();
    let mut batches: Vec<Batch> = Vec::new();
    for delivery in deliveries {
        let name = (delivery.bucket.clone(), delivery.event.key.clone());
        let place = *places.entry(name.clone()).or_insert_with(|| {
            batches.push(Batch { bucket: name.0, key: name.1, deliveries: Vec::new() });
            batches.len() - 1
        });
        batches[place].deliveries.push(delivery);
    }
    batches
}
