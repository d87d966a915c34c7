//! Damaged packs, and such as lie in archive tiers: they are passed over where all that they have is there as objects, which is
//! looked at and never believed; where it is not, that is told, and nobody takes what is left for all that there is.

use super::pack::{found, originals, pack, packed, some, unpacked};
use super::restore_records::{day, service};
use crate::world::{World, key};
use engine::error::ErrorKind;
use engine::flows::find_record::{Which, find_record};
use engine::flows::retrieve::note_packs;
use engine::flows::scan::{Part, parts, rows};
use engine::format::packed::{COLUMNS, Column};
use engine::ports::objects::{Attributes, ObjectRead, Onto};
use engine::steps::packs::{Pack, of_day};
use engine::wrap::unpacked::Unpacked;
use lifecycle::ids::ObjectKey;
use lifecycle::time::SpanMs;
use std::sync::Arc;

const DAY: &str = "2026/11/21";
const NOTE: &str = ".afterimage/packs/service/2026-11-21/000001.json";

fn first_pack() -> ObjectKey {
    key("packed/service=service/day=2026-11-21/000001.parquet")
}

fn bytes_of(world: &World, name: &ObjectKey) -> Vec<u8> {
    world.memory.destination.contents()[name].bytes.to_vec()
}

/// Cuts off a pack's end.
fn cut(world: &World, name: &ObjectKey) {
    let whole = bytes_of(world, name);
    world.memory.destination.damage(name, whole[..whole.len() - 30].to_vec());
}

/// Damages one column of the first row group of a pack.
async fn damage(world: &World, name: &ObjectKey, column: Column) {
    let archive = world.memory.destination.as_ref();
    let all = of_day(archive, &service(), DAY).await.unwrap();
    let (place, listed) = all.into_iter().find(|(_, listed)| listed.key == *name).unwrap();
    let pack = Pack::open(archive, place, &listed).await.unwrap().unwrap();
    let mut damaged = bytes_of(world, name);
    let range = pack.footer.ranges(0, &[column]).remove(0);
    damaged[usize::try_from(range.end - 1).unwrap()] ^= 0x10;
    archive.damage(name, damaged);
}

async fn listed(archive: &Unpacked, prefix: &str) -> Result<usize, ErrorKind> {
    archive.list(prefix, None, 1_000).await.map(|page| page.items.len()).map_err(|error| error.kind)
}

fn is_damaged<T: std::fmt::Debug>(read: &Result<T, ErrorKind>) -> bool {
    matches!(read, Err(ErrorKind::Damaged(_)))
}

/// Names of the rows of a day's parts, sorted.
async fn scanned(archive: &Arc<Unpacked>, parts: &[Part]) -> Vec<String> {
    let mut names = Vec::new();
    for part in parts {
        let read = rows(archive, part, &COLUMNS.map(|(column, ..)| column)).await.unwrap();
        assert!(read.damaged.is_empty(), "{:?}", read.damaged);
        names.extend((0..read.columns.rows).map(|row| read.columns.text(Column::Object, row).unwrap().to_owned()));
    }
    names.sort_unstable();
    names
}

async fn names_of_day(world: &World) -> Vec<String> {
    let all = originals(world).await.into_keys();
    all.filter(|name| name.starts_with("service/2026/11/21/")).collect()
}

#[tokio::test]
async fn a_pack_that_cannot_be_read_is_needed_once_a_bucket_took_an_object_of_it_behind_our_back() {
    let world = some().await;
    packed(&world).await;
    let (name, gone) = (first_pack(), key("service/2026/11/21/b.json"));
    let which = Which { service: &service(), table: None, key: "b", at: day(100) };
    for is_tiered in [false, true] {
        let whole = bytes_of(&world, &name);
        let object = bytes_of(&world, &gone);
        match is_tiered {
            true => world.memory.destination.archive(&name),
            false => cut(&world, &name),
        }
        assert_eq!(listed(&unpacked(&world), "service/2026/11/21/").await, Ok(3), "all of it is there");
        world.memory.destination.delete_object(&gone);
        let archive = unpacked(&world);
        let read = listed(&archive, "service/2026/11/21/").await;
        let one = archive.get(&gone, None, None).await.map(|_| ()).map_err(|error| error.kind);
        let found = find_record(&archive, &which).await.map(|_| ()).map_err(|error| error.kind);
        match is_tiered {
            true => {
                assert_eq!(
                    (read, one, found),
                    (Err(ErrorKind::Archived), Err(ErrorKind::Archived), Err(ErrorKind::Archived))
                );
                assert!(note_packs(&archive, &service(), DAY).await.unwrap());
                assert_eq!(archive.away().sum().objects, 1, "it is what must be retrieved");
            }
            false => {
                assert!(is_damaged(&read) && is_damaged(&one) && is_damaged(&found), "{read:?} {one:?} {found:?}");
                let report = pack(&world, false).await;
                assert!(report.failed[0].why.contains("keep it, and bring it back"), "{:?}", report.failed);
            }
        }
        assert_eq!(listed(&unpacked(&world), "service/2026/11/23/").await, Ok(2), "other days are as they are");
        world.memory.destination.bring_back(&name);
        world.memory.destination.damage(&name, whole);
        world.memory.destination.store(&gone, object.into(), Attributes::default(), &Onto::Anything);
        if !is_tiered {
            world.logs.expect("a pack that is not needed to read its records is damaged");
        }
    }
}

