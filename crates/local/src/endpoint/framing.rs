//! `aws-chunked` bodies, kept in small pieces. Pure.
//!
//! `s3s` holds every piece of such a body in memory as a whole, and a client may declare pieces of up to 4 GiB. Unsigned
//! pieces are therefore cut into small ones on their way in (no signature covers the framing); signed ones cannot be cut,
//! because their signature covers them as they are, and are refused above a limit (I11).

use super::limits::{ENDPOINT_CHUNK_LINE, ENDPOINT_SIGNED_CHUNK};
use bytes::{Buf, Bytes};

/// Whether the pieces carry signatures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pieces {
    /// `STREAMING-AWS4-HMAC-SHA256-PAYLOAD` and its `-TRAILER` form.
    Signed,
    /// `STREAMING-UNSIGNED-PAYLOAD-TRAILER`.
    Unsigned,
}

/// Why a body is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadFraming {
    /// No well-formed line before a piece.
    #[error("AwsChunkedFraming: FormatError")]
    Format,
    /// A signed piece above the limit.
    #[error("a signed piece of the body has {0} bytes; at most {ENDPOINT_SIGNED_CHUNK} are taken")]
    PieceTooLarge(u64),
}

/// Where in the framing the body is.
#[derive(Debug)]
enum At {
    /// In the line before a piece.
    Line,
    /// Inside a piece; so many bytes are left.
    Data(u64),
    /// In the line end after a piece; so many bytes are left.
    LineEnd(u8),
    /// After the last piece: trailers, passed on as they are.
    Trailers,
}

/// Follows one body.
#[derive(Debug)]
pub(super) struct Framing {
    pieces: Pieces,
    at: At,
    line: Vec<u8>,
}

impl Framing {
    /// At the beginning of a body.
    pub(super) fn new(pieces: Pieces) -> Framing {
        Framing { pieces, at: At::Line, line: Vec::new() }
    }

    /// Takes the next bytes and appends to `out` what is passed on.
    pub(super) fn push(&mut self, mut bytes: Bytes, out: &mut impl Extend<Bytes>) -> Result<(), BadFraming> {
        while bytes.has_remaining() {
            match self.at {
                At::Line => self.read_line(&mut bytes, out)?,
                At::Data(left) => {
                    let here = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                    let piece = bytes.split_to(here);
                    match self.pieces {
                        Pieces::Signed => out.extend([piece]),
                        Pieces::Unsigned => {
                            out.extend([Bytes::from(format!("{here:x}\r\n")), piece, Bytes::from_static(b"\r\n")]);
                        }
                    }
                    let left = left - here as u64;
                    self.at = if left == 0 { At::LineEnd(2) } else { At::Data(left) };
                }
                At::LineEnd(left) => {
                    let byte = bytes.split_to(1);
                    let wanted: &[u8] = if left == 2 { b"\r" } else { b"\n" };
                    if byte != wanted {
                        return Err(BadFraming::Format);
                    }
                    if self.pieces == Pieces::Signed {
                        out.extend([byte]);
                    }
                    self.at = if left == 1 { At::Line } else { At::LineEnd(1) };
                }
                At::Trailers => out.extend([bytes.split_to(bytes.len())]),
            }
        }
        Ok(())
    }

    fn read_line(&mut self, bytes: &mut Bytes, out: &mut impl Extend<Bytes>) -> Result<(), BadFraming> {
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let taken = bytes.split_to(end.map_or(bytes.len(), |at| at + 1));
        self.line.extend_from_slice(&taken);
        if self.line.len() > ENDPOINT_CHUNK_LINE {
            return Err(BadFraming::Format);
        }
        if end.is_none() {
            return Ok(());
        }
        let line = std::mem::take(&mut self.line);
        let size = self.size(&line)?;
        if self.pieces == Pieces::Signed || size == 0 {
            out.extend([Bytes::from(line)]);
        }
        self.at = if size == 0 { At::Trailers } else { At::Data(size) };
        Ok(())
    }

