//! Scores of sources that held connections in calm times, over days.
//!
//! Each dump in calm adds 1 to the score of each source in it, and scores halve every three days. A
//! source is a regular after two dumps, so that one open connection does not make a regular. Under
//! pressure nothing is learnt: the sources that fill the table would become regulars.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use super::sources::SourceScope;
use crate::tuning::TUNING;

/// Scores of at most [`Self::CAPACITY`] sources.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Regulars {
    /// As they were at `as_of`.
    scores: HashMap<SourceScope, f64>,
    as_of: Duration,
}

/// Whether sources may become regulars now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// Nothing is refused, and the fill is below the target.
    Calm,
    /// Sources may hold connections to fill the table.
    Pressure,
}

impl Regulars {
    /// As many as the data path's set can hold.
    pub const CAPACITY: usize = 16_384;

    /// Restores scores as they were at `as_of`, by a clock that survives restarts. Drops scores that
    /// no number of dumps can give.
    pub fn restore(scores: impl IntoIterator<Item = (SourceScope, f64)>, as_of: Duration) -> Self {
        let sound = |&(_, score): &(_, f64)| {
            (TUNING.regular_forgotten..=TUNING.regular_highest).contains(&score)
        };
        let mut regulars = Self { scores: scores.into_iter().filter(sound).collect(), as_of };
        regulars.bound();
        regulars
    }

    /// Learns from the sources of one dump's ASSURED TCP connections; they may repeat.
    ///
    /// `now` is the time since 1970, because scores also decay while the machine is off. If the clock
    /// is set back, they do not decay until it has caught up.
    pub fn learn(
        &mut self,
        sources: impl IntoIterator<Item = SourceScope>,
        weather: Weather,
        now: Duration,
    ) {
        self.decay(now);
        if weather == Weather::Pressure {
            return;
        }
        let seen: HashSet<SourceScope> = sources.into_iter().collect();
        for source in seen {
            let score = self.scores.entry(source).or_insert(0.0);
            *score = (*score + 1.0).min(TUNING.regular_highest);
        }
        self.bound();
    }

    /// All regulars, the highest score first.
    pub fn regulars(&self) -> impl Iterator<Item = SourceScope> {
        let (ranked, _) = self.ranked();
        ranked
            .into_iter()
            .take_while(|&(_, score)| score >= TUNING.regular_threshold)
            .map(|(source, _)| source)
    }

    /// All scores, the highest first, and the time to which they belong.
    pub fn ranked(&self) -> (Vec<(SourceScope, f64)>, Duration) {
        let mut ranked: Vec<_> =
            self.scores.iter().map(|(&source, &score)| (source, score)).collect();
        ranked.sort_by(|(one, score), (other, another)| {
            another.total_cmp(score).then_with(|| one.cmp(other))
        });
        (ranked, self.as_of)
    }

    fn decay(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.as_of);
        let factor = (-passed.as_secs_f64() / TUNING.regular_half_life.as_secs_f64()).exp2();
        self.scores.retain(|_, score| {
            *score *= factor;
            *score >= TUNING.regular_forgotten
        });
        self.as_of = now.max(self.as_of);
    }

    /// Drops the lowest scores.
    fn bound(&mut self) {
        if self.scores.len() > Self::CAPACITY {
            let (mut ranked, _) = self.ranked();
            ranked.truncate(Self::CAPACITY);
            self.scores = ranked.into_iter().collect();
        }
    }
}

#[cfg(test)]
mod tests;
