//! Archive: every deleted record is one object, whole, at the name that follows from it, and nothing is overwritten.

use crate::world::{Source, World, key, rules};
use async_trait::async_trait;
use engine::error::{ErrorKind, PortResult};
use engine::flows::archive::Archive;
use engine::format::archived::{Archived, BadRecord, read};
use engine::memory::stream::MemoryStream;
use engine::ports::objects::{
    Attributes, ByteStream, Head, Listed, Object, ObjectRead, ObjectWrite, Onto, Page, Retrieval, Written,
};
use engine::ports::streams::{Change, Position, Read, RecordStream, ShardId, StreamRecord};
use engine::steps::aside::ASIDE_PREFIX;
use engine::wrap::tap::{Fate, Probe};
use lifecycle::archive::{Cause, hash_of};
use lifecycle::ids::{ObjectKey, VersionId};
use lifecycle::time::{SpanMs, UnixMs};
use serde_json::{Value, json};
use std::ops::Range;
use std::sync::Arc;

/// 2026-11-21T00:00:00Z.
const DAY: UnixMs = UnixMs(1_795_219_200_000);

/// The records that were told, as a reader of their one shard has them.
pub(crate) async fn told(tell: impl FnOnce(&MemoryStream)) -> Vec<StreamRecord> {
    let stream = MemoryStream::new();
    stream.begin("0", None);
    tell(&stream);
    stream.end("0");
    let mut reader = stream.open(&ShardId("0".to_owned()), Position::Oldest).await.unwrap();
    let mut records = Vec::new();
    while let Read::Records(more) = reader.next().await.unwrap() {
        records.extend(more);
    }
    records
}

fn archive(world: &World) -> Archive {
    archive_through(world, Arc::clone(&world.faults) as _)
}

/// The archive, in the hands of a process whose calls that probe decides on.
pub(crate) fn archive_through(world: &World, probe: Arc<dyn Probe>) -> Archive {
    Archive::new("Table", world.write_destination("archive", probe), world.memory.metrics.clone())
}

fn names(world: &World) -> Vec<String> {
    let names = world.memory.destination.contents().into_keys().map(|name| name.to_string());
    names.filter(|name| name != ".afterimage/conditions.json").collect()
}

fn body(world: &World, name: &str) -> Vec<u8> {
    world.memory.destination.contents()[&key(name)].bytes.to_vec()
}

fn new() -> World {
    World::new(Source::Versioned, rules())
}

fn all_done<T>(ended: &[PortResult<T>]) -> bool {
    ended.iter().all(Result::is_ok)
}

#[tokio::test]
async fn a_deleted_record_is_an_object_with_all_that_the_stream_told_and_says_so_to_who_only_looks() {
    let world = new();
    let records = told(|stream| {
        stream.delete("0", "USER#1", DAY.plus(SpanMs::hours(7)), Cause::Ttl);
        stream.tell("0", DAY, Change::Written);
    })
    .await;
    assert!(all_done(&archive(&world).archive(&records).await));
    assert_eq!(names(&world), ["service/2026/11/21/USER#1.json"]);
    let text = body(&world, "service/2026/11/21/USER#1.json");
    let Change::Deleted(deleted) = &records[0].change else { panic!("it was deleted") };
    let mut whole: Value = serde_json::from_slice(&text).unwrap();
    whole.as_object_mut().unwrap().remove("afterimage");
    assert_eq!(whole, deleted.record);
    let Archived { service, table, cause, deleted_at, key: names, image, .. } = read(&text).unwrap();
    assert_eq!((service.as_str(), table.as_str(), cause), ("service", "Table", Cause::Ttl));
    assert_eq!((deleted_at, names), (DAY.plus(SpanMs::hours(7)), vec!["id".to_owned()]));
    assert_eq!(Value::Object(image), json!({ "id": { "S": "USER#1" }, "n": { "N": "1" } }));
    let told = &world.memory.destination.contents()[&key("service/2026/11/21/USER#1.json")].head.metadata;
    let told: Vec<(&str, &str)> = told.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(
        told,
        [
            ("afterimage-cause", "ttl"),
            ("afterimage-deleted-at", "2026-11-21T07:00:00.000Z"),
            ("afterimage-deletion", deleted.deletion.identity().as_str()),
            ("afterimage-hash", hash_of(&text).as_str()),
            ("afterimage-record-key", "eyJpZCI6eyJTIjoiVVNFUiMxIn19"),
            ("afterimage-sequence", "000000000000000000001"),
            ("afterimage-service", "service"),
            ("afterimage-table", "Table"),
        ]
    );
}

