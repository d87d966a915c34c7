//! Policies in services: the real binary, with S3, DynamoDB and SQS of an emulator as its source, destination, catalog and
//! events. `cargo xtask ci aws` installs it; ignored otherwise.

use crate::emulator::Emulator;
use crate::process::{Folder, LOOKS, Serving};
use aws::dynamodb::{DynamoDbCatalog, Table};
use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{
    BucketVersioningStatus, Event, EventBridgeConfiguration, NotificationConfiguration, QueueConfiguration,
    VersioningConfiguration,
};
use aws_sdk_sqs::types::QueueAttributeName;
use engine::clock::{SystemClock, SystemNonces};
use engine::ports::catalog::CatalogRead;
use lifecycle::event::Version;
use lifecycle::ids::{ETag, ObjectKey, VersionId};
use lifecycle::row::CopyRow;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

/// Keys that are spelled differently on their way: in URLs, in notifications, in EventBridge's events.
const ODD_KEYS: [&str; 5] = ["plain.txt", "with space.txt", "a+b=c&d.txt", "ünïcode/😀.txt", "100%/%2B"];

/// An emulator with buckets `docs` and `copies`, and a queue `events` whose dead letters go to `dead`.
pub(crate) struct Cloud {
    pub(crate) emulator: Emulator,
    pub(crate) runtime: tokio::runtime::Runtime,
    s3: aws_sdk_s3::Client,
    sqs: aws_sdk_sqs::Client,
}

/// How the bucket's events come to the queue.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Through {
    Notification,
    EventBridge,
    /// To a queue of the test's own, `told`, which delivers them when, as often, and in the order that it likes.
    Test,
}

impl Cloud {
    pub(crate) fn new(through: Through) -> Cloud {
        let emulator = Emulator::start();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let s3 = emulator.service().s3(&emulator.config());
        let sqs = aws_sdk_sqs::Client::new(&emulator.config());
        let cloud = Cloud { emulator, runtime, s3, sqs };
        cloud.runtime.block_on(async {
            for bucket in ["docs", "copies"] {
                cloud.s3.create_bucket().bucket(bucket).send().await.unwrap();
            }
            for queue in ["dead", "told"] {
                cloud.sqs.create_queue().queue_name(queue).send().await.unwrap();
            }
            let redrive = json!({ "deadLetterTargetArn": arn("dead"), "maxReceiveCount": "1000" }).to_string();
            let queue = cloud.sqs.create_queue().queue_name("events");
            // What a killed process had comes again soon.
            let queue = queue.attributes(QueueAttributeName::VisibilityTimeout, "4");
            queue.attributes(QueueAttributeName::RedrivePolicy, redrive).send().await.unwrap();
            let sent = match through {
                Through::Notification | Through::Test => {
                    let both = [Event::from("s3:ObjectCreated:*"), Event::from("s3:ObjectRemoved:*")];
                    let queue = if through == Through::Test { "told" } else { "events" };
                    let queue = QueueConfiguration::builder().queue_arn(arn(queue)).set_events(Some(both.to_vec()));
                    NotificationConfiguration::builder().queue_configurations(queue.build().unwrap())
                }
                Through::EventBridge => NotificationConfiguration::builder()
                    .event_bridge_configuration(EventBridgeConfiguration::builder().build()),
            };
            let told = cloud.s3.put_bucket_notification_configuration().bucket("docs");
            told.notification_configuration(sent.build()).send().await.unwrap();
        });
        if through == Through::EventBridge {
            let pattern = json!({ "source": ["aws.s3"], "detail": { "bucket": { "name": ["docs"] } } }).to_string();
            cloud.events("PutRule", &json!({ "Name": "docs", "EventPattern": pattern }));
            let targets = [json!({ "Id": "1", "Arn": arn("events") })];
            cloud.events("PutTargets", &json!({ "Rule": "docs", "Targets": targets }));
        }
        cloud
    }

    /// Asks the emulator's EventBridge, which needs no client of its own for two calls.
    fn events(&self, action: &str, body: &Value) {
        let (address, body) = (self.emulator.url().trim_start_matches("http://").to_owned(), body.to_string());
        let mut stream = TcpStream::connect(&address).unwrap();
        write!(
            stream,
            "POST / HTTP/1.1\r\nHost: {address}\r\nX-Amz-Target: AWSEvents.{action}\r\n\
             Content-Type: application/x-amz-json-1.1\r\nConnection: close\r\nContent-Length: {}\r\n\
             Authorization: AWS4-HMAC-SHA256 Credential=test/20261121/us-east-1/events/aws4_request, \
             SignedHeaders=host, Signature=0\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{action}: {answer}");
    }

