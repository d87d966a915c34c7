//! Follow: everything that was deleted is archived once, in the order of each key, whoever dies; and what is lost is told.

use super::archive::archive_through;
use crate::world::{Source, World, key, rules};
use engine::error::ErrorKind;
use engine::flows::follow::{Follower, Seen};
use engine::format::archived::read;
use engine::limits::{SHARD_IDLE, SHARD_LEASE_FOR};
use engine::memory::stream::MemoryStream;
use engine::ports::clock::{Clock, Nonces};
use engine::ports::streams::{Change, ShardId};
use engine::steps::shard_places::{GAPS_PREFIX, Gap, ShardPlaces};
use engine::wrap::faults::{Death, Faults};
use engine::wrap::tap::{Call, Fate, Probe};
use futures_util::future::join_all;
use lifecycle::archive::Cause;
use lifecycle::time::SpanMs;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::task::yield_now;
use tokio_util::sync::CancellationToken;

fn follower(world: &World, stream: &MemoryStream) -> Follower {
    follower_through(world, stream, Arc::clone(&world.faults) as _)
}

/// In a process whose calls that probe decides on.
pub(super) fn follower_through(world: &World, stream: &MemoryStream, probe: Arc<dyn Probe>) -> Follower {
    Follower {
        stream: Arc::new(stream.clone()),
        archive: archive_through(world, Arc::clone(&probe)),
        outbox: None,
        places: ShardPlaces::new(world.write_destination("places", probe), "Table", "stream"),
        leases: world.memory.catalog.clone(),
        clock: world.memory.clock.clone(),
        holder: world.memory.nonces.nonce(),
        nonces: world.memory.nonces.clone(),
        seen: Arc::new(Seen::default()),
    }
}

/// Lets time pass until it is so.
pub(super) async fn time_passes(world: &World, until: impl Fn() -> bool) {
    for _ in 0..10_000 {
        for _ in 0..200 {
            yield_now().await;
        }
        if until() {
            return;
        }
        world.memory.clock.advance(SHARD_IDLE);
    }
    panic!("waited in vain");
}

/// Lets them follow until it is so, then stops them.
pub(super) async fn followed(world: &World, followers: &[&Follower], until: impl Fn() -> bool) {
    let cancel = CancellationToken::new();
    let all = join_all(followers.iter().map(|follower| follower.run(&cancel)));
    let time = async {
        time_passes(world, until).await;
        cancel.cancel();
    };
    tokio::join!(all, time);
}

/// The archived numbers (each deletion has its own), with the name of the record's key.
pub(super) fn archived(world: &World) -> BTreeMap<u64, String> {
    let mut numbers = BTreeMap::new();
    for (name, stored) in world.memory.destination.contents() {
        if name.as_str().starts_with(".afterimage/") {
            continue;
        }
        let record = read(&stored.bytes).unwrap();
        let number = record.image["n"]["N"].as_str().unwrap().parse().unwrap();
        let before = numbers.insert(number, record.image["id"]["S"].as_str().unwrap().to_owned());
        assert_eq!(before, None, "{name} is archived twice");
    }
    numbers
}

/// Nothing is archived while it is so.
struct Away(AtomicBool);

impl Probe for Away {
    fn fate(&self, call: &Call) -> Fate {
        match call.name() == "archive.put" && self.0.load(Ordering::Relaxed) {
            true => Fate::FailBefore(ErrorKind::Unavailable),
            false => Fate::Pass,
        }
    }
}

fn gaps(world: &World) -> Vec<Gap> {
    let contents = world.memory.destination.contents();
    let gaps = contents.iter().filter(|(name, _)| name.as_str().starts_with(GAPS_PREFIX));
    gaps.map(|(_, stored)| serde_json::from_slice(&stored.bytes).unwrap()).collect()
}

fn new() -> (World, MemoryStream) {
    (World::new(Source::Versioned, rules()), MemoryStream::new())
}

pub(super) fn delete(world: &World, stream: &MemoryStream, shard: &str, names: &[&str]) {
    for name in names {
        stream.delete(shard, name, world.memory.clock.now(), Cause::User);
    }
}

#[tokio::test]
async fn parents_are_read_before_their_children_and_each_shard_to_its_end() {
    let (world, stream) = new();
    stream.begin("parent", None);
    delete(&world, &stream, "parent", &["a", "b", "a", "c", "d"]);
    stream.begin("left", Some("parent"));
    stream.begin("right", Some("parent"));
    stream.begin("orphan", Some("forgotten long ago"));
    delete(&world, &stream, "left", &["a"]);
    delete(&world, &stream, "right", &["b"]);
    delete(&world, &stream, "orphan", &["z"]);
    let follower = follower(&world, &stream);
    // The parent goes on: nothing of its children is read.
    followed(&world, &[&follower], || archived(&world).len() == 6).await;
    assert_eq!(archived(&world).into_keys().collect::<Vec<_>>(), [1, 2, 3, 4, 5, 8]);
    stream.end("parent");
    followed(&world, &[&follower], || archived(&world).len() == 8).await;
    // The plain names were taken in the order of the deletions.
    let number = |name: &str| {
        let contents = world.memory.destination.contents();
        read(&contents[&key(name)].bytes).unwrap().image["n"]["N"].clone()
    };
    assert_eq!([number("service/2026/11/21/a.json"), number("service/2026/11/21/b.json")], ["1", "2"]);
    assert_eq!(follower.seen.shards(), BTreeMap::new(), "nothing is being read after the stop");
}

