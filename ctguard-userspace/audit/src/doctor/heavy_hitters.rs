//! Who stands out in a stream, in bounded memory.
//!
//! Misra and Gries, "Finding repeated elements", 1982: with k counters, whoever makes up more than
//! 1/k of the stream has one at its end, and it counts at most 1/k of the stream too few.

use std::{collections::HashMap, hash::Hash};

#[derive(Clone, Debug)]
pub(super) struct HeavyHitters<K> {
    counters: HashMap<K, u64>,
    most: usize,
}

impl<K: Copy + Eq + Hash + Ord> Default for HeavyHitters<K> {
    /// Finds whoever makes up more than one in 256.
    fn default() -> Self {
        Self::new(256)
    }
}

impl<K: Copy + Eq + Hash + Ord> HeavyHitters<K> {
    pub(super) fn new(most: usize) -> Self {
        Self { counters: HashMap::with_capacity(most + 1), most }
    }

    pub(super) fn note(&mut self, key: K) {
        *self.counters.entry(key).or_default() += 1;
        if self.counters.len() > self.most {
            self.counters.retain(|_, count| {
                *count -= 1;
                *count > 0
            });
        }
    }

    /// The most frequent, and the least that it was seen; of several the first by order.
    pub(super) fn first(&self) -> Option<(K, u64)> {
        self.first_that(|_| true)
    }

    pub(super) fn first_that(&self, wanted: impl Fn(&K) -> bool) -> Option<(K, u64)> {
        let wanted = self.counters.iter().filter(|(key, _)| wanted(key));
        let first = wanted.max_by(|(a, many), (b, more)| many.cmp(more).then(b.cmp(a)));
        first.map(|(key, count)| (*key, *count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails when one that makes up more than 1/k is lost among many that come once.
    #[test]
    fn who_makes_up_a_tenth_is_found_among_thousands_that_come_once() {
        let mut hitters = HeavyHitters::new(64);
        for number in 0..100_000_u32 {
            hitters.note(if number % 10 == 3 { 7 } else { 1_000_000 + number });
        }
        let (key, count) = hitters.first().unwrap();
        assert_eq!(key, 7);
        assert!((10_000 - 100_000 / 64..=10_000).contains(&count), "{count}");
        assert!(hitters.counters.len() <= 64);
    }

    #[test]
    fn a_stream_of_few_is_counted_exactly() {
        let mut hitters = HeavyHitters::new(4);
        for key in [1, 2, 1, 3, 1, 2] {
            hitters.note(key);
        }
        assert_eq!(hitters.first(), Some((1, 3)));
        assert_eq!(hitters.first_that(|key| *key != 1), Some((2, 2)));
        assert_eq!(HeavyHitters::<u8>::new(4).first(), None);
    }
}
