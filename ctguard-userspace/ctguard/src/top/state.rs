//! What the screen shows, from what was read: rates from two readings, the history of the fill, and
//! the sources that matter.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, SystemTime},
};

use ctguard_control::sources::SourceScope;
use ctguard_layout::{CLASSES, Class, Stage};
use ctguard_units::real;

use super::{
    reading::{Asked, Counts, Daemon, Facts, Standing},
    sources::SourceRates,
};
use crate::holders::{AboveLimit, SourceHolder};

/// Rates are of so long a time at least, so that they do not jump at a high pace.
const RATE_SPAN: Duration = Duration::from_secs(1);
/// The growth of the table is of so long a time.
const GROWTH_SPAN: Duration = Duration::from_secs(5);
/// Seconds of history that are kept.
const MOST_SECONDS: usize = 600;
/// Sources that are shown for their rate alone.
const FASTEST: usize = 20;

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(super) facts: Facts,
    /// The newest last.
    past: VecDeque<Counts>,
    pub(super) history: History,
    source_rates: SourceRates,
    pub(super) sources: Vec<Source>,
    pub(super) reclaim: Reclaim,
    /// Why nothing could be read.
    pub(super) problem: Option<String>,
}

/// New flows per second of one class.
#[derive(Clone, Debug, Default)]
pub(super) struct ClassRates {
    pub(super) stage: Stage,
    pub(super) admitted: f64,
    pub(super) challenged: f64,
    pub(super) refused: f64,
    /// The most first, without those that are 0.
    pub(super) reasons: Vec<(&'static str, f64)>,
}

impl ClassRates {
    pub(super) fn arriving(&self) -> f64 {
        self.admitted + self.challenged + self.refused
    }
}

/// A source that holds entries, asks for many, or is refused.
#[derive(Clone, Debug, Default)]
pub(super) struct Source {
    pub(super) name: String,
    pub(super) tier: &'static str,
    /// None if it is not among those that hold most.
    pub(super) holds: Option<u32>,
    pub(super) states: Vec<(String, u32)>,
    /// New flows per second.
    pub(super) asks: f64,
    pub(super) refused: f64,
    /// What refuses them.
    pub(super) limit: Option<Limit>,
}

#[derive(Clone, Debug)]
pub(super) struct Limit {
    pub(super) kind: &'static str,
    pub(super) class: String,
    pub(super) per_second: f64,
    /// False in a dry run, and for a default ceiling, which does not hold in calm.
    pub(super) is_in_force: bool,
}

/// The peak fill and the highest stage of each second, the newest last.
#[derive(Debug, Default)]
pub(super) struct History {
    second: u64,
    seconds: VecDeque<(f64, Stage)>,
}

/// What was reclaimed from look to look of the daemon.
#[derive(Debug, Default)]
pub(super) struct Reclaim {
    looked_at: String,
    counted: BTreeMap<String, u64>,
    /// Entries per second by class, the most first.
    pub(super) rates: Vec<(String, f64)>,
}

impl State {
    pub(crate) fn learn(&mut self, facts: Facts) {
        if let Some(holders) = &facts.holders {
            self.reclaim.see(&holders.looked_at, &holders.reclaimed);
        }
        self.facts = facts;
    }

    /// Nothing could be read; what was read before stays.
    pub(crate) fn fail(&mut self, problem: String) {
        self.problem = Some(problem);
    }

    pub(crate) fn update(
        &mut self,
        counts: Counts,
        asked: &[Asked],
        standing: impl FnMut(SourceScope) -> Standing,
    ) {
        self.problem = None;
        let stage = counts.stages.into_iter().max().unwrap_or_default();
        if counts.max > 0 {
            let fill = real(counts.entries) / real(counts.max);
            self.history.see(counts.at.as_secs(), fill, stage);
        }
        let asking = self.source_rates.look(counts.at, asked, FASTEST);
        while self.past.get(1).is_some_and(|next| next.at + GROWTH_SPAN <= counts.at) {
            self.past.pop_front();
        }
        self.past.push_back(counts);
        self.sources = self.merge_sources(&asking, standing);
    }

