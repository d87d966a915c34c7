//! A queue of SQS as the source of events: what S3 or EventBridge sent, for the buckets of any number of policies.
//!
//! Place: before the driver, one per queue. A message stays in the queue until everything that its events ask for is durable
//! (I8, V7): only then is it deleted. While it is worked on, the time for which SQS hides it from others is extended; a
//! process that dies stops doing so, and the message comes again. What cannot be read, now or ever, and what the driver
//! gives up, goes to the queue's dead letters with its reason: sent there first, deleted afterwards, so that a crash between
//! leaves it twice rather than nowhere. Messages and calls under way are limited (I10), in `limits`.
//!
//! Orders: sequencers of the two channels (notifications, EventBridge) differ in width, so that only those of the channel
//! that was named are believed; an event of the other one comes without an order, and a look decides (V9).

mod dead;
mod feed;
mod held;
mod letters;

pub use feed::QueueFeed;
pub use letters::QueueLetter;

use crate::error_map::Call;
use crate::limits::{
    AGAIN_SECONDS_MAX, ANSWERS_IN_FLIGHT, EXTENSIONS, MESSAGES_HELD_MAX, MESSAGES_PER_CALL, RECEIVE_WAIT_SECONDS,
    RECEIVES_IN_FLIGHT, VISIBILITY_SECONDS, VISIBILITY_SECONDS_MAX, VISIBILITY_SECONDS_MIN,
};
use crate::parse::{self, BucketEvent, Channel, parse};
use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::{
    ChangeMessageVisibilityBatchRequestEntry, DeleteMessageBatchRequestEntry, Message as SqsMessage,
    MessageSystemAttributeName, QueueAttributeName,
};
pub use dead::{DeadLetterQueue, Reason};
use engine::error::{ErrorKind, PortError, PortResult};
use engine::ports::clock::Clock;
use engine::ports::events::{Backlog, Delivery, EventQueue, Receipt};
use engine::report::chain;
use engine::wrap::lazy::Lazy;
use futures_util::{StreamExt, stream};
use held::{Answer, Fate, Held, Message, Settled};
use lifecycle::order::{Basis, Order};
use lifecycle::time::{SpanMs, UnixMs};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use tokio::sync::Notify;

/// What a queue is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Holds {
    /// Events; what nobody can handle goes to its dead letters.
    #[default]
    Events,
    /// What Lambda gave up of a table's stream. Without dead letters of its own, it is what holds them.
    Failures,
}

/// What the messages of a queue mean, and how long they are hidden.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What orders the events: their sequencers, or, where the source's are none (MinIO's), their times.
    pub basis: Basis,
    /// Whose sequencers count.
    pub channel: Channel,
    /// How long a message stays with who received it unless that is extended, in seconds; `None`: as the queue says.
    pub hidden_seconds: Option<i32>,
    /// What it is for.
    pub holds: Holds,
}

impl Default for Settings {
    /// Notifications of S3, in the order of their sequencers.
    fn default() -> Settings {
        Settings {
            basis: Basis::Sequencer,
            channel: Channel::Notification,
            hidden_seconds: None,
            holds: Holds::default(),
        }
    }
}

/// One queue.
pub struct SqsQueue {
    client: Client,
    name: String,
    settings: Settings,
    clock: Arc<dyn Clock>,
    /// Known once the service has told where it is.
    opened: Lazy<Arc<Inner>>,
}

struct Inner {
    client: Client,
    name: String,
    url: String,
    dead_url: Option<String>,
    settings: Settings,
    /// How long a message stays with who received it unless that is extended.
    hidden_seconds: i32,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    /// Some of the messages under way have been answered.
    room: Notify,
    receiving: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    held: Held,
    /// Received, and not handed out yet: a message may hold more events than were asked for.
    ready: VecDeque<Delivery>,
}

