//! The one place where refusals of the store, and failures of bodies on their way, become S3 error codes.
//!
//! What a client brought about keeps its own code and says what to do; failures of the machine are logged here, with
//! their cause, and answered without it.

use crate::store::StoreError;
use engine::error::{ErrorKind, PortError};
use http::StatusCode;
use s3s::{S3Error, S3ErrorCode, s3_error};
use std::error::Error;

/// A code that `s3s` has no name for.
pub(super) fn named(code: &'static str, status: StatusCode, message: impl Into<String>) -> S3Error {
    let mut error = S3Error::with_message(S3ErrorCode::Custom(code.into()), message.into());
    error.set_status_code(status);
    error
}

/// The request means something that this endpoint does not do.
pub(super) fn not_implemented(what: impl std::fmt::Display) -> S3Error {
    s3_error!(NotImplemented, "{what} is not supported by this endpoint")
}

/// Why clients never write a destination.
pub(super) fn destination(bucket: &str) -> S3Error {
    s3_error!(
        AccessDenied,
        "bucket `{bucket}` holds copies: clients can list and read it, but only the policies of Afterimage write and delete there, so that whoever can write the source cannot destroy its copies"
    )
}

/// A refusal or failure of the store, as the client is told.
pub(super) fn from_store(error: StoreError) -> S3Error {
    let told = error.to_string();
    let code = match &error {
        StoreError::BadBucketName(_) => S3ErrorCode::InvalidBucketName,
        StoreError::NoSuchBucket(_) => S3ErrorCode::NoSuchBucket,
        StoreError::BucketExists(_) => S3ErrorCode::BucketAlreadyOwnedByYou,
        StoreError::BucketNotEmpty(_) => S3ErrorCode::BucketNotEmpty,
        StoreError::ReadOnly(bucket) => return destination(bucket),
        StoreError::NoSuchKey(_) => S3ErrorCode::NoSuchKey,
        StoreError::NoSuchUpload(_) => S3ErrorCode::NoSuchUpload,
        StoreError::PreconditionFailed | StoreError::SourceChanged => S3ErrorCode::PreconditionFailed,
        StoreError::RangeNotSatisfiable { .. } => S3ErrorCode::InvalidRange,
        StoreError::Mismatch(mismatch) if mismatch.what == "Content-Length" => S3ErrorCode::IncompleteBody,
        StoreError::Mismatch(_) => S3ErrorCode::BadDigest,
        StoreError::InvalidPart(_) => S3ErrorCode::InvalidPart,
        StoreError::InvalidPartOrder => S3ErrorCode::InvalidPartOrder,
        StoreError::PartTooSmall(_) => S3ErrorCode::EntityTooSmall,
        StoreError::Invalid(_) => S3ErrorCode::InvalidArgument,
        StoreError::Port(error) => return from_port(error),
    };
    S3Error::with_message(code, told)
}

/// A failure of the machine.
pub(super) fn from_port(error: &PortError) -> S3Error {
    let (answer, loud) = match &error.kind {
        ErrorKind::NoSpace => {
            (named("InsufficientStorage", StatusCode::INSUFFICIENT_STORAGE, "no space left on the disk"), true)
        }
        ErrorKind::Throttled => (s3_error!(SlowDown), false),
        ErrorKind::Unavailable | ErrorKind::Cancelled => (s3_error!(ServiceUnavailable), true),
        ErrorKind::Invalid(why) => (s3_error!(InvalidRequest, "{why}"), false),
        ErrorKind::Unsupported => (not_implemented(error.attempted), false),
        ErrorKind::Missing
        | ErrorKind::AccessDenied(_)
        | ErrorKind::NotSetUp(_)
        | ErrorKind::Damaged(_)
        | ErrorKind::Archived
        | ErrorKind::Internal(_) => (s3_error!(InternalError, "{} {}", error.attempted, error.kind), true),
    };
    if loud {
        let cause = error.source.as_deref().map(|source| source.to_string()).unwrap_or_default();
        tracing::error!(%error, cause, "the endpoint could not answer a request");
    }
    answer
}

/// A body that broke off or did not keep what its signature says. The types of `s3s` behind these errors are private, so
/// their names are looked for in the text; a test per case holds them to it.
pub(super) fn from_body(error: &(dyn Error + 'static)) -> S3Error {
    let mut text = String::new();
    let mut cause = Some(error);
    while let Some(error) = cause {
        text.push_str(&error.to_string());
        text.push('\n');
        cause = error.source();
    }
    if text.contains("Sha256Mismatch") {
        let message = "the body's SHA-256 is not the one that `x-amz-content-sha256` says";
        return named("XAmzContentSHA256Mismatch", StatusCode::BAD_REQUEST, message);
    }
    if text.contains("SignatureMismatch") {
        return s3_error!(SignatureDoesNotMatch, "a piece of the body does not match its signature");
    }
    if text.contains("FormatError") || text.contains("TooLarge") || text.contains("TooManyTrailerHeaders") {
        return s3_error!(InvalidRequest, "the body is not a well-formed aws-chunked one");
    }
    s3_error!(IncompleteBody, "the body ended before the length that the request says, or beyond it")
}

/// What `s3s` refuses by itself has a code and no words: an error with the words that a person needs, if we know better.
pub(super) fn with_words(xml: &[u8]) -> Option<Vec<u8>> {
    let xml = std::str::from_utf8(xml).ok()?;
    let (before, rest) = xml.split_once("<Code>")?;
    let (code, after) = rest.split_once("</Code>")?;
    if after.contains("<Message>") {
        return None;
    }
    let words = match code {
        "SignatureDoesNotMatch" => {
            "the signature is not that of this request: is the secret access key the one that `afterimage credentials \
             show` prints?"
        }
        "InvalidBucketName" => "the name of a bucket has 3 to 63 lower-case letters, digits, dots and hyphens",
        "KeyTooLongError" => "a key has 1 to 1,024 bytes of UTF-8",
        "RequestTimeTooSkewed" => "the clocks of this client and of the endpoint are too far apart",
        _ => return None,
    };
    Some(format!("{before}<Code>{code}</Code><Message>{words}</Message>{after}").into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_of_the_machine_have_their_codes_and_tell_no_internals() {
        for (kind, code, status) in [
            (ErrorKind::NoSpace, "InsufficientStorage", 507),
            (ErrorKind::Throttled, "SlowDown", 503),
            (ErrorKind::Unavailable, "ServiceUnavailable", 503),
            (ErrorKind::Damaged("a piece".to_owned()), "InternalError", 500),
        ] {
            let failure = PortError::new("write object", "/secret/path", kind);
            let told = from_store(StoreError::Port(failure));
            assert_eq!((told.code().as_str(), told.status_code().map(|status| status.as_u16())), (code, Some(status)));
            assert!(!told.message().unwrap_or_default().contains("/secret/path"), "{told}");
        }
    }
}
