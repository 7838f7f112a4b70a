//! When the table is dumped into the known-flows filter, and when its two generations change.
//!
//! The data path notes flows in both generations and asks one; the other gathers. A turn asks the
//! gathering one instead and clears the one asked before, which gathers from then on. The asked
//! one holds every flow that lives, however long it is idle:
//! 1. A turn follows a complete dump that was written into the gathering generation and begun
//!    [`IN_FLIGHT`] or later after that was cleared.
//! 2. A flow that was in the table throughout that dump was told by it, so it is in that generation.
//! 3. A flow that came into the table later was noted no earlier than [`IN_FLIGHT`] before, so after
//!    that generation was cleared: it is in it too.
//! 4. Until the next turn it is only added to.
//! 5. Of a filter that is new, nothing is claimed before its first turn.
//!
//! A flow that is dead is noted and told no more, so the second turn from then on forgets it.

use crate::tuning::TUNING;
use std::time::Duration;

/// How long a packet that was noted may be on its way into the table: what waits between the
/// network card and conntrack is handed on within some milliseconds. Packets held by a queue to
/// userspace have `TUNING.generation_shortest`, the least age of a generation at its turn.
pub const IN_FLIGHT: Duration = Duration::from_millis(100);

/// The load that ends it early: beyond, strangers are too often mistaken for known flows.
const HIGHEST_LOAD: Load = Load(0.25);

/// Share of the bits of the asked generation that are set, 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Load(pub f64);

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing is due.
    Wait,
    /// Write a dump of the table into the gathering generation, then tell [`Generations::dumped`].
    Dump,
    /// Ask the gathering generation, clear the one asked before, then tell
    /// [`Generations::turned`].
    Turn,
}

/// What was done so far.
#[derive(Clone, Copy, Debug)]
pub struct Generations {
    /// When the gathering generation was cleared.
    since: Duration,
    /// There has been a turn.
    turned: bool,
    /// The gathering generation does, too.
    dumped: bool,
    /// Load of the asked generation just after the last turn.
    base: Load,
    /// No dump before.
    not_before: Duration,
    /// How long to wait after the next failure.
    retry: Duration,
}

impl Generations {
    /// Of a filter into which the data path notes flows of every guarded interface from `now` on.
    /// What an earlier daemon left in the generation that is asked goes on to hold, for the data
    /// path has gone on noting.
    pub const fn new(now: Duration) -> Self {
        Self {
            since: now,
            turned: false,
            dumped: false,
            base: Load(0.0),
            not_before: now.saturating_add(IN_FLIGHT),
            retry: TUNING.dump_retry,
        }
    }

    /// What to do; asked again after each step and at each tick.
    pub fn next(&self, now: Duration, load: Load) -> Step {
        if self.dumped {
            return Step::Turn;
        }
        let dump_is_due = !self.turned || self.is_over(now, load);
        if dump_is_due && now >= self.not_before { Step::Dump } else { Step::Wait }
    }

    /// A dump begun at `began` has ended `now`, all of it written into the gathering generation; it
    /// was `complete` if every entry that lived throughout was told.
    pub fn dumped(&mut self, began: Duration, now: Duration, complete: bool) {
        if !complete {
            self.not_before = now.saturating_add(self.retry);
            self.retry = self.retry.saturating_mul(2).min(TUNING.dump_retry_longest);
            return;
        }
        self.not_before = self.since.saturating_add(IN_FLIGHT);
        self.retry = TUNING.dump_retry;
        self.dumped = began >= self.not_before;
    }

    /// The gathering generation is asked, and the other was cleared, by `now`.
    pub fn turned(&mut self, now: Duration, load: Load) {
        *self = Self { turned: true, base: load, ..Self::new(now) };
    }

    /// Whether a flow that the asked generation does not hold is certainly new.
    #[cfg(test)]
    const fn is_complete(&self) -> bool {
        self.turned
    }

    fn is_over(&self, now: Duration, load: Load) -> bool {
        let age = now.saturating_sub(self.since);
        // A load that live flows alone make does not fall by a turn.
        let grown = load > HIGHEST_LOAD && load.0 > TUNING.generation_growth * self.base.0;
        age >= TUNING.generation_lifetime || age >= TUNING.generation_shortest && grown
    }
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
