//! A source's two cells in one cache line: the lower counts (a conservative count-min sketch).
//!
//! No cell is ever inserted, evicted or locked. Two sources that share both cells are limited
//! together, so a collision can only make a limit stricter. `covered_victims` computes its chance.

use super::gcra;
use crate::{
    layout::{BucketLine, Ceiling},
    shared::Shared,
    units::Ticks,
};

/// The line of a source whose hash is `hash`.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the mask keeps less than 32 bits")]
pub const fn line_index(hash: u64, line_mask: u32) -> u32 {
    hash as u32 & line_mask
}

/// The two cells of one source, or the one that it has for itself.
pub(crate) struct Cells<'l> {
    one: &'l Shared,
    other: &'l Shared,
    arrival: Ticks,
}

impl<'l> Cells<'l> {
    /// Reads the two cells of `hash` in its line.
    #[inline(always)]
    pub(crate) fn peek(line: &'l BucketLine, hash: u64) -> Self {
        let (first, second) = positions(hash);
        let (one, other) = (&line.arrivals[first], &line.arrivals[second]);
        let (first, second) = (one.load(), other.load());
        let arrival = first.wrapping_add(second).wrapping_sub(gcra::later(first, second));
        Self { one, other, arrival: Ticks(arrival) }
    }

    /// Reads a cell that one source has for itself.
    #[inline(always)]
    pub(crate) fn exact(cell: &'l Shared) -> Self {
        Self { one: cell, other: cell, arrival: Ticks(cell.load()) }
    }

    /// −1 if the source may open no flow now, else 0.
    #[inline(always)]
    pub(crate) fn excess(&self, now: Ticks, ceiling: &Ceiling) -> i64 {
        gcra::excess(self.arrival, now, ceiling)
    }

    /// Charges one flow: raises both cells to the next arrival of the lower one.
    ///
    /// If two CPUs charge the same source in the same nanoseconds, its cells may count one flow for
    /// two; the grant counts both.
    #[inline(always)]
    pub(crate) fn charge(&self, now: Ticks, ceiling: &Ceiling) {
        let Ticks(arrival) = gcra::charged(self.arrival, now, ceiling);
        self.one.store(gcra::later(self.one.load(), arrival));
        self.other.store(gcra::later(self.other.load(), arrival));
    }
}

/// Two places in a line that always differ.
#[inline(always)]
const fn positions(hash: u64) -> (usize, usize) {
    let first = (hash >> 32) as usize & (BucketLine::CELLS - 1);
    // One of the seven others.
    let step = 1 + (((hash >> 40 & 0xffff) * 7) >> 16) as usize;
    (first, (first + step) & (BucketLine::CELLS - 1))
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use super::*;
    use crate::{hash, hash::testing::KEY, layout::Class};

    const CEILING: Ceiling = Ceiling { interval: Ticks(1000), tolerance: Ticks(9000) };
    const NOW: Ticks = Ticks(1_000_000);

    #[test]
    fn the_two_cells_differ_for_every_hash() {
        for high in 0..=u32::MAX >> 8 {
            let (first, second) = positions(u64::from(high) << 32);
            assert_ne!(first, second);
        }
    }

    #[test]
    fn a_cell_is_never_lowered() {
        let line = BucketLine::default();
        for cell in &line.arrivals {
            cell.store(5_000_000);
        }
        line.arrivals[0].store(0);
        for hash in 0..64_u64 {
            Cells::peek(&line, hash << 32).charge(NOW, &CEILING);
        }
        for cell in &line.arrivals[1..] {
            assert!(cell.load() >= 5_000_000);
        }
    }

    #[test]
    fn an_exact_cell_is_charged_once_for_each_flow() {
        let cell = Shared::new(0);
        for _ in 0..3 {
            Cells::exact(&cell).charge(NOW, &CEILING);
        }
        assert_eq!(cell.load(), NOW.0 + 3 * CEILING.interval.0);
    }

    #[test]
    fn a_source_gets_its_burst_from_an_empty_line() {
        let line = BucketLine::default();
        let admitted = (0..50)
            .filter(|_| {
                let cells = Cells::peek(&line, 0x1234_5678_9abc_def0);
                let conforms = cells.excess(NOW, &CEILING) == 0;
                if conforms {
                    cells.charge(NOW, &CEILING);
                }
                conforms
            })
            .count();
        assert_eq!(admitted, 10);
    }

    /// Chance that `heavy` sources that stay at their ceiling cover both cells of another source.
    ///
    /// A line has Poisson(heavy / lines) of them, and each takes one pair of the 28 in a line.
    fn covered_victims(heavy: f64, lines: f64) -> f64 {
        let mean = heavy / lines;
        let mut covered = 0.0;
        let mut chance = (-mean).exp();
        for sources in 1..20 {
            chance *= mean / f64::from(sources);
            // Both of the victim's cells are hit: inclusion and exclusion over a cell left free.
            let one_free = (6.0_f64 / 8.0).powi(sources);
            let both_free = (15.0_f64 / 28.0).powi(sources);
            covered += chance * (1.0 - 2.0 * one_free + both_free);
        }
        covered
    }

    #[test]
    fn a_thousand_heavy_sources_cover_no_more_victims_than_the_bound_says() {
        const LINES: u32 = 16_384;
        const HEAVY: u32 = 1000;
        const VICTIMS: u32 = 200_000;
        let lines: Vec<BucketLine> = (0..LINES).map(|_| BucketLine::default()).collect();
        let cells = |address: u32| {
            let hash = hash::source(&KEY, Class::Tcp as u32, 4, address.into());
            Cells::peek(&lines[line_index(hash, LINES - 1) as usize], hash)
        };
        for heavy in 0..HEAVY {
            let address = 0x0b00_0000 + heavy;
            while cells(address).excess(NOW, &CEILING) == 0 {
                cells(address).charge(NOW, &CEILING);
            }
        }
        let refused: u32 = (0..VICTIMS)
            .map(|victim| u32::from(cells(0x4000_0000 + victim).excess(NOW, &CEILING) != 0))
            .sum();
        let measured = f64::from(refused) / f64::from(VICTIMS);
        let bound = covered_victims(f64::from(HEAVY), f64::from(LINES));
        assert!(bound < 0.004, "the bound itself: {bound}");
        assert!(measured < bound * 1.3, "measured {measured}, bound {bound}");
    }
}
