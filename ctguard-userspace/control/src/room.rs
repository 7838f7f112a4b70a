//! The room in the table, for each tier.

use super::tiers::{Precedence as _, Tier};
use crate::tuning::TUNING;
use ctguard_units::{TableSample, real, real_difference, whole};

/// The table, with the flows that are in flight to it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    table: TableSample,
    /// The highest fill to which sources within their part may bring the table …
    limit: u64,
    /// … and those above it.
    limit_above_part: u64,
    target: u64,
    /// Entries, and admissions that may not be entries yet.
    taken: u64,
    /// Room for flows that others open.
    others: u64,
    /// Room above what has stayed since calm, of which tiers leave parts to each other.
    above_stayed: u64,
    /// Room that lower tiers leave to known sources.
    kept: u64,
    /// Entries that can be deleted at once.
    reclaimable: u64,
    /// Further entries that the kernel would replace. They make little room for strangers.
    replaceable: u64,
}

impl Room {
    /// `table` has a maximum.
    pub(crate) fn of(table: TableSample, target_ppm: u32, taken: u64, others: u64) -> Self {
        let target = table.target(target_ppm);
        Self {
            table,
            limit: target,
            limit_above_part: target,
            target,
            taken,
            others,
            above_stayed: target,
            kept: 0,
            reclaimable: 0,
            replaceable: 0,
        }
    }

    /// The same with room that is kept for known sources, at most a part of the maximum.
    pub(crate) fn keeping(self, kept: f64) -> Self {
        Self { kept: whole(kept).min(self.table.part(TUNING.kept_most_ppm)), ..self }
    }

    /// The same where entries can be deleted.
    pub(crate) const fn with_reclaimable(self, reclaimable: u64, replaceable: u64) -> Self {
        Self { reclaimable, replaceable, ..self }
    }

    /// The same where so many entries cannot be deleted: above them some room remains for every tier.
    /// Above those that `stayed` since the guard was calm it ends at the maximum. Above others it ends
    /// just beyond the target, and sources above their part have none, or they would raise their own
    /// limit.
    pub(crate) fn above(self, firm: u64, stayed: u64) -> Self {
        let limit = |firm: u64, most: u64| {
            let least = firm + self.target / TUNING.above_firm_divisor;
            self.target.max(least.min(most))
        };
        let beyond = self.target + self.table.part(TUNING.beyond_target_ppm);
        let above_part = limit(stayed, self.table.max);
        let limit = above_part.max(limit(firm, beyond.min(self.table.max)));
        Self {
            limit,
            limit_above_part: above_part,
            above_stayed: limit.saturating_sub(stayed),
            ..self
        }
    }

    /// The same up to the maximum, and so far beyond it that the kernel replaces entries which are
    /// not ASSURED (`early_drop`).
    pub(crate) const fn beyond_target(self) -> Self {
        let limit = self.table.max + self.table.max / TUNING.replaced_divisor;
        Self { limit, limit_above_part: limit, above_stayed: limit, kept: 0, ..self }
    }

    pub(crate) const fn max(&self) -> u64 {
        self.table.max
    }

    /// Whether the table is above its target.
    pub(crate) const fn is_above_target(&self) -> bool {
        self.table.entries > self.target
    }

    /// Whether less than this many times the least room is there or can be made.
    pub(crate) fn is_short(&self, times: u64) -> bool {
        let most = self.limit + self.reclaimable + self.replaceable;
        self.taken() + times * self.table.part(TUNING.least_headroom_ppm) > most
    }

    /// Entries in proportion to the maximum.
    pub(crate) fn fill(&self) -> f64 {
        self.table.fill()
    }

    /// New flows that all tiers but the allowed may open at once.
    pub(crate) fn headroom(&self) -> u64 {
        self.limit.saturating_sub(self.taken())
    }

    /// Room that is taken or kept for others: where room is short, at most a part of what there is or
    /// can be made, or nobody else would find any.
    fn taken(&self) -> u64 {
        let free = self.limit.saturating_sub(self.taken);
        let most = (free + self.reclaimable + self.replaceable) / TUNING.others_most_divisor;
        self.taken + self.for_others().min(most)
    }

    /// Room for flows that others open which no deletion makes.
    pub(crate) const fn for_others(&self) -> u64 {
        self.others.saturating_sub(self.reclaimable + self.replaceable)
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
        real_difference(self.stop(tier), self.taken()) + real(self.reclaimable + replaceable)
    }

    /// New flows that `tier` may open at once.
    pub(crate) fn left(&self, tier: Tier) -> u64 {
        self.stop(tier).saturating_sub(self.taken())
    }

