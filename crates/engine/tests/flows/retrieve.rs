//! Retrieve: what an archive has in archive tiers is told, asked for once where that was agreed to, awaited, and never replaced
//! by something older that can be read.

use super::pack::{pack, packed};
use super::restore_records::{archived, day, range, records, restore, service, shape};
use crate::world::World;
use engine::error::ErrorKind;
use engine::flows::find_record::{Which, find_record};
use engine::flows::restore_records::{AWAITING, DAYS_AWAITING, DAYS_BEHIND, RecordsRequest, Wanted};
use engine::limits::{ORIGINALS_STAY_FOR, RETRIEVAL_WAIT_MAX};
use engine::memory::bucket::RETRIEVAL;
use engine::memory::table::MemoryTable;
use engine::ports::clock::Clock;
use engine::ports::objects::{ObjectRead, Onto, Retrieval};
use engine::ports::progress::Silent;
use engine::report::Report;
use engine::steps::archived_names::Days;
use engine::steps::met::MetInMemory;
use engine::wrap::unpacked::Unpacked;
use lifecycle::archive::Cause;
use lifecycle::ids::ObjectKey;
use lifecycle::time::SpanMs;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// `b` of the oldest day, then `a` three times; `c` of the newest day.
async fn some() -> World {
    archived(&[
        ("b", day(0), Cause::User),
        ("a", day(0), Cause::User),
        ("a", day(2), Cause::Ttl),
        ("a", day(4), Cause::User),
        ("c", day(4), Cause::User),
    ])
    .await
}

/// The objects whose names begin so, or, after a slash, have that part.
async fn named(world: &World, part: &str) -> Vec<ObjectKey> {
    let is_meant = |key: &str| key.starts_with(part) || part.starts_with('/') && key.contains(part);
    let listed = world.memory.destination.list("", None, 1_000).await.unwrap().items;
    listed.into_iter().map(|listed| listed.key).filter(|key| is_meant(key.as_str())).collect()
}

/// Moves objects to an archive tier.
async fn move_away(world: &World, part: &str) {
    let all = named(world, part).await;
    assert!(!all.is_empty(), "{part}");
    all.iter().for_each(|key| world.memory.destination.archive(key));
}

fn archive(world: &World, terms: Option<Retrieval>) -> Arc<Unpacked> {
    Arc::new(Unpacked::asking(world.memory.destination.clone(), terms))
}

/// The number of the newest deletion of a key, as it is found.
async fn found(archive: &Unpacked, key: &str) -> Result<Option<String>, ErrorKind> {
    let which = Which { service: &service(), table: None, key, at: day(100) };
    let found = find_record(archive, &which).await.map_err(|error| error.kind)?;
    Ok(found.map(|found| found.record.image["n"]["N"].as_str().unwrap().to_owned()))
}

async fn restored(
    world: &World,
    table: &Arc<MemoryTable>,
    request: &RecordsRequest,
    terms: Option<Retrieval>,
    cancel: &CancellationToken,
) -> Report {
    restore(world, table, archive(world, terms)).run(request, &MetInMemory::default(), &Silent, cancel).await
}

/// Does it while time passes.
async fn while_time_passes<T>(world: &World, span: SpanMs, work: impl Future<Output = T>) -> T {
    let clock = world.memory.clock.clone();
    let time = async {
        loop {
            clock.until_asleep(1).await;
            clock.advance(span);
            tokio::task::yield_now().await; // the sleeper's turn
        }
    };
    tokio::select! {
        biased;
        done = work => done,
        () = time => unreachable!("it goes on for ever"),
    }
}

#[tokio::test]
async fn one_record_is_asked_for_once_and_found_when_it_has_come_and_no_older_one_before() {
    let world = some().await;
    move_away(&world, "/a").await;
    let told = archive(&world, None);
    assert_eq!(found(&told, "a").await, Err(ErrorKind::Archived));
    let sum = told.away().sum();
    assert_eq!((sum.objects, sum.not_asked, world.memory.destination.retrievals()), (1, 1, 0), "{sum:?}");
    assert_eq!(sum.classes.into_iter().collect::<Vec<_>>(), ["GLACIER"]);
    for (asked_now, on_their_way) in [(1, 1), (0, 1)] {
        let asked = archive(&world, Some(Retrieval::default()));
        assert_eq!(found(&asked, "a").await, Err(ErrorKind::Archived));
        assert_eq!((asked.away().sum().asked_now, asked.away().on_their_way().len()), (asked_now, on_their_way));
        assert_eq!(world.memory.destination.retrievals(), 1, "the older ones are not needed");
    }
    world.advance(RETRIEVAL);
    let there = archive(&world, None);
    assert_eq!((found(&there, "a").await, there.away().sum().objects), (Ok(Some("4".to_owned())), 0));
    assert_eq!(found(&there, "c").await, Ok(Some("5".to_owned())));
}

