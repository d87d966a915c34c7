//! Feed: what is archived is told, in its order, at least once, whoever dies; and a feed that is down holds up nothing.

use super::archive::archive_through;
use super::follow::{archived, delete, followed, follower_through, time_passes};
use crate::world::{Source, World, rules};
use async_trait::async_trait;
use engine::error::{ErrorKind, PortError, PortResult};
use engine::flows::archive::Batch;
use engine::flows::feed::{FeedSeen, Feeder};
use engine::flows::follow::Follower;
use engine::limits::LIST_PAGE;
use engine::memory::stream::MemoryStream;
use engine::ports::clock::Nonces;
use engine::ports::feed::{FeedLine, FeedSink};
use engine::ports::objects::{Attributes, ObjectWrite};
use engine::ports::streams::{Position, Read, RecordStream, ShardId};
use engine::steps::outbox::{FEED_PREFIX, Outbox, OutboxPurger, REDRIVEN, REFUSED_PREFIX};
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
    /// The records whose lines it refuses for good; `*` refuses all.
    refused: Mutex<BTreeSet<&'static str>>,
    /// It refuses everything once it has heard so many lines.
    breaks_at: Mutex<Option<usize>>,
}

#[async_trait]
impl FeedSink for Heard {
    async fn tell(&self, shard: &str, lines: &[FeedLine]) -> PortResult<()> {
        let refused = self.refused.lock().unwrap().clone();
        let id = |line: &FeedLine| serde_json::from_str::<Value>(&line.text).unwrap()["keys"]["id"]["S"].clone();
        let is_broken = self.breaks_at.lock().unwrap().is_some_and(|lines| self.len() >= lines);
        if is_broken || lines.iter().any(|line| refused.contains("*") || refused.contains(id(line).as_str().unwrap())) {
            return Err(PortError::new("tell", "the test", ErrorKind::Invalid("it is not taken".to_owned())));
        }
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
    under(world, FEED_PREFIX)
}

/// What was refused, and lies aside.
fn aside(world: &World) -> Vec<String> {
    under(world, REFUSED_PREFIX)
}

fn under(world: &World, prefix: &str) -> Vec<String> {
    let names = world.memory.destination.contents().into_keys().map(|name| name.to_string());
    names.filter(|name| name.starts_with(prefix)).collect()
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

/// Lets a feeder run alone until it is so, then stops it.
async fn tell(world: &World, feeder: &Feeder, until: impl Fn() -> bool) {
    let cancel = CancellationToken::new();
    join(feeder.run(&cancel), async {
        time_passes(world, until).await;
        cancel.cancel();
    })
    .await;
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

/// A stream's numbers get a digit more while the feed is down: what waits is told in the order of the numbers all the same.
#[tokio::test]
async fn the_order_of_a_shard_holds_where_its_numbers_get_longer() {
    let (world, _, heard) = new();
    let stream = MemoryStream::unpadded(4);
    heard.failing.store(usize::MAX, Ordering::Relaxed);
    stream.begin("0", None);
    delete(&world, &stream, "0", &["a", "b", "c", "d", "e", "f", "g", "h", "i"]);
    let process = process(&world, &stream, &heard, Arc::clone(&world.faults) as _);
    run(&world, &process, || archived(&world).len() == 9 && waiting(&world).len() == 3).await;
    heard.lines.lock().unwrap().clear();
    heard.failing.store(0, Ordering::Relaxed);
    run(&world, &process, || waiting(&world).is_empty()).await;
    assert_eq!(heard.firsts()["0"], (5..=13).collect::<Vec<_>>());
    world.logs.expect("telling is tried again");
}

#[tokio::test]
async fn a_line_that_is_refused_for_good_is_laid_aside_and_told_once_more_by_the_next_process() {
    let (world, stream, heard) = new();
    *heard.refused.lock().unwrap() = BTreeSet::from(["b", "f"]);
    for shard in ["0", "1"] {
        stream.begin(shard, None);
    }
    delete(&world, &stream, "0", &["a", "b", "c", "d", "e"]);
    delete(&world, &stream, "1", &["f", "g"]);
    let one = process(&world, &stream, &heard, Arc::clone(&world.faults) as _);
    run(&world, &one, || archived(&world).len() == 7 && waiting(&world).is_empty()).await;
    assert_eq!(heard.firsts(), BTreeMap::from([("0".to_owned(), vec![1, 3, 4, 5]), ("1".to_owned(), vec![7])]));
    let lying = aside(&world);
    assert_eq!(lying.len(), 2, "{lying:?}");
    let contents = world.memory.destination.contents();
    let line: Value = serde_json::from_slice(&contents[&crate::world::key(&lying[0])].bytes).unwrap();
    assert_eq!(
        (&line["keys"]["id"]["S"], &line["shard"]),
        (&"b".into(), &"0".into()),
        "it is there for a person, whole"
    );

    // The other side takes one of them by now.
    *heard.refused.lock().unwrap() = BTreeSet::from(["f"]);
    let (_, two) = process(&world, &stream, &heard, Arc::clone(&world.faults) as _);
    tell(&world, &two, || aside(&world).len() == 1).await;
    assert_eq!(heard.firsts()["0"], [1, 3, 4, 5, 2]);
    world.logs.expect("refused for good");
}

#[tokio::test]
async fn who_dies_while_a_line_is_laid_aside_loses_none() {
    for k in 1.. {
        let (world, stream, heard) = new();
        *heard.refused.lock().unwrap() = BTreeSet::from(["b"]);
        stream.begin("0", None);
        delete(&world, &stream, "0", &["a", "b", "c", "d"]);
        let faults = Arc::new(Faults::die_at(k, if k % 2 == 0 { Death::Before } else { Death::After }));
        let (follower, feeder) = process(&world, &stream, &heard, Arc::clone(&faults) as _);
        let cancel = CancellationToken::new();
        let is_dead = tokio::select! {
            biased;
            () = faults.death() => true,
            _ = join(follower.run(&cancel), feeder.run(&cancel)) => unreachable!("they run until they are cancelled"),
            () = time_passes(&world, || aside(&world).len() == 1 && waiting(&world).is_empty()) => false,
        };
        let next = process(&world, &stream, &heard, Arc::clone(&world.faults) as _);
        let caught_up = || next.0.seen.shards().values().any(|seen| seen.caught_up_at.is_some());
        run(&world, &next, || caught_up() && waiting(&world).is_empty() && heard.firsts()["0"].len() == 3).await;
        assert_eq!((&heard.firsts()["0"][..], aside(&world).len()), (&[1, 3, 4][..], 1), "k = {k}");
        if !is_dead {
            assert!(k > 10, "it has hardly died");
            world.logs.expect("refused for good");
            return;
        }
        world.logs.forgive("refused for good");
        world.logs.forgive("telling is tried again");
    }
}

/// Where nothing is taken, nobody knows that it is the lines: all of them wait.
#[tokio::test]
async fn where_everything_is_refused_nothing_is_laid_aside_until_something_is_taken() {
    let (world, stream, heard) = new();
    *heard.refused.lock().unwrap() = BTreeSet::from(["*"]);
    stream.begin("0", None);
    delete(&world, &stream, "0", &["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k"]);
    let process = process(&world, &stream, &heard, Arc::clone(&world.faults) as _);
    let trouble = || process.1.seen.now().trouble.unwrap_or_default();
    run(&world, &process, || archived(&world).len() == 11 && trouble().contains("it is not taken")).await;
    assert_eq!((aside(&world).len(), waiting(&world).len(), heard.len()), (0, 4, 0));
    *heard.refused.lock().unwrap() = BTreeSet::from(["a", "k"]);
    run(&world, &process, || waiting(&world).is_empty()).await;
    assert_eq!((aside(&world).len(), process.1.seen.now().trouble), (2, None));
    assert_eq!(heard.firsts()["0"], (2..=10).collect::<Vec<_>>());
    world.logs.expect("telling is tried again");
    world.logs.expect("refused for good");
}

/// What took lines a moment ago, and refuses all of them now, is wrong itself.
#[tokio::test]
async fn a_receiver_that_breaks_while_it_is_told_costs_no_line_its_place() {
    let (world, stream, heard) = new();
    heard.failing.store(usize::MAX, Ordering::Relaxed);
    stream.begin("0", None);
    let names: Vec<String> = (0..45).map(|n| format!("k{n}")).collect();
    delete(&world, &stream, "0", &names.iter().map(String::as_str).collect::<Vec<_>>());
    let process = process(&world, &stream, &heard, Arc::clone(&world.faults) as _);
    run(&world, &process, || archived(&world).len() == 45 && waiting(&world).len() == 15).await;
    heard.lines.lock().unwrap().clear();
    heard.failing.store(0, Ordering::Relaxed);
    *heard.breaks_at.lock().unwrap() = Some(6);
    let trouble = || process.1.seen.now().trouble.unwrap_or_default();
    run(&world, &process, || heard.len() == 6 && trouble().contains("it is not taken")).await;
    assert_eq!((aside(&world).len(), waiting(&world).len()), (0, 13));
    *heard.breaks_at.lock().unwrap() = None;
    run(&world, &process, || waiting(&world).is_empty()).await;
    assert_eq!((heard.firsts()["0"].len(), aside(&world).len()), (45, 0));
    assert!(heard.firsts()["0"].is_sorted());
    world.logs.expect("telling is tried again");
}

/// One that waits alone is refused: nothing says whose fault it is, until another one is taken.
#[tokio::test]
async fn a_refused_line_that_waits_alone_holds_up_nothing_that_comes_later() {
    let (world, stream, heard) = new();
    *heard.refused.lock().unwrap() = BTreeSet::from(["a"]);
    stream.begin("0", None);
    delete(&world, &stream, "0", &["a"]);
    let process = process(&world, &stream, &heard, Arc::clone(&world.faults) as _);
    let trouble = || process.1.seen.now().trouble.unwrap_or_default();
    run(&world, &process, || trouble().contains("it is not taken")).await;
    assert_eq!((aside(&world).len(), waiting(&world).len()), (0, 1));
    delete(&world, &stream, "0", &["b"]);
    run(&world, &process, || aside(&world).len() == 1 && waiting(&world).is_empty()).await;
    assert_eq!(heard.firsts()["0"], [2]);
    world.logs.expect("telling is tried again");
    world.logs.expect("refused for good");
}

/// Foreign names and an object that does not read back: neither holds up what waits behind, nor is it looked at without a pause.
#[tokio::test]
async fn what_is_no_object_of_the_outbox_or_does_not_read_back_is_passed_over_and_seen() {
    let (world, stream, heard) = new();
    let put = |name: String, text: &'static [u8]| {
        let destination = Arc::clone(&world.memory.destination);
        async move {
            let name = crate::world::key(&name);
            assert!(destination.put_new(&name, text.into(), &Attributes::default()).await.unwrap());
        }
    };
    for n in 0..=LIST_PAGE {
        put(format!("{FEED_PREFIX}Table/0/{n:06}"), b"of somebody else").await;
    }
    put(format!("{FEED_PREFIX}Table/0/0/1-1-1.jsonl"), b"\xff\n").await;
    put(format!("{REFUSED_PREFIX}Table/0/0/1-ab-1.jsonl"), b"\xff\n").await;
    let (_, feeder) = process(&world, &stream, &heard, Arc::clone(&world.faults) as _);
    let damaged = || feeder.seen.now().damaged.unwrap_or_default();
    tell(&world, &feeder, || damaged().contains("it is no text")).await;
    stream.begin("0", None);
    delete(&world, &stream, "0", &["a"]);
    let process = process(&world, &stream, &heard, Arc::clone(&world.faults) as _);
    run(&world, &process, || heard.len() == 1 && waiting(&world).len() == LIST_PAGE + 2).await;
    assert_eq!((process.1.seen.now().trouble, aside(&world).len()), (None, 1));
    world.logs.expect("are not told");
    world.logs.expect("what it refused does not read back");
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
