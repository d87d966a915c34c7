//! The SDK's errors as port errors, in one place.
//!
//! A code that the service gave decides where it is known, else the HTTP status. What is unknown is never taken for
//! absence (V8): a 403 may hide a missing key from somebody without `s3:ListBucket`, so it stays a refusal.

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use engine::error::{ErrorKind, PortError};
use engine::report::chain;
use std::error::Error;

/// What is being done, for errors: the verb and object of [`PortError`], and the right that it takes.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// Verb and kind of object: `copy object`.
    pub(crate) attempted: &'static str,
    /// The IAM action (or actions) that it takes: `s3:GetObject`.
    pub(crate) action: &'static str,
    /// Which object: `s3://bucket/key`, a table, a queue.
    pub(crate) object: String,
}

/// The library's error as text with all of its causes: its own `Display` says no more than "service error".
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Told(String);

impl Call {
    pub(crate) fn new(attempted: &'static str, action: &'static str, object: impl std::fmt::Display) -> Call {
        Call { attempted, action, object: object.to_string() }
    }

    /// An error of our own finding.
    pub(crate) fn failed(&self, kind: ErrorKind) -> PortError {
        PortError::new(self.attempted, &self.object, kind)
    }

    /// The SDK's error.
    pub(crate) fn sdk<E>(&self, error: SdkError<E, HttpResponse>) -> PortError
    where
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    {
        let kind = self.kind(&error);
        let told = match error.as_service_error().and_then(|error| Some((error.code()?, error.message()?))) {
            Some((code, message)) => format!("{code}: {message}"),
            None => chain(&error),
        };
        self.failed(kind).because(Told(told))
    }

    /// An error of one item in a batch that succeeded as a whole.
    pub(crate) fn item(&self, code: &str, message: &str) -> PortError {
        let kind = by_code(code, self).unwrap_or_else(|| ErrorKind::Internal(format!("{code}: {message}")));
        self.failed(kind).because(Told(format!("{code}: {message}")))
    }

    fn kind<E: ProvideErrorMetadata>(&self, error: &SdkError<E, HttpResponse>) -> ErrorKind {
        match error {
            SdkError::ConstructionFailure(_) => ErrorKind::Invalid("the request could not be built".to_owned()),
            // Whether it took effect is unknown: everything that is called here is safe to repeat.
            SdkError::TimeoutError(_) | SdkError::DispatchFailure(_) | SdkError::ResponseError(_) => {
                ErrorKind::Unavailable
            }
            SdkError::ServiceError(service) => {
                let code = service.err().code();
                code.and_then(|code| by_code(code, self))
                    .unwrap_or_else(|| by_status(service.raw().status().as_u16(), code, self))
            }
            _ => ErrorKind::Internal("the SDK gave a kind of error that is not known here".to_owned()),
        }
    }
}

/// Whether the service said that the object, not its container, is not there.
pub(crate) fn is_absent<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> bool {
    let SdkError::ServiceError(service) = error else { return false };
    match service.err().code() {
        Some("NoSuchKey" | "NoSuchVersion" | "NotFound") => true,
        Some(_) => false,
        // An answer to HEAD has no body, and so no code.
        None => service.raw().status().as_u16() == 404,
    }
}

/// The HTTP status of the service's answer, if it gave one.
pub(crate) fn status<E>(error: &SdkError<E, HttpResponse>) -> Option<u16> {
    error.raw_response().map(|response| response.status().as_u16())
}

fn by_code(code: &str, call: &Call) -> Option<ErrorKind> {
    Some(match code {
        "SlowDown"
        | "Throttling"
        | "ThrottlingException"
        | "ThrottledException"
        | "RequestThrottled"
        | "RequestThrottledException"
        | "RequestLimitExceeded"
        | "LimitExceededException"
        | "TooManyRequestsException"
        | "ProvisionedThroughputExceededException"
        | "ProvisionedThroughputExceeded"
        | "BandwidthLimitExceeded" => ErrorKind::Throttled,
        "AccessDenied" | "AccessDeniedException" | "AllAccessDisabled" | "Forbidden" | "UnauthorizedOperation" => {
            denied(call)
        }
        "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "ExpiredToken"
        | "ExpiredTokenException"
        | "InvalidToken"
        | "UnrecognizedClientException"
        | "InvalidSignatureException"
        | "MissingAuthenticationToken" => ErrorKind::AccessDenied(format!("the credentials are refused: {code}")),
        "RequestTimeTooSkewed" => {
            ErrorKind::AccessDenied("this machine's clock is wrong: set it, then try again".to_owned())
        }
        "NoSuchBucket"
        | "ResourceNotFoundException"
        | "QueueDoesNotExist"
        | "AWS.SimpleQueueService.NonExistentQueue" => ErrorKind::Missing,
        "InvalidObjectState" | "ObjectNotInActiveTierError" => ErrorKind::Archived,
        "BadDigest" | "InvalidDigest" | "XAmzContentSHA256Mismatch" => {
            ErrorKind::Damaged("the service received other bytes than were sent".to_owned())
        }
        "InternalError"
        | "InternalServerError"
        | "InternalFailure"
        | "ServiceUnavailable"
        | "RequestTimeout"
        | "TransactionInProgressException"
        | "OperationAborted" => ErrorKind::Unavailable,
        "NotImplemented" => ErrorKind::Unsupported,
        _ => return None,
    })
}

