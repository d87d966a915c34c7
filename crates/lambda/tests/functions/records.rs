//! Records of a table's stream: archived, answered by the lowest position that failed, laid aside if they can never be.

use crate::cloud::{self, Cloud};
use crate::harness::Lambda;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
    StreamSpecification, StreamViewType,
};
use lifecycle::time::SpanMs;
use serde_json::{Value, json};

const LIMIT: SpanMs = SpanMs::seconds(60);
const ARN: &str = "arn:aws:dynamodb:us-east-1:000000000000:table/Orders/stream/2026-11-21T00:00:00.000";

async fn records(cloud: &Cloud) -> Lambda {
    let client = cloud.emulator.service().dynamodb(&cloud.emulator.config());
    let request = client.create_table().table_name("Orders").billing_mode(BillingMode::PayPerRequest);
    let key = KeySchemaElement::builder().attribute_name("id").key_type(KeyType::Hash).build().unwrap();
    let typed = AttributeDefinition::builder().attribute_name("id").attribute_type(ScalarAttributeType::S);
    let request = request.key_schema(key).attribute_definitions(typed.build().unwrap());
    let stream = StreamSpecification::builder().stream_enabled(true).stream_view_type(StreamViewType::OldImage);
    request.stream_specification(stream.build().unwrap()).send().await.unwrap();
    let configuration = format!(
        "default_policy = \"off\"\n[[service]]\nname = \"cloud\"\nendpoint = \"{}\"\n[[archive]]\n\
         table = \"dynamodb://cloud@Orders\"\nservice = \"orders\"\ndestination = \"s3://cloud@docs-copies\"\n\
         failures = \"sqs://cloud@events\"\n",
        cloud.emulator.url()
    );
    cloud.function(env!("CARGO_BIN_EXE_records"), &[("AFTERIMAGE_CONFIG", &configuration)]).await
}

/// A record as a stream gives it to functions.
fn removed(n: u32, id: &str) -> Value {
    json!({
        "eventID": format!("{n:032x}"), "eventName": "REMOVE", "eventVersion": "1.1", "eventSource": "aws:dynamodb",
        "awsRegion": "us-east-1", "eventSourceARN": ARN,
        "dynamodb": {
            "ApproximateCreationDateTime": 1_795_245_972.0, "SequenceNumber": format!("{n:021}"), "SizeBytes": 26,
            "StreamViewType": "OLD_IMAGE", "Keys": { "id": { "S": id } },
            "OldImage": { "id": { "S": id }, "total": { "N": "12345678901234567890.123456789012345678" } },
        },
    })
}

fn batch(records: &[Value]) -> Value {
    json!({ "Records": records })
}

fn failed(answer: &Value) -> Vec<Value> {
    let failures = answer["batchItemFailures"].as_array().unwrap().iter();
    failures.map(|failure| failure["itemIdentifier"].clone()).collect()
}

#[tokio::test]
#[ignore = "needs the emulator: cargo xtask ci aws"]
async fn deletions_by_users_and_by_the_time_to_live_are_archived_once_whatever_else_is_in_the_batch() {
    let cloud = Cloud::new(&["docs"]).await;
    let mut function = records(&cloud).await;
    let mut by_ttl = removed(3, "a/b");
    by_ttl["userIdentity"] = json!({ "type": "Service", "principalId": "dynamodb.amazonaws.com" });
    let mut written = removed(2, "a/b");
    written["eventName"] = "INSERT".into();
    let mut without_image = removed(4, "c");
    without_image["dynamodb"].as_object_mut().unwrap().remove("OldImage");
    let batch = batch(&[removed(1, "USER#1"), written, by_ttl, without_image, removed(5, "USER#1")]);
    for _ in 0..2 {
        assert_eq!(function.invoke(&batch, LIMIT).await.unwrap(), json!({ "batchItemFailures": [] }));
        let keys = cloud.keys("docs-copies").await;
        let of = |prefix: &str| keys.iter().filter(|key| key.starts_with(prefix)).count();
        let twice = (of("orders/2026/11/21/USER#1.json"), of("orders/2026/11/21/USER#1~"));
        assert_eq!((keys.len(), twice), (5, (1, 1)), "{keys:?}");
        assert_eq!((of("orders/2026/11/21/a%2Fb.json"), of(".afterimage/aside/Orders/")), (1, 1), "{keys:?}");
    }
    let object = cloud.s3.get_object().bucket("docs-copies").key("orders/2026/11/21/a%2Fb.json").send().await.unwrap();
    let text = object.body.collect().await.unwrap().to_vec();
    let record: Value = serde_json::from_slice(&text).unwrap();
    assert_eq!((&record["afterimage"]["cause"], &record["eventName"]), (&"ttl".into(), &"REMOVE".into()));
    assert_eq!(record["dynamodb"]["OldImage"]["total"]["N"], "12345678901234567890.123456789012345678");
}

