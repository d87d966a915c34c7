//! The data folder: where it is, that it is ours and writable, and that one process at a time works on it.
//!
//! A `format` file names the layout; a folder that a newer version wrote is refused, never guessed at. The `lock` file is
//! held by `flock` for as long as the process lives, so a killed process leaves no lock behind; it carries the holder's
//! process id for the message that the second one prints.

use crate::exit::Failure;
use anyhow::Context;
use rustix::fs::{FlockOperation, flock};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The layout that this version reads and writes.
const FORMAT: u32 = 1;

/// A data folder that this process holds.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    _lock: File,
}

/// What to do where there is no data folder yet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum IfMissing {
    /// Make one.
    Create,
    /// Say so.
    Refuse,
}

impl Folder {
    /// Takes the folder for this process. Nothing is written before the lock is held.
    pub(crate) fn open(path: &Path, if_missing: IfMissing) -> Result<Folder, Failure> {
        if !path.exists() {
            if if_missing == IfMissing::Refuse {
                return Err(missing(path));
            }
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(path)
                .with_context(|| format!("cannot create the data folder {}", path.display()))?;
        }
        if !is_data_folder(path) {
            if if_missing == IfMissing::Refuse {
                return Err(missing(path));
            }
            refuse_foreign(path)?;
        }
        let lock = lock(path)?;
        check_format(path)?;
        let path = path.canonicalize().with_context(|| format!("cannot resolve {}", path.display()))?;
        Ok(Folder { path, _lock: lock })
    }

    /// Where it is, absolute.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// Whether there is a data folder, of whatever version.
pub(crate) fn is_data_folder(path: &Path) -> bool {
    path.join("format").exists()
}

fn missing(path: &Path) -> Failure {
    Failure::failed(format!(
        "there is no data folder at {}: start `afterimage serve` first, or name the folder with --data-dir",
        path.display()
    ))
}

fn refuse_foreign(path: &Path) -> Result<(), Failure> {
    let entries = fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))?;
    for entry in entries {
        let name = entry.with_context(|| format!("cannot read {}", path.display()))?.file_name();
        // A fresh file system has the first; a first start that was killed leaves the second.
        if name != "lost+found" && name != "lock" {
            return Err(Failure::failed(format!(
                "{} is not empty and is no data folder of Afterimage (it has {}): name an empty or a new folder",
                path.display(),
                name.to_string_lossy()
            )));
        }
    }
    Ok(())
}

fn lock(path: &Path) -> Result<File, Failure> {
    let file = path.join("lock");
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&file);
    let mut opened = match opened {
        Ok(opened) => opened,
        Err(error) if matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem) => {
            return Err(Failure::Failed(anyhow::Error::new(error).context(format!(
                "the data folder {} is not writable: give it to the user who runs afterimage, or name another with \
                 --data-dir",
                path.display()
            ))));
        }
        Err(error) => {
            return Err(Failure::Failed(anyhow::Error::new(error).context(format!("cannot open {}", file.display()))));
        }
    };
    if flock(&opened, FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut pid = String::new();
        opened.read_to_string(&mut pid).with_context(|| format!("cannot read {}", file.display()))?;
        return Err(Failure::failed(format!(
            "the data folder {} is in use by process {}: one process at a time may work on it; wait for it to end, or to \
             answer if it is just starting, or stop it",
            path.display(),
            pid.trim()
        )));
    }
    let write = |mut opened: File| -> std::io::Result<File> {
        opened.set_len(0)?;
        opened.seek(SeekFrom::Start(0))?;
        writeln!(opened, "{}", std::process::id())?;
        Ok(opened)
    };
    Ok(write(opened).with_context(|| format!("cannot write {}", file.display()))?)
}

fn check_format(path: &Path) -> Result<(), Failure> {
    let file = path.join("format");
    match fs::read_to_string(&file) {
        Ok(text) => match text.trim().parse::<u32>() {
            Ok(FORMAT) => Ok(()),
            Ok(other) => Err(Failure::failed(format!(
                "the data folder {} was written by a newer version (format {other}; this one knows {FORMAT}): use that \
                 version; nothing was changed",
                path.display()
            ))),
            Err(_) => Err(Failure::failed(format!("{} should hold the number of a format", file.display()))),
        },
        Err(error) if error.kind() == ErrorKind::NotFound => write_format(path, &file),
        Err(error) => {
            Err(Failure::Failed(anyhow::Error::new(error).context(format!("cannot read {}", file.display()))))
        }
    }
}

/// Written whole or not at all: a killed first start leaves an empty folder, which the next one takes.
fn write_format(folder: &Path, file: &Path) -> Result<(), Failure> {
    let write = || -> std::io::Result<()> {
        let mut fresh = tempfile::NamedTempFile::new_in(folder)?;
        writeln!(fresh, "{FORMAT}")?;
        fresh.as_file().sync_all()?;
        fresh.persist(file)?;
        File::open(folder)?.sync_all()
    };
    Ok(write().with_context(|| format!("cannot write {}", file.display()))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(path: &Path, if_missing: IfMissing) -> String {
        Folder::open(path, if_missing).expect_err("refused").chain()
    }

    #[test]
    fn a_folder_is_made_once_and_held_by_one() {
        let root = tempfile::tempdir().expect("a folder");
        let path = root.path().join("data");
        assert!(refusal(&path, IfMissing::Refuse).contains("there is no data folder"));
        let held = Folder::open(&path, IfMissing::Create).expect("made");
        let second = refusal(&path, IfMissing::Create);
        assert!(second.contains(&format!("in use by process {}", std::process::id())), "{second}");
        drop(held);
        Folder::open(&path, IfMissing::Refuse).expect("free again");
    }

    #[test]
    fn newer_and_foreign_folders_are_refused_unchanged() {
        let root = tempfile::tempdir().expect("a folder");
        fs::write(root.path().join("format"), "7\n").expect("written");
        assert!(refusal(root.path(), IfMissing::Create).contains("newer version (format 7; this one knows 1)"));
        let foreign = tempfile::tempdir().expect("a folder");
        fs::write(foreign.path().join("thesis.tex"), "dear").expect("written");
        assert!(refusal(foreign.path(), IfMissing::Create).contains("thesis.tex"));
        assert!(!foreign.path().join("lock").exists());
    }
}