fn by_status(status: u16, code: Option<&str>, call: &Call) -> ErrorKind {
    match status {
        401 | 403 => denied(call),
        404 => ErrorKind::Missing,
        429 => ErrorKind::Throttled,
        501 => ErrorKind::Unsupported,
        500.. => ErrorKind::Unavailable,
        // An answer of 200 whose body is an error that has no known code.
        200..300 => ErrorKind::Unavailable,
        _ => ErrorKind::Invalid(match code {
            Some(code) => format!("the service answered {status} {code}"),
            None => format!("the service answered {status}"),
        }),
    }
}

fn denied(call: &Call) -> ErrorKind {
    ErrorKind::AccessDenied(format!("it takes {} on {}", call.action, call.object))
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_s3::error::ErrorMetadata;
    use aws_sdk_s3::primitives::SdkBody;
    use engine::error::Retry;

    #[derive(Debug, thiserror::Error)]
    #[error("refused")]
    struct Refused(ErrorMetadata);

    impl ProvideErrorMetadata for Refused {
        fn meta(&self) -> &ErrorMetadata {
            &self.0
        }
    }

    fn answered(status: u16, code: Option<&str>) -> SdkError<Refused, HttpResponse> {
        let mut meta = ErrorMetadata::builder();
        if let Some(code) = code {
            meta = meta.code(code);
        }
        let raw = HttpResponse::new(status.try_into().expect("a status"), SdkBody::empty());
        SdkError::service_error(Refused(meta.build()), raw)
    }

    fn kind(status: u16, code: Option<&str>) -> ErrorKind {
        Call::new("read object", "s3:GetObject", "s3://b/k").sdk(answered(status, code)).kind
    }

    #[test]
    fn a_code_decides_where_it_is_known_else_the_status() {
        assert_eq!(kind(503, Some("SlowDown")), ErrorKind::Throttled);
        assert_eq!(kind(503, Some("ServiceUnavailable")), ErrorKind::Unavailable);
        assert_eq!(kind(400, Some("ProvisionedThroughputExceededException")), ErrorKind::Throttled);
        assert_eq!(kind(404, Some("NoSuchBucket")), ErrorKind::Missing);
        assert_eq!(kind(403, Some("InvalidObjectState")), ErrorKind::Archived);
        assert_eq!(kind(200, Some("InternalError")), ErrorKind::Unavailable);
        assert_eq!(kind(500, None), ErrorKind::Unavailable);
        assert_eq!(kind(400, Some("Whatever")), ErrorKind::Invalid("the service answered 400 Whatever".to_owned()));
    }

    #[test]
    fn a_refusal_names_the_right_that_it_takes_and_is_never_absence() {
        let error = answered(403, None);
        assert!(!is_absent(&error));
        let told = Call::new("read object", "s3:GetObject", "s3://b/k").sdk(error);
        assert_eq!(told.to_string(), "read object s3://b/k: access denied (it takes s3:GetObject on s3://b/k)");
        assert_eq!(told.retry(), Retry::Later, "somebody can grant it");
    }

    #[test]
    fn absence_is_a_404_of_the_object_and_not_of_its_bucket() {
        assert!(is_absent(&answered(404, None)));
        assert!(is_absent(&answered(404, Some("NoSuchKey"))));
        assert!(is_absent(&answered(404, Some("NoSuchVersion"))));
        assert!(!is_absent(&answered(404, Some("NoSuchBucket"))));
        assert!(!is_absent(&answered(500, None)));
    }
}
