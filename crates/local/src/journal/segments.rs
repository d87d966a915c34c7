//! The journal's files: `000001.jsonl`, `000002.jsonl`, …, and reading them line by line in bounded memory.

use crate::limits::LINE_BYTES_MAX;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Take};
use std::path::{Path, PathBuf};

/// One file of the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Segment(pub(super) u64);

impl Segment {
    /// Its file's name.
    pub(super) fn name(self) -> String {
        format!("{:06}.jsonl", self.0)
    }

    /// Where its file is.
    pub(super) fn path(self, folder: &Path) -> PathBuf {
        folder.join(self.name())
    }

    /// The segment that a file is, if it is one.
    fn of_name(name: &str) -> Option<Segment> {
        let digits = name.strip_suffix(".jsonl").filter(|digits| digits.len() >= 6)?;
        digits.parse().ok().map(Segment).filter(|segment| segment.name() == name)
    }
}

/// The segments of a folder, oldest first. Other files in it are left alone.
pub(super) fn list(folder: &Path) -> io::Result<Vec<Segment>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        found.extend(entry?.file_name().to_str().and_then(Segment::of_name));
    }
    found.sort_unstable();
    Ok(found)
}

/// A stretch of a segment up to a line feed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// A whole line, without its line feed.
    Line(&'a [u8]),
    /// Longer than any line of a journal.
    TooLong,
    /// What stands after the last line feed.
    Torn,
}

/// Reads the lines of one segment.
pub(super) struct Pieces {
    input: BufReader<Take<File>>,
    line: Vec<u8>,
    /// Bytes read so far, whole pieces only.
    pub(super) offset: u64,
}

impl Pieces {
    /// From the start of the segment, at most `bytes` of it.
    pub(super) fn open(path: &Path, bytes: u64) -> io::Result<Pieces> {
        let input = BufReader::with_capacity(LINE_BYTES_MAX, File::open(path)?.take(bytes));
        Ok(Pieces { input, line: Vec::new(), offset: 0 })
    }

    /// The next piece; `None` at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<Piece<'_>>> {
        self.line.clear();
        let limit = LINE_BYTES_MAX as u64;
        let read = (&mut self.input).take(limit).read_until(b'\n', &mut self.line)?;
        if read == 0 {
            return Ok(None);
        }
        if self.line.last() == Some(&b'\n') {
            self.offset += read as u64;
            return Ok(Some(Piece::Line(&self.line[..read - 1])));
        }
        let mut skipped = read as u64;
        if skipped == limit {
            skipped += self.input.skip_until(b'\n')? as u64;
            // Where the skipping ended at the end of the file, a torn end is what this is, of whatever length.
            if !self.input.fill_buf()?.is_empty() {
                self.offset += skipped;
                return Ok(Some(Piece::TooLong));
            }
        }
        Ok(Some(Piece::Torn))
    }
}
