//! Checksums of a pack (CRC-64/NVME): of the bytes of each column in each row group, and of the footer, which has the others.
//! What a reader gets of a pack is what was written, or an error.
//!
//! The library writes pages without checksums, so they stand in the footer's own metadata. The footer's is over all of its
//! bytes but those in which it stands itself.

use super::columns::COLUMNS;
use crc64fast_nvme::Digest;
use parquet::errors::Result;
use parquet::file::metadata::{FooterTail, RowGroupMetaData};
use std::io::Write;
use std::ops::Range;

/// Under which name the footer has the columns' checksums: in hex, those of each row group after each other.
pub(super) const SUMS: &str = "afterimage.checksums";
/// Under which name it has its own.
pub(super) const OWN_SUM: &str = "afterimage.checksum";
/// Bytes of a checksum in hex.
pub(super) const HEX: usize = 16;
/// What stands there until the footer is whole.
pub(super) const NOT_YET: &str = "----------------";
/// Bytes between a name and its value: of which type that is, and how long.
const BETWEEN: usize = 2;
/// Bytes at the end of the file that say how long the footer is.
pub(super) const TAIL: usize = 8;

/// The checksum of bytes.
pub(super) fn sum_of(bytes: &[u8]) -> u64 {
    let mut digest = Digest::new();
    digest.write(bytes);
    digest.sum64()
}

/// A checksum as the footer has it.
pub(super) fn hex(sum: u64) -> String {
    format!("{sum:016x}")
}

/// The checksums of all columns, as the footer has them; `None`: that is not what it has.
pub(super) fn parse_sums(text: &str) -> Option<Vec<u64>> {
    let parts = text.as_bytes().chunks(HEX).map(|part| u64::from_str_radix(std::str::from_utf8(part).ok()?, 16).ok());
    parts.collect()
}

/// Where a footer has its own checksum. The last one that looks so is: names of objects stand before it.
fn place_of_own(footer: &[u8]) -> Option<Range<usize>> {
    let name = OWN_SUM.as_bytes();
    let at = footer.windows(name.len()).rposition(|part| part == name)?;
    let start = at + name.len() + BETWEEN;
    (start + HEX <= footer.len()).then_some(start..start + HEX)
}

/// The checksum of a footer (with the file's last bytes), in hex; `None`: it has no place for it.
pub(super) fn own_sum(footer: &[u8]) -> Option<String> {
    let place = place_of_own(footer)?;
    let mut digest = Digest::new();
    digest.write(&footer[..place.start]);
    digest.write(&footer[place.end..]);
    Some(hex(digest.sum64()))
}

/// Where a pack is written to. What was written since the last row group is kept until its checksums are known; the end is held
/// back, since the footer's stands in it.
pub(super) struct Summed<W> {
    inner: W,
    since: Vec<u8>,
    /// At which byte of the file that begins.
    from: u64,
    is_end: bool,
    sums: String,
}

impl<W: Write> Summed<W> {
    pub(super) fn new(inner: W) -> Summed<W> {
        Summed { inner, since: Vec::new(), from: 0, is_end: false, sums: String::new() }
    }

    /// Notes the checksums of a row group, of which everything was written.
    pub(super) fn group(&mut self, about: &RowGroupMetaData) {
        for place in 0..COLUMNS.len() {
            let (start, length) = about.column(place).byte_range();
            let start = usize::try_from(start - self.from).expect("a row group is in memory");
            let length = usize::try_from(length).expect("a row group is in memory");
            self.sums.push_str(&hex(sum_of(&self.since[start..start + length])));
        }
        self.from += self.since.len() as u64;
        self.since.clear();
    }

    /// The checksums so far; what comes now is the file's end.
    pub(super) fn begin_end(&mut self) -> String {
        self.is_end = true;
        std::mem::take(&mut self.sums)
    }

    /// Writes the end, with the checksum of its footer.
    pub(super) fn write_end(mut self) -> Result<()> {
        let tail = self.since.last_chunk::<TAIL>().expect("a file ends with them");
        let length = FooterTail::try_new(tail)?.metadata_length() + TAIL;
        let start = self.since.len() - length;
        let footer = &mut self.since[start..];
        let (place, sum) = place_of_own(footer).zip(own_sum(footer)).expect("it was given a place");
        footer[place].copy_from_slice(sum.as_bytes());
        self.inner.write_all(&self.since)?;
        Ok(self.inner.flush()?)
    }
}

impl<W: Write> Write for Summed<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = if self.is_end { bytes.len() } else { self.inner.write(bytes)? };
        self.since.extend_from_slice(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}
