//! Redrive of records: what lies aside is archived once its cause is gone, and lies there until it is.

use crate::archive::archive_through;
use crate::world::{Source, World, key, rules};
use engine::error::ErrorKind;
use engine::flows::redrive_records::RedriveRecords;
use engine::format::laid_aside::Note;
use engine::memory::stream::MemoryStream;
use engine::ports::objects::{Attributes, ObjectPurge, Onto, PurgeItem};
use engine::ports::streams::{Change, DeletedRecord, Position, Read, RecordStream, ShardId, StreamRecord};
use engine::report::Report;
use engine::steps::aside::{AsidePurger, laid_aside, read_aside};
use engine::wrap::tap::{Fate, Tap};
use lifecycle::archive::Cause;
use lifecycle::ids::ObjectKey;
use lifecycle::time::UnixMs;
use serde_json::json;
use std::sync::Arc;

const DAY: UnixMs = UnixMs(1_795_219_200_000);

/// A world in which two records lie aside: one whose names are taken, and one that has no image.
async fn aside() -> (World, StreamRecord, ObjectKey) {
    let world = World::new(Source::Versioned, rules());
    let stream = MemoryStream::new();
    stream.begin("0", None);
    stream.delete("0", "a", DAY, Cause::Ttl);
    stream.tell("0", DAY, Change::Unreadable { why: "no image".to_owned(), record: json!({ "x": 1 }) });
    let mut reader = stream.open(&ShardId("0".to_owned()), Position::Oldest).await.unwrap();
    let Read::Records(records) = reader.next().await.unwrap() else { panic!("there are two") };
    let Change::Deleted(deleted) = &records[0].change else { panic!("it was deleted") };
    let own = deleted.deletion.own_name();
    for taken in [key("service/2026/11/21/a.json"), own.clone()] {
        world.memory.destination.store(&taken, "foreign".into(), Attributes::default(), &Onto::Anything);
    }
    let ended = archive_through(&world, Arc::clone(&world.faults) as _).archive(&records).await;
    assert!(ended.iter().all(Result::is_ok));
    world.logs.expect("a deleted record was laid aside");
    (world, records[0].clone(), own)
}

/// Archives all that lies aside.
async fn redrive(world: &World, record: &StreamRecord) -> Report {
    let archive = archive_through(world, Arc::clone(&world.faults) as _);
    let objects = Tap::new(Arc::clone(&world.faults) as _).purge("aside", world.memory.destination.clone());
    let purger = AsidePurger::new(objects);
    let read = |note: &Note| match note.record.get("x") {
        Some(_) => Ok(StreamRecord {
            change: Change::Unreadable { why: "no image".to_owned(), record: note.record.clone() },
            ..record.clone()
        }),
        None => Ok(record.clone()),
    };
    let reader = world.memory.destination.as_ref();
    let flow = RedriveRecords { archive: &archive, reader, outbox: None, aside: &purger, read: &read };
    let mut report = Report::of("redrive");
    for laid in laid_aside(reader, "Table", None).await.unwrap().items {
        flow.run(&laid, &mut report).await;
    }
    report
}

async fn lying(world: &World) -> usize {
    laid_aside(world.memory.destination.as_ref(), "Table", None).await.unwrap().items.len()
}

async fn free(world: &World, name: &ObjectKey) {
    let item = PurgeItem { key: name.clone(), version_id: None, if_match: None };
    assert!(world.memory.destination.purge(&[item]).await.iter().all(Result::is_ok));
}

#[tokio::test]
async fn what_still_cannot_be_archived_stays_and_what_can_be_lies_aside_no_more() {
    let (world, record, own) = aside().await;
    let report = redrive(&world, &record).await;
    assert_eq!((report.counted("redriven"), report.failures, lying(&world).await), (0, 2, 2));
    let whys: Vec<&str> = report.failed.iter().map(|item| item.why.as_str()).collect();
    assert!(whys[0].contains("still not") && whys[1].contains("still not: no image"), "{whys:?}");
    free(&world, &own).await;
    let report = redrive(&world, &record).await;
    assert_eq!((report.counted("redriven"), report.failures, lying(&world).await), (1, 1, 1));
    let Change::Deleted(deleted) = &record.change else { panic!("it was deleted") };
    let DeletedRecord { record: whole, .. } = deleted.as_ref();
    let stored = world.memory.destination.contents()[&own].bytes.clone();
    let stored: serde_json::Value = serde_json::from_slice(&stored).unwrap();
    assert_eq!(stored["dynamodb"], whole["dynamodb"]);
    assert_eq!(stored["afterimage"]["cause"], "ttl");
}

#[tokio::test]
async fn a_crash_before_the_note_goes_leaves_both_and_the_next_redrive_finds_the_record() {
    let (world, record, own) = aside().await;
    free(&world, &own).await;
    world.faults.at("aside.purge", 1, Fate::FailBefore(ErrorKind::Unavailable));
    let report = redrive(&world, &record).await;
    assert_eq!((report.counted("redriven"), lying(&world).await), (0, 2));
    let archived = world.memory.destination.contents()[&own].clone();
    let report = redrive(&world, &record).await;
    assert_eq!((report.counted("redriven"), lying(&world).await), (1, 1));
    assert_eq!(world.memory.destination.contents()[&own], archived, "it was found, and not written again");
}

#[tokio::test]
async fn only_what_lies_aside_can_be_removed_and_a_newer_note_is_refused() {
    let (world, _, own) = aside().await;
    let purger = AsidePurger::new(world.memory.destination.clone());
    assert!(matches!(purger.remove(&own).await.unwrap_err().kind, ErrorKind::Invalid(_)));
    assert!(world.memory.destination.contents().contains_key(&own));
    let newer = key(".afterimage/aside/Table/1-newer.json");
    let text = r#"{"format":2,"table":"Table","why":"","record":{}}"#;
    world.memory.destination.store(&newer, text.into(), Attributes::default(), &Onto::Anything);
    let refused = read_aside(world.memory.destination.as_ref(), &newer).await.unwrap_err();
    assert!(matches!(refused.kind, ErrorKind::NotSetUp(_)), "{refused}");
}
