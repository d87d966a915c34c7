//! The S3 endpoint alone, without policies: `endpoint FOLDER [ADDRESS:PORT]`. For trying it out and for the tests of stock
//! clients; prints what a client needs, then serves until Ctrl-C.

use anyhow::{Context, Result};
use local::clock::{SystemClock, SystemNonces};
use local::credentials::{Credentials, Keyring};
use local::endpoint::{Endpoint, NoHooks, REGION, serve_endpoint};
use local::store::{BucketName, BucketSpec, Role, Store, StoreError};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().context("usage: endpoint FOLDER [ADDRESS:PORT]")?);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:0".to_owned());
    std::fs::create_dir_all(&folder).context("make the data folder")?;
    let (credentials, _) = Credentials::load_or_create(&folder)?;
    let (clock, nonces) = (Arc::new(SystemClock), Arc::new(SystemNonces::new()?));
    let store = Store::open(&folder, clock.clone(), nonces.clone()).await?;
    for (name, role) in [("source", Role::Source), ("copies", Role::Destination)] {
        match store.create_bucket(BucketSpec { name: BucketName::new(name)?, role, root: None }).await {
            Ok(_) | Err(StoreError::BucketExists(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let listener = TcpListener::bind(&address).await.with_context(|| format!("listen on {address}"))?;
    println!("export AWS_ACCESS_KEY_ID={}", credentials.access_key());
    println!("export AWS_SECRET_ACCESS_KEY={}", credentials.secret_key());
    println!("export AWS_REGION={REGION} AWS_DEFAULT_REGION={REGION}");
    println!("export AWS_ENDPOINT_URL=http://{0} S3_ENDPOINT_URL=http://{0}", listener.local_addr()?);
    let cancel = CancellationToken::new();
    let keyring = Keyring::new(credentials);
    let endpoint = Endpoint { store: Arc::clone(&store), keyring, hooks: Arc::new(NoHooks), clock, nonces };
    let serving = tokio::spawn(serve_endpoint(listener, endpoint, cancel.clone()));
    tokio::signal::ctrl_c().await.context("wait for Ctrl-C")?;
    cancel.cancel();
    serving.await.context("serve")?;
    store.close().await;
    Ok(())
}
