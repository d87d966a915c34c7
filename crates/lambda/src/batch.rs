//! The events of one invocation as the queue that the driver reads: handed out once, and their answers kept for the one
//! answer of the invocation. What is never answered is not done (V7).

use crate::messages::Message;
use crate::settings::Ordered;
use async_trait::async_trait;
use engine::error::{ErrorKind, PortError, PortResult};
use engine::ports::events::{Backlog, Delivery, EventQueue, Receipt};
use lifecycle::order::{Basis, Order};
use lifecycle::time::UnixMs;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What became of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Everything that its events ask for is durable.
    Done,
    /// It shall come again: an event of it failed, or was not begun.
    Again(String),
    /// It will never succeed.
    GivenUp(String),
}

/// The queue of one invocation.
pub(crate) struct Batch(Mutex<State>);

struct State {
    ready: VecDeque<Delivery>,
    messages: Vec<Answers>,
}

#[derive(Default)]
struct Answers {
    open: usize,
    again: Option<String>,
    given_up: Option<String>,
}

impl Batch {
    /// All events of all messages, in their order. Sequencers of another channel than the bucket's do not count (V9).
    pub(crate) fn new(messages: &[Message], orders: &BTreeMap<String, Ordered>) -> Batch {
        let mut state = State { ready: VecDeque::new(), messages: Vec::with_capacity(messages.len()) };
        for (place, message) in messages.iter().enumerate() {
            let (events, refused) = match &message.events {
                Ok(events) => (events.as_slice(), None),
                Err(why) => (&[][..], Some(why.clone())),
            };
            state.messages.push(Answers { open: events.len(), again: None, given_up: refused });
            for received in events {
                let bucket = format!("s3://{}", received.bucket);
                let mut event = received.event.clone();
                match orders.get(&bucket) {
                    Some(Ordered { basis: Basis::Time, .. }) => event.order = Some(Order::from_time(event.time)),
                    Some(Ordered { channel, .. }) if *channel != received.channel => event.order = None,
                    _ => {}
                }
                let receipt = Receipt(place.to_string());
                state.ready.push_back(Delivery { receipt, attempts: message.attempts, bucket, event });
            }
        }
        Batch(Mutex::new(state))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What became of each message so far: the gentlest answer of its events counts.
    pub(crate) fn fates(&self) -> Vec<Fate> {
        let fate = |answers: &Answers| match answers {
            Answers { again: Some(why), .. } => Fate::Again(why.clone()),
            Answers { open: 1.., .. } => Fate::Again("the time was over before it was handled".to_owned()),
            Answers { given_up: Some(why), .. } => Fate::GivenUp(why.clone()),
            Answers { .. } => Fate::Done,
        };
        self.state().messages.iter().map(fate).collect()
    }

    fn answer(&self, receipt: &Receipt, note: impl FnOnce(&mut Answers)) -> PortResult<()> {
        let place = receipt.0.parse::<usize>().ok();
        let mut state = self.state();
        let Some(answers) = place.and_then(|place| state.messages.get_mut(place)).filter(|answers| answers.open > 0)
        else {
            let why = "the receipt is not of this invocation".to_owned();
            return Err(PortError::new("answer event", &receipt.0, ErrorKind::Invalid(why)));
        };
        answers.open -= 1;
        note(answers);
        Ok(())
    }
}

#[async_trait]
impl EventQueue for Batch {
    /// Nothing comes later: it never waits.
    async fn receive(&self, limit: usize) -> PortResult<Vec<Delivery>> {
        let ready = &mut self.state().ready;
        let count = limit.min(ready.len());
        Ok(ready.drain(..count).collect())
    }

    async fn done(&self, receipts: &[Receipt]) -> PortResult<()> {
        receipts.iter().try_for_each(|receipt| self.answer(receipt, |_| {}))
    }

    async fn again(&self, receipt: &Receipt, _not_before: UnixMs, why: &str) -> PortResult<()> {
        self.answer(receipt, |answers| answers.again = Some(why.to_owned()))
    }

    async fn give_up(&self, receipt: &Receipt, why: &str) -> PortResult<()> {
        self.answer(receipt, |answers| answers.given_up = Some(why.to_owned()))
    }

    async fn backlog(&self) -> PortResult<Backlog> {
        let state = self.state();
        let oldest = state.ready.iter().map(|delivery| delivery.event.time).min();
        Ok(Backlog { waiting: state.messages.iter().map(|answers| answers.open as u64).sum(), oldest, dead: 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws::parse::{BucketEvent, Channel};
    use lifecycle::event::{Happened, ObjectEvent};
    use lifecycle::ids::ObjectKey;

    fn event(key: &str, channel: Channel) -> BucketEvent {
        let order = Order::from_sequencer("0a");
        let event = ObjectEvent { key: ObjectKey::new(key).unwrap(), time: UnixMs(5), order, what: Happened::Removed };
        BucketEvent { channel, bucket: "docs".to_owned(), region: None, event }
    }

    fn message(events: Result<Vec<BucketEvent>, String>) -> Message {
        Message { id: "m".to_owned(), body: String::new(), attempts: 2, events }
    }

    fn orders(basis: Basis) -> BTreeMap<String, Ordered> {
        BTreeMap::from([("s3://docs".to_owned(), Ordered { basis, channel: Channel::Notification })])
    }

    #[tokio::test]
    async fn a_message_is_done_when_all_of_its_events_are_and_comes_again_rather_than_being_given_up() {
        let three = || message(Ok(["a", "b", "c"].map(|key| event(key, Channel::Notification)).to_vec()));
        let messages = [three(), three(), three(), message(Ok(Vec::new())), message(Err("no".to_owned()))];
        let batch = Batch::new(&messages, &orders(Basis::Sequencer));
        let deliveries = batch.receive(100).await.unwrap();
        assert_eq!((deliveries.len(), deliveries[0].attempts), (9, 2));
        assert_eq!(batch.receive(100).await.unwrap(), []);
        let receipt = |message: usize| deliveries[message * 3].receipt.clone();
        batch.done(&[receipt(0), receipt(0), receipt(0)]).await.unwrap();
        batch.give_up(&receipt(1), "never").await.unwrap();
        batch.again(&receipt(1), UnixMs(0), "later").await.unwrap();
        batch.done(&[receipt(1)]).await.unwrap();
        batch.done(&[receipt(2), receipt(2)]).await.unwrap();
        let not_handled = Fate::Again("the time was over before it was handled".to_owned());
        let [done, later, no] = [Fate::Done, Fate::Again("later".to_owned()), Fate::GivenUp("no".to_owned())];
        assert_eq!(batch.fates(), [done.clone(), later, not_handled, done, no]);
        assert!(batch.done(&[receipt(0)]).await.is_err(), "an answer counts once");
        batch.give_up(&receipt(2), "never").await.unwrap();
        assert_eq!(batch.fates()[2], Fate::GivenUp("never".to_owned()));
    }

    #[tokio::test]
    async fn sequencers_of_another_channel_do_not_count() {
        let events = [event("a", Channel::Notification), event("b", Channel::EventBridge)];
        let orders_of = async |basis| {
            let batch = Batch::new(&[message(Ok(events.to_vec()))], &orders(basis));
            let deliveries = batch.receive(2).await.unwrap();
            deliveries.into_iter().map(|delivery| delivery.event.order).collect::<Vec<_>>()
        };
        assert_eq!(orders_of(Basis::Sequencer).await, [Order::from_sequencer("0a"), None]);
        assert_eq!(orders_of(Basis::Time).await, [Some(Order::from_time(UnixMs(5))); 2]);
    }
}
