//! The event queue in memory, with its dead letters.
//!
//! Like the real ones it delivers at least once: what was handed out and never answered comes back after
//! [`MemoryQueue::take_back`], which stands for a restarted process or a visibility timeout. Laws: I8 (an event stays until
//! `done`), V7. Nothing outlives the process.

use crate::error::{ErrorKind, PortError, PortResult};
use crate::memory::lock;
use crate::ports::clock::Clock;
use crate::ports::events::{Backlog, DeadLetter, DeadLetters, Delivery, EventQueue, Receipt};
use async_trait::async_trait;
use futures_util::future::{Either, select};
use lifecycle::event::ObjectEvent;
use lifecycle::time::UnixMs;
use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use tokio::sync::Notify;

#[derive(Clone, Debug)]
struct Waiting {
    bucket: String,
    event: ObjectEvent,
    attempts: u32,
    not_before: UnixMs,
    handed_out: bool,
}

#[derive(Debug, Default)]
struct State {
    /// By number: the order in which they came.
    waiting: BTreeMap<u64, Waiting>,
    dead: BTreeMap<u64, DeadLetter>,
    last: u64,
}

/// The queue.
pub struct MemoryQueue {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    came: Notify,
    settled: Notify,
}

impl MemoryQueue {
    /// An empty queue.
    pub fn new(clock: Arc<dyn Clock>) -> MemoryQueue {
        MemoryQueue { clock, state: Mutex::default(), came: Notify::new(), settled: Notify::new() }
    }

    /// An event comes in.
    pub fn push(&self, bucket: impl Into<String>, event: ObjectEvent) {
        lock(&self.state).push(bucket.into(), event);
        self.came.notify_waiters();
    }

    /// What was handed out and not answered may be delivered again.
    pub fn take_back(&self) {
        lock(&self.state).waiting.values_mut().for_each(|waiting| waiting.handed_out = false);
        self.came.notify_waiters();
    }

    /// Waits until no event is left: handled, or with the dead letters.
    pub async fn until_empty(&self) {
        loop {
            let mut settled = pin!(self.settled.notified());
            settled.as_mut().enable(); // before looking: a notice between the two would be missed
            if lock(&self.state).waiting.is_empty() {
                return;
            }
            settled.await;
        }
    }
}

impl State {
    fn push(&mut self, bucket: String, event: ObjectEvent) {
        self.last += 1;
        let waiting = Waiting { bucket, event, attempts: 0, not_before: UnixMs(0), handed_out: false };
        self.waiting.insert(self.last, waiting);
    }

    fn take(&mut self, now: UnixMs, limit: usize) -> Vec<Delivery> {
        let due = self.waiting.iter_mut().filter(|(_, waiting)| !waiting.handed_out && waiting.not_before <= now);
        let deliver = |(number, waiting): (&u64, &mut Waiting)| {
            waiting.handed_out = true;
            waiting.attempts += 1;
            Delivery {
                receipt: Receipt(number.to_string()),
                attempts: waiting.attempts,
                bucket: waiting.bucket.clone(),
                event: waiting.event.clone(),
            }
        };
        due.take(limit).map(deliver).collect()
    }

    fn next_due(&self) -> Option<UnixMs> {
        self.waiting.values().filter(|waiting| !waiting.handed_out).map(|waiting| waiting.not_before).min()
    }
}

fn number(receipt: &Receipt) -> PortResult<u64> {
    let foreign = || ErrorKind::Invalid("the receipt is not this queue's".to_owned());
    receipt.0.parse().map_err(|_| PortError::new("answer delivery", &receipt.0, foreign()))
}

#[async_trait]
impl EventQueue for MemoryQueue {
    async fn receive(&self, limit: usize) -> PortResult<Vec<Delivery>> {
        loop {
            let mut came = pin!(self.came.notified());
            came.as_mut().enable();
            let now = self.clock.now();
            let next_due = {
                let mut state = lock(&self.state);
                let deliveries = state.take(now, limit);
                if !deliveries.is_empty() {
                    return Ok(deliveries);
                }
                state.next_due()
            };
            match next_due {
                None => came.await,
                Some(due) => match select(came, self.clock.sleep(due.since(now))).await {
                    Either::Left(_) | Either::Right(_) => {}
                },
            }
        }
    }

    async fn done(&self, receipts: &[Receipt]) -> PortResult<()> {
        for receipt in receipts {
            lock(&self.state).waiting.remove(&number(receipt)?);
        }
        self.settled.notify_waiters();
        Ok(())
    }

