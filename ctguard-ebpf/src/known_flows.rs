//! The known-flows filter: which tuples conntrack may know, so that floods pay for no lookup.
//!
//! A blocked Bloom filter (Putze, Sanders and Singler, "Cache-, hash- and space-efficient Bloom
//! filters", 2007) of tuples as they arrive here. A tuple sets [`BITS`] of the 64 bits of one
//! word, which has room for four tuples: then a tuple never noted is taken for a known one with a
//! chance of 0.5 % in each of two generations. New tuples are noted in the current one; the older
//! one is cleared and becomes the current one only after the whole table has been written into the
//! current one. So a tuple that neither holds is certainly new, however long its flow was idle.

use crate::{
    hash::low_word,
    layout::{Environment, KnownBlock},
};

/// Bits that a tuple sets.
pub const BITS: u32 = 4;

/// Gives the blocks of the filter.
pub trait KnownBlocks {
    /// The block at `index`, if there is one.
    fn known_block(&self, index: u32) -> Option<&KnownBlock>;
}

/// Whether conntrack may know the flow of this hash. Where there is no memory, it may.
#[inline(always)]
pub fn may_hold<B: KnownBlocks>(blocks: &B, environment: &Environment, hash: u64) -> bool {
    let Some(block) = blocks.known_block(index(hash, environment)) else { return true };
    let bits = bits(hash);
    let [one, other] = &block.generations;
    one.load() & bits == bits || other.load() & bits == bits
}

/// Notes the tuple of this hash in the current generation.
#[inline(always)]
pub fn note<B: KnownBlocks>(blocks: &B, environment: &Environment, hash: u64) {
    let Some(block) = blocks.known_block(index(hash, environment)) else { return };
    let bits = bits(hash);
    let current = &block.generations[environment.known_generation as usize & 1];
    // A load first, so that a busy flow's line stays shared between CPUs.
    if current.load() & bits != bits {
        current.set_bits(bits);
    }
}

#[inline(always)]
const fn index(hash: u64, environment: &Environment) -> u32 {
    low_word(hash) & environment.known_block_mask
}

/// Six bits of the hash for each bit, from above those that pick the block.
#[inline(always)]
const fn bits(hash: u64) -> u64 {
    1 << (hash >> 58) | 1 << (hash >> 52 & 63) | 1 << (hash >> 46 & 63) | 1 << (hash >> 40 & 63)
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use super::*;
    use crate::{hash, hash::testing::KEY, packet::Ipv4};

    struct Blocks(Vec<KnownBlock>);

    impl KnownBlocks for Blocks {
        fn known_block(&self, index: u32) -> Option<&KnownBlock> {
            self.0.get(index as usize)
        }
    }

    const BLOCKS: u32 = 1 << 14;

    #[test]
    fn what_was_noted_in_either_generation_is_held() {
        let (blocks, mut environment) = empty();
        for generation in [0, 1] {
            environment.known_generation = generation;
            for tuple in 0..1000 {
                note(&blocks, &environment, hash_of(generation * 1000 + tuple));
            }
        }
        assert!((0..2000).all(|tuple| may_hold(&blocks, &environment, hash_of(tuple))));
    }

    /// Fails when bits are drawn so unevenly that floods pay for lookups.
    #[test]
    fn with_four_tuples_a_word_in_both_generations_one_stranger_in_a_hundred_is_held() {
        let (blocks, mut environment) = empty();
        for tuple in 0..8 * BLOCKS {
            environment.known_generation = tuple & 1;
            note(&blocks, &environment, hash_of(tuple));
        }
        let strangers = 1_000_000..2_000_000;
        let held = strangers.filter(|&tuple| may_hold(&blocks, &environment, hash_of(tuple)));
        let held = held.count();
        assert!(held <= 11_000, "{held} of a million");
    }

    #[test]
    fn an_empty_filter_holds_nothing_and_a_missing_one_everything() {
        let (blocks, environment) = empty();
        assert!(!may_hold(&blocks, &environment, hash_of(1)));
        assert!(may_hold(&Blocks(Vec::new()), &environment, hash_of(1)));
    }

    fn empty() -> (Blocks, Environment) {
        let environment =
            Environment { known_block_mask: BLOCKS - 1, ..Environment::unset([KEY; 2]) };
        (Blocks((0..BLOCKS).map(|_| KnownBlock::default()).collect()), environment)
    }

    fn hash_of(tuple: u32) -> u64 {
        hash::tuple(&KEY, Ipv4(0x0a00_0000 | tuple), Ipv4(0xc633_6401), 17, 53 << 16 | 4096)
    }
}