#[tokio::test]
#[ignore = "needs the emulator: cargo xtask ci aws"]
async fn what_could_not_be_archived_comes_again_from_the_lowest_position_and_nothing_is_lost() {
    let cloud = Cloud::new(&["docs"]).await;
    let mut function = records(&cloud).await;
    let batch = batch(&[removed(7, "a"), removed(8, "b"), removed(9, "c")]);
    cloud.s3.delete_bucket().bucket("docs-copies").send().await.unwrap();
    let answer = function.invoke(&batch, LIMIT).await.unwrap();
    assert_eq!(failed(&answer), [format!("{:021}", 7)]);
    cloud.s3.create_bucket().bucket("docs-copies").send().await.unwrap();
    assert_eq!(failed(&function.invoke(&batch, LIMIT).await.unwrap()), Vec::<Value>::new());
    assert_eq!(cloud.copies("docs").await.len(), 3);
}

#[tokio::test]
#[ignore = "needs the emulator: cargo xtask ci aws"]
async fn a_stream_that_nobody_configured_and_a_payload_of_another_kind_fail_with_the_reason() {
    let cloud = Cloud::new(&["docs"]).await;
    let mut function = records(&cloud).await;
    let mut elsewhere = removed(1, "a");
    elsewhere["eventSourceARN"] = ARN.replace("Orders", "Payments").into();
    for (payload, part) in [
        (batch(&[elsewhere]), "the table Payments is not archived; there are: Orders"),
        (json!({ "Records": [{ "eventSource": "aws:s3" }] }), "is no stream of a table"),
        (json!({}), "`Records` is missing"),
    ] {
        let error = function.invoke(&payload, LIMIT).await.unwrap_err();
        assert!(error["errorMessage"].as_str().unwrap().contains(part), "{error}");
    }
    assert_eq!(function.invoke(&batch(&[]), LIMIT).await.unwrap(), json!({ "batchItemFailures": [] }));
}

/// What Lambda tells of a batch that it gave up: shard and numbers of what the table's stream has.
async fn given_up(cloud: &Cloud) -> (String, Vec<Value>) {
    given_up_with(cloud, "").await
}

/// The same, of records with that text.
async fn given_up_with(cloud: &Cloud, text: &str) -> (String, Vec<Value>) {
    let config = cloud.emulator.config();
    let tables = cloud.emulator.service().dynamodb(&config);
    for id in ["a", "b"] {
        let id = AttributeValue::S(id.to_owned());
        let put = tables.put_item().table_name("Orders").item("id", id.clone());
        put.item("text", AttributeValue::S(text.to_owned())).send().await.unwrap();
        tables.delete_item().table_name("Orders").key("id", id).send().await.unwrap();
    }
    let table = tables.describe_table().table_name("Orders").send().await.unwrap().table.unwrap();
    let arn = table.latest_stream_arn().unwrap();
    let streams = cloud.emulator.service().streams(&config);
    let described = streams.describe_stream().stream_arn(arn).send().await.unwrap().stream_description.unwrap();
    let shard = described.shards()[0].shard_id().unwrap();
    let iterator = streams.get_shard_iterator().stream_arn(arn).shard_id(shard);
    let iterator = iterator.shard_iterator_type("TRIM_HORIZON".into()).send().await.unwrap();
    let (mut numbers, mut next): (Vec<String>, _) = (Vec::new(), iterator.shard_iterator);
    // A page has a megabyte at most.
    while numbers.len() < 4 {
        let found = streams.get_records().shard_iterator(next.unwrap()).send().await.unwrap();
        let of_page = found.records().iter().map(|record| record.dynamodb().unwrap().sequence_number().unwrap());
        numbers.extend(of_page.map(str::to_owned));
        next = found.next_shard_iterator;
    }
    assert_eq!(numbers.len(), 4, "two puts and two deletions");
    let message = json!({
        "requestContext": { "condition": "RecordAgeExceeded", "approximateInvokeCount": 99 }, "version": "1.0",
        "DDBStreamBatchInfo": {
            "shardId": shard, "startSequenceNumber": numbers[0], "endSequenceNumber": numbers[3], "batchSize": 4,
            "approximateArrivalOfFirstRecord": "2026-11-21T07:12:32Z", "streamArn": arn,
        },
    });
    (message.to_string(), numbers.iter().map(|number| json!(number)).collect())
}

#[tokio::test]
#[ignore = "needs the emulator: cargo xtask ci aws"]
async fn what_lambda_gave_up_is_archived_from_its_place_in_the_stream() {
    let cloud = Cloud::new(&["docs"]).await;
    let mut function = records(&cloud).await;
    let (message, _) = given_up(&cloud).await;
    let batch = cloud::batch("events", &[message]);
    for _ in 0..2 {
        assert_eq!(failed(&function.invoke(&batch, LIMIT).await.unwrap()), Vec::<Value>::new());
        assert_eq!(cloud.copies("docs").await.len(), 2, "twice told, once archived");
    }
    assert_eq!(cloud.dead_letters().await.len(), 0);
}

