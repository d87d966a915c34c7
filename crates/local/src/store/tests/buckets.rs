//! Buckets made and deleted: once each, also when clients do it at the same time as others write.

use super::super::index;
use super::clients::copy_spec;
use super::multipart::{complete, part};
use super::*;
use tokio::runtime::Handle;

#[tokio::test]
async fn buckets_are_made_once_and_deleted_only_when_empty() {
    let world = World::new().await;
    for bad in ["", "ab", "Upper", "-a-", "a..b", "../x", "a_b", &"x".repeat(64)] {
        assert!(BucketName::new(bad).is_err(), "{bad}");
    }
    let again = world.store.create_bucket(spec("source", Role::Source)).await;
    assert!(matches!(again.map(drop), Err(StoreError::BucketExists(_))));
    let first = put(&world.source, "a", "1").await;
    assert!(matches!(world.store.delete_bucket(&name("source")).await, Err(StoreError::BucketNotEmpty(_))));
    delete(&world.source, "a").await;
    world.store.delete_bucket(&name("source")).await.unwrap();
    assert!(matches!(world.store.bucket("source").map(drop), Err(StoreError::NoSuchBucket(_))));
    let reader = world.store.reader(&name("source")).unwrap();
    assert!(reader.head(&key("a"), Some(&first)).await.unwrap().is_some(), "its event is not done");
    let back = world.store.create_bucket(spec("source", Role::Source)).await.unwrap();
    put(&back, "a", "2").await;
    assert_eq!(world.store.buckets().len(), 2);
    let shared = BucketSpec { name: name("other"), role: Role::Source, root: Some(back.info().root.clone()) };
    assert!(world.store.create_bucket(shared).await.is_err(), "two buckets never share a folder");
}

/// A client that goes away when its request has begun.
async fn left<T>(request: impl Future<Output = T>) {
    tokio::select! {
        biased;
        _ = request => panic!("it was answered at once"),
        () = std::future::ready(()) => {}
    }
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_memory_and_index_of_one_mind() {
    let world = World::new().await;
    let exists = async || {
        matches!(
            world.store.create_bucket(spec("other", Role::Source)).await.map(drop),
            Err(StoreError::BucketExists(_))
        )
    };
    left(world.store.create_bucket(spec("other", Role::Source))).await;
    assert!(exists().await, "it was made to the end");
    left(world.store.delete_bucket(&name("other"))).await;
    let again = world.store.delete_bucket(&name("other")).await;
    assert!(matches!(again, Err(StoreError::NoSuchBucket(_))), "it was deleted to the end: {again:?}");
    left(world.store.create_bucket(spec("other", Role::Source))).await;
    assert!(exists().await, "it was brought back to the end");
    put(&world.store.bucket("other").unwrap(), "a", "1").await;
}

#[tokio::test]
async fn making_a_bucket_again_ends_a_deletion_that_only_the_index_knows_of() {
    let world = World::new().await;
    let id = world.source.held.id;
    let deleted = move |db: &rusqlite::Connection| index::set_deleted(db, id, true);
    world.store.db.write("test", "source", deleted).await.unwrap();
    let refused = try_put(&world.source, "a", "1", Onto::Anything).await;
    assert!(matches!(refused, Err(StoreError::NoSuchBucket(_))), "{refused:?}");
    let again = world.store.create_bucket(spec("source", Role::Source)).await;
    assert!(matches!(again.map(drop), Err(StoreError::BucketExists(_))));
    put(&world.source, "a", "1").await;
}

/// Deletes the bucket `name` as soon as a write of the source comes to that step.
fn delete_at(world: &World, step: Step, of: &str) {
    let (store, runtime, wanted) = (Arc::downgrade(&world.store), Handle::current(), name(of));
    let fault: Fault = Arc::new(move |at, _| {
        if at == step
            && let Some(store) = store.upgrade()
        {
            runtime.block_on(store.delete_bucket(&wanted)).expect("it is empty");
        }
        Ok(())
    });
    *world.store.fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(fault);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_into_a_bucket_that_is_deleted_meanwhile_is_refused_and_leaves_nothing() {
    let world = World::new().await;
    let other = world.store.create_bucket(spec("other", Role::Source)).await.unwrap();
    put(&world.source, "from", "1").await;
    delete_at(&world, Step::Published, "other");
    let outcome = try_put(&other, "a", "1", Onto::Anything).await;
    assert!(matches!(outcome, Err(StoreError::NoSuchBucket(name)) if name == "other"));
    world.store.create_bucket(spec("other", Role::Source)).await.unwrap();
    let outcome = other.copy_from(&world.source, &copy_spec("from", "to")).await;
    assert!(matches!(outcome, Err(StoreError::NoSuchBucket(name)) if name == "other"));
    let outcome = other.create_upload(&key("a"), Attributes::default()).await;
    assert!(matches!(outcome, Err(StoreError::NoSuchBucket(name)) if name == "other"));
    assert_eq!(world.waiting().await, 1, "what was refused tells nobody");
    let other = world.store.create_bucket(spec("other", Role::Source)).await.unwrap();
    assert_eq!((get(&other, "a").await, get(&other, "to").await), (None, None));
    assert!(world.files("other").is_empty(), "{:?}", world.files("other"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_is_aborted_while_it_is_joined_makes_no_object() {
    let world = World::new().await;
    let upload = world.source.create_upload(&key("a"), Attributes::default()).await.unwrap();
    let parts = [part(&world, &upload, 1, vec![1; 10]).await];
    let (source, runtime, name) = (world.source.clone(), Handle::current(), upload.clone());
    let fault: Fault = Arc::new(move |at, key| {
        if at == Step::Published {
            runtime.block_on(source.abort_upload(key, &name)).expect("it is there");
        }
        Ok(())
    });
    *world.store.fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(fault);
    assert!(matches!(complete(&world, &upload, &parts).await, Err(StoreError::NoSuchUpload(_))));
    assert_eq!((get(&world.source, "a").await, world.waiting().await), (None, 0));
    assert!(world.files("source").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_make_one_bucket_at_the_same_time_one_does() {
    let world = World::new().await;
    for round in 0..2 {
        let make = |_| {
            let store = Arc::clone(&world.store);
            tokio::spawn(async move { store.create_bucket(spec("shared", Role::Source)).await.map(drop) })
        };
        let outcomes = futures_util::future::join_all((0..8).map(make)).await;
        let (made, refused): (Vec<_>, Vec<_>) =
            outcomes.into_iter().map(Result::unwrap).partition(|outcome| outcome.is_ok());
        assert_eq!(made.len(), 1, "round {round}");
        for outcome in refused {
            assert!(matches!(outcome, Err(StoreError::BucketExists(_))), "{outcome:?}");
        }
        // The second round brings a deleted one back.
        world.store.delete_bucket(&name("shared")).await.unwrap();
    }
}