    pub(crate) fn url(&self) -> &str {
        self.emulator.url()
    }

    /// Sends a message to the queue, as S3 does.
    pub(crate) fn send(&self, body: &str) {
        self.send_to("events", body);
    }

    /// Sends a message to that queue.
    pub(crate) fn send_to(&self, queue: &str, body: &str) {
        self.runtime.block_on(async {
            let url = self.sqs.get_queue_url().queue_name(queue).send().await.unwrap().queue_url.unwrap();
            self.sqs.send_message().queue_url(url).message_body(body).send().await.unwrap();
        });
    }

    /// What the bucket has told since the last time, where it tells it to the test.
    pub(crate) fn take_told(&self) -> Vec<String> {
        self.runtime.block_on(async {
            let url = self.sqs.get_queue_url().queue_name("told").send().await.unwrap().queue_url.unwrap();
            let mut told = Vec::new();
            loop {
                let some = self.sqs.receive_message().queue_url(&url).max_number_of_messages(10).send().await.unwrap();
                if some.messages().is_empty() {
                    return told;
                }
                for message in some.messages() {
                    told.push(message.body().unwrap().to_owned());
                    let handle = message.receipt_handle().unwrap();
                    self.sqs.delete_message().queue_url(&url).receipt_handle(handle).send().await.unwrap();
                }
            }
        })
    }

    /// What the catalog has of a key.
    pub(crate) fn rows(&self, key: &ObjectKey) -> Vec<CopyRow> {
        let client = self.emulator.service().dynamodb(&self.emulator.config());
        let nonces = Arc::new(SystemNonces::new().unwrap());
        self.runtime.block_on(async {
            let table = Table::named("rows");
            let catalog = DynamoDbCatalog::open(client, &table, Arc::new(SystemClock), nonces);
            catalog.await.unwrap().partition(key).await.unwrap().rows
        })
    }

    pub(crate) fn versions(&self, bucket: &str) {
        let on = VersioningConfiguration::builder().status(BucketVersioningStatus::Enabled).build();
        let put = self.s3.put_bucket_versioning().bucket(bucket).versioning_configuration(on);
        self.runtime.block_on(put.send()).unwrap();
    }

    /// Puts; what the bucket says of it.
    pub(crate) fn put(&self, key: &str, text: &str) -> Version {
        let body = ByteStream::from(text.as_bytes().to_vec());
        let put = self.runtime.block_on(self.s3.put_object().bucket("docs").key(key).body(body).send()).unwrap();
        let etag = ETag::from(put.e_tag().unwrap().trim_matches('"'));
        Version { version_id: put.version_id().map(VersionId::from), etag, size: text.len() as u64 }
    }

    pub(crate) fn delete(&self, key: &str) {
        self.runtime.block_on(self.s3.delete_object().bucket("docs").key(key).send()).unwrap();
    }

    /// The text of an object; `None`: it is not there.
    fn text(&self, bucket: &str, key: &str) -> Option<String> {
        self.runtime.block_on(async {
            match self.s3.get_object().bucket(bucket).key(key).send().await {
                Ok(object) => Some(String::from_utf8(object.body.collect().await.unwrap().to_vec()).unwrap()),
                Err(error) => {
                    assert_eq!(error.code(), Some("NoSuchKey"), "{error:?}");
                    None
                }
            }
        })
    }

    /// Keys and texts, without what says whose the bucket is.
    pub(crate) fn objects(&self, bucket: &str) -> BTreeMap<String, String> {
        let listed = self.runtime.block_on(self.s3.list_objects_v2().bucket(bucket).send()).unwrap();
        let keys = listed.contents().iter().map(|object| object.key().unwrap().to_owned());
        let keys = keys.filter(|key| key != ".afterimage/owner.toml");
        // What goes between the two is not there.
        keys.filter_map(|key| Some((key.clone(), self.text(bucket, &key)?))).collect()
    }

