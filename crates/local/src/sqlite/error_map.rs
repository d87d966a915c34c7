//! The one place where SQLite's errors become port errors: what kind of failure it is, and what a person can do.
//!
//! Place: under every database of this crate. It decides only the kind; what was attempted on what object comes in.

use engine::error::{ErrorKind, PortError};
use rusqlite::ErrorCode;

/// Why a job on a database failed: SQLite said so, or the job itself did.
#[derive(Debug)]
pub enum Fault {
    /// SQLite's own error.
    Sqlite(rusqlite::Error),
    /// The job's own, which stays as it is.
    Port(PortError),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Fault {
        Fault::Sqlite(error)
    }
}

impl From<PortError> for Fault {
    fn from(error: PortError) -> Fault {
        Fault::Port(error)
    }
}

/// What was attempted, on what, and what helps when the file turns out to be damaged.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// Verb and kind of object: `read catalog rows`.
    pub attempted: &'static str,
    /// Which object.
    pub object: String,
    /// What to do about a damaged file.
    pub remedy: &'static str,
}

impl Attempt {
    /// The port's error for a fault of this attempt.
    pub fn failed(&self, fault: Fault) -> PortError {
        match fault {
            Fault::Port(error) => error,
            Fault::Sqlite(error) => {
                let kind = kind_of(&error, self.remedy);
                PortError::new(self.attempted, &self.object, kind).because(error)
            }
        }
    }

    /// The port's error for an attempt whose database works no more (closed, or its thread gone).
    pub fn unanswered(&self) -> PortError {
        PortError::new(self.attempted, &self.object, ErrorKind::Unavailable)
    }

    /// The port's error for a defect of the job itself.
    pub fn defect(&self, what: &str) -> PortError {
        PortError::new(self.attempted, &self.object, ErrorKind::Internal(what.to_owned()))
    }
}

fn kind_of(error: &rusqlite::Error, remedy: &str) -> ErrorKind {
    match error {
        rusqlite::Error::SqliteFailure(failure, _) => kind_of_code(failure, remedy),
        rusqlite::Error::FromSqlConversionFailure(..)
        | rusqlite::Error::InvalidColumnType(..)
        | rusqlite::Error::IntegralValueOutOfRange(..)
        | rusqlite::Error::Utf8Error(..) => {
            ErrorKind::Damaged(format!("a value in the database is none that this program writes; {remedy}"))
        }
        other => ErrorKind::Internal(other.to_string()),
    }
}

fn kind_of_code(failure: &rusqlite::ffi::Error, remedy: &str) -> ErrorKind {
    match failure.code {
        ErrorCode::DiskFull => ErrorKind::NoSpace,
        ErrorCode::DatabaseCorrupt => ErrorKind::Damaged(format!("the database file is corrupt; {remedy}")),
        ErrorCode::NotADatabase => ErrorKind::Damaged(format!("the file is no database; {remedy}")),
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::SchemaChanged => ErrorKind::Unavailable,
        // A failed read or write of the disk: it may be a cable or a full journal; the next try tells.
        ErrorCode::SystemIoFailure | ErrorCode::FileLockingProtocolFailed | ErrorCode::OutOfMemory => {
            ErrorKind::Unavailable
        }
        ErrorCode::ReadOnly => ErrorKind::AccessDenied("write the database file".to_owned()),
        ErrorCode::PermissionDenied | ErrorCode::AuthorizationForStatementDenied => {
            ErrorKind::AccessDenied("open the database file".to_owned())
        }
        ErrorCode::CannotOpen => ErrorKind::AccessDenied("open the database file and its folder".to_owned()),
        ErrorCode::NotFound => ErrorKind::Missing,
        ErrorCode::OperationInterrupted | ErrorCode::OperationAborted => ErrorKind::Cancelled,
        ErrorCode::TooBig => ErrorKind::Invalid("it is larger than a database can hold".to_owned()),
        _ => ErrorKind::Internal(failure.to_string()),
    }
}
