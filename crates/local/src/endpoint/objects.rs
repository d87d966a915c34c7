//! One object: put, get, head.

use super::attributes::{ShownChecksums, from_request, with_sums};
use super::checks::{About, Promises};
use super::conditions::{Conditions, Verdict, range_holds, timestamp};
use super::faults::{from_body, from_store, not_implemented};
use super::limits::ENDPOINT_PUT_BYTES;
use super::service::{Service, object_key};
use crate::store::{Bucket, Found, ObjectInfo, PutRequest, ReadRange, StoreError};
use bytes::Bytes;
use engine::error::{ErrorKind, PortError, PortResult};
use engine::ports::objects::{ByteStream, Onto};
use futures_util::{Stream, StreamExt};
use http::StatusCode;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use lifecycle::ids::{ETag as Tag, ObjectKey};
use s3s::dto::{
    ChecksumMode, ETag, ETagCondition, GetObjectInput, GetObjectOutput, HeadObjectInput, HeadObjectOutput,
    PutObjectInput, PutObjectOutput, Range, StreamingBlob,
};
use s3s::stream::{ByteStream as S3ByteStream, RemainingLength};
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result, StdError, TrailingHeaders, s3_error};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

/// What S3 says of an object without a type.
const DEFAULT_CONTENT_TYPE: &str = "binary/octet-stream";

/// Writes an object.
pub(super) async fn put(
    service: &Service,
    request: S3Request<PutObjectInput>,
) -> S3Result<S3Response<PutObjectOutput>> {
    let S3Request { input, headers, trailing_headers, .. } = request;
    let bucket = service.bucket(&input.bucket)?;
    let key = object_key(input.key)?;
    let attributes = from_request(&headers, input.metadata, input.tagging.as_deref())?;
    let onto = onto(&headers)?;
    let upload = Upload::read(&headers, trailing_headers, input.content_length, input.body, &key)?;
    let missing = matches!(onto, Onto::This(_)).then(|| key.clone());
    let put = PutRequest { key, attributes, onto, check: Some(Box::new(upload.promises)) };
    let info = match bucket.put(put, upload.body).await {
        Ok(info) => info,
        Err(error) => return Err(upload.fault.or(or_missing(&bucket, missing, error).await)),
    };
    let sums = ShownChecksums::of(&info);
    Ok(S3Response::new(with_sums!(sums => PutObjectOutput {
        e_tag: Some(ETag::Strong(info.version.etag.to_string())),
        size: None,
        checksum_type: sums.kind,
        ..PutObjectOutput::default()
    })))
}

/// A condition `If-Match` on a key that is not there is answered with 404, as S3 does.
pub(super) async fn or_missing(bucket: &Bucket, matching: Option<ObjectKey>, error: StoreError) -> StoreError {
    if let (Some(key), StoreError::PreconditionFailed) = (matching, &error)
        && matches!(bucket.head(&key, None).await, Ok(None))
    {
        return StoreError::NoSuchKey(key.to_string());
    }
    error
}

/// On which condition an object is written.
pub(super) fn onto(headers: &HeaderMap) -> S3Result<Onto> {
    for name in [header::IF_MODIFIED_SINCE, header::IF_UNMODIFIED_SINCE] {
        if headers.contains_key(&name) {
            return Err(not_implemented(format!("the condition `{name}` on a write")));
        }
    }
    let condition = |name: HeaderName| -> S3Result<Option<ETagCondition>> {
        let refused = || s3_error!(InvalidArgument, "the value of `{name}` is neither a tag nor `*`");
        let value = headers.get(&name);
        value.map(|value| ETagCondition::parse_http_header(value.as_bytes()).map_err(|_| refused())).transpose()
    };
    match (condition(header::IF_MATCH)?, condition(header::IF_NONE_MATCH)?) {
        (None, None) => Ok(Onto::Anything),
        (None, Some(ETagCondition::Any)) => Ok(Onto::Nothing),
        (Some(ETagCondition::ETag(ETag::Strong(tag))), None) => Ok(Onto::This(Tag(tag))),
        _ => Err(not_implemented("a write with another condition than `If-None-Match: *` or `If-Match: \"<tag>\"`")),
    }
}

