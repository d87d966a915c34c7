//! What clients do: write, read, list, copy, delete, tag; and what they may not.

use super::super::{BodyCheck, BodyDigest, CopyAttributes, CopySpec, ListEntry, ListFrom, ListRequest, Mismatch};
use super::*;
use futures_util::{StreamExt, stream};
use lifecycle::event::Happened;
use lifecycle::order::Order;
use std::collections::BTreeMap;

#[tokio::test]
async fn a_put_is_read_back_with_its_attributes_and_tells_of_itself() {
    let world = World::new().await;
    let attributes = Attributes {
        content_type: Some("text/plain".to_owned()),
        metadata: BTreeMap::from([("who".to_owned(), "ä".to_owned())]),
        tags: BTreeMap::from([("t".to_owned(), "1".to_owned())]),
        ..Attributes::default()
    };
    let request = PutRequest { key: key("a/b"), attributes: attributes.clone(), onto: Onto::Anything, check: None };
    let info = world.source.put(request, body(Bytes::from("hello"))).await.unwrap();
    assert_eq!(info.version.etag.as_str(), "5d41402abc4b2a76b9719d911017c592");
    assert_eq!(info.attributes, attributes);

    let found = world.source.get(&key("a/b"), None, ReadRange::Whole).await.unwrap().unwrap();
    assert_eq!(found.info, info);
    assert_eq!(collect(found.body).await.unwrap(), "hello");
    let events = world.events().await;
    let [delivery] = events.as_slice() else { panic!("one event: {events:?}") };
    assert_eq!((delivery.bucket.as_str(), delivery.attempts), ("source", 1));
    assert_eq!(delivery.event.what, Happened::Created(info.version.clone()));
    assert_eq!(delivery.event.order, Order::from_sequencer(info.version.version_id.unwrap().as_str()));
    assert_eq!(delivery.event.time, info.last_modified);
}

#[tokio::test]
async fn ranges_are_those_of_http() {
    let world = World::new().await;
    put(&world.source, "a", "0123456789").await;
    for (range, wanted) in [
        (ReadRange::Between(2..4), "23"),
        (ReadRange::Between(8..99), "89"),
        (ReadRange::From(7), "789"),
        (ReadRange::Last(3), "789"),
        (ReadRange::Last(99), "0123456789"),
    ] {
        let found = world.source.get(&key("a"), None, range).await.unwrap().unwrap();
        assert_eq!(found.range.end - found.range.start, wanted.len() as u64);
        assert_eq!(collect(found.body).await.unwrap(), wanted);
    }
    for range in [ReadRange::From(10), ReadRange::Between(10..12), ReadRange::Last(0)] {
        let outcome = world.source.get(&key("a"), None, range).await;
        assert!(matches!(outcome, Err(StoreError::RangeNotSatisfiable { size: 10 })));
    }
}

#[tokio::test]
async fn an_empty_object_and_a_large_one_go_in_and_come_out() {
    let world = World::new().await;
    put(&world.source, "empty", "").await;
    assert_eq!(get(&world.source, "empty").await.unwrap(), "");
    let large: Vec<u8> = (0..9 * 1024 * 1024 + 7).map(|i: u32| ((i * 31) >> 7) as u8).collect();
    put(&world.source, "large", large.clone()).await;
    assert_eq!(get(&world.source, "large").await.unwrap(), large);
    copy(&world, "large", "large-copy").await.unwrap();
    assert_eq!(get(&world.copies, "large-copy").await.unwrap(), large);
    assert_eq!(world.temporary_files("source") + world.temporary_files("copies"), 0);
}

#[tokio::test]
async fn conditions_hold_or_refuse() {
    let world = World::new().await;
    let source = &world.source;
    try_put(source, "a", "1", Onto::Nothing).await.unwrap();
    assert!(matches!(try_put(source, "a", "2", Onto::Nothing).await, Err(StoreError::PreconditionFailed)));
    let etag = source.head(&key("a"), None).await.unwrap().unwrap().version.etag;
    try_put(source, "a", "3", Onto::This(etag.clone())).await.unwrap();
    assert!(matches!(try_put(source, "a", "4", Onto::This(etag.clone())).await, Err(StoreError::PreconditionFailed)));
    let stale = DeleteItem { key: key("a"), if_match: Some(etag) };
    assert!(matches!(source.delete(&stale).await, Err(StoreError::PreconditionFailed)));
    assert_eq!(get(source, "a").await.unwrap(), "3");
    assert_eq!(world.waiting().await, 2, "a refused write tells nobody");
}

