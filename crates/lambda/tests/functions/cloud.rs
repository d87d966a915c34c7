//! An emulator with what policies need, and the functions that work on it.

use crate::emulator::Emulator;
use crate::harness::Lambda;
use aws::dynamodb::{DynamoDbCatalog, Table, create_table};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_sqs::types::QueueAttributeName;
use engine::clock::{SystemClock, SystemNonces};
use engine::ports::catalog::CatalogRead;
use futures_util::{StreamExt, stream};
use lifecycle::ids::ObjectKey;
use lifecycle::row::Partition;
use serde_json::{Value, json};
use std::sync::Arc;

/// Requests of a test that run side by side.
const IN_FLIGHT: usize = 32;

/// The emulator, and clients of it.
pub(crate) struct Cloud {
    pub(crate) emulator: Emulator,
    pub(crate) s3: aws_sdk_s3::Client,
    pub(crate) sqs: aws_sdk_sqs::Client,
}

impl Cloud {
    /// With buckets, each with one for its copies beside it, a table, and a queue with dead letters and one without.
    pub(crate) async fn new(buckets: &[&str]) -> Cloud {
        let emulator = Emulator::start();
        let (service, config) = (emulator.service(), emulator.config());
        let cloud = Cloud { s3: service.s3(&config), sqs: aws_sdk_sqs::Client::new(&config), emulator };
        for bucket in buckets {
            cloud.s3.create_bucket().bucket(*bucket).send().await.unwrap();
            cloud.s3.create_bucket().bucket(format!("{bucket}-copies")).send().await.unwrap();
        }
        create_table(&service.dynamodb(&config), "rows", &SystemClock).await.unwrap();
        for queue in ["dead", "events", "bare"] {
            let made = cloud.sqs.create_queue().queue_name(queue);
            let redrive = json!({ "deadLetterTargetArn": queue_arn("dead"), "maxReceiveCount": "1000" }).to_string();
            let made =
                if queue == "events" { made.attributes(QueueAttributeName::RedrivePolicy, redrive) } else { made };
            made.send().await.unwrap();
        }
        cloud
    }

    /// The configuration with a policy for each of these buckets.
    pub(crate) fn configuration(&self, buckets: &[&str], terms: &str) -> String {
        let mut text = format!(
            "default_policy = \"off\"\n[[service]]\nname = \"cloud\"\nendpoint = \"{}\"\n",
            self.emulator.url()
        );
        for bucket in buckets {
            text.push_str(&format!(
                "[[policy]]\nname = \"{bucket}\"\nsource = \"s3://cloud@{bucket}\"\n\
                 destination = \"s3://cloud@{bucket}-copies\"\ncatalog = \"dynamodb://cloud@rows/{bucket}\"\n\
                 events = \"sqs://cloud@events\"\n{terms}\n"
            ));
        }
        text
    }

    pub(crate) async fn replicator(&self, configuration: &str) -> Lambda {
        self.function(env!("CARGO_BIN_EXE_replicator"), &[("AFTERIMAGE_CONFIG", configuration)]).await
    }

    pub(crate) async fn cleaner(&self, configuration: &str) -> Lambda {
        self.function(env!("CARGO_BIN_EXE_cleaner"), &[("AFTERIMAGE_CONFIG", configuration)]).await
    }

    pub(crate) async fn function(&self, program: &str, variables: &[(&str, &str)]) -> Lambda {
        let mut all = vec![("AWS_ENDPOINT_URL", self.emulator.url())];
        all.extend_from_slice(variables);
        Lambda::start(program, &all).await
    }

    pub(crate) async fn put(&self, bucket: &str, key: &str, text: &str) {
        let body = ByteStream::from(text.as_bytes().to_vec());
        self.s3.put_object().bucket(bucket).key(key).body(body).send().await.unwrap();
    }

    pub(crate) async fn put_all(&self, bucket: &str, keys: &[String]) {
        stream::iter(keys).for_each_concurrent(IN_FLIGHT, |key| self.put(bucket, key, key)).await;
    }

