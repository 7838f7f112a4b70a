//! A table, a data path that keeps to grants, shares and stages, and sources, in steps of 1 ms.

mod parts;
mod scan;
mod sources;

use std::collections::{BTreeMap, VecDeque};

use ctguard_datapath::bucket::gcra;
use ctguard_layout::{
    Rate,
    units::{Jiffies, Ticks},
};

use super::*;
pub(super) use sources::{Group, Outcome, half_open, live, spoofed, starting, unguarded};

use crate::{LetIn, testing::Random};
use ctguard_settings::DEFAULT_POLICY;
use ctguard_units::whole;
use sources::Sender;

/// A kernel that counts a jiffy each millisecond.
pub(super) const JIFFIES_PER_SECOND: u32 = 1000;

/// From admission to the table, in milliseconds.
const TRANSIT: u64 = 3;

/// Between looks at the table, which find what can be reclaimed.
const LOOK: u64 = 500;

pub(super) const FOREVER: u64 = u64::MAX;
pub(super) const SECOND: u64 = 1000;

pub(super) const POLICY: ControlPolicy = ControlPolicy {
    target_ppm: 850_000,
    ceilings: [50, 100, 20],
    are_own_ceilings: [true; CLASSES],
    floors: [1, 1, 1],
    reclaim: true,
};

pub(super) struct Plant {
    pub(super) now: u64,
    pub(super) entries: u64,
    pub(super) max: u64,
    pub(super) policy: ControlPolicy,
    pub(super) controller: Controller,
    /// The daemon is late by so many milliseconds, and takes as long to write.
    pub(super) delay: u64,
    /// Expired entries leave so often, in milliseconds.
    pub(super) collected_every: u64,
    pub(super) fullest: u64,
    pub(super) changes: Vec<(u64, StageChange)>,
    pub(super) fills: Vec<f64>,
    pub(super) ticks: u64,
    pub(super) scans: u64,
    /// Flows for which a full table had no place.
    pub(super) dropped: u64,
    /// Entries by group, the last for those of the start: when each landed, and how many.
    held: Vec<VecDeque<(u64, u64)>>,
    /// Deleted so far, and found by the last look but not deleted since: of their own age, and such
    /// as the kernel would replace.
    pub(super) deleted: u64,
    pub(super) reclaimable: u64,
    pub(super) replaceable: u64,
    firm: u64,
    /// Groups of strangers that hold more than their part.
    above_part: Vec<bool>,
    groups: Vec<Group>,
    senders: Vec<Sender>,
    random: Random,
    landing: BTreeMap<u64, Vec<(usize, u64)>>,
    admitted: [u64; TIERS],
    /// Whether nothing is dropped.
    is_dry_run: bool,
    /// Flows that were not admitted, dropped or not.
    not_admitted: u64,
    let_in: LetIn,
    grants: [TierGrant; TIERS],
    stages: [Stage; CLASSES],
    shares: [[Ceiling; CLASSES]; TIERS],
    due: u64,
    paused_until: u64,
    woken: bool,
    writing: Option<(u64, Decision)>,
    scanned: Option<u64>,
    baseline: u64,
}

impl Plant {
    pub(super) fn new(max: u64, groups: Vec<Group>) -> Self {
        let sender = |group: &Group| {
            let sources = group.sources as usize;
            Sender {
                next: real(group.from),
                arrivals: vec![0; sources],
                seen: vec![[0; 2]; sources],
                average: vec![[0.0; 2]; sources],
                admitted_by_source: vec![0; sources],
                ..Sender::default()
            }
        };
        Self {
            now: 0,
            entries: 0,
            max,
            policy: POLICY,
            controller: Controller::new(JIFFIES_PER_SECOND),
            delay: 0,
            collected_every: 1,
            fullest: 0,
            changes: Vec::new(),
            fills: Vec::new(),
            ticks: 0,
            scans: 0,
            dropped: 0,
            held: vec![VecDeque::new(); groups.len()],
            deleted: 0,
            reclaimable: 0,
            replaceable: 0,
            firm: 0,
            above_part: vec![false; groups.len()],
            senders: groups.iter().map(sender).collect(),
            groups,
            random: Random::new(11),
            landing: BTreeMap::new(),
            admitted: [0; TIERS],
            is_dry_run: false,
            not_admitted: 0,
            let_in: LetIn::default(),
            grants: [TierGrant { limit: 0, wake_at: u64::MAX }; TIERS],
            stages: [Stage::Calm; CLASSES],
            shares: Default::default(),
            due: 0,
            paused_until: 0,
            woken: false,
            writing: None,
            scanned: None,
            baseline: 0,
        }
    }

