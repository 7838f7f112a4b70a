//! The known-flows filter: which tuples conntrack may know, so that a flood costs no lookups.
//!
//! A blocked Bloom filter (Putze, Sanders and Singler, "Cache-, hash- and space-efficient Bloom
//! filters", 2007) of the tuples of arriving packets: a tuple sets four of the 64 bits of one word.
//! With four tuples a word, it takes a new tuple for a known one with a chance of 0.5 %.
//!
//! There are two generations. New tuples are noted in both, and one is asked. The other was cleared
//! when the two swapped, and they swap again once a complete dump of the table has been written
//! into it. It holds every live flow then, which was either in the dump or noted since. So a tuple
//! that the asked generation does not hold is certainly new, however long its flow was idle.

use crate::{hash::low_word, layout::Environment, shared::Shared};

/// Number of generations.
pub const GENERATIONS: u32 = 2;

/// Gives the words of the filter: the first generation, then the second.
pub trait KnownWords {
    /// The word at `index`, if there is one.
    fn known_word(&self, index: u32) -> Option<&Shared>;
}

/// Whether conntrack may know the flow of this hash; true if there is no filter.
#[inline(always)]
pub(crate) fn may_hold<W: KnownWords>(words: &W, environment: &Environment, hash: u64) -> bool {
    let asked = position(hash, environment.daemon.known_generation, environment);
    let Some(word) = words.known_word(asked) else { return true };
    let bits = bits(hash);
    word.load() & bits == bits
}

/// Notes the tuple of this hash in both generations.
#[inline(always)]
pub fn note<W: KnownWords>(words: &W, environment: &Environment, hash: u64) {
    note_in(words, environment, hash, 0);
    note_in(words, environment, hash, 1);
}

/// Notes the tuple of this hash in one generation.
#[inline(always)]
pub(crate) fn note_in<W: KnownWords>(
    words: &W,
    environment: &Environment,
    hash: u64,
    generation: u32,
) {
    let Some(word) = words.known_word(position(hash, generation, environment)) else { return };
    let bits = bits(hash);
    // A load first, so that a busy flow's line stays shared between CPUs.
    if word.load() & bits != bits {
        word.set_bits(bits);
    }
}

/// The low half of the hash as a fraction of a generation's words (Lemire, "Fast random integer
/// generation in an interval", 2019).
#[inline(always)]
const fn position(hash: u64, generation: u32, environment: &Environment) -> u32 {
    let words = environment.fixed.known_words;
    let fraction = (low_word(hash) as u64 * words as u64) >> 32;
    low_word(fraction) + (generation & 1) * words
}

/// Four bits of the word, each selected by six bits of the hash above those that select the word.
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

    const WORDS: u32 = 12_345;

    struct Words(Vec<Shared>);

    impl KnownWords for Words {
        fn known_word(&self, index: u32) -> Option<&Shared> {
            self.0.get(index as usize)
        }
    }

    #[test]
    fn what_was_noted_is_held_whichever_generation_is_asked() {
        let (words, mut environment) = empty();
        for tuple in 0..1000 {
            note(&words, &environment, hash_of(tuple));
        }
        for generation in [0, 1] {
            environment.daemon.known_generation = generation;
            assert!((0..1000).all(|tuple| may_hold(&words, &environment, hash_of(tuple))));
        }
    }

    #[test]
    fn only_the_asked_generation_answers() {
        let (words, mut environment) = empty();
        note_in(&words, &environment, hash_of(1), 1);
        assert!(!may_hold(&words, &environment, hash_of(1)));
        environment.daemon.known_generation = 1;
        assert!(may_hold(&words, &environment, hash_of(1)));
    }

    /// Fails when bits are drawn so unevenly that floods pay for lookups.
    #[test]
    fn with_four_tuples_a_word_one_stranger_in_two_hundred_is_held() {
        let (words, environment) = empty();
        for tuple in 0..4 * WORDS {
            note(&words, &environment, hash_of(tuple));
        }
        let strangers = 1_000_000..2_000_000;
        let held = strangers.filter(|&tuple| may_hold(&words, &environment, hash_of(tuple)));
        let held = held.count();
        assert!(held <= 5500, "{held} of a million");
    }

    #[test]
    fn a_missing_filter_holds_everything() {
        let (_, environment) = empty();
        assert!(may_hold(&Words(Vec::new()), &environment, hash_of(1)));
    }

    fn empty() -> (Words, Environment) {
        let mut environment = Environment::unset([KEY; 2]);
        environment.fixed.known_words = WORDS;
        (Words((0..GENERATIONS * WORDS).map(|_| Shared::new(0)).collect()), environment)
    }

    fn hash_of(tuple: u32) -> u64 {
        hash::tuple(&KEY, Ipv4(0x0a00_0000 | tuple), Ipv4(0xc633_6401), 17, 53 << 16 | 4096)
    }
}