/// Names are no order of time: those that come in the same moment are before the others, between them and behind them.
#[tokio::test]
async fn what_is_archived_in_the_second_of_the_pack_does_not_make_it_needed_either() {
    let world = some().await;
    world.advance(SpanMs::minutes(1));
    packed(&world).await;
    cut(&world, &first_pack());
    for (n, late) in ["0", "az", "zz"].into_iter().enumerate() {
        let late = key(&format!("service/2026/11/21/{late}.json"));
        world.memory.destination.store(&late, "{}".into(), Attributes::default(), &Onto::Anything);
        assert_eq!(listed(&unpacked(&world), "service/2026/11/21/").await, Ok(4 + n), "{late}");
    }
    world.logs.expect("a pack that is not needed to read its records is damaged");
}

#[tokio::test]
async fn what_was_archived_after_a_pack_does_not_make_it_needed_and_what_was_changed_since_does() {
    let world = some().await;
    packed(&world).await;
    cut(&world, &first_pack());
    world.advance(SpanMs::minutes(1));
    let late = key("service/2026/11/21/late.json");
    world.memory.destination.store(&late, "{}".into(), Attributes::default(), &Onto::Anything);
    assert_eq!(listed(&unpacked(&world), "service/2026/11/21/").await, Ok(4));
    world.logs.expect("a pack that is not needed to read its records is damaged");
    let changed = key("service/2026/11/21/b.json");
    world.memory.destination.store(&changed, "{}".into(), Attributes::default(), &Onto::Anything);
    assert!(is_damaged(&listed(&unpacked(&world), "service/2026/11/21/").await));
}

/// A note of an earlier version says nothing of which objects there were.
#[tokio::test]
async fn a_note_that_only_claims_that_all_originals_are_there_proves_nothing() {
    let world = some().await;
    packed(&world).await;
    cut(&world, &first_pack());
    let mut note: serde_json::Value = serde_json::from_slice(&bytes_of(&world, &key(NOTE))).unwrap();
    assert_eq!((&note["format"], &note["originals"]), (&3.into(), &"whole".into()));
    assert_eq!(note.as_object_mut().unwrap().remove("objects").unwrap().as_str().unwrap().len(), 32);
    let earlier = note.to_string().into();
    world.memory.destination.store(&key(NOTE), earlier, Attributes::default(), &Onto::Anything);
    assert!(is_damaged(&listed(&unpacked(&world), "service/2026/11/21/").await));
}

/// A day that is packed by the hour has several packs, and tiers move all of them.
#[tokio::test]
async fn several_packs_of_a_day_are_passed_over_together_or_not_at_all() {
    let world = some().await;
    packed(&world).await;
    world.advance(SpanMs::hours(1));
    let text = String::from_utf8(bytes_of(&world, &key("service/2026/11/21/b.json"))).unwrap();
    let late = key("service/2026/11/21/late.json");
    world.memory.destination.store(&late, text.into(), Attributes::default(), &Onto::Nothing);
    assert_eq!(packed(&world).await.counted("packed"), 1);
    let second = key("packed/service=service/day=2026-11-21/000002.parquet");
    for name in [first_pack(), second.clone()] {
        world.memory.destination.archive(&name);
    }
    assert_eq!(listed(&unpacked(&world), "service/2026/11/21/").await, Ok(4));
    assert!(!note_packs(&unpacked(&world), &service(), DAY).await.unwrap(), "nothing is asked for");
    world.memory.destination.delete_object(&late);
    assert_eq!(listed(&unpacked(&world), "service/2026/11/21/").await, Err(ErrorKind::Archived));
    // The one that has it is enough.
    world.memory.destination.bring_back(&second);
    assert_eq!(listed(&unpacked(&world), "service/2026/11/21/").await, Ok(4));
}

