//! The memory of regulars: who held connections in calm times, minute by minute, for days.
//!
//! Each calm dump adds one to the score of each source in it; scores halve every three days. A
//! source is a regular once it was seen in two dumps, so that nobody becomes one by a single
//! connection that happened to be open. Under pressure nothing is learnt, for then those who fill
//! the table would be.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use super::sources::SourceScope;
use crate::tuning::TUNING;

/// Scores of at most [`Self::CAPACITY`] sources.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Regulars {
    /// Each as of `as_of`.
    scores: HashMap<SourceScope, f64>,
    as_of: Duration,
}

/// Whether the table is as on any day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// No class is refused anything, the fill is under the target.
    Calm,
    /// Whoever is in the table now may be there to fill it.
    Pressure,
}

impl Regulars {
    /// Sources remembered, as many as the data path's set may hold.
    pub const CAPACITY: usize = 16_384;

    /// Takes up what was saved: scores as they were at `as_of` on a clock that goes on over
    /// restarts. Scores that no dumps add up to are left out.
    pub fn restore(scores: impl IntoIterator<Item = (SourceScope, f64)>, as_of: Duration) -> Self {
        let sound = |&(_, score): &(_, f64)| {
            (TUNING.regular_forgotten..=TUNING.regular_highest).contains(&score)
        };
        let mut regulars = Self { scores: scores.into_iter().filter(sound).collect(), as_of };
        regulars.bound();
        regulars
    }

    /// Learns from the sources of one dump's ASSURED TCP connections, each as often as it is told.
    ///
    /// `now` is the time since 1970: days pass while a machine is off too. A clock that was set
    /// back decays nothing until it has caught up.
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

    /// Who is a regular, the highest score first.
    pub fn regulars(&self) -> impl Iterator<Item = SourceScope> {
        let (ranked, _) = self.ranked();
        ranked
            .into_iter()
            .take_while(|&(_, score)| score >= TUNING.regular_threshold)
            .map(|(source, _)| source)
    }

    /// Everybody remembered with their scores, the highest first, and the time they are of.
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

    /// The least give way.
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
