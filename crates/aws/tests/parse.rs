//! Every shape that a message with object events can have, one fixture each, and what is made of messages that have none.
//! Shapes: S3 user guide, "Event message structure" and "EventBridge event message structure"; MinIO and Ceph as they send.

use aws::parse::failures::{FailedRecords, Place, place_of, read_failed, whole};
use aws::parse::records::table_of_stream;
use aws::parse::{BucketEvent, Channel, Message, ParseError, parse};
use engine::flows::resolve::Stretch;
use lifecycle::event::Happened;
use lifecycle::order::Order;
use proptest::option;
use proptest::prelude::{Just, Strategy, any, prop, prop_oneof, proptest};
use serde_json::Value;

fn fixture(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/fixtures/{name}.json", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn events(name: &str) -> Vec<BucketEvent> {
    match parse(&fixture(name)) {
        Ok(Message::Events(events)) => events,
        other => panic!("{name}: {other:?}"),
    }
}

fn only(name: &str) -> BucketEvent {
    let mut events = events(name);
    assert_eq!(events.len(), 1, "{name}");
    events.remove(0)
}

/// The way of a removal, for short.
fn removed(event: &BucketEvent) -> String {
    match &event.event.what {
        Happened::Removed => format!("{}: key", event.event.key),
        Happened::VersionRemoved(version) => format!("{}: version {version}", event.event.key),
        Happened::Created(_) => format!("{}: created", event.event.key),
    }
}

#[test]
fn a_notification_is_read_with_its_key_decoded_once() {
    let event = only("notification-put");
    assert_eq!((event.channel, event.bucket.as_str()), (Channel::Notification, "documents"));
    assert_eq!(event.event.key.as_str(), "a b+c/ä📄.txt");
    assert_eq!(event.event.time.to_string(), "2026-11-21T07:26:12.345Z");
    assert_eq!(event.event.order, Order::from_sequencer("0055aed6dcd90281e5"));
    let Happened::Created(version) = event.event.what else { panic!("created") };
    assert_eq!((version.version_id, version.size), (None, 1_024));
    assert_eq!(version.etag.to_string(), "d41d8cd98f00b204e9800998ecf8427e");
}

#[test]
fn a_later_minor_version_and_a_version_id_are_read() {
    let Happened::Created(version) = only("notification-put-versioned").event.what else { panic!("created") };
    assert_eq!(version.version_id.map(|id| id.to_string()).as_deref(), Some("096fKKXTRTtl3on89fVO.nfljtsv6qko"));
    assert_eq!(version.size, 6_442_450_944);
}

#[test]
fn both_families_of_removals_tell_a_key_from_an_old_version() {
    let told: Vec<String> = events("notification-removed-versions").iter().map(removed).collect();
    assert_eq!(told, ["plain: key", "old-version: version v1", "marked: key", "expired: key", "expired-marked: key"]);
}

#[test]
fn events_that_concern_no_copy_are_left_out() {
    assert_eq!(events("notification-of-no-copy"), []);
    assert_eq!(events("eventbridge-tags"), []);
}

#[test]
fn the_note_about_a_new_notification_is_no_event() {
    assert_eq!(parse(&fixture("test-event")), Ok(Message::TestEvent));
    let wrapped =
        serde_json::json!({"Type": "Notification", "Message": String::from_utf8(fixture("test-event")).unwrap()});
    assert_eq!(parse(wrapped.to_string().as_bytes()), Ok(Message::TestEvent));
}

#[test]
fn envelopes_of_sns_and_sqs_hold_the_same_event() {
    let bare = only("notification-put");
    for wrapped in ["sns", "sqs-batch", "sns-to-lambda"] {
        assert_eq!(only(wrapped), bare, "{wrapped}");
    }
}

#[test]
fn minio_and_ceph_are_understood() {
    let event = only("minio-webhook");
    assert_eq!((event.event.key.as_str(), event.region), ("a b.txt", None));
    let Happened::Created(version) = event.event.what else { panic!("created") };
    assert_eq!(version.version_id, None, "an empty version id is none");
    // The beginning of an upload is no object yet.
    assert_eq!(only("ceph").event.key.as_str(), "upload");
}

#[test]
fn eventbridge_keys_are_taken_as_they_are() {
    let event = only("eventbridge-created");
    assert_eq!((event.channel, event.event.key.as_str()), (Channel::EventBridge, "a+b%2Bc/ä📄.txt"));
    assert_eq!(event.event.time.to_string(), "2026-11-21T07:26:12.000Z");
    assert_eq!(event.event.order, Order::from_sequencer("00617F08299329D189"));
}

