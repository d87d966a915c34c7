//! AWS Signature Version 4 of a request to the endpoint: read from its headers, and verified.
//!
//! The engine behind it verifies none. Every request is `POST /` without a query, so that the canonical request has one
//! shape, and what does not have it is refused: signatures in a URL, bodies that are not signed, headers that are not signed
//! and mean something, session tokens. The comparison takes the same time whatever differs.

use super::Said;
use super::limits::SIGNATURE_AGE_MAX;
use hmac::{Hmac, KeyInit, Mac};
use http::header::{AUTHORIZATION, HeaderMap};
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use lifecycle::time::UnixMs;
use sha2::{Digest, Sha256};

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// What a credential's scope may name: the tables, and their streams.
const SERVICES: [&str; 2] = ["dynamodb", "streams.dynamodb"];
const DATE: &str = "x-amz-date";
const BODY_HASH: &str = "x-amz-content-sha256";

/// What a request says of its signature.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Claim {
    /// Who signed.
    pub(super) access_key: String,
    /// `20261121`.
    day: String,
    region: String,
    service: String,
    /// `20261121T072612Z`.
    stamp: String,
    /// Names of the signed headers, as the request gives them.
    signed: String,
    signature: [u8; 32],
}

impl Claim {
    /// Reads it. A request without one, or with one that cannot be right at `now`, is refused.
    pub(super) fn of(headers: &HeaderMap, now: UnixMs) -> Result<Claim, Said> {
        if !headers.contains_key(AUTHORIZATION) {
            let why = "the request is not signed: sign it (Signature Version 4) with the keys that `afterimage credentials \
                       show` prints";
            return Err(Said::refused(400, "MissingAuthenticationTokenException", why));
        }
        if headers.contains_key("x-amz-security-token") {
            return Err(unknown("the keys of this endpoint have no session tokens"));
        }
        let text = one(headers, AUTHORIZATION.as_str())?;
        let rest = text.strip_prefix(ALGORITHM).ok_or_else(|| incomplete(&format!("only {ALGORITHM} is taken")))?;
        let member = |name: &str| {
            let found = rest.split(',').find_map(|member| member.trim().strip_prefix(name)?.strip_prefix('='));
            found.map(str::to_owned).ok_or_else(|| incomplete(&format!("`{name}` is missing")))
        };
        let (credential, signed, signature) = (member("Credential")?, member("SignedHeaders")?, member("Signature")?);
        let scope: Vec<&str> = credential.split('/').collect();
        let [access_key, day, region, service, "aws4_request"] = scope[..] else {
            return Err(incomplete("the credential's scope is key/day/region/service/aws4_request"));
        };
        if !SERVICES.contains(&service) {
            let why = format!("the credential's scope is `{service}`, and must be `dynamodb`");
            return Err(Said::refused(400, "InvalidSignatureException", &why));
        }
        let signature = from_hex(&signature).ok_or_else(|| incomplete("the signature has 64 hexadecimal digits"))?;
        let stamp = one(headers, DATE)?.to_owned();
        let at = moment(&stamp).ok_or_else(|| incomplete(&format!("`{DATE}` is written as 20261121T072612Z")))?;
        if !stamp.starts_with(day) {
            return Err(invalid("the day of the credential's scope is not that of the request"));
        }
        if now.since(at).max(at.since(now)) > SIGNATURE_AGE_MAX {
            let why =
                format!("the request was signed at {at}, and it is {now}: at most {SIGNATURE_AGE_MAX} may lie between");
            return Err(invalid(&why));
        }
        let claim = Claim {
            access_key: access_key.to_owned(),
            day: day.to_owned(),
            region: region.to_owned(),
            service: service.to_owned(),
            stamp,
            signed,
            signature,
        };
        claim.signs_what_matters(headers)?;
        Ok(claim)
    }

