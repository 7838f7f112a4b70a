//! One tick of control: what was seen and what the operator wants in, what is to be written out.

mod granting;
#[cfg(test)]
mod plant;
mod sharing;
#[cfg(test)]
mod tests;

use std::time::Duration;

use ctguard_ebpf::layout::{CLASSES, Ceiling, Class};

use super::{
    InFlight, Pace, Reserve, TierGrant,
    budget::{Growth, Saved, budget},
    decision::{ControlPolicy, Decision, Snapshot, StageChange, Steering},
    load::Demands,
    room::Room,
    shares::{NO_SHARES, Shares, share_if_unchallenged},
    smoothed::Smoothed,
    stage::{Stage, Stages},
    tiers::{TIERS, Tier},
};
use ctguard_units::{TableSample, real, share as share_ceiling};

/// The guard is not calm when the table would reach its target within so long.
const NEAR: Duration = Duration::from_secs(10);

/// The same for a table which is nearly at its target.
const NEAR_WHEN_FULL: Duration = Duration::from_mins(1);

/// A table with so much of its target filled is nearly at it, and until it is down to so much.
const NEARLY_FULL: f64 = 0.9;
const NEARLY_FULL_UNTIL: f64 = 0.85;

/// The part of the headroom that a calm guard grants at a time, and the least.
const CALM_PART: u64 = 32;
const CALM_LEAST: u64 = 64;

/// The same for each of the tiers that take their own only when that of strangers is spent.
const CALM_PART_OF_OTHERS: u64 = 32;

/// Over how long admissions are averaged: to notice a flood, and to know what a tier needs.
const PULSE_MEMORY: Duration = Duration::from_millis(250);
const NEED_MEMORY: Duration = Duration::from_secs(2);

/// Offered loads are looked at so often, and so long after calm for the first time.
const SCAN_INTERVAL: Duration = Duration::from_millis(100);
const FIRST_SCAN: Duration = Duration::from_millis(20);

/// SYNs that are challenged before demands are known are so for so long, unless the flood is of other
/// classes: one look sees but a sample of sources.
const PRESUMED_FOR: Duration = Duration::from_millis(300);

/// Tiers that are paced may admit so much more than their part of the budget: that the shares hold
/// them to it, and the grant refuses nobody at random.
const SLACK: f64 = 1.25;

/// For how many seconds a paced tier may save: little while nothing else limits it, and as much as
/// the sources may save of their shares where those do.
const SAVED: f64 = 1.0;
const SAVED_WITH_SHARES: f64 = 10.0;

/// Shares are worth what they tell when no more than so much of strangers' flows comes from sources
/// which were not seen yet, or nothing better is seen within so long after calm.
const UNSEEN_MOST: f64 = 0.5;
const SURVEYED_WITHIN: Duration = Duration::from_millis(300);

/// The part of the headroom that strangers get after calm until then.
const UNTIL_KNOWN: f64 = 1.0 / 64.0;

/// What a table without a maximum may take in one tick: far more than any network brings.
const UNLIMITED: u64 = 1 << 40;

/// How far below its target a table that has passed it is relieved, in proportion to the target, how
/// soon, and the highest rate of deletions.
const RECLAIMED_TO: f64 = 0.6;
const RECLAIMED_IN: f64 = 1.0;
const RECLAIMED_MOST: f64 = 100_000.0;

/// For so long after the table has passed its target, stages and shares are chosen for the room that
/// there is once it is relieved, and the grant alone knows better: what a class or a source may not
/// have for a second or two, it shall not miss for much longer. A table that is still above its
/// target then is full of what nobody may delete.
const RELIEVED_WITHIN: Duration = Duration::from_secs(3);

/// What one tick leaves for the next.
#[derive(Debug)]
pub struct Controller {
    jiffies_per_second: u32,
    clock: Clock,
    in_flight: InFlight,
    reserve: Reserve,
    growth: Growth,
    pulse: Smoothed,
    needs: [Smoothed; TIERS],
    saved: [Saved; TIERS],
    gains: [f64; TIERS],
    /// Tiers whose grant was spent at some tick since the last scan.
    scarce: [bool; TIERS],
    /// A at the last tick.
    admitted: Option<[u64; TIERS]>,
    stages: Stages,
    demands: Demands,
    /// Loads were seen since the guard was calm.
    knows_demands: bool,
    /// So many strangers were seen, or waited for, that shares are worth what they tell.
    surveyed: bool,
    left_calm: Duration,
    scanned: Duration,
    /// SYNs are challenged since then, though demands do not tell to.
    presumed: Option<Duration>,
    shares: Shares,
    /// Above the target, entries up to which the upper tiers may replace what leaves.
    crest: Option<f64>,
    /// The table is full, and what is admitted takes the place of what nobody answered.
    replaces: bool,
    /// When the table passed its target; since then entries that nobody answered are deleted.
    reclaims_since: Option<Duration>,
}

