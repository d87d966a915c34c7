//! What Lambda gave up of a table's stream: the letters that the function `records` leaves in its queue are named, archived
//! and dropped by the real binary, with the stream, the queue and the archive of an emulator.

use crate::process::Folder;
use crate::services::{Cloud, Through};
use aws_sdk_dynamodb::types::AttributeValue::S;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType, StreamSpecification,
    StreamViewType,
};
use serde_json::{Value, json};
use std::fs;

const CONFIG: &[&str] = &["--config", "cloud.toml"];

/// A table `Orders` with a stream, and the ARN of it.
fn make_table(cloud: &Cloud) -> String {
    let client = cloud.emulator.service().dynamodb(&cloud.emulator.config());
    cloud.runtime.block_on(async {
        let key = KeySchemaElement::builder().attribute_name("id").key_type(KeyType::Hash).build().unwrap();
        let typed = AttributeDefinition::builder().attribute_name("id").attribute_type(ScalarAttributeType::S);
        let stream = StreamSpecification::builder().stream_enabled(true).stream_view_type(StreamViewType::OldImage);
        let request = client.create_table().table_name("Orders").billing_mode(BillingMode::PayPerRequest);
        let request = request.key_schema(key).attribute_definitions(typed.build().unwrap());
        let made = request.stream_specification(stream.build().unwrap()).send().await.unwrap();
        made.table_description.unwrap().latest_stream_arn.unwrap()
    })
}

/// A record is put and deleted; what Lambda says when it gives such a batch up.
fn given_up(cloud: &Cloud, arn: &str, id: &str) -> Value {
    let config = cloud.emulator.config();
    let (tables, streams) = (cloud.emulator.service().dynamodb(&config), cloud.emulator.service().streams(&config));
    cloud.runtime.block_on(async {
        tables.put_item().table_name("Orders").item("id", S(id.to_owned())).send().await.unwrap();
        tables.delete_item().table_name("Orders").key("id", S(id.to_owned())).send().await.unwrap();
        let described = streams.describe_stream().stream_arn(arn).send().await.unwrap().stream_description.unwrap();
        let shard = described.shards()[0].shard_id().unwrap();
        let iterator = streams.get_shard_iterator().stream_arn(arn).shard_id(shard);
        let iterator = iterator.shard_iterator_type("TRIM_HORIZON".into()).send().await.unwrap();
        let found = streams.get_records().shard_iterator(iterator.shard_iterator.unwrap()).send().await.unwrap();
        let numbers = found.records().iter().map(|record| record.dynamodb().unwrap().sequence_number().unwrap());
        let numbers: Vec<&str> = numbers.collect();
        json!({
            "requestContext": { "condition": "RetryAttemptsExhausted", "approximateInvokeCount": 3 }, "version": "1.0",
            "DDBStreamBatchInfo": {
                "shardId": shard, "startSequenceNumber": numbers[numbers.len() - 2],
                "endSequenceNumber": numbers[numbers.len() - 1], "batchSize": 2,
                "approximateArrivalOfFirstRecord": "2026-11-21T07:12:32Z", "streamArn": arn,
            },
        })
    })
}

/// A dead letter of the function: the record whole.
fn whole(arn: &str, id: &str) -> Value {
    json!({ "Records": [{
        "eventName": "REMOVE", "eventSource": "aws:dynamodb", "eventSourceARN": arn,
        "dynamodb": {
            "ApproximateCreationDateTime": 1_795_245_972, "SequenceNumber": "999", "Keys": { "id": { "S": id } },
            "OldImage": { "id": { "S": id }, "n": { "N": "7" } },
        },
    }] })
}

fn configure(cloud: &Cloud, folder: &Folder) {
    let text = format!(
        "default_policy = \"off\"\n[[service]]\nname = \"cloud\"\nendpoint = \"{}\"\n[[archive]]\n\
         table = \"dynamodb://cloud@Orders\"\nservice = \"orders\"\ndestination = \"s3://cloud@copies\"\n\
         failures = \"sqs://cloud@events\"\n",
        cloud.url()
    );
    fs::write(folder.root().join("cloud.toml"), text).unwrap();
}

