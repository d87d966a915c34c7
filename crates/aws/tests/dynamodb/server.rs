//! What the tests of the catalog stand on: an embedded engine (dynoxide) on a free port of loopback, and what stands between
//! it and the client: a recorder that refuses every Scan, and answers put in the engine's place.
//!
//! Where the engine differs from AWS: its index and its counts of items are up to date at once (AWS: late; the catalog asks
//! for neither), entries of one time come in key order (AWS: in none that is promised), it never throttles (put in here),
//! and items expire only when `sweep_ttl` is called (AWS: within a few days).

use aws::dynamodb::{DynamoDbCatalog, Table, create_table};
use aws_sdk_dynamodb::config::interceptors::{
    BeforeDeserializationInterceptorContextMut, BeforeTransmitInterceptorContextMut,
};
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::{BehaviorVersion, Config, ConfigBag, Credentials, Intercept, Region, RuntimeComponents};
use aws_sdk_dynamodb::{Client, error::BoxError};
use aws_smithy_types::config_bag::{Storable, StoreReplace};
use dynoxide::Database;
use engine::memory::clock::MemoryClock;
use engine::memory::nonces::MemoryNonces;
use engine::ports::clock::{Clock, Nonces};
use lifecycle::time::UnixMs;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// The moment at which every test begins.
pub(crate) const NOW: UnixMs = UnixMs(1_795_000_000_000);

/// What is answered instead of the engine.
#[derive(Clone, Debug)]
pub(crate) struct Instead {
    /// Of which calls.
    pub(crate) operation: &'static str,
    /// Whether the engine gets the call all the same, so that it counts.
    pub(crate) done: bool,
    pub(crate) status: u16,
    pub(crate) body: String,
}

/// Calls by operation, and answers put in.
#[derive(Debug, Default)]
pub(crate) struct Between {
    calls: Mutex<BTreeMap<String, usize>>,
    instead: Mutex<VecDeque<Instead>>,
    /// Such calls are unknown to the service.
    pub(crate) unknown: Mutex<Option<&'static str>>,
}

const TARGET: &str = "x-amz-target";

/// Marks a try of a call whose answer is put in, with its operation.
#[derive(Clone, Debug)]
struct Marked(Option<String>);

impl Storable for Marked {
    type Storer = StoreReplace<Marked>;
}

impl Between {
    /// Calls since the last time, by operation.
    pub(crate) fn take_calls(&self) -> BTreeMap<String, usize> {
        std::mem::take(&mut *self.calls.lock().unwrap())
    }

    /// The next call of that operation is answered so.
    pub(crate) fn answer(&self, operation: &'static str, done: bool, status: u16, body: impl Into<String>) {
        self.instead.lock().unwrap().push_back(Instead { operation, done, status, body: body.into() });
    }

    /// The next calls of that operation fail with this code.
    pub(crate) fn fail(&self, operation: &'static str, code: &str, times: usize) {
        let body = format!("{{\"__type\":\"com.amazonaws.dynamodb.v20120810#{code}\",\"message\":\"put in\"}}");
        (0..times).for_each(|_| self.answer(operation, false, 400, body.clone()));
    }

    pub(crate) fn nothing_is_left(&self) {
        assert_eq!(self.instead.lock().unwrap().len(), 0, "answers that nobody asked for");
    }
}

/// The interceptor of one client.
#[derive(Clone, Debug)]
struct Hook(Arc<Between>);

