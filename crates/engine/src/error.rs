//! One error for every port: what was attempted, on what, of which kind, and whether trying again helps.
//!
//! Adapters map the errors of their libraries to this in one file each. `Display` never repeats the source; the binary
//! prints chains in one place.

use std::fmt;
use std::sync::Arc;

/// A port's answer when a call did not do what it should.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{attempted} {object}: {kind}")]
pub struct PortError {
    /// Verb and kind of object: `copy object`, `read catalog row`.
    pub attempted: &'static str,
    /// Which object.
    pub object: String,
    /// What kind of failure it was.
    pub kind: ErrorKind,
    /// The library's own error.
    #[source]
    pub source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

/// The closed set of failures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The container (bucket, table, file) is not there. A missing *object* is an answer, not an error.
    Missing,
    /// Not allowed; names the action that was missing where it is known.
    AccessDenied(String),
    /// Not as a person must first set it up; says what, and the remedy.
    NotSetUp(String),
    /// The other side asks to slow down.
    Throttled,
    /// The other side did not answer, or not in time; whether the call took effect is unknown.
    Unavailable,
    /// No space is left.
    NoSpace,
    /// The bytes are not those that were written; says what differs.
    Damaged(String),
    /// The object lies in an archive tier and must be retrieved first.
    Archived,
    /// The request can never succeed as it is; says why.
    Invalid(String),
    /// The adapter does not do this.
    Unsupported,
    /// Ended on request before it was done.
    Cancelled,
    /// Our own mistake, or the library's.
    Internal(String),
}

/// Whether trying again helps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// The same call will fail again.
    Never,
    /// The same call may succeed later.
    Later,
    /// The same call will succeed later, at a lower rate.
    Throttled,
}

impl PortError {
    /// An error without a source.
    pub fn new(attempted: &'static str, object: impl fmt::Display, kind: ErrorKind) -> PortError {
        PortError { attempted, object: object.to_string(), kind, source: None }
    }

    /// The same error with the library's own behind it.
    pub fn because(self, source: impl std::error::Error + Send + Sync + 'static) -> PortError {
        PortError { source: Some(Arc::new(source)), ..self }
    }

    /// Whether an object's bytes are not there at all, though the store knows of it: as after a removal that was cut off. Bytes
    /// that are others than were written are something else.
    pub fn bytes_are_gone(&self) -> bool {
        let source = self.source.as_ref().and_then(|source| source.downcast_ref::<std::io::Error>());
        matches!(self.kind, ErrorKind::Damaged(_))
            && source.is_some_and(|error| error.kind() == std::io::ErrorKind::NotFound)
    }

    /// Whether trying again helps.
    pub fn retry(&self) -> Retry {
        match self.kind {
            ErrorKind::Throttled => Retry::Throttled,
            ErrorKind::Unavailable
            | ErrorKind::NoSpace
            | ErrorKind::Missing
            | ErrorKind::AccessDenied(_)
            | ErrorKind::NotSetUp(_) => Retry::Later,
            ErrorKind::Damaged(_)
            | ErrorKind::Archived
            | ErrorKind::Invalid(_)
            | ErrorKind::Unsupported
            | ErrorKind::Cancelled
            | ErrorKind::Internal(_) => Retry::Never,
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ErrorKind::Missing => f.write_str("it does not exist"),
            ErrorKind::AccessDenied(action) => write!(f, "access denied ({action})"),
            ErrorKind::NotSetUp(what) => write!(f, "refused: {what}"),
            ErrorKind::Throttled => f.write_str("asked to slow down"),
            ErrorKind::Unavailable => f.write_str("no answer"),
            ErrorKind::NoSpace => f.write_str("no space left"),
            ErrorKind::Damaged(what) => write!(f, "damaged: {what}"),
            ErrorKind::Archived => f.write_str("it lies in an archive tier and must be retrieved first"),
            ErrorKind::Invalid(why) => write!(f, "refused: {why}"),
            ErrorKind::Unsupported => f.write_str("not supported here"),
            ErrorKind::Cancelled => f.write_str("stopped on request"),
            ErrorKind::Internal(what) => write!(f, "internal error: {what}"),
        }
    }
}

/// A port's result.
pub type PortResult<T> = Result<T, PortError>;

/// Why a flow ended without having settled what it was asked to: the event is put back, never acknowledged (V6, V7).
#[derive(Clone, Debug, thiserror::Error)]
pub enum FlowError {
    /// A port failed.
    #[error(transparent)]
    Port(#[from] PortError),
    /// Other handlers of the same key were faster, every time. Trying again later helps.
    #[error("{key} did not come to rest in {rounds} rounds")]
    Unsettled {
        /// The key.
        key: String,
        /// The limit that was reached.
        rounds: usize,
    },
}

impl FlowError {
    /// Whether trying again helps.
    pub fn retry(&self) -> Retry {
        match self {
            FlowError::Port(error) => error.retry(),
            FlowError::Unsettled { .. } => Retry::Later,
        }
    }
}

/// A flow's result.
pub type FlowResult<T> = Result<T, FlowError>;
