//! Which strangers of the plant hold more than their part.

use super::Plant;
use crate::{standing::parts_room, tiers::Tier, tuning::TUNING};
use ctguard_units::TableSample;

impl Plant {
    /// The sources of a group hold evenly; all but strangers hold what they usually do.
    pub(super) fn find_parts(&mut self) {
        let table = TableSample { entries: self.entries, max: self.max };
        let all = parts_room(table, self.policy.target_ppm).all;
        let (mut room, mut strangers) = (all, Vec::new());
        for (index, (group, held)) in self.groups.iter().zip(&self.held).enumerate() {
            let alive = held.iter().filter(|(at, _)| self.now - at < group.reclaimable_after);
            let held: u64 = alive.map(|(_, entries)| entries).sum();
            if group.tier == Tier::Strangers && group.sources > 0 {
                strangers.push((index, u64::from(group.sources), held));
            } else {
                room = room.saturating_sub(held).max(all / 2);
            }
        }
        let fits = |part: &u64| {
            let held = strangers.iter().map(|&(_, sources, held)| held.min(sources * part));
            held.sum::<u64>() <= room
        };
        let most = strangers.iter().map(|(_, sources, held)| held.div_ceil(*sources)).max();
        let part = (0..=most.unwrap_or(0)).take_while(fits).last().unwrap_or(0);
        let part = part.max(TUNING.least_part.into());
        for (index, sources, held) in strangers {
            let above = &mut self.above_part[index];
            *above = held > sources * if *above { part - part / 8 } else { part };
        }
    }
}
