//! The HTTP side of the endpoint, before and after `s3s`: what it would accept and must not, and what it cannot bound.
//!
//! Before: only Signature Version 4, every `x-amz-*` header signed, presigned parameters read as the headers they stand for,
//! sizes bounded, `aws-chunked` in small pieces, checksums of XML bodies. After: faults of the body told by their own
//! name, control characters in XML, a request id.

use super::body::{Afterwards, IncomingBody, OutgoingBody};
use super::checks::{About, XmlCheck};
use super::faults::{not_implemented, with_words};
use super::framing::{Framing, Pieces};
use super::limits::{ENDPOINT_LEFTOVER, ENDPOINT_PRESIGNED_SECONDS, ENDPOINT_PUT_BYTES, ENDPOINT_XML_BYTES};
use super::server::Answers;
use super::vitals::Vitals;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, EXPECT};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use s3s::service::S3Service;
use s3s::{Body, S3Error, S3Result, s3_error};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of framing that an `aws-chunked` body of full size may have on top.
const FRAMING_BYTES: u64 = ENDPOINT_PUT_BYTES / 32;
/// Query parameters of a presigned URL that are not headers in disguise.
const PRESIGNING: [&str; 6] =
    ["x-amz-algorithm", "x-amz-credential", "x-amz-date", "x-amz-expires", "x-amz-signedheaders", "x-amz-signature"];

/// Answers requests.
pub(super) struct Front {
    service: S3Service,
    run: String,
    requests: AtomicU64,
}

impl Front {
    /// In front of this service. `run`: tells the request ids of one run from those of another.
    pub(super) fn new(service: S3Service, run: String) -> Front {
        Front { service, run, requests: AtomicU64::new(0) }
    }

    async fn serve(&self, request: Request<Body>, afterwards: &Afterwards) -> Response<Body> {
        let mut response = match self.service.call(request).await {
            Ok(response) => response,
            Err(error) => {
                tracing::error!(?error, "the endpoint could not write its answer");
                return error_response(s3_error!(InternalError));
            }
        };
        if !response.status().is_success() {
            if let Some(fault) = afterwards.take_fault() {
                return error_response(fault);
            }
            if let Some(xml) = response.body().bytes().and_then(|bytes| with_words(&bytes)) {
                response.headers_mut().remove(CONTENT_LENGTH);
                *response.body_mut() = Body::from(xml);
            }
        } else if response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == "application/xml")
            && let Some(xml) = response.body().bytes().and_then(|bytes| readable_xml(&bytes))
        {
            response.headers_mut().remove(CONTENT_LENGTH);
            *response.body_mut() = Body::from(xml);
        } else if response.status() == StatusCode::OK && response.headers().contains_key(CONTENT_RANGE) {
            // `s3s` knows ranges of GET only, not of HEAD.
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        }
        response
    }
}

impl Answers for Front {
    type Body = OutgoingBody<Body>;

    async fn answer(&self, request: Request<Incoming>, vitals: Arc<Vitals>) -> Response<OutgoingBody<Body>> {
        let in_flight = vitals.begin();
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        let (mut parts, body) = request.into_parts();
        let afterwards = Arc::new(Afterwards::default());
        let asked_to_go_on = parts.headers.contains_key(EXPECT);
        let mut response = match admit(&mut parts) {
            Ok(admitted) => {
                let framing = admitted.pieces.map(Framing::new);
                let body = IncomingBody::new(
                    body,
                    Arc::clone(&vitals),
                    Arc::clone(&afterwards),
                    admitted.allowed,
                    framing,
                    admitted.xml,
                );
                self.serve(Request::from_parts(parts, Body::http_body_unsync(body)), &afterwards).await
            }
            Err(error) => {
                drop(IncomingBody::new(body, Arc::clone(&vitals), Arc::clone(&afterwards), 0, None, None));
                error_response(error)
            }
        };
        // Whoever waits for `100 Continue` has not sent the body, and reading it would ask for it. If the connection were
        // to go on, the body would have to come all the same (RFC 9110, 10.1.1): it ends instead, and says so.
        if !afterwards.drained(if asked_to_go_on { 0 } else { ENDPOINT_LEFTOVER }).await {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            vitals.ends_early();
        }
        if let Ok(id) = HeaderValue::from_str(&format!("{}{number:08X}", self.run)) {
            response.headers_mut().insert("x-amz-request-id", id);
        }
        response.map(|body| OutgoingBody::new(body, in_flight))
    }
}

