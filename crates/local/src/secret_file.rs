//! A secret in a file of its own, which only its owner can read; anything else is refused. Its content is told nobody.

use crate::io_error::io_failed;
use crate::limits::SECRET_FILE_BYTES_MAX;
use engine::error::{ErrorKind, PortError, PortResult};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Reads it. Errors: it is not there (`Missing`); others have rights on it, or it is no text (`NotSetUp`, with the remedy).
pub fn read_secret(path: &Path) -> PortResult<String> {
    let object = path.display().to_string();
    let failed = |error| io_failed("read secret", &object, error);
    let refused = |why: String| PortError::new("read secret", &object, ErrorKind::NotSetUp(why));
    let mut file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(refused(format!("others can read or write it (mode {mode:04o}): chmod 600 {object}")));
    }
    if !metadata.is_file() || metadata.len() > SECRET_FILE_BYTES_MAX {
        return Err(refused("it is no file with a secret".to_owned()));
    }
    let mut text = String::new();
    let read = (&mut file).take(SECRET_FILE_BYTES_MAX).read_to_string(&mut text);
    read.map_err(|_| refused("it is no text".to_owned()))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{Permissions, set_permissions, write};

    #[test]
    fn a_secret_that_others_can_read_is_refused_with_the_remedy() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("secret");
        assert_eq!(read_secret(&path).unwrap_err().kind, ErrorKind::Missing);
        write(&path, "s3cr3t\n").unwrap();
        set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let refused = read_secret(&path).unwrap_err().to_string();
        assert!(refused.contains("chmod 600") && !refused.contains("s3cr3t"), "{refused}");
        set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        assert_eq!(read_secret(&path).unwrap(), "s3cr3t\n");
    }
}
