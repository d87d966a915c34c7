//! A plain S3 client for load: presigned requests over kept connections.

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use engine::clock::SystemClock;
use engine::ports::clock::Clock;
use futures_util::stream;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use local::credentials::Credentials;
use rusty_s3::actions::{CreateBucket, DeleteObject, GetObject, PutObject, S3Action, UploadPart};
use rusty_s3::signing::sign;
use rusty_s3::{Bucket, Credentials as SigningKeys, Method, UrlStyle};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

/// How long a signature is good for.
const SIGNED_FOR: Duration = Duration::from_secs(3_600);

/// An access key with its secret.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    pub(crate) access: String,
    pub(crate) secret: String,
}

impl Keys {
    /// Those of the program.
    pub(crate) fn of(credentials: &Credentials) -> Keys {
        Keys { access: credentials.access_key().to_owned(), secret: credentials.secret_key().to_owned() }
    }
}

/// On the source's tag.
const IF_MATCH: &str = "x-amz-copy-source-if-match";

/// Puts objects into one bucket, and reads them.
#[derive(Clone)]
pub(crate) struct Client {
    http: HttpClient<HttpConnector, BoxBody<Bytes, Infallible>>,
    bucket: Bucket,
    keys: SigningKeys,
}

impl Client {
    pub(crate) fn new(address: SocketAddr, bucket: &str, credentials: &Credentials) -> Result<Client> {
        Client::of(address, bucket, &Keys::of(credentials))
    }

    /// With the keys of any server.
    pub(crate) fn of(address: SocketAddr, bucket: &str, keys: &Keys) -> Result<Client> {
        let endpoint = format!("http://{address}").parse()?;
        let bucket = Bucket::new(endpoint, UrlStyle::Path, bucket.to_owned(), "us-east-1")?;
        let keys = SigningKeys::new(&keys.access, &keys.secret);
        Ok(Client { http: HttpClient::builder(TokioExecutor::new()).build_http(), bucket, keys })
    }

    /// Makes the bucket.
    pub(crate) async fn make_bucket(&self) -> Result<()> {
        let signed = CreateBucket::new(&self.bucket, &self.keys).sign(SIGNED_FOR).to_string();
        self.send(http::Request::put(signed).body(Full::default().boxed())?).await.map(drop)
    }

    /// Deletes an object.
    pub(crate) async fn delete(&self, key: &str) -> Result<()> {
        self.send(http::Request::delete(self.signed_delete(key)).body(Full::default().boxed())?).await.map(drop)
    }

    pub(crate) fn signed_delete(&self, key: &str) -> String {
        DeleteObject::new(&self.bucket, Some(&self.keys), key).sign(SIGNED_FOR).to_string()
    }

    /// A copy inside the server, from a path (`bucket/key`, which needs no encoding), if its tag is still that one.
    pub(crate) fn copy(&self, key: &str, from: &str, etag: &str) -> Result<http::request::Builder> {
        let mut copy = PutObject::new(&self.bucket, Some(&self.keys), key);
        let headers = [("x-amz-copy-source", from.to_owned()), (IF_MATCH, format!("\"{etag}\""))];
        headers.iter().for_each(|(name, value)| copy.headers_mut().insert(*name, value.clone()));
        Ok(with(http::Request::put(copy.sign(SIGNED_FOR).to_string()), &headers))
    }

    /// Begins an upload in parts; its id.
    pub(crate) async fn begin_upload(&self, key: &str) -> Result<String> {
        let request = http::Request::post(self.signed_post(key, &[("uploads", "")]));
        let answer = self.send(request.body(Full::default().boxed())?).await?;
        text_of(&answer, "UploadId")
    }

    fn signed_post(&self, key: &str, query: &[(&str, &str)]) -> String {
        let (now, url) = (SystemClock.now().timestamp(), self.bucket.object_url(key));
        let (access, secret, region) = (self.keys.key(), self.keys.secret(), self.bucket.region());
        let query = query.iter().copied();
        let seconds = SIGNED_FOR.as_secs();
        sign(&now, Method::Post, url, access, secret, None, region, seconds, query, std::iter::empty()).to_string()
    }

