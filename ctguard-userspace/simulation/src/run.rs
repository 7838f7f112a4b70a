//! The run: one event after the other, the guard's maps, the table and the daemon among them.

use std::{ops::Range, time::Duration};

use ctguard_layout::Policy;
use fastrand::Rng;

use super::{
    agenda::{Agenda, Event},
    capture::{Capture, CaptureError},
    clock::Clock,
    flows::{Flows, Holders, Waiting},
    frame::Frame,
    group::Group,
    network::Network,
    outcome::Record,
    scenario::{GuardOptions, Scenario},
    steer::{Decided, Steering},
    tables::{Maps, hash_key},
    traffic::Traffic,
};
use ctguard_control::{
    Pace, StageChange, reclaim_pass::deletions, sources::look_interval, tuning::TUNING,
};

/// The daemon, as far as time goes.
#[derive(Debug, Default)]
struct Daemon {
    last_tick: Duration,
    /// When it ticks next, and the number of that tick.
    next_tick: Duration,
    number: u64,
    decided: Option<Decided>,
    /// Decided until the next write.
    writes_at: Option<Duration>,
    ticks: u64,
    woken: u64,
    /// It has died since the last tick.
    is_dead: bool,
    reclaims: bool,
}

/// Younger entries are not deleted.
const SPARED: Duration = Duration::from_secs(1);

/// What a run leaves.
pub(super) struct Finished {
    pub(super) record: Record,
    pub(super) ticks: u64,
    pub(super) woken: u64,
    pub(super) changes: Vec<(Duration, StageChange)>,
}

/// A run.
pub(super) struct Run<'s> {
    pub(super) scenario: &'s Scenario,
    pub(super) duration: Duration,
    pub(super) random: Rng,
    pub(super) now: Duration,
    pub(super) clock: Clock,
    pub(super) agenda: Agenda,
    pub(super) maps: Maps,
    pub(super) networks: Vec<Network>,
    pub(super) traffic: Vec<Traffic>,
    pub(super) flows: Flows,
    pub(super) waiting: Waiting,
    pub(super) frame: Frame,
    /// The recording's next packet.
    pub(super) recorded: Frame,
    pub(super) record: Record,
    pub(super) capture: Option<Capture>,
    pub(super) holders: Holders,
    /// Packets since the last one of those that are not judged was sampled.
    pub(super) unsampled: u64,
    changes: Vec<(Duration, StageChange)>,
    steering: Steering,
    daemon: Daemon,
}

impl<'s> Run<'s> {
    pub(super) fn new(
        scenario: &'s Scenario,
        policy: Policy,
        seed: u64,
        capture: Option<Capture>,
    ) -> Self {
        let mut random = Rng::with_seed(seed);
        let keys = [hash_key(|| random.u64(..)), hash_key(|| random.u64(..))];
        let duration = scenario.duration.0;
        let groups = &scenario.groups;
        let networks: Vec<_> =
            groups.iter().enumerate().map(|(index, group)| group.network(index)).collect();
        let traffic = groups.iter().zip(&networks);
        let traffic = traffic.map(|(group, network)| Traffic::new(group, network.size(), duration));
        let known = groups.iter().zip(&networks).filter(|(group, _)| group.known_before);
        let regulars = known.flat_map(|(group, network)| {
            (0..u64::from(group.sources)).map(|source| network.address(source).into())
        });
        let regulars = regulars.collect();
        let GuardOptions { processors, jiffies_per_second, .. } = scenario.guard;
        let told_apart = |recorded: bool| {
            let of = move |group: &Group| {
                if group.spoofed || recorded { 0 } else { group.sources }
            };
            groups.iter().map(of).collect::<Vec<_>>()
        };
        Self {
            duration,
            now: Duration::ZERO,
            clock: Clock::new(scenario.guard.jiffies_per_second),
            agenda: Agenda::default(),
            maps: Maps::new(scenario, policy, keys),
            traffic: traffic.collect(),
            networks,
            flows: Flows::default(),
            waiting: Waiting::default(),
            frame: Frame::empty(),
            recorded: Frame::empty(),
            record: Record::new(&told_apart(capture.is_some()), duration, measured(scenario)),
            capture,
            holders: Holders::default(),
            unsampled: 0,
            changes: Vec::new(),
            steering: Steering::new(policy, processors, jiffies_per_second, regulars),
            daemon: Daemon::default(),
            scenario,
            random,
        }
    }

    /// Runs to the end.
    pub(super) fn finish(mut self) -> Result<Finished, CaptureError> {
        self.fill_table();
        self.agenda.note(Duration::ZERO, Event::Tick { number: 0 });
        self.agenda.note(Duration::ZERO, Event::Learn);
        self.agenda.note(Duration::ZERO, Event::Sample);
        if self.capture.is_some() {
            self.await_packet()?;
        } else {
            for group in 0..self.traffic.len() {
                let Some(traffic) = self.traffic.get(group) else { continue };
                if let Some(at) = traffic.first(&mut self.random) {
                    self.agenda.note(at, Event::Arrival { group });
                }
            }
        }
        while let Some((at, event)) = self.agenda.next() {
            if at > self.duration {
                break;
            }
            self.now = at;
            self.maps.table.borrow_mut().expire(at);
            self.happens(event)?;
        }
        let Daemon { ticks, woken, .. } = self.daemon;
        Ok(Finished { record: self.record, ticks, woken, changes: self.changes })
    }

