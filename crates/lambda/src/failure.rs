//! Why an invocation failed, as Lambda shows it: a word to count and to alarm by, and a sentence for a person.

use engine::error::{FlowError, PortError};
use engine::report::chain;
use lambda_runtime::Diagnostic;
use std::fmt;

/// A failed invocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// What kind of failure: `configuration`, `payload`, `unreadable`, `given-up`, `again`, `time-limit`, `failed`.
    pub(crate) kind: &'static str,
    /// What failed, on what, and why.
    pub(crate) why: String,
}

impl Failure {
    pub(crate) fn new(kind: &'static str, why: impl Into<String>) -> Failure {
        Failure { kind, why: why.into() }
    }
}

impl From<PortError> for Failure {
    fn from(error: PortError) -> Failure {
        Failure::new("failed", chain(&error))
    }
}

impl From<FlowError> for Failure {
    fn from(error: FlowError) -> Failure {
        Failure::new("failed", chain(&error))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.why)
    }
}

impl From<Failure> for Diagnostic {
    fn from(failure: Failure) -> Diagnostic {
        Diagnostic { error_type: failure.kind.to_owned(), error_message: failure.why }
    }
}
