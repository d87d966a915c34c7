//! Feed: what is archived is told, in its order, at least once, whoever dies; and a feed that is down holds up nothing.

use super::archive::archive_through;
use super::follow::{archived, delete, followed, follower_through, time_passes};
use crate::world::{Source, World, rules};
use async_trait::async_trait;
use engine::error::{ErrorKind, PortError, PortResult};
use engine::flows::archive::Batch;
use engine::flows::feed::{FeedSeen, Feeder};
use engine::flows::follow::Follower;
use engine::memory::stream::MemoryStream;
use engine::ports::clock::Nonces;
use engine::ports::feed::{FeedLine, FeedSink};
use engine::ports::streams::{Position, Read, RecordStream, ShardId};
use engine::steps::outbox::{FEED_PREFIX, Outbox, OutboxPurger, REDRIVEN};
use engine::wrap::faults::{Death, Faults};
use engine::wrap::tap::{Probe, Tap};
use futures_util::future::join;
use lifecycle::time::SpanMs;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio_util::sync::CancellationToken;

/// Keeps what it is told, by shard.
#[derive(Default)]
struct Heard {
    lines: Mutex<Vec<(String, Value)>>,
    /// So many tellings fail, and half of the lines are taken all the same.
    failing: AtomicUsize,
}

#[async_trait]
impl FeedSink for Heard {
    async fn tell(&self, shard: &str, lines: &[FeedLine]) -> PortResult<()> {
        let fails = self.failing.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
        let taken = if fails { lines.len() / 2 } else { lines.len() };
        let mut heard = self.lines.lock().unwrap();
        heard.extend(lines[..taken].iter().map(|line| (shard.to_owned(), serde_json::from_str(&line.text).unwrap())));
        match fails {
            true => Err(PortError::new("tell", "the test", ErrorKind::Unavailable)),
            false => Ok(()),
        }
    }
}

impl Heard {
    /// The numbers of the deletions in each shard, each where it was told first.
    fn firsts(&self) -> BTreeMap<String, Vec<u64>> {
        let (mut seen, mut firsts) = (BTreeSet::new(), BTreeMap::<String, Vec<u64>>::new());
        for (shard, line) in self.lines.lock().unwrap().iter() {
            if seen.insert(line["id"].as_str().unwrap().to_owned()) {
                let number = line["sequence"].as_str().unwrap().parse().unwrap();
                firsts.entry(shard.clone()).or_default().push(number);
            }
        }
        firsts
    }

    fn len(&self) -> usize {
        self.lines.lock().unwrap().len()
    }
}

fn outbox(world: &World, probe: &Arc<dyn Probe>) -> Arc<Outbox> {
    Arc::new(Outbox::new(world.write_destination("outbox", Arc::clone(probe)), "Table", "s3://archive", true))
}

/// A follower and a feeder, in one process.
fn process(world: &World, stream: &MemoryStream, heard: &Arc<Heard>, probe: Arc<dyn Probe>) -> (Follower, Feeder) {
    let outbox = outbox(world, &probe);
    let follower = Follower { outbox: Some(outbox.clone()), ..follower_through(world, stream, Arc::clone(&probe)) };
    let feeder = Feeder {
        outbox,
        purger: OutboxPurger::new(Tap::new(probe).purge("outbox", Arc::clone(&world.memory.destination) as _)),
        sink: Arc::clone(heard) as _,
        leases: world.memory.catalog.clone(),
        lease: "feed-Table".to_owned(),
        holder: world.memory.nonces.nonce(),
        clock: world.memory.clock.clone(),
        nonces: world.memory.nonces.clone(),
        metrics: world.memory.metrics.clone(),
        seen: Arc::new(FeedSeen::default()),
    };
    (follower, feeder)
}

/// What waits in the outbox.
fn waiting(world: &World) -> Vec<String> {
    let names = world.memory.destination.contents().into_keys().map(|name| name.to_string());
    names.filter(|name| name.starts_with(FEED_PREFIX)).collect()
}

fn new() -> (World, MemoryStream, Arc<Heard>) {
    (World::new(Source::Versioned, rules()), MemoryStream::new(), Arc::default())
}

/// Lets a process run until it is so, then stops it.
async fn run(world: &World, (follower, feeder): &(Follower, Feeder), until: impl Fn() -> bool) {
    let cancel = CancellationToken::new();
    let both = async {
        followed(world, &[follower], until).await;
        cancel.cancel();
    };
    join(feeder.run(&cancel), both).await;
}

#[tokio::test]
async fn what_is_archived_is_told_in_the_order_of_its_shard_and_then_gone_from_the_outbox() {
    let (world, stream, heard) = new();
    stream.begin("0", None);
    stream.begin("1", Some("0"));
    delete(&world, &stream, "0", &["a", "b", "a", "c", "d", "e", "f"]);
    stream.end("0");
    delete(&world, &stream, "1", &["a"]);
    let process = process(&world, &stream, &heard, Arc::clone(&world.faults) as _);
    run(&world, &process, || heard.len() == 8 && waiting(&world).is_empty()).await;
    let expected = [("0".to_owned(), (1..=7).collect()), ("1".to_owned(), vec![8])];
    assert_eq!(heard.firsts(), BTreeMap::from(expected));
    let (shard, line) = heard.lines.lock().unwrap().last().unwrap().clone();
    assert_eq!((shard.as_str(), &line["keys"]["id"]["S"], &line["image"]["n"]["N"]), ("1", &"a".into(), &"8".into()));
    assert_eq!(line["object"]["destination"], "s3://archive");
    let object = line["object"]["key"].as_str().unwrap();
    let contents = world.memory.destination.contents();
    assert_eq!(contents[&crate::world::key(object)].bytes.len() as u64, line["size"].as_u64().unwrap());
    assert_eq!(world.memory.metrics.snapshot()["told"], 8);
}

