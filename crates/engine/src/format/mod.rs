//! What adapters store alike, as it is stored: layouts with a version, and how single values are written. Pure.

pub mod archived;
pub mod feed_line;
pub mod journal_line;
pub mod laid_aside;
pub mod packed;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lifecycle::ids::Checksum;

/// Base64 of 8 big-endian bytes, as S3 shows it.
pub fn checksum_text(checksum: Checksum) -> String {
    STANDARD.encode(checksum.0.to_be_bytes())
}

/// Reads [`checksum_text`] back.
pub fn read_checksum(text: &str) -> Option<Checksum> {
    let bytes = STANDARD.decode(text).ok()?;
    Some(Checksum(u64::from_be_bytes(bytes.try_into().ok()?)))
}