/// Packs, and removes the originals of the packs.
async fn remove_originals(world: &World) {
    world.advance(ORIGINALS_STAY_FOR);
    let report = pack(world, true).await;
    assert_eq!((report.counted("originals-removed"), report.failures), (5, 0), "{report:?}");
}

#[tokio::test]
async fn packs_that_may_have_a_newer_deletion_are_asked_for_together_and_no_others() {
    let world = some().await;
    packed(&world).await;
    remove_originals(&world).await;
    move_away(&world, "packed/").await;
    let asked = archive(&world, Some(Retrieval::default()));
    assert_eq!(found(&asked, "c").await, Err(ErrorKind::Archived));
    assert_eq!(
        (asked.away().sum().asked_now, world.memory.destination.retrievals()),
        (3, 3),
        "any of the days may have it"
    );
    world.advance(RETRIEVAL);
    assert_eq!(found(&archive(&world, None), "c").await, Ok(Some("5".to_owned())));
    // What can be read on the way ends the search.
    let newest = named(&world, "packed/").await.pop().unwrap();
    world.memory.destination.archive(&newest);
    let asked = archive(&world, Some(Retrieval::default()));
    assert_eq!(found(&asked, "a").await, Err(ErrorKind::Archived), "the day before has one, but an older one");
    assert_eq!((asked.away().sum().objects, world.memory.destination.retrievals()), (1, 4));
}

#[tokio::test]
async fn what_stands_in_a_pack_that_can_be_read_needs_no_retrieval() {
    let world = some().await;
    packed(&world).await;
    move_away(&world, "service/").await;
    let asked = archive(&world, Some(Retrieval::default()));
    assert_eq!(found(&asked, "a").await, Ok(Some("4".to_owned())));
    let table = Arc::new(MemoryTable::new(shape()));
    let all = range(Days::default(), None);
    let report = restored(&world, &table, &all, Some(Retrieval::default()), &CancellationToken::new()).await;
    assert_eq!((report.counted("restored"), report.counted(AWAITING), report.failures), (3, 0, 0), "{report:?}");
    assert_eq!(world.memory.destination.retrievals(), 0);
}

#[tokio::test]
async fn a_pack_that_cannot_be_read_is_not_needed_where_its_originals_are_there() {
    let world = some().await;
    packed(&world).await;
    move_away(&world, "packed/").await;
    let asked = archive(&world, Some(Retrieval::default()));
    assert_eq!(found(&asked, "a").await, Ok(Some("4".to_owned())));
    let table = Arc::new(MemoryTable::new(shape()));
    let all = range(Days::default(), None);
    let report = restored(&world, &table, &all, Some(Retrieval::default()), &CancellationToken::new()).await;
    assert_eq!((report.counted("restored"), report.counted(DAYS_AWAITING), report.failures), (3, 0, 0), "{report:?}");
    assert_eq!(world.memory.destination.retrievals(), 0);
}

#[tokio::test]
async fn a_restore_puts_what_can_be_read_asks_for_the_rest_once_and_goes_on_when_it_is_given_again() {
    let world = some().await;
    // The newest `a`: the two older ones can be read, and are not put in its place.
    move_away(&world, "/a").await;
    let older: Vec<ObjectKey> = named(&world, "/a").await.into_iter().take(2).collect();
    let (table, all) = (Arc::new(MemoryTable::new(shape())), range(Days::default(), None));
    older.iter().for_each(|key| world.memory.destination.bring_back(key));
    let cancel = CancellationToken::new();
    for (terms, asked) in [(None, 0), (Some(Retrieval::default()), 1), (Some(Retrieval::default()), 1)] {
        let report = restored(&world, &table, &all, terms, &cancel).await;
        assert_eq!((report.counted(AWAITING), report.counted("older"), report.failures), (2, 1, 0), "{report:?}");
        assert_eq!((report.cancelled, records(&table).len()), (false, 2));
        assert_eq!(records(&table), [("b".to_owned(), "1".to_owned()), ("c".to_owned(), "5".to_owned())]);
        assert_eq!(world.memory.destination.retrievals(), asked);
    }
    world.advance(RETRIEVAL);
    let report = restored(&world, &table, &all, None, &cancel).await;
    assert_eq!((report.counted("restored"), report.counted(AWAITING), report.failures), (1, 0, 0), "{report:?}");
    assert_eq!(records(&table)[0], ("a".to_owned(), "4".to_owned()));
}

#[tokio::test]
async fn only_what_has_the_cause_that_is_asked_for_is_asked_for() {
    let world = some().await;
    move_away(&world, "service/").await;
    let (table, ttl) = (Arc::new(MemoryTable::new(shape())), range(Days::default(), Some(Cause::Ttl)));
    restored(&world, &table, &ttl, Some(Retrieval::default()), &CancellationToken::new()).await;
    assert_eq!(world.memory.destination.retrievals(), 1);
}

