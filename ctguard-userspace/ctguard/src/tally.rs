//! Counts by key in bounded memory, of the keys that count most. A count may be too low, never too high.

use std::{cmp::Reverse, collections::HashMap, hash::Hash};

/// What is counted of a key.
pub(crate) trait Count: Copy + Default {
    type Rank: Ord;
    /// The highest comes first.
    fn rank(&self) -> Self::Rank;
}

/// Counts of `MOST` keys at most; half of them are left when there would be more.
#[derive(Clone, Debug)]
pub(crate) struct Tally<K, C, const MOST: usize>(HashMap<K, C>);

impl<K, C, const MOST: usize> Default for Tally<K, C, MOST> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Copy + Eq + Hash + Ord, C: Count, const MOST: usize> Tally<K, C, MOST> {
    /// The count of a key, to be raised.
    pub(crate) fn of(&mut self, key: K) -> &mut C {
        if self.0.len() >= MOST && !self.0.contains_key(&key) {
            let mut all = self.ranked();
            all.truncate(MOST / 2);
            self.0 = all.into_iter().collect();
        }
        self.0.entry(key).or_default()
    }

    /// Those that count most first.
    pub(crate) fn ranked(&self) -> Vec<(K, C)> {
        let mut all: Vec<_> = self.0.iter().map(|(&key, &count)| (key, count)).collect();
        all.sort_unstable_by_key(|(key, count)| (Reverse(count.rank()), *key));
        all
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}