/// A body on its way to the store, with what was promised of it.
pub(super) struct Upload {
    pub(super) promises: Promises,
    pub(super) body: ByteStream,
    pub(super) fault: Fault,
}

/// What was wrong with a body, by S3's name.
#[derive(Clone, Default)]
pub(super) struct Fault(Arc<Mutex<Option<S3Error>>>);

impl Fault {
    /// The body's own fault, or else what the store says.
    pub(super) fn or(&self, error: StoreError) -> S3Error {
        let own = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        own.unwrap_or_else(|| from_store(error))
    }
}

impl Upload {
    /// From the request's header and body. `content_length`: of the body as `s3s` passes it on.
    pub(super) fn read(
        headers: &HeaderMap,
        trailers: Option<TrailingHeaders>,
        content_length: Option<i64>,
        body: Option<StreamingBlob>,
        key: &ObjectKey,
    ) -> S3Result<Upload> {
        let decoded = headers.get("x-amz-decoded-content-length").and_then(|value| value.to_str().ok());
        let length = match decoded {
            Some(text) => text.parse::<u64>().ok(),
            None => content_length.and_then(|length| u64::try_from(length).ok()),
        };
        let length = length.ok_or(S3ErrorCode::MissingContentLength)?;
        if length > ENDPOINT_PUT_BYTES {
            return Err(s3_error!(EntityTooLarge, "one put or part has at most {ENDPOINT_PUT_BYTES} bytes"));
        }
        let promises = Promises::read(headers, trailers, Some(length), About::Body)?;
        let fault = Fault::default();
        let body = match body {
            None => futures_util::stream::empty().boxed(),
            Some(body) => {
                let (fault, object) = (fault.clone(), key.to_string());
                body.map(move |piece| piece.map_err(|error| broken(&fault, &object, error.as_ref()))).boxed()
            }
        };
        Ok(Upload { promises, body, fault })
    }
}

fn broken(fault: &Fault, object: &str, error: &(dyn std::error::Error + Send + Sync + 'static)) -> PortError {
    let told = from_body(error);
    let why = told.message().unwrap_or("the body broke off").to_owned();
    *fault.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(told);
    PortError::new("read body of", object, ErrorKind::Invalid(why))
}

/// An object's bytes on their way to a client, with their number.
struct Outflow {
    inner: Mutex<ByteStream>,
    left: usize,
}

impl Stream for Outflow {
    type Item = Result<Bytes, StdError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let inner = self.inner.get_mut().unwrap_or_else(PoisonError::into_inner);
        let next: Poll<Option<PortResult<Bytes>>> = inner.as_mut().poll_next(cx);
        next.map(|item| {
            item.map(|piece| match piece {
                Ok(piece) => {
                    self.left = self.left.saturating_sub(piece.len());
                    Ok(piece)
                }
                Err(error) => {
                    // The status is sent already: the connection breaks off, and the client sees too few bytes.
                    tracing::error!(%error, "an object could not be read to its end");
                    Err(error.into())
                }
            })
        })
    }
}

impl S3ByteStream for Outflow {
    fn remaining_length(&self) -> RemainingLength {
        RemainingLength::new_exact(self.left)
    }
}