impl SqsQueue {
    /// A queue by its name: nothing is asked before it is needed, so that an outage keeps nobody from what else they have.
    pub fn new(config: &SdkConfig, name: &str, settings: Settings, clock: Arc<dyn Clock>) -> SqsQueue {
        SqsQueue { client: Client::new(config), name: name.to_owned(), settings, clock, opened: Lazy::new() }
    }

    /// Takes a queue up by its name: finds its address and its dead letters. Errors: it is not there, or the credentials may
    /// not look.
    pub async fn open(
        config: &SdkConfig,
        name: &str,
        settings: Settings,
        clock: Arc<dyn Clock>,
    ) -> PortResult<SqsQueue> {
        let queue = SqsQueue::new(config, name, settings, clock);
        queue.opened().await?;
        Ok(queue)
    }

    /// Whether what nobody can handle has somewhere to go.
    pub async fn has_dead_letters(&self) -> PortResult<bool> {
        Ok(self.opened().await?.dead_url.is_some())
    }

    /// The queue, found once. From then on until it is dropped, messages under way are kept from others.
    async fn opened(&self) -> PortResult<Arc<Inner>> {
        self.opened.get(|| self.find()).await
    }

    async fn find(&self) -> PortResult<Arc<Inner>> {
        let SqsQueue { client, name, settings, clock, opened: _ } = self;
        let call = Call::new("open queue", "sqs:GetQueueUrl", format!("sqs://{name}"));
        if name.ends_with(".fifo") {
            let why = "S3 and Lambda send to standard queues only: name one";
            return Err(call.failed(ErrorKind::Invalid(why.to_owned())));
        }
        let answer = client.get_queue_url().queue_name(name).send().await.map_err(|error| call.sdk(error))?;
        let url = answer.queue_url.ok_or_else(|| call.failed(ErrorKind::Missing))?;
        let wanted = [QueueAttributeName::RedrivePolicy, QueueAttributeName::VisibilityTimeout];
        let found = dead::attributes(client, name, &url, &wanted).await?;
        let dead_url = dead::find(client, name, found.get(&QueueAttributeName::RedrivePolicy)).await?;
        let told = found.get(&QueueAttributeName::VisibilityTimeout).and_then(|seconds| seconds.parse().ok());
        let hidden_seconds = settings.hidden_seconds.or(told).unwrap_or(VISIBILITY_SECONDS);
        let inner = Arc::new(Inner {
            client: client.clone(),
            name: name.clone(),
            url,
            dead_url,
            settings: *settings,
            hidden_seconds: hidden_seconds.clamp(VISIBILITY_SECONDS_MIN, VISIBILITY_SECONDS_MAX),
            clock: Arc::clone(clock),
            state: Mutex::default(),
            room: Notify::new(),
            receiving: tokio::sync::Mutex::new(()),
        });
        tokio::spawn(keep_hidden(Arc::downgrade(&inner), Arc::clone(&inner.clock)));
        Ok(inner)
    }
}

