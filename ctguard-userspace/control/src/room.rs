//! The room in the table, for each tier.

use super::tiers::{Precedence as _, Tier};
use crate::tuning::TUNING;
use ctguard_units::{TableSample, real, real_difference, whole};

/// The table, with the flows that are in flight to it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    table: TableSample,
    /// The highest fill to which the tiers may bring the table.
    limit: u64,
    target: u64,
    /// Entries, admissions that may not be entries yet, and room for flows that others open.
    taken: u64,
    /// Room that lower tiers leave to known sources.
    kept: u64,
    /// Entries that can be deleted at once.
    reclaimable: u64,
    /// Further entries that the kernel would replace. They make little room for strangers.
    replaceable: u64,
}

impl Room {
    /// `table` has a maximum.
    pub(crate) fn of(table: TableSample, target_ppm: u32, taken: u64) -> Self {
        let target = table.target(target_ppm);
        Self { table, limit: target, target, taken, kept: 0, reclaimable: 0, replaceable: 0 }
    }

    /// The same with room that is kept for known sources, at most a part of the maximum.
    pub(crate) fn keeping(self, kept: f64) -> Self {
        Self { kept: whole(kept).min(self.table.part(TUNING.kept_most_ppm)), ..self }
    }

    /// The same where entries can be deleted.
    pub(crate) const fn with_reclaimable(self, reclaimable: u64, replaceable: u64) -> Self {
        Self { reclaimable, replaceable, ..self }
    }

    /// The same for a target that is out of reach: known sources go on to the maximum, and all others
    /// stop below it.
    pub(crate) fn up_to_the_brim(self) -> Self {
        let limit = self.table.max + self.table.part(Tier::Proven.stops_below_limit_ppm());
        Self { limit, ..self }
    }

    /// The same up to the maximum, and so far beyond it that the kernel replaces entries which are
    /// not ASSURED (`early_drop`).
    pub(crate) const fn beyond_target(self) -> Self {
        let limit = self.table.max + self.table.max / TUNING.replaced_divisor;
        Self { limit, kept: 0, ..self }
    }

    pub(crate) const fn max(&self) -> u64 {
        self.table.max
    }

    /// Whether the table is above its target.
    pub(crate) const fn is_above_target(&self) -> bool {
        self.table.entries > self.target
    }

    /// Whether entries that cannot be deleted leave less to *earlier* sources than this many times the
    /// least room.
    pub(crate) fn is_out_of_reach(&self, firm: u64, times: u64) -> bool {
        let stop = self.table.part(Tier::Earlier.stops_below_limit_ppm());
        firm + stop + times * self.least() > self.target
    }

    /// Whether less than this many times the least room is there or can be made.
    pub(crate) fn is_short(&self, times: u64) -> bool {
        let most = self.limit + self.reclaimable + self.replaceable;
        self.taken + times * self.least() > most
    }

    /// Less room than this is none.
    fn least(&self) -> u64 {
        self.table.part(TUNING.least_headroom_ppm)
    }

    /// Entries in proportion to the maximum.
    pub(crate) fn fill(&self) -> f64 {
        self.table.fill()
    }

    /// New flows that all tiers but the allowed may open at once.
    pub(crate) const fn headroom(&self) -> u64 {
        self.limit.saturating_sub(self.taken)
    }

    /// New flows of `tier` for which there is room or can be made; negative beyond that.
    pub(crate) fn available(&self, tier: Tier) -> f64 {
        let replaceable = match tier {
            Tier::AbovePart => 0,
            Tier::Strangers => {
                self.replaceable.min(self.table.max / TUNING.replaced_by_strangers_divisor)
            }
            Tier::Allowed
            | Tier::Regulars
            | Tier::Earlier
            | Tier::Proven
            | Tier::Answered
            | Tier::Retried => self.replaceable,
        };
        real_difference(self.stop(tier), self.taken) + real(self.reclaimable + replaceable)
    }

    /// New flows that `tier` may open at once.
    pub(crate) fn left(&self, tier: Tier) -> u64 {
        self.stop(tier).saturating_sub(self.taken)
    }