#[tokio::test]
async fn a_second_deletion_of_a_key_overwrites_nothing_and_a_redelivery_makes_nothing() {
    let world = new();
    let records = told(|stream| {
        stream.delete("0", "a", DAY, Cause::User);
        stream.delete("0", "a", DAY, Cause::User);
        stream.delete("0", "a", DAY.plus(SpanMs::days(1)), Cause::User);
    })
    .await;
    let archive = archive(&world);
    assert!(all_done(&archive.archive(&records).await));
    let first = world.memory.destination.contents();
    let Change::Deleted(second) = &records[1].change else { panic!("it was deleted") };
    let own = second.deletion.own_name().to_string();
    assert_eq!(names(&world), ["service/2026/11/21/a.json", own.as_str(), "service/2026/11/22/a.json"]);
    let number = |name: &str| read(&body(&world, name)).unwrap().image["n"]["N"].clone();
    assert_eq!([number("service/2026/11/21/a.json"), number(&own)], ["1", "2"]);
    // Whole, and again from the middle on, in another order.
    assert!(all_done(&archive.archive(&records).await));
    assert!(all_done(&archive.archive(&[records[2].clone(), records[1].clone()]).await));
    assert_eq!(world.memory.destination.contents(), first);
    let counts = world.memory.metrics.snapshot();
    assert_eq!((counts["archived"], counts["archived_before"]), (3, 5));
}

#[tokio::test]
async fn what_somebody_else_put_there_is_left_alone_and_what_cannot_be_archived_is_laid_aside_once() {
    let world = new();
    let records = told(|stream| {
        stream.delete("0", "a", DAY, Cause::User);
        stream.delete("0", "b", DAY, Cause::User);
        stream.tell("0", DAY, Change::Unreadable { why: "no image".to_owned(), record: json!({ "x": 1 }) });
    })
    .await;
    let own_name = |place: usize| match &records[place].change {
        Change::Deleted(deleted) => deleted.deletion.own_name(),
        other => panic!("not deleted: {other:?}"),
    };
    for taken in [key("service/2026/11/21/a.json"), key("service/2026/11/21/b.json"), own_name(1)] {
        world.memory.destination.store(&taken, "foreign".into(), Attributes::default(), &Onto::Anything);
    }
    for _ in 0..2 {
        assert!(all_done(&archive(&world).archive(&records).await));
        assert_eq!(body(&world, "service/2026/11/21/a.json"), b"foreign");
        assert_eq!(read(&body(&world, own_name(0).as_str())).unwrap().image["n"]["N"], "1");
        assert_eq!(body(&world, own_name(1).as_str()), b"foreign");
        let aside: Vec<String> = names(&world).into_iter().filter(|name| name.starts_with(ASIDE_PREFIX)).collect();
        let aside: Vec<Value> = aside.iter().map(|name| serde_json::from_slice(&body(&world, name)).unwrap()).collect();
        let Change::Deleted(second) = &records[1].change else { panic!("it was deleted") };
        let whole: Vec<&Value> = aside.iter().map(|aside| &aside["record"]).collect();
        assert_eq!(whole, [&second.record, &json!({ "x": 1 })]);
        assert!(aside[0]["why"].as_str().unwrap().contains("only it can have"), "{}", aside[0]);
        assert_eq!(aside[1]["why"], "no image");
    }
    assert_eq!(world.memory.metrics.snapshot()["laid_aside"], 2);
    world.logs.expect("a deleted record was laid aside");
}

#[tokio::test]
async fn one_that_fails_holds_up_no_other_and_a_lost_answer_makes_no_second_object() {
    let world = new();
    let records = told(|stream| {
        for name in ["a", "b", "c"] {
            stream.delete("0", name, DAY, Cause::User);
        }
    })
    .await;
    let archive = archive(&world);
    assert!(all_done(&archive.archive(&[]).await));
    world.faults.at("archive.put", 1, Fate::FailBefore(ErrorKind::Unavailable));
    world.faults.at("archive.put", 2, Fate::FailAfter(ErrorKind::Unavailable));
    let ended = archive.archive(&records).await;
    assert_eq!(ended.iter().map(Result::is_ok).collect::<Vec<_>>(), [false, false, true]);
    assert_eq!(names(&world), ["service/2026/11/21/b.json", "service/2026/11/21/c.json"]);
    assert!(all_done(&archive.archive(&records).await));
    assert_eq!(names(&world).len(), 3);
    let counts = world.memory.metrics.snapshot();
    assert_eq!((counts["archived"], counts["archived_before"]), (2, 2));
}

