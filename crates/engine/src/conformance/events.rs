//! What every event queue with dead letters must do: each sentence of the port (`ports/events.rs`) is a check here, and
//! every adapter runs all.
//!
//! A check gets an empty queue of its own, on a clock that only moves when it is told to, and panics with what was wrong.
//! Laws shown: I8 (an event stays until it is done), I10. Crashes stand with the adapter that stores.

use crate::memory::clock::MemoryClock;
use crate::ports::events::{Backlog, DeadLetters, Delivery, EventQueue, Receipt};
use futures_util::future::{BoxFuture, join};
use lifecycle::event::{Happened, ObjectEvent, Version};
use lifecycle::ids::{ETag, ObjectKey, VersionId};
use lifecycle::order::Order;
use lifecycle::time::{SpanMs, UnixMs};
use std::sync::Arc;

/// Puts an event of a bucket into the queue.
pub type Push = Box<dyn Fn(&'static str, ObjectEvent) -> BoxFuture<'static, ()> + Send + Sync>;

/// The handles of one queue.
pub struct Queue {
    /// The queue.
    pub queue: Arc<dyn EventQueue>,
    /// Its dead letters.
    pub dead: Arc<dyn DeadLetters>,
    /// Its source.
    pub push: Push,
    /// Its clock.
    pub clock: Arc<MemoryClock>,
}

/// Runs every check, each on a fresh queue from `make`.
pub async fn events<F: Future<Output = Queue>>(make: impl Fn() -> F) {
    every_kind_of_event_comes_out_as_it_went_in(&make().await).await;
    oldest_first_and_each_once(&make().await).await;
    one_that_waits_for_news_gets_them(&make().await).await;
    what_failed_comes_again_but_not_before_its_time(&make().await).await;
    what_is_given_up_lies_with_the_dead(&make().await).await;
    dead_letters_are_redriven_or_dropped(&make().await).await;
    the_backlog_counts(&make().await).await;
}

const WORKS: &str = "the queue answers";

fn event(text: &str, time: i64) -> ObjectEvent {
    let key = ObjectKey::new(text).expect("a key");
    ObjectEvent { key, time: UnixMs(time), order: Order::from_sequencer("0a1b"), what: Happened::Removed }
}

async fn receive(queue: &Queue, limit: usize) -> Vec<Delivery> {
    let deliveries = queue.queue.receive(limit).await.expect(WORKS);
    assert!((1..=limit).contains(&deliveries.len()), "at least one, and no more than asked for");
    deliveries
}

fn keys(deliveries: &[Delivery]) -> Vec<&str> {
    deliveries.iter().map(|delivery| delivery.event.key.as_str()).collect()
}

fn receipts(deliveries: &[Delivery]) -> Vec<Receipt> {
    deliveries.iter().map(|delivery| delivery.receipt.clone()).collect()
}

async fn every_kind_of_event_comes_out_as_it_went_in(queue: &Queue) {
    let version = |id: Option<&str>| Version {
        version_id: id.map(VersionId::from),
        etag: ETag::from("d41d8cd98f00b204e9800998ecf8427e-2"),
        size: 5 << 30,
    };
    let kinds = [
        (Happened::Created(version(None)), Some(Order::from_time(UnixMs(7)).next_sub())),
        (Happened::Created(version(Some("v/1"))), Order::from_sequencer("0055AED6DCD90281E5")),
        (Happened::Removed, None),
        (Happened::VersionRemoved(VersionId::from("null")), Order::from_sequencer("1")),
    ];
    let events = kinds.map(|(what, order)| ObjectEvent { order, what, ..event("a/ä\u{0}😀", 1_795_245_972_345) });
    for event in &events {
        (queue.push)("some-bucket", event.clone()).await;
    }
    let deliveries = receive(queue, 10).await;
    assert_eq!(deliveries.len(), events.len());
    for (delivery, event) in deliveries.iter().zip(&events) {
        assert_eq!((delivery.bucket.as_str(), &delivery.event, delivery.attempts), ("some-bucket", event, 1));
    }
}

async fn oldest_first_and_each_once(queue: &Queue) {
    for text in ["a", "b", "c", "d"] {
        (queue.push)("b", event(text, 1)).await;
    }
    let first = receive(queue, 1).await;
    let more = receive(queue, 2).await;
    assert_eq!((keys(&first), keys(&more)), (vec!["a"], vec!["b", "c"]));
    queue.queue.done(&receipts(&more)).await.expect(WORKS);
    queue.queue.done(&receipts(&more)).await.expect("being done twice changes nothing");
    (queue.push)("b", event("e", 1)).await;
    assert_eq!(keys(&receive(queue, 9).await), ["d", "e"], "what is out, or done, is not handed out again");
}

async fn one_that_waits_for_news_gets_them(queue: &Queue) {
    let (deliveries, ()) = join(receive(queue, 9), (queue.push)("b", event("a", 1))).await;
    assert_eq!(keys(&deliveries), ["a"]);
}

async fn what_failed_comes_again_but_not_before_its_time(queue: &Queue) {
    (queue.push)("b", event("a", 1)).await;
    (queue.push)("b", event("b", 1)).await;
    let out = receive(queue, 9).await;
    let at = |ms| UnixMs(crate::ports::clock::Clock::now(&*queue.clock).0 + ms);
    queue.queue.again(&out[0].receipt, at(100), "not yet").await.expect(WORKS);
    queue.queue.again(&out[1].receipt, at(300), "not yet").await.expect(WORKS);
    let step = async |span| {
        let pass = async {
            queue.clock.until_asleep(1).await;
            queue.clock.advance(SpanMs(span));
        };
        join(receive(queue, 9), pass).await.0
    };
    let again = step(100).await;
    assert_eq!((keys(&again), again[0].attempts), (vec!["a"], 2));
    queue.queue.again(&again[0].receipt, at(500), "still not").await.expect(WORKS);
    assert_eq!(keys(&step(200).await), ["b"]);
    let last = step(300).await;
    assert_eq!((keys(&last), last[0].attempts), (vec!["a"], 3));
}

async fn what_is_given_up_lies_with_the_dead(queue: &Queue) {
    for text in ["a", "b", "c"] {
        (queue.push)("some-bucket", event(text, 1)).await;
    }
    let out = receive(queue, 9).await;
    for delivery in &out {
        queue.queue.give_up(&delivery.receipt, &format!("{} failed", delivery.event.key)).await.expect(WORKS);
    }
    let letters = queue.dead.list(None, 2).await.expect(WORKS);
    assert_eq!(letters.len(), 2);
    let (letter, now) = (&letters[0], crate::ports::clock::Clock::now(&*queue.clock));
    assert_eq!((letter.bucket.as_str(), &letter.event), ("some-bucket", &event("a", 1)));
    assert_eq!((letter.attempts, letter.why.as_str(), letter.died_at), (1, "a failed", now));
    let rest = queue.dead.list(Some(letters[1].id), 9).await.expect(WORKS);
    assert_eq!(rest.iter().map(|letter| letter.event.key.as_str()).collect::<Vec<_>>(), ["c"]);
}

async fn dead_letters_are_redriven_or_dropped(queue: &Queue) {
    for text in ["a", "b"] {
        (queue.push)("b", event(text, 1)).await;
    }
    for delivery in receive(queue, 9).await {
        queue.queue.give_up(&delivery.receipt, "no").await.expect(WORKS);
    }
    let letters = queue.dead.list(None, 9).await.expect(WORKS);
    let nobody = letters[1].id + 1_000;
    assert_eq!(queue.dead.redrive(&[letters[0].id, nobody]).await.expect(WORKS), 1);
    assert_eq!(queue.dead.drop_letters(&[letters[1].id, nobody]).await.expect(WORKS), 1);
    assert!(queue.dead.list(None, 9).await.expect(WORKS).is_empty());
    let back = receive(queue, 9).await;
    assert_eq!((keys(&back), back[0].attempts), (vec!["a"], 1), "redriven with no attempts counted");
    queue.queue.done(&receipts(&back)).await.expect(WORKS);
    assert_eq!(queue.queue.backlog().await.expect(WORKS), Backlog::default());
}

async fn the_backlog_counts(queue: &Queue) {
    assert_eq!(queue.queue.backlog().await.expect(WORKS), Backlog::default());
    for (text, time) in [("a", 5), ("b", 7), ("c", 9)] {
        (queue.push)("b", event(text, time)).await;
    }
    let out = receive(queue, 2).await;
    let backlog = queue.queue.backlog().await.expect(WORKS);
    assert_eq!(backlog, Backlog { waiting: 3, oldest: Some(UnixMs(5)), dead: 0 }, "what is out is not handled yet");
    queue.queue.done(&receipts(&out[..1])).await.expect(WORKS);
    queue.queue.give_up(&out[1].receipt, "no").await.expect(WORKS);
    let backlog = queue.queue.backlog().await.expect(WORKS);
    assert_eq!(backlog, Backlog { waiting: 1, oldest: Some(UnixMs(9)), dead: 1 });
}