#[tokio::test]
async fn a_body_that_breaks_off_or_is_wrong_leaves_nothing() {
    struct Refuse;
    impl BodyCheck for Refuse {
        fn update(&mut self, _piece: &[u8]) {}
        fn finish(self: Box<Self>, body: &BodyDigest) -> Result<BTreeMap<String, String>, Mismatch> {
            let what = "Content-MD5".to_owned();
            Err(Mismatch { what, expected: "x".to_owned(), actual: format!("{:?}", body.md5) })
        }
    }
    let world = World::new().await;
    put(&world.source, "a", "old").await;
    for large in [false, true] {
        let first = Bytes::from(vec![1; if large { 3_000_000 } else { 10 }]);
        let broken = PortError::new("read body", "a", ErrorKind::Unavailable);
        let pieces = stream::iter([Ok(first.clone()), Err(broken)]).boxed();
        let request =
            |check| PutRequest { key: key("a"), attributes: Attributes::default(), onto: Onto::Anything, check };
        assert!(matches!(world.source.put(request(None), pieces).await, Err(StoreError::Port(_))));
        let refused = world.source.put(request(Some(Box::new(Refuse))), body(first)).await;
        assert!(matches!(refused, Err(StoreError::Mismatch(_))));
    }
    assert_eq!(get(&world.source, "a").await.unwrap(), "old");
    assert_eq!((world.waiting().await, world.files("source").len()), (1, 1));
    assert_eq!(world.temporary_files("source"), 0);
}

#[tokio::test]
async fn disk_full_during_a_put_is_an_error_and_leaves_nothing() {
    let world = World::new().await;
    for step in [Step::Written, Step::Synced] {
        world.fail_at(step, ErrorKind::NoSpace);
        let outcome = try_put(&world.source, "a", "1", Onto::Anything).await;
        assert!(matches!(outcome, Err(StoreError::Port(PortError { kind: ErrorKind::NoSpace, .. }))));
    }
    assert_eq!(get(&world.source, "a").await, None);
    assert_eq!((world.waiting().await, world.files("source").len(), world.temporary_files("source")), (0, 0, 0));
}

#[tokio::test]
async fn clients_never_write_a_destination() {
    let world = World::new().await;
    let copies = &world.copies;
    let read_only = |outcome: StoreError| assert!(matches!(outcome, StoreError::ReadOnly(name) if name == "copies"));
    read_only(try_put(copies, "a", "1", Onto::Anything).await.unwrap_err());
    let item = DeleteItem { key: key("a"), if_match: None };
    read_only(copies.delete(&item).await.unwrap_err());
    read_only(copies.delete_many(&[item]).await.unwrap_err());
    read_only(copies.set_tags(&key("a"), BTreeMap::new()).await.unwrap_err());
    read_only(copies.create_upload(&key("a"), Attributes::default()).await.unwrap_err());
    read_only(copies.copy_from(&world.source, &copy_spec("a", "b")).await.unwrap_err());
    read_only(world.store.delete_bucket(&name("copies")).await.unwrap_err());
    assert!(world.store.purger(&name("source")).is_err(), "nothing purges a source");
}

pub(super) fn copy_spec(from: &str, to: &str) -> CopySpec {
    CopySpec {
        from: key(from),
        version: None,
        if_match: None,
        to: key(to),
        onto: Onto::Anything,
        attributes: CopyAttributes::Keep { add_metadata: BTreeMap::new() },
    }
}

pub(super) async fn copy(world: &World, from: &str, to: &str) -> StoreResult<()> {
    use super::super::copy::CopyEnd;
    match world.copies.copy(&world.source, copy_spec(from, to)).await? {
        CopyEnd::Done(_) => Ok(()),
        _ => panic!("not copied"),
    }
}

#[tokio::test]
async fn a_clients_copy_is_a_write_with_an_event() {
    let world = World::new().await;
    put(&world.source, "a", "1").await;
    let info = world.source.copy_from(&world.source, &copy_spec("a", "b")).await.unwrap();
    assert_eq!(info.key, key("b"));
    assert_eq!(get(&world.source, "b").await.unwrap(), "1");
    assert_eq!(world.waiting().await, 2);
    let gone = world.source.copy_from(&world.source, &copy_spec("nothing", "b")).await;
    assert!(matches!(gone, Err(StoreError::NoSuchKey(_))));
}