    /// The table is so full at the start, with entries of this group that came evenly over `before`
    /// milliseconds.
    pub(super) fn fill(&mut self, entries: u64, before: u64, group: Group) {
        self.now = before.max(1);
        (self.due, self.scanned, self.baseline) = (self.now, None, self.now);
        self.groups.push(Group { from: FOREVER, ..group });
        self.senders.push(Sender::default());
        self.above_part.push(false);
        let steps = before.max(1).min(entries);
        let held = |step| (step * before.max(1) / steps, entries / steps);
        self.held.push((0..steps).map(held).collect());
        self.entries += entries / steps * steps;
        self.look();
        let now = real(self.now);
        self.senders.iter_mut().for_each(|sender| sender.next = sender.next.max(now));
    }

    /// All of it, for people.
    pub(super) fn line(&self) -> String {
        let (fill, deviation) = (self.mean_fill(), self.deviation());
        let fullest = real(self.fullest) / real(self.max);
        let groups: Vec<String> = (0..self.groups.len())
            .map(|group| {
                let outcome = self.outcome(group);
                format!("{:.4} of {}", outcome.success(), outcome.offered)
            })
            .collect();
        format!(
            "fullest {fullest:.4} fill {fill:.4} sd {deviation:.4} ticks {} scans {} {groups:?}",
            self.ticks, self.scans
        )
    }

    /// Runs until so many milliseconds, and counts what comes after.
    pub(super) fn count_from(&mut self, until: u64) {
        self.run(until);
        self.fills.clear();
        for sender in &mut self.senders {
            sender.offered = 0;
            sender.admitted = 0;
            sender.admitted_by_source.fill(0);
        }
    }

    pub(super) fn run(&mut self, until: u64) {
        while self.now < until {
            self.step();
        }
    }

    /// Nothing is dropped or deleted from now on, or again.
    pub(super) const fn dry_run(&mut self, is_dry_run: bool) {
        self.is_dry_run = is_dry_run;
        self.policy.reclaim = !is_dry_run;
    }

    /// The daemon does not tick for so long.
    pub(super) fn pause(&mut self, milliseconds: u64) {
        self.paused_until = self.now + milliseconds;
        self.run(self.paused_until);
    }

    pub(super) fn outcome(&self, group: usize) -> Outcome {
        let Sender { offered, admitted, ref admitted_by_source, .. } = self.senders[group];
        Outcome { offered, admitted, by_source: admitted_by_source.clone() }
    }

    pub(super) fn target(&self) -> u64 {
        TableSample { entries: 0, max: self.max }.target(self.policy.target_ppm)
    }

    /// The first change into a stage, in milliseconds.
    pub(super) fn first(&self, stage: Stage) -> Option<u64> {
        self.changes.iter().find(|(_, change)| change.to == stage).map(|&(at, _)| at)
    }

    /// Standard deviation of the fill.
    pub(super) fn deviation(&self) -> f64 {
        let mean = self.mean_fill();
        let squares: f64 = self.fills.iter().map(|fill| (fill - mean).powi(2)).sum();
        (squares / real(self.fills.len() as u64)).sqrt()
    }

    pub(super) fn mean_fill(&self) -> f64 {
        self.fills.iter().sum::<f64>() / real(self.fills.len() as u64)
    }

    fn step(&mut self) {
        self.daemon();
        self.now += 1;
        self.collect();
        if self.now.is_multiple_of(LOOK) {
            self.look();
        }
        for group in 0..self.groups.len() {
            self.send(group);
        }
        for (group, flows) in self.landing.remove(&self.now).unwrap_or_default() {
            // The kernel finds what it can replace.
            let needed = (self.entries + flows).saturating_sub(self.max);
            self.remove(needed, |group, _| group.is_replaceable);
            let landed = flows.min(self.max.saturating_sub(self.entries));
            self.dropped += flows - landed;
            self.entries += landed;
            self.held[group].push_back((self.now, landed));
        }
        self.fullest = self.fullest.max(self.entries);
        if self.now.is_multiple_of(10) {
            self.fills.push(real(self.entries) / real(self.max));
        }
    }