    fn signs_what_matters(&self, headers: &HeaderMap) -> Result<(), Said> {
        let signed: Vec<&str> = self.signed.split(';').collect();
        for name in &signed {
            one(headers, name)?;
        }
        for name in headers.keys().map(|name| name.as_str()).chain(["host", DATE]) {
            let matters = name == "host" || name.starts_with("x-amz-");
            if matters && !signed.contains(&name) {
                return Err(invalid(&format!("the header `{name}` must be signed")));
            }
        }
        Ok(())
    }

    /// Whether the holder of this secret signed these headers and this body.
    pub(super) fn verify(&self, headers: &HeaderMap, body: &[u8], secret: &str) -> Result<(), Said> {
        let body = to_hex(&Sha256::digest(body));
        if headers.get(BODY_HASH).is_some_and(|told| told.as_bytes() != body.as_bytes()) {
            return Err(invalid(&format!("`{BODY_HASH}` is not the hash of the body")));
        }
        let request = Sha256::digest(self.canonical(headers, &body));
        let scope = format!("{}/{}/{}/aws4_request", self.day, self.region, self.service);
        let to_sign = format!("{ALGORITHM}\n{}\n{scope}\n{}", self.stamp, to_hex(&request));
        let key = [&self.day, &self.region, &self.service, "aws4_request"]
            .into_iter()
            .fold(format!("AWS4{secret}").into_bytes(), |key, part| keyed(&key, part).finalize().into_bytes().to_vec());
        keyed(&key, &to_sign).verify_slice(&self.signature).map_err(|_| {
            invalid(
                "The request signature we calculated does not match the signature you provided. Check your secret key and \
                 how the request is signed.",
            )
        })
    }

    fn canonical(&self, headers: &HeaderMap, body: &str) -> Vec<u8> {
        let mut text = b"POST\n/\n\n".to_vec();
        for name in self.signed.split(';') {
            text.extend_from_slice(name.as_bytes());
            text.push(b':');
            let value = headers.get(name).map(|value| value.as_bytes()).unwrap_or_default();
            let words: Vec<&[u8]> = value.split(|byte| *byte == b' ').filter(|word| !word.is_empty()).collect();
            text.extend_from_slice(&words.join(&b' '));
            text.push(b'\n');
        }
        text.extend_from_slice(format!("\n{}\n{body}", self.signed).as_bytes());
        text
    }
}

/// A header that stands there once, so that nobody takes another one for it.
fn one<'a>(headers: &'a HeaderMap, name: &str) -> Result<&'a str, Said> {
    let mut values = headers.get_all(name).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(incomplete(&format!("the header `{name}` must stand there, once")));
    };
    // What is not ASCII has its meaning in the signature only.
    Ok(value.to_str().unwrap_or_default())
}

fn keyed(key: &[u8], text: &str) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length will do");
    mac.update(text.as_bytes());
    mac
}

