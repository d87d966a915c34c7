//! Killed at every step, then opened again: what was acknowledged is there, what was not is whole or not there.

use super::clients::copy;
use super::*;
use engine::ports::objects::{PurgeItem, Written};

#[tokio::test]
async fn a_put_killed_at_any_step_is_there_with_its_event_or_not_at_all() {
    for (step, there) in
        [(Step::Written, false), (Step::Synced, false), (Step::Published, false), (Step::Committed, true)]
    {
        let world = World::new().await;
        put(&world.source, "a", "old").await;
        world.fail_at(step, ErrorKind::Cancelled);
        assert!(try_put(&world.source, "a", "new", Onto::Anything).await.is_err());
        let world = world.crashed().await;
        let wanted = if there { "new" } else { "old" };
        assert_eq!(get(&world.source, "a").await.unwrap(), wanted, "{step:?}");
        assert_eq!(world.events().await.len(), 1 + usize::from(there));
        let report = world.store.reindex(&name("source")).await.unwrap();
        assert_eq!((report.aside, report.garbage), (u64::from(step == Step::Published), 0));
        assert_eq!(get(&world.source, "a").await.unwrap(), wanted, "{step:?}");
        assert_eq!(world.files("source").len(), 1 + usize::from(there));
        assert_eq!(world.temporary_files("source"), 0);
    }
}

#[tokio::test]
async fn a_copy_killed_at_any_step_is_whole_or_not_there_and_is_found_by_its_path() {
    for (step, there) in
        [(Step::Written, false), (Step::Synced, false), (Step::Published, true), (Step::Committed, true)]
    {
        let world = World::new().await;
        put(&world.source, "a", "1").await;
        world.fail_at(step, ErrorKind::Cancelled);
        // A new copy is done when its file is durable; its row follows.
        assert_eq!(copy(&world, "a", "a.copy").await.is_ok(), step == Step::Committed);
        world.copies.held.all_indexed().await;
        let world = world.crashed().await;
        assert_eq!(get(&world.copies, "a.copy").await.is_some(), there, "{step:?}");
        let report = world.store.reindex(&name("copies")).await.unwrap();
        assert_eq!(report.added, u64::from(step == Step::Published));
        let listed = world.store.reader(&name("copies")).unwrap().list("", None, 10).await.unwrap();
        assert_eq!(listed.items.len(), usize::from(there));
        copy(&world, "a", "a.copy").await.unwrap();
        assert_eq!(get(&world.copies, "a.copy").await.unwrap(), "1");
        assert_eq!(world.files("copies"), ["a.copy"]);
    }
}

/// An archive puts a record again after a kill, under the condition that nothing is there: told that it is, it goes on, and
/// nothing else would ever bring it into a listing.
#[tokio::test]
async fn what_a_crash_left_without_a_row_is_listed_once_a_put_is_refused_for_it() {
    let world = World::new().await;
    world.fail_at(Step::Published, ErrorKind::Cancelled);
    let put = async |world: &World, bytes: &'static str| {
        let writer = world.store.writer(&name("copies")).unwrap();
        writer.put(&key("a"), body(bytes.into()), &Attributes::default(), Onto::Nothing).await
    };
    assert!(put(&world, "1").await.is_err());
    let world = world.crashed().await;
    let listed = async || {
        let listed = world.store.reader(&name("copies")).unwrap().list("", None, 10).await.unwrap();
        listed.items.into_iter().map(|listed| (listed.key.to_string(), listed.version.size)).collect::<Vec<_>>()
    };
    assert_eq!(listed().await, []);
    for _ in 0..2 {
        assert!(matches!(put(&world, "22").await, Ok(Written::DestinationChanged)));
        assert_eq!(listed().await, [("a".to_owned(), 1)]);
        assert_eq!(get(&world.copies, "a").await.unwrap(), "1");
    }
}

#[tokio::test]
async fn what_was_handed_out_and_not_done_comes_again_after_a_crash() {
    let world = World::new().await;
    put(&world.source, "a", "1").await;
    put(&world.source, "b", "1").await;
    let out = world.events().await;
    world.store.spool().done(&[out[0].receipt.clone()]).await.unwrap();
    let world = world.crashed().await;
    let again = world.events().await;
    assert_eq!(again.iter().map(|delivery| delivery.event.key.as_str()).collect::<Vec<_>>(), ["b"]);
}

