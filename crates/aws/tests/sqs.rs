//! The queue adapter against an emulator of SQS: what is handed out, what becomes of messages, and what a poison message
//! does to the others.

#![expect(clippy::unwrap_used, reason = "a panic is a test's message")]

mod emulator;

use aws::{SqsQueue, SqsSettings};
use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::{Message, QueueAttributeName};
use emulator::Emulator;
use engine::error::ErrorKind;
use engine::memory::clock::MemoryClock;
use engine::ports::clock::Clock;
use engine::ports::events::{Backlog, Delivery, EventQueue, Receipt};
use lifecycle::order::{Basis, Order};
use lifecycle::time::{SpanMs, UnixMs};
use local::clock::SystemClock;
use std::collections::BTreeSet;
use std::sync::Arc;

const NOW: UnixMs = UnixMs(1_795_000_000_000);

/// An emulator with a queue `events`, whose dead letters go to `dead`.
struct World {
    emulator: Emulator,
    client: Client,
    url: String,
    dead: String,
}

impl World {
    async fn new() -> World {
        let emulator = Emulator::start();
        let client = Client::new(&emulator.config());
        let make = async |name: &str| client.create_queue().queue_name(name).send().await.unwrap().queue_url.unwrap();
        let (url, dead) = (make("events").await, make("dead").await);
        let policy = r#"{"deadLetterTargetArn":"arn:aws:sqs:us-east-1:000000000000:dead","maxReceiveCount":"1000"}"#;
        let set = client.set_queue_attributes().queue_url(&url).attributes(QueueAttributeName::RedrivePolicy, policy);
        set.send().await.unwrap();
        World { emulator, client, url, dead }
    }

    async fn queue(&self, clock: MemoryClock, settings: SqsSettings) -> SqsQueue {
        SqsQueue::open(&self.emulator.config(), "events", settings, Arc::new(clock)).await.unwrap()
    }

    async fn send(&self, body: &str) {
        self.client.send_message().queue_url(&self.url).message_body(body).send().await.unwrap();
    }

    /// What another reader finds, without keeping it.
    async fn look(&self, url: &str, wait: i32) -> Vec<Message> {
        let request = self.client.receive_message().queue_url(url).wait_time_seconds(wait).visibility_timeout(0);
        let request = request.max_number_of_messages(10).message_attribute_names("All");
        request.send().await.unwrap().messages.unwrap_or_default()
    }
}

/// A notification with an event for each key.
fn notification(keys: &[&str]) -> String {
    let record = |key: &&str| {
        format!(
            r#"{{"eventVersion":"2.1","eventTime":"2026-11-21T10:00:00.000Z","eventName":"ObjectRemoved:Delete",
                "s3":{{"bucket":{{"name":"documents"}},"object":{{"key":"{key}","sequencer":"0A1B"}}}}}}"#
        )
    };
    format!(r#"{{"Records":[{}]}}"#, keys.iter().map(record).collect::<Vec<_>>().join(","))
}

/// Receives until so many events have come.
async fn receive(queue: &SqsQueue, count: usize) -> Vec<Delivery> {
    let mut deliveries = Vec::new();
    while deliveries.len() < count {
        deliveries.extend(queue.receive(count - deliveries.len()).await.unwrap());
    }
    deliveries
}

fn receipts(deliveries: &[Delivery]) -> Vec<Receipt> {
    deliveries.iter().map(|delivery| delivery.receipt.clone()).collect()
}

