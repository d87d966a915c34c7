//! The one place where the file system's errors become port errors, for databases, buckets and journal.

use engine::error::{ErrorKind, PortError};

/// The port's error for a failed call to the file system.
pub(crate) fn io_failed(attempted: &'static str, object: &str, error: std::io::Error) -> PortError {
    use std::io::ErrorKind as Io;
    let kind = match error.kind() {
        Io::NotFound => ErrorKind::Missing,
        Io::PermissionDenied | Io::ReadOnlyFilesystem => ErrorKind::AccessDenied("use the file".to_owned()),
        Io::StorageFull | Io::QuotaExceeded | Io::FileTooLarge => ErrorKind::NoSpace,
        Io::InvalidData | Io::UnexpectedEof => ErrorKind::Damaged(error.to_string()),
        Io::IsADirectory | Io::NotADirectory | Io::AlreadyExists | Io::InvalidInput => {
            ErrorKind::Invalid(error.to_string())
        }
        _ => ErrorKind::Unavailable,
    };
    PortError::new(attempted, object, kind).because(error)
}
