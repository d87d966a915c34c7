//! Object events, through the engine's driver: events of one key together, keys side by side, every policy of a bucket.
//!
//! Of a batch from SQS every message is answered for itself: what is not named as failed, Lambda deletes from the queue (V7).
//! What can never succeed goes to the queue's dead letters with its reason, first, and is answered as done afterwards: a
//! crash between leaves it twice rather than nowhere (I8). Where there are none it is answered as failed, and the queue
//! does with it what it does. Of a direct invocation Lambda keeps the event and tries twice more, then tells its destination
//! for failures. Near its end the function begins nothing new: what was not handled is failed, and comes again.

use crate::batch::{Batch, Fate};
use crate::failure::Failure;
use crate::limits::BURIALS_IN_FLIGHT;
use crate::messages::{self, Message, Way};
use crate::time_limit::TimeLimit;
use crate::warm::Warm;
use aws::DeadLetterReason;
use engine::driver::Driver;
use engine::report::chain;
use futures_util::{StreamExt, join, stream};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use tokio_util::sync::CancellationToken;

/// Handles the events of one invocation, and answers it.
pub(crate) async fn replicate(warm: &Warm, payload: &Value, limit: TimeLimit) -> Result<Value, Failure> {
    let (way, messages) = messages::read(payload)?;
    note_strangers(warm, &messages);
    let batch = Arc::new(Batch::new(&messages, &warm.orders));
    let driver = Driver {
        queue: batch.clone(),
        policies: warm.policies.clone(),
        clock: warm.clock.clone(),
        nonces: warm.nonces.clone(),
        metrics: warm.counters.clone(),
    };
    let cancel = CancellationToken::new();
    let cemetery = Cemetery { warm, way: &way, messages: &messages, buried: Mutex::default() };
    let work = async {
        // What cannot be read waits for nobody, and nobody for it.
        let unreadable = cemetery.bury(batch.fates(), DeadLetterReason::Unreadable);
        let (handled, ()) = join!(driver.drain(usize::MAX, &cancel), unreadable);
        handled?;
        cemetery.bury(batch.fates(), DeadLetterReason::GivenUp).await;
        Ok::<(), Failure>(())
    };
    match limit.keep(warm.clock.as_ref(), &cancel, work).await {
        Some(handled) => handled?,
        None => tracing::warn!("the time was over before everything was handled: the rest comes again"),
    }
    let buried = cemetery.into_buried();
    answer(warm, &way, &messages, &batch.fates(), &buried)
}

fn answer(
    warm: &Warm,
    way: &Way,
    messages: &[Message],
    fates: &[Fate],
    buried: &BTreeSet<usize>,
) -> Result<Value, Failure> {
    let done = |place: &usize| fates[*place] == Fate::Done || buried.contains(place);
    let failed: Vec<usize> = (0..messages.len()).filter(|place| !done(place)).collect();
    warm.tell_metrics(&[
        ("messages", messages.len() as u64),
        ("messages_failed", failed.len() as u64),
        ("dead_letters", buried.len() as u64),
    ]);
    if let Way::Sqs { .. } = way {
        let failures: Vec<Value> =
            failed.into_iter().map(|place| json!({ "itemIdentifier": messages[place].id })).collect();
        return Ok(json!({ "batchItemFailures": failures }));
    }
    for (fate, message) in fates.iter().zip(messages) {
        match fate {
            Fate::Done => {}
            Fate::Again(why) => return Err(Failure::new("again", why)),
            Fate::GivenUp(why) if message.events.is_err() => return Err(Failure::new("unreadable", why)),
            Fate::GivenUp(why) => return Err(Failure::new("given-up", why)),
        }
    }
    Ok(json!({}))
}

/// Events of buckets that no policy watches are done with; somebody subscribed the function to them by mistake, perhaps.
fn note_strangers(warm: &Warm, messages: &[Message]) {
    let events = messages.iter().filter_map(|message| message.events.as_ref().ok()).flatten();
    let buckets: BTreeSet<&str> = events.map(|event| event.bucket.as_str()).collect();
    for bucket in buckets.into_iter().filter(|bucket| !warm.orders.contains_key(&format!("s3://{bucket}"))) {
        tracing::warn!(bucket, "no policy watches this bucket: its events are passed over");
    }
}

/// What becomes of messages that will never succeed.
struct Cemetery<'a> {
    warm: &'a Warm,
    way: &'a Way,
    messages: &'a [Message],
    buried: Mutex<BTreeSet<usize>>,
}

impl Cemetery<'_> {
    /// Sends those that are given up to the dead letters of their queue.
    async fn bury(&self, fates: Vec<Fate>, reason: DeadLetterReason) {
        let Way::Sqs { queue } = self.way else { return };
        let dead = fates.into_iter().enumerate().filter_map(|(place, fate)| match fate {
            Fate::GivenUp(why) => Some((place, why)),
            Fate::Done | Fate::Again(_) => None,
        });
        let dead = dead.filter(|(place, _)| !self.is_buried(*place));
        let burials = stream::iter(dead).map(|(place, why)| self.bury_one(queue, place, reason, why));
        burials.buffer_unordered(BURIALS_IN_FLIGHT).collect::<()>().await;
    }

    async fn bury_one(&self, queue: &str, place: usize, reason: DeadLetterReason, why: String) {
        let message = &self.messages[place];
        let sent = match self.warm.dead_letters(queue).await {
            Ok(Some(letters)) => letters.bury(&message.body, message.attempts, reason, &why).await,
            Ok(None) => {
                let fix = "the queue has no dead letters: give it a redrive policy";
                tracing::error!(queue, message = message.id, "a message will never succeed ({why}), and {fix}");
                return;
            }
            Err(error) => Err(error),
        };
        match sent {
            Ok(()) => {
                tracing::error!(queue, message = message.id, "a message went to the dead letters: {why}");
                self.buried.lock().unwrap_or_else(PoisonError::into_inner).insert(place);
            }
            Err(error) => tracing::error!(queue, message = message.id, "{why}; {}", chain(&error)),
        }
    }

    fn is_buried(&self, place: usize) -> bool {
        self.buried.lock().unwrap_or_else(PoisonError::into_inner).contains(&place)
    }

    fn into_buried(self) -> BTreeSet<usize> {
        self.buried.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}