#[tokio::test]
async fn a_follower_that_dies_anywhere_is_followed_by_another_and_nothing_is_lost_or_doubled() {
    for k in 1.. {
        let (world, stream) = new();
        stream.begin("0", None);
        stream.begin("1", Some("0"));
        delete(&world, &stream, "0", &["a", "b", "a", "c"]);
        stream.end("0");
        delete(&world, &stream, "1", &["a", "d"]);
        let faults = Arc::new(Faults::die_at(k, if k % 2 == 0 { Death::Before } else { Death::After }));
        let (dying, cancel) = (follower_through(&world, &stream, Arc::clone(&faults) as _), CancellationToken::new());
        let all =
            || archived(&world).len() == 6 && dying.seen.shards().values().all(|seen| seen.caught_up_at.is_some());
        let is_dead = tokio::select! {
            biased;
            () = faults.death() => true,
            () = dying.run(&cancel) => unreachable!("it runs until it is cancelled"),
            () = time_passes(&world, all) => false,
        };
        let next = follower(&world, &stream);
        let began = world.memory.clock.now();
        followed(&world, &[&next], || next.seen.shards().values().any(|seen| seen.caught_up_at.is_some())).await;
        let names = ["a", "b", "a", "c", "a", "d"].map(str::to_owned);
        assert_eq!(archived(&world).into_values().collect::<Vec<_>>(), names, "k = {k}");
        if !is_dead {
            assert!(k > 8, "it has hardly died");
            return;
        }
        let waited = world.memory.clock.now().since(began);
        assert!(waited <= SpanMs(SHARD_LEASE_FOR.0 + 30_000), "k = {k}: {waited}");
    }
}

#[tokio::test]
async fn a_process_that_was_killed_has_its_shards_again_at_once() {
    let (world, stream) = new();
    stream.begin("0", None);
    delete(&world, &stream, "0", &["a"]);
    let follower = follower(&world, &stream);
    let never = CancellationToken::new();
    tokio::select! {
        () = follower.run(&never) => unreachable!("it runs until it is cancelled"),
        () = time_passes(&world, || archived(&world).len() == 1) => {}
    }
    delete(&world, &stream, "0", &["b"]);
    let began = world.memory.clock.now();
    followed(&world, &[&follower], || archived(&world).len() == 2).await;
    let waited = world.memory.clock.now().since(began);
    assert!(waited < SpanMs::seconds(5), "{waited}");
}

#[tokio::test]
async fn two_followers_share_the_shards_and_neither_reads_what_the_other_has() {
    let (world, stream) = new();
    let shards: Vec<String> = (0..16).map(|n| format!("s{n:02}")).collect();
    for shard in &shards {
        stream.begin(shard, None);
        delete(&world, &stream, shard, &[shard, "common"]);
    }
    let (one, two) = (follower(&world, &stream), follower(&world, &stream));
    let read_by = |follower: &Follower| -> BTreeSet<ShardId> { follower.seen.shards().into_keys().collect() };
    let seen = RefCell::new((BTreeSet::new(), BTreeSet::new()));
    followed(&world, &[&one, &two], || {
        *seen.borrow_mut() = (read_by(&one), read_by(&two));
        archived(&world).len() == 32 && seen.borrow().0.len() + seen.borrow().1.len() == 16
    })
    .await;
    let (ones, twos) = seen.into_inner();
    assert!(ones.is_disjoint(&twos) && ones.len() >= 4 && twos.len() >= 4, "{} and {}", ones.len(), twos.len());
}

#[tokio::test]
async fn an_outage_of_the_archive_holds_the_shard_and_is_seen_and_then_it_catches_up() {
    let (world, stream) = new();
    stream.begin("0", None);
    delete(&world, &stream, "0", &["a", "b"]);
    let away = Arc::new(Away(AtomicBool::new(true)));
    let follower = follower_through(&world, &stream, Arc::clone(&away) as _);
    let began = world.memory.clock.now();
    let an_hour = || world.memory.clock.now().since(began) > SpanMs::hours(1);
    followed(&world, &[&follower], || {
        let trouble = follower.seen.shards().get(&ShardId("0".to_owned())).and_then(|seen| seen.trouble.clone());
        an_hour() && trouble.is_some_and(|trouble| trouble.contains("no answer"))
    })
    .await;
    assert_eq!(archived(&world), BTreeMap::new());
    away.0.store(false, Ordering::Relaxed);
    delete(&world, &stream, "0", &["c"]);
    followed(&world, &[&follower], || archived(&world).len() == 3).await;
    world.logs.expect("archiving is tried again");
    world.logs.forgive("reading is tried again");
    assert_eq!(gaps(&world), []);
}

