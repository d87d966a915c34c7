//! Packs: many archived records in one Parquet file, so that they tier, cost little, and can be read by other tools.
//!
//! A row is an archived record, whole: its columns give back the object's body byte by byte, and the hash of it. Rows are
//! sorted by the names of their objects, and each row group says its first and its last one, so that one record is found by
//! reading the file's end and one row group. The image stands in a column of its own, beside typed columns for what a reader
//! asks for first. Pure: bytes in, bytes out. The exact layout stands in `docs/formats.md`.

mod check;
mod columns;
mod read;
mod sums;
mod write;

pub use check::Check;
pub use columns::{COLUMNS, Column, Columns, Kind};
pub use read::{Footer, Pieces, decode, footer, footer_length};
pub use write::{PackWriter, Packed, Row, row_of, rows_of};

use bytes::Bytes;
use lifecycle::archive::hash_of_pieces;
use lifecycle::ids::{ETag, ObjectKey};
use sha2::{Digest, Sha256};

/// Version of the layout; any other one is refused. Version 1, of which there are no packs, had no checksums.
pub const VERSION: u32 = 2;
/// Bytes of bodies after which a row group ends.
const GROUP_BYTES: usize = 16 << 20;
/// Rows after which a row group ends.
const GROUP_ROWS: usize = 16_384;

/// An archived record to be packed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Original {
    /// The object's name.
    pub object: ObjectKey,
    /// Its tag, as the store lists it.
    pub etag: ETag,
    /// Its body.
    pub body: Bytes,
}

/// What all rows of a pack come to, in their order: SHA-256 over their columns but image and rest, which the hash stands for.
#[derive(Clone, Default)]
pub struct RowsDigest(Sha256);

impl RowsDigest {
    /// Adds a row, of which all columns are there.
    pub fn add(&mut self, columns: &Columns, row: usize) {
        for (column, _, kind) in COLUMNS.iter().filter(|(column, ..)| !matches!(column, Column::Image | Column::Rest)) {
            match kind {
                Kind::Text { .. } => match columns.bytes(*column, row) {
                    Some(text) => {
                        self.0.update((text.len() as u64).to_be_bytes());
                        self.0.update(text);
                    }
                    None => self.0.update(u64::MAX.to_be_bytes()),
                },
                Kind::Moment | Kind::Number => {
                    self.0.update(columns.int(*column, row).unwrap_or_default().to_be_bytes());
                }
            }
        }
    }

    /// In lower-case hex.
    pub fn hex(self) -> String {
        self.0.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Which objects some packs have: a sum over their names and tags, in whatever order they come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ObjectsSum(u128);

impl ObjectsSum {
    /// Adds an object: the first 16 bytes of SHA-256 over its name, after its length, and its tag.
    pub fn add(&mut self, object: &str, etag: &str) {
        let mut digest = Sha256::new();
        digest.update((object.len() as u64).to_be_bytes());
        digest.update(object);
        digest.update(etag);
        let digest = digest.finalize();
        let first = digest.first_chunk().expect("SHA-256 has 32 bytes");
        self.0 = self.0.wrapping_add(u128::from_be_bytes(*first));
    }

    /// Adds those of another pack.
    pub fn add_all(&mut self, others: ObjectsSum) {
        self.0 = self.0.wrapping_add(others.0);
    }

    /// In lower-case hex.
    pub fn hex(self) -> String {
        format!("{:032x}", self.0)
    }

    /// Reads it back.
    pub fn parse(hex: &str) -> Option<ObjectsSum> {
        u128::from_str_radix(hex, 16).ok().map(ObjectsSum)
    }
}

/// The body of a row, put together; `None`: the row is damaged.
pub fn body_of(columns: &Columns, row: usize) -> Option<Bytes> {
    pieces_of(columns, row).map(|pieces| pieces.concat().into())
}

/// The body of a row in pieces, which together have the hash that the row says.
fn pieces_of(columns: &Columns, row: usize) -> Option<[&[u8]; 3]> {
    let rest = columns.bytes(Column::Rest, row)?;
    let at = usize::try_from(columns.int(Column::ImageAt, row)?).ok()?;
    let (before, after) = rest.split_at_checked(at)?;
    let pieces = [before, columns.bytes(Column::Image, row)?, after.strip_prefix(NO_IMAGE.as_bytes())?];
    (hash_of_pieces(&pieces).as_bytes() == columns.bytes(Column::Hash, row)?).then_some(pieces)
}

/// What stands in the rest of a body where its image was.
const NO_IMAGE: &str = "null";

#[cfg(test)]
mod tests;
