//! Scores of sources that were seen in calm times, over days, and what they usually hold.
//!
//! A score grows by 1 in each hour in which the source is seen, and halves every three days. A source
//! that nobody saw complete a handshake in the hour gets less, because its packets may have been
//! spoofed. Nothing is learnt outside calm: the sources that fill the table would become regulars.

use std::{collections::HashMap, time::Duration};

use super::{
    holdings::{Entries, Proof},
    networks::{cut, turns},
    source_map::SourceMap,
    sources::SourceScope,
};
use crate::tuning::TUNING;
use ctguard_datapath::sources::CAPACITY;

/// Scores of at most [`Self::CAPACITY`] sources.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Regulars {
    /// As they were at `as_of`.
    sources: SourceMap<Memory>,
    as_of: Duration,
}

/// What is kept of a source.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Regular {
    /// The hours in which it was seen, the older ones worth less.
    pub score: f32,
    /// Entries that it usually holds: those that prove its address, and others.
    pub usual: [f32; 2],
    /// Whether it ever completed a handshake: otherwise its packets may have been spoofed.
    pub is_proven: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Memory {
    regular: Regular,
    /// The last hour since 1970 in which it was seen, and what that gave.
    hour: u32,
    given: f32,
}

impl Regular {
    /// Scores that no number of hours can give are unsound.
    fn is_sound(&self) -> bool {
        (TUNING.regular_forgotten..=TUNING.regular_highest).contains(&self.score)
            && self.usual.iter().all(|usual| usual.is_finite() && *usual >= 0.0)
    }

    fn is_regular(&self) -> bool {
        self.score >= TUNING.regular_threshold
    }

    /// Rounded up.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates")]
    fn usual(&self) -> Entries {
        let [proving, other] = self.usual.map(|usual| usual.ceil() as u32);
        Entries { proving, other }
    }
}

impl Regulars {
    /// As many as the data path's set can hold.
    pub const CAPACITY: usize = CAPACITY as usize;

    /// Half of the set, so that there is room for proven sources.
    const MOST: usize = Self::CAPACITY / 2;

    /// As many as a map of the same size takes.
    const MOST_WHILE_LEARNING: usize = Self::CAPACITY / 4 * 7;

    /// Restores what [`Self::ranked`] gave, by a clock that survives restarts. Drops what is unsound.
    /// The hour of `as_of` counts as seen, so that restarts do not count it twice.
    pub fn restore(
        sources: impl IntoIterator<Item = (SourceScope, Regular)>,
        as_of: Duration,
    ) -> Self {
        let sound = sources.into_iter().filter(|(_, regular)| regular.is_sound());
        let memory = |regular| Memory { regular, hour: hour(as_of), given: 1.0 };
        let sources = sound.map(|(source, regular)| (source, memory(regular))).collect();
        let mut regulars = Self { sources, as_of };
        regulars.bound();
        regulars
    }

    /// The clock was set by so many hours: nothing has aged by that, and no hour comes twice.
    pub fn move_clock(&mut self, hours: i64) {
        let seconds = Duration::from_secs(hours.unsigned_abs().saturating_mul(3600));
        self.as_of = if hours < 0 {
            self.as_of.saturating_sub(seconds)
        } else {
            self.as_of.saturating_add(seconds)
        };
        for memory in self.sources.values_mut() {
            let hour = i64::from(memory.hour).saturating_add(hours).max(0);
            memory.hour = u32::try_from(hour).unwrap_or(u32::MAX);
        }
    }

    /// The time to which the scores belong.
    pub const fn as_of(&self) -> Duration {
        self.as_of
    }

