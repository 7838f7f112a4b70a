//! Who holds how much of the table, in bounded memory.

mod parts;

use std::cmp::Reverse;

use super::{networks, source_map::SourceMap, sources::SourceScope};

pub(crate) use parts::Claim;
pub use parts::{Excess, Parts, PartsRoom};

/// Whether an entry proves its source's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Proof {
    /// Its source completed a handshake.
    OfAddress,
    /// Anybody can send such packets.
    None,
}

/// Entries of each source that are not dead weight.
///
/// A table with more sources than counters drops the lowest counts. So a count may be too low, never
/// too high, and nobody is taken for a holder of what is not theirs.
#[derive(Clone, Debug)]
pub struct Holdings {
    proving: Counters,
    other: Counters,
}

impl Default for Holdings {
    fn default() -> Self {
        Self { proving: Counters::new(MOST_PROVING, true), other: Counters::new(MOST_OTHER, false) }
    }
}

const MOST_PROVING: usize = 28_672;
const MOST_OTHER: usize = 14_336;

impl Holdings {
    pub(crate) fn add(
        &mut self,
        source: SourceScope,
        proof: Proof,
        is_dead: bool,
        is_answered: bool,
    ) {
        match proof {
            Proof::OfAddress => self.proving.add(source, !is_dead, true),
            Proof::None if is_dead && !is_answered => {}
            Proof::None => self.other.add(source, !is_dead, is_answered),
        }
    }

    /// What a source holds.
    pub fn of(&self, source: SourceScope) -> Entries {
        Entries { proving: self.proving.of(source), other: self.other.of(source) }
    }

    /// Sources that completed a handshake, even if only dead weight says so.
    pub fn proven(&self) -> impl Iterator<Item = SourceScope> {
        self.proving.counts.keys().copied()
    }

    /// Sources that somebody answered, and what they hold.
    pub(crate) fn answered(&self) -> impl Iterator<Item = (SourceScope, Proof, Entries)> {
        let other = self.other.counts.iter().filter(|(source, count)| {
            count.is_answered && !self.proving.counts.contains_key(source)
        });
        let proof = |proof| move |&source| (source, proof, self.of(source));
        let proven = self.proving.counts.keys().map(proof(Proof::OfAddress));
        proven.chain(other.map(|(source, _)| source).map(proof(Proof::None)))
    }

    /// The sources that hold most.
    pub fn top(&self, most: usize) -> Vec<(SourceScope, Entries)> {
        let alone = self.other.counts.keys().filter(|s| !self.proving.counts.contains_key(s));
        let mut all: Vec<_> =
            self.proving.counts.keys().chain(alone).map(|&s| (s, self.of(s))).collect();
        let most_first =
            |(source, entries): &(SourceScope, Entries)| (Reverse(entries.sum()), *source);
        all.sort_unstable_by_key(most_first);
        all.truncate(most);
        all
    }
}

/// Number of entries of one source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entries {
    /// Those that prove its address.
    pub proving: u32,
    /// All others, which may be spoofed.
    pub other: u32,
}

impl Entries {
    /// Both.
    pub const fn sum(self) -> u32 {
        self.proving.saturating_add(self.other)
    }

    pub(crate) const fn of(self, proof: Proof) -> u32 {
        match proof {
            Proof::OfAddress => self.proving,
            Proof::None => self.other,
        }
    }
}

/// Entries by source, for a bounded number of sources.
#[derive(Clone, Debug)]
struct Counters {
    counts: SourceMap<Count>,
    most: usize,
    /// Whether a network of many sources with few entries must not displace others.
    is_fair: bool,
    total: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    held: u32,
    is_answered: bool,
}

impl Counters {
    fn new(most: usize, is_fair: bool) -> Self {
        Self { counts: SourceMap::default(), most, is_fair, total: 0 }
    }

    fn add(&mut self, source: SourceScope, is_held: bool, is_answered: bool) {
        self.total += u64::from(is_held);
        if self.counts.len() >= self.most && !self.counts.contains_key(&source) {
            self.drop_half();
        }
        let count = self.counts.entry(source).or_default();
        count.held += u32::from(is_held);
        count.is_answered |= is_answered;
    }

