//! Buckets that keep versions, against an emulator of AWS: the contract of the object ports says nothing of them.
//!
//! The emulator (see `crates/aws/tests/emulator/mod.rs`) is right about versions, delete markers and conditional copies.

#![expect(clippy::unwrap_used, reason = "a panic is a test's message")]

mod emulator;

use aws::S3Bucket;
use aws_sdk_s3::types::{BucketVersioningStatus, VersioningConfiguration};
use emulator::Emulator;
use engine::memory::bucket::{body, collect};
use engine::ports::objects::{Attributes, Copied, CopyRequest, Head, Onto, PurgeItem, Purged, Written};
use lifecycle::ids::ObjectKey;
use std::collections::BTreeMap;

fn key(text: &str) -> ObjectKey {
    ObjectKey::new(text).unwrap()
}

/// A bucket that keeps versions.
async fn versioned(emulator: &Emulator, name: &str) -> S3Bucket {
    let client = emulator.service().s3(&emulator.config());
    client.create_bucket().bucket(name).send().await.unwrap();
    let on = VersioningConfiguration::builder().status(BucketVersioningStatus::Enabled).build();
    client.put_bucket_versioning().bucket(name).versioning_configuration(on).send().await.unwrap();
    let bucket = S3Bucket::open(&emulator.service(), &emulator.config(), name).await.unwrap();
    assert!(bucket.is_versioned().await.unwrap());
    bucket
}

async fn put(bucket: &S3Bucket, name: &str, text: &'static str) -> Head {
    let put = bucket.writer().put(&key(name), body(text.into()), &Attributes::default(), Onto::Anything).await;
    let Written::Done(head) = put.unwrap() else { panic!("unconditional") };
    assert!(head.version.version_id.is_some());
    head
}

fn to_copy(of: &Head, to: &str) -> CopyRequest {
    let (from, version) = (key("a"), of.version.clone());
    CopyRequest { from, version, to: key(to), onto: Onto::Anything, add_metadata: BTreeMap::new(), seen: None }
}

#[tokio::test]
#[ignore = "needs the emulator: `cargo xtask ci aws`"]
async fn exactly_the_version_of_the_event_is_copied_even_when_it_was_overwritten_or_hidden() {
    let emulator = Emulator::start();
    let (source, destination) = (versioned(&emulator, "source").await, versioned(&emulator, "copies").await);
    let (first, second) = (put(&source, "a", "first").await, put(&source, "a", "second").await);
    let client = emulator.service().s3(&emulator.config());
    let marker = client.delete_object().bucket("source").key("a").send().await.unwrap();
    assert_eq!(source.reader().head(&key("a"), None).await.unwrap(), None, "a delete marker hides it");
    let marker = marker.version_id().map(Into::into);
    assert_eq!(source.reader().head(&key("a"), marker.as_ref()).await.unwrap(), None, "and is no version itself");

    let copier = destination.copier(&source).expect("one service");
    for (head, to, text) in [(&first, "a.1", "first"), (&second, "a.2", "second")] {
        assert!(matches!(copier.copy(&to_copy(head, to)).await.unwrap(), Copied::Done(_)), "{to}");
        let object = destination.reader().get(&key(to), None, None).await.unwrap().unwrap();
        assert_eq!(collect(object.body).await.unwrap(), text);
    }
    let id = first.version.version_id.as_ref().map(ToString::to_string);
    client.delete_object().bucket("source").key("a").set_version_id(id).send().await.unwrap();
    assert_eq!(copier.copy(&to_copy(&first, "a.3")).await.unwrap(), Copied::SourceGone);
}

#[tokio::test]
#[ignore = "needs the emulator: `cargo xtask ci aws`"]
async fn a_purge_frees_every_version_of_a_copy_and_only_hides_a_mirrored_object() {
    let emulator = Emulator::start();
    let bucket = versioned(&emulator, "copies").await;
    for text in ["1", "2", "3"] {
        put(&bucket, "a.copy", text).await;
    }
    put(&bucket, "a.copy2", "a longer name").await;
    let mirrored = put(&bucket, "mirrored", "m").await;
    let client = emulator.service().s3(&emulator.config());
    client.delete_object().bucket("copies").key("a.copy").send().await.unwrap();

    let item = |name: &str, if_match| PurgeItem { key: key(name), version_id: None, if_match };
    let items = [item("a.copy", None), item("mirrored", Some(mirrored.version.etag.clone())), item("gone", None)];
    for _ in 0..2 {
        let outcomes: Vec<Purged> =
            bucket.purger().purge(&items).await.into_iter().map(|outcome| outcome.unwrap()).collect();
        assert_eq!(outcomes, [Purged::Done; 3]);
    }
    let left = client.list_object_versions().bucket("copies").send().await.unwrap();
    let versions: Vec<&str> = left.versions().iter().filter_map(|version| version.key()).collect();
    assert_eq!(versions, ["a.copy2", "mirrored"]);
    let markers: Vec<&str> = left.delete_markers().iter().filter_map(|marker| marker.key()).collect();
    assert_eq!(markers, ["mirrored"]);
    assert_eq!(bucket.reader().head(&key("mirrored"), None).await.unwrap(), None);
    let version = mirrored.version.version_id.as_ref();
    assert!(bucket.reader().head(&key("mirrored"), version).await.unwrap().is_some(), "its versions are the way back");
}