impl Controller {
    /// A controller that has seen nothing yet.
    pub fn new(jiffies_per_second: u32) -> Self {
        Self {
            jiffies_per_second,
            clock: Clock::default(),
            in_flight: InFlight::default(),
            reserve: Reserve::default(),
            growth: Growth::new(),
            pulse: Smoothed::over(PULSE_MEMORY),
            needs: [Smoothed::over(NEED_MEMORY); TIERS],
            saved: [Saved::default(); TIERS],
            gains: [1.0; TIERS],
            scarce: [false; TIERS],
            admitted: None,
            stages: Stages::default(),
            demands: Demands::default(),
            knows_demands: false,
            surveyed: false,
            left_calm: Duration::ZERO,
            scanned: Duration::ZERO,
            presumed: None,
            shares: NO_SHARES,
            crest: None,
            replaces: false,
            reclaims_since: None,
        }
    }

    /// Whether the next snapshot should count all new flows, which takes a while.
    pub fn wants_new_flows(&self, now: Duration) -> bool {
        self.reserve.is_due(self.clock.at(now))
    }

    /// Whether the next snapshot should have the offered loads: never while all is calm. The first
    /// are wanted [`FIRST_SCAN`] after the decision that ends calm, and as often until they suffice.
    pub fn wants_loads(&self, now: Duration) -> bool {
        let interval = if self.surveyed { SCAN_INTERVAL } else { FIRST_SCAN };
        !self.stages.is_calm() && self.clock.at(now) >= self.scanned + interval
    }

    /// Decides; none when the table could not be read: then nothing may be written, the heartbeat
    /// neither, so that the fallback rate takes over.
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

        let reserve = self.reserve.entries(table);
        let room = Room::of(table, policy.target_ppm, in_flight, reserve);
        self.replaces = room.is_full() && (!policy.reclaim || self.is_being_relieved());
        let before = self.stages.of();
        self.challenge_unseen(snapshot);
        let left_calm = self.watch(&room, spent.iter().sum(), elapsed);
        if let Some(loads) = snapshot.loads
            && !self.stages.is_calm()
        {
            self.demands.replace(loads, &policy.ceilings);
            self.share(&room, policy);
        }
        self.fall(&room, elapsed);

