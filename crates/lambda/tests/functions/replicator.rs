//! The replicator: recorded events of every shape, partial answers, poison, and a wrong configuration.

use crate::cloud::{Cloud, batch};
use crate::harness::Lambda;
use aws::parse::{BucketEvent, Message, parse};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{BucketVersioningStatus, VersioningConfiguration};
use lifecycle::event::Happened;
use lifecycle::time::SpanMs;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const LIMIT: SpanMs = SpanMs::seconds(60);
/// As large as objects become here: one of the shapes tells of 6 GiB.
const LARGE: u64 = 100_000;
const NO_FAILURES: &str = r#"{"batchItemFailures":[]}"#;

/// Every shape that is recorded beside the reader of events.
const SHAPES: [(&str, &str); 15] = [
    ("ceph", include_str!("../../../aws/tests/fixtures/ceph.json")),
    ("eventbridge-created", include_str!("../../../aws/tests/fixtures/eventbridge-created.json")),
    ("eventbridge-deleted-version", include_str!("../../../aws/tests/fixtures/eventbridge-deleted-version.json")),
    ("eventbridge-expired", include_str!("../../../aws/tests/fixtures/eventbridge-expired.json")),
    ("eventbridge-marked", include_str!("../../../aws/tests/fixtures/eventbridge-marked.json")),
    ("eventbridge-tags", include_str!("../../../aws/tests/fixtures/eventbridge-tags.json")),
    ("minio-webhook", include_str!("../../../aws/tests/fixtures/minio-webhook.json")),
    ("notification-of-no-copy", include_str!("../../../aws/tests/fixtures/notification-of-no-copy.json")),
    ("notification-put-versioned", include_str!("../../../aws/tests/fixtures/notification-put-versioned.json")),
    ("notification-put", include_str!("../../../aws/tests/fixtures/notification-put.json")),
    ("notification-removed-versions", include_str!("../../../aws/tests/fixtures/notification-removed-versions.json")),
    ("sns-to-lambda", include_str!("../../../aws/tests/fixtures/sns-to-lambda.json")),
    ("sns", include_str!("../../../aws/tests/fixtures/sns.json")),
    ("sqs-batch", include_str!("../../../aws/tests/fixtures/sqs-batch.json")),
    ("test-event", include_str!("../../../aws/tests/fixtures/test-event.json")),
];

fn events(shape: &str) -> Vec<BucketEvent> {
    match parse(shape.as_bytes()).unwrap() {
        Message::Events(events) => events,
        Message::TestEvent => Vec::new(),
    }
}

fn buckets() -> Vec<String> {
    let all: BTreeSet<String> =
        SHAPES.iter().flat_map(|(_, shape)| events(shape)).map(|received| received.bucket).collect();
    all.into_iter().collect()
}

/// Puts the objects that the events of a shape say are there; the shape, with tags and version ids of what is there now.
async fn stage(cloud: &Cloud, shape: &str) -> String {
    let mut staged = shape.to_owned();
    for BucketEvent { bucket, event, .. } in events(shape) {
        let Happened::Created(version) = event.what else { continue };
        let size = version.size.min(LARGE);
        let body = ByteStream::from(vec![b'x'; usize::try_from(size).unwrap()]);
        let put = cloud.s3.put_object().bucket(&bucket).key(event.key.as_str()).body(body).send().await.unwrap();
        staged = staged.replace(&format!("\"size\": {}", version.size), &format!("\"size\": {size}"));
        staged = staged.replace(version.etag.as_str(), put.e_tag().unwrap().trim_matches('"'));
        if let Some(id) = version.version_id {
            staged = staged.replace(id.as_str(), put.version_id().unwrap());
        }
    }
    staged
}

/// The buckets, which keep versions.
async fn versioned(buckets: &[&str]) -> Cloud {
    let cloud = Cloud::new(buckets).await;
    for bucket in buckets {
        let on = VersioningConfiguration::builder().status(BucketVersioningStatus::Enabled).build();
        cloud.s3.put_bucket_versioning().bucket(*bucket).versioning_configuration(on).send().await.unwrap();
    }
    cloud
}

