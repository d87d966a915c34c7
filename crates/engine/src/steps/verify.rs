//! Verifying a body on its way: its size and checksum must be those of the row, or the body ends in an error, and whoever
//! writes it leaves nothing visible.

use crate::error::{ErrorKind, PortError, PortResult};
use crate::ports::objects::ByteStream;
use bytes::Bytes;
use crc64fast_nvme::Digest;
use futures_util::{StreamExt, stream};
use lifecycle::ids::Checksum;

/// What the bytes must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Named in the error.
    pub object: String,
    /// Size in bytes.
    pub size: u64,
    /// CRC-64/NVME, where it is known.
    pub checksum: Option<Checksum>,
}

/// The same body, with an error of kind `Damaged` at its end if it was not what was expected.
pub fn verified(body: ByteStream, expected: Expected) -> ByteStream {
    let state = Some((body, Digest::new(), 0u64, expected));
    Box::pin(stream::unfold(state, |state| async {
        let (mut body, mut digest, mut size, expected) = state?;
        match body.next().await {
            Some(Ok(piece)) => {
                digest.write(&piece);
                size += piece.len() as u64;
                Some((Ok(piece), Some((body, digest, size, expected))))
            }
            Some(Err(error)) => Some((Err(error), None)),
            None => verdict(&expected, size, Checksum(digest.sum64())).map(|error| (Err(error), None)),
        }
    }))
}

/// The error at the end of the body, if it was not what was expected.
fn verdict(expected: &Expected, size: u64, checksum: Checksum) -> Option<PortError> {
    let what = if size != expected.size {
        format!("{size} bytes instead of {}", expected.size)
    } else if expected.checksum.is_some_and(|expected| expected != checksum) {
        "its bytes do not match its checksum".to_owned()
    } else {
        return None;
    };
    Some(PortError::new("verify object", &expected.object, ErrorKind::Damaged(what)))
}

/// A body of bytes in memory.
pub fn body_of(bytes: impl Into<Bytes>) -> ByteStream {
    let bytes: Bytes = bytes.into();
    Box::pin(stream::iter([PortResult::Ok(bytes)]))
}
