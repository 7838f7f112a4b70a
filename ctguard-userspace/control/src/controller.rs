//! One tick of the controller.

mod granting;
#[cfg(test)]
mod plant;
mod sharing;
#[cfg(test)]
mod tests;

use std::time::Duration;

use ctguard_layout::{CLASSES, Ceiling, Class};

use super::{
    InFlight, Pace, Reserve, TierGrant,
    decision::{ControlPolicy, Decision, Snapshot, StageChange, Steering},
    load::Demands,
    room::Room,
    saved::Saved,
    shares::{NO_SHARES, Shares, share_if_unchallenged},
    smoothed::Smoothed,
    stage::{Stage, Stages},
    tiers::{Precedence as _, TIERS, Tier},
};
use crate::tuning::TUNING;
use ctguard_units::{TableSample, real, share as share_ceiling};

/// The controller's memory between two ticks.
#[derive(Debug)]
pub struct Controller {
    jiffies_per_second: u32,
    clock: Clock,
    in_flight: InFlight,
    reserve: Reserve,
    pulse: Smoothed,
    needs: [Smoothed; TIERS],
    saved: [Saved; TIERS],
    gains: [f64; TIERS],
    /// The strangers' gain when a class was challenged.
    gains_unchallenged: [f64; CLASSES],
    /// Tiers that spent a grant between two ticks since the last scan.
    scarce: [bool; TIERS],
    /// The allowances of the last tick.
    granted: [u64; TIERS],
    /// A at the last tick.
    admitted: Option<[u64; TIERS]>,
    stages: Stages,
    demands: Demands,
    /// Demands were read since the guard left calm.
    knows_demands: bool,
    /// Enough strangers were seen, or enough time has passed, to trust their shares.
    surveyed: bool,
    left_calm: Duration,
    scanned: Duration,
    /// Since when SYNs are challenged although demands are not known.
    presumed: Option<Duration>,
    shares: Shares,
    /// Seconds over which the room is spread.
    horizon: f64,
    /// Entries that could not be deleted when the guard was last calm, with the room for flows that
    /// others open, as far as they are left.
    stayed: u64,
    /// Since when there has been no room for anybody, and none could be made.
    starved: Option<Duration>,
}

impl Controller {
    /// A controller before its first tick.
    pub fn new(jiffies_per_second: u32) -> Self {
        Self {
            jiffies_per_second,
            clock: Clock::default(),
            in_flight: InFlight::default(),
            reserve: Reserve::default(),
            pulse: Smoothed::over(TUNING.pulse_memory),
            needs: [Smoothed::over(TUNING.need_memory); TIERS],
            saved: [Saved::default(); TIERS],
            gains: [1.0; TIERS],
            gains_unchallenged: [1.0; CLASSES],
            scarce: [false; TIERS],
            granted: [0; TIERS],
            admitted: None,
            stages: Stages::default(),
            demands: Demands::default(),
            knows_demands: false,
            surveyed: false,
            left_calm: Duration::ZERO,
            scanned: Duration::ZERO,
            presumed: None,
            shares: NO_SHARES,
            horizon: TUNING.horizon.as_secs_f64(),
            stayed: 0,
            starved: None,
        }
    }

    /// Whether the next snapshot must count all new flows, which takes time.
    pub fn wants_new_flows(&self, now: Duration) -> bool {
        self.reserve.is_due(self.clock.at(now))
    }

    /// Whether the next snapshot must have the offered loads. In calm it need not. After calm they
    /// are due every `TUNING.first_scan` until shares can be trusted, then less often.
    pub fn wants_loads(&self, now: Duration) -> bool {
        let interval = if self.surveyed { TUNING.scan_interval } else { TUNING.first_scan };
        !self.stages.is_calm() && self.clock.at(now) >= self.scanned + interval
    }

