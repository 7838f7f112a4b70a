//! The set of known sources: who is a regular or proven, exactly, and the cells that are theirs.
//!
//! A fixed array of lines of eight slots. A source may lie in one of two lines that its keyed hash
//! names, so a set that fills half the slots leaves nobody out. Only the daemon writes the set; the
//! data path reads one or two cache lines. Each slot has cells of its own, so that a known source
//! never shares a bucket with a stranger.
//!
//! A stranger passes for a known source where the high 62 bits of two hashes meet. Of addresses
//! chosen blindly the chance is 16 · 2^-62. Of addresses chosen to meet, but without the key, it is
//! at most 2 · 10^-7 with 16,384 sources known: the multilinear hash lets two scopes whose
//! difference ends in v zeros meet with 2^(v - 64), few scopes lie so that v is large, and the two
//! bits that give way to the tiers cost a factor of four.

mod slot;

pub use slot::Tiers;

use crate::{blur::Blur, hash::low_word, layout::CLASSES, shared::Shared};
use slot::Slot;

/// One cache line of the set; `slot` tells what the bits of a word mean.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct SourceSetLine {
    /// Known sources; zero is a free slot.
    pub slots: [Shared; Self::SLOTS],
}

impl SourceSetLine {
    /// Slots in a line.
    pub const SLOTS: usize = 8;
}

/// What counts for the source in the slot of the same number.
#[repr(C, align(32))]
#[derive(Debug, Default)]
pub struct KnownSourceCells {
    /// Theoretical arrival times by class, in ticks.
    pub arrivals: [Shared; CLASSES],
    /// New flows offered, all classes together.
    pub offered: Shared,
}

const _: () = assert!(size_of::<SourceSetLine>() == 64);
const _: () = assert!(size_of::<KnownSourceCells>() == 32);

/// Lines of the set.
pub const LINES: u32 = 4096;
/// Slots of the set, and [`KnownSourceCells`] beside it.
pub const SLOTS: u32 = LINES * SLOTS_IN_LINE;
/// Sources that the set takes: half the slots, so that two full lines do not occur.
pub const CAPACITY: u32 = SLOTS / 2;

#[expect(clippy::cast_possible_truncation, reason = "eight")]
const SLOTS_IN_LINE: u32 = SourceSetLine::SLOTS as u32;

/// Gives the lines of the set.
pub trait SourceSetLines {
    /// The line at `index`, if there is one.
    fn source_set_line(&self, index: u32) -> Option<&SourceSetLine>;
}

/// Gives the cells beside the set.
pub trait SourceCells {
    /// The cells of the slot at `index`, if there are any.
    fn source_cells(&self, index: u32) -> Option<&KnownSourceCells>;
}

/// Where a source lies in the set.
#[derive(Clone, Copy)]
pub struct Place {
    hash: u64,
    first: u32,
    second: u32,
    blur: Blur,
}

impl Place {
    /// The two lines that may hold the source of this hash (`hash::scope`), the number of lines
    /// being a power of two.
    #[inline(always)]
    #[must_use]
    pub const fn of(hash: u64, line_mask: u32, blur: Blur) -> Self {
        let first = low_word(hash) & line_mask;
        let second = first ^ (low_word(hash >> 40) | 1) & line_mask;
        Self { hash, first, second, blur }
    }
}

/// A known source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownSource {
    /// Its slot's number in the whole set, which finds its cells.
    pub slot: u32,
    /// What it is known as.
    pub tiers: Tiers,
}

/// Looks a source up.
#[inline(always)]
pub fn find<L: SourceSetLines>(lines: &L, place: Place) -> Option<KnownSource> {
    match find_in(lines.source_set_line(place.first)?, place.first, place) {
        Some(known) => Some(known),
        None => find_in(lines.source_set_line(place.second)?, place.second, place),
    }
}

#[inline(always)]
fn find_in(line: &SourceSetLine, index: u32, place: Place) -> Option<KnownSource> {
    for (cell, position) in line.slots.iter().zip(0..) {
        if Slot(cell.load()).is_of(place.hash) {
            // Read again where the paths have met, as in `flow::find_in`.
            let position = place.blur.hide(position) & (SLOTS_IN_LINE - 1);
            let tiers = Slot(line.slots[position as usize].load()).tiers();
            let known = KnownSource { slot: index * SLOTS_IN_LINE + position, tiers };
            // A source whose hash is that of a free slot stays a stranger.
            return if tiers.is_none() { None } else { Some(known) };
        }
    }
    None
}

/// What became of a source that was to be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Insertion {
    /// It has a slot of its own, with fresh cells.
    Inserted,
    /// It had one already, and its tiers are the new ones.
    Changed,
    /// Both its lines are full; somebody must give way.
    Full,
}

/// Makes a source known as `tiers`, or changes what it is known as. The daemon's alone.
pub fn insert<S: SourceSetLines + SourceCells>(set: &S, place: Place, tiers: Tiers) -> Insertion {
    let word = Slot::new(place.hash, tiers).0;
    if let Some(known) = find(set, place) {
        if let Some(cell) = slot_at(set, known.slot) {
            cell.store(word);
        }
        return Insertion::Changed;
    }
    let lines = [place.first, place.second].map(|index| free_slots(set, index));
    let [first, second] = lines;
    let emptier = if second.count > first.count { second } else { first };
    let Some(slot) = emptier.first else { return Insertion::Full };
    if let (Some(cells), Some(cell)) = (set.source_cells(slot), slot_at(set, slot)) {
        // A packet of the slot's last owner that is being judged may charge them once more.
        cells.arrivals.iter().for_each(|arrival| arrival.store(0));
        cells.offered.store(0);
        #[cfg(not(target_arch = "bpf"))]
        core::sync::atomic::fence(core::sync::atomic::Ordering::Release);
        cell.store(word);
        return Insertion::Inserted;
    }
    Insertion::Full
}

/// Makes a source a stranger again; whether it was known. The daemon's alone.
pub fn remove<S: SourceSetLines>(set: &S, place: Place) -> bool {
    let cell = find(set, place).and_then(|known| slot_at(set, known.slot));
    if let Some(cell) = cell {
        cell.store(0);
    }
    cell.is_some()
}

/// Free slots of a line.
#[derive(Clone, Copy)]
struct Free {
    count: usize,
    first: Option<u32>,
}

fn free_slots<L: SourceSetLines>(lines: &L, index: u32) -> Free {
    let Some(line) = lines.source_set_line(index) else { return Free { count: 0, first: None } };
    let mut free = (index * SLOTS_IN_LINE..)
        .zip(&line.slots)
        .filter(|(_, cell)| cell.load() == 0)
        .map(|(slot, _)| slot);
    let first = free.next();
    Free { count: free.count() + usize::from(first.is_some()), first }
}

fn slot_at<L: SourceSetLines>(lines: &L, slot: u32) -> Option<&Shared> {
    let line = lines.source_set_line(slot / SLOTS_IN_LINE)?;
    line.slots.get((slot % SLOTS_IN_LINE) as usize)
}

#[cfg(test)]
mod tests;
