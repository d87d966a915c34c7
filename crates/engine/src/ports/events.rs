//! The queue between a source's events and the driver: at least once, with attempts, back-off and dead letters.

use crate::error::PortResult;
use async_trait::async_trait;
use lifecycle::event::ObjectEvent;
use lifecycle::time::UnixMs;

/// Names one delivery, for the queue that gave it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Receipt(pub String);

/// One event, handed out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// For the answer.
    pub receipt: Receipt,
    /// How often it was delivered, this time included.
    pub attempts: u32,
    /// The bucket that it happened in, as the policies' sources name it.
    pub bucket: String,
    /// The event.
    pub event: ObjectEvent,
}

/// An event nobody could handle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its number in the dead letters.
    pub id: u64,
    /// The bucket.
    pub bucket: String,
    /// The event.
    pub event: ObjectEvent,
    /// How often it was tried.
    pub attempts: u32,
    /// The last failure.
    pub why: String,
    /// When it was given up.
    pub died_at: UnixMs,
}

/// How long the queue is, for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Events not handled yet.
    pub waiting: u64,
    /// When the oldest of them happened.
    pub oldest: Option<UnixMs>,
    /// Dead letters.
    pub dead: u64,
}

/// A queue of events. What was acknowledged to the writer of the object is in it (I8) until `done`.
#[async_trait]
pub trait EventQueue: Send + Sync {
    /// Waits until at least one event may be delivered, then hands out up to `limit` of them, oldest first.
    async fn receive(&self, limit: usize) -> PortResult<Vec<Delivery>>;

    /// These are handled: everything that they ask for is durable (V7).
    async fn done(&self, receipts: &[Receipt]) -> PortResult<()>;

    /// This one failed: deliver it again, not before then.
    async fn again(&self, receipt: &Receipt, not_before: UnixMs, why: &str) -> PortResult<()>;

    /// This one is given up: keep it with the dead letters.
    async fn give_up(&self, receipt: &Receipt, why: &str) -> PortResult<()>;

    /// How long the queue is.
    async fn backlog(&self) -> PortResult<Backlog>;
}

/// The dead letters of a queue.
#[async_trait]
pub trait DeadLetters: Send + Sync {
    /// Dead letters with a greater id than `after`, oldest first.
    async fn list(&self, after: Option<u64>, limit: usize) -> PortResult<Vec<DeadLetter>>;

    /// Puts them back into the queue, with no attempts counted; how many were there.
    async fn redrive(&self, ids: &[u64]) -> PortResult<u64>;

    /// Forgets them; how many were there.
    async fn drop_letters(&self, ids: &[u64]) -> PortResult<u64>;
}
