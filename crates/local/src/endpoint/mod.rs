//! The S3 endpoint: buckets of this machine for any S3 client.
//!
//! Place: a client's write goes through here into the bucket store, which answers when bytes, row and event are durable
//! (I8); the client is answered after that. `s3s` parses requests and verifies signatures; in front of it stand `front`
//! (what it would accept and must not) and `gate` (operations, parameters, destinations); behind it the operations, by
//! subject. Destinations can be listed and read, never written: whoever can write a source cannot destroy its copies.
//!
//! A crash half-way leaves what the store leaves: a whole object with its event, or nothing. A bucket whose default policy
//! was not yet active is protected when it is asked for again, or at the next start.
//!
//! What is supported stands in `docs/s3-endpoint.md`.

mod attributes;
pub(crate) mod body;
mod buckets;
mod checks;
mod conditions;
mod copy;
mod delete;
mod faults;
mod framing;
mod front;
mod gate;
mod hooks;
pub mod limits;
mod listing;
mod multipart;
mod objects;
mod operations;
pub(crate) mod server;
mod service;
mod tags;
pub(crate) mod vitals;

pub use hooks::{COPIES_SUFFIX, EndpointHooks, NoHooks};

use crate::credentials::Keyring;
use crate::store::Store;
use async_trait::async_trait;
use engine::ports::clock::{Clock, Nonces};
use front::Front;
use gate::Gate;
use limits::{ENDPOINT_CONNECTIONS, ENDPOINT_XML_BYTES};
use s3s::auth::{S3Auth, SecretKey};
use s3s::config::{S3Config, StaticConfigProvider};
use s3s::dto::Owner;
use s3s::host::{S3Host, VirtualHost};
use s3s::service::S3ServiceBuilder;
use s3s::{S3Result, s3_error};
use service::Service;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Region that the endpoint names; requests may be signed for any.
pub const REGION: &str = "us-east-1";
/// Owner of every bucket and object.
const OWNER: &str = "afterimage";
/// Names under this one are buckets: `<bucket>.localhost`.
const VIRTUAL_DOMAIN: &str = "localhost";

/// What an endpoint is made of.
pub struct Endpoint {
    /// The buckets.
    pub store: Arc<Store>,
    /// The accepted key pair.
    pub keyring: Keyring,
    /// The program around it.
    pub hooks: Arc<dyn EndpointHooks>,
    /// Time, for clients that stall and for the end.
    pub clock: Arc<dyn Clock>,
    /// For the request ids.
    pub nonces: Arc<dyn Nonces>,
}

/// Serves the endpoint on this listener until `cancel`, then ends in good order: no new connections, requests in flight
/// may end within `ENDPOINT_DRAIN`. Whether the listener is bound to loopback is its maker's decision.
pub async fn serve_endpoint(listener: TcpListener, endpoint: Endpoint, cancel: CancellationToken) {
    let mut config = S3Config::default();
    config.xml_max_body_size = ENDPOINT_XML_BYTES;
    let service =
        Service { store: Arc::clone(&endpoint.store), hooks: endpoint.hooks, clock: Arc::clone(&endpoint.clock) };
    let mut builder = S3ServiceBuilder::new(service);
    builder.set_config(Arc::new(StaticConfigProvider::new(Arc::new(config))));
    builder.set_auth(Auth(endpoint.keyring));
    builder.set_access(Gate { store: endpoint.store });
    builder.set_host(Host);
    let front = Arc::new(Front::new(builder.build(), endpoint.nonces.nonce()));
    server::serve(listener, front, endpoint.clock, cancel, ENDPOINT_CONNECTIONS).await;
}

fn owner() -> Owner {
    Owner { display_name: Some(OWNER.to_owned()), id: Some(OWNER.to_owned()) }
}

/// Gives `s3s` the secret to verify a signature with.
struct Auth(Keyring);

#[async_trait]
impl S3Auth for Auth {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        let secret = self.0.secret_of(access_key).map(SecretKey::from);
        secret.ok_or_else(|| s3_error!(InvalidAccessKeyId, "this endpoint does not know the access key"))
    }
}

/// Buckets in host names: `<bucket>.localhost`; under every other name the bucket stands in the path.
struct Host;

impl S3Host for Host {
    fn parse_host_header<'a>(&'a self, host: &'a str) -> S3Result<VirtualHost<'a>> {
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        let bucket = name.strip_suffix(VIRTUAL_DOMAIN).and_then(|rest| rest.strip_suffix('.'));
        let virtual_host = VirtualHost::new(name);
        Ok(match bucket {
            Some(bucket) if !bucket.is_empty() => virtual_host.with_bucket(bucket),
            _ => virtual_host,
        })
    }
}
