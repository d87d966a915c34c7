//! A policy on the two servers in this process, wired as the daemon wires one whose source, destination and catalog are in
//! services, with its journal in a file; and the count of its requests.

use super::job::Job;
use anyhow::Result;
use async_trait::async_trait;
use aws::dynamodb::{DynamoDbCatalog, Table};
use aws::{S3Bucket, SdkConfig, Service};
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use engine::clock::{SystemClock, SystemNonces};
use engine::error::PortResult;
use engine::policy::{Mode, Policy};
use engine::ports::clock::{Clock, Nonces};
use engine::ports::metrics::Counters;
use engine::steps::purge::Purger;
use engine::wrap::owned::{Claim, Introduces, Owner, Ownership};
use lifecycle::ids::PolicyName;
use local::journal::FileJournal;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A service, and what its clients share: each try of each call is counted.
pub(crate) struct Endpoint {
    pub(crate) service: Service,
    pub(crate) config: SdkConfig,
}

impl Endpoint {
    pub(crate) async fn of(url: &str, requests: &Arc<AtomicU64>) -> Endpoint {
        let service = Service { endpoint: Some(url.to_owned()), path_style: true, ..Service::default() };
        let inner = aws_smithy_http_client::Builder::new().build_http();
        let counting = Counting { inner, requests: requests.clone() };
        let config = service.load().await.into_builder().http_client(SharedHttpClient::new(counting)).build();
        Endpoint { service, config }
    }

    pub(crate) fn bucket(&self, name: &str) -> S3Bucket {
        S3Bucket::new(&self.service, &self.config, name)
    }
}

/// A policy at work.
pub(crate) struct Wired {
    pub(crate) policy: Policy,
    pub(crate) requests: Arc<AtomicU64>,
}

impl Wired {
    /// Opens everything, and marks the destination as its own. The table is there.
    pub(crate) async fn open(job: &Job) -> Result<Wired> {
        let requests = Arc::new(AtomicU64::new(0));
        let (s3, dynamodb) = (Endpoint::of(&job.s3, &requests).await, Endpoint::of(&job.dynamodb, &requests).await);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let nonces: Arc<dyn Nonces> = Arc::new(SystemNonces::new()?);
        let client = dynamodb.service.dynamodb(&dynamodb.config);
        let table = Table { copies_per_key: job.keep as u64, ..Table::named(&job.table) };
        let catalog = Arc::new(DynamoDbCatalog::open(client, &table, clock.clone(), nonces.clone()).await?);
        let (source, destination) = (s3.bucket(&job.source), s3.bucket(&job.destination));
        let (own, inside) = (destination.copier(&source), destination.copier(&destination));
        let (Some(copier), Some(recopier)) = (own, inside) else { anyhow::bail!("both buckets are of one service") };
        let me = Box::new(Me { catalog: catalog.clone() });
        let ownership = Arc::new(Ownership::new(
            job.destination.clone(),
            destination.writer(),
            source.reader(),
            String::new(),
            me,
            Claim::Own,
        ));
        source.is_versioned().await?;
        destination.is_versioned().await?;
        ownership.hold().await?;
        let policy = Policy {
            name: PolicyName::from("bench"),
            mode: Mode::Copies,
            rules: crate::rig::rules(),
            source_bucket: job.source.clone(),
            source_prefix: String::new(),
            source: source.reader(),
            destination: destination.reader(),
            copier: ownership.copier(copier),
            recopier: ownership.copier(recopier),
            purger: Purger::new(ownership.purger(destination.purger())),
            catalog,
            keys: None,
            scratch: job.folder.clone(),
            journal: Arc::new(FileJournal::open(&job.folder.join("journal"))?),
            clock,
            nonces,
            metrics: Arc::new(Counters::default()),
        };
        requests.store(0, Ordering::Relaxed);
        Ok(Wired { policy, requests })
    }

    /// Requests sent since it was opened.
    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }
}

struct Me {
    catalog: Arc<DynamoDbCatalog>,
}

#[async_trait]
impl Introduces for Me {
    async fn owner(&self) -> PortResult<Owner> {
        let catalog = self.catalog.identity().await?;
        Ok(Owner { policy: "bench".to_owned(), mode: Mode::Copies, catalog, at: "bench".to_owned() })
    }
}

/// The SDK's HTTP client with a count.
#[derive(Debug)]
struct Counting {
    inner: SharedHttpClient,
    requests: Arc<AtomicU64>,
}

#[derive(Debug)]
struct CountingConnector {
    inner: SharedHttpConnector,
    requests: Arc<AtomicU64>,
}

impl HttpClient for Counting {
    fn http_connector(&self, settings: &HttpConnectorSettings, parts: &RuntimeComponents) -> SharedHttpConnector {
        let inner = self.inner.http_connector(settings, parts);
        SharedHttpConnector::new(CountingConnector { inner, requests: self.requests.clone() })
    }
}

impl HttpConnector for CountingConnector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.inner.call(request)
    }
}