/// What the events of a shape ask for is there: copies of what was created, none of what was removed.
async fn assert_handled(cloud: &Cloud, name: &str, shape: &str) {
    for BucketEvent { bucket, event, .. } in events(shape) {
        let partition = cloud.partition(&bucket, event.key.as_str()).await;
        let active = partition.rows.iter().filter(|row| row.is_active()).count();
        match event.what {
            Happened::Created(_) => assert_eq!(active, 1, "{name}: {event:?}: {partition:?}"),
            Happened::Removed => assert!(partition.tombstone.is_some() && active == 0, "{name}: {}", event.key),
            Happened::VersionRemoved(_) => assert_eq!(active, 0, "{name}: {}", event.key),
        }
    }
}

#[tokio::test]
#[ignore = "needs the emulator: cargo xtask ci aws"]
async fn events_of_every_shape_are_answered_directly_and_in_a_batch() {
    let buckets = buckets();
    let buckets: Vec<&str> = buckets.iter().map(String::as_str).collect();
    let direct = versioned(&buckets).await;
    let mut function = direct.replicator(&direct.configuration(&buckets, "keep = 1")).await;
    for (name, shape) in SHAPES {
        let shape = stage(&direct, shape).await;
        let payload: Value = serde_json::from_str(&shape).unwrap();
        let answer = function.invoke(&payload, LIMIT).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        let expected = if name == "sqs-batch" { json!({ "batchItemFailures": [] }) } else { json!({}) };
        assert_eq!(answer, expected, "{name}");
        assert_handled(&direct, name, &shape).await;
    }
    assert!(function.metric("copies") > 0 && function.metric("events_handled") > 0);

    let queued = versioned(&buckets).await;
    let mut function = queued.replicator(&queued.configuration(&buckets, "keep = 1")).await;
    let mut bodies = Vec::new();
    for (_, shape) in SHAPES {
        bodies.push(stage(&queued, shape).await);
    }
    let answer = function.invoke(&batch("events", &bodies), LIMIT).await.unwrap();
    assert_eq!(answer.to_string(), NO_FAILURES);
    for (name, shape) in SHAPES {
        assert_handled(&queued, name, shape).await;
    }
}

/// Nine messages about objects that are there, and in their middle one that nobody can read.
async fn nine_and_poison(cloud: &Cloud) -> Vec<String> {
    let mut bodies = Vec::new();
    for n in 0..9 {
        let key = format!("good-{n}");
        cloud.put("docs", &key, "content").await;
        bodies.push(cloud.created("docs", &key, n).await.to_string());
    }
    bodies.insert(4, "{ this is no json".to_owned());
    bodies
}

async fn assert_nine_copies(cloud: &Cloud) {
    for n in 0..9 {
        let partition = cloud.partition("docs", &format!("good-{n}")).await;
        assert_eq!(partition.rows.iter().filter(|row| row.is_active()).count(), 1, "good-{n}");
    }
    assert_eq!(cloud.copies("docs").await.len(), 9);
}

#[tokio::test]
#[ignore = "needs the emulator: cargo xtask ci aws"]
async fn one_poison_message_among_nine_good_ones_holds_nobody_up_and_is_not_lost() {
    let cloud = Cloud::new(&["docs"]).await;
    let bodies = nine_and_poison(&cloud).await;
    let mut function = cloud.replicator(&cloud.configuration(&["docs"], "")).await;
    // A queue without dead letters: the queue keeps it.
    let answer = function.invoke(&batch("bare", &bodies), LIMIT).await.unwrap();
    assert_eq!(answer, json!({ "batchItemFailures": [{ "itemIdentifier": "m4" }] }));
    assert_nine_copies(&cloud).await;
    assert_eq!(function.metric("messages_failed"), 1);
    // One with dead letters: it is there, with its reason, and the queue may forget it.
    let answer = function.invoke(&batch("events", &bodies), LIMIT).await.unwrap();
    assert_eq!(answer.to_string(), NO_FAILURES);
    assert_eq!(cloud.dead_letters().await, [("{ this is no json".to_owned(), "unreadable".to_owned())]);
    assert_nine_copies(&cloud).await;
    // Directly there is nobody else to tell.
    let error = function.invoke(&json!({ "poison": true }), LIMIT).await.unwrap_err();
    assert_eq!(error["errorType"], "unreadable", "{error}");
}

