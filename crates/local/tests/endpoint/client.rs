//! A small S3 client that signs requests itself and can do what stock clients cannot: break off, lie, and stall.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use engine::ports::clock::Clock;
use local::clock::SystemClock;
use local::credentials::Credentials;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What `x-amz-content-sha256` says.
#[derive(Clone, Copy)]
pub(crate) enum Hash<'a> {
    /// The truth.
    True,
    /// This.
    Says(&'a str),
}

/// One request.
pub(crate) struct Ask<'a> {
    pub(crate) method: &'a str,
    /// Path and query, encoded.
    pub(crate) target: &'a str,
    pub(crate) headers: &'a [(&'a str, &'a str)],
    pub(crate) body: &'a [u8],
    pub(crate) hash: Hash<'a>,
}

/// One answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Status and S3's code.
    pub(crate) fn error(&self) -> (u16, String) {
        (self.status, self.all("Code").into_iter().next().unwrap_or_default())
    }

    /// The contents of every element of that name.
    pub(crate) fn all(&self, name: &str) -> Vec<String> {
        let (text, open, close) = (self.text(), format!("<{name}>"), format!("</{name}>"));
        text.split(&open).skip(1).map(|part| part.split(&close).next().unwrap().to_owned()).collect()
    }

    pub(crate) fn one(&self, name: &str) -> String {
        self.all(name).into_iter().next().unwrap_or_else(|| panic!("no <{name}> in {}", self.text()))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

pub(crate) fn hex(bytes: impl AsRef<[u8]>) -> String {
    bytes.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(Sha256::digest(bytes))
}

pub(crate) fn base64(bytes: impl AsRef<[u8]>) -> String {
    STANDARD.encode(bytes)
}

fn hmac(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut block = [0_u8; 64];
    block[..key.len()].copy_from_slice(key);
    let pad = |with: u8| block.map(|byte| byte ^ with);
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize().to_vec()
}

/// Percent-encodes a key for a path.
pub(crate) fn path(key: &str) -> String {
    let keep = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~/".contains(&byte);
    key.bytes().map(|byte| if keep(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// Percent-encodes a value of a query.
pub(crate) fn value(text: &str) -> String {
    path(text).replace('/', "%2F")
}

/// Signs for one moment, region and key pair.
pub(crate) struct Signer {
    pub(crate) credentials: Credentials,
    /// `20260102T030405Z`
    pub(crate) now: String,
}

impl Signer {
    pub(crate) fn new(credentials: &Credentials) -> Signer {
        let now = SystemClock.now().timestamp().strftime("%Y%m%dT%H%M%SZ").to_string();
        Signer { credentials: credentials.clone(), now }
    }

    fn scope(&self) -> String {
        format!("{}/us-east-1/s3/aws4_request", &self.now[..8])
    }

    /// Signature of a text.
    pub(crate) fn signature(&self, kind: &str, rest: &str) -> String {
        let text = format!("{kind}\n{}\n{}\n{rest}", self.now, self.scope());
        let mut key = format!("AWS4{}", self.credentials.secret_key()).into_bytes();
        for part in [&self.now[..8], "us-east-1", "s3", "aws4_request"] {
            key = hmac(&key, part.as_bytes());
        }
        hex(hmac(&key, text.as_bytes()))
    }

    /// The headers of a signed request, and its signature.
    pub(crate) fn sign(&self, host: &str, ask: &Ask<'_>) -> (Vec<(String, String)>, String) {
        let hash = match ask.hash {
            Hash::True => sha256(ask.body),
            Hash::Says(text) => text.to_owned(),
        };
        let mut headers: Vec<(String, String)> =
            ask.headers.iter().map(|(name, value)| (name.to_lowercase(), (*value).to_owned())).collect();
        headers.push(("host".to_owned(), host.to_owned()));
        headers.push(("x-amz-date".to_owned(), self.now.clone()));
        headers.push(("x-amz-content-sha256".to_owned(), hash.clone()));
        headers.sort();
        let names: Vec<&str> = headers.iter().map(|(name, _)| name.as_str()).collect();
        let names = names.join(";");
        let signature = self.signature("AWS4-HMAC-SHA256", &canonical(ask.method, ask.target, &headers, &names, &hash));
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={}/{}, SignedHeaders={names}, Signature={signature}",
            self.credentials.access_key(),
            self.scope()
        );
        headers.push(("authorization".to_owned(), authorization));
        (headers, signature)
    }

    /// A presigned target.
    pub(crate) fn presign(&self, host: &str, method: &str, target: &str, seconds: u64) -> String {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let credential = value(&format!("{}/{}", self.credentials.access_key(), self.scope()));
        let mut parts: Vec<String> = query.split('&').filter(|part| !part.is_empty()).map(str::to_owned).collect();
        parts.push("X-Amz-Algorithm=AWS4-HMAC-SHA256".to_owned());
        parts.push(format!("X-Amz-Credential={credential}"));
        parts.push(format!("X-Amz-Date={}", self.now));
        parts.push(format!("X-Amz-Expires={seconds}"));
        parts.push("X-Amz-SignedHeaders=host".to_owned());
        let target = format!("{path}?{}", parts.join("&"));
        let headers = [("host".to_owned(), host.to_owned())];
        let text = canonical(method, &target, &headers, "host", "UNSIGNED-PAYLOAD");
        format!("{target}&X-Amz-Signature={}", self.signature("AWS4-HMAC-SHA256", &text))
    }

    /// An `aws-chunked` body with signed pieces.
    pub(crate) fn chunked(&self, seed: &str, pieces: &[&[u8]]) -> Vec<u8> {
        let mut before = seed.to_owned();
        let mut body = Vec::new();
        for piece in pieces.iter().copied().chain([&b""[..]]) {
            let rest = format!("{before}\n{}\n{}", sha256(b""), sha256(piece));
            before = self.signature("AWS4-HMAC-SHA256-PAYLOAD", &rest);
            body.extend_from_slice(format!("{:x};chunk-signature={before}\r\n", piece.len()).as_bytes());
            body.extend_from_slice(piece);
            body.extend_from_slice(b"\r\n");
        }
        body
    }
}

/// SHA-256 of the canonical request.
fn canonical(method: &str, target: &str, headers: &[(String, String)], names: &str, hash: &str) -> String {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let with_value = |part: &str| if part.contains('=') { part.to_owned() } else { format!("{part}=") };
    let mut query: Vec<String> = query.split('&').filter(|part| !part.is_empty()).map(with_value).collect();
    query.sort();
    let lines: String = headers.iter().map(|(name, value)| format!("{name}:{}\n", value.trim())).collect();
    sha256(format!("{method}\n{path}\n{}\n{lines}\n{names}\n{hash}", query.join("&")).as_bytes())
}

/// The head of a request as it goes over the wire.
pub(crate) fn head(method: &str, target: &str, headers: &[(String, String)], length: usize) -> String {
    let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("{method} {target} HTTP/1.1\r\n{lines}content-length: {length}\r\nconnection: close\r\n\r\n")
}

/// Sends a request and reads the answer.
pub(crate) async fn send(address: SocketAddr, signer: &Signer, ask: Ask<'_>) -> Reply {
    let (headers, _) = signer.sign(&address.to_string(), &ask);
    raw(address, head(ask.method, ask.target, &headers, ask.body.len()).as_bytes(), ask.body).await
}

/// Sends bytes and reads the answer.
pub(crate) async fn raw(address: SocketAddr, head: &[u8], body: &[u8]) -> Reply {
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(head).await.unwrap();
    socket.write_all(body).await.unwrap();
    read_reply(&mut socket).await
}

/// Reads an answer up to the connection's end.
pub(crate) async fn read_reply(socket: &mut TcpStream) -> Reply {
    let mut bytes = Vec::new();
    socket.read_to_end(&mut bytes).await.unwrap();
    let end = bytes.windows(4).position(|part| part == b"\r\n\r\n");
    let end = end.unwrap_or_else(|| panic!("no answer: {:?}", String::from_utf8_lossy(&bytes)));
    let text = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let mut lines = text.split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let pairs = lines.map(|line| line.split_once(": ").unwrap());
    let headers = pairs.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
    Reply { status, headers, body: bytes[end + 4..].to_vec() }
}