fn error_response(error: S3Error) -> Response<Body> {
    error.to_http_response().unwrap_or_else(|error| {
        tracing::error!(%error, "the endpoint could not write an error");
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        response
    })
}

/// What a request's header says about its body.
struct Admitted {
    pieces: Option<Pieces>,
    xml: Option<XmlCheck>,
    allowed: u64,
}

/// Looks at the header of a request, and makes presigned parameters the headers they stand for.
fn admit(parts: &mut Parts) -> S3Result<Admitted> {
    let query = Query::of(parts.uri.query());
    only_signature_v4(&parts.headers, &query)?;
    signed_headers(&parts.headers, &query)?;
    headers_from_query(&mut parts.headers, &query)?;
    let headers = &parts.headers;
    if parts.method == Method::POST && text(headers, &CONTENT_TYPE).starts_with("multipart/form-data") {
        return Err(not_implemented("uploading with a browser form"));
    }
    if headers.contains_key("x-amz-security-token") {
        return Err(s3_error!(InvalidToken, "the keys of this endpoint have no session tokens"));
    }
    let has_xml = parts.method == Method::POST || (parts.method == Method::PUT && query.has("tagging"));
    let content = if has_xml { ENDPOINT_XML_BYTES as u64 } else { ENDPOINT_PUT_BYTES };
    let allowed = if has_xml { content } else { content + FRAMING_BYTES };
    for (name, limit) in [("content-length", allowed), ("x-amz-decoded-content-length", content)] {
        let length = text(headers, &HeaderName::from_static(name)).parse::<u64>().unwrap_or(0);
        if length > limit {
            return Err(s3_error!(EntityTooLarge, "the body has {length} bytes; at most {content} are taken"));
        }
    }
    let about = if query.has("uploadId") || query.has("uploads") { About::Md5Only } else { About::Body };
    let xml = if has_xml { XmlCheck::of(headers, about)? } else { None };
    let pieces = match text(headers, &HeaderName::from_static("x-amz-content-sha256")) {
        "STREAMING-UNSIGNED-PAYLOAD-TRAILER" => Some(Pieces::Unsigned),
        streaming if streaming.starts_with("STREAMING-") => Some(Pieces::Signed),
        _ => None,
    };
    Ok(Admitted { pieces, xml, allowed })
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// The parameters of a query, decoded, in order.
pub(super) struct Query(pub(super) Vec<(String, String)>);

impl Query {
    /// Takes a query apart.
    pub(super) fn of(query: Option<&str>) -> Query {
        let decode = |part: &str| percent_decoded(&part.replace('+', " "));
        let parts = query.unwrap_or_default().split('&').filter(|part| !part.is_empty());
        let pairs = parts.map(|part| part.split_once('=').unwrap_or((part, "")));
        Query(pairs.map(|(name, value)| (decode(name), decode(value))).collect())
    }

    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(known, _)| known == name)
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// Decodes `%XX`; what is no valid escape stays as it is (its signature will not match).
pub(super) fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = match rest {
            [b'%', high, low, ..] => hex(*high).zip(hex(*low)).map(|(high, low)| high * 16 + low),
            _ => None,
        };
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &rest[3..] } else { tail };
    }
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// `s3s` would accept Signature Version 2, whose hash is broken and which does not cover the body, and the scope of STS.
fn only_signature_v4(headers: &HeaderMap, query: &Query) -> S3Result<()> {
    let authorization = text(headers, &AUTHORIZATION);
    let old = query.has("Signature") || query.has("AWSAccessKeyId");
    let other = headers.contains_key(AUTHORIZATION) && !authorization.starts_with("AWS4-HMAC-SHA256");
    if old || other {
        return Err(s3_error!(
            InvalidRequest,
            "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256."
        ));
    }
    if query.has("X-Amz-Signature") && !authorization.is_empty() {
        return Err(s3_error!(InvalidArgument, "a request is signed in its header or in its query, not in both"));
    }
    let scope = query.get("X-Amz-Credential").unwrap_or(authorization);
    if scope.contains("/sts/aws4_request") {
        return Err(s3_error!(AccessDenied, "the credential's scope is `sts`, not `s3`"));
    }
    if let Some(expires) = query.get("X-Amz-Expires")
        && !expires.parse::<u64>().is_ok_and(|seconds| (1..=ENDPOINT_PRESIGNED_SECONDS).contains(&seconds))
    {
        return Err(s3_error!(
            AuthorizationQueryParametersError,
            "X-Amz-Expires must be between 1 and {ENDPOINT_PRESIGNED_SECONDS} seconds"
        ));
    }
    Ok(())
}

