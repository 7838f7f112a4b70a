//! What is known of sources: how they rank, and who holds more than its part.
//!
//! A source's standing outlives its entries. *Proven* is who completed a handshake in the last
//! minutes. *Earlier* is who was proven for a while in calm: a bot that completes handshakes during
//! an attack is never earlier, and not in the next attack either unless calm has lasted.

use std::{cmp::Reverse, collections::HashMap, sync::Arc, time::Duration};

use ctguard_datapath::sources::{CAPACITY, Tiers};

use super::{
    holdings::{Claim, Entries, Parts, PartsRoom, Proof},
    look::Look,
    networks::cut,
    reclaim::Marks,
    regulars::Regulars,
    source_map::SourceMap,
    sources::{KnownSources, SourceScope},
};
use crate::tuning::TUNING;
use ctguard_units::TableSample;

/// All sources of which something is known, in bounded memory.
#[derive(Clone, Debug, Default)]
pub struct Standings {
    regulars: Regulars,
    /// Those of them that count, and what they usually hold.
    usual: HashMap<SourceScope, Entries>,
    proven: SourceMap<Proven>,
    marks: Arc<Marks>,
    marked: Duration,
    parts: Parts,
    calm_since: Option<Duration>,
    learnt: Option<Duration>,
    has_looked: bool,
}

/// A source that completed a handshake; times in seconds.
#[derive(Clone, Copy, Debug)]
struct Proven {
    seen: u32,
    /// Since when it is trusted to have come in calm.
    since: Option<u32>,
    is_earlier: bool,
}

impl Standings {
    /// With the regulars of former runs.
    pub fn new(regulars: Regulars) -> Self {
        Self { usual: regulars.regulars(), regulars, ..Self::default() }
    }

    /// To be saved.
    pub const fn regulars(&self) -> &Regulars {
        &self.regulars
    }

    /// What the next look needs.
    pub fn marks(&self) -> Arc<Marks> {
        Arc::clone(&self.marks)
    }

    /// The most entries that each source may hold, if it is not known to hold more; `None` if all fit.
    pub const fn parts(&self) -> Parts {
        self.parts
    }

    /// Learns from a look. All entries that are not dead weight may fill the `room`.
    ///
    /// An interrupted look has missed entries: it shows who is proven, and nothing else.
    pub fn looked<T>(
        &mut self,
        look: &Look<T>,
        now: Duration,
        since_1970: Duration,
        calm: bool,
        room: PartsRoom,
    ) {
        if calm {
            self.calm_since.get_or_insert(now);
        } else {
            self.leave_calm();
        }
        let is_shown = |proof: Proof| look.handshakes_prove || proof == Proof::None;
        self.see(look.holdings.proven().filter(|_| is_shown(Proof::OfAddress)), now);
        if !look.complete && now < self.marked.saturating_add(TUNING.marks_last) {
            return;
        }
        let is_due = |learnt| now >= TUNING.learning_interval.saturating_add(learnt);
        if calm && self.learnt.is_none_or(is_due) {
            self.follow_clock(now, since_1970);
            self.learnt = Some(now);
            let answered = look.holdings.answered().filter(|(_, proof, _)| is_shown(*proof));
            self.regulars.learn(answered, since_1970);
            self.usual = self.regulars.regulars();
        }
        self.mark(look, now, room);
    }

    /// Whoever sets the clock, by hand or by the first answer of a time server, makes no regular a
    /// stranger, and does not keep sources from becoming regulars.
    fn follow_clock(&mut self, now: Duration, since_1970: Duration) {
        const HOUR: i64 = 3600;
        const MANY: u32 = 10;
        let as_of = self.regulars.as_of();
        let expected = match self.learnt {
            Some(learnt) => as_of.saturating_add(now.saturating_sub(learnt)),
            // After so long off nobody would be left: rather, the clock was behind when the record was made.
            None if since_1970.saturating_sub(as_of) > TUNING.regular_half_life * MANY => as_of,
            // The machine may have been off.
            None => as_of.max(since_1970),
        };
        let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        let moved = seconds(since_1970).saturating_sub(seconds(expected));
        let hours = moved.saturating_add(moved.signum() * HOUR / 2) / HOUR;
        if hours != 0 {
            self.regulars.move_clock(hours);
        }
    }

    /// From now on nobody becomes earlier, until calm has returned. Who came in the last seconds may
    /// have come for the attack.
    pub fn leave_calm(&mut self) {
        if self.calm_since.take().is_some() {
            for proven in self.proven.values_mut().filter(|proven| !proven.is_earlier) {
                proven.since = None;
            }
        }
    }