impl Intercept for Hook {
    fn name(&self) -> &'static str {
        "between client and engine"
    }

    fn modify_before_transmit(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        config.interceptor_state().store_put(Marked(None));
        let request = context.request_mut();
        let target = request.headers().get(TARGET).unwrap_or_default();
        let operation = target.rsplit('.').next().unwrap_or_default().to_owned();
        let body = request.body().bytes().map(|body| String::from_utf8_lossy(body).into_owned()).unwrap_or_default();
        if operation == "Scan" || operation == "ExecuteStatement" || body.contains("SELECT") {
            return Err(format!("nothing may be scanned: {operation} {body}").into());
        }
        *self.0.calls.lock().unwrap().entry(operation.clone()).or_default() += 1;
        if !operation.starts_with("Describe") && !operation.contains("Table") && !operation.contains("TimeToLive") {
            assert!(body.contains("\"ReturnConsumedCapacity\":\"TOTAL\""), "capacity is asked for: {operation}");
        }
        let unknown = self.0.unknown.lock().unwrap().is_some_and(|unknown| unknown == operation);
        let done = match self.0.instead.lock().unwrap().iter().find(|instead| instead.operation == operation) {
            Some(instead) => instead.done,
            None if unknown => false,
            None => return Ok(()),
        };
        config.interceptor_state().store_put(Marked(Some(operation)));
        if !done {
            request.headers_mut().insert(TARGET, "DynamoDB_20120810.DescribeLimits");
        }
        Ok(())
    }

    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let Some(Marked(Some(operation))) = config.load::<Marked>() else { return Ok(()) };
        let mut waiting = self.0.instead.lock().unwrap();
        let place = waiting.iter().position(|instead| instead.operation == *operation);
        let unknown = "{\"__type\":\"com.amazon.coral.service#UnknownOperationException\"}";
        let (status, body) = match place.and_then(|place| waiting.remove(place)) {
            Some(instead) => (instead.status, instead.body),
            None => (400, unknown.to_owned()),
        };
        let response = context.response_mut();
        *response.status_mut() = status.try_into()?;
        *response.body_mut() = body.into();
        Ok(())
    }
}

/// A running engine with a client.
pub(crate) struct Engine {
    pub(crate) client: Client,
    pub(crate) between: Arc<Between>,
    pub(crate) database: Database,
    pub(crate) clock: Arc<MemoryClock>,
    nonces: Arc<MemoryNonces>,
    made: AtomicU64,
    stop: oneshot::Sender<()>,
    served: JoinHandle<Result<(), String>>,
}

impl Engine {
    pub(crate) async fn start() -> Engine {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let database = Database::memory().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let until = async move {
            // A dropped sender stops it as well.
            drop(stopped.await);
        };
        let served = tokio::spawn(dynoxide::server::serve_with_shutdown(listener, database.clone(), until));
        let between = Arc::new(Between::default());
        Engine {
            client: client(address, &between),
            between,
            database,
            clock: Arc::new(MemoryClock::skipping(NOW)),
            nonces: Arc::new(MemoryNonces::seeded(7)),
            made: AtomicU64::new(0),
            stop,
            served,
        }
    }

    pub(crate) async fn stop(self) {
        let Engine { client, stop, served, .. } = self;
        drop(client);
        stop.send(()).unwrap();
        served.await.unwrap().unwrap();
    }

    /// A name that no table has.
    pub(crate) fn name(&self) -> String {
        format!("catalog.{}", self.made.fetch_add(1, Ordering::Relaxed))
    }

    /// An empty catalog in a table of its own.
    pub(crate) async fn catalog(&self) -> Arc<DynamoDbCatalog> {
        self.make(Table::named(self.name())).await
    }

    /// The catalog of that table, which is made.
    pub(crate) async fn make(&self, table: Table) -> Arc<DynamoDbCatalog> {
        create_table(&self.client, &table.name, &*self.clock).await.unwrap();
        self.open(&table).await
    }

    /// The catalog of that table.
    pub(crate) async fn open(&self, table: &Table) -> Arc<DynamoDbCatalog> {
        let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        let nonces = Arc::clone(&self.nonces) as Arc<dyn Nonces>;
        Arc::new(DynamoDbCatalog::open(self.client.clone(), table, clock, nonces).await.unwrap())
    }
}

fn client(address: SocketAddr, between: &Arc<Between>) -> Client {
    let quickly = RetryConfig::standard().with_max_attempts(4).with_initial_backoff(Duration::from_millis(1));
    let config = Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new("eu-central-1"))
        .endpoint_url(format!("http://{address}"))
        .credentials_provider(Credentials::new("key", "secret", None, None, "tests"))
        .retry_config(quickly)
        .interceptor(Hook(Arc::clone(between)))
        .build();
    Client::from_conf(config)
}