#[tokio::test]
async fn superseded_versions_that_a_crash_left_go_at_the_next_start() {
    let world = World::new().await;
    put(&world.source, "a", "1").await;
    put(&world.source, "a", "2").await;
    let receipts: Vec<_> = world.events().await.into_iter().map(|delivery| delivery.receipt).collect();
    // The transaction of `done`, and then a kill before the bytes go.
    let ids: Vec<i64> = receipts.iter().map(|receipt| receipt.0.parse().unwrap()).collect();
    let forget = move |db: &rusqlite::Connection| -> Result<(), crate::sqlite::error_map::Fault> {
        for id in &ids {
            db.execute("DELETE FROM spool WHERE id = ?1", [id])?;
        }
        Ok(())
    };
    world.store.db.write("test", "spool", forget).await.unwrap();
    assert_eq!(world.files("source").len(), 2);
    let world = world.crashed().await;
    world.store.reclaimed().await;
    assert_eq!(world.files("source").len(), 1);
    assert_eq!(get(&world.source, "a").await.unwrap(), "2");
}

#[tokio::test]
async fn a_lost_index_is_made_again_from_the_files() {
    let world = World::new().await;
    put(&world.source, "a", "1").await;
    let last = put(&world.source, "a", "2").await;
    put(&world.source, "dir/b", "3").await;
    let meta = Attributes {
        content_type: Some("text/plain".to_owned()),
        metadata: [("m".to_owned(), "x".repeat(3_600))].into(),
        ..Attributes::default()
    };
    let request = PutRequest { key: key("big-meta"), attributes: meta.clone(), onto: Onto::Anything, check: None };
    world.source.put(request, body(Bytes::from("4"))).await.unwrap();
    copy(&world, "big-meta", "big-meta.copy").await.unwrap();
    let before = world.copies.head(&key("big-meta.copy"), None).await.unwrap().unwrap();
    world.store.close().await;

    let World { folder, clock, store, source, copies } = world;
    drop((store, source, copies));
    for file in ["state.sqlite", "state.sqlite-wal", "state.sqlite-shm"] {
        let path = folder.path().join(file);
        if path.exists() {
            std::fs::remove_file(path).unwrap();
        }
    }
    std::fs::write(folder.path().join("buckets/copies/by hand.txt"), "put here by hand").unwrap();
    let store = open(folder.path(), &clock).await;
    store.create_bucket(spec("source", Role::Source)).await.unwrap();
    store.create_bucket(spec("copies", Role::Destination)).await.unwrap();
    drop(store);
    let world = World::at(folder, clock).await;
    assert_eq!(get(&world.source, "a").await.unwrap(), "2");
    assert_eq!(get(&world.source, "dir/b").await.unwrap(), "3");
    assert_eq!(world.files("source").len(), 3, "older versions are garbage");
    assert_eq!(world.source.head(&key("big-meta"), None).await.unwrap().unwrap().attributes, meta);
    let after = world.copies.head(&key("big-meta.copy"), None).await.unwrap().unwrap();
    assert_eq!((after.attributes, after.version, after.checksum), (before.attributes, before.version, before.checksum));
    assert_eq!(get(&world.copies, "by hand.txt").await.unwrap(), "put here by hand");
    assert!(put(&world.source, "a", "5").await > last);
}

#[tokio::test]
async fn a_missing_disk_is_an_error_and_never_an_empty_bucket() {
    let world = World::new().await;
    put(&world.source, "a", "1").await;
    copy(&world, "a", "a.copy").await.unwrap();
    let root = world.copies.info().root.clone();
    std::fs::rename(&root, root.with_extension("unmounted")).unwrap();
    std::fs::create_dir(&root).unwrap();
    let missing = |error: StoreError| match error {
        StoreError::Port(PortError { kind: ErrorKind::Missing, .. }) => {}
        other => panic!("{other}"),
    };
    for world in [world.crashed().await] {
        missing(world.copies.head(&key("other"), None).await.unwrap_err());
        missing(world.copies.get(&key("a.copy"), None, ReadRange::Whole).await.map(drop).unwrap_err());
        missing(world.store.reindex(&name("copies")).await.unwrap_err());
        missing(copy(&world, "a", "b.copy").await.unwrap_err());
        assert_eq!(std::fs::read_dir(&root).unwrap().count(), 0, "nothing is written into the empty mount point");
        std::fs::remove_dir(&root).unwrap();
        std::fs::rename(root.with_extension("unmounted"), &root).unwrap();
        assert_eq!(get(&world.copies, "a.copy").await.unwrap(), "1", "it is back");
    }
}