    fn of(&self, source: SourceScope) -> u32 {
        self.counts.get(&source).map_or(0, |count| count.held)
    }

    /// Entries of sources that were dropped.
    fn unattributed(&self) -> u64 {
        self.total - self.counts.values().map(|count| u64::from(count.held)).sum::<u64>()
    }

    /// Drops the lowest counts.
    fn drop_half(&mut self) {
        let mut kept: Vec<_> = self.counts.drain().collect();
        let half = kept.len() / 2;
        if self.is_fair {
            networks::cut(&mut kept, half, |&(source, _)| source, |(_, count)| count.held);
        } else {
            kept.select_nth_unstable_by_key(half, |(_, count)| Reverse(count.held));
            kept.truncate(half);
        }
        self.counts.extend(kept);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::testing::Random;

    pub(super) fn hold(holdings: &mut Holdings, source: u32, proof: Proof, count: u32) {
        for _ in 0..count {
            holdings.add(SourceScope::V4(source), proof, false, false);
        }
    }

    /// Against exact counts: 200,000 entries of a few heavy sources among very many light ones.
    #[test]
    fn a_count_is_never_too_high_and_the_heavy_are_found() {
        let mut random = Random::new(11);
        let [mut holdings, mut exact] = [(); 2].map(|()| HashMap::<SourceScope, u32>::new());
        for proof in [Proof::OfAddress, Proof::None] {
            let mut counted = Holdings::default();
            exact.clear();
            for _ in 0..200_000 {
                let source = match random.below(20) {
                    0 => random.below(100),
                    _ => 1000 + random.below(1 << 30),
                };
                let source = SourceScope::V4(source << 8);
                *exact.entry(source).or_default() += 1;
                counted.add(source, proof, false, false);
            }
            holdings.clear();
            for (&source, &count) in &exact {
                let found = counted.of(source).of(proof);
                assert!(found <= count, "{source}: {found} of {count}");
                holdings.insert(source, found);
            }
            for heavy in 0..100 {
                let source = SourceScope::V4(heavy << 8);
                assert!(holdings[&source] + 10 > exact[&source], "{source}");
            }
            let counters = if proof == Proof::None { &counted.other } else { &counted.proving };
            assert!(counters.counts.len() <= counters.most);
            let known = holdings.values().map(|&held| u64::from(held)).sum::<u64>();
            assert_eq!(counters.unattributed(), 200_000 - known);
        }
    }

    #[test]
    fn one_network_of_many_sources_does_not_displace_those_of_others() {
        let mut holdings = Holdings::default();
        for host in 0..100 {
            hold(&mut holdings, host << 8, Proof::OfAddress, 1);
        }
        for subnet in 0..65_536 {
            let bot = SourceScope::V6(0x2001_0db8_0000_0000 | subnet);
            (0..3).for_each(|_| holdings.add(bot, Proof::OfAddress, false, true));
        }
        assert!((0..100).all(|host| holdings.of(SourceScope::V4(host << 8)).proving == 1));
    }

    #[test]
    fn dead_weight_proves_its_source_and_counts_for_nobody() {
        let mut holdings = Holdings::default();
        let [finished, asked, silent] = [1, 2, 3].map(SourceScope::V4);
        holdings.add(finished, Proof::OfAddress, true, true);
        holdings.add(asked, Proof::None, true, true);
        holdings.add(silent, Proof::None, true, false);
        assert_eq!(holdings.proven().collect::<Vec<_>>(), [finished]);
        assert!(holdings.top(9).iter().all(|(_, entries)| entries.sum() == 0));
        let mut answered: Vec<_> =
            holdings.answered().map(|(source, proof, _)| (source, proof)).collect();
        answered.sort_unstable_by_key(|&(source, _)| source);
        assert_eq!(answered, [(finished, Proof::OfAddress), (asked, Proof::None)]);
    }

    #[test]
    fn the_top_are_those_that_hold_most() {
        let mut holdings = Holdings::default();
        for source in 0..50 {
            hold(&mut holdings, source, Proof::OfAddress, source);
            hold(&mut holdings, source, Proof::None, 1);
        }
        let top = holdings.top(2);
        let expected = [49, 48].map(|n| (SourceScope::V4(n), Entries { proving: n, other: 1 }));
        assert_eq!(top, expected);
    }
}