#[tokio::test]
async fn behind_a_pack_that_cannot_be_read_no_older_day_is_put() {
    let world = some().await;
    packed(&world).await;
    remove_originals(&world).await;
    let newest = named(&world, "packed/").await.pop().unwrap();
    world.memory.destination.archive(&newest);
    let (table, all) = (Arc::new(MemoryTable::new(shape())), range(Days::default(), None));
    let cancel = CancellationToken::new();
    let report = restored(&world, &table, &all, None, &cancel).await;
    assert_eq!((report.counted(DAYS_AWAITING), report.failures, records(&table).len()), (3, 0, 0), "{report:?}");
    // Nothing older is put over what is there either.
    let over = RecordsRequest { overwrite: true, ..all.clone() };
    let report = restored(&world, &table, &over, None, &cancel).await;
    assert_eq!((report.counted(DAYS_AWAITING), report.counted("restored")), (3, 0), "{report:?}");
    let report = while_time_passes(
        &world,
        RETRIEVAL,
        restored(&world, &table, &RecordsRequest { wait: true, ..over }, Some(Retrieval::default()), &cancel),
    )
    .await;
    assert_eq!((report.counted(DAYS_AWAITING), report.failures), (0, 0), "{report:?}");
    assert_eq!(records(&table)[0], ("a".to_owned(), "4".to_owned()));
    assert_eq!(world.memory.destination.retrievals(), 1);
}

#[tokio::test]
async fn behind_a_damaged_pack_no_older_day_is_put_but_newer_ones_are_and_it_says_how_to_go_on() {
    let world = some().await;
    packed(&world).await;
    remove_originals(&world).await;
    let packs = named(&world, "packed/").await;
    let attributes = world.memory.destination.contents()[&packs[1]].attributes.clone();
    world.memory.destination.store(&packs[1], "PAR1".into(), attributes, &Onto::Anything);
    let cancel = CancellationToken::new();
    for overwrite in [false, true] {
        let (table, all) = (Arc::new(MemoryTable::new(shape())), range(Days::default(), None));
        let report = restored(&world, &table, &RecordsRequest { overwrite, ..all }, None, &cancel).await;
        assert_eq!((report.failures, report.counted(DAYS_BEHIND), records(&table).len()), (1, 1, 2), "{report:?}");
        assert!(report.skipped[0].why.contains("with --to at this day"), "{report:?}");
        let older = range(Days { from: None, until: Some(day(0)) }, None);
        let report = restored(&world, &table, &older, None, &cancel).await;
        assert_eq!((report.failures, report.counted("restored"), records(&table).len()), (0, 1, 3), "{report:?}");
    }
}

#[tokio::test]
async fn a_restore_that_waits_puts_all_of_it_once_it_has_come_and_one_that_is_stopped_or_late_says_so() {
    let world = some().await;
    move_away(&world, "service/").await;
    let (table, cancel) = (Arc::new(MemoryTable::new(shape())), CancellationToken::new());
    let all = RecordsRequest { wait: true, ..range(Days::default(), None) };
    // Nothing is on its way: nothing is awaited.
    let report = restored(&world, &table, &all, None, &cancel).await;
    assert_eq!((report.counted(AWAITING), report.cancelled, records(&table).len()), (5, false, 0), "{report:?}");
    let clock = world.memory.clock.clone();
    let stopping = async {
        clock.until_asleep(1).await;
        cancel.cancel();
    };
    let waiting = restored(&world, &table, &all, Some(Retrieval::default()), &cancel);
    let (report, ()) = tokio::join!(waiting, stopping);
    assert!(report.cancelled && report.notes[0].contains("the same command again"), "{report:?}");
    assert_eq!((records(&table).len(), world.memory.destination.retrievals()), (0, 5));
    // Given again, it waits for what was asked for.
    let cancel = CancellationToken::new();
    let report = while_time_passes(&world, RETRIEVAL, restored(&world, &table, &all, None, &cancel)).await;
    assert_eq!((report.counted("restored"), report.failures, records(&table).len()), (3, 0, 3), "{report:?}");
    assert_eq!(world.memory.destination.retrievals(), 5);
    // What does not come within days is told.
    move_away(&world, "/b").await;
    let one = RecordsRequest { wanted: Wanted::Key { key: "b".to_owned(), at: day(9) }, ..all };
    let late = async {
        clock.until_asleep(1).await;
        move_away(&world, "/b").await;
        clock.set(clock.now().plus(RETRIEVAL_WAIT_MAX));
        clock.advance(RETRIEVAL);
    };
    let (report, ()) = tokio::join!(restored(&world, &table, &one, Some(Retrieval::default()), &cancel), late);
    assert_eq!((report.counted(AWAITING), report.failures, report.cancelled), (1, 0, false), "{report:?}");
}

#[tokio::test]
async fn packing_passes_over_what_lies_in_an_archive_tier_and_asks_for_nothing() {
    let world = some().await;
    packed(&world).await;
    move_away(&world, "packed/").await;
    let report = packed(&world).await;
    assert_eq!((report.counted("in-archive-tier"), report.counted("packed")), (3, 0), "{report:?}");
    assert_eq!(world.memory.destination.retrievals(), 0);
}