    /// Writes a configuration with one policy in this service.
    pub(crate) fn configure(&self, folder: &Folder, policy: &str) {
        self.configure_at(folder, policy, self.url());
    }

    /// The same, with the service reached at that address.
    pub(crate) fn configure_at(&self, folder: &Folder, policy: &str, url: &str) {
        let service = format!("[[service]]\nname = \"cloud\"\nendpoint = \"{url}\"\n");
        let terms = "grace = \"0s\"\nclean = \"every day\"\nbreaker = \"off\"";
        let terms = if policy.contains("mirror") { "breaker = \"off\"" } else { terms };
        let text = format!("default_policy = \"off\"\n{service}[[policy]]\nname = \"docs\"\n{policy}\n{terms}\n");
        fs::write(folder.root().join("cloud.toml"), text).unwrap();
    }
}

fn arn(queue: &str) -> String {
    format!("arn:aws:sqs:us-east-1:000000000000:{queue}")
}

pub(crate) const IN_THE_CLOUD: &str = "source = \"s3://cloud@docs\"\ndestination = \"s3://cloud@copies\"\n\
                            catalog = \"dynamodb://cloud@rows\"\nevents = \"sqs://cloud@events\"\nkeep = 3";

pub(crate) fn serve(folder: &Folder) -> Serving {
    let serving = folder.start(&["--config", "cloud.toml", "serve", "--make-tables"]);
    folder.wait("a reconcile", |status| status["policies"][0]["reconciled_at_ms"].is_i64());
    serving
}

pub(crate) fn until(folder: &Folder, what: &str, so: impl Fn() -> bool) {
    assert!((0..LOOKS).any(|_| so()), "waited in vain for {what}\n{}", folder.log());
}

/// The states of a key's copies, looked at until they are these.
fn wait_for(folder: &Folder, key: &str, states: &[&str]) -> Value {
    let mut last = Value::Null;
    for _ in 0..LOOKS {
        last = folder.json(&["history", key]);
        let copies = last["policies"][0]["copies"].as_array().cloned().unwrap_or_default();
        let mut found: Vec<&str> = copies.iter().map(|copy| copy["state"].as_str().unwrap()).collect();
        found.sort_unstable();
        if found == states {
            return last;
        }
    }
    panic!("{key} did not come to {states:?}: {last:#}\n{}", folder.log());
}

/// Four versions, of which three copies stay; the object goes and comes back; it goes again, and its copies with it.
fn walk(cloud: &Cloud, folder: &Folder, key: &str) {
    for n in 1..=4_usize {
        cloud.put(key, &format!("draft {n}"));
        // The oldest go as the newest comes: neither the rows nor the objects alone say that both are done.
        let kept: Vec<String> = (n.saturating_sub(2).max(1)..=n).map(|n| format!("draft {n}")).collect();
        until(folder, &format!("{kept:?} of {key}"), || {
            let mut there: Vec<String> = cloud.objects("copies").into_values().collect();
            there.sort();
            there == kept
        });
        wait_for(folder, key, &["active"; 4][..n.min(3)]);
    }
    cloud.delete(key);
    wait_for(folder, key, &["disowned"; 3]);
    folder.ok(&["undelete", key]);
    assert_eq!(cloud.text("docs", key).as_deref(), Some("draft 4"), "{key}");
    // What was put back is a version of its own, beside the copy that it came from.
    wait_for(folder, key, &["active", "active", "active", "active", "disowned", "disowned", "disowned"]);
    cloud.delete(key);
    wait_for(folder, key, &["disowned"; 7]);
    folder.wait("an empty queue", |status| status["queue"]["waiting"] == 0);
    folder.ok(&["clean", "--now"]);
    assert_eq!(cloud.objects("copies"), BTreeMap::new(), "{key}");
    assert_eq!(folder.json(&["history", key])["policies"][0]["copies"], json!([]));
}