    /// All known sources, as many as the data path's set holds.
    ///
    /// A tier that needs more places than there are gets them fairly between networks, and the rest
    /// of the set is left to the next tier.
    pub fn known(&self) -> KnownSources {
        const PLACES: usize = CAPACITY as usize;
        let mut sources: Vec<SourceScope> = self.usual.keys().copied().collect();
        let others = self.proven.iter().filter(|(source, _)| !self.usual.contains_key(source));
        let mut others = others.map(|(&source, &proven)| (source, proven)).collect();
        keep_first(&mut others, PLACES - sources.len());
        sources.extend(others.into_iter().map(|(source, _)| source));
        let strangers =
            self.marks.keys().copied().filter(|source| {
                !self.usual.contains_key(source) && !self.proven.contains_key(source)
            });
        let mut strangers = strangers.collect();
        let excess = |source: &SourceScope| self.marks[source].sum();
        cut(&mut strangers, PLACES - sources.len(), |&source| source, excess);
        sources.extend(strangers);
        sources.into_iter().filter_map(|source| Some((source, self.tiers(source)?))).collect()
    }

    fn tiers(&self, source: SourceScope) -> Option<Tiers> {
        let proven = self.proven.get(&source);
        let excess = self.marks.get(&source).copied().unwrap_or_default();
        let tiers = [
            (self.usual.contains_key(&source), Tiers::REGULAR),
            (proven.is_some(), Tiers::PROVEN),
            (proven.is_some_and(|proven| proven.is_earlier), Tiers::EARLIER),
            (excess.proving > 0, Tiers::ABOVE_PART),
            (excess.other > 0, Tiers::CHALLENGED),
        ];
        tiers.into_iter().filter(|(is, _)| *is).map(|(_, tiers)| tiers).reduce(Tiers::and)
    }

    fn see(&mut self, sources: impl Iterator<Item = SourceScope>, now: Duration) {
        let now_seconds = seconds(now);
        let lasted = |since| now.saturating_sub(since) >= TUNING.standing_memory;
        let (is_calm, heals) = (self.calm_since.is_some(), self.calm_since.is_some_and(lasted));
        // At the start nobody can tell who came when.
        let since = if self.has_looked { now_seconds } else { 0 };
        for source in sources {
            let new = Proven { seen: 0, since: is_calm.then_some(since), is_earlier: false };
            let proven = self.proven.entry(source).or_insert(new);
            proven.seen = now_seconds;
            if heals {
                proven.since.get_or_insert(now_seconds);
            }
        }
        self.has_looked = true;
        let passed = |since: u32| Duration::from_secs(now_seconds.saturating_sub(since).into());
        self.proven.retain(|_, proven| {
            if is_calm {
                proven.is_earlier =
                    proven.since.is_some_and(|since| passed(since) >= TUNING.earlier_after);
            }
            passed(proven.seen) < TUNING.standing_memory || proven.is_earlier && !is_calm
        });
        if self.proven.len() > CAPACITY as usize {
            let mut all = self.proven.drain().collect();
            keep_first(&mut all, CAPACITY as usize);
            self.proven.extend(all);
        }
    }

    fn mark<T>(&mut self, look: &Look<T>, now: Duration, room: PartsRoom) {
        let most = u32::try_from(room.all / TUNING.usual_most_divisor).unwrap_or(u32::MAX);
        let claim = |source| {
            let usual = self.usual.get(&source).copied();
            let is_earlier = || self.proven.get(&source).is_some_and(|proven| proven.is_earlier);
            let came_before = usual.is_some() || is_earlier();
            let Entries { proving, other } = usual.unwrap_or_default();
            let usual = Entries { proving: proving.min(most), other: other.min(most) };
            Claim { usual, came_before }
        };
        let parts = look.holdings.parts(claim, room);
        let marks = look.holdings.above(parts, claim, &self.marks);
        (self.parts, self.marks) = (parts, Arc::new(marks));
        self.marked = now;
    }
}

/// Leaves `most` of them at most. Those that came earlier come first, the longest known before the
/// others, and leave some places to the rest: a crowd that fills the table slowly is earlier too.
fn keep_first(all: &mut Vec<(SourceScope, Proven)>, most: usize) {
    if all.len() <= most {
        return;
    }
    let source = |&(source, _): &(SourceScope, Proven)| source;
    let age = |(_, proven): &(SourceScope, Proven)| Reverse(proven.since);
    let rank = |(_, proven): &(SourceScope, Proven)| (proven.since.is_some(), proven.seen);
    let mut later: Vec<_> = all.extract_if(.., |(_, proven)| !proven.is_earlier).collect();
    let places_for_later = later.len().min(most / 8);
    cut(all, most - places_for_later, source, age);
    cut(&mut later, most - all.len(), source, rank);
    all.extend(later);
}

/// What all sources together may hold before they are held to their parts. At least half of what fits
/// below the target, however low that is.
pub fn parts_room(table: TableSample, target_ppm: u32) -> PartsRoom {
    let target = table.target(target_ppm);
    let reserve = table.part(TUNING.parts_reserve_ppm).min(target / 2);
    PartsRoom { all: target - reserve, reserve }
}

fn seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