#[tokio::test]
async fn deletes_tell_once_and_in_order() {
    let world = World::new().await;
    let version = put(&world.source, "a", "1").await;
    put(&world.source, "b", "1").await;
    assert_eq!(delete(&world.source, "a").await, Deleted::Done);
    assert_eq!(delete(&world.source, "a").await, Deleted::WasAbsent);
    let items = ["b", "c"].map(|text| DeleteItem { key: key(text), if_match: None });
    let outcomes: Vec<_> = world.source.delete_many(&items).await.unwrap().into_iter().map(Result::unwrap).collect();
    assert_eq!(outcomes, [Deleted::Done, Deleted::WasAbsent]);
    let events = world.events().await;
    assert_eq!(events.len(), 4);
    assert_eq!((&events[2].event.key, &events[2].event.what), (&key("a"), &Happened::Removed));
    assert!(events[2].event.order > Order::from_sequencer(version.as_str()));
}

#[tokio::test]
async fn an_overwritten_version_stays_readable_until_its_event_is_done() {
    let world = World::new().await;
    let first = put(&world.source, "a", "1").await;
    let second = put(&world.source, "a", "2").await;
    delete(&world.source, "a").await;
    assert_eq!(get(&world.source, "a").await, None);
    let events = world.events().await;
    for (version, text) in [(&first, "1"), (&second, "2")] {
        assert_eq!(get_version(&world.source, "a", version).await.unwrap(), text);
    }
    world.store.spool().done(&[events[0].receipt.clone()]).await.unwrap();
    world.store.reclaimed().await;
    assert_eq!(get_version(&world.source, "a", &first).await, None);
    assert_eq!(get_version(&world.source, "a", &second).await.unwrap(), "2");
    assert_eq!(world.files("source").len(), 1);
    world.store.spool().give_up(&events[1].receipt, "no").await.unwrap();
    world.store.reclaimed().await;
    assert_eq!(get_version(&world.source, "a", &second).await.unwrap(), "2", "a dead letter still waits for it");
    let letters = engine::ports::events::DeadLetters::list(world.store.spool().as_ref(), None, 9).await.unwrap();
    engine::ports::events::DeadLetters::drop_letters(world.store.spool().as_ref(), &[letters[0].id]).await.unwrap();
    world.store.reclaimed().await;
    assert_eq!(get_version(&world.source, "a", &second).await, None);
    assert_eq!(world.files("source").len(), 0);
}

#[tokio::test]
async fn a_version_whose_event_was_done_goes_when_it_is_overwritten() {
    let world = World::new().await;
    let first = put(&world.source, "a", "1").await;
    world.handle_all().await;
    assert_eq!(get_version(&world.source, "a", &first).await.unwrap(), "1");
    put(&world.source, "a", "2").await;
    world.store.reclaimed().await;
    assert_eq!(get_version(&world.source, "a", &first).await, None);
    assert_eq!(world.files("source").len(), 1);
}

#[tokio::test]
async fn sequencers_grow_when_the_clock_stands_still_steps_back_and_after_a_restart() {
    let world = World::new().await;
    let mut last = put(&world.source, "a", "1").await;
    for step in 0..4 {
        match step {
            1 => world.clock.set(UnixMs(5)),
            2 => world.clock.set(UnixMs(1_795_000_000_001)),
            _ => {}
        }
        let next = put(&world.source, "a", "1").await;
        assert!(next > last, "{next} after {last}");
        last = next;
    }
    delete(&world.source, "a").await;
    world.handle_all().await;
    world.clock.set(UnixMs(5));
    let world = world.crashed().await;
    assert!(put(&world.source, "a", "1").await > last);
}

