//! Keyed hashes of sources and tuples.
//!
//! A multilinear hash (Lemire and Kaser, "Strongly universal string hashing is fast", 2014: the sum
//! of key words times data words, modulo 2^64), followed by a keyed multiplication that mixes the
//! high bits into the low ones. Two inputs chosen without the key collide in all 64 bits with a
//! chance of at most 2^-32, and in k of the high bits with about 2^-k.

use crate::layout::HashKey;
use crate::packet::Address;

/// The hash that finds a source's cells; see [`Address::source_scope`] for `scope`.
#[inline(always)]
pub const fn source(key: &HashKey, class: u32, family: u32, scope: u64) -> u64 {
    tagged(key, class | family << 8, scope)
}

/// The hash that finds a known source, for all classes.
#[inline(always)]
pub const fn scope(key: &HashKey, family: u32, scope: u64) -> u64 {
    tagged(key, SCOPE_TAG | family << 8, scope)
}

#[inline(always)]
pub(crate) const fn prefix(key: &HashKey, class: u32, family: u32, prefix: u64) -> u64 {
    tagged(key, PREFIX_TAG | class | family << 8, prefix)
}

#[inline(always)]
pub(crate) fn service<A: Address>(key: &HashKey, destination: A, protocol: u8, port: u32) -> u64 {
    let mut sum = key.words[0];
    sum = add(sum, key.words[1], SERVICE_TAG | u32::from(protocol) | A::FAMILY << 8);
    sum = add(sum, key.words[2], port);
    for (word, position) in destination.words().as_ref().iter().zip(3..) {
        sum = add(sum, key.words[position], *word);
    }
    finish(key, sum)
}

/// Tags of the uses of one key, above family, class and protocol.
const SCOPE_TAG: u32 = 1 << 16;
const PREFIX_TAG: u32 = 2 << 16;
const SERVICE_TAG: u32 = 3 << 16;

#[inline(always)]
const fn tagged(key: &HashKey, tag: u32, scope: u64) -> u64 {
    let mut sum = key.words[0];
    sum = add(sum, key.words[1], tag);
    sum = add(sum, key.words[2], low_word(scope));
    sum = add(sum, key.words[3], low_word(scope >> 32));
    finish(key, sum)
}

/// The hash that finds a flow, from the tuple of its arriving packets.
#[inline(always)]
pub fn tuple<A: Address>(
    key: &HashKey,
    source: A,
    destination: A,
    protocol: u8,
    flow_key: u32,
) -> u64 {
    let mut sum = key.words[0];
    sum = add(sum, key.words[1], u32::from(protocol) | A::FAMILY << 8);
    sum = add(sum, key.words[2], flow_key);
    for (word, position) in source.words().as_ref().iter().zip(3..) {
        sum = add(sum, key.words[position], *word);
    }
    for (word, position) in destination.words().as_ref().iter().zip(7..) {
        sum = add(sum, key.words[position], *word);
    }
    finish(key, sum)
}

/// The hash that [`tuple`] gives for the same tuple with another flow key.
///
/// Undoing the hash takes no addresses, which are no longer at hand where this is needed.
#[inline(always)]
pub(crate) const fn with_flow_key(key: &HashKey, hash: u64, from: u32, to: u32) -> u64 {
    let sum = add(unfinish(key, hash), key.words[2], to);
    finish(key, sum.wrapping_sub(key.words[2].wrapping_mul(from as u64)))
}

#[inline(always)]
const fn unfinish(key: &HashKey, hash: u64) -> u64 {
    let mixed = hash ^ hash >> 29 ^ hash >> 58;
    let sum = mixed.wrapping_mul(inverse(key.words[11]));
    sum ^ sum >> 32
}

/// The inverse of an odd number modulo 2^64, by Newton's iteration: the first guess is right in
/// five bits, and each step doubles them.
#[inline(always)]
const fn inverse(odd: u64) -> u64 {
    let mut inverse = odd.wrapping_mul(3) ^ 2;
    let mut step = 0;
    while step < 4 {
        inverse = inverse.wrapping_mul(2_u64.wrapping_sub(odd.wrapping_mul(inverse)));
        step += 1;
    }
    inverse
}

#[inline(always)]
const fn add(sum: u64, key: u64, word: u32) -> u64 {
    sum.wrapping_add(key.wrapping_mul(word as u64))
}

#[inline(always)]
const fn finish(key: &HashKey, sum: u64) -> u64 {
    let mixed = (sum ^ sum >> 32).wrapping_mul(key.words[11]);
    mixed ^ mixed >> 29
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the low word is asked for")]
pub(crate) const fn low_word(number: u64) -> u32 {
    number as u32
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::{vec, vec::Vec};

    use super::*;
    use crate::{layout::Class, packet::Ipv4};

    const KEY: HashKey = testing::KEY;

    #[test]
    fn neighbouring_sources_spread_over_the_lines() {
        const LINES: u32 = 1024;
        let mut load = vec![0_u32; LINES as usize];
        for address in 0..64 * LINES {
            let line = source(&KEY, Class::Tcp as u32, 4, u64::from(0x0a00_0000 + address));
            let line = line & u64::from(LINES - 1);
            load[usize::try_from(line).unwrap()] += 1;
        }
        // Poisson of mean 64: five standard deviations are 40.
        assert!(load.iter().all(|&sources| (24..=112).contains(&sources)), "{load:?}");
    }

    #[test]
    fn a_flow_and_its_reverse_are_two() {
        let there = tuple(&KEY, Ipv4(1), Ipv4(2), 6, 3 << 16 | 4);
        let back = tuple(&KEY, Ipv4(2), Ipv4(1), 6, 4 << 16 | 3);
        assert_ne!(there, back);
    }

    #[test]
    fn every_part_of_a_tuple_counts() {
        let hashes: Vec<u64> =
            [(1, 2, 6, 3), (9, 2, 6, 3), (1, 9, 6, 3), (1, 2, 17, 3), (1, 2, 6, 9)]
                .map(|(source, destination, protocol, key)| {
                    tuple(&KEY, Ipv4(source), Ipv4(destination), protocol, key)
                })
                .into();
        for (position, hash) in hashes.iter().enumerate() {
            assert!(!hashes[..position].contains(hash));
        }
    }

    #[test]
    fn a_flow_key_is_replaced_without_the_addresses() {
        let of = |port: u32| tuple(&KEY, Ipv4(1), Ipv4(2), 17, port << 16 | 0x35);
        for port in 0..10_000 {
            let hash = with_flow_key(&KEY, of(port), port << 16 | 0x35, 0x35);
            assert_eq!(hash, of(0), "port {port}");
        }
    }

    #[test]
    fn classes_of_one_source_have_cells_of_their_own() {
        let of = |class| source(&KEY, class as u32, 4, 1);
        assert_ne!(of(Class::Tcp), of(Class::Udp));
    }
}

/// A key for tests.
#[cfg(test)]
pub(crate) mod testing {
    use crate::layout::HashKey;

    pub(crate) const KEY: HashKey = HashKey {
        words: {
            let mut words = [0; 12];
            let mut state = 0x9e37_79b9_7f4a_7c15_u64;
            let mut position = 0;
            while position < words.len() {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                words[position] = state;
                position += 1;
            }
            words[11] |= 1;
            words
        },
    };
}
