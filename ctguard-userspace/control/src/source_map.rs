//! Maps by source, with a keyed hash that takes a few nanoseconds: a look asks once for each entry.

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hasher, RandomState},
};

use super::sources::SourceScope;

pub(crate) type SourceMap<V> = HashMap<SourceScope, V, Keyed>;

/// Senders choose their addresses, so the keys are random.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keyed([u64; 2]);

impl Default for Keyed {
    fn default() -> Self {
        let random = RandomState::new();
        let [state, key] = [0_u64, 1].map(|number| random.hash_one(number));
        // An even key would lose bits.
        Self([state, key | 1])
    }
}

impl BuildHasher for Keyed {
    type Hasher = Folding;

    fn build_hasher(&self) -> Folding {
        let [state, key] = self.0;
        Folding { state, key }
    }
}

/// Multiplies by a key and folds the product in half, as wyhash does.
#[derive(Debug)]
pub(crate) struct Folding {
    state: u64,
    key: u64,
}

impl Hasher for Folding {
    /// Folds once more: after one product, close addresses are still close in some bits.
    fn finish(&self) -> u64 {
        let (low, high) = self.state.carrying_mul(self.key, 0);
        low ^ high
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_ne_bytes(word));
        }
    }

    fn write_u64(&mut self, word: u64) {
        let (low, high) = (self.state ^ word).carrying_mul(self.key, 0);
        self.state = low ^ high;
    }

    fn write_u32(&mut self, word: u32) {
        self.write_u64(word.into());
    }

    /// The discriminant only has to differ.
    fn write_isize(&mut self, discriminant: isize) {
        self.state ^= discriminant.cast_unsigned() as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By any 16 bits of a random hash, 2^16 sources would take 1 − 1/e of 2^16 places.
    #[test]
    fn sources_that_differ_in_few_bits_spread_over_all_bits_of_the_hash() {
        for _ in 0..8 {
            let keyed = Keyed::default();
            for scope in
                [SourceScope::V4 as fn(u32) -> SourceScope, |n| SourceScope::V6(u64::from(n) << 30)]
            {
                for shift in [0, 16, 32, 48] {
                    let mut places = vec![false; 1 << 16];
                    for number in 0..1 << 16 {
                        places[(keyed.hash_one(scope(number)) >> shift & 0xffff) as usize] = true;
                    }
                    let taken = places.iter().filter(|taken| **taken).count();
                    assert!(taken > 35_000, "{taken} at {shift}");
                }
            }
        }
    }
}