/// Extends the time of everything that is under way, until the queue is dropped.
async fn keep_hidden(queue: Weak<Inner>, clock: Arc<dyn Clock>) {
    loop {
        let Some(seconds) = queue.upgrade().map(|queue| queue.hidden_seconds) else { return };
        clock.sleep(SpanMs(u64::try_from(seconds).unwrap_or(0) * 1_000 / EXTENSIONS)).await;
        let Some(queue) = queue.upgrade() else { return };
        queue.extend().await;
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where dead letters lie.
    fn letters_url(&self) -> Option<&String> {
        let itself = (self.settings.holds == Holds::Failures).then_some(&self.url);
        self.dead_url.as_ref().or(itself)
    }

    fn call(&self, attempted: &'static str, action: &'static str) -> Call {
        Call::new(attempted, action, format!("sqs://{}", self.name))
    }

    /// Up to ten messages; waits for the first one so long.
    async fn poll(&self, wait_seconds: i32, messages: usize) -> PortResult<Vec<SqsMessage>> {
        let request = self.client.receive_message().queue_url(&self.url).wait_time_seconds(wait_seconds);
        let answer = request
            .max_number_of_messages(i32::try_from(messages.clamp(1, MESSAGES_PER_CALL)).unwrap_or(1))
            .visibility_timeout(self.hidden_seconds)
            .message_system_attribute_names(MessageSystemAttributeName::ApproximateReceiveCount)
            .message_system_attribute_names(MessageSystemAttributeName::SentTimestamp)
            .send()
            .await;
        let answer = answer.map_err(|error| self.call("receive messages", "sqs:ReceiveMessage").sdk(error))?;
        Ok(answer.messages.unwrap_or_default())
    }

    /// Waits for messages; when they come in full tens, more is fetched at once, as far as there is room.
    async fn fetch(&self, limit: usize) -> PortResult<Vec<SqsMessage>> {
        let room = loop {
            let answered = self.room.notified();
            match MESSAGES_HELD_MAX.saturating_sub(self.state().held.len()) {
                0 => {}
                room => break room.min(limit),
            }
            answered.await;
        };
        let mut messages = self.poll(RECEIVE_WAIT_SECONDS, room).await?;
        let more = (room.saturating_sub(messages.len()) / MESSAGES_PER_CALL).min(RECEIVES_IN_FLIGHT);
        if messages.len() == MESSAGES_PER_CALL && more > 0 {
            let polls = stream::iter(0..more).map(|_| self.poll(0, MESSAGES_PER_CALL)).buffer_unordered(more);
            for polled in polls.collect::<Vec<_>>().await {
                // What has come is handled; an outage shows at the next request.
                match polled {
                    Ok(polled) => messages.extend(polled),
                    Err(error) => tracing::debug!("{}", chain(&error)),
                }
            }
        }
        messages.sort_by_key(|message| number(message, &MessageSystemAttributeName::SentTimestamp));
        Ok(messages)
    }

    /// Notes messages as under way, and their events as ready. What asks for nothing, and what cannot be read, is answered
    /// beside: the others do not wait for it.
    fn take_in(self: &Arc<Self>, messages: Vec<SqsMessage>) {
        for received in messages {
            let attempts = number(&received, &MessageSystemAttributeName::ApproximateReceiveCount).unwrap_or(1);
            let (Some(id), Some(handle)) = (received.message_id, received.receipt_handle) else { continue };
            let attempts = u32::try_from(attempts).unwrap_or(u32::MAX);
            let message = Message { id, handle, body: received.body.unwrap_or_default(), attempts };
            let answer = match parse(message.body.as_bytes()) {
                Ok(parse::Message::Events(events)) if !events.is_empty() => {
                    let mut state = self.state();
                    let Some(receipts) = state.held.take(message, events.len()) else { continue };
                    let deliver = |(receipt, event)| self.delivery(receipt, event, attempts);
                    state.ready.extend(receipts.into_iter().zip(events).map(deliver));
                    continue;
                }
                Ok(_) => Answer::Done,
                Err(refused) => Answer::GivenUp(refused.to_string()),
            };
            // One that is under way already was readable: it is the same message.
            let Some(receipts) = self.state().held.take(message, 1) else { continue };
            let queue = Arc::clone(self);
            tokio::spawn(async move {
                for receipt in receipts {
                    if let Err(error) = queue.answer(&[receipt], &answer, Reason::Unreadable).await {
                        tracing::error!("{}", chain(&error));
                    }
                }
            });
        }
    }

    fn delivery(&self, receipt: Receipt, received: BucketEvent, attempts: u32) -> Delivery {
        let BucketEvent { channel, bucket, region: _, mut event } = received;
        event.order = match self.settings.basis {
            Basis::Time => Some(Order::from_time(event.time)),
            Basis::Sequencer => event.order.filter(|_| channel == self.settings.channel),
        };
        Delivery { receipt, attempts, bucket: format!("s3://{bucket}"), event }
    }

    /// Notes the answers, and does what the messages that are answered whole ask for. The first error is told; what is
    /// behind it is delivered again when its time is over.
    async fn answer(&self, receipts: &[Receipt], answer: &Answer, reason: Reason) -> PortResult<()> {
        let mut settled = Vec::new();
        {
            let mut state = self.state();
            for receipt in receipts {
                let noted = state.held.answer(receipt, answer.clone());
                let foreign = |()| ErrorKind::Invalid("the receipt is not this queue's".to_owned());
                settled.extend(noted.map_err(|error| PortError::new("answer event", &receipt.0, foreign(error)))?);
            }
        }
        if !settled.is_empty() {
            self.room.notify_waiters();
        }
        let (done, others): (Vec<Settled>, Vec<Settled>) =
            settled.into_iter().partition(|settled| settled.fate == Fate::Deleted);
        let mut first = self.delete(done).await;
        for Settled { message, fate } in others {
            let answered = match fate {
                Fate::Deleted => Ok(()),
                Fate::Again(at) => self.put_back(&message.handle, at).await,
                Fate::GivenUp(why) => self.bury(&message, reason, &why).await,
            };
            first = first.and(answered);
        }
        first
    }

    async fn delete(&self, messages: Vec<Settled>) -> PortResult<()> {
        let handles: Vec<String> = messages.into_iter().map(|settled| settled.message.handle).collect();
        let results = stream::iter(batches(handles)).map(|batch| self.delete_batch(batch));
        let results: Vec<PortResult<()>> = results.buffer_unordered(ANSWERS_IN_FLIGHT).collect().await;
        results.into_iter().collect()
    }

    async fn delete_batch(&self, handles: Vec<String>) -> PortResult<()> {
        let call = self.call("delete messages", "sqs:DeleteMessage");
        let mut request = self.client.delete_message_batch().queue_url(&self.url);
        for (place, handle) in handles.into_iter().enumerate() {
            let entry = DeleteMessageBatchRequestEntry::builder().id(place.to_string()).receipt_handle(handle).build();
            request = request.entries(entry.map_err(|error| unbuilt(&call, error))?);
        }
        let answer = request.send().await.map_err(|error| call.sdk(error))?;
        match answer.failed.first() {
            None => Ok(()),
            Some(failed) => Err(call.item(&failed.code, failed.message().unwrap_or_default())),
        }
    }

    async fn put_back(&self, handle: &str, at: UnixMs) -> PortResult<()> {
        let wait = at.since(self.clock.now()).0.div_ceil(1_000).min(AGAIN_SECONDS_MAX);
        self.hide(handle, i32::try_from(wait).unwrap_or(i32::MAX)).await
    }

    async fn hide(&self, handle: &str, seconds: i32) -> PortResult<()> {
        let request = self.client.change_message_visibility().queue_url(&self.url).receipt_handle(handle);
        let answer = request.visibility_timeout(seconds).send().await;
        let call = self.call("put message back", "sqs:ChangeMessageVisibility");
        answer.map(drop).map_err(|error| call.sdk(error))
    }

    /// One round of extending everything that is under way. What fails is tried at the next round, before the time is over.
    async fn extend(&self) {
        let held = self.state().held.extendable();
        let results = stream::iter(batches(held)).map(|batch| self.extend_batch(batch));
        for result in results.buffer_unordered(ANSWERS_IN_FLIGHT).collect::<Vec<PortResult<()>>>().await {
            if let Err(error) = result {
                tracing::warn!("{}", chain(&error));
            }
        }
    }

    async fn extend_batch(&self, batch: Vec<(u64, String)>) -> PortResult<()> {
        let call = self.call("keep messages", "sqs:ChangeMessageVisibility");
        let mut request = self.client.change_message_visibility_batch().queue_url(&self.url);
        for (serial, handle) in &batch {
            let entry = ChangeMessageVisibilityBatchRequestEntry::builder().id(serial.to_string());
            let entry = entry.receipt_handle(handle).visibility_timeout(self.hidden_seconds).build();
            request = request.entries(entry.map_err(|error| unbuilt(&call, error))?);
        }
        let answer = request.send().await.map_err(|error| call.sdk(error))?;
        for failed in answer.failed.iter().filter(|failed| failed.sender_fault) {
            // Its time was over, or it was deleted: who has it now answers it.
            if let Some((serial, handle)) = batch.iter().find(|(serial, _)| serial.to_string() == failed.id) {
                self.state().held.lost(*serial, handle);
            }
        }
        Ok(())
    }
}

/// As many as one request takes.
fn batches<T>(items: Vec<T>) -> Vec<Vec<T>> {
    let mut batches: Vec<Vec<T>> = Vec::with_capacity(items.len().div_ceil(MESSAGES_PER_CALL));
    for item in items {
        match batches.last_mut() {
            Some(batch) if batch.len() < MESSAGES_PER_CALL => batch.push(item),
            _ => batches.push(vec![item]),
        }
    }
    batches
}

fn unbuilt(call: &Call, error: aws_sdk_sqs::error::BuildError) -> PortError {
    call.failed(ErrorKind::Internal("the request could not be built".to_owned())).because(error)
}

/// An attribute of a message that is a number.
fn number(message: &SqsMessage, name: &MessageSystemAttributeName) -> Option<u64> {
    message.attributes.as_ref()?.get(name)?.parse().ok()
}

#[async_trait]
impl EventQueue for SqsQueue {
    async fn receive(&self, limit: usize) -> PortResult<Vec<Delivery>> {
        let queue = self.opened().await?;
        let _one_at_a_time = queue.receiving.lock().await;
        let limit = limit.max(1);
        loop {
            {
                let ready = &mut queue.state().ready;
                if !ready.is_empty() {
                    let count = limit.min(ready.len());
                    return Ok(ready.drain(..count).collect());
                }
            }
            let messages = queue.fetch(limit).await?;
            queue.take_in(messages);
        }
    }

    async fn done(&self, receipts: &[Receipt]) -> PortResult<()> {
        self.opened().await?.answer(receipts, &Answer::Done, Reason::GivenUp).await
    }

    async fn again(&self, receipt: &Receipt, not_before: UnixMs, _why: &str) -> PortResult<()> {
        self.opened().await?.answer(std::slice::from_ref(receipt), &Answer::Again(not_before), Reason::GivenUp).await
    }

    async fn give_up(&self, receipt: &Receipt, why: &str) -> PortResult<()> {
        self.opened()
            .await?
            .answer(std::slice::from_ref(receipt), &Answer::GivenUp(why.to_owned()), Reason::GivenUp)
            .await
    }

    /// The queue's own estimates. How old the oldest is, SQS tells no reader: what is under way here is counted.
    async fn backlog(&self) -> PortResult<Backlog> {
        let counts = [
            QueueAttributeName::ApproximateNumberOfMessages,
            QueueAttributeName::ApproximateNumberOfMessagesNotVisible,
            QueueAttributeName::ApproximateNumberOfMessagesDelayed,
        ];
        let queue = self.opened().await?;
        let all = |counts: HashMap<QueueAttributeName, String>| -> u64 {
            counts.values().filter_map(|count| count.parse::<u64>().ok()).sum()
        };
        let mut waiting = all(dead::attributes(&queue.client, &queue.name, &queue.url, &counts).await?);
        let dead = match &queue.dead_url {
            None if queue.settings.holds == Holds::Failures => std::mem::take(&mut waiting),
            None => 0,
            Some(url) => all(dead::attributes(&queue.client, &queue.name, url, &counts).await?),
        };
        let oldest = queue.state().ready.iter().map(|delivery| delivery.event.time).min();
        Ok(Backlog { waiting, oldest, dead })
    }
}
