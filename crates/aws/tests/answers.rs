//! What the S3 adapter makes of answers that no emulator gives: refused without a reason, slowed down, cut short, and 200
//! with an error inside. A server of the test's own says them; the SDK's retries are off, so that each is seen.

#![expect(clippy::unwrap_used, reason = "a panic is a test's message")]

use aws::{S3Bucket, SdkConfig, Service};
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region, SharedCredentialsProvider};
use engine::error::{ErrorKind, Retry};
use engine::ports::objects::{Attributes, CopyRequest, Onto, Reach, Retrieval, Speed};
use lifecycle::event::Version;
use lifecycle::ids::{ETag, ObjectKey};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::thread;

/// What the server answers to a request line.
type Script = fn(&str) -> String;

/// A bucket at a server that answers by the script; its versioning is asked for first.
async fn bucket(script: Script) -> S3Bucket {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    // It ends with the test's process.
    thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            let mut lines = BufReader::new(&client).lines().map_while(Result::ok);
            let first = lines.next().unwrap_or_default();
            let rest: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
            let answer = match first.contains("?versioning") {
                true => full("200 OK", "<VersioningConfiguration/>"),
                false => script(&first),
            };
            drop(rest);
            client.write_all(answer.as_bytes()).unwrap();
        }
    });
    let keys = Credentials::new("test", "test", None, None, "test");
    let config = SdkConfig::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new("us-east-1"))
        .endpoint_url(&url)
        .retry_config(RetryConfig::disabled())
        .credentials_provider(SharedCredentialsProvider::new(keys))
        .build();
    let service = Service { endpoint: Some(url), path_style: true, ..Service::default() };
    S3Bucket::open(&service, &config, "docs").await.unwrap()
}

fn full(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}

fn object() -> String {
    "HTTP/1.1 200 OK\r\nETag: \"e\"\r\nContent-Length: 3\r\nLast-Modified: Sat, 21 Nov 2026 10:00:00 GMT\r\n\
     Connection: close\r\n\r\n"
        .to_owned()
}

fn error(code: &str) -> String {
    format!("<Error><Code>{code}</Code><Message>no</Message></Error>")
}

fn key(text: &str) -> ObjectKey {
    ObjectKey::new(text).unwrap()
}

fn copy() -> CopyRequest {
    CopyRequest {
        from: key("k"),
        version: Version { version_id: None, etag: ETag::from("e"), size: 3 },
        to: key("copy"),
        onto: Onto::Anything,
        add_metadata: BTreeMap::new(),
        seen: None,
    }
}

#[tokio::test]
async fn a_key_that_may_not_be_looked_at_is_unknown_and_never_gone() {
    // Without the right to list, S3 answers so for keys that are not there, too.
    let bucket = bucket(|_| "HTTP/1.1 403 Forbidden\r\nConnection: close\r\n\r\n".to_owned()).await;
    let refused = bucket.reader().head(&key("k"), None).await.unwrap_err();
    let ErrorKind::AccessDenied(right) = &refused.kind else { panic!("{refused}") };
    assert!(right.contains("s3:GetObject") && right.contains("s3:ListBucket"), "{right}");
    assert_eq!(refused.retry(), Retry::Later, "a person may grant it");
    let refused = bucket.copier(&bucket).unwrap().copy(&copy()).await.unwrap_err();
    assert!(matches!(refused.kind, ErrorKind::AccessDenied(_)), "{refused}");
}

#[tokio::test]
async fn a_copy_that_is_answered_with_200_and_an_error_inside_is_no_copy() {
    let bucket = bucket(|line| match line.starts_with("PUT") {
        true => full("200 OK", &error("InternalError")),
        false => object(),
    })
    .await;
    let refused = bucket.copier(&bucket).unwrap().copy(&copy()).await.unwrap_err();
    assert_ne!(refused.retry(), Retry::Never, "{refused}");
}

/// What is put although it is there says that the condition was not heeded; nobody may look first, as `put` does.
#[tokio::test]
async fn a_store_is_asked_whether_it_heeds_conditions_itself() {
    let probe = key(".afterimage/conditions.json");
    let heedless = bucket(|line| match line.starts_with("PUT") {
        true => "HTTP/1.1 200 OK\r\nETag: \"e\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_owned(),
        false => object(),
    })
    .await;
    assert!(!heedless.writer().heeds_conditions(&probe).await.unwrap());
    let heedful = bucket(|line| match line.starts_with("PUT") {
        true => full("412 Precondition Failed", &error("PreconditionFailed")),
        false => object(),
    })
    .await;
    assert!(heedful.writer().heeds_conditions(&probe).await.unwrap());
}