/// Reads an object, or a range of it.
pub(super) async fn get(
    service: &Service,
    request: S3Request<GetObjectInput>,
) -> S3Result<S3Response<GetObjectOutput>> {
    let S3Request { input, headers, .. } = request;
    let bucket = service.bucket(&input.bucket)?;
    let key = object_key(input.key)?;
    let conditions = Conditions {
        if_match: input.if_match,
        if_none_match: input.if_none_match,
        if_modified_since: input.if_modified_since,
        if_unmodified_since: input.if_unmodified_since,
    };
    let range = range_asked_for(&bucket, &key, input.range, &headers).await?;
    let Found { info, range: bytes, body } = find(&bucket, &key, range, &conditions).await?;
    let length = bytes.end - bytes.start;
    let content_range = range.map(|_| content_range(&bytes, info.version.size));
    let sums = sums_asked_for(input.checksum_mode.as_ref(), &info, range);
    let left = usize::try_from(length).map_err(|_| s3_error!(InternalError, "the object is too large"))?;
    let expires = info.attributes.expires.clone().filter(|_| input.response_expires.is_none());
    let answer = with_sums!(sums => GetObjectOutput {
        accept_ranges: Some("bytes".to_owned()),
        body: Some(StreamingBlob::new(Outflow { inner: Mutex::new(body), left })),
        checksum_type: sums.kind,
        content_length: i64::try_from(length).ok(),
        content_range,
        e_tag: Some(ETag::Strong(info.version.etag.to_string())),
        last_modified: Some(timestamp(info.last_modified)),
        tag_count: i32::try_from(info.attributes.tags.len()).ok().filter(|count| *count > 0),
        metadata: Some(info.attributes.metadata.into_iter().collect()),
        cache_control: info.attributes.cache_control,
        content_disposition: info.attributes.content_disposition,
        content_encoding: info.attributes.content_encoding,
        content_language: info.attributes.content_language,
        content_type: Some(info.attributes.content_type.unwrap_or_else(|| DEFAULT_CONTENT_TYPE.to_owned())),
        ..GetObjectOutput::default()
    });
    let mut response = S3Response::new(answer);
    set_header(&mut response.headers, header::EXPIRES, expires);
    Ok(response)
}

/// What a get would tell, without the bytes.
pub(super) async fn head(
    service: &Service,
    request: S3Request<HeadObjectInput>,
) -> S3Result<S3Response<HeadObjectOutput>> {
    let S3Request { input, headers, .. } = request;
    let bucket = service.bucket(&input.bucket)?;
    let key = object_key(input.key)?;
    let conditions = Conditions {
        if_match: input.if_match,
        if_none_match: input.if_none_match,
        if_modified_since: input.if_modified_since,
        if_unmodified_since: input.if_unmodified_since,
    };
    let info = bucket.head(&key, None).await.map_err(from_store)?;
    let info = info.ok_or_else(|| from_store(StoreError::NoSuchKey(key.to_string())))?;
    judged(&conditions, &info)?;
    let if_range = headers.get(header::IF_RANGE).and_then(|value| value.to_str().ok());
    let range = input.range.filter(|_| if_range.is_none_or(|if_range| range_holds(if_range, &info)));
    let size = info.version.size;
    let bytes = match range {
        None => 0..size,
        Some(range) => range.check(size).map_err(|_| beyond_the_end(size))?,
    };
    let sums = sums_asked_for(input.checksum_mode.as_ref(), &info, range);
    let answer = with_sums!(sums => HeadObjectOutput {
        accept_ranges: Some("bytes".to_owned()),
        checksum_type: sums.kind,
        content_length: i64::try_from(bytes.end - bytes.start).ok(),
        content_range: range.map(|_| content_range(&bytes, size)),
        e_tag: Some(ETag::Strong(info.version.etag.to_string())),
        last_modified: Some(timestamp(info.last_modified)),
        metadata: Some(info.attributes.metadata.into_iter().collect()),
        cache_control: input.response_cache_control.or(info.attributes.cache_control),
        content_disposition: input.response_content_disposition.or(info.attributes.content_disposition),
        content_encoding: input.response_content_encoding.or(info.attributes.content_encoding),
        content_language: input.response_content_language.or(info.attributes.content_language),
        content_type: Some(
            input
                .response_content_type
                .or(info.attributes.content_type)
                .unwrap_or_else(|| DEFAULT_CONTENT_TYPE.to_owned()),
        ),
        expires: input.response_expires.clone(),
        ..HeadObjectOutput::default()
    });
    let mut response = S3Response::new(answer);
    let expires = info.attributes.expires.filter(|_| input.response_expires.is_none());
    set_header(&mut response.headers, header::EXPIRES, expires);
    Ok(response)
}