#[test]
#[ignore = "needs the emulator: cargo xtask ci aws"]
fn the_walk_of_a_key_in_services_with_notifications() {
    let (cloud, folder) = (Cloud::new(Through::Notification), Folder::new());
    cloud.configure(&folder, IN_THE_CLOUD);
    let serving = serve(&folder);
    let longest = "k/".repeat(512);
    for key in ODD_KEYS.iter().chain([&longest.as_str()]) {
        walk(&cloud, &folder, key);
    }
    let status = folder.wait("an empty queue", |status| status["queue"]["waiting"] == 0);
    assert_eq!(status["queue"]["dead_letters"], 0, "{status:#}");
    let capacity = &status["policies"][0]["capacity"];
    assert!(capacity["read"].as_f64() > Some(0.0) && capacity["write"].as_f64() > Some(0.0), "{status:#}");
    let told = folder.ok(&["status"]);
    assert!(told.contains("  about ") && told.contains("  the catalog used "), "{told}");
    assert_eq!(folder.json(&["reconcile"])["reports"][0]["counts"]["gap"], 0);
    assert_eq!(serving.stop(), 0, "{}", folder.log());
}

#[test]
#[ignore = "needs the emulator: cargo xtask ci aws"]
fn the_walk_of_a_key_in_versioned_buckets_with_events_through_eventbridge() {
    let (cloud, folder) = (Cloud::new(Through::EventBridge), Folder::new());
    ["docs", "copies"].iter().for_each(|bucket| cloud.versions(bucket));
    cloud.configure(&folder, &format!("{IN_THE_CLOUD}\nchannel = \"eventbridge\""));
    let _serving = serve(&folder);
    for key in ODD_KEYS {
        walk(&cloud, &folder, key);
    }
    // A cleaner that only hid them would free nothing.
    let left = cloud.runtime.block_on(cloud.s3.list_object_versions().bucket("copies").send()).unwrap();
    let keys: Vec<&str> = left.versions().iter().filter_map(|version| version.key()).collect();
    assert_eq!((keys, left.delete_markers().len()), (vec![".afterimage/owner.toml"], 0), "{left:?}");
}

#[test]
#[ignore = "needs the emulator: cargo xtask ci aws"]
fn copies_of_a_bucket_here_go_to_a_service_and_those_of_a_service_come_here() {
    let (cloud, folder) = (Cloud::new(Through::Notification), Folder::new());
    let here = "[[policy]]\nname = \"up\"\nsource = \"local://mine\"\ndestination = \"s3://cloud@copies\"";
    let there = "source = \"s3://cloud@docs\"\nevents = \"sqs://cloud@events\"\ndestination = \"local://docs-copies\"";
    cloud.configure(&folder, there);
    let text = fs::read_to_string(folder.root().join("cloud.toml")).unwrap();
    fs::write(folder.root().join("cloud.toml"), format!("{text}{here}\n")).unwrap();
    let serving = serve(&folder);
    for key in ODD_KEYS {
        serving.put("mine", key, "up it goes");
        let up = wait_for(&folder, key, &["active"]);
        let copy = up["policies"][0]["copies"][0]["copy_key"].as_str().unwrap();
        assert_eq!(cloud.text("copies", copy).as_deref(), Some("up it goes"), "{key}");
    }
    cloud.put("down.txt", "down it comes");
    let down = wait_for(&folder, "down.txt", &["active"]);
    let copy = down["policies"][0]["copies"][0]["copy_key"].as_str().unwrap();
    assert_eq!(serving.text("docs-copies", copy), "down it comes");
    cloud.delete("down.txt");
    wait_for(&folder, "down.txt", &["disowned"]);
    folder.ok(&["restore", "down.txt", "--policy", "docs"]);
    assert_eq!(cloud.text("docs", "down.txt").as_deref(), Some("down it comes"));
}

#[test]
#[ignore = "needs the emulator: cargo xtask ci aws"]
fn every_command_works_on_a_catalog_that_lists_no_keys() {
    let (cloud, folder) = (Cloud::new(Through::Notification), Folder::new());
    // What was there before the first start is found by the comparison at the start.
    cloud.put("before.txt", "before");
    cloud.configure(&folder, IN_THE_CLOUD);
    let serving = serve(&folder);
    wait_for(&folder, "before.txt", &["active"]);
    for key in ["a.b", "a", "a.b.c"] {
        cloud.put(key, "one");
        wait_for(&folder, key, &["active"]);
        cloud.put(key, "two");
        wait_for(&folder, key, &["active"; 2]);
    }
    let listed = folder.ok(&["ls"]);
    for key in ["a", "a.b", "a.b.c", "before.txt"] {
        let lines = listed.lines().filter(|line| line.split_whitespace().any(|word| word == key)).count();
        assert_eq!(lines, 1, "{key} in\n{listed}");
    }
    // Commands work the same while no daemon runs.
    assert_eq!(serving.stop(), 0, "{}", folder.log());
    let words = ["--config", "cloud.toml"];
    assert_eq!(folder.ok(&[&words[..], &["ls"]].concat()), listed);
    let to = folder.root().join("restored");
    fs::create_dir(&to).unwrap();
    folder.ok(&[&words[..], &["restore", "--everything", "--to", to.to_str().unwrap()]].concat());
    assert_eq!(fs::read_to_string(to.join("a.b.c")).unwrap(), "two");
    let rebuilt = folder.run(&[&words[..], &["reconcile", "--rebuild", "--policy", "docs"]].concat());
    assert_eq!(rebuilt.code, 2, "{rebuilt:?}");
    assert!(rebuilt.err.contains("a catalog in a table is not moved aside, as that of docs"), "{}", rebuilt.err);
}

