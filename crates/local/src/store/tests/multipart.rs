//! Multipart uploads: parts in any order, joined in one step, or nothing.

use super::super::{CompleteExpectation, CompletePart, UploadId};
use super::*;

const MIB: usize = 1024 * 1024;

pub(super) async fn part(world: &World, upload: &UploadId, number: u32, bytes: Vec<u8>) -> CompletePart {
    let info = world.source.put_part(&key("a"), upload, number, None, body(bytes.into())).await.unwrap();
    CompletePart { number, etag: info.etag }
}

pub(super) async fn complete(world: &World, upload: &UploadId, parts: &[CompletePart]) -> StoreResult<()> {
    let expected = CompleteExpectation::default();
    world.source.complete_upload(&key("a"), upload, parts, Onto::Anything, expected).await.map(drop)
}

#[tokio::test]
async fn an_upload_is_joined_in_order_with_the_tag_and_checksum_of_the_whole() {
    let world = World::new().await;
    let attributes = Attributes { content_type: Some("x/y".to_owned()), ..Attributes::default() };
    let upload = world.source.create_upload(&key("a"), attributes.clone()).await.unwrap();
    let (one, two, three) = (vec![1; 5 * MIB], vec![2; 6 * MIB], vec![3; 10]);
    let second = part(&world, &upload, 2, two.clone()).await;
    part(&world, &upload, 1, vec![9; 5 * MIB]).await;
    let first = part(&world, &upload, 1, one.clone()).await;
    let third = part(&world, &upload, 7, three.clone()).await;
    let listed = world.source.parts(&key("a"), &upload, 1, 1).await.unwrap();
    assert_eq!((listed.parts[0].number, listed.truncated), (2, true));
    let uploads = world.source.uploads("", None, 10).await.unwrap();
    assert_eq!((uploads.uploads.len(), uploads.uploads[0].id.clone()), (1, upload.clone()));
    assert!(world.source.uploads("", Some(("a", None)), 10).await.unwrap().uploads.is_empty());
    assert_eq!((get(&world.source, "a").await, world.waiting().await), (None, 0));

    complete(&world, &upload, &[first.clone(), second.clone(), third.clone()]).await.unwrap();
    let found = world.source.get(&key("a"), None, ReadRange::Whole).await.unwrap().unwrap();
    assert!(found.info.version.etag.as_str().ends_with("-3"));
    assert_eq!((found.info.parts, &found.info.attributes), (Some(3), &attributes));
    // Reading checks the joined checksum.
    assert_eq!(collect(found.body).await.unwrap(), [one, two, three].concat());
    assert_eq!(world.waiting().await, 1);
    assert!(matches!(complete(&world, &upload, &[]).await, Err(StoreError::NoSuchUpload(_))));
    assert_eq!(world.files("source").len(), 1);
    assert_eq!(std::fs::read_dir(world.source.info().root.join(".afterimage/uploads")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_wrong_list_of_parts_is_refused_and_the_upload_stays() {
    let world = World::new().await;
    let upload = world.source.create_upload(&key("a"), Attributes::default()).await.unwrap();
    let small = part(&world, &upload, 1, vec![1; 10]).await;
    let last = part(&world, &upload, 2, vec![2; 10]).await;
    let wrong = CompletePart { etag: last.etag.clone(), ..small.clone() };
    let missing = CompletePart { number: 3, ..last.clone() };
    assert!(matches!(complete(&world, &upload, &[]).await, Err(StoreError::Invalid(_))));
    assert!(matches!(complete(&world, &upload, &[wrong]).await, Err(StoreError::InvalidPart(1))));
    assert!(matches!(complete(&world, &upload, &[small.clone(), missing]).await, Err(StoreError::InvalidPart(3))));
    let order = [last.clone(), small.clone()];
    assert!(matches!(complete(&world, &upload, &order).await, Err(StoreError::InvalidPartOrder)));
    let short = [small.clone(), last];
    assert!(matches!(complete(&world, &upload, &short).await, Err(StoreError::PartTooSmall(1))));
    let expected = CompleteExpectation { size: Some(11), ..CompleteExpectation::default() };
    let outcome =
        world.source.complete_upload(&key("a"), &upload, std::slice::from_ref(&small), Onto::Anything, expected).await;
    assert!(matches!(outcome, Err(StoreError::Mismatch(_))));
    assert_eq!(world.waiting().await, 0);
    complete(&world, &upload, &[small]).await.unwrap();
    assert_eq!(get(&world.source, "a").await.unwrap(), vec![1; 10]);
}

#[tokio::test]
async fn an_aborted_upload_leaves_nothing() {
    let world = World::new().await;
    let upload = world.source.create_upload(&key("a"), Attributes::default()).await.unwrap();
    part(&world, &upload, 1, vec![1; 10]).await;
    assert!(matches!(world.store.delete_bucket(&name("source")).await, Err(StoreError::BucketNotEmpty(_))));
    world.source.abort_upload(&key("a"), &upload).await.unwrap();
    assert!(matches!(world.source.abort_upload(&key("a"), &upload).await, Err(StoreError::NoSuchUpload(_))));
    let late = world.source.put_part(&key("a"), &upload, 1, None, body(Bytes::from("x"))).await;
    assert!(matches!(late, Err(StoreError::NoSuchUpload(_))));
    assert_eq!(std::fs::read_dir(world.source.info().root.join(".afterimage/uploads")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_completion_that_is_killed_can_be_done_again() {
    let world = World::new().await;
    let upload = world.source.create_upload(&key("a"), Attributes::default()).await.unwrap();
    let parts = [part(&world, &upload, 1, vec![1; 5 * MIB]).await, part(&world, &upload, 2, vec![2; 10]).await];
    let mut world = world;
    for step in [Step::Written, Step::Synced, Step::Published] {
        world.fail_at(step, ErrorKind::Cancelled);
        assert!(complete(&world, &upload, &parts).await.is_err());
        world = world.crashed().await;
        assert_eq!((get(&world.source, "a").await, world.waiting().await), (None, 0));
    }
    complete(&world, &upload, &parts).await.unwrap();
    assert_eq!(get(&world.source, "a").await.unwrap(), [vec![1; 5 * MIB], vec![2; 10]].concat());
    world.store.reindex(&name("source")).await.unwrap();
    assert_eq!(world.files("source").len(), 1);
    assert_eq!(get(&world.source, "a").await.unwrap().len(), 5 * MIB + 10);
}

#[tokio::test]
async fn an_upload_completed_again_gives_the_same_answer_for_a_day_and_makes_nothing_new() {
    let world = World::new().await;
    let upload = world.source.create_upload(&key("a"), Attributes::default()).await.unwrap();
    let parts = [part(&world, &upload, 1, vec![1; 10]).await];
    let ask = async |world: &World, parts: &[CompletePart]| {
        let expected = CompleteExpectation::default();
        world.source.complete_upload(&key("a"), &upload, parts, Onto::Nothing, expected).await
    };
    let (first, second) = tokio::join!(ask(&world, &parts), ask(&world, &parts));
    let first = first.unwrap();
    assert_eq!(second.unwrap(), first, "both asked at the same time");
    delete(&world.source, "a").await;
    let world = world.crashed().await;
    assert_eq!(ask(&world, &parts).await.unwrap(), first, "whatever came after it");
    assert_eq!((get(&world.source, "a").await, world.waiting().await), (None, 2));
    let other = CompletePart { number: 1, etag: "d41d8cd98f00b204e9800998ecf8427e".into() };
    assert!(matches!(ask(&world, &[other]).await, Err(StoreError::NoSuchUpload(_))));
    world.clock.advance(lifecycle::time::SpanMs(super::super::limits::COMPLETED_KEPT.0 + 1));
    assert!(matches!(ask(&world, &parts).await, Err(StoreError::NoSuchUpload(_))));
}