/// A header that is not signed may have been added by whoever was handed a presigned URL: an `x-amz-copy-source` would
/// turn the right to write one object into the right to read any.
fn signed_headers(headers: &HeaderMap, query: &Query) -> S3Result<()> {
    let presigned = query.get("X-Amz-SignedHeaders");
    let in_header = text(headers, &AUTHORIZATION).split("SignedHeaders=").nth(1);
    let in_header = in_header.and_then(|rest| rest.split([',', ' ']).next());
    let Some(signed) = presigned.or(in_header) else { return Ok(()) };
    let signed: Vec<&str> = signed.split(';').collect();
    for name in headers.keys().map(HeaderName::as_str) {
        // The hash of a presigned request's body is not known when it is signed; `s3s` verifies it.
        let free = presigned.is_some() && name == "x-amz-content-sha256";
        let matters = name == "host" || name.starts_with("x-amz-");
        if matters && !free && !signed.contains(&name) {
            return Err(s3_error!(
                AccessDenied,
                "There were headers present in the request which were not signed: {name}"
            ));
        }
    }
    Ok(())
}

/// Some clients presign headers as query parameters (`x-amz-tagging=…`).
fn headers_from_query(headers: &mut HeaderMap, query: &Query) -> S3Result<()> {
    for (name, value) in &query.0 {
        let name = name.to_ascii_lowercase();
        let known = PRESIGNING.contains(&name.as_str());
        let unsigned_body = name == "x-amz-content-sha256" && value == "UNSIGNED-PAYLOAD";
        if !name.starts_with("x-amz-") || known || unsigned_body {
            continue;
        }
        let bad = || s3_error!(InvalidArgument, "the query parameter `{name}` cannot be read as a header");
        let header = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad())?;
        let value = HeaderValue::from_str(value).map_err(|_| bad())?;
        if headers.get(&header).is_some_and(|sent| sent != value) {
            return Err(s3_error!(InvalidArgument, "`{name}` differs between the query and the header"));
        }
        headers.insert(header, value);
    }
    Ok(())
}

