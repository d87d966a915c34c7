//! The S3 adapter against a real S3 server: this project's own endpoint, on loopback, which takes every legal key.

#![expect(clippy::unwrap_used, reason = "a panic is a test's message")]

use aws::{CopySizes, S3Bucket, Service};
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_s3::config::{Credentials as Keys, SharedCredentialsProvider};
use bytes::Bytes;
use engine::conformance::objects::{Buckets, objects};
use engine::error::ErrorKind;
use engine::memory::bucket::body;
use engine::ports::clock::{Clock, Nonces};
use engine::ports::objects::{Attributes, Copied, CopyRequest, Onto, Written};
use lifecycle::ids::ObjectKey;
use local::clock::{SystemClock, SystemNonces};
use local::credentials::{Credentials, Keyring};
use local::endpoint::{Endpoint, NoHooks, serve_endpoint};
use local::store::Store;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

/// An S3 endpoint in this process; it ends with the test.
struct Served {
    _folder: tempfile::TempDir,
    _stop: DropGuard,
    service: Service,
    config: SdkConfig,
    made: AtomicUsize,
}

impl Served {
    async fn start() -> Served {
        let folder = tempfile::tempdir().unwrap();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let nonces: Arc<dyn Nonces> = Arc::new(SystemNonces::new().unwrap());
        let store = Store::open(folder.path(), Arc::clone(&clock), Arc::clone(&nonces)).await.unwrap();
        let (credentials, _) = Credentials::load_or_create(folder.path()).unwrap();
        let keys = Keys::new(credentials.access_key(), credentials.secret_key(), None, None, "test");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let endpoint = Endpoint { store, keyring: Keyring::new(credentials), hooks: Arc::new(NoHooks), clock, nonces };
        let cancel = CancellationToken::new();
        tokio::spawn(serve_endpoint(listener, endpoint, cancel.clone()));
        let service = Service { endpoint: Some(url.clone()), path_style: true, ..Service::default() };
        let config = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .endpoint_url(url)
            .credentials_provider(SharedCredentialsProvider::new(keys))
            .build();
        Served { _folder: folder, _stop: cancel.drop_guard(), service, config, made: AtomicUsize::new(0) }
    }

    /// A new bucket.
    async fn bucket(&self) -> S3Bucket {
        let name = format!("bucket-{}", self.made.fetch_add(1, Ordering::Relaxed));
        self.service.s3(&self.config).create_bucket().bucket(&name).send().await.unwrap();
        S3Bucket::open(&self.service, &self.config, &name).await.unwrap()
    }

    async fn buckets(&self) -> Buckets {
        let (source, destination) = (self.bucket().await, self.bucket().await);
        Buckets {
            source: source.writer(),
            destination: destination.reader(),
            copy: destination.copier(&source).expect("one service"),
            purge: destination.purger(),
        }
    }
}

fn key(text: &str) -> ObjectKey {
    ObjectKey::new(text).unwrap()
}

#[tokio::test]
async fn the_adapter_keeps_the_contract_of_the_object_ports() {
    let served = Served::start().await;
    objects(|| served.buckets()).await;
}

#[tokio::test]
async fn a_body_larger_than_a_part_goes_in_parts_and_reads_back() {
    let served = Served::start().await;
    let bucket = served.bucket().await.writer();
    let bytes: Bytes = (0..20_000_003_u32).map(|n| (n % 251) as u8).collect();
    let tags = BTreeMap::from([("a b".to_owned(), "ä&=".to_owned())]);
    let attributes = Attributes { content_type: Some("x/y".to_owned()), tags, ..Attributes::default() };
    let written = bucket.put(&key("large"), body(bytes.clone()), &attributes, Onto::Nothing).await.unwrap();
    let Written::Done(head) = written else { panic!("the key was free") };
    assert_eq!(head.version.size, bytes.len() as u64);
    let object = bucket.get(&key("large"), None, None).await.unwrap().unwrap();
    assert_eq!(object.attributes, attributes);
    assert_eq!(engine::memory::bucket::collect(object.body).await.unwrap(), bytes);
    let again = bucket.put(&key("large"), body(bytes), &attributes, Onto::Nothing).await.unwrap();
    assert_eq!(again, Written::DestinationChanged);
}

