//! A plain S3 client for load: presigned PUTs over kept connections.

use anyhow::{Result, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use local::credentials::Credentials;
use rusty_s3::actions::{PutObject, S3Action};
use rusty_s3::{Bucket, Credentials as SigningKeys, UrlStyle};
use std::net::SocketAddr;
use std::time::Duration;

/// How long a signature is good for.
const SIGNED_FOR: Duration = Duration::from_secs(3_600);

/// Puts objects into one bucket.
#[derive(Clone)]
pub(crate) struct Client {
    http: HttpClient<HttpConnector, Full<Bytes>>,
    bucket: Bucket,
    keys: SigningKeys,
}

impl Client {
    pub(crate) fn new(address: SocketAddr, bucket: &str, credentials: &Credentials) -> Result<Client> {
        let endpoint = format!("http://{address}").parse()?;
        let bucket = Bucket::new(endpoint, UrlStyle::Path, bucket.to_owned(), "us-east-1")?;
        let keys = SigningKeys::new(credentials.access_key(), credentials.secret_key());
        Ok(Client { http: HttpClient::builder(TokioExecutor::new()).build_http(), bucket, keys })
    }

    /// Signs beforehand, so that signing is not measured.
    pub(crate) fn signed_put(&self, key: &str) -> String {
        PutObject::new(&self.bucket, Some(&self.keys), key).sign(SIGNED_FOR).to_string()
    }

    /// Puts; an answer other than 200 is an error.
    pub(crate) async fn put(&self, signed: String, body: Bytes) -> Result<()> {
        let request = http::Request::put(signed).body(Full::new(body))?;
        let response = self.http.request(request).await?;
        let status = response.status();
        let answer = response.into_body().collect().await?.to_bytes();
        ensure!(status.is_success(), "PUT answered {status}: {}", String::from_utf8_lossy(&answer));
        Ok(())
    }
}