/// What is archived costs one request: the server knows no other.
#[tokio::test]
async fn a_small_object_is_put_where_nothing_is_by_one_request() {
    let answers: Script = |line| match line.split(' ').next() {
        Some("PUT") if line.contains("taken") => full("412 Precondition Failed", &error("PreconditionFailed")),
        Some("PUT") => full("200 OK", ""),
        _ => full("500 Internal Server Error", &error("InternalError")),
    };
    let bucket = bucket(answers).await;
    let put =
        async |name: &str| bucket.writer().put_new(&key(name), "{}".into(), &Attributes::default()).await.unwrap();
    assert_eq!([put("free").await, put("taken").await], [true, false]);
}

fn archived(class: &str, restore: &str) -> String {
    let more = format!("x-amz-storage-class: {class}\r\nx-amz-restore: {restore}\r\nConnection");
    object().replace("Connection", &more)
}

#[tokio::test]
async fn what_lies_in_an_archive_tier_is_told_asked_for_and_never_an_error_when_it_is_on_its_way() {
    let answers: Script = |line| match line.split(' ').next() {
        Some("HEAD") if line.contains("coming") => archived("GLACIER", "ongoing-request=\"true\""),
        Some("HEAD") if line.contains("there") => archived("GLACIER", "ongoing-request=\"false\""),
        Some("HEAD") => archived("DEEP_ARCHIVE", ""),
        Some("POST") if line.contains("coming") => full("409 Conflict", &error("RestoreAlreadyInProgress")),
        Some("POST") => full("202 Accepted", ""),
        _ => full("403 Forbidden", &error("InvalidObjectState")),
    };
    let bucket = bucket(answers).await.reader();
    for (name, reach) in [("there", Reach::Readable), ("coming", Reach::OnItsWay), ("deep", Reach::Archived)] {
        assert_eq!(bucket.head(&key(name), None).await.unwrap().unwrap().reach, reach);
    }
    let refused = bucket.get(&key("deep"), None, None).await.err().unwrap();
    assert_eq!(refused.kind, ErrorKind::Archived);
    let (hours, minutes) = (Retrieval::default(), Retrieval { speed: Speed::Expedited, ..Retrieval::default() });
    bucket.retrieve(&key("deep"), &hours).await.unwrap();
    bucket.retrieve(&key("coming"), &minutes).await.unwrap();
    let deep = bucket.retrieve(&key("deep"), &minutes).await.unwrap_err();
    assert!(deep.to_string().contains("no expedited retrieval"), "{deep}");
}

#[tokio::test]
async fn a_service_that_asks_to_slow_down_is_asked_again_at_a_lower_rate() {
    let bucket = bucket(|_| full("503 Slow Down", &error("SlowDown"))).await;
    let slowed = bucket.reader().list("", None, 1_000).await.unwrap_err();
    assert_eq!((&slowed.kind, slowed.retry()), (&ErrorKind::Throttled, Retry::Throttled), "{slowed}");
}

#[tokio::test]
async fn a_listing_that_is_cut_short_or_fails_is_no_empty_bucket() {
    let cut: Script = |_| {
        "HTTP/1.1 200 OK\r\nContent-Length: 89\r\nConnection: close\r\n\r\n<ListBucketResult><Name>docs</Name>"
            .to_owned()
    };
    let failed: Script = |_| full("500 Internal Server Error", "");
    let nothing: Script = |_| String::new();
    for script in [cut, failed, nothing] {
        let refused = bucket(script).await.reader().list("", None, 1_000).await.unwrap_err();
        assert_ne!(refused.retry(), Retry::Never, "{refused}");
    }
}

#[tokio::test]
async fn a_clock_that_is_wrong_is_named() {
    let bucket = bucket(|_| full("403 Forbidden", &error("RequestTimeTooSkewed"))).await;
    let refused = bucket.reader().list("", None, 1_000).await.unwrap_err();
    assert!(refused.to_string().contains("this machine's clock is wrong"), "{refused}");
    assert_eq!(refused.retry(), Retry::Later, "a person may set it");
}
