//! How many new flows each tier may open until the next tick.

use std::time::Duration;

use super::{
    super::{
        decision::{Snapshot, TierGrant},
        headroom::fit,
        room::{Room, stock},
        tiers::{Precedence as _, TIERS, Tier},
    },
    Controller, calm,
};
use crate::tuning::TUNING;
use ctguard_units::{real, whole};

impl Controller {
    /// Lowers the crest half as fast as entries leave.
    pub(super) fn fall(&mut self, room: &Room, elapsed: Duration) {
        let target = real(room.target());
        self.crest = (room.excess() > 0).then(|| {
            let fallen = self.growth.expiry() / 2.0 * elapsed.as_secs_f64();
            let crest = self.crest.map_or(target + real(room.excess()), |crest| crest - fallen);
            crest.max(target)
        });
    }

    /// New flows for each tier, and whether one must wait until another's grant is taken back.
    pub(super) fn allowances(
        &mut self,
        room: &Room,
        snapshot: &Snapshot<'_>,
        spent: &[u64; TIERS],
        elapsed: Duration,
    ) -> ([u64; TIERS], bool) {
        let mut wanted = [0; TIERS];
        let mut allowed = room.allowed();
        let mut headroom = room.headroom();
        if self.stages.is_calm() {
            wanted[Tier::Strangers as usize] = calm(headroom, TUNING.calm_divisor);
            for tier in [Tier::Regulars, Tier::Proven, Tier::Answered] {
                wanted[tier as usize] = calm(headroom, TUNING.calm_divisor_of_known);
            }
        } else {
            for (tier, scarce) in self.scarce.iter_mut().enumerate() {
                *scarce |=
                    snapshot.limits[tier] > 0 && snapshot.admitted[tier] >= snapshot.limits[tier];
            }
            let rates = self.rates(&self.ahead(room));
            self.earn(room, &rates, spent, elapsed);
            allowed = allowed.min(self.saved[Tier::Allowed as usize].flows());
            if self.replaces {
                // The kernel drops an unreplied entry for a new one, if it finds one
                // (`early_drop`). To refuse the new one would be worse than no guard.
                headroom = room.replaceable();
            } else if let Some(crest) = self.crest {
                headroom = room.below_crest(whole(crest), allowed);
            }
            wanted = self.wanted(room, headroom);
        }
        let outstanding = std::array::from_fn(|tier| {
            snapshot.limits[tier].saturating_sub(snapshot.admitted[tier])
        });
        let fitted = fit(wanted, outstanding, headroom);
        let mut allowances = fitted.flows;
        allowances[Tier::Allowed as usize] = allowed;
        (allowances, fitted.held_back)
    }

    fn earn(&mut self, room: &Room, rates: &[f64; TIERS], spent: &[u64; TIERS], elapsed: Duration) {
        for tier in Tier::SERVED {
            let rate = rates[tier as usize] * TUNING.slack;
            let known = tier != Tier::Strangers || self.surveyed;
            let most = if known {
                rate * TUNING.saved_with_shares
            } else {
                real(room.headroom()) * TUNING.until_known
            };
            self.saved[tier as usize].earn(rate, elapsed, spent[tier as usize], most);
        }
        let allowed = Tier::Allowed as usize;
        self.saved[allowed].earn(rates[allowed], elapsed, spent[allowed], real(room.spare()));
    }

    fn wanted(&self, room: &Room, headroom: u64) -> [u64; TIERS] {
        let mut wanted = [0; TIERS];
        // In a full table no tier may replace all that can be replaced until the next tick.
        let left =
            |tier| if self.replaces { headroom / TUNING.replaced_by_tier } else { room.left(tier) };
        // Strangers and retried flows stop at the same fill.
        let mut lowest = left(Tier::Strangers);
        for tier in Tier::SERVED {
            let paced = self.saved[tier as usize].flows();
            wanted[tier as usize] = match tier.stock() {
                Some(part) if self.crest.is_some() => stock(headroom, part),
                Some(part) => stock(headroom, part).min(left(tier)),
                None if tier == Tier::Answered => paced.min(left(tier)),
                None => paced.min(lowest),
            };
            if matches!(tier, Tier::Retried) && !self.replaces {
                lowest -= wanted[tier as usize];
            }
        }
        wanted
    }

    /// The limits and wake-up marks. A tier that earns its flows over time needs no wake-up.
    pub(super) fn grants(
        &self,
        snapshot: &Snapshot<'_>,
        allowances: [u64; TIERS],
    ) -> [TierGrant; TIERS] {
        let mut wakes = [true; TIERS];
        for tier in Tier::SERVED {
            wakes[tier as usize] = self.stages.is_calm() || tier.stock().is_some();
        }
        std::array::from_fn(|tier| {
            let (admitted, allowance) = (snapshot.admitted[tier], allowances[tier]);
            let mark = admitted.saturating_add(allowance - allowance.div_ceil(4));
            TierGrant {
                limit: admitted.saturating_add(allowance),
                wake_at: if wakes[tier] { mark } else { u64::MAX },
            }
        })
    }
}
