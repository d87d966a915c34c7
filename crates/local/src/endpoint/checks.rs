//! What a request promises about its body, and whether the body keeps it: `Content-MD5`, `x-amz-checksum-*` (header or
//! trailer), length.
//!
//! `s3s` verifies signatures and `x-amz-content-sha256`, but accepts any checksum; this file does not. A put's check runs
//! inside the store, between the last byte and the rename: a body that breaks its promise leaves no object and no event.

use super::faults::not_implemented;
use crate::store::{BodyCheck, BodyDigest, Mismatch};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use s3s::crypto::{Checksum, Crc32, Crc32c, Crc64Nvme, Md5, Sha1, Sha256};
use s3s::{S3Error, S3Result, TrailingHeaders, s3_error};
use std::collections::BTreeMap;

/// Name under which CRC-64/NVME stands among an object's checksums.
pub(super) const CRC64: &str = "crc64nvme";
/// Checksum algorithms by the name in their header, and how many bytes they have.
pub(super) const ALGORITHMS: [(&str, usize); 5] =
    [("crc32", 4), ("crc32c", 4), (CRC64, 8), ("sha1", 20), ("sha256", 32)];

/// One running checksum.
enum Running {
    Crc32(Crc32),
    Crc32c(Crc32c),
    Sha1(Box<Sha1>),
    Sha256(Box<Sha256>),
    /// CRC-64/NVME, which the store finds out anyway.
    FromStore,
}

impl Running {
    fn of(algorithm: &str) -> Running {
        match algorithm {
            "crc32" => Running::Crc32(Crc32::new()),
            "crc32c" => Running::Crc32c(Crc32c::new()),
            "sha1" => Running::Sha1(Box::new(Sha1::new())),
            "sha256" => Running::Sha256(Box::new(Sha256::new())),
            _ => Running::FromStore,
        }
    }

    fn update(&mut self, piece: &[u8]) {
        match self {
            Running::Crc32(hasher) => hasher.update(piece),
            Running::Crc32c(hasher) => hasher.update(piece),
            Running::Sha1(hasher) => hasher.update(piece),
            Running::Sha256(hasher) => hasher.update(piece),
            Running::FromStore => {}
        }
    }

    fn finish(self, body: &BodyDigest) -> String {
        match self {
            Running::Crc32(hasher) => STANDARD.encode(hasher.finalize()),
            Running::Crc32c(hasher) => STANDARD.encode(hasher.finalize()),
            Running::Sha1(hasher) => STANDARD.encode(hasher.finalize()),
            Running::Sha256(hasher) => STANDARD.encode(hasher.finalize()),
            Running::FromStore => STANDARD.encode(body.crc64.0.to_be_bytes()),
        }
    }
}

/// Checksum of a short text, as base64; for composite checksums. `None`: no such algorithm.
pub(super) fn checksum_of(algorithm: &str, bytes: &[u8]) -> Option<String> {
    Some(match algorithm {
        "crc32" => STANDARD.encode(Crc32::checksum(bytes)),
        "crc32c" => STANDARD.encode(Crc32c::checksum(bytes)),
        CRC64 => STANDARD.encode(Crc64Nvme::checksum(bytes)),
        "sha1" => STANDARD.encode(Sha1::checksum(bytes)),
        "sha256" => STANDARD.encode(Sha256::checksum(bytes)),
        _ => return None,
    })
}

/// One checksum that the request promises.
struct Promised {
    algorithm: &'static str,
    /// From the header; `None`: it comes in a trailer.
    value: Option<String>,
    running: Running,
}

/// All that a request promises about its body.
pub(super) struct Promises {
    length: Option<u64>,
    md5: Option<String>,
    sums: Vec<Promised>,
    trailers: Option<TrailingHeaders>,
}

/// Which checksum headers of a request speak about its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum About {
    /// All of them.
    Body,
    /// `Content-MD5` only: the others speak about the object (completing an upload).
    Md5Only,
}

