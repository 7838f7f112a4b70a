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
use ctguard_units::real;

impl Controller {
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
        let headroom = room.headroom();
        if self.stages.is_calm() {
            // Nearly everybody counts as a stranger, so half of a small headroom is for strangers.
            wanted[Tier::Strangers as usize] = calm(headroom, TUNING.calm_divisor);
            for tier in [Tier::Regulars, Tier::Earlier, Tier::Proven, Tier::Answered] {
                wanted[tier as usize] =
                    calm(headroom, TUNING.calm_divisor_of_known).min(headroom / 8);
            }
        } else {
            for (tier, scarce) in self.scarce.iter_mut().enumerate() {
                let limit = snapshot.limits[tier];
                let is_spent = limit > 0 && snapshot.admitted[tier] >= limit;
                let is_spent = is_spent && self.granted[tier] > 0;
                *scarce |= is_spent;
                // A flood has more sources than a scan can show, so it is not waited for.
                if is_spent && tier == Tier::Strangers as usize {
                    self.gains[tier] *= TUNING.gain_down;
                }
            }
            self.earn(room, &self.rates(room), spent, elapsed);
            allowed = allowed.min(self.saved[Tier::Allowed as usize].flows());
            wanted = self.wanted(room);
        }
        let outstanding = std::array::from_fn(|tier| {
            snapshot.limits[tier].saturating_sub(snapshot.admitted[tier])
        });
        let fitted = fit(wanted, outstanding, headroom);
        let mut allowances = fitted.flows;
        allowances[Tier::Allowed as usize] = allowed;
        self.granted = allowances;
        (allowances, fitted.held_back)
    }

    fn earn(&mut self, room: &Room, rates: &[f64; TIERS], spent: &[u64; TIERS], elapsed: Duration) {
        for tier in Tier::ALL {
            let rate = rates[tier as usize] * TUNING.slack;
            let most = match tier {
                Tier::Allowed => real(room.spare()),
                Tier::Strangers if !self.surveyed => real(room.headroom()) * TUNING.until_known,
                Tier::Strangers
                | Tier::Regulars
                | Tier::Earlier
                | Tier::Proven
                | Tier::Answered
                | Tier::Retried
                | Tier::AbovePart => rate * TUNING.saved,
            };
            self.saved[tier as usize].earn(rate, elapsed, spent[tier as usize], most);
        }
    }

    fn wanted(&self, room: &Room) -> [u64; TIERS] {
        let mut wanted = [0; TIERS];
        for tier in Tier::SERVED {
            let stock = stock(room.headroom(), tier.stock()).min(room.left(tier));
            let paced = self.saved[tier as usize].flows();
            wanted[tier as usize] = if tier.is_known() { stock } else { stock.min(paced) };
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
            wakes[tier as usize] = self.stages.is_calm() || tier.is_known();
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