#[tokio::test]
async fn damage_in_any_column_of_a_pack_whose_originals_are_there_is_survived_and_told() {
    for (column, name, _) in COLUMNS {
        let world = some().await;
        let (before, of_day) = (originals(&world).await, names_of_day(&world).await);
        packed(&world).await;
        let early = Arc::new(unpacked(&world));
        let early_parts = parts(&early, &service(), DAY).await.unwrap();
        damage(&world, &first_pack(), column).await;
        assert_eq!(found(&unpacked(&world)).await, before, "{name}");
        let archive = Arc::new(unpacked(&world));
        let all = parts(&archive, &service(), DAY).await.unwrap();
        assert_eq!(scanned(&archive, &all).await, of_day, "{name}");
        assert_eq!(archive.damaged().keys().collect::<Vec<_>>(), [&first_pack()], "{name}");
        // And if it is damaged while somebody goes through its parts.
        if column != Column::Object {
            assert_eq!(scanned(&early, &early_parts).await, of_day, "{name}");
            assert_eq!(early.damaged().len(), 1, "{name}");
        }
        // Packing says what is safe, and packs nothing twice.
        let report = pack(&world, true).await;
        assert_eq!((report.failures, report.counted("packed")), (u64::from(is_read_by_packing(column)), 0), "{name}");
        if let Some(failed) = report.failed.first() {
            assert!(failed.why.contains(first_pack().as_str()), "{}", failed.why);
            assert!(
                failed.why.contains("all that it packed is there as objects, too: `afterimage archive drop"),
                "{}",
                failed.why
            );
        }
        let listed = of_day_packs(&world).await;
        assert_eq!(listed, [first_pack()], "{name}");
        world.logs.expect("a pack that is not needed to read its records is damaged");
    }
}

/// Before originals go, no more is read of a pack than its names.
fn is_read_by_packing(column: Column) -> bool {
    matches!(column, Column::Object | Column::Etag | Column::Size)
}

async fn of_day_packs(world: &World) -> Vec<ObjectKey> {
    let all = of_day(world.memory.destination.as_ref(), &service(), DAY).await.unwrap();
    all.into_iter().map(|(_, listed)| listed.key).collect()
}

#[tokio::test]
async fn damage_in_a_pack_that_is_needed_is_told_and_other_days_are_as_they_are() {
    let world = some().await;
    packed(&world).await;
    for name in originals(&world).await.keys() {
        world.memory.destination.delete_object(&key(name));
    }
    damage(&world, &first_pack(), Column::Etag).await;
    let archive = Arc::new(unpacked(&world));
    for _ in 0..2 {
        let read = archive.list("service/2026/11/21/", None, 10).await.unwrap_err();
        assert!(matches!(&read.kind, ErrorKind::Damaged(why) if why.contains("`etag`")), "{read:?}");
        assert_eq!(read.object, first_pack().as_str());
    }
    assert!(archive.damaged().is_empty(), "it is not passed over");
    assert_eq!(listed(&archive, "service/2026/11/23/").await, Ok(2));
    // A statement that does not need that column has its numbers.
    let all = parts(&archive, &service(), DAY).await.unwrap();
    assert_eq!(rows(&archive, &all[0], &[Column::Object, Column::Cause]).await.unwrap().columns.rows, 3);
    assert!(matches!(rows(&archive, &all[0], &[Column::Etag]).await.unwrap_err().kind, ErrorKind::Damaged(_)));
}

/// As after a damaged pack was removed, its records were packed anew, and the first one was brought back.
#[tokio::test]
async fn a_record_that_stands_in_two_packs_is_scanned_once() {
    let world = some().await;
    let of_day = names_of_day(&world).await;
    packed(&world).await;
    let twin = key("packed/service=service/day=2026-11-21/000002.parquet");
    let bytes = bytes_of(&world, &first_pack());
    world.memory.destination.store(&twin, bytes.into(), Attributes::default(), &Onto::Nothing);
    for is_there in [true, false] {
        let archive = Arc::new(unpacked(&world));
        let all = parts(&archive, &service(), DAY).await.unwrap();
        assert_eq!(scanned(&archive, &all).await, of_day, "originals are there: {is_there}");
        for name in originals(&world).await.keys() {
            world.memory.destination.delete_object(&key(name));
        }
    }
}