    pub(super) fn now(&self) -> Option<&Counts> {
        self.past.back()
    }

    pub(super) fn fill(&self) -> Option<f64> {
        let now = self.now()?;
        (now.max > 0).then(|| real(now.entries) / real(now.max))
    }

    pub(super) fn stage(&self) -> Stage {
        let stages = self.now().map(|now| now.stages).unwrap_or_default();
        stages.into_iter().max().unwrap_or_default()
    }

    /// Entries per second; none before there are two readings.
    pub(super) fn growth(&self) -> Option<f64> {
        let (first, last) = (self.past.front()?, self.past.back()?);
        let seconds = last.at.saturating_sub(first.at).as_secs_f64();
        (seconds > 0.0).then(|| (real(last.entries) - real(first.entries)) / seconds)
    }

    /// Seconds until the table reaches its target, if it goes on to grow like this.
    pub(super) fn until_target(&self) -> Option<f64> {
        let now = self.now()?;
        let room = real(now.max) * self.facts.target - real(now.entries);
        self.growth().filter(|growth| *growth >= 1.0 && room > 0.0).map(|growth| room / growth)
    }

    pub(super) fn classes(&self) -> [ClassRates; CLASSES] {
        let Some(now) = self.now() else { return Default::default() };
        let before = self.before(now);
        let seconds = now.at.saturating_sub(before.at).as_secs_f64();
        Class::ALL.map(|class| {
            let class = class as usize;
            let (now_of, before_of) = (&now.classes[class], &before.classes[class]);
            let refused = now_of.refused.iter().map(|(reason, flows)| {
                let before = before_of.refused.iter().find(|(label, _)| label == reason);
                (*reason, rate(*flows, before.map_or(*flows, |before| before.1), seconds))
            });
            let mut reasons: Vec<_> = refused.filter(|(_, rate)| *rate > 0.0).collect();
            reasons.sort_by(|one, other| other.1.total_cmp(&one.1));
            ClassRates {
                stage: now.stages[class],
                admitted: rate(now_of.admitted, before_of.admitted, seconds),
                challenged: rate(now_of.challenged, before_of.challenged, seconds),
                refused: reasons.iter().map(|(_, rate)| rate).sum(),
                reasons,
            }
        })
    }

    /// Challenges per second that were answered.
    pub(super) fn answered(&self) -> f64 {
        self.rate_of(|counts| counts.answered)
    }

    /// Packets per second of sources on a deny list.
    pub(super) fn denied_packets(&self) -> f64 {
        self.rate_of(|counts| counts.denied_packets)
    }

    fn rate_of(&self, count: fn(&Counts) -> u64) -> f64 {
        let Some(now) = self.now() else { return 0.0 };
        let before = self.before(now);
        rate(count(now), count(before), now.at.saturating_sub(before.at).as_secs_f64())
    }

    /// The newest reading that is old enough to make a rate with.
    fn before<'s>(&'s self, now: &'s Counts) -> &'s Counts {
        let mut older = self.past.iter().rev().skip(1);
        let old_enough = |counts: &&Counts| counts.at + RATE_SPAN <= now.at;
        older.find(old_enough).or(self.past.front()).unwrap_or(now)
    }