#[test]
#[ignore = "needs the emulator: cargo xtask ci aws"]
fn dead_letters_of_records_are_named_archived_after_all_and_dropped() {
    let (cloud, folder) = (Cloud::new(Through::Notification), Folder::new());
    let arn = make_table(&cloud);
    configure(&cloud, &folder);
    // Nobody follows the stream from here on.
    assert_eq!(folder.start(&["--config", "cloud.toml", "serve"]).stop(), 0, "{}", folder.log());
    let run = |words: &[&str]| folder.run(&[CONFIG, words].concat());
    let letters = || {
        let listed = folder.json(&[CONFIG, &["dlq", "list"]].concat());
        listed["letters"].as_array().unwrap().clone()
    };
    cloud.send_to("dead", &whole(&arn, "whole").to_string());
    cloud.send_to("dead", &given_up(&cloud, &arn, "placed").to_string());
    let mut gone = given_up(&cloud, &arn, "gone");
    gone["DDBStreamBatchInfo"]["shardId"] = "shardId-00000000000000000000-gone0000".into();
    cloud.send_to("dead", &gone.to_string());
    let mut blind = whole(&arn, "blind");
    blind["Records"][0]["dynamodb"].as_object_mut().unwrap().remove("OldImage");
    cloud.send_to("dead", &blind.to_string());
    let listed = letters();
    assert_eq!(listed.len(), 4, "{listed:#?}");
    let of_whole = listed.iter().find(|letter| letter["key"] == r#"{"id":{"S":"whole"}}"#).unwrap();
    assert_eq!((&of_whole["table"], &of_whole["cause"]), (&json!("Orders"), &json!("user")));
    assert_eq!(listed.iter().filter(|letter| letter["why"].to_string().contains("only their place")).count(), 2);
    let shown = run(&["dlq", "show", &of_whole["id"].to_string()]);
    assert!(shown.out.contains("\"OldImage\""), "{shown:?}");

    let redriven = run(&["dlq", "redrive", "--all"]);
    assert_eq!(redriven.code, 1, "{redriven:?}");
    assert!(redriven.out.contains("2 redriven") && redriven.out.contains("has forgotten records"), "{redriven:?}");
    // The one without an image is the queue's no more, and is not archived for all that.
    assert!(redriven.out.contains("still not: 1 of its records lie aside now"), "{redriven:?}");
    let archived: Vec<String> = cloud.objects("copies").into_keys().collect();
    let has = |id: &str| archived.iter().filter(|key| key.ends_with(&format!("/{id}.json"))).count();
    assert_eq!([has("whole"), has("placed"), has("gone")], [1, 1, 0], "{archived:?}");
    assert_eq!(archived.iter().filter(|key| key.starts_with(".afterimage/aside/")).count(), 1, "{archived:?}");
    assert_eq!(letters().len(), 2);
    let dropped = run(&["dlq", "drop", "--all"]);
    assert!(dropped.code == 0 && dropped.out.contains("2 dropped"), "{dropped:?}");
    assert!(run(&["dlq", "list"]).out.contains("no dead letters"));
    assert!(run(&["audit"]).out.contains("shardId-00000000000000000000-gone0000"));
}

/// `--all` means all, however many one look shows.
#[test]
#[ignore = "needs the emulator: cargo xtask ci aws"]
fn more_letters_than_one_look_shows_are_dropped_by_one_command() {
    const LETTERS: usize = 1_020;
    let (cloud, folder) = (Cloud::new(Through::Notification), Folder::new());
    let arn = make_table(&cloud);
    configure(&cloud, &folder);
    assert_eq!(folder.start(&["--config", "cloud.toml", "serve"]).stop(), 0, "{}", folder.log());
    for n in 0..LETTERS {
        cloud.send_to("dead", &whole(&arn, &n.to_string()).to_string());
    }
    let dropped = folder.run(&[CONFIG, &["dlq", "drop", "--all"]].concat());
    assert!(dropped.code == 0 && dropped.out.contains(&format!("{LETTERS} dropped")), "{dropped:?}");
    assert!(folder.run(&[CONFIG, &["dlq", "list"]].concat()).out.contains("no dead letters"));
}