#[tokio::test]
async fn what_the_stream_has_forgotten_is_told_with_its_edges_and_reading_goes_on() {
    let (world, stream) = new();
    stream.begin("0", None);
    delete(&world, &stream, "0", &["a", "b"]);
    let follower = follower(&world, &stream);
    followed(&world, &[&follower], || archived(&world).len() == 2).await;
    delete(&world, &stream, "0", &["lost", "lost"]);
    stream.tell("0", world.memory.clock.now(), Change::Written);
    delete(&world, &stream, "0", &["c"]);
    stream.forget("0", 4);
    followed(&world, &[&follower], || archived(&world).len() == 3).await;
    world.logs.expect("deletions may be lost: the stream no longer has what came after record 000000000000000000002");
    world.logs.expect("the stream has forgotten records that were not read yet");
    let told = gaps(&world);
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].after.as_deref(), Some("000000000000000000002"));
    assert_eq!(told[0].before.as_deref(), Some("000000000000000000005"));
    assert_eq!(world.memory.metrics.snapshot()["stream_gaps"], 1);
}

#[tokio::test]
async fn a_shard_that_vanished_before_its_end_was_read_is_told_once() {
    let (world, stream) = new();
    stream.begin("0", None);
    delete(&world, &stream, "0", &["a"]);
    let follower = follower(&world, &stream);
    followed(&world, &[&follower], || archived(&world).len() == 1).await;
    stream.forget_shard("0");
    stream.begin("1", Some("0"));
    delete(&world, &stream, "1", &["b"]);
    for _ in 0..2 {
        followed(&world, &[&follower], || archived(&world).len() == 2).await;
    }
    world.logs.expect("deletions may be lost");
    // Somebody has read the note and deleted it: it does not come back.
    let note =
        world.memory.destination.contents().into_keys().find(|name| name.as_str().starts_with(GAPS_PREFIX)).unwrap();
    let noted = gaps(&world);
    world.memory.destination.delete_object(&note);
    followed(&world, &[&follower], || follower.seen.shards().values().any(|seen| seen.caught_up_at.is_some())).await;
    assert_eq!(gaps(&world), []);
    assert_eq!(noted.len(), 1, "{noted:?}");
    assert_eq!((noted[0].after.as_deref(), noted[0].before.as_deref()), (Some("000000000000000000001"), None));
}

#[tokio::test]
async fn a_reading_that_fails_is_tried_again_from_its_place() {
    let (world, stream) = new();
    stream.begin("0", None);
    delete(&world, &stream, "0", &["a", "b", "c", "d", "e"]);
    stream.fail(3);
    let follower = follower(&world, &stream);
    followed(&world, &[&follower], || archived(&world).len() == 5).await;
    world.logs.expect("reading is tried again");
}

/// A shard that vanishes under its reader: told, and not read for ever.
#[tokio::test]
async fn a_shard_that_vanishes_while_it_is_read_is_told_and_left() {
    let (world, stream) = new();
    stream.begin("0", None);
    stream.begin("1", None);
    delete(&world, &stream, "0", &["a"]);
    let follower = follower(&world, &stream);
    let vanishes = std::cell::Cell::new(false);
    followed(&world, &[&follower], || {
        if archived(&world).len() == 1 && !vanishes.replace(true) {
            stream.forget_shard("0");
        }
        vanishes.get() && !gaps(&world).is_empty() && follower.seen.shards().len() == 1
    })
    .await;
    assert_eq!(gaps(&world)[0].after.as_deref(), Some("000000000000000000001"));
    world.logs.expect("deletions may be lost");
}

/// Whose archive takes longer than its lease does not take another's place back.
#[tokio::test]
async fn a_reader_that_outlasts_its_lease_leaves_the_place_to_the_next() {
    let (world, stream) = new();
    stream.begin("0", None);
    delete(&world, &stream, "0", &["a", "b", "c", "d"]);
    stream.end("0");
    let (slow_faults, hanging) = (Arc::new(Faults::default()), Arc::new(tokio::sync::Notify::new()));
    let wait = Arc::clone(&hanging);
    slow_faults.at("archive.put", 1, Fate::First(Box::pin(async move { wait.notified().await })));
    let slow = follower_through(&world, &stream, slow_faults as _);
    let quick = follower(&world, &stream);
    let cancel = CancellationToken::new();
    let place = || {
        let contents = world.memory.destination.contents();
        let place = contents.iter().find(|(name, _)| name.as_str().contains("/streams/Table/stream/0.json"));
        place.map(|(_, stored)| String::from_utf8(stored.bytes.to_vec()).unwrap()).unwrap_or_default()
    };
    let second = async {
        // The slow one has the shard, and hangs in its first put.
        time_passes(&world, || slow.seen.shards().len() == 1).await;
        followed(&world, &[&quick], || place().contains("\"ended\":true")).await;
        hanging.notify_one();
        time_passes(&world, || slow.seen.shards().is_empty()).await;
        cancel.cancel();
    };
    tokio::join!(slow.run(&cancel), second);
    assert_eq!(archived(&world).len(), 4);
    assert!(place().contains("\"ended\":true"), "{}", place());
}