#[tokio::test]
async fn a_damaged_a_foreign_and_a_newer_object_are_told_apart() {
    let world = new();
    let records = told(|stream| drop(stream.delete("0", "a", DAY, Cause::User))).await;
    assert!(all_done(&archive(&world).archive(&records).await));
    let whole = body(&world, "service/2026/11/21/a.json");
    assert!(matches!(read(&whole[..whole.len() / 2]), Err(BadRecord::NotJson(_))));
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut value: Value = serde_json::from_slice(&whole).unwrap();
        change(&mut value);
        read(value.to_string().as_bytes()).unwrap_err().to_string()
    };
    for (part, why) in [
        (changed(&|value| value["afterimage"] = Value::Null), "`afterimage` is missing"),
        (changed(&|value| value["afterimage"]["cause"] = json!("x")), "`afterimage.cause`"),
        (changed(&|value| value["dynamodb"]["OldImage"] = json!([])), "`dynamodb.OldImage`"),
        (changed(&|value| value["dynamodb"]["OldImage"] = json!({})), "`dynamodb.OldImage.id`"),
        (changed(&|value| value["afterimage"]["format"] = json!(2)), "a newer version wrote it"),
    ] {
        assert!(part.contains(why), "{part}");
    }
}

/// The first deletion keeps the plain name, also when it has to be tried again.
#[tokio::test]
async fn a_deletion_that_fails_does_not_lose_its_place_to_the_next_of_its_name() {
    let world = new();
    let records = told(|stream| {
        for name in ["a", "a", "b"] {
            stream.delete("0", name, DAY, Cause::User);
        }
    })
    .await;
    world.faults.at("archive.put", 1, Fate::FailBefore(ErrorKind::Unavailable));
    let archive = archive(&world);
    let ended = archive.archive(&records).await;
    assert_eq!(ended.iter().map(Result::is_ok).collect::<Vec<_>>(), [false, false, true]);
    assert!(all_done(&archive.archive(&records).await));
    assert_eq!(read(&body(&world, "service/2026/11/21/a.json")).unwrap().image["n"]["N"], "1");
}

/// It writes whatever the condition says, as some stores do.
struct Heedless(Arc<dyn ObjectWrite>);

#[async_trait]
impl ObjectRead for Heedless {
    async fn head(&self, key: &ObjectKey, version: Option<&VersionId>) -> PortResult<Option<Head>> {
        self.0.head(key, version).await
    }

    async fn get(
        &self,
        key: &ObjectKey,
        version: Option<&VersionId>,
        range: Option<Range<u64>>,
    ) -> PortResult<Option<Object>> {
        self.0.get(key, version, range).await
    }

    async fn retrieve(&self, key: &ObjectKey, terms: &Retrieval) -> PortResult<()> {
        self.0.retrieve(key, terms).await
    }

    async fn list(&self, prefix: &str, after: Option<&ObjectKey>, limit: usize) -> PortResult<Page<Listed>> {
        self.0.list(prefix, after, limit).await
    }
}

#[async_trait]
impl ObjectWrite for Heedless {
    async fn put(&self, key: &ObjectKey, body: ByteStream, attributes: &Attributes, _: Onto) -> PortResult<Written> {
        self.0.put(key, body, attributes, Onto::Anything).await
    }

    async fn heeds_conditions(&self, _: &ObjectKey) -> PortResult<bool> {
        Ok(false)
    }
}

#[tokio::test]
async fn a_store_that_heeds_no_conditions_is_refused_before_anything_is_overwritten() {
    let world = new();
    let records = told(|stream| drop(stream.delete("0", "a", DAY, Cause::User))).await;
    let heedless = Heedless(world.write_destination("archive", Arc::clone(&world.faults) as _));
    let archive = Archive::new("Table", Arc::new(heedless), world.memory.metrics.clone());
    for _ in 0..2 {
        let refused = archive.archive(&records).await.remove(0).unwrap_err();
        assert!(matches!(&refused.kind, ErrorKind::NotSetUp(why) if why.contains("If-None-Match")), "{refused}");
    }
    assert_eq!(names(&world), Vec::<String>::new());
}