#[tokio::test]
#[ignore = "needs the emulator: cargo xtask ci aws"]
async fn what_does_not_fit_into_the_time_comes_again() {
    let cloud = Cloud::new(&["docs"]).await;
    let keys: Vec<String> = (0..800).map(|n| format!("many/{n:04}")).collect();
    cloud.put_all("docs", &keys).await;
    let mut bodies = Vec::new();
    for (n, key) in (0..).zip(&keys) {
        bodies.push(cloud.created("docs", key, n).await.to_string());
    }
    let mut function = cloud.replicator(&cloud.configuration(&["docs"], "")).await;
    function.invoke(&json!({ "Service": "Amazon S3", "Event": "s3:TestEvent" }), LIMIT).await.unwrap();
    let (mut invocations, mut left) = (0, bodies);
    while !left.is_empty() {
        let answer = function.invoke(&batch("events", &left), SpanMs::seconds(4)).await.unwrap();
        let failed = answer["batchItemFailures"].as_array().unwrap().iter();
        let failed: Vec<usize> =
            failed.map(|id| id["itemIdentifier"].as_str().unwrap()[1..].parse().unwrap()).collect();
        assert!(invocations < 100, "it comes to no end");
        left = failed.into_iter().map(|place| left[place].clone()).collect();
        invocations += 1;
    }
    assert!(invocations > 1, "all fitted into the time: this shows nothing");
    assert_eq!(cloud.copies("docs").await.len(), keys.len());
}

/// The type and the message of the error that an invocation ends in.
async fn refused(mut function: Lambda) -> (String, String) {
    let error = function.invoke(&json!({}), LIMIT).await.unwrap_err();
    let text = |field: &str| error[field].as_str().unwrap().to_owned();
    (text("errorType"), text("errorMessage"))
}

#[tokio::test]
#[ignore = "needs the emulator: cargo xtask ci aws"]
async fn a_wrong_configuration_is_said_with_every_invocation_and_a_parameter_is_read() {
    let cloud = Cloud::new(&["docs"]).await;
    let program = env!("CARGO_BIN_EXE_replicator");
    let (kind, why) = refused(cloud.function(program, &[]).await).await;
    assert_eq!(kind, "configuration");
    assert!(why.contains("AFTERIMAGE_CONFIG_PARAMETER"), "{why}");
    let (_, why) = refused(cloud.replicator("[[policy]]\nnam = \"docs\"\n").await).await;
    assert!(why.contains("AFTERIMAGE_CONFIG:2") && why.contains("did you mean `name`?"), "{why}");
    let (_, why) = refused(cloud.replicator(&cloud.configuration(&["elsewhere"], "")).await).await;
    assert!(why.contains("cannot set up the policy elsewhere"), "{why}");
    let named = [("AFTERIMAGE_CONFIG_PARAMETER", "/afterimage/config")];
    let (_, why) = refused(cloud.function(program, &named).await).await;
    assert!(why.contains("cannot read the parameter /afterimage/config"), "{why}");

    let client = aws_sdk_ssm::Client::new(&cloud.emulator.config());
    let put = client.put_parameter().name("/afterimage/config").value(cloud.configuration(&["docs"], ""));
    put.r#type(aws_sdk_ssm::types::ParameterType::String).send().await.unwrap();
    let mut function = cloud.function(program, &named).await;
    cloud.put("docs", "a", "content").await;
    function.invoke(&cloud.created("docs", "a", 1).await, LIMIT).await.unwrap();
    assert_eq!(cloud.copies("docs").await.len(), 1);
}