    /// Copies bytes inside the server as a part of an upload; the part's tag.
    pub(crate) async fn copy_part(
        &self,
        key: &str,
        upload: &str,
        number: usize,
        from: &str,
        first: u64,
        last: u64,
    ) -> Result<String> {
        let mut part = UploadPart::new(&self.bucket, Some(&self.keys), key, u16::try_from(number)?, upload);
        let headers =
            [("x-amz-copy-source", from.to_owned()), ("x-amz-copy-source-range", format!("bytes={first}-{last}"))];
        headers.iter().for_each(|(name, value)| part.headers_mut().insert(*name, value.clone()));
        let request = with(http::Request::put(part.sign(SIGNED_FOR).to_string()), &headers);
        let answer = self.send(request.body(Full::default().boxed())?).await?;
        Ok(text_of(&answer, "ETag")?.replace("&quot;", "\""))
    }

    /// Joins the parts.
    pub(crate) async fn complete_upload(&self, key: &str, upload: &str, tags: &[String]) -> Result<()> {
        let part =
            |(n, tag): (usize, &String)| format!("<Part><PartNumber>{}</PartNumber><ETag>{tag}</ETag></Part>", n + 1);
        let parts: String = tags.iter().enumerate().map(part).collect();
        let body = format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>");
        let request = http::Request::post(self.signed_post(key, &[("uploadId", upload)]));
        let answer = self.send(request.body(Full::from(body).boxed())?).await?;
        // An answer that takes long may begin with 200 and end with an error.
        let answer = String::from_utf8_lossy(&answer);
        ensure!(!answer.contains("<Error>"), "the upload was not completed: {answer}");
        Ok(())
    }

    /// Signs beforehand, so that signing is not measured.
    pub(crate) fn signed_put(&self, key: &str) -> String {
        PutObject::new(&self.bucket, Some(&self.keys), key).sign(SIGNED_FOR).to_string()
    }

    /// A put on the condition that nothing is there, with what travels with the object.
    pub(crate) fn new_object(
        &self,
        key: &str,
        content_type: &str,
        metadata: &BTreeMap<String, String>,
    ) -> Result<http::request::Builder> {
        let mut put = PutObject::new(&self.bucket, Some(&self.keys), key);
        let metadata = metadata.iter().map(|(name, value)| (format!("x-amz-meta-{name}"), value.clone()));
        let own = [("content-type", content_type), ("if-none-match", "*")].map(|(a, b)| (a.to_owned(), b.to_owned()));
        let headers: Vec<(String, String)> = metadata.chain(own).collect();
        headers.iter().for_each(|(name, value)| put.headers_mut().insert(name.clone(), value.clone()));
        let request = http::Request::put(put.sign(SIGNED_FOR).to_string());
        Ok(headers.into_iter().fold(request, |request, (name, value)| request.header(name, value)))
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
        self.send(request).await.map(drop)
    }

    /// Sends; the answer's body. An answer other than 2xx is an error.
    pub(crate) async fn send(&self, request: http::Request<BoxBody<Bytes, Infallible>>) -> Result<Bytes> {
        let method = request.method().clone();
        let response = self.http.request(request).await?;
        let status = response.status();
        let answer = response.into_body().collect().await?.to_bytes();
        ensure!(status.is_success(), "{method} answered {status}: {}", String::from_utf8_lossy(&answer));
        Ok(answer)
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

/// The text of an XML answer's first element of that name.
fn text_of(answer: &[u8], name: &str) -> Result<String> {
    let answer = String::from_utf8_lossy(answer);
    let text = answer.split_once(&format!("<{name}>")).and_then(|(_, rest)| rest.split_once(&format!("</{name}>")));
    Ok(text.with_context(|| format!("no {name} in {answer}"))?.0.to_owned())
}

/// A request with these headers, which its signature covers.
fn with(request: http::request::Builder, headers: &[(&'static str, String)]) -> http::request::Builder {
    headers.iter().fold(request, |request, (name, value)| request.header(*name, value))
}
