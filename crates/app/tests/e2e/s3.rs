//! A small S3 client that signs its own requests: what the tests put, read and delete objects with.

use engine::ports::clock::Clock;
use local::clock::SystemClock;
use sha2::{Digest, Sha256};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// An endpoint and its keys.
#[derive(Clone, Debug)]
pub(crate) struct S3 {
    pub(crate) address: SocketAddr,
    pub(crate) access_key: String,
    pub(crate) secret_key: String,
}

/// Status and body.
pub(crate) type Reply = (u16, Vec<u8>);

fn hex(bytes: impl AsRef<[u8]>) -> String {
    bytes.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn hmac(key: &[u8], message: &str) -> Vec<u8> {
    let mut block = [0_u8; 64];
    block[..key.len()].copy_from_slice(key);
    let inner = Sha256::new().chain_update(block.map(|byte| byte ^ 0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(block.map(|byte| byte ^ 0x5c)).chain_update(inner).finalize().to_vec()
}

fn encoded(path: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~/".contains(&byte);
    path.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// What a server says that has read a request's head and wants its body.
const GO_ON: [u8; 25] = *b"HTTP/1.1 100 Continue\r\n\r\n";

impl S3 {
    pub(crate) fn put(&self, bucket: &str, key: &str, body: &[u8]) -> io::Result<Reply> {
        self.send("PUT", &format!("/{bucket}/{key}"), body)
    }

    pub(crate) fn get(&self, bucket: &str, key: &str) -> io::Result<Reply> {
        self.send("GET", &format!("/{bucket}/{key}"), b"")
    }

    pub(crate) fn delete(&self, bucket: &str, key: &str) -> io::Result<Reply> {
        self.send("DELETE", &format!("/{bucket}/{key}"), b"")
    }

    pub(crate) fn make_bucket(&self, bucket: &str) -> io::Result<Reply> {
        self.send("PUT", &format!("/{bucket}"), b"")
    }

    /// A put that does something else in the middle of its body, when the server is known to wait for the rest.
    pub(crate) fn put_pausing(
        &self,
        bucket: &str,
        key: &str,
        body: &[u8],
        meanwhile: impl FnOnce(),
    ) -> io::Result<Reply> {
        self.exchange("PUT", &format!("/{bucket}/{key}"), body, Some(meanwhile))
    }

    fn send(&self, method: &str, path: &str, body: &[u8]) -> io::Result<Reply> {
        self.exchange(method, path, body, None::<fn()>)
    }

    /// One signed request on a connection of its own.
    fn exchange(&self, method: &str, path: &str, body: &[u8], meanwhile: Option<impl FnOnce()>) -> io::Result<Reply> {
        let (path, host) = (encoded(path), self.address.to_string());
        let now = SystemClock.now().timestamp().strftime("%Y%m%dT%H%M%SZ").to_string();
        let hash = hex(Sha256::digest(body));
        let names = "host;x-amz-content-sha256;x-amz-date";
        let canonical = format!(
            "{method}\n{path}\n\nhost:{host}\nx-amz-content-sha256:{hash}\nx-amz-date:{now}\n\n{names}\n{hash}"
        );
        let scope = format!("{}/us-east-1/s3/aws4_request", &now[..8]);
        let text = format!("AWS4-HMAC-SHA256\n{now}\n{scope}\n{}", hex(Sha256::digest(canonical)));
        let mut key = format!("AWS4{}", self.secret_key).into_bytes();
        for part in [&now[..8], "us-east-1", "s3", "aws4_request"] {
            key = hmac(&key, part);
        }
        let signature = hex(hmac(&key, &text));
        let expect = if meanwhile.is_some() { "expect: 100-continue\r\n" } else { "" };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {host}\r\nx-amz-content-sha256: {hash}\r\nx-amz-date: {now}\r\n\
             authorization: AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={names}, Signature={signature}\r\n\
             content-length: {}\r\n{expect}connection: close\r\n\r\n",
            self.access_key,
            body.len()
        );
        let mut socket = TcpStream::connect(self.address)?;
        socket.set_read_timeout(Some(Duration::from_secs(60)))?;
        socket.write_all(head.as_bytes())?;
        let (first, rest) = body.split_at(body.len() / 2);
        if meanwhile.is_some() {
            let mut asked_for_more = [0; GO_ON.len()];
            socket.read_exact(&mut asked_for_more)?;
            assert_eq!(asked_for_more, GO_ON, "{}", String::from_utf8_lossy(&asked_for_more));
        }
        socket.write_all(first)?;
        meanwhile.into_iter().for_each(|meanwhile| meanwhile());
        socket.write_all(rest)?;
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer)?;
        let cut = || io::Error::new(io::ErrorKind::UnexpectedEof, "the answer was cut short");
        let end = answer.windows(4).position(|part| part == b"\r\n\r\n").ok_or_else(cut)?;
        let status = String::from_utf8_lossy(&answer[..end]);
        let status = status.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(cut)?;
        Ok((status, answer[end + 4..].to_vec()))
    }
}
