//! Records of a table's stream: archived, answered by the lowest position that failed, laid aside if they can never be.

use crate::cloud::Cloud;
use crate::harness::Lambda;
use aws_sdk_dynamodb::types::{AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType};
use lifecycle::time::SpanMs;
use serde_json::{Value, json};

const LIMIT: SpanMs = SpanMs::seconds(60);
const ARN: &str = "arn:aws:dynamodb:us-east-1:000000000000:table/Orders/stream/2026-11-21T00:00:00.000";

async fn records(cloud: &Cloud) -> Lambda {
    let client = cloud.emulator.service().dynamodb(&cloud.emulator.config());
    let request = client.create_table().table_name("Orders").billing_mode(BillingMode::PayPerRequest);
    let key = KeySchemaElement::builder().attribute_name("id").key_type(KeyType::Hash).build().unwrap();
    let typed = AttributeDefinition::builder().attribute_name("id").attribute_type(ScalarAttributeType::S);
    request.key_schema(key).attribute_definitions(typed.build().unwrap()).send().await.unwrap();
    let configuration = format!(
        "default_policy = \"off\"\n[[service]]\nname = \"cloud\"\nendpoint = \"{}\"\n[[archive]]\n\
         table = \"dynamodb://cloud@Orders\"\nservice = \"orders\"\ndestination = \"s3://cloud@docs-copies\"\n",
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