    /// Counts what can be deleted.
    fn look(&mut self) {
        (self.reclaimable, self.replaceable, self.firm) = (0, 0, 0);
        for (group, held) in self.groups.iter().zip(&self.held) {
            for &(at, entries) in held {
                if self.now - at >= group.reclaimable_after {
                    self.reclaimable += entries;
                } else if group.is_replaceable {
                    self.replaceable += entries;
                } else {
                    self.firm += entries;
                }
            }
        }
        self.find_parts();
    }

    fn delete(&mut self, entries: u64) {
        let now = self.now;
        let ripe = |group: &Group, at| now - at >= group.reclaimable_after;
        let reclaimed = self.remove(entries.min(self.reclaimable), ripe);
        self.reclaimable -= entries.min(self.reclaimable);
        let replaced = self.remove(entries - reclaimed, |group, _| group.is_replaceable);
        self.replaceable = self.replaceable.saturating_sub(replaced);
        self.deleted += reclaimed + replaced;
    }

    /// Removes up to so many entries, of each group the oldest first; returns how many.
    fn remove(&mut self, entries: u64, may: impl Fn(&Group, u64) -> bool) -> u64 {
        let mut left = entries;
        for (group, held) in self.groups.iter().zip(&mut self.held) {
            while let Some((at, count)) = held.front_mut().filter(|(at, _)| may(group, *at))
                && left > 0
            {
                let _ = at;
                let removed = left.min(*count);
                *count -= removed;
                left -= removed;
                if *count == 0 {
                    held.pop_front();
                }
            }
        }
        self.entries -= entries - left;
        entries - left
    }

    fn collect(&mut self) {
        if !self.now.is_multiple_of(self.collected_every) {
            return;
        }
        for (group, held) in self.groups.iter().zip(&mut self.held) {
            while let Some((_, count)) =
                held.pop_front_if(|(at, _)| *at + group.lifetime <= self.now)
            {
                self.entries -= count;
            }
        }
    }

    fn send(&mut self, index: usize) {
        let group = self.groups[index];
        if self.now < group.from || self.now >= group.until {
            return;
        }
        if group.sources == 0 {
            return self.send_spoofed(&group, index);
        }
        while self.senders[index].next < real(self.now) {
            let gap = -(1.0 - self.random.unit()).max(1e-9).ln();
            self.senders[index].next += gap * 1000.0 / group.rate;
            let source = self.random.below(group.sources) as usize;
            let admits = self.admit(&group, index, source);
            let sender = &mut self.senders[index];
            sender.offered += 1;
            if admits {
                sender.admitted += 1;
                sender.admitted_by_source[source] += 1;
            }
            self.not_admitted += u64::from(!admits);
            self.land(index, u64::from(admits || self.is_dry_run));
        }
    }

    /// Evenly, and each of another source.
    fn send_spoofed(&mut self, group: &Group, index: usize) {
        let sender = &mut self.senders[index];
        let flows = whole(((real(self.now) - sender.next) * group.rate / 1000.0).ceil());
        sender.next += real(flows) * 1000.0 / group.rate;
        sender.offered += flows;
        let admitted = if group.is_guarded {
            self.tier(index).map_or(0, |tier| self.take(tier, flows))
        } else {
            flows
        };
        self.senders[index].admitted += admitted;
        self.not_admitted += flows - admitted;
        self.land(index, if self.is_dry_run { flows } else { admitted });
    }

    fn land(&mut self, group: usize, flows: u64) {
        if self.groups[group].lifetime > 0 && flows > 0 {
            self.landing.entry(self.now + TRANSIT).or_default().push((group, flows));
        }
    }

    fn tier(&self, index: usize) -> Option<usize> {
        let group = &self.groups[index];
        let tier = if self.above_part[index] { Tier::AbovePart } else { group.tier };
        Some(match (tier, self.stages[group.class as usize]) {
            (Tier::Allowed, _) => Tier::Allowed as usize,
            (_, Stage::Calm) => Tier::Strangers as usize,
            (Tier::Strangers, Stage::Challenge) if group.sources == 0 => return None,
            (Tier::Strangers, Stage::Challenge) if group.class == Class::Udp => {
                Tier::Retried as usize
            }
            (Tier::Strangers, Stage::Challenge) => Tier::Answered as usize,
            (tier, _) => tier as usize,
        })
    }

