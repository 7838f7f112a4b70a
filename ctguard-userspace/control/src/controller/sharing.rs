//! What each tier may open in a second, and the shares and stages that follow from it.

use super::{
    super::{
        budget::budget,
        decision::ControlPolicy,
        room::Room,
        shares::{NO_SHARES, challenge, shares},
        stage::Stages,
        tiers::{Precedence as _, TIERS, Tier, divide, kept},
    },
    Class, Controller, NEAR, NEAR_WHEN_FULL, NEARLY_FULL_UNTIL, PRESUMED_FOR, SAVED,
    SAVED_WITH_SHARES, SLACK, SURVEYED_WITHIN, UNSEEN_MOST,
};
use ctguard_units::real;

/// Paced tiers steer for so much less than where they must stop, in proportion to the maximum: who
/// runs into the stop comes back an entry's life later, as a wave.
const MARGIN: f64 = 0.02;

/// How much of its part of the budget a tier hands out as shares. Buckets remember older shares and
/// sources ask unevenly, so the sum of what passes is steered: down when the grant was spent,
/// for that refuses whoever comes next, and slowly up while less passes than may.
const GAIN_DOWN: f64 = 0.95;

const GAIN_UP: f64 = 1.02;
const GAIN_RANGE: std::ops::RangeInclusive<f64> = 0.5..=1.5;

/// What a tier asks for varies by so much until it is known better: who asks for little shall not
/// be limited to what was seen of it by chance.
const ASKED_FOR_MORE: f64 = 1.25;

/// The part of the budget rate that is ready for those who answer a challenge, before they do.
const UNSEEN: f64 = 0.15;

/// Room kept from tiers below for what regulars and proven sources open in so long, and the most
/// of it, in proportion to the target.
const KEPT_FOR: f64 = 30.0;

const KEPT_MOST: f64 = 0.25;

/// Allowed sources get what the others leave, or where these ask for more than there is, so much of
/// it as the others would be denied anyway, up to this part. And the quarter of the space above the
/// target that is theirs, over the longest life of what nobody answers.
const ALLOWED_PART: f64 = 0.25;

const SPARE_LASTS: f64 = 120.0;

/// Demands are a sample, by which a few quiet sources look like many: while strangers' grant lasts, so
/// that none of them is refused, a class is challenged only if it asks for so many times their part.
const CLEARLY_TOO_MUCH: f64 = 4.0;

/// Sources of a tier that is not paced are limited only when its stock would not last so long.
const STOCK_LASTS: f64 = 15.0;

impl Controller {
    /// Finds stages and shares anew for what is asked now.
    pub(super) fn share(&mut self, room: &Room, policy: &ControlPolicy) {
        let now = self.clock.now;
        self.scanned = now;
        self.knows_demands = true;
        let mut stages = self.stages;
        if let Some(since) = self.presumed
            && (now.saturating_sub(since) >= PRESUMED_FOR || !self.is_of_tcp())
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
                || self.demands.total(Tier::Strangers, class) > strangers * CLEARLY_TOO_MUCH
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
        let far = asked < f64::midpoint(real(room.headroom()) / NEAR.as_secs_f64(), expiry);
        let low = room.fill_of_target() < NEARLY_FULL_UNTIL
            || asked < expiry + real(room.headroom()) / NEAR_WHEN_FULL.as_secs_f64() / 2.0;
        // Of allowed sources nothing tells what they ask for.
        self.stages.calm_down(now, far && low && !scarce[Tier::Allowed as usize]);
        if self.stages.is_calm() {
            self.shares = NO_SHARES;
        }
    }

    /// Gives strangers what they may save of their shares, once these hold them.
    fn survey(&mut self, room: &Room) {
        if self.surveyed {
            return;
        }
        let unseen = self.demands.unseen(|class| !self.stages.is_challenged(class));
        let waited = self.clock.now.saturating_sub(self.left_calm) >= SURVEYED_WITHIN;
        if unseen <= UNSEEN_MOST || waited {
            self.surveyed = true;
            let strangers = self.rates(room)[Tier::Strangers as usize] * SLACK;
            let saved = if self.stages.challenges() { SAVED } else { SAVED_WITH_SHARES };
            self.saved[Tier::Strangers as usize].grant(strangers * saved);
        }
    }