    fn happens(&mut self, event: Event) -> Result<(), CaptureError> {
        match event {
            Event::Arrival { group } => self.arrive(group),
            Event::Packet => self.replay()?,
            Event::Retry { flow } => self.retry(flow),
            Event::Reset { flow } => self.reset(flow),
            Event::Again { flow } => self.again(flow),
            Event::Confirm { flow } => self.confirm(flow),
            Event::Answer { flow } => self.answer(flow),
            Event::Acknowledge { flow } => self.acknowledge(flow),
            Event::Close { flow } => self.close(flow),
            Event::Tick { number } if number == self.daemon.number => self.tick(),
            Event::Tick { .. } => {}
            Event::Write => self.write(),
            Event::Learn => {
                self.learn();
                let interval = look_interval(self.steering.is_calm());
                self.agenda.note(self.now + interval, Event::Learn);
            }
            Event::Reclaim => self.reclaim(),
            Event::Sample => self.sample(),
        }
        Ok(())
    }

    /// The table's entries at the start: half-open connections of every age.
    fn fill_table(&mut self) {
        let longest = self.scenario.table.lifetimes.syn_sent.0;
        let mut table = self.maps.table.borrow_mut();
        for _ in 0..self.scenario.table.entries {
            let ends = longest.mul_f64(self.random.f64());
            table.insert(self.random.u64(..), Duration::ZERO, ends);
        }
    }

    fn tick(&mut self) {
        self.daemon.last_tick = self.now;
        if let Some(end) = self.outage_ends() {
            self.daemon.is_dead = true;
            self.plan_tick(end);
            return;
        }
        if std::mem::take(&mut self.daemon.is_dead) {
            self.steering.restart(self.scenario.guard.jiffies_per_second);
        }
        self.daemon.ticks += 1;
        let heartbeat = self.clock.jiffies(self.now);
        self.daemon.decided = self.steering.decide(self.now, heartbeat, &self.maps);
        let writes_at = self.now + self.scenario.guard.tick_delay.0;
        self.daemon.writes_at = Some(writes_at);
        self.agenda.note(writes_at, Event::Write);
    }

    fn write(&mut self) {
        self.daemon.writes_at = None;
        let Some(decided) = self.daemon.decided.take() else { return };
        let written = self.steering.write(decided, self.now, &mut self.maps);
        self.changes.extend(written.changes.into_iter().map(|change| (self.now, change)));
        if written.left_calm {
            self.learn();
        }
        if self.steering.reclaim().is_some() && !self.daemon.reclaims {
            self.daemon.reclaims = true;
            self.agenda.note(self.now, Event::Reclaim);
        }
        self.plan_tick(self.daemon.last_tick + written.pace.interval());
    }

    fn learn(&mut self) {
        if self.outage_ends().is_none() {
            self.holders.forget(self.now);
            self.steering.learn(self.holders.sources(), &self.maps);
        }
    }

    fn reclaim(&mut self) {
        let rate = self.steering.reclaim().filter(|_| self.outage_ends().is_none());
        self.daemon.reclaims = rate.is_some();
        let Some(rate) = rate else { return };
        if let Some(began) = self.now.checked_sub(SPARED) {
            let most = usize::try_from(deletions(rate)).unwrap_or(1);
            self.maps.table.borrow_mut().reclaim(most, began);
        }
        self.agenda.note(self.now + TUNING.pass_interval, Event::Reclaim);
    }

    fn plan_tick(&mut self, at: Duration) {
        let at = at.max(self.now);
        self.daemon.number += 1;
        self.daemon.next_tick = at;
        self.agenda.note(at, Event::Tick { number: self.daemon.number });
    }

    /// The data path calls the daemon.
    pub(super) fn wake(&mut self) {
        let daemon = &self.daemon;
        let soonest = daemon.last_tick + Pace::SHORTEST;
        let at = (self.now + self.scenario.guard.wake_delay.0).max(soonest);
        if daemon.writes_at.is_none() && at < daemon.next_tick && self.outage_ends().is_none() {
            self.daemon.woken += 1;
            self.plan_tick(at);
        }
    }

    /// The last moment at which the data path still decides on new flows as it does now: until the
    /// count of jiffies or the grant changes.
    pub(super) fn steady_until(&self) -> Duration {
        let daemon = &self.daemon;
        let write = daemon.next_tick + self.scenario.guard.tick_delay.0;
        self.clock.jiffy_ends(self.now).min(daemon.writes_at.unwrap_or(write)).min(self.duration)
    }

    fn outage_ends(&self) -> Option<Duration> {
        let outages = &self.scenario.guard.outages;
        let now =
            outages.iter().find(|outage| (outage.begins.0..outage.ends.0).contains(&self.now));
        now.map(|outage| outage.ends.0)
    }

    fn sample(&mut self) {
        self.record.look(self.maps.table.borrow().count());
        self.agenda.note(self.now + self.record.step, Event::Sample);
    }
}

/// The time that counts.
pub(super) fn measured(scenario: &Scenario) -> Range<Duration> {
    scenario.measure.map_or(Duration::ZERO..scenario.duration.0, |measure| {
        measure.from.0..measure.until.0.min(scenario.duration.0)
    })
}
