//! The rate of each tier, and the shares and stages that follow from it.

use super::{
    super::{
        budget::budget,
        decision::ControlPolicy,
        room::Room,
        shares::{NO_SHARES, challenge, shares},
        stage::Stages,
        tiers::{Precedence as _, TIERS, Tier, divide, kept},
    },
    Class, Controller,
};
use crate::tuning::TUNING;
use ctguard_units::real;

impl Controller {
    /// Finds stages and shares for new demands.
    pub(super) fn share(&mut self, room: &Room, policy: &ControlPolicy) {
        let now = self.clock.now;
        self.scanned = now;
        self.knows_demands = true;
        let mut stages = self.stages;
        if let Some(since) = self.presumed
            && (now.saturating_sub(since) >= TUNING.presumed_for || !self.is_of_tcp())
        {
            self.presumed = None;
            stages = stages.unchallenged(Class::Tcp);
        }
        let ahead = self.ahead(room);
        let budget = |stages: &Stages| self.strangers(&ahead, stages);
        let strangers = self.strangers(&ahead, &stages);
        let may_begin = |class| {
            self.stages.is_challenged(class)
                || self.scarce[Tier::Strangers as usize]
                || self.demands.total(Tier::Strangers, class) > strangers * TUNING.clearly_too_much
        };
        challenge(&mut stages, &self.demands, budget, may_begin, policy, now);
        self.stages = stages;
        let handed_out = self.steer(&self.rates(&ahead));
        self.shares = shares(&self.stages, &self.demands, &handed_out, self.scarce, policy);
        self.survey(room);
        let scarce = std::mem::replace(&mut self.scarce, [false; TIERS]);

        let asked: f64 =
            Tier::SERVED.into_iter().map(|tier| self.demands.ask(tier, |_| true)).sum();
        let expiry = self.growth.expiry();
        let far = asked
            < f64::midpoint(real(room.headroom()) / TUNING.pressure_horizon.as_secs_f64(), expiry);
        let low = room.fill_of_target() < TUNING.nearly_full_until
            || asked
                < expiry
                    + real(room.headroom()) / TUNING.pressure_horizon_when_full.as_secs_f64() / 2.0;
        // The demand of allowed sources is not counted, only whether their grant was spent.
        self.stages.calm_down(now, far && low && !scarce[Tier::Allowed as usize]);
        if self.stages.is_calm() {
            self.shares = NO_SHARES;
        }
    }

    /// Lets strangers save flows once their shares can be trusted.
    fn survey(&mut self, room: &Room) {
        if self.surveyed {
            return;
        }
        let unseen = self.demands.unseen(|class| !self.stages.is_challenged(class));
        let waited = self.clock.now.saturating_sub(self.left_calm) >= TUNING.surveyed_within;
        if unseen <= TUNING.unseen_most || waited {
            self.surveyed = true;
            let strangers = self.rates(room)[Tier::Strangers as usize] * TUNING.slack;
            let saved =
                if self.stages.challenges() { TUNING.saved } else { TUNING.saved_with_shares };
            self.saved[Tier::Strangers as usize].grant(strangers * saved);
        }
    }

    /// Whether at least half of the strangers' demand is TCP.
    fn is_of_tcp(&self) -> bool {
        2.0 * self.demands.total(Tier::Strangers, Class::Tcp)
            >= self.demands.ask(Tier::Strangers, |_| true)
    }

    /// Adjusts what is handed out as shares until the `rates` pass.
    fn steer(&mut self, rates: &[f64; TIERS]) -> [f64; TIERS] {
        for tier in Tier::SERVED.into_iter().filter(|tier| tier.stock().is_none()) {
            let gain = &mut self.gains[tier as usize];
            let passes = self.needs[tier as usize].per_second();
            if self.scarce[tier as usize] {
                *gain *= TUNING.gain_down;
            } else if *gain < 1.0 || passes < rates[tier as usize] {
                *gain *= TUNING.gain_up;
            }
            *gain = gain.clamp(*TUNING.gain_range.start(), *TUNING.gain_range.end());
        }
        std::array::from_fn(|tier| rates[tier] * self.gains[tier])
    }

