//! Who may do what, decided before a request's body is read.
//!
//! Three questions, in this order: is the request signed; does this endpoint know the operation and every parameter and
//! `x-amz-*` header of it (what it would ignore, it refuses: `NotImplemented`, never a wrong success); would it write a
//! destination (`AccessDenied`).

use super::faults::{destination, not_implemented};
use super::front::Query;
use super::operations::{Operation, Writes, operation};
use super::{OWNER, checks};
use crate::store::{Role, Store};
use async_trait::async_trait;
use http::HeaderMap;
use s3s::access::{S3Access, S3AccessContext};
use s3s::{S3Result, s3_error};
use std::sync::Arc;

/// The gate in front of every operation.
pub(super) struct Gate {
    pub(super) store: Arc<Store>,
}

#[async_trait]
impl S3Access for Gate {
    async fn check(&self, cx: &mut S3AccessContext<'_>) -> S3Result<()> {
        if cx.credentials().is_none() {
            return Err(s3_error!(AccessDenied, "anonymous requests are not allowed: sign them (Signature Version 4)"));
        }
        let name = cx.s3_op().name();
        let operation = operation(name).ok_or_else(|| not_implemented(format!("the operation {name}")))?;
        parameters_known(&operation, cx.uri().query())?;
        headers_known(&operation, cx.headers())?;
        let bucket = cx.s3_path().get_bucket_name().filter(|_| operation.writes == Writes::Bucket);
        if let Some(bucket) = bucket
            && self.store.bucket(bucket).is_ok_and(|bucket| bucket.info().role == Role::Destination)
        {
            return Err(destination(bucket));
        }
        Ok(())
    }
}

fn parameters_known(operation: &Operation, query: Option<&str>) -> S3Result<()> {
    for (name, _) in &Query::of(query).0 {
        // Parameters `x-amz-*` are headers in disguise and were made headers before.
        let known = name == "x-id" || operation.parameters.contains(&name.as_str());
        if !known && !name.to_ascii_lowercase().starts_with("x-amz-") {
            return Err(not_implemented(format!("the parameter `{name}` of {}", operation.name)));
        }
    }
    Ok(())
}

fn headers_known(operation: &Operation, headers: &HeaderMap) -> S3Result<()> {
    for (name, value) in headers {
        let name = name.as_str();
        if name == "content-range" {
            return Err(not_implemented("writing a part of an object (`Content-Range`)"));
        }
        let Some(short) = name.strip_prefix("x-amz-") else { continue };
        let refused = || not_implemented(format!("the header `{name}` of {}", operation.name));
        let value = value.to_str().unwrap_or("");
        let known = is_common(short)
            || operation.headers.contains(&short)
            || (operation.takes_object && short.starts_with("meta-"))
            || (operation.takes_checksums && is_checksum(short));
        if !known {
            return Err(refused());
        }
        match short {
            "expected-bucket-owner" | "source-expected-bucket-owner" if value != OWNER => {
                return Err(s3_error!(AccessDenied, "every bucket belongs to `{OWNER}`, not to `{value}`"));
            }
            "storage-class" if value != "STANDARD" => {
                return Err(not_implemented(format!("the storage class `{value}`")));
            }
            "acl" if !["private", "bucket-owner-full-control"].contains(&value) => {
                return Err(not_implemented(format!("the access control list `{value}`")));
            }
            "bucket-object-lock-enabled" if value != "false" => return Err(refused()),
            "object-ownership" if value != "BucketOwnerEnforced" => return Err(refused()),
            _ => {}
        }
    }
    Ok(())
}

fn is_common(short: &str) -> bool {
    matches!(
        short,
        "date"
            | "content-sha256"
            | "user-agent"
            | "request-payer"
            | "expected-bucket-owner"
            | "sdk-checksum-algorithm"
            | "decoded-content-length"
    )
}

fn is_checksum(short: &str) -> bool {
    short == "trailer"
        || short
            .strip_prefix("checksum-")
            .is_some_and(|name| checks::ALGORITHMS.iter().any(|(algorithm, _)| *algorithm == name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(name: &str, query: &str, header: (&'static str, &str)) -> String {
        let operation = operation(name).unwrap();
        let headers = HeaderMap::from_iter([(header.0.parse().unwrap(), header.1.parse().unwrap())]);
        let result = parameters_known(&operation, Some(query)).and_then(|()| headers_known(&operation, &headers));
        result.err().map(|error| error.code().as_str().to_owned()).unwrap_or_default()
    }

    #[test]
    fn what_would_be_ignored_with_wrong_effect_is_refused() {
        let date = ("x-amz-date", "0");
        for (name, query) in [
            ("GetObject", "versionId=1"),
            ("GetObject", "partNumber=1"),
            ("DeleteObject", "versionId=null"),
            ("CreateBucket", "intelligentTiering"),
            ("DeleteBucket", "intelligentTiering"),
            ("PutObject", "renameObject"),
            ("ListObjectsV2", "list-type=2&metadata=true"),
        ] {
            assert_eq!(code(name, query, date), "NotImplemented", "{name}?{query}");
        }
        for header in [
            ("x-amz-acl", "public-read"),
            ("x-amz-storage-class", "GLACIER"),
            ("x-amz-server-side-encryption", "AES256"),
            ("x-amz-server-side-encryption-customer-algorithm", "AES256"),
            ("x-amz-object-lock-mode", "COMPLIANCE"),
            ("x-amz-website-redirect-location", "/"),
            ("x-amz-grant-read", "id=1"),
            ("x-amz-write-offset-bytes", "1"),
            ("x-amz-checksum-sha512", "AAAA"),
            ("x-amz-something-new", "1"),
            ("content-range", "bytes 0-1/2"),
        ] {
            assert_eq!(code("PutObject", "", header), "NotImplemented", "{header:?}");
        }
        assert_eq!(code("PutObject", "", ("x-amz-expected-bucket-owner", "111122223333")), "AccessDenied");
    }

    #[test]
    fn what_means_no_more_than_the_default_is_accepted() {
        for header in [
            ("x-amz-acl", "private"),
            ("x-amz-storage-class", "STANDARD"),
            ("x-amz-meta-colour", "blue"),
            ("x-amz-checksum-crc64nvme", "AAAA"),
            ("x-amz-tagging", "a=b"),
            ("x-amz-expected-bucket-owner", OWNER),
        ] {
            assert_eq!(code("PutObject", "x-id=PutObject&X-Amz-Expires=60", header), "", "{header:?}");
        }
    }
}
