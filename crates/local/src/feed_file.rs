//! A feed into a file of this machine: JSON lines, each whole and durable before the next are taken.
//!
//! The file is made with mode 0600. It is looked at before each writing: one that was moved or removed (logrotate) is made
//! anew under its name. Whoever writes it holds its lock, so that two processes never mix their lines.
//!
//! A crash in the middle of a writing leaves a last line without its end. It is cut off when the file is opened next: it is of
//! lines that count as told only after they are durable, and comes again, whole. A file that does not begin, or whose last line
//! does not, as lines of a feed do is somebody else's: it is refused, and left as it is. Laws: I8.

use crate::io_error::io_failed;
use async_trait::async_trait;
use engine::error::{ErrorKind, PortError, PortResult};
use engine::ports::feed::{FeedLine, FeedSink};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// How much is looked through at once for the end of a line.
const LOOK_BYTES: u64 = 64 << 10;
/// What every line of a feed begins with.
const BEGINNING: &[u8] = b"{\"v\":";

/// A file that is told.
pub struct FeedFile(Arc<Kept>);

struct Kept {
    path: PathBuf,
    /// As it is written; `None`: it is opened, and its end looked at, before the next writing.
    open: Mutex<Option<File>>,
}

impl FeedFile {
    /// By its path. It is opened when there is something to tell.
    pub fn new(path: &Path) -> FeedFile {
        FeedFile(Arc::new(Kept { path: path.to_owned(), open: Mutex::new(None) }))
    }
}

#[async_trait]
impl FeedSink for FeedFile {
    async fn tell(&self, _shard: &str, lines: &[FeedLine]) -> PortResult<()> {
        let text: String = lines.iter().flat_map(|line| [line.text.as_str(), "\n"]).collect();
        let kept = self.0.clone();
        let written = tokio::task::spawn_blocking(move || kept.append(text.as_bytes()));
        let failed = |stopped: tokio::task::JoinError| {
            PortError::new("write feed", self.0.path.display(), ErrorKind::Internal(stopped.to_string()))
        };
        written.await.map_err(failed)?
    }
}

impl Kept {
    fn append(&self, bytes: &[u8]) -> PortResult<()> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = |error| io_failed("write feed", &self.path.display().to_string(), error);
        // Whatever fails from here on: its end is looked at before it is written again.
        let file = match open.take() {
            Some(file) if is_at(&file, &self.path).map_err(failed)? => file,
            _ => self.open()?,
        };
        (&file).write_all(bytes).and_then(|()| file.sync_data()).map_err(failed)?;
        *open = Some(file);
        Ok(())
    }

    fn open(&self) -> PortResult<File> {
        let object = self.path.display().to_string();
        let failed = |error| io_failed("open feed", &object, error);
        let refused = |why: &str| PortError::new("open feed", &object, ErrorKind::NotSetUp(why.to_owned()));
        let is_new = match fs::metadata(&self.path) {
            Ok(there) if !there.is_file() => return Err(refused("it is no file: name one, or a new one")),
            Ok(_) => false,
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            Err(error) => return Err(failed(error)),
        };
        let file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&self.path);
        let file = file.map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(refused("another process writes it: give each its own file")),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        if is_new {
            let folder = self.path.parent().unwrap_or(Path::new("/"));
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
        }
        let whole = whole_lines(&file).map_err(failed)?;
        let there = file.metadata().map_err(failed)?;
        let bytes = there.len();
        for at in [0, whole] {
            if !begins_a_line(&file, at).map_err(failed)? {
                return Err(refused("it is somebody else's, since it has what is no line of a feed: name a new file"));
            }
        }
        if there.mode() & 0o044 != 0 {
            let remedy = format!("chmod 600 {object}");
            tracing::warn!(
                feed = object,
                "others can read what was deleted, since the file was there before: `{remedy}`"
            );
        }
        if whole < bytes {
            tracing::warn!(
                feed = object,
                bytes = bytes - whole,
                "a last line without its end was cut off; it comes again"
            );
            file.set_len(whole).and_then(|()| file.sync_all()).map_err(failed)?;
        }
        Ok(file)
    }
}

/// Whether the path still leads to that file.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let there = match fs::metadata(path) {
        Ok(there) => there,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let here = file.metadata()?;
    Ok((here.dev(), here.ino()) == (there.dev(), there.ino()))
}