#[tokio::test]
async fn listings_pass_over_common_prefixes_and_come_in_pages_in_key_order() {
    let world = World::new().await;
    let keys = ["a", "a/1", "a/2", "a/2/3", "b+c", "b/1", "b0", "c/", "c/x/y", "é", "\u{10FFFF}/1", "\u{10FFFF}/2"];
    for text in keys {
        put(&world.source, text, "x").await;
    }
    let cases: [(&str, &str, &[&str]); 5] = [
        ("", "/", &["a", "a/", "b+c", "b/", "b0", "c/", "é", "\u{10FFFF}/"]),
        ("a/", "/", &["a/1", "a/2", "a/2/"]),
        ("a", "", &["a", "a/1", "a/2", "a/2/3"]),
        ("c/", "/", &["c/", "c/x/"]),
        ("nothing", "/", &[]),
    ];
    for (prefix, delimiter, wanted) in cases {
        for limit in 1..=keys.len() {
            let delimiter = Some(delimiter.to_owned()).filter(|delimiter| !delimiter.is_empty());
            let mut request = ListRequest { prefix: prefix.to_owned(), delimiter, from: ListFrom::Start, limit };
            let mut names: Vec<String> = Vec::new();
            loop {
                let page = world.source.list(&request).await.unwrap();
                assert!(page.entries.len() <= limit);
                names.extend(page.entries.iter().map(|entry| entry.name().to_owned()));
                match page.entries.last() {
                    Some(last) if page.truncated => request.from = ListFrom::After(last.name().to_owned()),
                    _ => break,
                }
            }
            assert_eq!(names, wanted, "prefix {prefix}, pages of {limit}");
        }
    }
    let all = ListRequest { limit: 1_000, ..ListRequest::default() };
    let page = world.source.list(&all).await.unwrap();
    assert!(page.entries.iter().all(|entry| matches!(entry, ListEntry::Object(_))) && !page.truncated);
    assert_eq!(page.entries.len(), keys.len());
}

#[tokio::test]
async fn tags_are_replaced_without_an_event() {
    let world = World::new().await;
    put(&world.source, "a", "1").await;
    let tags = BTreeMap::from([("x".to_owned(), "y".to_owned())]);
    world.source.set_tags(&key("a"), tags.clone()).await.unwrap();
    assert_eq!(world.source.head(&key("a"), None).await.unwrap().unwrap().attributes.tags, tags);
    assert_eq!(world.waiting().await, 1);
    let missing = world.source.set_tags(&key("b"), tags).await;
    assert!(matches!(missing, Err(StoreError::NoSuchKey(_))));
}

#[tokio::test]
async fn a_damaged_object_is_refused_when_it_is_read_or_copied() {
    let world = World::new().await;
    put(&world.source, "a", "hello").await;
    let path = world.source.info().root.join(&world.files("source")[0]);
    for bytes in ["hellO", "hell"] {
        std::fs::write(&path, bytes).unwrap();
        let error = world.source.get(&key("a"), None, ReadRange::Whole).await.map(drop).unwrap_err();
        assert!(matches!(error, StoreError::Port(PortError { kind: ErrorKind::Damaged(_), .. })), "{error}");
        assert!(copy(&world, "a", "b").await.is_err());
    }
    std::fs::remove_file(&path).unwrap();
    let error = world.source.get(&key("a"), None, ReadRange::Whole).await.map(drop).unwrap_err();
    assert!(matches!(error, StoreError::Port(PortError { kind: ErrorKind::Damaged(_), .. })), "{error}");
    assert_eq!(world.files("copies").len(), 0);
}

#[tokio::test]
#[ignore = "needs the right to mount: `cargo xtask ci full-disk` as root"]
async fn a_full_disk_leaves_nothing_half_written() {
    use std::process::Command;
    let world = World::new().await;
    let disk = world.folder.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"]).arg(&disk).status();
    assert!(mounted.unwrap().success());
    let on_disk = BucketSpec { name: name("small"), role: Role::Source, root: Some(disk.join("bucket")) };
    let small = world.store.create_bucket(on_disk).await.unwrap();
    let error = try_put(&small, "large", vec![1; 3_000_000], Onto::Anything).await.unwrap_err();
    assert!(matches!(error, StoreError::Port(PortError { kind: ErrorKind::NoSpace, .. })), "{error}");
    let mut fitted = 0;
    while try_put(&small, &format!("k{fitted}"), vec![1; 30_000], Onto::Anything).await.is_ok() {
        fitted += 1;
        assert!(fitted < 100, "the disk never became full");
    }
    assert!(fitted > 1);
    assert_eq!((world.files("small").len(), world.temporary_files("small")), (fitted, 0));
    assert_eq!(world.waiting().await, fitted as u64);
    delete(&small, "k0").await;
    world.handle_all().await;
    put(&small, "k0", vec![2; 30_000]).await;
    drop(small);
    world.store.close().await;
    assert!(Command::new("umount").arg("-l").arg(&disk).status().unwrap().success());
}