    fn merge_sources(
        &mut self,
        asking: &[(SourceScope, f64)],
        mut standing: impl FnMut(SourceScope) -> Standing,
    ) -> Vec<Source> {
        let mut merged = BTreeMap::<SourceScope, Source>::new();
        for (source, rate) in asking {
            merged.entry(*source).or_default().asks = *rate;
        }
        let calm = self.stage() == Stage::Calm;
        let (held, above): (&[SourceHolder], &[AboveLimit]) = match &self.facts.holders {
            Some(holders) => (&holders.sources, &holders.above_limits),
            None => (&[], &[]),
        };
        for holder in held {
            let Ok(scope) = holder.source.parse() else { continue };
            let source: &mut Source = merged.entry(scope).or_default();
            source.holds = Some(holder.entries);
            source.states.clone_from(&holder.states);
        }
        for (scope, source) in &mut merged {
            let Standing { tier, counted } = standing(*scope);
            source.tier = tier;
            if let Some(counted) = counted {
                source.asks += self.source_rates.of_known(*scope, counted);
            }
        }
        // What the daemon counted of these is exact, and of the same time as what was refused.
        for above in above {
            let Ok(scope) = above.source.parse() else { continue };
            let source = merged
                .entry(scope)
                .or_insert_with(|| Source { tier: standing(scope).tier, ..Source::default() });
            if source.limit.is_none() {
                source.asks = 0.0;
                source.limit = Some(Limit::new(above, self.facts.is_dry_run, calm));
            }
            source.asks += above.flows_per_second;
            source.refused += above.refused_per_second;
        }
        let named =
            |(scope, source): (SourceScope, Source)| Source { name: scope.to_string(), ..source };
        merged.into_iter().map(named).collect()
    }

    /// What the operator has to know before all else.
    pub(super) fn alarms(&self) -> Vec<(&'static str, String)> {
        let daemon = match self.facts.daemon {
            Daemon::Runs => None,
            Daemon::Hangs => Some("does not tick"),
            Daemon::IsGone => Some("NOT RUNNING"),
        };
        let daemon = daemon.map(|daemon| {
            (
                "daemon",
                format!("{daemon}: the fallback rate holds, with the last stages and shares"),
            )
        });
        let fault = self.facts.fault.clone().map(|fault| ("FAULT", fault));
        daemon.into_iter().chain(fault).collect()
    }
}

impl Limit {
    fn new(above: &AboveLimit, is_dry_run: bool, calm: bool) -> Self {
        let kind = match above.limit.as_str() {
            "share" => "share",
            "default-ceiling" => "default",
            _ => "ceiling",
        };
        Self {
            kind,
            class: above.class.clone(),
            per_second: above.limit_per_second,
            is_in_force: !(is_dry_run || calm && kind == "default"),
        }
    }
}

impl History {
    fn see(&mut self, second: u64, fill: f64, stage: Stage) {
        let passed = second.saturating_sub(self.second);
        if let (0, Some(last)) = (passed, self.seconds.back_mut()) {
            *last = (last.0.max(fill), last.1.max(stage));
            return;
        }
        // What was read after a while stands for all of that while.
        let new = if self.seconds.is_empty() { 1 } else { passed.min(MOST_SECONDS as u64) };
        self.second = second;
        for _ in 0..new {
            self.seconds.push_back((fill, stage));
        }
        let surplus = self.seconds.len().saturating_sub(MOST_SECONDS);
        self.seconds.drain(..surplus);
    }

    /// The last `most` seconds, the newest last.
    pub(super) fn last(&self, most: usize) -> impl ExactSizeIterator<Item = (f64, Stage)> + '_ {
        let first = self.seconds.len().saturating_sub(most);
        self.seconds.range(first..).copied()
    }
}

impl Reclaim {
    fn see(&mut self, looked_at: &str, counted: &BTreeMap<String, u64>) {
        if self.looked_at == looked_at {
            return;
        }
        let time = |text: &str| humantime::parse_rfc3339(text).ok();
        let passed = time(looked_at)
            .zip(time(&self.looked_at))
            .and_then(|(now, before): (SystemTime, SystemTime)| now.duration_since(before).ok());
        self.rates = match passed {
            Some(passed) => {
                let of = |(class, entries): (&String, &u64)| {
                    let before = self.counted.get(class).copied().unwrap_or_default();
                    (class.clone(), rate(*entries, before, passed.as_secs_f64()))
                };
                counted.iter().map(of).filter(|(_, rate)| *rate > 0.0).collect()
            }
            None => Vec::new(),
        };
        self.rates.sort_by(|one, other| other.1.total_cmp(&one.1));
        looked_at.clone_into(&mut self.looked_at);
        self.counted.clone_from(counted);
    }
}

/// Counters start over when a guard is loaded again.
fn rate(now: u64, before: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { real(now.saturating_sub(before)) / seconds } else { 0.0 }
}