    async fn again(&self, receipt: &Receipt, not_before: UnixMs, _why: &str) -> PortResult<()> {
        if let Some(waiting) = lock(&self.state).waiting.get_mut(&number(receipt)?) {
            waiting.handed_out = false;
            waiting.not_before = not_before;
        }
        self.came.notify_waiters();
        Ok(())
    }

    async fn give_up(&self, receipt: &Receipt, why: &str) -> PortResult<()> {
        let died_at = self.clock.now();
        let id = number(receipt)?;
        let mut state = lock(&self.state);
        if let Some(Waiting { bucket, event, attempts, .. }) = state.waiting.remove(&id) {
            state.dead.insert(id, DeadLetter { id, bucket, event, attempts, why: why.to_owned(), died_at });
        }
        self.settled.notify_waiters();
        Ok(())
    }

    async fn backlog(&self) -> PortResult<Backlog> {
        let state = lock(&self.state);
        Ok(Backlog {
            waiting: state.waiting.len() as u64,
            oldest: state.waiting.values().map(|waiting| waiting.event.time).min(),
            dead: state.dead.len() as u64,
        })
    }
}

#[async_trait]
impl DeadLetters for MemoryQueue {
    async fn list(&self, after: Option<u64>, limit: usize) -> PortResult<Vec<DeadLetter>> {
        let state = lock(&self.state);
        let from = after.map_or(0, |after| after.saturating_add(1));
        Ok(state.dead.range(from..).map(|(_, letter)| letter.clone()).take(limit).collect())
    }

    async fn redrive(&self, ids: &[u64]) -> PortResult<u64> {
        let redriven = {
            let mut state = lock(&self.state);
            let letters: Vec<DeadLetter> = ids.iter().filter_map(|id| state.dead.remove(id)).collect();
            letters.into_iter().map(|letter| state.push(letter.bucket, letter.event)).count() as u64
        };
        self.came.notify_waiters();
        Ok(redriven)
    }

    async fn drop_letters(&self, ids: &[u64]) -> PortResult<u64> {
        let mut state = lock(&self.state);
        Ok(ids.iter().filter_map(|id| state.dead.remove(id)).count() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::clock::MemoryClock;
    use lifecycle::event::Happened;
    use lifecycle::ids::ObjectKey;
    use lifecycle::time::SpanMs;

    fn event(key: &str) -> ObjectEvent {
        ObjectEvent { key: ObjectKey::new(key).unwrap(), time: UnixMs(1), order: None, what: Happened::Removed }
    }

    #[tokio::test]
    async fn an_event_comes_again_after_its_wait_and_ends_done_or_dead() {
        let clock = Arc::new(MemoryClock::at(UnixMs(0)));
        let queue = Arc::new(MemoryQueue::new(Arc::clone(&clock) as Arc<dyn Clock>));
        queue.push("b", event("a"));
        let first = queue.receive(10).await.unwrap().remove(0);
        queue.again(&first.receipt, UnixMs(100), "not yet").await.unwrap();
        let waiting = tokio::spawn({
            let queue = Arc::clone(&queue);
            async move { queue.receive(10).await.unwrap().remove(0) }
        });
        clock.until_asleep(1).await;
        clock.advance(SpanMs(100));
        let second = waiting.await.unwrap();
        assert_eq!(second.attempts, 2);
        queue.give_up(&second.receipt, "never").await.unwrap();
        queue.until_empty().await;
        let dead = queue.list(None, 10).await.unwrap();
        assert_eq!((dead.len(), dead[0].why.as_str()), (1, "never"));
        assert_eq!(queue.redrive(&[dead[0].id]).await.unwrap(), 1);
        let third = queue.receive(10).await.unwrap().remove(0);
        assert_eq!(third.attempts, 1);
        queue.done(&[third.receipt]).await.unwrap();
        assert_eq!(queue.backlog().await.unwrap(), Backlog::default());
    }

    #[tokio::test]
    async fn what_was_handed_out_and_never_answered_comes_back() {
        let queue = MemoryQueue::new(Arc::new(MemoryClock::at(UnixMs(0))));
        queue.push("b", event("a"));
        assert_eq!(queue.receive(1).await.unwrap().len(), 1);
        queue.take_back();
        assert_eq!(queue.receive(1).await.unwrap()[0].attempts, 2);
    }
}