impl Promises {
    /// Reads the headers. `length`: of the body without its framing.
    pub(super) fn read(
        headers: &HeaderMap,
        trailers: Option<TrailingHeaders>,
        length: Option<u64>,
        about: About,
    ) -> S3Result<Promises> {
        let md5 = text(headers, "content-md5")?.map(|value| valid(value, 16)).transpose();
        let md5 = md5.map_err(|_| s3_error!(InvalidDigest, "`Content-MD5` is no base64 of 16 bytes"))?;
        let mut sums = Vec::new();
        if about == About::Body {
            for (algorithm, bytes) in ALGORITHMS {
                if let Some(value) = text(headers, &format!("x-amz-checksum-{algorithm}"))? {
                    let value = valid(value, bytes).map_err(|()| {
                        s3_error!(InvalidRequest, "`x-amz-checksum-{algorithm}` is no base64 of {bytes} bytes")
                    })?;
                    sums.push(Promised { algorithm, value: Some(value), running: Running::of(algorithm) });
                }
            }
            for name in text(headers, "x-amz-trailer")?.unwrap_or_default().split(',').map(str::trim) {
                if !name.is_empty() {
                    let algorithm = trailer_algorithm(name)?;
                    sums.push(Promised { algorithm, value: None, running: Running::of(algorithm) });
                }
            }
            if headers.contains_key("x-amz-sdk-checksum-algorithm") && sums.is_empty() && md5.is_none() {
                return Err(s3_error!(
                    InvalidRequest,
                    "`x-amz-sdk-checksum-algorithm` is given, but neither `x-amz-checksum-*` nor `x-amz-trailer`"
                ));
            }
        }
        Ok(Promises { length, md5, sums, trailers })
    }

    /// Whether there is anything besides the length to keep.
    pub(super) fn has_digest(&self) -> bool {
        self.md5.is_some() || !self.sums.is_empty()
    }

    fn trailer(&self, algorithm: &str) -> Option<String> {
        let name = format!("x-amz-checksum-{algorithm}");
        let read = |map: &HeaderMap| map.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        self.trailers.as_ref().and_then(|trailers| trailers.read(read)).flatten()
    }
}

fn trailer_algorithm(name: &str) -> S3Result<&'static str> {
    let lower = name.to_ascii_lowercase();
    let algorithm = lower.strip_prefix("x-amz-checksum-");
    let known = ALGORITHMS.iter().find(|(known, _)| algorithm == Some(*known));
    known.map(|(known, _)| *known).ok_or_else(|| not_implemented(format!("the trailer `{name}`")))
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> S3Result<Option<&'a str>> {
    let refused = |_| S3Error::with_message(s3s::S3ErrorCode::InvalidRequest, format!("`{name}` is no plain text"));
    headers.get(name).map(|value| value.to_str().map_err(refused)).transpose()
}

fn valid(value: &str, bytes: usize) -> Result<String, ()> {
    match STANDARD.decode(value) {
        Ok(decoded) if decoded.len() == bytes => Ok(value.to_owned()),
        _ => Err(()),
    }
}

impl BodyCheck for Promises {
    fn update(&mut self, piece: &[u8]) {
        for sum in &mut self.sums {
            sum.running.update(piece);
        }
    }

    fn finish(mut self: Box<Self>, body: &BodyDigest) -> Result<BTreeMap<String, String>, Mismatch> {
        let differs = |what: String, expected: String, actual: String| Err(Mismatch { what, expected, actual });
        if let Some(length) = self.length.filter(|length| *length != body.size) {
            return differs("Content-Length".to_owned(), length.to_string(), body.size.to_string());
        }
        if let Some(md5) = &self.md5 {
            let actual = STANDARD.encode(body.md5);
            if *md5 != actual {
                return differs("Content-MD5".to_owned(), md5.clone(), actual);
            }
        }
        let mut kept = BTreeMap::new();
        for sum in std::mem::take(&mut self.sums) {
            let expected = sum.value.or_else(|| self.trailer(sum.algorithm));
            let actual = sum.running.finish(body);
            if expected.as_ref() != Some(&actual) {
                let expected = expected.unwrap_or_else(|| "in a trailer that did not come".to_owned());
                return differs(format!("x-amz-checksum-{}", sum.algorithm), expected, actual);
            }
            kept.insert(sum.algorithm.to_owned(), actual);
        }
        Ok(kept)
    }
}

/// Checks a short body that no store sees: the XML of a request.
pub(super) struct XmlCheck {
    promises: Box<Promises>,
    md5: Md5,
    crc64: Crc64Nvme,
    size: u64,
}

impl XmlCheck {
    /// From the request's headers; `None` when it promises nothing.
    pub(super) fn of(headers: &HeaderMap, about: About) -> S3Result<Option<XmlCheck>> {
        let promises = Box::new(Promises::read(headers, None, None, about)?);
        Ok(promises.has_digest().then(|| XmlCheck { promises, md5: Md5::new(), crc64: Crc64Nvme::new(), size: 0 }))
    }