    pub(crate) async fn delete_all(&self, bucket: &str, keys: &[String]) {
        let deleted = stream::iter(keys).for_each_concurrent(IN_FLIGHT, |key| async move {
            self.s3.delete_object().bucket(bucket).key(key).send().await.unwrap();
        });
        deleted.await;
    }

    /// An S3 notification of what is there now.
    pub(crate) async fn created(&self, bucket: &str, key: &str, sequencer: u64) -> Value {
        let head = self.s3.head_object().bucket(bucket).key(key).send().await.unwrap();
        let now = engine::ports::clock::Clock::now(&SystemClock).timestamp().to_string();
        let object = json!({
            "key": key, "size": head.content_length(), "eTag": head.e_tag().unwrap().trim_matches('"'),
            "sequencer": format!("{sequencer:016X}"),
        });
        let s3 = json!({ "bucket": { "name": bucket }, "object": object });
        json!({ "Records": [{
            "eventVersion": "2.1", "eventSource": "aws:s3", "eventTime": now, "eventName": "ObjectCreated:Put", "s3": s3,
        }] })
    }

    /// The keys in a bucket, all pages.
    pub(crate) async fn keys(&self, bucket: &str) -> Vec<String> {
        let mut pages = self.s3.list_objects_v2().bucket(bucket).into_paginator().send();
        let mut keys = Vec::new();
        while let Some(page) = pages.next().await {
            keys.extend(page.unwrap().contents().iter().map(|object| object.key().unwrap().to_owned()));
        }
        keys
    }

    /// The copies in the destination of a bucket.
    pub(crate) async fn copies(&self, bucket: &str) -> Vec<String> {
        let mut keys = self.keys(&format!("{bucket}-copies")).await;
        keys.retain(|key| !key.starts_with(".afterimage/"));
        keys
    }

    pub(crate) async fn catalog(&self, policy: &str) -> DynamoDbCatalog {
        let client = self.emulator.service().dynamodb(&self.emulator.config());
        let table = Table { prefix: Some(policy.to_owned()), ..Table::named("rows") };
        let nonces = Arc::new(SystemNonces::new().unwrap());
        DynamoDbCatalog::open(client, &table, Arc::new(SystemClock), nonces).await.unwrap()
    }

    pub(crate) async fn partition(&self, policy: &str, key: &str) -> Partition {
        self.catalog(policy).await.partition(&ObjectKey::new(key).unwrap()).await.unwrap()
    }

    /// The bodies in the queue for dead letters, each with the reason.
    pub(crate) async fn dead_letters(&self) -> Vec<(String, String)> {
        let url = self.sqs.get_queue_url().queue_name("dead").send().await.unwrap().queue_url.unwrap();
        let received =
            self.sqs.receive_message().queue_url(url).max_number_of_messages(10).message_attribute_names("All");
        let messages = received.visibility_timeout(0).send().await.unwrap().messages.unwrap_or_default();
        let reason = |message: &aws_sdk_sqs::types::Message| {
            message.message_attributes().unwrap()["afterimage-reason"].string_value().unwrap().to_owned()
        };
        messages.iter().map(|message| (message.body().unwrap().to_owned(), reason(message))).collect()
    }
}

pub(crate) fn queue_arn(queue: &str) -> String {
    format!("arn:aws:sqs:us-east-1:000000000000:{queue}")
}

/// A batch as Lambda's poller of a queue sends it; the n-th body is message `m<n>`.
pub(crate) fn batch(queue: &str, bodies: &[String]) -> Value {
    let record = |(n, body): (usize, &String)| {
        json!({
            "messageId": format!("m{n}"), "receiptHandle": "r", "body": body, "awsRegion": "us-east-1",
            "eventSource": "aws:sqs", "eventSourceARN": queue_arn(queue),
            "attributes": { "ApproximateReceiveCount": "1" },
        })
    };
    json!({ "Records": bodies.iter().enumerate().map(record).collect::<Vec<_>>() })
}