#[tokio::test]
#[ignore = "needs the emulator: cargo xtask ci aws"]
async fn one_poison_message_among_nine_good_ones_holds_nobody_up_and_goes_to_the_dead_letters() {
    let world = World::new().await;
    let keys: Vec<String> = (0..9).map(|n| format!("good-{n}")).collect();
    world.send("{ this is no json").await;
    for key in &keys {
        world.send(&notification(&[key])).await;
    }
    let queue = world.queue(MemoryClock::at(NOW), SqsSettings::default()).await;
    let deliveries = receive(&queue, 9).await;
    let came: BTreeSet<&str> = deliveries.iter().map(|delivery| delivery.event.key.as_str()).collect();
    assert_eq!(came, keys.iter().map(String::as_str).collect());
    assert_eq!((deliveries[0].bucket.as_str(), deliveries[0].attempts), ("s3://documents", 1));
    assert_eq!(deliveries[0].event.order, Order::from_sequencer("0a1b"));
    let letters = world.look(&world.dead, 20).await;
    assert_eq!((letters.len(), letters[0].body()), (1, Some("{ this is no json")));
    let attributes = letters[0].message_attributes().unwrap();
    assert_eq!(attributes["afterimage-reason"].string_value(), Some("unreadable"));
    assert!(attributes["afterimage-why"].string_value().unwrap().starts_with("the message is no JSON"));
    queue.done(&receipts(&deliveries)).await.unwrap();
    let backlog = queue.backlog().await.unwrap();
    assert_eq!(backlog, Backlog { waiting: 0, oldest: None, dead: 1 });
}

#[tokio::test]
#[ignore = "needs the emulator: cargo xtask ci aws"]
async fn a_message_with_several_events_is_deleted_when_all_of_them_are_done() {
    let world = World::new().await;
    world.send(&notification(&["a", "b", "c"])).await;
    let queue = world.queue(MemoryClock::at(NOW), SqsSettings::default()).await;
    let mut deliveries = receive(&queue, 1).await;
    deliveries.extend(receive(&queue, 2).await);
    queue.done(&receipts(&deliveries[..2])).await.unwrap();
    assert_eq!(queue.backlog().await.unwrap().waiting, 1, "one of its events is not done");
    queue.done(&receipts(&deliveries)).await.unwrap();
    assert_eq!(queue.backlog().await.unwrap().waiting, 0);
}

#[tokio::test]
#[ignore = "needs the emulator: cargo xtask ci aws"]
async fn what_failed_comes_again_with_its_attempts_counted_and_what_is_given_up_says_why() {
    let world = World::new().await;
    world.send(&notification(&["a"])).await;
    let clock = MemoryClock::at(NOW);
    let queue = world.queue(clock, SqsSettings::default()).await;
    let first = receive(&queue, 1).await.remove(0);
    queue.again(&first.receipt, NOW.plus(SpanMs(900)), "not yet").await.unwrap();
    assert_eq!(world.look(&world.url, 0).await.len(), 0, "not before its time");
    let second = receive(&queue, 1).await.remove(0);
    assert_eq!((second.attempts, &second.event), (2, &first.event));
    queue.give_up(&second.receipt, "its destination\nis gone").await.unwrap();
    let letters = world.look(&world.dead, 20).await;
    let attributes = letters[0].message_attributes().unwrap();
    let text = |name: &str| attributes[name].string_value().unwrap_or_default().to_owned();
    assert_eq!(letters[0].body(), Some(notification(&["a"]).as_str()), "as it came, to be sent back");
    assert_eq!((text("afterimage-reason"), text("afterimage-attempts")), ("given-up".to_owned(), "2".to_owned()));
    assert_eq!(text("afterimage-why"), "its destination is gone");
    assert_eq!(queue.backlog().await.unwrap(), Backlog { waiting: 0, oldest: None, dead: 1 });
}

#[tokio::test]
#[ignore = "needs the emulator: cargo xtask ci aws"]
async fn without_dead_letters_a_message_stays_and_the_error_says_what_to_set_up() {
    let world = World::new().await;
    let plain = world.client.create_queue().queue_name("plain").send().await.unwrap().queue_url.unwrap();
    world.client.send_message().queue_url(&plain).message_body(notification(&["a"])).send().await.unwrap();
    let clock: Arc<dyn Clock> = Arc::new(MemoryClock::at(NOW));
    let queue = SqsQueue::open(&world.emulator.config(), "plain", SqsSettings::default(), clock).await.unwrap();
    let delivery = receive(&queue, 1).await.remove(0);
    let error = queue.give_up(&delivery.receipt, "no").await.expect_err("told");
    assert!(error.to_string().contains("give the queue a redrive policy (given-up: no)"), "{error}");
    assert_eq!(queue.backlog().await.unwrap(), Backlog { waiting: 1, oldest: None, dead: 0 });
}

