//! The HTTP side of the tables' endpoint: who gets to the engine, and with how much.
//!
//! The engine verifies no signature and would let any web page in; so nothing reaches it but `POST /`, not from a page, and
//! signed with this data folder's keys. A body is read whole before its signature can be verified: its length is known first,
//! and all of them together have a limit.

use super::limits::{TABLE_BODIES_BYTES, TABLE_BODY_BYTES};
use super::signature::{Claim, unknown};
use super::{Said, Tables};
use crate::credentials::Keyring;
use crate::endpoint::body::OutgoingBody;
use crate::endpoint::server::Answers;
use crate::endpoint::vitals::Vitals;
use bytes::{Bytes, BytesMut};
use engine::ports::clock::Clock;
use http::header::{CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ORIGIN, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::Semaphore;

const JSON: HeaderValue = HeaderValue::from_static("application/x-amz-json-1.0");
/// The unit in which the memory of bodies is counted.
const MEMORY_UNIT: usize = 1024;

/// Answers requests.
pub(super) struct Front {
    tables: Arc<Tables>,
    keyring: Keyring,
    clock: Arc<dyn Clock>,
    run: String,
    requests: AtomicU64,
    memory: Semaphore,
}

/// A request that may be read.
struct Admitted {
    claim: Claim,
    secret: String,
    target: String,
    length: usize,
}

impl Front {
    /// In front of these tables. `run`: tells the request ids of one run from those of another.
    pub(super) fn new(tables: Arc<Tables>, keyring: Keyring, clock: Arc<dyn Clock>, run: String) -> Front {
        let memory = Semaphore::new(TABLE_BODIES_BYTES / MEMORY_UNIT);
        Front { tables, keyring, clock, run, requests: AtomicU64::new(0), memory }
    }

    /// Looks at the header of a request.
    fn admit(&self, parts: &Parts) -> Result<Admitted, Said> {
        let headers = &parts.headers;
        if headers.contains_key(ORIGIN) || parts.method == Method::OPTIONS {
            let why = "requests of web pages are refused: this endpoint is for programs";
            return Err(Said::refused(403, "AccessDeniedException", why));
        }
        if parts.method != Method::POST || parts.uri.path() != "/" || parts.uri.query().is_some() {
            let why = "DynamoDB is asked by POST / without a query; presigned requests are not taken";
            return Err(Said::refused(404, "UnknownOperationException", why));
        }
        let claim = Claim::of(headers, self.clock.now())?;
        let secret = self.keyring.secret_of(&claim.access_key);
        let secret = secret.ok_or_else(|| {
            unknown(
                "this endpoint does not know the access key: `afterimage credentials show` prints the one that it does",
            )
        })?;
        let plain = headers.get(CONTENT_ENCODING).is_none_or(|encoding| encoding == "identity");
        let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
        let Some(length) = length.filter(|_| plain && !headers.contains_key(TRANSFER_ENCODING)) else {
            let why = "a body is sent as it is, with its `Content-Length`";
            return Err(Said::refused(411, "ValidationException", why));
        };
        if length > TABLE_BODY_BYTES {
            let why = format!("the body has {length} bytes; at most {TABLE_BODY_BYTES} are taken");
            return Err(Said::refused(413, "RequestEntityTooLargeException", &why));
        }
        let target = headers.get("x-amz-target").and_then(|target| target.to_str().ok()).unwrap_or_default();
        Ok(Admitted { claim, secret, target: target.to_owned(), length })
    }

    async fn serve(&self, parts: &Parts, body: &mut Incoming, vitals: &Vitals) -> Result<Said, Said> {
        let Admitted { claim, secret, target, length } = self.admit(parts)?;
        let units = u32::try_from(length.div_ceil(MEMORY_UNIT)).unwrap_or(u32::MAX);
        let stopped = |_| Said::refused(500, "InternalServerError", "the endpoint stops");
        let _memory = self.memory.acquire_many(units).await.map_err(stopped)?;
        let body = read(body, length, vitals).await?;
        claim.verify(&parts.headers, &body, &secret)?;
        Ok(self.tables.call(&target, body).await)
    }
}

async fn read(body: &mut Incoming, length: usize, vitals: &Vitals) -> Result<Bytes, Said> {
    let mut whole = BytesMut::new();
    loop {
        vitals.awaits_body(true);
        let frame = body.frame().await;
        vitals.awaits_body(false);
        match frame {
            None if whole.len() == length => return Ok(whole.freeze()),
            Some(Ok(frame)) => whole.extend_from_slice(frame.data_ref().map_or(&[][..], |piece| piece)),
            None | Some(Err(_)) => {
                return Err(Said::refused(400, "ValidationException", "the body ended before its length"));
            }
        }
        if whole.len() > length {
            return Err(Said::refused(413, "RequestEntityTooLargeException", "the body is longer than its length"));
        }
    }
}

impl Answers for Front {
    type Body = OutgoingBody<Full<Bytes>>;

    async fn answer(&self, request: Request<Incoming>, vitals: Arc<Vitals>) -> Response<Self::Body> {
        let in_flight = vitals.begin();
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        let (parts, mut body) = request.into_parts();
        let Said { status, body: said } =
            self.serve(&parts, &mut body, &vitals).await.unwrap_or_else(|refused| refused);
        let mut response = Response::new(Full::new(said));
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        response.headers_mut().insert(CONTENT_TYPE, JSON);
        if let Ok(id) = HeaderValue::from_str(&format!("{}{number:08X}", self.run)) {
            response.headers_mut().insert("x-amzn-requestid", id);
        }
        // What was refused before it was read is not read: the connection ends, and says so.
        if !body.is_end_stream() {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            vitals.ends_early();
        }
        response.map(|body| OutgoingBody::new(body, in_flight))
    }
}