#[tokio::test]
async fn a_bucket_that_is_not_there_is_an_error_and_never_an_absence() {
    let served = Served::start().await;
    let source = served.bucket().await;
    let head = match source.writer().put(&key("a"), body("1".into()), &Attributes::default(), Onto::Anything).await {
        Ok(Written::Done(head)) => head,
        other => panic!("{other:?}"),
    };
    let gone = served.bucket().await;
    let copier = gone.copier(&source).expect("one service");
    let client = served.service.s3(&served.config);
    client.delete_bucket().bucket("bucket-1").send().await.unwrap();

    assert_eq!(gone.reader().head(&key("a"), None).await.unwrap_err().kind, ErrorKind::Missing);
    assert_eq!(gone.reader().get(&key("a"), None, None).await.map(drop).unwrap_err().kind, ErrorKind::Missing);
    assert_eq!(gone.reader().list("", None, 10).await.unwrap_err().kind, ErrorKind::Missing, "no empty listing");
    let request = CopyRequest {
        from: key("a"),
        version: head.version,
        to: key("a.copy"),
        onto: Onto::Anything,
        add_metadata: BTreeMap::new(),
        seen: None,
    };
    assert_eq!(copier.copy(&request).await.unwrap_err().kind, ErrorKind::Missing);
    let back = source.copier(&gone).expect("one service").copy(&request).await;
    assert_eq!(back.unwrap_err().kind, ErrorKind::Missing, "an unreachable source has no absent objects");
}

#[tokio::test]
async fn wrong_credentials_are_refused_with_what_they_lack() {
    let served = Served::start().await;
    let bucket = served.bucket().await;
    let keys = Keys::new("wrong", "wrong", None, None, "test");
    let config =
        served.config.clone().into_builder().credentials_provider(SharedCredentialsProvider::new(keys)).build();
    let error = S3Bucket::open(&served.service, &config, "bucket-0").await.unwrap_err();
    assert!(matches!(error.kind, ErrorKind::AccessDenied(_)), "{error:?}");
    drop(bucket);
}

#[tokio::test]
async fn two_services_have_no_copier_of_their_own() {
    let (one, other) = (Served::start().await, Served::start().await);
    assert!(one.bucket().await.copier(&other.bucket().await).is_none());
}

#[tokio::test]
async fn a_copy_of_the_same_content_is_the_same_copy() {
    let served = Served::start().await;
    let buckets = served.buckets().await;
    let put = buckets.source.put(&key("a"), body("1".into()), &Attributes::default(), Onto::Anything).await.unwrap();
    let Written::Done(head) = put else { panic!("unconditional") };
    let request = CopyRequest {
        from: key("a"),
        version: head.version,
        to: key("a.copy"),
        onto: Onto::Anything,
        add_metadata: BTreeMap::new(),
        seen: None,
    };
    let (one, two) = (buckets.copy.copy(&request).await.unwrap(), buckets.copy.copy(&request).await.unwrap());
    let (Copied::Done(one), Copied::Done(two)) = (one, two) else { panic!("both are done") };
    assert_eq!(one.version, two.version);
}

#[tokio::test]
async fn what_is_too_large_for_one_request_is_copied_in_parts_with_all_that_it_has() {
    const MIB: u64 = 1024 * 1024;
    let served = Served::start().await;
    let source = served.bucket().await;
    let destination = served.bucket().await.copying_by(CopySizes { single_max: MIB, part: 5 * MIB });
    let bytes: Bytes = (0..12_000_001_u32).map(|n| (n % 253) as u8).collect();
    let attributes = Attributes {
        content_type: Some("x/y".to_owned()),
        metadata: BTreeMap::from([("colour".to_owned(), "blue".to_owned())]),
        tags: BTreeMap::from([("keep".to_owned(), "yes".to_owned())]),
        ..Attributes::default()
    };
    let put = source.writer().put(&key("a b+c"), body(bytes.clone()), &attributes, Onto::Anything).await.unwrap();
    let Written::Done(head) = put else { panic!("unconditional") };
    let request = CopyRequest {
        from: key("a b+c"),
        version: head.version,
        to: key("a b+c.copy"),
        onto: Onto::Nothing,
        add_metadata: BTreeMap::from([("added".to_owned(), "1".to_owned())]),
        seen: None,
    };
    let copier = destination.copier(&source).expect("one service");
    let Copied::Done(_) = copier.copy(&request).await.unwrap() else { panic!("the key was free") };
    let object = destination.reader().get(&request.to, None, None).await.unwrap().unwrap();
    let mut wanted = attributes;
    wanted.metadata.insert("added".to_owned(), "1".to_owned());
    assert_eq!(object.attributes, wanted);
    assert_eq!(engine::memory::bucket::collect(object.body).await.unwrap(), bytes);

    assert_eq!(copier.copy(&request).await.unwrap(), Copied::DestinationChanged, "the key is taken");
    let mut other = CopyRequest { onto: Onto::Anything, ..request };
    other.version.etag = "another".into();
    assert_eq!(copier.copy(&other).await.unwrap(), Copied::SourceChanged);
    let uploads = served.service.s3(&served.config).list_multipart_uploads().bucket("bucket-1").send().await.unwrap();
    assert_eq!(uploads.uploads().len(), 0, "no upload is left behind");
}
