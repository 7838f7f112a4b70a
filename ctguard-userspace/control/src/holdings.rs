//! Who holds how much of the table, in bounded memory, and what part each source may have.

use std::{cmp::Reverse, collections::HashMap};

use super::{networks, source_map::SourceMap, sources::SourceScope, tuning::TUNING};

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

    /// The part of each source, if all entries together may be `room`.
    ///
    /// Entries that prove an address and those that prove nothing share the room: each may use what
    /// the other leaves, and half of it always. So spoofed packets do not reduce the part of sources
    /// that completed handshakes to less than half. In the same way these share their room between
    /// those that were there before and newcomers: a crowd of bots that hold one connection each
    /// reduces the parts of newcomers only.
    pub(crate) fn parts(&self, claim: impl Fn(SourceScope) -> Claim, room: u64) -> Parts {
        let (proving, other) = (self.proving.total, self.other.total);
        if proving + other <= room {
            return Parts::default();
        }
        let left = |room: u64, by: u64| room.saturating_sub(by).max(room / 2);
        let (mut before, mut new) = (Vec::new(), Vec::new());
        for (&source, count) in &self.proving.counts {
            let Claim { usual, came_before } = claim(source);
            let group = if came_before { &mut before } else { &mut new };
            group.push((count.held, usual.proving));
        }
        let held_before = before.iter().map(|&(held, _)| u64::from(held)).sum();
        let others = self.other.counts.iter();
        let others: Vec<_> =
            others.map(|(&source, count)| (count.held, claim(source).usual.other)).collect();
        let part = |sources: &[(u32, u32)], room: u64| {
            part(sources, room).map(|part| part.max(TUNING.least_part))
        };
        let room_of_proving = left(room, other);
        let unattributed = self.proving.unattributed();
        Parts {
            before: part(&before, left(room_of_proving, proving - held_before)),
            proving: part(&new, left(room_of_proving, held_before).saturating_sub(unattributed)),
            other: part(&others, left(room, proving).saturating_sub(self.other.unattributed())),
        }
    }

    /// What sources hold above their parts. Those that were `marked` are so until they hold an eighth
    /// less than their part: marks do not come and go with each look.
    pub(crate) fn above(
        &self,
        parts: Parts,
        claim: impl Fn(SourceScope) -> Claim,
        marked: &HashMap<SourceScope, Excess>,
    ) -> HashMap<SourceScope, Excess> {
        let mut above = HashMap::<SourceScope, Excess>::new();
        if parts == Parts::default() {
            return above;
        }
        let excess = |source, held: u32, proof| {
            let Claim { usual, came_before } = claim(source);
            let most = parts.of(proof, came_before)?.max(usual.of(proof));
            let is_marked = marked.get(&source).is_some_and(|excess| excess.of(proof) > 0);
            held.checked_sub(if is_marked { most - most / 8 } else { most })
                .filter(|&more| more > 0)
        };
        for (&source, count) in &self.proving.counts {
            if let Some(excess) = excess(source, count.held, Proof::OfAddress) {
                above.entry(source).or_default().proving = excess;
            }
        }
        for (&source, count) in &self.other.counts {
            if let Some(excess) = excess(source, count.held, Proof::None) {
                above.entry(source).or_default().other = excess;
            }
        }
        above
    }
}

/// What a source has because of its standing.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Claim {
    /// It may hold so much although others hold less.
    pub(crate) usual: Entries,
    /// It was there before the guard left calm.
    pub(crate) came_before: bool,
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

/// Entries above the part.
pub type Excess = Entries;

/// The most that each source may hold; `None` if all fits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// Of entries that prove its address, if it was there before.
    pub before: Option<u32>,
    /// Of entries that prove its address, if it is new.
    pub proving: Option<u32>,
    /// Of others.
    pub other: Option<u32>,
}

impl Parts {
    const fn of(self, proof: Proof, came_before: bool) -> Option<u32> {
        match proof {
            Proof::OfAddress if came_before => self.before,
            Proof::OfAddress => self.proving,
            Proof::None => self.other,
        }
    }
}