    fn admit(&mut self, group: &Group, index: usize, source: usize) -> bool {
        let class = group.class as usize;
        let Some(tier) = self.tier(index) else { return false };
        let now = Jiffies(1_000_000 + self.now).to_ticks();
        let sender = &mut self.senders[index];
        sender.seen[source][0] += 1;
        sender.seen[source][1] += u64::from(tier == Tier::Answered as usize);
        let limit = self.limit(class, tier);
        let arrival = Ticks(self.senders[index].arrivals[source]);
        let conforms = group.tier == Tier::Allowed || gcra::excess(arrival, now, &limit) == 0;
        if !conforms || self.take(tier, 1) == 0 {
            return false;
        }
        self.senders[index].arrivals[source] = gcra::charged(arrival, now, &limit).0;
        true
    }

    fn limit(&self, class: usize, tier: usize) -> Ceiling {
        let is_own = self.policy.are_own_ceilings[class];
        let rate = if is_own { self.policy.ceilings[class] } else { 0 };
        let rate = Rate { flows_per_second: rate, burst: 4 * rate };
        let ceiling =
            ctguard_units::ceilings(&DEFAULT_POLICY, &[rate; CLASSES], JIFFIES_PER_SECOND);
        let share = self.shares[tier][class];
        if share.interval > ceiling[class].interval { share } else { ceiling[class] }
    }

    /// As many of so many as the grant lets in.
    fn take(&mut self, tier: usize, flows: u64) -> u64 {
        let (before, grant) = (self.admitted[tier], self.grants[tier]);
        let admitted = flows.min(grant.limit.saturating_sub(before));
        self.woken |= (before..before + admitted).contains(&grant.wake_at);
        self.admitted[tier] += admitted;
        admitted
    }

    fn daemon(&mut self) {
        if let Some((at, decision)) = self.writing.take() {
            if at > self.now {
                self.writing = Some((at, decision));
                return;
            }
            self.write(&decision);
        }
        if self.woken {
            self.woken = false;
            self.due = self.due.min(self.now + self.delay);
        }
        if self.now >= self.due.max(self.paused_until) {
            self.tick();
        }
    }

    fn tick(&mut self) {
        let now = Duration::from_millis(self.now);
        let loads = self.controller.wants_loads(now).then(|| self.scan());
        let snapshot = Snapshot {
            now,
            limits: self.grants.map(|grant| grant.limit),
            admitted: self.admitted,
            new_flows: self.controller.wants_new_flows(now).then(|| {
                let admitted = self.admitted.iter().sum();
                self.let_in.count(now, admitted, self.not_admitted, self.is_dry_run)
            }),
            table: Some(TableSample { entries: self.entries, max: self.max }),
            loads: loads.as_deref(),
            processors: 2,
            reclaimable: self.reclaimable,
            replaceable: self.replaceable,
            firm: self.firm,
            deleted: self.deleted,
            look_interval: Duration::from_millis(LOOK),
        };
        let was_calm = self.stages == [Stage::Calm; CLASSES];
        let decision = self.controller.tick(&snapshot, &self.policy).unwrap();
        if was_calm && decision.stages != [Stage::Calm; CLASSES] {
            self.scanned = None;
            self.baseline = self.now;
            for sender in &mut self.senders {
                sender.seen.fill([0; 2]);
            }
        }
        self.ticks += 1;
        self.due =
            self.now + u64::try_from(decision.pace.interval().as_millis()).unwrap() + self.delay;
        self.changes.extend(decision.changes.iter().map(|change| (self.now, *change)));
        if self.delay == 0 {
            self.write(&decision);
        } else {
            self.writing = Some((self.now + self.delay, decision));
        }
    }

    fn write(&mut self, decision: &Decision) {
        self.stages = decision.stages;
        self.shares = decision.shares;
        self.grants = decision.grants;
        self.delete(decision.delete);
        // Marks that were passed before they were written.
        self.woken |= (0..TIERS).any(|tier| {
            let grant = self.grants[tier];
            self.admitted[tier] > grant.wake_at && grant.limit > grant.wake_at
        });
    }
}