    /// Learns from the sources of one look in calm that were answered.
    ///
    /// `now` is the time since 1970, because scores also decay while the machine is off. If the clock
    /// is set back, they do not decay until it has caught up.
    pub fn learn(
        &mut self,
        seen: impl IntoIterator<Item = (SourceScope, Proof, Entries)>,
        now: Duration,
    ) {
        let passed = now.saturating_sub(self.as_of).min(2 * TUNING.learning_interval);
        let rise = 1.0 - halved(passed, TUNING.usual_half_time);
        self.decay(now);
        let hour = hour(self.as_of);
        for (source, proof, held) in seen {
            if self.sources.len() == Self::MOST_WHILE_LEARNING {
                self.bound();
            }
            let new = Memory { regular: Regular::default(), hour, given: 0.0 };
            let memory = self.sources.entry(source).or_insert(new);
            if memory.hour != hour {
                (memory.hour, memory.given) = (hour, 0.0);
            }
            let is_proven = proof == Proof::OfAddress;
            let worth = if is_proven { 1.0 } else { TUNING.unproven_hour };
            let more = (worth - memory.given).max(0.0);
            memory.given += more;
            let regular = &mut memory.regular;
            regular.is_proven |= is_proven;
            regular.score = (regular.score + more).min(TUNING.regular_highest);
            for (usual, held) in regular.usual.iter_mut().zip([held.proving, held.other]) {
                #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^24")]
                let held = held as f32;
                *usual += (held - *usual).max(0.0) * rise;
            }
        }
        self.bound();
    }

    /// All regulars, and what they usually hold.
    ///
    /// A few of each network, so that one network cannot take all places. Those with the highest
    /// scores of each network come first.
    pub fn regulars(&self) -> HashMap<SourceScope, Entries> {
        let regulars = self.sources.iter().filter(|(_, memory)| memory.regular.is_regular());
        let regulars = regulars.map(|(&source, memory)| (source, memory.regular));
        let (proven, unproven): (Vec<_>, Vec<_>) =
            regulars.partition(|(_, regular)| regular.is_proven);
        let [proven, unproven] = [proven, unproven].map(|regulars| {
            let score = |(_, regular): &(_, Regular)| regular.score.to_bits();
            let mut turns = turns(&regulars, |&(source, _)| source, score);
            turns.sort_unstable();
            turns.into_iter().map(move |(turn, _, place)| (turn, regulars[place as usize]))
        });
        proven
            .chain(unproven.take(TUNING.regulars_unproven))
            .enumerate()
            .filter(|&(place, (turn, _))| {
                place < TUNING.regulars_few || turn < TUNING.regulars_in_network
            })
            .take(Self::MOST)
            .map(|(_, (_, (source, regular)))| (source, regular.usual()))
            .collect()
    }

    /// All sources, the highest score first, and the time to which the scores belong.
    pub fn ranked(&self) -> (Vec<(SourceScope, Regular)>, Duration) {
        let mut ranked: Vec<_> =
            self.sources.iter().map(|(&source, memory)| (source, memory.regular)).collect();
        ranked.sort_by(|(one, this), (other, that)| {
            that.score.total_cmp(&this.score).then_with(|| one.cmp(other))
        });
        (ranked, self.as_of)
    }

    fn decay(&mut self, now: Duration) {
        let factor = halved(now.saturating_sub(self.as_of), TUNING.regular_half_life);
        self.sources.retain(|_, Memory { regular, .. }| {
            regular.score *= factor;
            regular.usual = regular.usual.map(|usual| usual * factor);
            regular.score >= TUNING.regular_forgotten
        });
        self.as_of = now.max(self.as_of);
    }

    /// Drops those of the networks with most sources, but none that counts.
    fn bound(&mut self) {
        if self.sources.len() <= Self::CAPACITY {
            return;
        }
        let counting = self.regulars();
        let is_other = |source: &SourceScope, _: &mut Memory| !counting.contains_key(source);
        let mut others = self.sources.extract_if(is_other).collect();
        let score = |(_, memory): &(_, Memory)| memory.regular.score.to_bits();
        cut(&mut others, Self::CAPACITY - counting.len(), |&(source, _)| source, score);
        self.sources.extend(others);
    }
}

/// What is left of 1 after `passed`.
#[expect(clippy::cast_possible_truncation, reason = "it is from 0 to 1")]
fn halved(passed: Duration, half_life: Duration) -> f32 {
    (-passed.as_secs_f64() / half_life.as_secs_f64()).exp2() as f32
}

fn hour(since_1970: Duration) -> u32 {
    u32::try_from(since_1970.as_secs() / 3600).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