/// Whether what stands there is a line of a feed, or the beginning of one, or nothing.
fn begins_a_line(mut file: &File, at: u64) -> io::Result<bool> {
    file.seek(SeekFrom::Start(at))?;
    let mut found = Vec::new();
    file.take(BEGINNING.len() as u64).read_to_end(&mut found)?;
    Ok(BEGINNING.starts_with(&found))
}

/// The bytes up to the end of the last whole line.
fn whole_lines(mut file: &File) -> io::Result<u64> {
    let mut end = file.metadata()?.len();
    let mut piece = Vec::new();
    while end > 0 {
        let begin = end.saturating_sub(LOOK_BYTES);
        file.seek(SeekFrom::Start(begin))?;
        piece.clear();
        file.take(end - begin).read_to_end(&mut piece)?;
        if let Some(at) = piece.iter().rposition(|byte| *byte == b'\n') {
            return Ok(begin + at as u64 + 1);
        }
        end = begin;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(texts: &[&str]) -> Vec<FeedLine> {
        texts.iter().map(|text| FeedLine { id: (*text).to_owned(), text: (*text).to_owned() }).collect()
    }

    #[tokio::test]
    async fn lines_are_appended_the_file_is_its_owners_and_one_that_was_moved_is_made_anew() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("deletions.jsonl");
        let feed = FeedFile::new(&path);
        feed.tell("0", &lines(&["a", "b"])).await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        // Another process has its own handle: this one is in the way.
        let refused = FeedFile::new(&path).tell("0", &lines(&["x"])).await.unwrap_err();
        assert!(refused.to_string().contains("another process writes it"), "{refused}");
        let moved = root.path().join("deletions.jsonl.1");
        fs::rename(&path, &moved).unwrap();
        feed.tell("0", &lines(&["c"])).await.unwrap();
        feed.tell("0", &lines(&["d"])).await.unwrap();
        assert_eq!(fs::read_to_string(&moved).unwrap(), "a\nb\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "c\nd\n");
        let folder = FeedFile::new(root.path()).tell("0", &lines(&["a"])).await.unwrap_err();
        assert!(matches!(folder.kind, ErrorKind::NotSetUp(_)), "{folder}");
        let missing = FeedFile::new(&root.path().join("no/file")).tell("0", &lines(&["a"])).await.unwrap_err();
        assert_eq!(missing.kind, ErrorKind::Missing);
    }

    #[tokio::test]
    async fn a_last_line_without_its_end_is_cut_off_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("deletions.jsonl");
        let line = r#"{"v":1}"#;
        let long = format!("{{\"v\":{}", "x".repeat(LOOK_BYTES as usize * 2));
        for (before, after) in [
            (&format!("{line}\n{line}\n{{\"v\":1,\"torn"), format!("{line}\n{line}\nnew\n")),
            (&format!("{line}\n{{"), format!("{line}\nnew\n")),
            (&format!("{line}\n{long}"), format!("{line}\nnew\n")),
            (&long, "new\n".to_owned()),
            (&format!("{long}\n"), format!("{long}\nnew\n")),
            (&String::new(), "new\n".to_owned()),
        ] {
            fs::write(&path, before).unwrap();
            FeedFile::new(&path).tell("0", &lines(&["new"])).await.unwrap();
            assert!(fs::read_to_string(&path).unwrap() == after, "{} bytes before", before.len());
        }
    }

    /// A path that is wrong must cost nothing.
    #[tokio::test]
    async fn a_file_of_somebody_else_is_refused_and_left_as_it_is() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("precious");
        for precious in [
            "one line, and no end",
            "lines\n",
            "{\n \"list\": [1,2,3],\n \"important\": \"the last line has no newline\" }",
            "{\"v\":1}\nappended by hand",
            "SQLite format 3\0",
        ] {
            fs::write(&path, precious).unwrap();
            let refused = FeedFile::new(&path).tell("0", &lines(&["new"])).await.unwrap_err();
            assert!(refused.to_string().contains("somebody else's"), "{refused}");
            assert!(matches!(refused.kind, ErrorKind::NotSetUp(_)), "it is tried again, and seen");
            assert_eq!(fs::read_to_string(&path).unwrap(), precious);
        }
    }
}
