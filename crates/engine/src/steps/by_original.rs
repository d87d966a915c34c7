//! Copies of a destination in the order of their originals. Copies do not list in that order (`a+b.…` comes before
//! `a.…`), so they are sorted on disk, with bounded memory (I9, I11).

use crate::error::{ErrorKind, PortError, PortResult};
use crate::limits::SORT_CHUNK;
use extsort::{ExternalSorter, PushExternalSorter, Sortable, SortedIterator};
use lifecycle::ids::ObjectKey;
use lifecycle::time::UnixMs;
use std::cmp::Ordering;
use std::io::{Error, Read, Write};
use std::iter::Peekable;

/// One copy, as the listing has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListedCopy {
    /// The original's key.
    pub original: ObjectKey,
    /// The copy's key.
    pub copy: ObjectKey,
    /// When its bytes were written.
    pub written_at: UnixMs,
}

type Compare = fn(&ListedCopy, &ListedCopy) -> Ordering;

/// Collects copies in any order.
pub struct Collect(PushExternalSorter<ListedCopy, Compare>);

/// Gives them back in the order of their originals.
pub struct ByOriginal(Peekable<SortedIterator<ListedCopy, Compare>>);

impl Collect {
    /// With nothing in it.
    pub fn new() -> Collect {
        Collect(ExternalSorter::new().with_segment_size(SORT_CHUNK).pushed_by(ListedCopy::cmp as Compare))
    }

    /// Adds one.
    pub fn add(&mut self, copy: ListedCopy) -> PortResult<()> {
        self.0.push(copy).map_err(sort_error)
    }

    /// That was all.
    pub fn sorted(self) -> PortResult<ByOriginal> {
        Ok(ByOriginal(self.0.done().map_err(sort_error)?.peekable()))
    }
}

impl Default for Collect {
    fn default() -> Collect {
        Collect::new()
    }
}

impl ByOriginal {
    /// The original whose copies come next.
    pub fn peek(&mut self) -> PortResult<Option<ObjectKey>> {
        match self.0.peek() {
            None => Ok(None),
            Some(Ok(copy)) => Ok(Some(copy.original.clone())),
            Some(Err(error)) => Err(sort_error(Error::new(error.kind(), error.to_string()))),
        }
    }

    /// All copies of that original, if they come next.
    pub fn take(&mut self, original: &ObjectKey) -> PortResult<Vec<ListedCopy>> {
        let mut copies = Vec::new();
        while let Some(next) = self.0.next_if(|next| next.as_ref().map_or(true, |copy| copy.original == *original)) {
            copies.push(next.map_err(sort_error)?);
        }
        Ok(copies)
    }
}

fn sort_error(error: Error) -> PortError {
    let kind = match error.kind() {
        std::io::ErrorKind::StorageFull => ErrorKind::NoSpace,
        _ => ErrorKind::Internal("the sort's temporary file".to_owned()),
    };
    PortError::new("sort listing", std::env::temp_dir().display(), kind).because(error)
}

impl Sortable for ListedCopy {
    fn encode<W: Write>(&self, writer: &mut W) -> std::io::Result<()> {
        for key in [&self.original, &self.copy] {
            let length = u32::try_from(key.as_str().len()).expect("a key has at most 1,024 bytes");
            writer.write_all(&length.to_le_bytes())?;
            writer.write_all(key.as_str().as_bytes())?;
        }
        writer.write_all(&self.written_at.0.to_le_bytes())
    }

    fn decode<R: Read>(reader: &mut R) -> std::io::Result<ListedCopy> {
        let original = decode_key(reader)?;
        let copy = decode_key(reader)?;
        let mut written_at = [0; 8];
        reader.read_exact(&mut written_at)?;
        Ok(ListedCopy { original, copy, written_at: UnixMs(i64::from_le_bytes(written_at)) })
    }
}

fn decode_key<R: Read>(reader: &mut R) -> std::io::Result<ObjectKey> {
    let mut length = [0; 4];
    reader.read_exact(&mut length)?;
    let mut bytes = vec![0; u32::from_le_bytes(length) as usize];
    reader.read_exact(&mut bytes)?;
    let text = String::from_utf8(bytes).map_err(Error::other)?;
    ObjectKey::new(text).map_err(Error::other)
}
