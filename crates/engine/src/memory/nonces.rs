//! Names and jitter from a seed: the same seed gives the same names, so that every run can be replayed. Writes nothing.

use crate::ports::clock::Nonces;
use std::sync::atomic::{AtomicU64, Ordering};

/// A counter behind a mixing function that maps different numbers to different numbers: names never repeat.
#[derive(Debug)]
pub struct MemoryNonces {
    names: AtomicU64,
    jitters: AtomicU64,
}

impl MemoryNonces {
    /// The sequence of that seed.
    pub fn seeded(seed: u64) -> MemoryNonces {
        MemoryNonces { names: AtomicU64::new(seed), jitters: AtomicU64::new(!seed) }
    }
}

/// The output function of SplitMix64 (Steele, Lea, Flood 2014): a bijection.
fn mix(counter: u64) -> u64 {
    let mut z = counter.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Nonces for MemoryNonces {
    fn nonce(&self) -> String {
        format!("{:016x}", mix(self.names.fetch_add(1, Ordering::Relaxed)))
    }

    fn jitter(&self, below: u64) -> u64 {
        mix(self.jitters.fetch_add(1, Ordering::Relaxed)).checked_rem(below).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_names_and_no_name_twice() {
        let names = |seed| -> Vec<String> {
            let nonces = MemoryNonces::seeded(seed);
            (0..1_000).map(|_| nonces.nonce()).collect()
        };
        assert_eq!(names(7), names(7));
        let mut unique = names(7);
        unique.sort();
        unique.dedup();
        assert_eq!(unique.len(), 1_000);
        assert_eq!(MemoryNonces::seeded(7).jitter(0), 0);
        assert!((0..100).all(|seed| MemoryNonces::seeded(seed).jitter(3) < 3));
    }
}