    /// Entries to delete now, so that there is room for every tier; fewer if that takes entries that
    /// only the kernel would replace.
    pub(crate) fn deletions(&self) -> u64 {
        let full = self.limit.min(self.table.max);
        let missing = |ppm| {
            let reserve = self.table.part(ppm).min(self.above_stayed / 2) + self.kept();
            (self.taken + self.others + reserve).saturating_sub(full)
        };
        let reclaimed = missing(TUNING.reserve_ppm).min(self.reclaimable);
        let in_need = missing(TUNING.reserve_in_need_ppm).saturating_sub(reclaimed);
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
        most.saturating_sub(self.taken()).min(self.spare())
    }

    /// A quarter of the space above the target.
    pub(crate) const fn spare(&self) -> u64 {
        (self.table.max - self.target) / 4
    }

    fn stop(&self, tier: Tier) -> u64 {
        let kept = if tier.is_known() { 0 } else { self.kept() };
        let limit = if tier == Tier::AbovePart { self.limit_above_part } else { self.limit };
        let ppm = tier.stops_below_limit_ppm();
        let most = self.above_stayed * u64::from(ppm) / TUNING.stops_of_little_room_ppm;
        limit.saturating_sub(self.table.part(ppm).min(most) + kept)
    }

    fn kept(&self) -> u64 {
        self.kept.min(self.above_stayed / 4)
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
        assert!(room(849).is_short(1) && !room(848).is_short(1) && room(848).is_short(2));
        assert!(!full.with_reclaimable(152, 0).is_short(1));
    }

    #[test]
    fn above_what_cannot_be_deleted_every_tier_finds_room() {
        let left = |firm| {
            let room = room(firm).keeping(15.0).above(firm, firm);
            Tier::SERVED.map(|tier| room.left(tier))
        };
        assert_eq!(left(700), [150, 145, 140, 115, 105, 105, 95]);
        assert_eq!(left(800), [141, 136, 131, 106, 96, 96, 86]);
        assert_eq!(left(850), left(800));
        assert_eq!(left(950), [50, 46, 42, 22, 13, 13, 5], "no tier passes the maximum");
        let young = room(880).above(800, 800).with_reclaimable(0, 50);
        assert_eq!(young.deletions(), 0, "not all that the kernel would replace");
    }

    /// Fails when what tiers leave to each other is more than all the room that there is, so that the
    /// lower ones are refused while the table has places.
    #[test]
    fn above_connections_that_nearly_fill_the_table_every_tier_finds_room() {
        let room = |taken| room(taken).keeping(30.0).above(960, 960);
        assert_eq!(Tier::SERVED.map(|tier| room(960).left(tier)), [40, 37, 34, 17, 10, 10, 4]);
        assert_eq!(room(980).with_reclaimable(0, 20).deletions(), 10, "half of it is free again");
        assert_eq!(room(970).with_reclaimable(0, 20).deletions(), 0);
    }

    /// Fails when room is kept for what others open beside entries of theirs that can be deleted.
    #[test]
    fn what_can_be_deleted_is_room_for_others_and_what_is_free_is_for_all() {
        let room = Room::of(TableSample { entries: 700, max: 1000 }, 850_000, 700, 100);
        assert_eq!(room.left(Tier::Strangers), 83);
        let room = room.with_reclaimable(10, 60);
        assert_eq!((room.left(Tier::Strangers), room.available(Tier::Strangers)), (90, 115.0));
        assert_eq!(room.keeping(15.0).deletions(), 10, "others find their room");
        let fuller = Room::of(TableSample { entries: 740, max: 1000 }, 850_000, 740, 100);
        assert_eq!(fuller.with_reclaimable(90, 0).deletions(), 40);
    }

    /// Fails when others, of whom no entry can be deleted, leave nothing to anybody else.
    #[test]
    fn where_room_is_short_others_keep_a_quarter_of_it() {
        let room = |taken| Room::of(TableSample { entries: taken, max: 1000 }, 850_000, taken, 100);
        let headroom = |room: Room| (room.headroom(), room.is_short(1));
        assert_eq!([400, 450, 650].map(|taken| room(taken).headroom()), [350, 300, 150]);
        assert_eq!(headroom(room(790)), (45, false));
        let full = room(960).above(960, 960);
        assert_eq!(headroom(full), (30, false));
        assert_eq!(headroom(full.with_reclaimable(20, 20)), (20, false), "20 of 80");
        assert_eq!(headroom(room(1000).above(1000, 1000)), (0, true));
    }

    #[test]
    fn who_is_above_its_part_does_not_raise_its_own_limit() {
        let room = room(810).above(810, 700);
        assert_eq!(Tier::SERVED.map(|tier| room.left(tier)), [60, 55, 50, 40, 30, 30, 0]);
        assert_eq!(room.with_reclaimable(500, 0).deletions(), 0);
        assert_eq!(room.allowed(), 37);
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
        Room::of(TableSample { entries: taken, max: 1000 }, 850_000, taken, 0)
    }
}