#[tokio::test]
async fn a_feed_that_is_down_holds_up_nothing_is_seen_and_catches_up() {
    let (world, stream, heard) = new();
    heard.failing.store(usize::MAX, Ordering::Relaxed);
    stream.begin("0", None);
    delete(&world, &stream, "0", &["a", "b", "c", "d", "e", "f", "g"]);
    let process = process(&world, &stream, &heard, Arc::clone(&world.faults) as _);
    let feeder = &process.1;
    let trouble = || feeder.seen.now().trouble.unwrap_or_default();
    run(&world, &process, || archived(&world).len() == 7 && trouble().contains("no answer")).await;
    assert!(!waiting(&world).is_empty());
    // A day later, in another process: what waits is told, with what is new.
    world.memory.clock.advance(SpanMs::days(1));
    heard.failing.store(0, Ordering::Relaxed);
    delete(&world, &stream, "0", &["h"]);
    run(&world, &process, || waiting(&world).is_empty() && archived(&world).len() == 8).await;
    assert_eq!(heard.firsts()["0"], (1..=8).collect::<Vec<_>>());
    assert_eq!(feeder.seen.now().trouble, None);
    world.logs.expect("telling is tried again");
}

#[tokio::test]
async fn a_process_that_dies_anywhere_is_followed_by_another_and_no_deletion_is_left_untold() {
    for k in 1.. {
        let (world, stream, heard) = new();
        stream.begin("0", None);
        delete(&world, &stream, "0", &["a", "b", "a", "c", "d"]);
        let faults = Arc::new(Faults::die_at(k, if k % 2 == 0 { Death::Before } else { Death::After }));
        let (follower, feeder) = process(&world, &stream, &heard, Arc::clone(&faults) as _);
        let cancel = CancellationToken::new();
        let is_dead = tokio::select! {
            biased;
            () = faults.death() => true,
            _ = join(follower.run(&cancel), feeder.run(&cancel)) => unreachable!("they run until they are cancelled"),
            () = time_passes(&world, || heard.len() == 5 && waiting(&world).is_empty()) => false,
        };
        let next = process(&world, &stream, &heard, Arc::clone(&world.faults) as _);
        let caught_up = || next.0.seen.shards().values().any(|seen| seen.caught_up_at.is_some());
        run(&world, &next, || caught_up() && waiting(&world).is_empty() && heard.firsts()["0"].len() == 5).await;
        assert_eq!(heard.firsts()["0"], [1, 2, 3, 4, 5], "k = {k}");
        if !is_dead {
            assert!(k > 10, "it has hardly died");
            return;
        }
    }
}

#[tokio::test]
async fn of_two_processes_one_tells_and_the_other_goes_on_when_it_stops() {
    let (world, stream, heard) = new();
    stream.begin("0", None);
    delete(&world, &stream, "0", &["a", "b"]);
    let one = process(&world, &stream, &heard, Arc::clone(&world.faults) as _);
    let (_, two) = process(&world, &stream, &heard, Arc::clone(&world.faults) as _);
    let cancel = CancellationToken::new();
    let both = async {
        run(&world, &one, || heard.len() == 2).await;
        assert_eq!(two.seen.now().told_at, None);
        delete(&world, &stream, "0", &["c"]);
        followed(&world, &[&one.0], || heard.len() == 3).await;
        cancel.cancel();
    };
    // The first has the lease before the second asks for it.
    join(both, async {
        time_passes(&world, || heard.len() > 0).await;
        two.run(&cancel).await;
    })
    .await;
    assert!(two.seen.now().told_at.is_some());
    assert_eq!(heard.len(), 3, "each once");
}

/// What did not fit one object lies in several, in their order; what a person archived is told as well.
#[tokio::test]
async fn large_readings_are_split_and_what_was_redriven_is_told() {
    let (world, stream, heard) = new();
    stream.begin("0", None);
    let long = "x".repeat(1 << 20);
    let names: Vec<String> = (0..3).map(|n| format!("{n}{long}")).collect();
    delete(&world, &stream, "0", &names.iter().map(String::as_str).collect::<Vec<_>>());
    let mut reader = stream.open(&ShardId("0".to_owned()), Position::Oldest).await.unwrap();
    let Read::Records(records) = reader.next().await.unwrap() else { panic!("there are some") };
    let mut batch = Batch::of(records);
    let archive = archive_through(&world, Arc::clone(&world.faults) as _);
    assert!(batch.archive(&archive).await.is_none());
    let probe: Arc<dyn Probe> = Arc::clone(&world.faults) as _;
    outbox(&world, &probe).put("2026-11-21T00:00:00.000", "0", &batch.archived()).await.unwrap();
    outbox(&world, &probe).put(REDRIVEN, REDRIVEN, &batch.archived()[..1]).await.unwrap();
    assert_eq!(waiting(&world).len(), 4);
    let (_, feeder) = process(&world, &stream, &heard, Arc::clone(&world.faults) as _);
    let cancel = CancellationToken::new();
    let told = async {
        time_passes(&world, || waiting(&world).is_empty()).await;
        cancel.cancel();
    };
    join(feeder.run(&cancel), told).await;
    let shards: Vec<String> = heard.lines.lock().unwrap().iter().map(|(shard, _)| shard.clone()).collect();
    assert_eq!(shards, ["0", "0", "0", REDRIVEN]);
    assert_eq!(heard.firsts()["0"], [1, 2, 3]);
}
