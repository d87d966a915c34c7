//! Commands to a running daemon: a Unix socket in the data folder, mode 0600, one command a connection, JSON lines.
//!
//! The daemon alone works on its files; a command's process only sends what is asked and prints what comes back. So there
//! is one writer, one set of locks and one place where a command runs, whether `serve` is up or not (then the command's
//! own process takes the folder's lock and runs the same code).
//!
//! ```text
//! → {"version":1,"command":{"verb":"clean","policy":null,"now":true}}
//! ← {"progress":{"done":1000,"total":null,"what":"copies"}}        any number of these
//! ← {"answer":{…}} or {"failed":{…}}                              exactly one, the last
//! → {"cancel":true}                                               at any time; closing the connection does the same
//! ```

pub(crate) mod client;
pub(crate) mod server;

use crate::command::Command;
use crate::limits::SOCKET_PATH_MAX;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// Raised when frames or commands change so that an older daemon would misread them.
pub(crate) const VERSION: u32 = 1;

/// The first line of a connection.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    /// [`VERSION`] of the sender.
    pub(crate) version: u32,
    /// What is asked for.
    pub(crate) command: Command,
}

/// A later line of the same sender.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Cancel {
    /// Stop cleanly and say what is left.
    pub(crate) cancel: bool,
}

/// A way to the socket that fits into a socket address: through the folder's open handle where the path itself is too
/// long. Valid while the handle lives.
pub(crate) struct SocketPath {
    path: PathBuf,
    _folder: Option<File>,
}

impl SocketPath {
    /// The socket of that data folder.
    pub(crate) fn of(folder: &Path) -> io::Result<SocketPath> {
        let path = folder.join("control.sock");
        if path.as_os_str().len() < SOCKET_PATH_MAX {
            return Ok(SocketPath { path, _folder: None });
        }
        let handle = File::open(folder)?;
        let path = PathBuf::from(format!("/proc/self/fd/{}/control.sock", handle.as_raw_fd()));
        Ok(SocketPath { path, _folder: Some(handle) })
    }
}

impl AsRef<Path> for SocketPath {
    fn as_ref(&self) -> &Path {
        &self.path
    }
}