    /// Whether strangers ask for TCP most of all.
    fn is_of_tcp(&self) -> bool {
        2.0 * self.demands.total(Tier::Strangers, Class::Tcp)
            >= self.demands.ask(Tier::Strangers, |_| true)
    }

    /// What is handed out as shares, so that the `rates` pass.
    fn steer(&mut self, rates: &[f64; TIERS]) -> [f64; TIERS] {
        for tier in Tier::SERVED.into_iter().filter(|tier| tier.stock().is_none()) {
            let gain = &mut self.gains[tier as usize];
            let passes = self.needs[tier as usize].per_second();
            if self.scarce[tier as usize] {
                *gain *= GAIN_DOWN;
            } else if *gain < 1.0 || passes < rates[tier as usize] {
                *gain *= GAIN_UP;
            }
            *gain = gain.clamp(*GAIN_RANGE.start(), *GAIN_RANGE.end());
        }
        std::array::from_fn(|tier| rates[tier] * self.gains[tier])
    }

    /// New flows a second for strangers, in given stages.
    pub(super) fn strangers(&self, room: &Room, stages: &Stages) -> f64 {
        self.rates_in(room, stages)[Tier::Strangers as usize]
    }

    /// New flows a second for each tier.
    pub(super) fn rates(&self, room: &Room) -> [f64; TIERS] {
        self.rates_in(room, &self.stages)
    }

    fn rates_in(&self, room: &Room, stages: &Stages) -> [f64; TIERS] {
        let others = self.growth.others();
        let whole = budget(room.distance(Tier::Regulars), others);
        let asks = self.asks(whole, stages);
        let asked: f64 = Tier::SERVED.into_iter().map(|tier| asks[tier as usize]).sum();
        let denied = (asked - whole).clamp(0.0, whole * ALLOWED_PART);
        let taken = denied.min(self.needs[Tier::Allowed as usize].per_second());
        let whole = whole - taken;
        let least = kept(whole, &asks);
        let mut rates = divide(whole, &asks);

        let margin = MARGIN * real(room.max());
        let fits = self.fits(whole, &asks);
        let mut above = taken;
        let mut room_kept: f64 = 0.0;
        let most_kept = real(room.target()) * KEPT_MOST;
        for tier in Tier::SERVED {
            let need = self.needs[tier as usize].per_second();
            if tier.stock().is_some() {
                room_kept = (room_kept + need * KEPT_FOR).min(most_kept);
                let ready = room.distance(tier) / STOCK_LASTS * tier.kept_part();
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
        rates[Tier::Allowed as usize] = denied.max(left) + real(room.spare()) / SPARE_LASTS;
        rates
    }

    /// Whether all that strangers ask for can be had beside what the others really take, which is
    /// less than is kept for them: then nobody is refused for the sake of nobody.
    fn fits(&self, whole: f64, asks: &[f64; TIERS]) -> bool {
        let others = Tier::SERVED.into_iter().filter(|tier| *tier != Tier::Strangers);
        let taken: f64 = others.map(|tier| self.needs[tier as usize].per_second()).sum();
        taken + asks[Tier::Strangers as usize] <= whole
    }

    /// New flows a second that each tier asks for, of a `whole` that can be had.
    fn asks(&self, whole: f64, stages: &Stages) -> [f64; TIERS] {
        let mut asks = [0.0; TIERS];
        // SYNs are answered, other packets are to come again.
        let is_expected =
            |tier| tier == Tier::Retried && stages.challenges() || stages.is_challenged(Class::Tcp);
        for tier in Tier::SERVED {
            let counts = |class| tier != Tier::Strangers || !stages.is_challenged(class);
            let offered = match tier {
                Tier::Strangers if !self.knows_demands => f64::INFINITY,
                Tier::Answered | Tier::Retried if is_expected(tier) || !self.knows_demands => {
                    self.demands.ask(tier, counts).max(whole * UNSEEN)
                }
                Tier::Strangers
                | Tier::Allowed
                | Tier::Regulars
                | Tier::Proven
                | Tier::Answered
                | Tier::Retried => self.demands.ask(tier, counts),
            };
            // A tier whose grant is spent may ask for more than anybody saw.
            let more = if self.scarce[tier as usize] { 2.0 } else { 1.1 };
            let needed = self.needs[tier as usize].per_second() * more;
            asks[tier as usize] = (offered * ASKED_FOR_MORE).max(needed) + 1.0;
        }
        asks
    }
}