#[tokio::test]
#[ignore = "needs the emulator: cargo xtask ci aws"]
async fn a_test_event_is_acknowledged_and_nothing_else() {
    let world = World::new().await;
    world.send(r#"{"Service":"Amazon S3","Event":"s3:TestEvent","Bucket":"documents"}"#).await;
    world.send(&notification(&["a"])).await;
    let queue = world.queue(MemoryClock::at(NOW), SqsSettings::default()).await;
    let deliveries = receive(&queue, 1).await;
    queue.done(&receipts(&deliveries)).await.unwrap();
    // It is answered beside: a further message comes after it.
    world.send(&notification(&["b"])).await;
    let deliveries = receive(&queue, 1).await;
    queue.done(&receipts(&deliveries)).await.unwrap();
    assert_eq!(queue.backlog().await.unwrap(), Backlog::default());
}

#[tokio::test]
#[ignore = "needs the emulator: cargo xtask ci aws"]
async fn a_message_is_kept_from_others_while_it_is_worked_on_and_comes_again_when_its_reader_is_gone() {
    let world = World::new().await;
    world.send(&notification(&["a"])).await;
    // The emulator hides messages by real time.
    let settings = SqsSettings { hidden_seconds: Some(3), ..SqsSettings::default() };
    let queue = SqsQueue::open(&world.emulator.config(), "events", settings, Arc::new(SystemClock)).await.unwrap();
    let delivery = receive(&queue, 1).await.remove(0);
    assert_eq!(
        world.look(&world.url, 5).await.len(),
        0,
        "hidden for longer than the three seconds that were asked for"
    );
    drop(queue);
    assert_eq!(world.look(&world.url, 20).await.len(), 1);
    let queue = world.queue(MemoryClock::at(NOW), SqsSettings::default()).await;
    let again = receive(&queue, 1).await.remove(0);
    assert_eq!(again.event, delivery.event);
    assert!(again.attempts > 1);
}

#[tokio::test]
#[ignore = "needs the emulator: cargo xtask ci aws"]
async fn a_source_without_sequencers_is_ordered_by_time_and_more_than_ten_messages_come_at_once() {
    let world = World::new().await;
    for n in 0..35 {
        world.send(&notification(&[&format!("k{n}")])).await;
    }
    let settings = SqsSettings { basis: Basis::Time, ..SqsSettings::default() };
    let queue = world.queue(MemoryClock::at(NOW), settings).await;
    let deliveries = queue.receive(256).await.unwrap();
    assert_eq!(deliveries.len(), 35);
    assert_eq!(deliveries[0].event.order, Some(Order::from_time(deliveries[0].event.time)));
    queue.done(&receipts(&deliveries)).await.unwrap();
    assert_eq!(queue.backlog().await.unwrap().waiting, 0);
}

#[tokio::test]
#[ignore = "needs the emulator: cargo xtask ci aws"]
async fn a_queue_that_is_not_there_or_cannot_serve_is_refused_at_the_start() {
    let world = World::new().await;
    let open = async |name: &str| {
        let clock: Arc<dyn Clock> = Arc::new(MemoryClock::at(NOW));
        let opened = SqsQueue::open(&world.emulator.config(), name, SqsSettings::default(), clock).await;
        opened.err().expect("refused").kind
    };
    assert_eq!(open("nobodys").await, ErrorKind::Missing);
    assert!(matches!(open("events.fifo").await, ErrorKind::Invalid(_)));
}