    /// Entries to delete now, so that there is room for every tier; fewer if that takes entries that
    /// only the kernel would replace.
    pub(crate) fn deletions(&self) -> u64 {
        let full = self.limit.min(self.table.max);
        let missing = |reserve: u64| (self.taken + reserve).saturating_sub(full);
        let reclaimed =
            missing(self.table.part(TUNING.reserve_ppm) + self.kept).min(self.reclaimable);
        let in_need = missing(self.table.part(TUNING.reserve_in_need_ppm) + self.kept)
            .saturating_sub(reclaimed);
        let most = if self.is_above_target() {
            TUNING.most_deleted_above_target
        } else {
            TUNING.most_deleted
        };
        (reclaimed + in_need.min(self.replaceable)).min(most)
    }

    /// New flows for allowed sources, which go on into a quarter of the space above the target, and
    /// never take more than that quarter at a time.
    pub(crate) fn allowed(&self) -> u64 {
        let most = self.limit.max(self.target + self.spare());
        most.saturating_sub(self.taken).min(self.spare())
    }

    /// A quarter of the space above the target.
    pub(crate) const fn spare(&self) -> u64 {
        (self.table.max - self.target) / 4
    }

    fn stop(&self, tier: Tier) -> u64 {
        let kept = if tier.is_known() { 0 } else { self.kept };
        self.limit.saturating_sub(self.table.part(tier.stops_below_limit_ppm()) + kept)
    }
}

/// Room that lies ready for a tier: `part` of the headroom, or more if the headroom
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
        let left = |room: Room| Tier::SERVED.map(|tier| room.left(tier));
        assert_eq!(left(room(830)), [20, 15, 10, 0, 0, 0, 0]);
        assert_eq!(left(room(800)), [50, 45, 40, 30, 20, 20, 10]);
        assert_eq!(left(room(800).keeping(15.0)), [50, 45, 40, 15, 5, 5, 0]);
        assert_eq!(left(room(800).keeping(1e9)), [50, 45, 40, 0, 0, 0, 0]);
    }

    #[test]
    fn what_can_be_deleted_is_room_but_what_the_kernel_would_replace_is_little_for_strangers() {
        let room = room(830).with_reclaimable(50, 70);
        assert_eq!(room.available(Tier::Strangers), 55.0);
        assert_eq!(room.available(Tier::Answered), 120.0);
    }

    #[test]
    fn entries_are_deleted_until_there_is_room_for_every_tier() {
        let deletions = |taken, reclaimable, replaceable| {
            room(taken).with_reclaimable(reclaimable, replaceable).deletions()
        };
        assert_eq!([0, 800, 801, 900].map(|taken| deletions(taken, 500, 500)), [0, 0, 1, 100]);
        assert_eq!(deletions(840, 3, 0), 3);
        assert_eq!(deletions(840, 3, 500), 25, "fewer");
        assert_eq!(deletions(840, 30, 500), 30);
        assert_eq!(deletions(9000, 9000, 0), TUNING.most_deleted_above_target);
        assert_eq!(room(801).keeping(10.0).with_reclaimable(500, 0).deletions(), 11);
    }

    #[test]
    fn beyond_the_target_the_kernel_makes_the_room() {
        let full = room(1000);
        assert_eq!((full.headroom(), full.beyond_target().headroom()), (0, 1000 / 16));
        assert!(full.is_above_target() && !room(850).is_above_target());
    }

    #[test]
    fn a_target_that_is_out_of_reach_gives_way_to_the_maximum() {
        let reached = |firm, times| !room(firm).is_out_of_reach(firm, times);
        assert!(reached(843, 1) && !reached(844, 1), "{:?}", room(849).least());
        assert!(reached(805, 20) && !reached(806, 20));
        let brim = room(900).up_to_the_brim();
        assert_eq!(Tier::SERVED.map(|tier| brim.left(tier)), [110, 105, 100, 90, 80, 80, 70]);
        assert!(!brim.is_short(1) && room(900).is_short(1));
        assert_eq!(brim.with_reclaimable(500, 0).deletions(), 0);
        assert_eq!(brim.allowed(), 37);
    }

    #[test]
    fn allowed_sources_never_get_more_than_a_quarter_of_the_space_above_the_target() {
        let allowed = [0, 850, 880, 1000].map(|taken| room(taken).allowed());
        assert_eq!(allowed, [37, 37, 7, 0]);
    }

    #[test]
    fn the_last_of_the_headroom_is_not_kept_back() {
        let stocks = [0, 1, 10, 20, 1000].map(|headroom| stock(headroom, 0.3));
        assert_eq!(stocks, [0, 1, 6, 12, 300]);
    }

    fn room(taken: u64) -> Room {
        Room::of(TableSample { entries: taken, max: 1000 }, 850_000, taken)
    }
}
