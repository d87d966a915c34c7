//! What the bucket store refuses, and the one place where errors of the system become [`PortError`]s.
//!
//! Refusals that a client can bring about have a variant of their own, so that the endpoint answers each with S3's code;
//! failures of the machine are [`StoreError::Port`].

use super::types::Mismatch;
use crate::io_error::io_failed;
use engine::error::{ErrorKind, PortError};
use std::fmt;
use std::io;

/// Why the store did not do it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// S3: `InvalidBucketName`.
    #[error("`{0}` is no bucket name: 3 to 63 lower-case letters, digits, dots and hyphens")]
    BadBucketName(String),
    /// S3: `NoSuchBucket`.
    #[error("there is no bucket `{0}`")]
    NoSuchBucket(String),
    /// S3: `BucketAlreadyOwnedByYou`.
    #[error("bucket `{0}` is there already")]
    BucketExists(String),
    /// S3: `BucketNotEmpty`.
    #[error("bucket `{0}` is not empty")]
    BucketNotEmpty(String),
    /// S3: `AccessDenied`. Clients never write a destination.
    #[error("bucket `{0}` holds copies: it can be read, but never written or deleted by clients")]
    ReadOnly(String),
    /// S3: `NoSuchKey`.
    #[error("there is no object `{0}`")]
    NoSuchKey(String),
    /// S3: `NoSuchUpload`.
    #[error("there is no upload `{0}`")]
    NoSuchUpload(String),
    /// S3: `PreconditionFailed` (412).
    #[error("the object is not what the request's condition asks for")]
    PreconditionFailed,
    /// S3: `PreconditionFailed` (412) of a copy's source.
    #[error("the copy's source is not what the request's condition asks for")]
    SourceChanged,
    /// S3: `InvalidRange` (416).
    #[error("the range begins beyond the object's {size} bytes")]
    RangeNotSatisfiable {
        /// The object's size.
        size: u64,
    },
    /// S3: `BadDigest`. Nothing was written.
    #[error(transparent)]
    Mismatch(#[from] Mismatch),
    /// S3: `InvalidPart`.
    #[error("part {0} was not uploaded, or has another tag")]
    InvalidPart(u32),
    /// S3: `InvalidPartOrder`.
    #[error("the parts are not in ascending order")]
    InvalidPartOrder,
    /// S3: `EntityTooSmall`.
    #[error("part {0} is smaller than 5 MiB and not the last")]
    PartTooSmall(u32),
    /// S3: `InvalidArgument`; says why.
    #[error("{0}")]
    Invalid(String),
    /// The machine, or the body's stream, failed. S3: by its kind (`NoSpace`: 507 or `InternalError`; …).
    #[error(transparent)]
    Port(#[from] PortError),
}

/// A result of the store.
pub type StoreResult<T> = Result<T, StoreError>;

impl StoreError {
    /// As a port tells it. What is an answer in a port (absent, condition not met) was taken out before.
    pub fn into_port(self, attempted: &'static str, object: impl fmt::Display) -> PortError {
        let kind = match &self {
            StoreError::Port(error) => return error.clone(),
            StoreError::NoSuchBucket(_) => ErrorKind::Missing,
            StoreError::ReadOnly(_) => ErrorKind::AccessDenied(attempted.to_owned()),
            StoreError::Mismatch(mismatch) => ErrorKind::Damaged(mismatch.to_string()),
            other => ErrorKind::Invalid(other.to_string()),
        };
        PortError::new(attempted, object, kind).because(self)
    }
}

/// Maps an error of the file system, as everywhere in this crate.
pub(crate) fn io_error(attempted: &'static str, object: impl fmt::Display, error: io::Error) -> PortError {
    io_failed(attempted, &object.to_string(), error)
}