fn moment(stamp: &str) -> Option<UnixMs> {
    let told = DateTime::strptime("%Y%m%dT%H%M%SZ", stamp).ok().filter(|_| stamp.len() == 16)?;
    Some(UnixMs(told.to_zoned(TimeZone::UTC).ok()?.timestamp().as_millisecond()))
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<[u8; 32]> {
    let digits: Vec<u8> = text.chars().map(|c| c.to_digit(16).map(|digit| digit as u8)).collect::<Option<_>>()?;
    let bytes: Vec<u8> = digits.chunks_exact(2).map(|pair| pair[0] * 16 + pair[1]).collect();
    bytes.try_into().ok().filter(|_| digits.len() == 64)
}

fn incomplete(why: &str) -> Said {
    Said::refused(400, "IncompleteSignatureException", why)
}

fn invalid(why: &str) -> Said {
    Said::refused(400, "InvalidSignatureException", why)
}

/// The key is not known here.
pub(super) fn unknown(why: &str) -> Said {
    Said::refused(400, "UnrecognizedClientException", why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};

    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
    const NOW: UnixMs = UnixMs(1_440_938_160_000);

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::try_from(*name).unwrap(), HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    /// The example `post-vanilla` of AWS's own test suite for Signature Version 4.
    #[test]
    fn a_published_example_is_verified() {
        let signature = "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b";
        let claim = Claim {
            access_key: "AKIDEXAMPLE".to_owned(),
            day: "20150830".to_owned(),
            region: "us-east-1".to_owned(),
            service: "service".to_owned(),
            stamp: "20150830T123600Z".to_owned(),
            signed: "host;x-amz-date".to_owned(),
            signature: from_hex(signature).unwrap(),
        };
        let sent = headers(&[("host", "example.amazonaws.com"), ("x-amz-date", "20150830T123600Z")]);
        assert_eq!(claim.verify(&sent, b"", SECRET), Ok(()));
        let other = headers(&[("host", "example.org"), ("x-amz-date", "20150830T123600Z")]);
        assert!(claim.verify(&other, b"", SECRET).is_err());
        assert!(claim.verify(&sent, b"x", SECRET).is_err());
        assert!(claim.verify(&sent, b"", "another").is_err());
    }

    fn refusal(scope: &str, signed: &str, more: &[(&str, &str)]) -> String {
        let authorization =
            format!("{ALGORITHM} Credential={scope}, SignedHeaders={signed}, Signature={}", "0".repeat(64));
        let mut all = vec![("authorization", authorization.as_str()), ("host", "a")];
        all.extend(more);
        match Claim::of(&headers(&all), NOW) {
            Ok(_) => String::new(),
            Err(said) => String::from_utf8(said.body.to_vec()).unwrap(),
        }
    }

    #[test]
    fn what_cannot_be_right_is_refused_before_the_body_is_read() {
        const SCOPE: &str = "AK/20150830/us-east-1/dynamodb/aws4_request";
        const SIGNED: &str = "host;x-amz-date;x-amz-target";
        const DATE: (&str, &str) = ("x-amz-date", "20150830T123600Z");
        const TARGET: (&str, &str) = ("x-amz-target", "DynamoDB_20120810.ListTables");
        assert_eq!(refusal(SCOPE, SIGNED, &[DATE, TARGET]), "");
        assert_eq!(refusal(&SCOPE.replace("dynamodb", "streams.dynamodb"), SIGNED, &[DATE, TARGET]), "");
        type Sent<'a> = &'a [(&'a str, &'a str)];
        let cases: [(&str, &str, Sent, &str); 9] = [
            (&SCOPE.replace("dynamodb", "s3"), SIGNED, &[DATE, TARGET], "scope is `s3`"),
            ("AK/20150830/dynamodb", SIGNED, &[DATE, TARGET], "key/day/region/service"),
            (&SCOPE.replace("0830", "0829"), SIGNED, &[DATE, TARGET], "not that of the request"),
            (SCOPE, SIGNED, &[("x-amz-date", "20150830T122059Z"), TARGET], "15m may lie between"),
            (SCOPE, SIGNED, &[("x-amz-date", "20150830T125101Z"), TARGET], "15m may lie between"),
            (SCOPE, "host;x-amz-date", &[DATE, TARGET], "`x-amz-target` must be signed"),
            (SCOPE, "x-amz-date;x-amz-target", &[DATE, TARGET], "`host` must be signed"),
            (SCOPE, SIGNED, &[DATE, TARGET, TARGET], "`x-amz-target` must stand there, once"),
            (SCOPE, SIGNED, &[DATE, TARGET, ("x-amz-security-token", "t")], "no session tokens"),
        ];
        for (scope, signed, more, why) in cases {
            let told = refusal(scope, signed, more);
            assert!(told.contains(why), "{why}: {told}");
        }
        let unsigned = Claim::of(&headers(&[("host", "a")]), NOW).unwrap_err();
        assert!(String::from_utf8_lossy(&unsigned.body).contains("MissingAuthenticationToken"));
        let basic = Claim::of(&headers(&[("authorization", "Basic eDp5")]), NOW).unwrap_err();
        assert!(String::from_utf8_lossy(&basic.body).contains("IncompleteSignature"));
    }
}