    /// New flows per second for strangers.
    pub(super) fn strangers(&self, room: &Room, stages: &Stages) -> f64 {
        self.rates_in(room, stages)[Tier::Strangers as usize]
    }

    /// New flows per second for each tier.
    pub(super) fn rates(&self, room: &Room) -> [f64; TIERS] {
        self.rates_in(room, &self.stages)
    }

    fn rates_in(&self, room: &Room, stages: &Stages) -> [f64; TIERS] {
        let others = self.growth.others();
        let whole = budget(room.distance(Tier::Regulars), others);
        let asks = self.asks(whole, stages);
        let asked: f64 = Tier::SERVED.into_iter().map(|tier| asks[tier as usize]).sum();
        let denied = (asked - whole).clamp(0.0, whole * TUNING.allowed_part);
        let taken = denied.min(self.needs[Tier::Allowed as usize].per_second());
        let whole = whole - taken;
        let least = kept(whole, &asks);
        let mut rates = divide(whole, &asks);

        let margin = TUNING.margin * real(room.max());
        let fits = self.fits(whole, &asks);
        let mut above = taken;
        let mut room_kept: f64 = 0.0;
        let most_kept = real(room.target()) * TUNING.kept_most;
        for tier in Tier::SERVED {
            let need = self.needs[tier as usize].per_second();
            if tier.stock().is_some() {
                room_kept = (room_kept + need * TUNING.kept_for).min(most_kept);
                let ready = room.distance(tier) / TUNING.stock_lasts * tier.kept_part();
                rates[tier as usize] = rates[tier as usize].max(ready);
            } else {
                let level = budget(room.distance(tier) - room_kept - margin, others) - above;
                let rate = &mut rates[tier as usize];
                *rate = rate.min(level.max(least[tier as usize]));
                if tier == Tier::Strangers && fits {
                    *rate = rate.max(asks[tier as usize]);
                }
            }
            above += need;
        }
        let level = budget(room.distance(Tier::Strangers) - room_kept - 2.0 * margin, others);
        let left = (whole - asked).min(level - above).max(0.0);
        rates[Tier::Allowed as usize] = denied.max(left) + real(room.spare()) / TUNING.spare_lasts;
        rates
    }

    /// Whether the strangers' demand fits beside what the others really take. Then what is kept for
    /// others must not limit strangers.
    fn fits(&self, whole: f64, asks: &[f64; TIERS]) -> bool {
        let others = Tier::SERVED.into_iter().filter(|tier| *tier != Tier::Strangers);
        let taken: f64 = others.map(|tier| self.needs[tier as usize].per_second()).sum();
        taken + asks[Tier::Strangers as usize] <= whole
    }

    /// New flows per second that each tier asks for; `whole` is what the table can take.
    fn asks(&self, whole: f64, stages: &Stages) -> [f64; TIERS] {
        let mut asks = [0.0; TIERS];
        // Challenged SYNs are answered; other challenged packets come again.
        let is_expected =
            |tier| tier == Tier::Retried && stages.challenges() || stages.is_challenged(Class::Tcp);
        for tier in Tier::SERVED {
            let counts = |class| tier != Tier::Strangers || !stages.is_challenged(class);
            let offered = match tier {
                Tier::Strangers if !self.knows_demands => f64::INFINITY,
                Tier::Answered | Tier::Retried if is_expected(tier) || !self.knows_demands => {
                    self.demands.ask(tier, counts).max(whole * TUNING.ready_for_answers)
                }
                _ => self.demands.ask(tier, counts),
            };
            // A tier whose grant is spent may ask for more than was counted.
            let more = if self.scarce[tier as usize] { 2.0 } else { 1.1 };
            let needed = self.needs[tier as usize].per_second() * more;
            asks[tier as usize] = (offered * TUNING.demand_margin).max(needed) + 1.0;
        }
        asks
    }
}