#[test]
#[ignore = "needs the emulator: cargo xtask ci aws"]
fn a_mirror_in_a_service_equals_its_source_and_does_not_empty_a_bucket_of_others() {
    let (cloud, folder) = (Cloud::new(Through::Notification), Folder::new());
    let mirror = "source = \"s3://cloud@docs\"\ndestination = \"s3://cloud@copies\"\nevents = \"sqs://cloud@events\"\n\
                  mode = \"mirror\"";
    cloud.configure(&folder, mirror);
    let foreign = cloud.s3.put_object().bucket("copies").key("of others").body(ByteStream::from_static(b"theirs"));
    cloud.runtime.block_on(foreign.send()).unwrap();
    let refused = folder.run(&["--config", "cloud.toml", "serve", "--listen", "127.0.0.1:0"]);
    assert!(refused.code == 1 && refused.err.contains("it holds of others, and a mirror deletes"), "{refused:?}");
    cloud.runtime.block_on(cloud.s3.delete_object().bucket("copies").key("of others").send()).unwrap();
    let serving = serve(&folder);
    for (n, key) in ODD_KEYS.iter().enumerate() {
        cloud.put(key, "first");
        match n % 2 {
            0 => drop(cloud.put(key, "second")),
            _ => cloud.delete(key),
        }
    }
    let wanted = cloud.objects("docs");
    assert_eq!(wanted.len(), 3);
    folder.wait("the mirror", |status| {
        status["queue"]["waiting"] == 0 && status["counters"]["events_handled"].as_u64() >= Some(10)
    });
    assert_eq!(cloud.objects("copies"), wanted);
    // The next start finds what it made itself, and goes on.
    assert_eq!(serving.stop(), 0, "{}", folder.log());
    let _serving = serve(&folder);
    assert_eq!(cloud.objects("copies"), wanted);
}

#[test]
#[ignore = "needs the emulator: cargo xtask ci aws"]
fn dead_letters_of_a_queue_are_named_put_back_and_dropped() {
    let (cloud, folder) = (Cloud::new(Through::Notification), Folder::new());
    cloud.configure(&folder, IN_THE_CLOUD);
    let _serving = serve(&folder);
    cloud.send("{ this is no json");
    let dead = |n: u64| folder.wait("dead letters", |status| status["queue"]["dead_letters"] == n);
    dead(1);
    let letters = || folder.json(&["dlq", "list"])["letters"].as_array().unwrap().clone();
    let [letter] = &letters()[..] else { panic!("one message cannot be read: {:#?}", letters()) };
    assert_eq!(
        (&letter["event"], &letter["bucket"]),
        (&json!("unreadable"), &json!("sqs://cloud@events")),
        "{letter:#}"
    );
    assert!(letter["why"].as_str().unwrap().starts_with("unreadable: the message is no JSON"), "{letter:#}");
    let id = letter["id"].to_string();
    assert!(folder.ok(&["dlq", "show", &id]).contains("no JSON"));
    // It is no more readable than before: it dies again, as another message.
    folder.ok(&["dlq", "redrive", &id]);
    folder.wait("the letter's second death", |_| letters().iter().any(|other| other["id"] != letter["id"]));
    assert!(folder.ok(&["dlq", "drop", "--all"]).contains("1 dropped"));
    dead(0);
    assert!(folder.ok(&["audit"]).contains("the message is no JSON"));
}