    /// The size that a line declares: `<hex>\r\n`, or `<hex>;chunk-signature=<64>\r\n`.
    fn size(&self, line: &[u8]) -> Result<u64, BadFraming> {
        let line = line.strip_suffix(b"\r\n").ok_or(BadFraming::Format)?;
        let text = std::str::from_utf8(line).map_err(|_| BadFraming::Format)?;
        let (digits, extension) = text.split_once(';').map_or((text, None), |(size, rest)| (size, Some(rest)));
        if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(BadFraming::Format);
        }
        let size = u64::from_str_radix(digits, 16).map_err(|_| BadFraming::Format)?;
        match self.pieces {
            Pieces::Unsigned if extension.is_some() => Err(BadFraming::Format),
            Pieces::Signed if size > ENDPOINT_SIGNED_CHUNK => Err(BadFraming::PieceTooLarge(size)),
            _ => Ok(size),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{ProptestConfig, any, prop_assert, prop_assert_eq, proptest};

    fn pass(pieces: Pieces, parts: &[&[u8]]) -> Result<Vec<Bytes>, BadFraming> {
        let mut framing = Framing::new(pieces);
        let mut out = Vec::new();
        for part in parts {
            framing.push(Bytes::copy_from_slice(part), &mut out)?;
        }
        Ok(out)
    }

    #[test]
    fn a_signed_body_is_passed_on_byte_for_byte() {
        let signature = "a".repeat(64);
        let body = format!(
            "5;chunk-signature={signature}\r\nhello\r\n0;chunk-signature={signature}\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n"
        );
        for step in [1, 3, 1_000] {
            let parts: Vec<&[u8]> = body.as_bytes().chunks(step).collect();
            assert_eq!(pass(Pieces::Signed, &parts).unwrap().concat(), body.as_bytes());
        }
    }

    #[test]
    fn a_large_signed_piece_is_refused_before_its_bytes_arrive() {
        let line = format!("{:x};chunk-signature={}\r\n", ENDPOINT_SIGNED_CHUNK + 1, "a".repeat(64));
        let refused = Err(BadFraming::PieceTooLarge(ENDPOINT_SIGNED_CHUNK + 1));
        assert_eq!(pass(Pieces::Signed, &[line.as_bytes()]), refused);
    }

    #[test]
    fn a_large_unsigned_piece_is_passed_on_in_the_pieces_in_which_it_arrived() {
        let out = pass(Pieces::Unsigned, &[b"100000\r\n", b"abc", b"de"]).unwrap();
        assert_eq!(out.concat(), b"3\r\nabc\r\n2\r\nde\r\n");
    }

    #[test]
    fn nonsense_is_refused() {
        let long = [b'0'; ENDPOINT_CHUNK_LINE + 1];
        let bad: [&[u8]; 7] = [b"\r\n", b"xyz\r\n", b"5\nhello", b"123456789\r\n", b"1\r\nab", b"+5\r\n", &long];
        for body in bad {
            assert_eq!(pass(Pieces::Unsigned, &[body]), Err(BadFraming::Format), "{body:?}");
        }
        assert_eq!(pass(Pieces::Unsigned, &[b"1;chunk-signature=a\r\n"]), Err(BadFraming::Format));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn unsigned_content_and_trailers_survive_any_cut(
            content in proptest::collection::vec(any::<u8>(), 0..200), cut in 1_usize..40, piece in 1_usize..80,
        ) {
            let mut body = Vec::new();
            for part in content.chunks(piece) {
                body.extend_from_slice(format!("{:X}\r\n", part.len()).as_bytes());
                body.extend_from_slice(part);
                body.extend_from_slice(b"\r\n");
            }
            body.extend_from_slice(b"0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n");
            let parts: Vec<&[u8]> = body.chunks(cut).collect();
            let once = pass(Pieces::Unsigned, &parts).unwrap().concat();
            prop_assert!(once.ends_with(b"0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n"));
            // Cutting what was cut, in one go, tells the same content.
            let mut read = Vec::new();
            let mut rest = &once[..];
            loop {
                let end = rest.iter().position(|byte| *byte == b'\n').unwrap();
                let size = usize::from_str_radix(std::str::from_utf8(&rest[..end - 1]).unwrap(), 16).unwrap();
                rest = &rest[end + 1..];
                if size == 0 { break }
                prop_assert!(size <= cut);
                read.extend_from_slice(&rest[..size]);
                rest = &rest[size + 2..];
            }
            prop_assert_eq!(read, content);
        }
    }
}
