//! A plain S3 client for load: presigned requests over kept connections.

use anyhow::{Result, ensure};
use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use local::credentials::Credentials;
use rusty_s3::actions::{GetObject, PutObject, S3Action};
use rusty_s3::{Bucket, Credentials as SigningKeys, UrlStyle};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

/// How long a signature is good for.
const SIGNED_FOR: Duration = Duration::from_secs(3_600);

/// Puts objects into one bucket, and reads them.
#[derive(Clone)]
pub(crate) struct Client {
    http: HttpClient<HttpConnector, BoxBody<Bytes, Infallible>>,
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
        self.send_put(http::Request::put(signed).body(Full::new(body).boxed())?).await
    }

    /// Puts one object that consists of a piece, so many times; never more than a piece of it is in memory.
    pub(crate) async fn put_pieces(&self, key: &str, piece: Bytes, times: usize) -> Result<()> {
        let bytes = piece.len() * times;
        let frames = stream::iter((0..times).map(move |_| Ok(Frame::data(piece.clone()))));
        let request = http::Request::put(self.signed_put(key)).header(http::header::CONTENT_LENGTH, bytes);
        self.send_put(request.body(BoxBody::new(StreamBody::new(frames)))?).await
    }

    async fn send_put(&self, request: http::Request<BoxBody<Bytes, Infallible>>) -> Result<()> {
        let response = self.http.request(request).await?;
        let status = response.status();
        let answer = response.into_body().collect().await?.to_bytes();
        ensure!(status.is_success(), "PUT answered {status}: {}", String::from_utf8_lossy(&answer));
        Ok(())
    }

    /// Reads an object and throws its bytes away; how many there were.
    pub(crate) async fn read(&self, key: &str) -> Result<u64> {
        let signed = GetObject::new(&self.bucket, Some(&self.keys), key).sign(SIGNED_FOR).to_string();
        let response = self.http.request(http::Request::get(signed).body(Full::default().boxed())?).await?;
        ensure!(response.status().is_success(), "GET answered {}", response.status());
        let (mut body, mut bytes) = (response.into_body(), 0);
        while let Some(frame) = body.frame().await {
            bytes += frame?.data_ref().map_or(0, |data| data.len() as u64);
        }
        Ok(bytes)
    }
}