#[tokio::test]
#[ignore = "needs the emulator: cargo xtask ci aws"]
async fn what_cannot_be_archived_from_its_place_becomes_dead_letters_that_hold_the_records_whole() {
    let cloud = Cloud::new(&["docs"]).await;
    let mut function = records(&cloud).await;
    let (message, numbers) = given_up(&cloud).await;
    cloud.s3.delete_bucket().bucket("docs-copies").send().await.unwrap();
    let unreadable = "{ no json".to_owned();
    let batch = cloud::batch("events", &[message, unreadable.clone()]);
    assert_eq!(failed(&function.invoke(&batch, LIMIT).await.unwrap()), Vec::<Value>::new());
    let mut letters = cloud.dead_letters().await;
    letters.sort();
    let reasons: Vec<&str> = letters.iter().map(|(_, reason)| reason.as_str()).collect();
    assert_eq!((reasons, &letters[0].0), (vec!["unreadable", "not-archived", "not-archived"], &unreadable));
    let bodies: Vec<Value> = letters[1..].iter().map(|(body, _)| serde_json::from_str(body).unwrap()).collect();
    for (body, number) in bodies.iter().zip([&numbers[1], &numbers[3]]) {
        let record = &body["Records"][0];
        assert_eq!((&record["eventName"], &record["dynamodb"]["SequenceNumber"]), (&json!("REMOVE"), number));
        assert!(record["dynamodb"]["OldImage"]["id"]["S"].is_string(), "{record}");
    }
    // Whatever becomes of the stream: each is an event that the function takes, from a queue or directly.
    cloud.s3.create_bucket().bucket("docs-copies").send().await.unwrap();
    let queued = cloud::batch("events", &[bodies[0].to_string()]);
    assert_eq!(failed(&function.invoke(&queued, LIMIT).await.unwrap()), Vec::<Value>::new());
    assert_eq!(failed(&function.invoke(&bodies[1], LIMIT).await.unwrap()), Vec::<Value>::new());
    assert_eq!(cloud.copies("docs").await.len(), 2);
}

#[tokio::test]
#[ignore = "needs the emulator: cargo xtask ci aws"]
async fn what_the_stream_has_forgotten_is_a_dead_letter_that_says_so_and_a_strange_table_comes_again() {
    let cloud = Cloud::new(&["docs"]).await;
    let mut function = records(&cloud).await;
    let (message, _) = given_up(&cloud).await;
    let mut forgotten: Value = serde_json::from_str(&message).unwrap();
    forgotten["DDBStreamBatchInfo"]["shardId"] = "shardId-00000000000000000000-gone0000".into();
    let strange = message.replace("table/Orders", "table/Payments");
    let batch = cloud::batch("events", &[forgotten.to_string(), strange]);
    assert_eq!(failed(&function.invoke(&batch, LIMIT).await.unwrap()), [json!("m1")]);
    let [(body, reason)] = &cloud.dead_letters().await[..] else { panic!("one is forgotten") };
    assert_eq!((serde_json::from_str::<Value>(body).unwrap(), reason.as_str()), (forgotten, "not-archived"));
}

#[tokio::test]
#[ignore = "needs the emulator: cargo xtask ci aws"]
async fn a_record_that_is_too_large_for_a_dead_letter_keeps_its_place_and_the_others_are_not_told_twice() {
    let cloud = Cloud::new(&["docs"]).await;
    let mut function = records(&cloud).await;
    // 300 KB in the table; six times that in JSON.
    let (message, numbers) = given_up_with(&cloud, &"\u{1}".repeat(300 * 1024)).await;
    cloud.s3.delete_bucket().bucket("docs-copies").send().await.unwrap();
    let batch = cloud::batch("events", &[message]);
    assert_eq!(failed(&function.invoke(&batch, LIMIT).await.unwrap()), Vec::<Value>::new());
    let letters = cloud.dead_letters().await;
    assert_eq!(letters.len(), 2);
    let mut places: Vec<Value> = letters.iter().map(|(body, _)| serde_json::from_str(body).unwrap()).collect();
    places.sort_by_key(|place: &Value| place["DDBStreamBatchInfo"]["startSequenceNumber"].to_string());
    for (place, number) in places.iter().zip([&numbers[1], &numbers[3]]) {
        assert_eq!(&place["DDBStreamBatchInfo"]["startSequenceNumber"], number);
    }
    // What it says can be resolved as long as the stream has it.
    cloud.s3.create_bucket().bucket("docs-copies").send().await.unwrap();
    let queued = cloud::batch("events", &[places[0].to_string(), places[1].to_string()]);
    assert_eq!(failed(&function.invoke(&queued, LIMIT).await.unwrap()), Vec::<Value>::new());
    assert_eq!(cloud.copies("docs").await.len(), 2);
}
