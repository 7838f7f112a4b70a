//! Numbers that repeat themselves for the same seed, and where a test's seed comes from.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};

/// A source of numbers (xorshift64*).
#[derive(Clone, Debug)]
pub struct Random(u64);

/// The seed that `CTGUARD_SEED` asks for, or another one at each call.
pub fn seed() -> Result<u64> {
    match std::env::var("CTGUARD_SEED") {
        Ok(seed) => seed.parse().context("CTGUARD_SEED is a number"),
        Err(_) => Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() | 1),
    }
}

impl Random {
    /// The source of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        // Neighbours must not begin alike.
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u32) -> u32 {
        u32::try_from((u64::from(self.word()) * u64::from(end)) >> 32).unwrap_or(0)
    }

    /// Any number.
    pub fn word(&mut self) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        u32::try_from(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32).unwrap_or(0)
    }

    /// Any two bytes.
    pub fn half(&mut self) -> u16 {
        u16::try_from(self.below(1 << 16)).unwrap_or(0)
    }

    /// Any byte.
    pub fn byte(&mut self) -> u8 {
        u8::try_from(self.below(256)).unwrap_or(0)
    }

    /// True once in `times`.
    pub fn once_in(&mut self, times: u32) -> bool {
        self.below(times) == 0
    }

    /// A place in a list of this length, which is not empty.
    pub fn index(&mut self, length: usize) -> usize {
        self.below(u32::try_from(length).unwrap_or(u32::MAX)) as usize
    }

    /// One of the choices.
    ///
    /// # Panics
    /// If there are none.
    pub fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.index(choices.len())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers_and_another_gives_others() {
        let numbers = |seed| {
            let mut random = Random::new(seed);
            (0..8).map(|_| random.word()).collect::<Vec<_>>()
        };
        assert_eq!(numbers(3), numbers(3));
        assert_ne!(numbers(3), numbers(5));
    }
}