#[test]
fn eventbridge_removals_say_how_the_object_went() {
    let told = |name| removed(&only(name));
    assert_eq!(told("eventbridge-marked"), "a: key");
    assert_eq!(told("eventbridge-deleted-version"), "a: version v1");
    assert_eq!(told("eventbridge-expired"), "a: key");
}

#[test]
fn what_is_no_event_is_refused_with_the_place_that_is_wrong() {
    let refused = |text: &str| parse(text.as_bytes()).expect_err(text).to_string();
    assert!(refused("").starts_with("the message is no JSON"));
    assert!(refused("{\"Records\":[{\"eventName\"").starts_with("the message is no JSON"));
    assert!(refused("{}").starts_with("the message is no S3 event"));
    assert!(refused("[1]").starts_with("the message is no S3 event"));
    assert_eq!(refused(r#"{"Records":7}"#), "`Records` is missing, or is no list");
    assert_eq!(refused(r#"{"Records":[{}]}"#), "`Records[0].eventName` is missing, or is no value");
    assert_eq!(
        refused(r#"{"source":"aws.ec2","detail-type":"EC2 Instance State-change Notification"}"#),
        "the message is no S3 event: it is an EventBridge event of `aws.ec2`"
    );
    assert!(refused(r#"{"Type":"SubscriptionConfirmation"}"#).contains("SubscriptionConfirmation"));
}

#[test]
fn fields_that_cannot_be_right_are_named() {
    let text = String::from_utf8(fixture("notification-put")).unwrap();
    let with = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        parse(text.replace(from, to).as_bytes()).expect_err(to)
    };
    let is = |error: ParseError, field: &str| match &error {
        ParseError::Value(path, _) | ParseError::Field(path, _) => assert_eq!(path, field, "{error}"),
        other => panic!("{other}"),
    };
    is(with("\"2.1\"", "\"3.0\""), "Records[0].eventVersion");
    is(with("2026-11-21T07:26:12.345Z", "yesterday"), "Records[0].eventTime");
    is(with("a+b%2Bc/%C3%A4%F0%9F%93%84.txt", ""), "Records[0].s3.object.key");
    is(with("a+b%2Bc/%C3%A4%F0%9F%93%84.txt", "%FF"), "Records[0].s3.object.key");
    is(with("a+b%2Bc/%C3%A4%F0%9F%93%84.txt", &"k".repeat(1_025)), "Records[0].s3.object.key");
    is(with("1024", "-1"), "Records[0].s3.object.size");
    is(with("\"eTag\"", "\"tag\""), "Records[0].s3.object.eTag");
    is(with("\"name\"", "\"title\""), "Records[0].s3.bucket.name");
}

#[test]
fn a_message_longer_than_any_and_one_wrapped_without_end_are_refused() {
    let long = vec![b' '; aws::limits::MESSAGE_BYTES_MAX + 1];
    assert_eq!(parse(&long), Err(ParseError::TooLong(long.len())));
    let mut wrapped = String::from_utf8(fixture("notification-put")).unwrap();
    for _ in 0..=aws::limits::ENVELOPES_MAX {
        wrapped = serde_json::json!({"Type": "Notification", "Message": wrapped}).to_string();
    }
    assert_eq!(parse(wrapped.as_bytes()), Err(ParseError::Wrapped));
}

#[test]
fn a_sequencer_that_is_none_leaves_the_event_without_an_order() {
    let text = String::from_utf8(fixture("notification-put")).unwrap().replace("0055AED6DCD90281E5", "not hex");
    let Ok(Message::Events(events)) = parse(text.as_bytes()) else { panic!("read") };
    assert_eq!(events[0].event.order, None);
}

const ALL: [&str; 15] = [
    "ceph",
    "eventbridge-created",
    "eventbridge-deleted-version",
    "eventbridge-expired",
    "eventbridge-marked",
    "eventbridge-tags",
    "minio-webhook",
    "notification-of-no-copy",
    "notification-put",
    "notification-put-versioned",
    "notification-removed-versions",
    "sns",
    "sns-to-lambda",
    "sqs-batch",
    "test-event",
];

proptest! {
    /// Whatever arrives is understood or refused; nothing panics.
    #[test]
    fn any_bytes_are_understood_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        drop(parse(&bytes));
    }

    /// The same for messages that were damaged on their way: cut off, or with bytes that are others.
    #[test]
    fn damaged_messages_are_understood_or_refused(
        which in 0..ALL.len(),
        cut in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let mut bytes = fixture(ALL[which]);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        drop(parse(&bytes[..=cut.index(bytes.len())]));
        drop(parse(&bytes));
    }

    /// The same for messages that are whole JSON with another value in some place: deep, of another type, or gone.
    #[test]
    fn messages_with_other_values_are_understood_or_refused(
        which in 0..ALL.len(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), values()), 1..4),
    ) {
        let mut message: Value = serde_json::from_slice(&fixture(ALL[which])).unwrap();
        for (at, value) in changes {
            let place = at.index(places(&message));
            replace(&mut message, &mut { place }, &value);
        }
        drop(parse(message.to_string().as_bytes()));
    }
}

/// JSON that a field might hold: `None` takes the field away.
fn values() -> impl Strategy<Value = Option<Value>> {
    let text = prop_oneof![
        any::<String>().prop_map(Value::from),
        "[%+0-9a-fA-F]{0,40}".prop_map(Value::from),
        "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]{0,12})?Z".prop_map(Value::from),
        "(s3:)?Object(Created|Removed):[A-Za-z]{0,20}".prop_map(Value::from),
        Just(Value::from("k".repeat(1_025))),
    ];
    let other = prop_oneof![
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        Just(Value::Null),
        Just(serde_json::json!([])),
        Just(serde_json::json!({})),
    ];
    option::weighted(0.9, prop_oneof![3 => text, 2 => other])
}

/// How many values a JSON value holds, itself included.
fn places(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(places).sum::<usize>(),
        Value::Object(fields) => fields.values().map(places).sum(),
        _ => 0,
    }
}

/// Puts another value into the place of that number, counted as [`places`] does.
fn replace(value: &mut Value, place: &mut usize, other: &Option<Value>) -> bool {
    if *place == 0 {
        *value = other.clone().unwrap_or(Value::Null);
        return true;
    }
    *place -= 1;
    match value {
        Value::Array(items) => items.iter_mut().any(|item| replace(item, place, other)),
        Value::Object(fields) => {
            let names: Vec<String> = fields.keys().cloned().collect();
            names.into_iter().any(|name| {
                if *place == 0 && other.is_none() {
                    fields.remove(&name);
                    return true;
                }
                fields.get_mut(&name).is_some_and(|field| replace(field, place, other))
            })
        }
        _ => false,
    }
}

#[test]
fn what_lambda_gave_up_is_a_place_and_what_the_function_makes_of_it_holds_the_records() {
    let FailedRecords::Place(place) = read_failed(&fixture("records-given-up")).unwrap() else { panic!("a place") };
    assert_eq!(place.stretch.shard.0, "shardId-00000001573689847184-864758bb");
    assert_eq!(
        (place.stretch.from.as_str(), place.stretch.to.as_str()),
        ("800000000003126276362", "800000000003126276364")
    );
    assert_eq!((place.records, place.condition.as_str()), (Some(3), "RecordAgeExceeded"));
    assert_eq!(place.at.unwrap().to_string(), "2026-11-21T07:12:32.000Z");
    assert_eq!(table_of_stream(&place.stream), Some("Orders"));
    let FailedRecords::Place(of_last) = read_failed(place_of(&place, &place.stretch.to).as_bytes()).unwrap() else {
        panic!("a place")
    };
    let stretch = Stretch { from: place.stretch.to.clone(), ..place.stretch.clone() };
    assert_eq!(*of_last, Place { stretch, records: Some(1), ..*place.clone() });
    // The same through SNS.
    let inner = String::from_utf8(fixture("records-given-up")).unwrap();
    let wrapped = serde_json::json!({ "Type": "Notification", "Message": inner }).to_string();
    assert_eq!(read_failed(wrapped.as_bytes()), Ok(FailedRecords::Place(place)));
    let record = serde_json::json!({ "eventSource": "aws:dynamodb", "eventName": "REMOVE", "eventSourceARN": "arn" });
    let letter = read_failed(whole(&record).as_bytes()).unwrap();
    assert_eq!((letter.stream(), &letter), (Some("arn"), &FailedRecords::Whole(vec![record])));
    for (foreign, part) in [
        ("", "no JSON"),
        ("{}", "neither `DDBStreamBatchInfo`"),
        (r#"{"Records":[{"eventSource":"aws:s3"}]}"#, "`Records[0]` is wrong"),
        (r#"{"Records":[]}"#, "no record is in it"),
        (r#"{"DDBStreamBatchInfo":{"streamArn":"a","shardId":"s","startSequenceNumber":"x"}}"#, "no number"),
        (r#"{"DDBStreamBatchInfo":{"streamArn":"a"}}"#, "`DDBStreamBatchInfo.shardId` is missing"),
    ] {
        let refused = read_failed(foreign.as_bytes()).unwrap_err().to_string();
        assert!(refused.contains(part), "{refused}");
    }
}
