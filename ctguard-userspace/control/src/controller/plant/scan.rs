//! What the daemon's scan finds.

use super::{Group, Plant, Tier};
use crate::load::OfferedLoad;
use ctguard_units::real;

impl Plant {
    /// What each source offered, averaged over a second, and as much of it as there is at first.
    pub(super) fn scan(&mut self) -> Vec<OfferedLoad> {
        self.scans += 1;
        let elapsed = real(self.now - self.scanned.unwrap_or(self.baseline)).max(1.0) / 1000.0;
        let age = (real(self.now - self.baseline) / 1000.0).clamp(elapsed, elapsed.max(1.0));
        self.scanned = Some(self.now);
        let mut loads = Vec::new();
        let above = self.above_part.iter();
        for ((group, sender), above) in self.groups.iter().zip(&mut self.senders).zip(above) {
            let Group { class, rate, .. } = *group;
            let tier = if *above { Tier::AbovePart } else { group.tier };
            let on = (group.from..group.until).contains(&self.now);
            if group.sources == 0 && group.is_guarded && on {
                // Lines of buckets, as many as the loader might make.
                let lines = (self.max / 16).clamp(256, 65_536);
                let flows_per_second = rate / real(lines);
                let load = OfferedLoad { class, tier, flows_per_second, is_seen_once: false };
                loads.extend((0..lines).map(|_| load));
            }
            for (seen, average) in sender.seen.iter_mut().zip(&mut sender.average) {
                for (kind, tier) in [tier, Tier::Answered].into_iter().enumerate() {
                    let rate = real(std::mem::take(&mut seen[kind])) / elapsed;
                    average[kind] += (rate - average[kind]) * elapsed / age;
                    if average[kind] > 0.01 {
                        loads.push(OfferedLoad {
                            class,
                            tier,
                            flows_per_second: average[kind],
                            is_seen_once: false,
                        });
                    }
                }
            }
        }
        loads
    }
}
