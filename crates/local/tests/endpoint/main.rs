//! The endpoint over real sockets, on a real store, by a client that signs its requests itself.
//!
//! What stock clients do is shown in `tests/clients`; here is what they cannot do, and every refusal.

#![expect(clippy::unwrap_used, reason = "a panic is a test's message")]

mod access;
mod bodies;
mod buckets;
mod client;
mod connections;
mod copies;
mod listings;
mod objects;
mod uploads;

use async_trait::async_trait;
use client::{Ask, Hash, Reply, Signer, send};
use engine::error::{ErrorKind, PortError, PortResult};
use engine::memory::clock::MemoryClock;
use engine::ports::clock::Clock;
use engine::ports::events::EventQueue;
use engine::ports::objects::{CopyRequest, Onto};
use lifecycle::event::Version;
use lifecycle::ids::{ETag, ObjectKey};
use local::clock::{SystemClock, SystemNonces};
use local::credentials::{Credentials, Keyring};
use local::endpoint::{Endpoint, EndpointHooks, serve_endpoint};
use local::store::{BucketName, BucketSpec, Role, Store};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Hooks that remember, and refuse on demand.
#[derive(Default)]
pub(crate) struct TestHooks {
    pub(crate) created: Mutex<Vec<String>>,
    pub(crate) refuses: AtomicBool,
    pub(crate) keeps: AtomicBool,
}

#[async_trait]
impl EndpointHooks for TestHooks {
    async fn bucket_created(&self, bucket: &BucketName) -> PortResult<()> {
        if self.refuses.load(Ordering::SeqCst) {
            return Err(PortError::new("protect bucket", bucket, ErrorKind::Unavailable));
        }
        self.created.lock().unwrap().push(bucket.to_string());
        Ok(())
    }

    async fn keep_bucket(&self, _bucket: &BucketName) -> PortResult<Option<String>> {
        Ok(self.keeps.load(Ordering::SeqCst).then(|| "its events are not handled yet".to_owned()))
    }
}

/// A running endpoint with the source `source` and the destination `copies`, which holds the copy `kept`.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) store: Arc<Store>,
    pub(crate) credentials: Credentials,
    pub(crate) keyring: Keyring,
    pub(crate) hooks: Arc<TestHooks>,
    pub(crate) cancel: CancellationToken,
    pub(crate) serving: JoinHandle<()>,
    pub(crate) folder: TempDir,
}

impl Server {
    pub(crate) async fn start() -> Server {
        Server::with_clock(Arc::new(SystemClock)).await
    }

    /// The clock is the endpoint's; the store has the machine's.
    pub(crate) async fn with_clock(clock: Arc<dyn Clock>) -> Server {
        let folder = tempfile::tempdir().unwrap();
        let nonces = Arc::new(SystemNonces::new().unwrap());
        let store = Store::open(folder.path(), Arc::new(SystemClock), nonces.clone()).await.unwrap();
        for (name, role) in [("source", Role::Source), ("copies", Role::Destination)] {
            let spec = BucketSpec { name: BucketName::new(name).unwrap(), role, root: None };
            store.create_bucket(spec).await.unwrap();
        }
        let credentials = Credentials::new("AFIMTEST", "secret/with+signs");
        let keyring = Keyring::new(credentials.clone());
        let hooks = Arc::new(TestHooks::default());
        let cancel = CancellationToken::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let endpoint =
            Endpoint { store: Arc::clone(&store), keyring: keyring.clone(), hooks: hooks.clone(), clock, nonces };
        let serving = tokio::spawn(serve_endpoint(listener, endpoint, cancel.clone()));
        Server { address, store, credentials, keyring, hooks, cancel, serving, folder }
    }

    pub(crate) fn signer(&self) -> Signer {
        Signer::new(&self.credentials)
    }

    pub(crate) async fn ask(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        send(self.address, &self.signer(), Ask { method, target, headers, body, hash: Hash::True }).await
    }

    pub(crate) async fn get(&self, target: &str) -> Reply {
        self.ask("GET", target, &[], b"").await
    }

    /// Puts an object and expects success; its tag, with quotes.
    pub(crate) async fn put(&self, target: &str, body: &[u8]) -> String {
        let reply = self.ask("PUT", target, &[], body).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.header("etag").to_owned()
    }

    /// Events that wait.
    pub(crate) async fn events(&self) -> u64 {
        self.store.spool().backlog().await.unwrap().waiting
    }

    /// Makes `copies/kept`, as a policy does; its content is `original`.
    pub(crate) async fn make_copy(&self) {
        self.put("/source/original", b"original").await;
        let name = |name: &str| BucketName::new(name).unwrap();
        let copier = self.store.copier(&name("source"), &name("copies")).unwrap();
        let from = ObjectKey::new("original").unwrap();
        let head = self.store.reader(&name("source")).unwrap().head(&from, None).await.unwrap().unwrap();
        let request = CopyRequest {
            from,
            version: Version { etag: ETag(head.version.etag.0), ..head.version },
            to: ObjectKey::new("kept").unwrap(),
            onto: Onto::Anything,
            add_metadata: BTreeMap::new(),
            seen: None,
        };
        copier.copy(&request).await.unwrap();
    }
}

/// Every file of objects below a data folder: nothing half-written may be among them. Databases and the store's own marks
/// of its buckets are not told.
pub(crate) fn object_files(data_folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![data_folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(data_folder).unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                folders.push(path);
            } else if !name.contains(".sqlite") && !name.ends_with(".afterimage/bucket") && name != "id" {
                found.push(name);
            }
        }
    }
    found
}

/// A clock that stands still until a test lets time pass.
pub(crate) fn still_clock() -> Arc<MemoryClock> {
    Arc::new(MemoryClock::at(SystemClock.now()))
}