/// The largest p for which Σ min(held, max(p, usual)) fits into `room`; `None` if all fits.
///
/// Each source is (held, usual). 0 if not even what is usual fits.
fn part(sources: &[(u32, u32)], room: u64) -> Option<u32> {
    let fits = |part: u32| {
        let held = sources.iter().map(|&(held, usual)| u64::from(held.min(part.max(usual))));
        held.sum::<u64>() <= room
    };
    if fits(u32::MAX) {
        return None;
    }
    // The answer is in `low..high`.
    let (mut low, mut high) = (0, sources.iter().map(|&(held, _)| held).max()?);
    while high - low > 1 {
        let middle = low.midpoint(high);
        if fits(middle) { low = middle } else { high = middle }
    }
    Some(low)
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
    use super::*;
    use crate::testing::Random;

    fn hold(holdings: &mut Holdings, source: u32, proof: Proof, count: u32) {
        for _ in 0..count {
            holdings.add(SourceScope::V4(source), proof, false, false);
        }
    }

    const NEW: fn(SourceScope) -> Claim = |_| Claim::default();

    /// Raises the part by one entry at a time.
    #[test]
    fn the_part_is_the_largest_that_fits() {
        let mut random = Random::new(5);
        for _ in 0..2000 {
            let count = random.below(8);
            let sources: Vec<(u32, u32)> =
                (0..count).map(|_| (random.below(30), random.below(20))).collect();
            let room = u64::from(random.below(150));
            let fits = |part: u32| {
                sources
                    .iter()
                    .map(|&(held, usual)| u64::from(held.min(part.max(usual))))
                    .sum::<u64>()
                    <= room
            };
            let all = sources.iter().map(|&(held, _)| u64::from(held)).sum::<u64>();
            let largest = (0..40).take_while(|&part| fits(part)).last().unwrap_or(0);
            let expected = (all > room).then_some(largest);
            assert_eq!(part(&sources, room), expected, "{sources:?} {room}");
        }
    }

    #[test]
    fn who_holds_less_than_its_part_is_not_above_it_and_who_is_known_has_more() {
        let mut holdings = Holdings::default();
        for source in 0..10 {
            hold(&mut holdings, source, Proof::OfAddress, 6);
        }
        hold(&mut holdings, 100, Proof::OfAddress, 500);
        hold(&mut holdings, 101, Proof::OfAddress, 500);
        let office = |source| {
            let proving = if source == SourceScope::V4(101) { 600 } else { 0 };
            Claim { usual: Entries { proving, other: 0 }, came_before: false }
        };
        let parts = holdings.parts(office, 600);
        assert_eq!(parts, Parts { proving: Some(40), ..Parts::default() });
        let above = holdings.above(parts, office, &HashMap::new());
        assert_eq!(
            above,
            HashMap::from([(SourceScope::V4(100), Excess { proving: 460, other: 0 })])
        );
    }

    /// Fails when bots that hold one connection each put those above their part that hold a few, and
    /// were there before.
    #[test]
    fn a_crowd_of_newcomers_reduces_the_parts_of_newcomers_only() {
        let mut holdings = Holdings::default();
        for client in 0..30 {
            hold(&mut holdings, client, Proof::OfAddress, 10);
        }
        (100..1100).for_each(|bot| hold(&mut holdings, bot, Proof::OfAddress, 1));
        let claim =
            |source| Claim { came_before: source < SourceScope::V4(20), ..Claim::default() };
        let parts = holdings.parts(claim, 1000);
        let least = Some(TUNING.least_part);
        assert_eq!(parts, Parts { before: None, proving: least, other: None });
        let above = holdings.above(parts, claim, &HashMap::new());
        assert_eq!(above.len(), 10);
        assert!((20..30).all(|client| above[&SourceScope::V4(client)].proving == 6));
        // They have half of the room, and share it evenly.
        hold(&mut holdings, 0, Proof::OfAddress, 500);
        let parts = holdings.parts(claim, 1000);
        assert_eq!(parts.before, Some(310));
    }

    #[test]
    fn who_was_above_its_part_is_until_it_holds_an_eighth_less() {
        let above = |held, marked: &HashMap<SourceScope, Excess>| {
            let mut holdings = Holdings::default();
            for (proof, source) in [(Proof::OfAddress, 1), (Proof::None, 2)] {
                hold(&mut holdings, source, proof, held);
            }
            let parts = Parts { before: None, proving: Some(80), other: Some(80) };
            holdings.above(parts, NEW, marked)
        };
        assert!(above(80, &HashMap::new()).is_empty());
        let marks = above(81, &HashMap::new());
        let excess = [(1, 1, 0), (2, 0, 1)];
        assert_eq!(marks, excesses(excess));
        assert_eq!(above(80, &marks), excesses(excess.map(|(n, p, o)| (n, 10 * p, 10 * o))));
        assert!(above(70, &marks).is_empty());
    }

    fn excesses<const N: usize>(of: [(u32, u32, u32); N]) -> HashMap<SourceScope, Excess> {
        of.map(|(source, proving, other)| (SourceScope::V4(source), Excess { proving, other }))
            .into()
    }

    #[test]
    fn nobody_is_above_its_part_while_all_fits() {
        let mut holdings = Holdings::default();
        hold(&mut holdings, 1, Proof::OfAddress, 100);
        assert_eq!(holdings.parts(NEW, 100), Parts::default());
        assert_ne!(holdings.parts(NEW, 99), Parts::default());
    }

    /// Fails when somebody who sends in a victim's name puts it above its part, or reduces the part
    /// of sources that completed handshakes to less than their half.
    #[test]
    fn spoofed_packets_put_nobody_above_the_part_of_connections() {
        let mut holdings = Holdings::default();
        for client in 0..10 {
            hold(&mut holdings, client, Proof::OfAddress, 50);
        }
        let parts = holdings.parts(NEW, 1000);
        assert_eq!(parts, Parts::default());
        for spoofed in 0..2000 {
            hold(&mut holdings, 1000 + spoofed, Proof::None, 1);
        }
        hold(&mut holdings, 1, Proof::None, 5000);
        let parts = holdings.parts(NEW, 1000);
        assert_eq!(parts.proving, None);
        let above = holdings.above(parts, NEW, &HashMap::new());
        let victim = above[&SourceScope::V4(1)];
        assert_eq!((above.len(), victim.proving), (1, 0));
        assert!(victim.other > 4900);
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