    /// Decides; `None` if the table could not be read. Then nothing may be written, not even the
    /// heartbeat, so that the fallback rate takes over.
    pub fn tick(&mut self, snapshot: &Snapshot<'_>, policy: &ControlPolicy) -> Option<Decision> {
        let table = snapshot.table?;
        let elapsed = self.clock.advance(snapshot.now);
        let admitted = self.admitted.replace(snapshot.admitted).unwrap_or(snapshot.admitted);
        let spent: [u64; TIERS] =
            std::array::from_fn(|tier| snapshot.admitted[tier].saturating_sub(admitted[tier]));
        let in_flight = self.measure(snapshot, table, &spent, elapsed);
        if table.max == 0 {
            return Some(self.unlimited(snapshot));
        }

        let others = self.reserve.entries(table);
        let taken = table.entries + in_flight;
        let known = Tier::SERVED.into_iter().filter(Tier::is_known);
        let need: f64 = known.map(|tier| self.needs[tier as usize].per_second()).sum();
        let mut room =
            Room::of(table, policy.target_ppm, taken, others).keeping(need * TUNING.kept_for);
        if policy.reclaim {
            room = room.with_reclaimable(snapshot.reclaimable, snapshot.replaceable);
            let stays = snapshot.firm + room.for_others();
            self.stayed = if self.stages.is_calm() { stays } else { self.stayed.min(stays) };
            room = room.above(stays, self.stayed);
        }
        let delete = room.deletions();
        if self.is_starved(&room) {
            room = room.beyond_target();
        }
        self.horizon = (2 * snapshot.look_interval)
            .clamp(TUNING.horizon, TUNING.horizon_longest)
            .as_secs_f64();
        let before = self.stages.of();
        self.challenge_unseen(snapshot);
        let left_calm = self.watch(&room, policy, spent.iter().sum(), elapsed);
        if let Some(loads) = snapshot.loads
            && !self.stages.is_calm()
        {
            let (stages, most) = (self.stages, self.budget(&room, Tier::Proven));
            self.demands.replace(loads, policy, |class| stages.is_challenged(class), most);
            self.share(&room, policy);
        }

        // What was spent in calm does not count against the tiers.
        let earned_by = if left_calm { [0; TIERS] } else { spent };
        let (allowances, held_back) = self.allowances(&room, snapshot, &earned_by, elapsed);
        Some(Decision {
            grants: self.grants(snapshot, allowances),
            stages: self.stages.of(),
            shares: self.compiled(),
            delete,
            served: self.served(),
            pace: self.pace(held_back, delete),
            changes: self.changes(before, &room),
            steering: self.steering(&room),
        })
    }

    /// Whether there has been no room for anybody, and none could be made, for so long that the
    /// kernel would serve more flows without a guard.
    fn is_starved(&mut self, room: &Room) -> bool {
        let is_short = room.is_short(if self.starved.is_some() { 2 } else { 1 });
        self.starved = is_short.then(|| self.starved.unwrap_or(self.clock.now));
        self.starved.is_some_and(|since| self.clock.now.saturating_sub(since) >= TUNING.starved_for)
    }

    /// Updates all averages; returns the flows in flight.
    fn measure(
        &mut self,
        snapshot: &Snapshot<'_>,
        table: TableSample,
        spent: &[u64; TIERS],
        elapsed: Duration,
    ) -> u64 {
        let now = self.clock.now;
        if let Some(new_flows) = snapshot.new_flows {
            self.reserve.observe(now, table, new_flows, snapshot.deleted);
        }
        self.pulse.observe(real(spent.iter().sum()), elapsed);
        for (need, &spent) in self.needs.iter_mut().zip(spent) {
            need.observe(real(spent), elapsed);
        }
        let total = snapshot.admitted.iter().sum();
        self.in_flight.observe(now, total).saturating_add(snapshot.processors)
    }

    /// Challenges SYNs if strangers have spent their grant before their demands are known. A
    /// challenge costs a live client some 20 ms, a refusal a second.
    fn challenge_unseen(&mut self, snapshot: &Snapshot<'_>) {
        let strangers = Tier::Strangers as usize;
        let is_spent = snapshot.admitted[strangers] >= snapshot.limits[strangers];
        if is_spent && !self.stages.is_calm() && !self.knows_demands && self.presumed.is_none() {
            self.presumed = Some(self.clock.now);
            self.stages.challenge(Class::Tcp);
        }
    }