/// The same XML with control characters as character references, if there are any: keys may have them, and a parser would
/// read a bare carriage return as a line feed. `s3s` writes no white space of its own but after the declaration.
fn readable_xml(xml: &Bytes) -> Option<Vec<u8>> {
    let start = xml.windows(2).position(|pair| pair == b"?>").map_or(0, |at| at + 2);
    let start = start + xml[start..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
    if !xml[start..].iter().any(u8::is_ascii_control) {
        return None;
    }
    let mut readable = xml[..start].to_vec();
    for byte in &xml[start..] {
        if byte.is_ascii_control() {
            readable.extend_from_slice(format!("&#x{byte:X};").as_bytes());
        } else {
            readable.push(*byte);
        }
    }
    Some(readable)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(method: Method, uri: &str, headers: &[(&str, &str)]) -> Result<HeaderMap, String> {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        match admit(&mut parts) {
            Ok(_) => Ok(parts.headers),
            Err(error) => Err(error.code().as_str().to_owned()),
        }
    }

    const SIGNED: &str =
        "AWS4-HMAC-SHA256 Credential=A/20260101/us-east-1/s3/aws4_request, SignedHeaders=host;x-amz-date, Signature=0";

    #[test]
    fn only_signature_version_4_is_let_in() {
        let sts = SIGNED.replace("/s3/", "/sts/");
        let cases = [
            ("/b/k", Some("AWS key:signature"), "InvalidRequest"),
            ("/b/k", Some(""), "InvalidRequest"),
            ("/b/k?Signature=x&AWSAccessKeyId=a&Expires=1", None, "InvalidRequest"),
            ("/b/k", Some(sts.as_str()), "AccessDenied"),
            ("/b/k?X-Amz-Expires=604801", None, "AuthorizationQueryParametersError"),
            ("/b/k?X-Amz-Signature=a", Some(SIGNED), "InvalidArgument"),
        ];
        for (uri, authorization, code) in cases {
            let headers: Vec<(&str, &str)> = authorization.map(|value| ("authorization", value)).into_iter().collect();
            assert_eq!(admitted(Method::GET, uri, &headers).unwrap_err(), code, "{uri}");
        }
        assert!(admitted(Method::GET, "/b/k", &[("authorization", SIGNED), ("host", "a")]).is_ok());
    }

    #[test]
    fn a_header_that_was_not_signed_is_refused() {
        let with = |name: &str| admitted(Method::PUT, "/b/k", &[("authorization", SIGNED), (name, "x")]);
        assert_eq!(with("x-amz-copy-source").unwrap_err(), "AccessDenied");
        assert!(with("cache-control").is_ok());
        let presigned = "/b/k?X-Amz-SignedHeaders=host&X-Amz-Signature=0&X-Amz-Expires=60";
        assert_eq!(admitted(Method::PUT, presigned, &[("x-amz-tagging", "a=b")]).unwrap_err(), "AccessDenied");
        let hashed = admitted(Method::PUT, presigned, &[("x-amz-content-sha256", "UNSIGNED-PAYLOAD")]);
        assert!(hashed.is_ok());
        let hostless = "/b/k?X-Amz-SignedHeaders=date&X-Amz-Signature=0&X-Amz-Expires=60";
        assert_eq!(admitted(Method::PUT, hostless, &[("host", "a")]).unwrap_err(), "AccessDenied");
    }

    #[test]
    fn presigned_parameters_become_the_headers_they_stand_for() {
        let uri = "/b/k?X-Amz-SignedHeaders=host&X-Amz-Signature=0&x-amz-tagging=a%3Db&X-Amz-Acl=public-read";
        let headers = admitted(Method::PUT, uri, &[]).unwrap();
        assert_eq!(headers["x-amz-tagging"], "a=b");
        assert_eq!(headers["x-amz-acl"], "public-read", "for the gate to refuse");
        assert!(!headers.contains_key("x-amz-signature"));
    }

    #[test]
    fn forms_tokens_and_bodies_above_the_limits_are_refused() {
        let form = [("content-type", "multipart/form-data; boundary=x")];
        assert_eq!(admitted(Method::POST, "/b", &form).unwrap_err(), "NotImplemented");
        assert_eq!(admitted(Method::GET, "/b", &[("x-amz-security-token", "t")]).unwrap_err(), "InvalidToken");
        let long = (ENDPOINT_PUT_BYTES + FRAMING_BYTES + 1).to_string();
        assert_eq!(admitted(Method::PUT, "/b/k", &[("content-length", &long)]).unwrap_err(), "EntityTooLarge");
        let decoded = (ENDPOINT_PUT_BYTES + 1).to_string();
        let streamed = [("x-amz-decoded-content-length", decoded.as_str())];
        assert_eq!(admitted(Method::PUT, "/b/k", &streamed).unwrap_err(), "EntityTooLarge");
        let xml = (ENDPOINT_XML_BYTES as u64 + 1).to_string();
        assert_eq!(admitted(Method::POST, "/b?delete", &[("content-length", &xml)]).unwrap_err(), "EntityTooLarge");
    }

    #[test]
    fn control_characters_in_xml_become_references() {
        let xml = Bytes::from_static(b"<?xml version=\"1.0\"?>\n<Key>a\r\n\x01\x7f</Key>");
        assert_eq!(readable_xml(&xml).unwrap(), b"<?xml version=\"1.0\"?>\n<Key>a&#xD;&#xA;&#x1;&#x7F;</Key>");
        assert_eq!(readable_xml(&Bytes::from_static(b"<?xml?>\n<Key>a</Key>")), None);
    }

    #[test]
    fn escapes_are_decoded_once() {
        assert_eq!(percent_decoded("a%2Fb%20%E2%82%AC%zz%"), "a/b €%zz%");
        assert_eq!(percent_decoded("%2541"), "%41");
    }
}
