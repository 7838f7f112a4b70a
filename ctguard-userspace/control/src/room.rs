//! The room below the target, for each tier.

use super::tiers::{Precedence as _, Tier};
use crate::tuning::TUNING;
use ctguard_units::{TableSample, real, real_difference, whole};

/// The table, with the flows that are in flight to it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    table: TableSample,
    target: u64,
    /// Entries, and admissions that may not be entries yet.
    taken: u64,
    /// Room for flows that others open.
    reserve: u64,
}

impl Room {
    /// `table` has a maximum.
    pub(crate) fn of(table: TableSample, target_ppm: u32, in_flight: u64, reserve: u64) -> Self {
        let taken = table.entries.saturating_add(in_flight);
        Self { table, target: table.target(target_ppm), taken, reserve }
    }

    pub(crate) const fn max(&self) -> u64 {
        self.table.max
    }

    pub(crate) const fn target(&self) -> u64 {
        self.target
    }

    /// Entries above the target.
    pub(crate) const fn excess(&self) -> u64 {
        self.table.entries.saturating_sub(self.target)
    }

    /// Entries that may be replaced from one tick to the next while the table is full.
    pub(crate) const fn replaceable(&self) -> u64 {
        self.table.max / TUNING.full_divisor
    }

    /// Whether the kernel must drop an entry for each new one. A table far above its maximum is not
    /// full: the maximum was lowered.
    pub(crate) const fn is_full(&self) -> bool {
        self.table.entries.abs_diff(self.table.max) <= self.replaceable()
    }

    /// Entries in proportion to the target.
    pub(crate) fn fill_of_target(&self) -> f64 {
        real(self.table.entries) / real(self.target.max(1))
    }

    /// Entries in proportion to the maximum.
    pub(crate) fn fill(&self) -> f64 {
        self.table.fill()
    }

    /// The same table after a reclaim down to this part of its target.
    pub(crate) fn reclaimed(self, fill_of_target: f64) -> Self {
        Self { taken: self.taken.min(whole(real(self.target) * fill_of_target)), ..self }
    }

    /// New flows that all tiers but the allowed may open together.
    pub(crate) const fn headroom(&self) -> u64 {
        self.target.saturating_sub(self.taken.saturating_add(self.reserve))
    }

    /// New flows below the crest, while the table is above its target, less those for `allowed`
    /// sources.
    pub(crate) const fn below_crest(&self, crest: u64, allowed: u64) -> u64 {
        crest.saturating_sub(self.taken.saturating_add(allowed))
    }

    /// Entries up to where `tier` must stop; negative beyond that.
    pub(crate) fn distance(&self, tier: Tier) -> f64 {
        real_difference(self.stop(tier), self.taken.saturating_add(self.reserve))
    }

    /// Entries up to where `tier` must stop; 0 beyond that.
    pub(crate) fn left(&self, tier: Tier) -> u64 {
        self.stop(tier).saturating_sub(self.taken.saturating_add(self.reserve))
    }

    /// New flows for allowed sources, which go on into a quarter of the space above the target, and
    /// never take more than that quarter at a time.
    pub(crate) fn allowed(&self) -> u64 {
        (self.target + self.spare()).saturating_sub(self.taken).min(self.spare())
    }

    /// A quarter of the space above the target.
    pub(crate) const fn spare(&self) -> u64 {
        (self.table.max - self.target) / 4
    }

    fn stop(&self, tier: Tier) -> u64 {
        self.target.saturating_sub(self.table.part(tier.stops_below_target_ppm()))
    }
}

/// Room that lies ready for a tier that is not paced: `part` of the headroom, or more if the headroom
/// is small.
pub(crate) fn stock(headroom: u64, part: f64) -> u64 {
    let nearly_all = whole((2.0 * part * real(headroom)).ceil());
    whole(part * real(headroom)).max(nearly_all.min(TUNING.smallest_stock))
}

#[expect(clippy::float_cmp, reason = "these numbers come out exactly")]
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_tier_stops_so_far_below_the_target_that_those_above_find_room() {
        let room = room(800, 0, 0);
        let left = Tier::SERVED.map(|tier| room.left(tier));
        assert_eq!(left, [50, 40, 30, 10, 0, 0, 0]);
        assert_eq!(room.distance(Tier::Strangers), -10.0);
    }

    #[test]
    fn what_is_in_flight_and_what_is_kept_for_others_is_no_headroom() {
        assert_eq!(room(100, 50, 200).headroom(), 500);
    }

    #[test]
    fn allowed_sources_never_get_more_than_a_quarter_of_the_space_above_the_target() {
        let allowed = [0, 850, 880, 1000].map(|entries| room(entries, 0, 200).allowed());
        assert_eq!(allowed, [37, 37, 7, 0]);
    }

    #[test]
    fn below_a_crest_there_is_what_left_since() {
        assert_eq!(room(900, 2, 0).below_crest(920, 8), 10);
        assert_eq!(room(920, 0, 0).below_crest(920, 0), 0);
    }

    #[test]
    fn a_table_is_full_when_less_than_a_64th_of_it_is_free() {
        assert!(room(1000, 0, 0).is_full() && room(985, 0, 0).is_full());
        assert!(!room(984, 100, 0).is_full() && !room(1100, 0, 0).is_full());
    }

    #[test]
    fn the_last_of_the_headroom_is_not_kept_back() {
        let stocks = [0, 1, 10, 20, 1000].map(|headroom| stock(headroom, 0.3));
        assert_eq!(stocks, [0, 1, 6, 12, 300]);
    }

    fn room(entries: u64, in_flight: u64, reserve: u64) -> Room {
        Room::of(TableSample { entries, max: 1000 }, 850_000, in_flight, reserve)
    }
}
