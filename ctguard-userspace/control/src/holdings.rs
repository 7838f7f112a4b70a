//! Who holds how much of the table, in bounded memory, and what part each source may have.

use std::collections::HashMap;

use super::{networks, sources::SourceScope, tuning::TUNING};

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
        Self { proving: Counters::new(MOST_PROVING), other: Counters::new(MOST_OTHER) }
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
        let most_first = |(source, entries): &(SourceScope, Entries)| {
            (std::cmp::Reverse(entries.sum()), *source)
        };
        all.sort_unstable_by_key(most_first);
        all.truncate(most);
        all
    }

    /// The part of each source, if all entries together may be `room`.
    ///
    /// Entries that prove an address and those that prove nothing share the room: each may use what
    /// the other leaves, and half of it always. So spoofed packets do not reduce the part of sources
    /// that completed handshakes to less than half.
    pub(crate) fn parts(&self, usual: impl Fn(SourceScope) -> Entries, room: u64) -> Parts {
        let (proving, other) = (self.proving.total, self.other.total);
        let left = |by: u64| room.saturating_sub(by).max(room / 2);
        let part = |counters: &Counters, room: u64, usual: &dyn Fn(SourceScope) -> u32| {
            let of = counters.counts.iter().map(|(&source, count)| (count.held, usual(source)));
            let (of, unknown) = (of.collect::<Vec<_>>(), counters.unattributed());
            part(&of, room.saturating_sub(unknown)).map(|part| part.max(TUNING.least_part))
        };
        if proving + other <= room {
            return Parts::default();
        }
        Parts {
            proving: part(&self.proving, left(other), &|source| usual(source).proving),
            other: part(&self.other, left(proving), &|source| usual(source).other),
        }
    }

    /// What sources hold above their parts.
    pub(crate) fn above(
        &self,
        parts: Parts,
        usual: impl Fn(SourceScope) -> Entries,
    ) -> HashMap<SourceScope, Excess> {
        let mut above = HashMap::<_, Excess>::new();
        for (&source, count) in &self.proving.counts {
            let most = parts.proving.map_or(u32::MAX, |part| part.max(usual(source).proving));
            if count.held > most {
                above.entry(source).or_default().proving = count.held - most;
            }
        }
        for (&source, count) in &self.other.counts {
            let most = parts.other.map_or(u32::MAX, |part| part.max(usual(source).other));
            if count.held > most {
                above.entry(source).or_default().other = count.held - most;
            }
        }
        above
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

/// Entries above the part.
pub type Excess = Entries;

/// The most that each source may hold; `None` if all fits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// Of entries that prove its address.
    pub proving: Option<u32>,
    /// Of others.
    pub other: Option<u32>,
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
    counts: HashMap<SourceScope, Count>,
    most: usize,
    total: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    held: u32,
    is_answered: bool,
}

impl Counters {
    fn new(most: usize) -> Self {
        Self { counts: HashMap::new(), most, total: 0 }
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

    /// Keeps the highest counts of each network, the same number of each at most.
    fn drop_half(&mut self) {
        let counts: Vec<_> = self.counts.drain().collect();
        let kept =
            networks::cut(counts, self.most / 2, |&(source, _)| source, |(_, count)| count.held);
        self.counts.extend(kept);
    }
}