    /// The next bytes.
    pub(super) fn update(&mut self, piece: &[u8]) {
        self.promises.update(piece);
        self.md5.update(piece);
        self.crc64.update(piece);
        self.size += piece.len() as u64;
    }

    /// The end.
    pub(super) fn finish(self) -> Result<(), Mismatch> {
        let crc64 = lifecycle::ids::Checksum(u64::from_be_bytes(self.crc64.finalize()));
        let digest = BodyDigest { size: self.size, md5: self.md5.finalize(), crc64 };
        self.promises.finish(&digest).map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    /// Values of `hello` from public tools (`openssl dgst`, `crc32`); CRC-64/NVME and CRC-32C from the AWS CLI.
    const HELLO: [(&str, &str); 4] = [
        ("content-md5", "XUFAKrxLKna5cZ2REBfFkg=="),
        ("x-amz-checksum-crc32", "NhCmhg=="),
        ("x-amz-checksum-sha1", "qvTGHdzF6KLavt4PO0gs2a6pQ00="),
        ("x-amz-checksum-sha256", "LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ="),
    ];

    fn judge(pairs: &[(&'static str, &str)], body: &[u8]) -> Result<(), Mismatch> {
        let mut check = XmlCheck::of(&headers(pairs), About::Body).unwrap().unwrap();
        check.update(body);
        check.finish()
    }

    #[test]
    fn each_promise_is_kept_by_its_body_and_broken_by_another() {
        for promise in HELLO {
            assert_eq!(judge(&[promise], b"hello"), Ok(()), "{promise:?}");
            assert_eq!(judge(&[promise], b"hellp").unwrap_err().what.to_lowercase(), promise.0);
        }
        for algorithm in ["crc32c", CRC64] {
            let name: &'static str =
                if algorithm == CRC64 { "x-amz-checksum-crc64nvme" } else { "x-amz-checksum-crc32c" };
            let right = checksum_of(algorithm, b"hello").unwrap();
            assert_eq!(judge(&[(name, &right)], b"hello"), Ok(()));
            assert!(judge(&[(name, &right)], b"").is_err());
        }
    }

    #[test]
    fn the_check_values_of_the_crcs() {
        // The CRC catalogue's check values, over `123456789`.
        assert_eq!(checksum_of("crc32", b"123456789").unwrap(), STANDARD.encode(0xcbf4_3926_u32.to_be_bytes()));
        assert_eq!(checksum_of("crc32c", b"123456789").unwrap(), STANDARD.encode(0xe306_9283_u32.to_be_bytes()));
        let crc64 = 0xae8b_1486_0a79_9888_u64;
        assert_eq!(checksum_of(CRC64, b"123456789").unwrap(), STANDARD.encode(crc64.to_be_bytes()));
    }

    #[test]
    fn a_promise_that_cannot_be_read_is_refused() {
        let code = |pairs: &[(&'static str, &str)]| {
            let refused = Promises::read(&headers(pairs), None, None, About::Body);
            refused.err().map(|error| error.code().as_str().to_owned()).unwrap_or_default()
        };
        assert_eq!(code(&[("content-md5", "x")]), "InvalidDigest");
        assert_eq!(code(&[("x-amz-checksum-crc32", "AAAA")]), "InvalidRequest");
        assert_eq!(code(&[("x-amz-trailer", "x-amz-checksum-sha512")]), "NotImplemented");
        assert_eq!(code(&[("x-amz-sdk-checksum-algorithm", "CRC32")]), "InvalidRequest");
    }

    #[test]
    fn a_short_body_and_a_missing_trailer_break_the_promise() {
        let digest = BodyDigest { size: 3, md5: [0; 16], crc64: lifecycle::ids::Checksum(0) };
        let promises = Promises::read(&headers(&[]), None, Some(4), About::Body).unwrap();
        assert_eq!(Box::new(promises).finish(&digest).unwrap_err().what, "Content-Length");
        let trailer = headers(&[("x-amz-trailer", "x-amz-checksum-crc32")]);
        let promises = Promises::read(&trailer, None, Some(3), About::Body).unwrap();
        assert_eq!(Box::new(promises).finish(&digest).unwrap_err().what, "x-amz-checksum-crc32");
    }
}
