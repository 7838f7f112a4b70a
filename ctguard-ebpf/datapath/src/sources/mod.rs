//! The set of known sources, whose standing differs from a stranger's, and their own cells.
//!
//! A fixed array of lines of eight slots. A source may lie in one of two lines that its keyed hash
//! selects, so a set that fills half the slots leaves no source out. Only the daemon writes the
//! set; the data path reads one or two cache lines, and for nearly all strangers only a word of the
//! summary, a Bloom filter of the whole set. Each slot has its own cells, so a known source
//! never shares a bucket with a stranger.
//!
//! A stranger is taken for a known source if the high 59 bits of their hashes are equal. For random
//! addresses the chance is 16 · 2^-59. For addresses chosen to collide, but without the key, it is
//! at most 2 · 10^-6 with 16,384 known sources: two scopes whose difference ends in v zeros collide
//! in the multilinear hash with 2^(v - 64), few scopes have a large v, and the five bits of the
//! standing cost a factor of 32.

mod slot;

pub use slot::Tiers;

use crate::{
    hash::low_word,
    layout::{SourceCells, SourceLine, Tier},
    place::Place,
    shared::Shared,
    verifier::sign,
};
use slot::Slot;

/// Lines of the set.
pub const LINES: u32 = 4096;
/// Slots of the set, and number of [`SourceCells`].
pub const SLOTS: u32 = LINES * SLOTS_IN_LINE;
/// Lines with the summary of the set, which lies behind it.
pub const ALL_LINES: u32 = LINES + SUMMARY_WORDS / SLOTS_IN_LINE;
/// Words of the summary.
const SUMMARY_WORDS: u32 = 4096;
/// Most sources of the set: half the slots, so that no source finds both lines full.
pub const CAPACITY: u32 = SLOTS / 2;

#[expect(clippy::cast_possible_truncation, reason = "eight")]
const SLOTS_IN_LINE: u32 = SourceLine::SLOTS as u32;

/// Gives the set.
pub trait SourceSet {
    /// The line at `index`, if there is one.
    fn source_line(&self, index: u32) -> Option<&SourceLine>;
    /// The cells of the slot at `index`, if there are any.
    fn source_cells(&self, index: u32) -> Option<&SourceCells>;
}

/// A known source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownSource {
    /// Its slot's number in the whole set, which is that of its cells.
    pub(crate) slot: u32,
    /// Its tiers.
    pub tiers: Tiers,
}

/// Looks a source up.
#[inline(always)]
pub fn find<L: SourceSet>(lines: &L, place: Place) -> Option<KnownSource> {
    if !may_hold(lines, place.hash) {
        return None;
    }
    match find_in(lines.source_line(place.first)?, place.first, place) {
        Some(known) => Some(known),
        None => find_in(lines.source_line(place.second)?, place.second, place),
    }
}

/// Without a branch for each slot: the verifier would walk each path through the comparisons.
#[inline(always)]
fn find_in(line: &SourceLine, index: u32, place: Place) -> Option<KnownSource> {
    let mut found = -1_i64;
    for (cell, position) in line.slots.iter().zip(0..) {
        let slot = Slot(cell.load());
        let equals = sign(slot.difference(place.hash) - 1) & sign(-slot.tier_bits());
        found = found & !equals | position & equals;
    }
    let position = place.zero.hide(low_word(found.cast_unsigned())) & (SLOTS_IN_LINE - 1);
    let tiers = Slot(line.slots[position as usize].load()).tiers();
    if found < 0 {
        return None;
    }
    Some(KnownSource { slot: index * SLOTS_IN_LINE + position, tiers })
}

/// Whether the source of this hash may be known: false only if it is not. Under a flood nearly all
/// are not, and one word tells it.
#[inline(always)]
pub(crate) fn may_hold<L: SourceSet>(lines: &L, hash: u64) -> bool {
    let (line, position) = summary_place(hash);
    // Without a summary all may be known.
    let Some(line) = lines.source_line(line) else { return true };
    let bits = summary_bits(hash);
    line.slots[position as usize].load() & bits == bits
}