        // What a calm guard granted is no debt of the tiers.
        let earned_by = if left_calm { [0; TIERS] } else { spent };
        let (allowances, held_back) = self.allowances(&room, snapshot, &earned_by, elapsed);
        Some(Decision {
            grants: self.grants(snapshot, allowances),
            stages: self.stages.of(),
            shares: self.compiled(),
            reclaim: self.reclaim(&room, policy),
            pace: self.pace(&room, held_back),
            changes: self.changes(before, &room),
            steering: self.steering(&room),
        })
    }

    /// Takes in the counts; what is in flight.
    fn measure(
        &mut self,
        snapshot: &Snapshot<'_>,
        table: TableSample,
        spent: &[u64; TIERS],
        elapsed: Duration,
    ) -> u64 {
        let now = self.clock.now;
        if let Some(new_flows) = snapshot.new_flows {
            self.growth.observe(now, table.entries, new_flows);
            self.reserve.observe(now, table, new_flows);
        }
        self.pulse.observe(real(spent.iter().sum()), elapsed);
        for (need, &spent) in self.needs.iter_mut().zip(spent) {
            need.observe(real(spent), elapsed);
        }
        let total = snapshot.admitted.iter().sum();
        self.in_flight.observe(now, total).saturating_add(snapshot.processors)
    }

    /// Challenges SYNs when strangers have spent what they got until their demands are known: a
    /// client that lives loses some 20 ms by it, and a second by a refusal.
    fn challenge_unseen(&mut self, snapshot: &Snapshot<'_>) {
        let strangers = Tier::Strangers as usize;
        let is_spent = snapshot.admitted[strangers] >= snapshot.limits[strangers];
        if is_spent && !self.stages.is_calm() && !self.knows_demands && self.presumed.is_none() {
            self.presumed = Some(self.clock.now);
            self.stages.challenge(Class::Tcp);
        }
    }

    /// Leaves calm when the table grows so fast that it would soon be at its target; whether it did.
    fn watch(&mut self, room: &Room, spent: u64, elapsed: Duration) -> bool {
        if !self.stages.is_calm() {
            return false;
        }
        let calm_grant = calm(room.headroom(), CALM_PART);
        let in_this_tick = real(spent) / elapsed.as_secs_f64().max(f64::EPSILON);
        let admitted =
            if spent >= calm_grant / 4 * 3 { in_this_tick } else { self.pulse.per_second() };
        let horizon = if room.fill_of_target() >= NEARLY_FULL { NEAR_WHEN_FULL } else { NEAR };
        let soon = real(room.headroom()) / horizon.as_secs_f64() + 1.0;
        let grows = admitted + self.growth.others() > soon && !elapsed.is_zero();
        if !grows && room.excess() == 0 {
            return false;
        }
        self.stages.leave_calm();
        self.demands.replace(&[], &[0; CLASSES]);
        self.knows_demands = false;
        self.surveyed = false;
        self.presumed = None;
        self.left_calm = self.clock.now;
        self.scanned = self.clock.now;
        self.gains = [1.0; TIERS];
        self.scarce = [false; TIERS];
        let rates = self.rates(room);
        for (saved, rate) in self.saved.iter_mut().zip(rates) {
            saved.grant(rate * SAVED);
        }
        self.saved[Tier::Allowed as usize].grant(real(room.spare()));
        self.saved[Tier::Strangers as usize].grant(real(room.headroom()) * UNTIL_KNOWN);
        true
    }

    fn compiled(&self) -> [[Ceiling; CLASSES]; TIERS] {
        self.shares.map(|tier| tier.map(|share| share_ceiling(share, self.jiffies_per_second)))
    }

    fn pace(&self, room: &Room, held_back: bool) -> Pace {
        if held_back {
            Pace::AtOnce
        } else if self.stages.is_calm() && room.fill_of_target() < NEARLY_FULL {
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
        let ahead = self.ahead(room);
        let budget = |stages: &Stages| self.strangers(&ahead, stages);
        let share = share_if_unchallenged(&self.stages, &self.demands, budget, class);
        share.is_finite().then_some(share)
    }

    fn steering(&self, room: &Room) -> Steering {
        Steering {
            fill: room.fill(),
            headroom: room.headroom(),
            others: self.growth.others(),
            budget: budget(room.distance(Tier::Regulars), self.growth.others()),
        }
    }

    /// Begins above the target and goes on below it, for a table that is at its target with what
    /// nobody answers has no room for who would be answered.
    fn reclaim(&mut self, room: &Room, policy: &ControlPolicy) -> Option<f64> {
        let target = real(room.target());
        let above = (room.fill_of_target() - RECLAIMED_TO) * target;
        let reclaims =
            policy.reclaim && (room.excess() > 0 || self.reclaims_since.is_some() && above > 0.0);
        self.reclaims_since = reclaims.then(|| self.reclaims_since.unwrap_or(self.clock.now));
        reclaims.then(|| (above / RECLAIMED_IN).min(RECLAIMED_MOST))
    }

    /// The room that stages, shares and rates are chosen for.
    fn ahead(&self, room: &Room) -> Room {
        match (self.replaces, self.is_being_relieved()) {
            // The kernel replaces whatever nobody answered: the flood's entries are no limit.
            (true, _) => room.relieved(0.0),
            (false, true) => room.relieved(RECLAIMED_TO),
            (false, false) => *room,
        }
    }

    fn is_being_relieved(&self) -> bool {
        let lasting = |since: Duration| self.clock.now.saturating_sub(since);
        self.reclaims_since.is_some_and(|since| lasting(since) < RELIEVED_WITHIN)
    }

    /// A table without a maximum is no limit.
    fn unlimited(&mut self, snapshot: &Snapshot<'_>) -> Decision {
        self.stages = Stages::default();
        self.shares = NO_SHARES;
        self.crest = None;
        self.reclaims_since = None;
        self.replaces = false;
        let mark = |admitted: u64| TierGrant {
            limit: admitted.saturating_add(UNLIMITED),
            wake_at: admitted.saturating_add(UNLIMITED / 4 * 3),
        };
        Decision {
            grants: snapshot.admitted.map(mark),
            stages: self.stages.of(),
            shares: self.compiled(),
            reclaim: None,
            pace: Pace::Calm,
            changes: Vec::new(),
            steering: Steering {
                fill: 0.0,
                headroom: UNLIMITED,
                others: self.growth.others(),
                budget: f64::INFINITY,
            },
        }
    }
}

/// Time that never goes back: what a clock loses is not counted, and it goes on from there.
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

/// What a tier may open until the next tick of a calm guard.
fn calm(headroom: u64, part: u64) -> u64 {
    (headroom / part).max(CALM_LEAST).min(headroom)
}