    /// Leaves calm if the table would soon reach its target; returns whether it did.
    fn watch(
        &mut self,
        room: &Room,
        policy: &ControlPolicy,
        spent: u64,
        elapsed: Duration,
    ) -> bool {
        if !self.stages.is_calm() {
            return false;
        }
        let calm_grant = calm(room.headroom(), TUNING.calm_divisor);
        let in_this_tick = real(spent) / elapsed.as_secs_f64().max(f64::EPSILON);
        let admitted =
            if spent >= calm_grant / 4 * 3 { in_this_tick } else { self.pulse.per_second() };
        let grows =
            admitted + self.reserve.per_second() > ends_calm(room) + 1.0 && !elapsed.is_zero();
        if !grows && room.available(Tier::Strangers) > 0.0 {
            return false;
        }
        self.stages.leave_calm();
        self.demands.replace(&[], policy, |_| false, 0.0);
        self.knows_demands = false;
        self.surveyed = false;
        self.presumed = None;
        self.left_calm = self.clock.now;
        self.scanned = self.clock.now;
        self.gains = [1.0; TIERS];
        self.gains_unchallenged = [1.0; CLASSES];
        self.scarce = [false; TIERS];
        let rates = self.rates(room);
        for (saved, rate) in self.saved.iter_mut().zip(rates) {
            saved.grant(rate * TUNING.saved);
        }
        self.saved[Tier::Allowed as usize].grant(real(room.spare()));
        self.saved[Tier::Strangers as usize].grant(real(room.headroom()) * TUNING.until_known);
        true
    }

    fn served(&self) -> [f64; TIERS] {
        self.needs.map(|need| need.per_second())
    }

    fn compiled(&self) -> [[Ceiling; CLASSES]; TIERS] {
        self.shares.map(|tier| tier.map(|share| share_ceiling(share, self.jiffies_per_second)))
    }

    fn pace(&self, held_back: bool, delete: u64) -> Pace {
        if held_back {
            Pace::AtOnce
        } else if self.stages.is_calm() && delete == 0 {
            Pace::Calm
        } else {
            Pace::Pressure
        }
    }

    fn changes(&self, before: [Stage; CLASSES], room: &Room) -> Vec<StageChange> {
        let changed = |&class: &Class| self.stages.of()[class as usize] != before[class as usize];
        let steering = self.steering(room);
        let change = |class: Class| StageChange {
            class,
            from: before[class as usize],
            to: self.stages.of()[class as usize],
            steering,
            demand: if self.knows_demands {
                self.demands.total(Tier::Strangers, class)
            } else {
                self.pulse.per_second()
            },
            share: self.share_of(class, room),
            sources: self.knows_demands.then(|| self.demands.sources(Tier::Strangers, class)),
        };
        Class::ALL.into_iter().filter(changed).map(change).collect()
    }

    fn share_of(&self, class: Class, room: &Room) -> Option<f64> {
        if !self.knows_demands {
            return None;
        }
        let budget = |stages: &Stages| self.strangers(room, stages);
        let share = share_if_unchallenged(&self.stages, &self.demands, budget, class);
        share.is_finite().then_some(share)
    }

    fn steering(&self, room: &Room) -> Steering {
        Steering {
            fill: room.fill(),
            headroom: room.headroom(),
            others: self.reserve.per_second(),
            budget: self.budget(room, Tier::Regulars),
        }
    }

    /// The decision for a table without a maximum.
    fn unlimited(&mut self, snapshot: &Snapshot<'_>) -> Decision {
        self.stages = Stages::default();
        self.shares = NO_SHARES;
        self.stayed = 0;
        self.starved = None;
        let mark = |admitted: u64| TierGrant {
            limit: admitted.saturating_add(TUNING.unlimited),
            wake_at: admitted.saturating_add(TUNING.unlimited / 4 * 3),
        };
        Decision {
            grants: snapshot.admitted.map(mark),
            stages: self.stages.of(),
            shares: self.compiled(),
            delete: 0,
            served: self.served(),
            pace: Pace::Calm,
            changes: Vec::new(),
            steering: Steering {
                fill: 0.0,
                headroom: TUNING.unlimited,
                others: self.reserve.per_second(),
                budget: f64::INFINITY,
            },
        }
    }
}

/// Time that never goes back, even if the clock does.
#[derive(Clone, Copy, Debug, Default)]
struct Clock {
    last: Option<Duration>,
    now: Duration,
}

impl Clock {
    /// Time since the last tick.
    fn advance(&mut self, read: Duration) -> Duration {
        let before = self.now;
        self.now = self.at(read);
        self.last = Some(read);
        self.now.saturating_sub(before)
    }

    fn at(&self, read: Duration) -> Duration {
        self.now.saturating_add(read.saturating_sub(self.last.unwrap_or(read)))
    }
}

/// New flows per second that would soon bring the table to its limit.
fn ends_calm(room: &Room) -> f64 {
    room.available(Tier::Strangers) / TUNING.pressure_horizon.as_secs_f64()
}

/// New flows that a tier may open until the next tick in calm.
fn calm(headroom: u64, part: u64) -> u64 {
    (headroom / part).max(TUNING.calm_least).min(headroom)
}
