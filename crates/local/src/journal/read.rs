//! Reading the journal: what it says about a key, and whether its chain is whole. Both stream the segments with bounded
//! memory, up to the end that is durable; a line that is being written is not seen yet.

use super::segments::{Piece, Pieces, Segment, list};
use super::writer::End;
use crate::io_error::io_failed;
use crate::limits::AUDIT_FAULTS;
use engine::error::PortResult;
use engine::format::journal_line::{Hash, Link, needle, read_line, read_link};
use engine::ports::journal::{Audit, Line};
use std::collections::VecDeque;
use std::io;
use std::path::Path;

/// Bytes of a segment that are to be read.
fn readable(segment: Segment, end: &End) -> u64 {
    if segment == end.segment { end.bytes } else { u64::MAX }
}

/// The newest lines about a key, oldest first. Reads the newest segments first, and only as many as it takes.
pub(super) fn about(folder: &Path, end: &End, key: Option<&str>, limit: usize) -> PortResult<Vec<Line>> {
    let needle = key.map(needle).transpose()?;
    let io = |error| io_failed("read journal", &folder.display().to_string(), error);
    let mut found: Vec<Line> = Vec::new();
    for segment in list(folder).map_err(io)?.into_iter().rev().filter(|segment| *segment <= end.segment) {
        if found.len() >= limit {
            break;
        }
        let mut newest = VecDeque::new();
        let keep = limit - found.len();
        let mut pieces = Pieces::open(&segment.path(folder), readable(segment, end)).map_err(io)?;
        while let Some(piece) = pieces.next().map_err(io)? {
            let Piece::Line(line) = piece else { continue };
            if !needle.as_ref().is_none_or(|needle| contains(line, needle)) {
                continue;
            }
            let Some(line) = read_line(line) else {
                tracing::warn!(segment = segment.name(), "the journal has a line that does not read back: see `audit`");
                continue;
            };
            if key.is_some() && line.key.as_deref() != key {
                continue;
            }
            if newest.len() == keep {
                newest.pop_front();
            }
            newest.push_back(line);
        }
        newest.extend(found);
        found = newest.into();
    }
    Ok(found)
}

fn contains(line: &[u8], needle: &str) -> bool {
    // What is not UTF-8 is no line of a journal; the reading after this says so.
    std::str::from_utf8(line).map_or(true, |line| line.contains(needle))
}

/// Reads everything and checks every link.
pub(super) fn audit(folder: &Path, end: &End) -> PortResult<Audit> {
    let io = |error| io_failed("audit journal", &folder.display().to_string(), error);
    let segments = list(folder).map_err(io)?;
    let mut chain = Chain::default();
    for (expected, segment) in (1..).zip(&segments) {
        if segment.0 != expected && chain.segments_whole {
            chain.segments_whole = false;
            chain.fault(format!("{}: the segment before it is missing", segment.name()));
        }
        let mut pieces = Pieces::open(&segment.path(folder), readable(*segment, end)).map_err(io)?;
        let mut line_number = 0_u64;
        loop {
            let piece = match pieces.next() {
                Ok(Some(piece)) => piece,
                Ok(None) => break,
                Err(error) => return Err(io(io::Error::other(format!("{}: {error}", segment.name())))),
            };
            line_number += 1;
            let place = || format!("{}, line {line_number}", segment.name());
            match piece {
                Piece::Line(line) => chain.follow(read_link(line), &place),
                Piece::TooLong => chain.follow(None, &place),
                Piece::Torn => chain.fault(format!("{}: the line is cut short", place())),
            }
        }
    }
    if chain.number < end.number {
        let missing = format!("the end: lines {} to {} are missing", chain.number + 1, end.number);
        chain.fault(format!("{}: {missing}", end.segment.name()));
    }
    Ok(chain.audit())
}

/// The chain as far as it was followed.
struct Chain {
    number: u64,
    hash: Hash,
    lines: u64,
    segments_whole: bool,
    faults: Vec<String>,
    unnamed: u64,
}

impl Default for Chain {
    fn default() -> Chain {
        Chain { number: 0, hash: Hash::start(), lines: 0, segments_whole: true, faults: Vec::new(), unnamed: 0 }
    }
}

impl Chain {
    /// Checks the next line against the one before, then goes on from what it says, so that one change is one fault.
    fn follow(&mut self, link: Option<Link>, place: &impl Fn() -> String) {
        self.lines += 1;
        let Some(Link { number, prev, stated, intact }) = link else {
            self.number += 1;
            return self.fault(format!("{}: it is no line of a journal", place()));
        };
        let expected = self.number + 1;
        if !intact {
            self.fault(format!("{}: it was altered (its hash is not the hash of what it says)", place()));
        } else if number > expected {
            let gone = format!("{expected} to {} are missing", number - 1);
            self.fault(format!("{}: it has number {number}; the lines {gone}", place()));
        } else if number < expected {
            self.fault(format!(
                "{}: it has number {number}, where {expected} belongs: it was moved or repeated",
                place()
            ));
        } else if prev != self.hash {
            self.fault(format!("{}: the line before it is not the one that it was written after", place()));
        }
        self.number = number;
        self.hash = stated;
    }

    fn fault(&mut self, what: String) {
        if self.faults.len() < AUDIT_FAULTS {
            self.faults.push(what);
        } else {
            self.unnamed += 1;
        }
    }

    fn audit(mut self) -> Audit {
        if self.unnamed > 0 {
            self.faults.push(format!("and {} more", self.unnamed));
        }
        Audit { lines: self.lines, head: self.hash.0, faults: self.faults }
    }
}