/// The range to send: none if `If-Range` names another content.
async fn range_asked_for(
    bucket: &Bucket,
    key: &ObjectKey,
    range: Option<Range>,
    headers: &HeaderMap,
) -> S3Result<Option<Range>> {
    let Some(if_range) = headers.get(header::IF_RANGE).filter(|_| range.is_some()) else { return Ok(range) };
    let if_range = if_range.to_str().unwrap_or_default();
    let info = bucket.head(key, None).await.map_err(from_store)?;
    Ok(range.filter(|_| info.is_some_and(|info| range_holds(if_range, &info))))
}

async fn find(bucket: &Bucket, key: &ObjectKey, range: Option<Range>, conditions: &Conditions) -> S3Result<Found> {
    let wanted = match range {
        None => ReadRange::Whole,
        Some(Range::Int { first, last: None }) => ReadRange::From(first),
        Some(Range::Int { first, last: Some(last) }) => ReadRange::Between(first..last.saturating_add(1)),
        Some(Range::Suffix { length }) => ReadRange::Last(length),
    };
    match bucket.get(key, None, wanted).await {
        Ok(Some(found)) => {
            judged(conditions, &found.info)?;
            Ok(found)
        }
        Ok(None) => Err(from_store(StoreError::NoSuchKey(key.to_string()))),
        Err(StoreError::RangeNotSatisfiable { size }) => {
            // Conditions come before the range.
            if let Some(info) = bucket.head(key, None).await.map_err(from_store)? {
                judged(conditions, &info)?;
            }
            Err(beyond_the_end(size))
        }
        Err(error) => Err(from_store(error)),
    }
}

/// 304 and 412, with what a cache needs to know.
fn judged(conditions: &Conditions, info: &ObjectInfo) -> S3Result<()> {
    match conditions.judge(info) {
        Verdict::Holds => Ok(()),
        Verdict::Failed => Err(from_store(StoreError::PreconditionFailed)),
        Verdict::NotModified => {
            let mut error = S3Error::new(S3ErrorCode::NotModified);
            error.set_status_code(StatusCode::NOT_MODIFIED);
            let mut headers = HeaderMap::new();
            set_header(&mut headers, header::ETAG, Some(format!("\"{}\"", info.version.etag)));
            set_header(&mut headers, header::CACHE_CONTROL, info.attributes.cache_control.clone());
            set_header(&mut headers, header::EXPIRES, info.attributes.expires.clone());
            error.set_headers(headers);
            Err(error)
        }
    }
}

fn beyond_the_end(size: u64) -> S3Error {
    let mut error = from_store(StoreError::RangeNotSatisfiable { size });
    let mut headers = HeaderMap::new();
    set_header(&mut headers, header::CONTENT_RANGE, Some(format!("bytes */{size}")));
    set_header(&mut headers, header::CONTENT_TYPE, Some("application/xml".to_owned()));
    error.set_headers(headers);
    error
}

fn content_range(bytes: &std::ops::Range<u64>, size: u64) -> String {
    format!("bytes {}-{}/{size}", bytes.start, bytes.end.saturating_sub(1))
}

/// Checksums are of whole objects: shown for a range, they would fail every client that verifies them.
fn sums_asked_for(mode: Option<&ChecksumMode>, info: &ObjectInfo, range: Option<Range>) -> ShownChecksums {
    let asked = mode.is_some_and(|mode| mode.as_str() == ChecksumMode::ENABLED);
    if asked && range.is_none() { ShownChecksums::of(info) } else { ShownChecksums::default() }
}

fn set_header(headers: &mut HeaderMap, name: HeaderName, value: Option<String>) {
    if let Some(value) = value.and_then(|value| HeaderValue::from_str(&value).ok()) {
        headers.insert(name, value);
    }
}
