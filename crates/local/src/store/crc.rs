//! Joining CRC-64/NVME checksums: the checksum of two pieces in a row, from those of the pieces. Pure.
//!
//! Place: completing a multipart upload, so that gigabytes need not be read again. Method: the one of zlib's
//! `crc32_combine`. Appending n zero bytes to a message multiplies its remainder by x^(8n) modulo the polynomial.

/// The reflected polynomial of CRC-64/NVME (NVM Express, "64b CRC").
const POLYNOMIAL: u64 = 0x9A6C_9329_AC4B_C9B5;

/// The checksum of `a` followed by `b`, where `b` has so many bytes.
pub(super) fn join(a: u64, b: u64, b_bytes: u64) -> u64 {
    times(power_of_x(b_bytes), a) ^ b
}

/// `a × b` modulo the polynomial, reflected: the highest bit is x^0.
fn times(a: u64, mut b: u64) -> u64 {
    let mut product = 0;
    for bit in (0..64).rev() {
        if a >> bit & 1 == 1 {
            product ^= b;
        }
        b = if b & 1 == 1 { b >> 1 ^ POLYNOMIAL } else { b >> 1 };
    }
    product
}

/// x^(8n) modulo the polynomial, by squaring.
fn power_of_x(n: u64) -> u64 {
    let mut square = 1 << (63 - 8); // x^8
    let mut power = 1 << 63; // x^0
    let mut left = n;
    while left > 0 {
        if left & 1 == 1 {
            power = times(square, power);
        }
        square = times(square, square);
        left >>= 1;
    }
    power
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{prop_assert_eq, proptest};

    fn crc(bytes: &[u8]) -> u64 {
        let mut digest = crc64fast_nvme::Digest::new();
        digest.write(bytes);
        digest.sum64()
    }

    proptest! {
        #[test]
        fn the_joined_checksum_is_the_whole_ones(a: Vec<u8>, b: Vec<u8>) {
            prop_assert_eq!(join(crc(&a), crc(&b), b.len() as u64), crc(&[a, b].concat()));
        }
    }

    #[test]
    fn long_pieces_join_too() {
        let (a, b) = (vec![7; 3], vec![9; 1_000_003]);
        assert_eq!(join(crc(&a), crc(&b), b.len() as u64), crc(&[a, b].concat()));
    }
}