#[tokio::test]
async fn purges_take_bytes_and_rows_and_can_be_repeated() {
    let world = World::new().await;
    put(&world.source, "a", "1").await;
    copy(&world, "a", "x/a.copy").await.unwrap();
    copy(&world, "a", "x/b.copy").await.unwrap();
    let purger = world.store.purger(&name("copies")).unwrap();
    let item = |text: &str, etag: Option<&str>| PurgeItem {
        key: key(text),
        version_id: None,
        if_match: etag.map(lifecycle::ids::ETag::from),
    };
    for _ in 0..2 {
        let results =
            purger.purge(&[item("x/a.copy", None), item("nothing", None), item("x/b.copy", Some("other"))]).await;
        let results: Vec<_> = results.into_iter().map(Result::unwrap).collect();
        use engine::ports::objects::Purged::{Changed, Done};
        assert_eq!(results, [Done, Done, Changed]);
    }
    assert_eq!(world.files("copies"), ["x/b.copy"]);
    assert_eq!(get(&world.copies, "x/a.copy").await, None);
    let root = world.copies.info().root.clone();
    std::fs::remove_file(root.join("x/b.copy")).unwrap();
    assert_eq!(world.store.reindex(&name("copies")).await.unwrap().forgotten, 1);
}

#[tokio::test]
async fn what_waits_for_its_time_still_does_after_a_restart() {
    let world = World::new().await;
    put(&world.source, "a", "1").await;
    put(&world.source, "b", "1").await;
    let out = world.events().await;
    let later = engine::ports::clock::Clock::now(&*world.clock).plus(lifecycle::time::SpanMs(1_000));
    world.store.spool().again(&out[0].receipt, later, "not yet").await.unwrap();
    let world = world.crashed().await;
    assert_eq!(world.events().await[0].event.key, key("b"), "the other one is not due");
    world.clock.advance(lifecycle::time::SpanMs(1_000));
    let again = world.events().await;
    assert_eq!((again[0].event.key.as_str(), again[0].attempts), ("a", 2));
}

#[tokio::test]
async fn files_that_an_older_index_does_not_know_are_set_aside_and_never_deleted() {
    let world = World::new().await;
    put(&world.source, "dir/a", "1").await;
    world.store.close().await;
    let saved = std::fs::read(world.folder.path().join("state.sqlite")).unwrap();
    let world = world.crashed().await;
    put(&world.source, "dir/b", "2").await;
    world.store.close().await;
    let World { folder, clock, store, source, copies } = world;
    drop((store, source, copies));
    std::fs::write(folder.path().join("state.sqlite"), saved).unwrap();
    let world = World::at(folder, clock).await;
    put(&world.source, "c", "3").await;
    let report = world.store.reindex(&name("source")).await.unwrap();
    assert_eq!((report.files, report.aside, report.garbage), (3, 1, 0));
    let aside: Vec<_> = std::fs::read_dir(world.source.info().root.join(".afterimage/aside/dir")).unwrap().collect();
    let path = aside[0].as_ref().unwrap().path();
    assert!(path.display().to_string().contains("/b@"));
    assert_eq!(std::fs::read_to_string(path).unwrap(), "2");
    assert_eq!(world.files("source").len(), 2);
}

#[tokio::test]
async fn the_making_of_a_bucket_over_its_files_goes_on_after_a_crash_and_takes_nothing_for_garbage() {
    let world = World::new().await;
    put(&world.source, "early", "1").await;
    put(&world.source, "late", "2").await;
    // As if the making over these files had been killed after the later one had become a row.
    let forget = |db: &rusqlite::Connection| -> Result<(), crate::sqlite::error_map::Fault> {
        db.execute("UPDATE buckets SET unread = 1 WHERE name = 'source'", [])?;
        db.execute("DELETE FROM objects WHERE key = 'early'", [])?;
        Ok(())
    };
    world.store.db.write("forget", "early", forget).await.unwrap();

    let world = world.crashed().await;
    let report = world.store.reindex(&name("source")).await.unwrap();
    assert_eq!((report.files, report.aside, report.garbage), (2, 0, 0));
    for (object, content) in [("early", "1"), ("late", "2")] {
        assert_eq!(get(&world.source, object).await.unwrap(), content);
    }
}