/// The line and the position in it of the summary's word for a hash, from bits that slots keep.
#[inline(always)]
const fn summary_place(hash: u64) -> (u32, u32) {
    let word = low_word(hash >> Tiers::BITS) & (SUMMARY_WORDS - 1);
    (LINES + word / SLOTS_IN_LINE, word % SLOTS_IN_LINE)
}

/// Two bits, so that of 16,384 known sources one stranger in fifty has the same.
#[inline(always)]
const fn summary_bits(hash: u64) -> u64 {
    1 << (hash >> 58) | 1 << (hash >> 52 & 63)
}

/// Takes out of the summary who is no longer in the set. Only the daemon may call this.
pub fn summarize<S: SourceSet>(set: &S) {
    // In parts that fit a stack.
    const PART: usize = 128;
    for first in (LINES..ALL_LINES).step_by(PART) {
        let mut words = [[0; SourceLine::SLOTS]; PART];
        for line in (0..LINES).filter_map(|line| set.source_line(line)) {
            let slots = line.slots.iter().map(|slot| Slot(slot.load()));
            for Slot(hash) in slots.filter(|slot| slot.tier_bits() != 0) {
                let (line, position) = summary_place(hash);
                if let Some(line) = words.get_mut(line.wrapping_sub(first) as usize) {
                    line[position as usize] |= summary_bits(hash);
                }
            }
        }
        for (line, words) in (first..).zip(&words) {
            if let Some(line) = set.source_line(line) {
                line.slots.iter().zip(words).for_each(|(slot, word)| slot.store(*word));
            }
        }
    }
}

/// The tier of the source in a word of the set; `None` if the slot is free.
pub const fn tier_of(word: u64) -> Option<Tier> {
    let slot = Slot(word);
    if slot.tier_bits() == 0 { None } else { Some(slot.tiers().tier()) }
}

/// The result of [`insert`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Insertion {
    /// The source has a slot with fresh cells.
    Inserted,
    /// It had a slot already, which has its new tiers.
    Changed,
    /// Both its lines are full.
    Full,
}

/// Makes a source known as `tiers`, or changes its tiers. Only the daemon may call this.
pub fn insert<S: SourceSet>(set: &S, place: Place, tiers: Tiers) -> Insertion {
    let word = Slot::new(place.hash, tiers).0;
    if let Some(known) = find(set, place) {
        if let Some(cell) = slot_at(set, known.slot) {
            cell.store(word);
        }
        return Insertion::Changed;
    }
    let (first, second) = (free_slots(set, place.first), free_slots(set, place.second));
    let mut emptier = if second.clone().count() > first.clone().count() { second } else { first };
    let Some(slot) = emptier.next() else { return Insertion::Full };
    if let (Some(cells), Some(cell)) = (set.source_cells(slot), slot_at(set, slot)) {
        // A packet of the slot's last source that is being judged may charge the cells once more.
        cells.arrivals.iter().for_each(|arrival| arrival.store(0));
        cells.offered.iter().for_each(|offered| offered.store(0));
        let (line, position) = summary_place(place.hash);
        if let Some(line) = set.source_line(line) {
            line.slots[position as usize].set_bits(summary_bits(place.hash));
        }
        #[cfg(not(target_arch = "bpf"))]
        core::sync::atomic::fence(core::sync::atomic::Ordering::Release);
        cell.store(word);
        return Insertion::Inserted;
    }
    Insertion::Full
}

/// Makes a source a stranger again; whether it was known. Only the daemon may call this.
pub fn remove<S: SourceSet>(set: &S, place: Place) -> bool {
    let cell = find(set, place).and_then(|known| slot_at(set, known.slot));
    if let Some(cell) = cell {
        cell.store(0);
    }
    cell.is_some()
}

fn free_slots<S: SourceSet>(set: &S, index: u32) -> impl Iterator<Item = u32> + Clone {
    let slots = set.source_line(index).map_or(&[][..], |line| &line.slots[..]);
    (index * SLOTS_IN_LINE..).zip(slots).filter(|(_, cell)| cell.load() == 0).map(|(slot, _)| slot)
}

fn slot_at<L: SourceSet>(lines: &L, slot: u32) -> Option<&Shared> {
    let line = lines.source_line(slot / SLOTS_IN_LINE)?;
    line.slots.get((slot % SLOTS_IN_LINE) as usize)
}

#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
