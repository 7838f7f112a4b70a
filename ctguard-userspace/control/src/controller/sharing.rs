//! The rate of each tier, and the shares and stages that follow from it.

use super::{
    super::{
        decision::ControlPolicy,
        room::Room,
        shares::{NO_SHARES, challenge, shares},
        stage::Stages,
        tiers::{Precedence as _, TIERS, Tier, divide},
    },
    Class, Controller, ends_calm,
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
        let budget = |stages: &Stages| self.strangers(room, stages);
        let strangers = self.strangers(room, &stages);
        let horizon = self.horizon;
        let may_begin = |class| {
            let asked = self.demands.total(Tier::Strangers, class);
            let sources = self.demands.sources(Tier::Strangers, class);
            // Those that would fill a small part of the table do no harm, and of few sources too
            // little is known.
            self.stages.is_challenged(class)
                || (class == Class::Tcp || sources >= TUNING.fewest_challenged)
                    && asked * horizon > real(room.max() / TUNING.challenged_divisor)
                    && (self.scarce[Tier::Strangers as usize]
                        || asked > strangers * TUNING.clearly_too_much)
        };
        let in_force = stages;
        let excess = |class| {
            let rates = self.rates_in(room, &in_force.unchallenged(class));
            self.demands.total(Tier::Strangers, class) / rates[Tier::Strangers as usize].max(1.0)
        };
        challenge(&mut stages, &self.demands, budget, may_begin, excess, policy, now);
        let gain = self.gains[Tier::Strangers as usize];
        for class in Class::ALL {
            if stages.is_challenged(class) && !self.stages.is_challenged(class) {
                self.gains_unchallenged[class as usize] = gain;
                self.gains[Tier::Strangers as usize] = 1.0;
            }
        }
        self.stages = stages;
        let handed_out = self.steer(&self.rates(room));
        self.shares = shares(&self.stages, &self.demands, &handed_out, self.scarce, policy);
        self.survey(room);
        let scarce = std::mem::replace(&mut self.scarce, [false; TIERS]);

        let soon = ends_calm(room);
        let asked = self.demands.in_calm();
        // Nor may what others open, or a little more, end calm at once. The demand of allowed sources
        // is not counted, only whether their grant was spent.
        let is_quiet = asked < soon / 2.0
            && asked + self.reserve.per_second() <= soon * TUNING.calm_below
            && !scarce[Tier::Allowed as usize];
        self.stages.calm_down(now, is_quiet);
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
            self.saved[Tier::Strangers as usize].grant(strangers * TUNING.saved);
        }
    }

    /// Whether at least half of the strangers' demand is TCP.
    fn is_of_tcp(&self) -> bool {
        2.0 * self.demands.total(Tier::Strangers, Class::Tcp)
            >= self.demands.ask(Tier::Strangers, |_| true)
    }

    /// Adjusts what is handed out as shares until the `rates` pass.
    fn steer(&mut self, rates: &[f64; TIERS]) -> [f64; TIERS] {
        for tier in Tier::SERVED.into_iter().filter(|tier| !tier.is_known()) {
            let gain = &mut self.gains[tier as usize];
            let passes = self.needs[tier as usize].per_second();
            if self.scarce[tier as usize] {
                // That of strangers fell at each tick (`allowances`).
                if tier != Tier::Strangers {
                    *gain *= TUNING.gain_down;
                }
            } else if *gain < 1.0 || passes < rates[tier as usize] {
                *gain *= TUNING.gain_up;
            }
            *gain = gain.clamp(*TUNING.gain_range.start(), *TUNING.gain_range.end());
        }
        std::array::from_fn(|tier| rates[tier] * self.gains[tier])
    }

    /// New flows per second that shares would hand out to strangers. A class that was challenged
    /// because it has more sources than can be told apart still has.
    pub(super) fn strangers(&self, room: &Room, stages: &Stages) -> f64 {
        let now = self.gains[Tier::Strangers as usize];
        let gains =
            Class::ALL.into_iter().filter(|&class| !stages.is_challenged(class)).map(|class| {
                let is_challenged = self.stages.is_challenged(class);
                if is_challenged { self.gains_unchallenged[class as usize] } else { now }
            });
        let gain = gains.fold(1.0, f64::min);
        let gain = if gain < TUNING.gain_of_floods { gain } else { 1.0 };
        self.rates_in(room, stages)[Tier::Strangers as usize] * gain
    }

    /// New flows per second for each tier.
    pub(super) fn rates(&self, room: &Room) -> [f64; TIERS] {
        self.rates_in(room, &self.stages)
    }

    /// New flows per second for which a tier has room.
    pub(super) fn budget(&self, room: &Room, tier: Tier) -> f64 {
        room.available(tier).max(0.0) / self.horizon
    }

    fn rates_in(&self, room: &Room, stages: &Stages) -> [f64; TIERS] {
        let whole = self.budget(room, Tier::Regulars);
        let asks = self.asks(whole, stages);
        let mut rates = divide(whole, &asks);
        let asked: f64 = Tier::SERVED.into_iter().map(|tier| asks[tier as usize]).sum();
        let rest = (whole - asked).max(0.0);
        rates[Tier::Allowed as usize] = rest + real(room.spare()) / self.horizon;
        for tier in Tier::SERVED {
            let rate = &mut rates[tier as usize];
            let level = self.budget(room, tier);
            // Known sources may have all room up to where their tier stops. What nobody asks for is
            // there for anybody.
            *rate = if tier.is_known() { level } else { (*rate + rest).min(level) };
        }
        rates
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
                Tier::Strangers
                | Tier::Allowed
                | Tier::Regulars
                | Tier::Earlier
                | Tier::Proven
                | Tier::Answered
                | Tier::Retried
                | Tier::AbovePart => self.demands.ask(tier, counts),
            };
            // A tier whose grant is spent may ask for more than was counted.
            let more = if self.scarce[tier as usize] { 2.0 } else { 1.1 };
            let needed = self.needs[tier as usize].per_second() * more;
            asks[tier as usize] = (offered * TUNING.demand_margin).max(needed) + 1.0;
        }
        asks
    }
}
