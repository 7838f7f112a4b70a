//! For tests: connections at random, and the Internet checksum.

use super::Connection;
use crate::{
    hash::low_word,
    layout::CookieKey,
    packet::{Ipv4, Ipv6},
};

pub(super) const KEY: CookieKey =
    CookieKey { words: [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210] };

/// Marsaglia's xorshift64.
pub(super) struct Random(u64);

impl Random {
    pub(super) const fn new() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }

    pub(super) const fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(super) const fn word(&mut self) -> u32 {
        low_word(self.next() >> 32)
    }

    pub(super) const fn connection4(&mut self) -> Connection<Ipv4> {
        let (source, destination) = (Ipv4(self.word()), Ipv4(self.word()));
        Connection { source, destination, ports: self.word() }
    }

    pub(super) fn connection6(&mut self) -> Connection<Ipv6> {
        let mut address = || Ipv6([(); 4].map(|()| self.word()));
        let (source, destination) = (address(), address());
        Connection { source, destination, ports: self.word() }
    }
}

/// The sum of the Internet checksum (RFC 1071), byte by byte.
pub(super) fn ones_complement(bytes: &[u8]) -> u32 {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    let sum: u32 = bytes.chunks(2).map(word).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    (folded & 0xffff) + (folded >> 16)
}
