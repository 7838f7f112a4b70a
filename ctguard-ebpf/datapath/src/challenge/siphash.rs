//! SipHash-2-4 of 64-bit words (Aumasson and Bernstein, "`SipHash`: a fast short-input PRF", 2012):
//! indistinguishable from random without the key.

#[derive(Clone)]
pub(super) struct SipHash {
    state: [u64; 4],
    bytes: u64,
}

impl SipHash {
    #[inline(always)]
    pub(super) const fn new([low, high]: [u64; 2]) -> Self {
        // "somepseudorandomlygeneratedbytes".
        let state = [
            low ^ 0x736f_6d65_7073_6575,
            high ^ 0x646f_7261_6e64_6f6d,
            low ^ 0x6c79_6765_6e65_7261,
            high ^ 0x7465_6462_7974_6573,
        ];
        Self { state, bytes: 0 }
    }

    /// Adds eight bytes, as a little-endian number.
    #[inline(always)]
    pub(super) const fn add(mut self, word: u64) -> Self {
        self.absorb(word);
        self.bytes += 8;
        self
    }

    /// The hash of all words and of the low seven bytes of `last`.
    #[inline(always)]
    pub(super) const fn finish(mut self, last: u64) -> u64 {
        self.absorb(last & ((1 << 56) - 1) | (self.bytes + 7) << 56);
        self.finalize()
    }

    #[inline(always)]
    const fn absorb(&mut self, word: u64) {
        self.state[3] ^= word;
        self.round();
        self.round();
        self.state[0] ^= word;
    }

    #[inline(always)]
    const fn finalize(mut self) -> u64 {
        self.state[2] ^= 0xff;
        self.round();
        self.round();
        self.round();
        self.round();
        let [a, b, c, d] = self.state;
        a ^ b ^ c ^ d
    }

    #[inline(always)]
    const fn round(&mut self) {
        let [mut a, mut b, mut c, mut d] = self.state;
        a = a.wrapping_add(b);
        b = b.rotate_left(13) ^ a;
        a = a.rotate_left(32);
        c = c.wrapping_add(d);
        d = d.rotate_left(16) ^ c;
        a = a.wrapping_add(d);
        d = d.rotate_left(21) ^ a;
        c = c.wrapping_add(b);
        b = b.rotate_left(17) ^ c;
        c = c.rotate_left(32);
        self.state = [a, b, c, d];
    }
}

#[cfg(test)]
mod tests {
    #![expect(deprecated, reason = "the standard library names its SipHash-2-4 only so")]

    use core::hash::{Hasher as _, SipHasher};

    use super::*;
    use crate::challenge::testing::Random;

    /// Appendix A of the paper: the key is the bytes 0 to 15, the message the bytes 0 to 14, whose
    /// length stands behind its last seven.
    #[test]
    fn the_papers_example_has_the_papers_hash() {
        let mut hash = SipHash::new([0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908]);
        hash.absorb(0x0706_0504_0302_0100);
        hash.absorb(0x0f0e_0d0c_0b0a_0908);
        assert_eq!(hash.finalize(), 0xa129_ca61_49be_45e5);
    }

    #[test]
    fn words_and_seven_bytes_hash_as_in_the_standard_library() {
        let mut random = Random::new();
        for round in 0..10_000 {
            let key = [random.next(), random.next()];
            let (mut ours, mut theirs) =
                (SipHash::new(key), SipHasher::new_with_keys(key[0], key[1]));
            for _ in 0..round % 8 {
                let word = random.next();
                ours = ours.add(word);
                theirs.write(&word.to_le_bytes());
            }
            let last = random.next();
            theirs.write(&last.to_le_bytes()[..7]);
            assert_eq!(ours.finish(last), theirs.finish(), "{} words", round % 8);
        }
    }
}
