//! When to dump the table into the known-flows filter, and when to swap the filter's generations.
//!
//! The data path notes flows in both generations and asks one of them; the other one gathers. A turn
//! swaps them and clears the one asked before. The asked generation holds every live flow, however
//! long it is idle:
//! 1. A turn follows a complete dump into the gathering generation, which began at least
//!    [`IN_FLIGHT`] after that generation was cleared.
//! 2. The dump contains each flow that was in the table throughout the dump.
//! 3. A flow that entered the table later was noted at most [`IN_FLIGHT`] before that, so after the
//!    generation was cleared.
//! 4. Until the next turn, flows are only added.
//! 5. A new filter claims nothing before its first turn.
//!
//! A dead flow is neither noted nor dumped again, so the second turn after its death forgets it.

use crate::tuning::TUNING;
use std::time::Duration;

/// Longest time from noting a packet to its entry: queues between network card and conntrack hold it
/// for some milliseconds. A packet in a queue to userspace may take as long as
/// `TUNING.generation_shortest`, the least age of a generation at its turn.
pub const IN_FLIGHT: Duration = Duration::from_millis(100);

/// A higher load ends a generation early: new flows would too often be mistaken for known ones.
const HIGHEST_LOAD: Load = Load(0.25);

/// Part of the asked generation's bits that are set, 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Load(pub f64);

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing is due.
    Wait,
    /// Dump the table into the gathering generation, then call [`Generations::dumped`].
    Dump,
    /// Ask the gathering generation, clear the one asked before, then call
    /// [`Generations::turned`].
    Turn,
}

/// The schedule of dumps and turns.
#[derive(Clone, Copy, Debug)]
pub struct Generations {
    /// When the gathering generation was cleared.
    since: Duration,
    /// There has been a turn: the asked generation holds every live flow.
    turned: bool,
    /// The gathering generation holds every live flow too.
    dumped: bool,
    /// Load of the asked generation just after the last turn.
    base: Load,
    /// Earliest time of the next dump.
    not_before: Duration,
    /// How long to wait after the next failure.
    retry: Duration,
}

impl Generations {
    /// The data path notes flows of all guarded interfaces from `now` on. What an earlier daemon
    /// left in the asked generation stays true, because the data path has gone on noting.
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

    /// What to do, at each tick and after each step.
    pub fn next(&self, now: Duration, load: Load) -> Step {
        if self.dumped {
            return Step::Turn;
        }
        let dump_is_due = !self.turned || self.is_over(now, load);
        if dump_is_due && now >= self.not_before { Step::Dump } else { Step::Wait }
    }

    /// A dump that began at `began` was written into the gathering generation by `now`. It is
    /// `complete` if it contains every entry that lived throughout.
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

    /// By `now` the gathering generation is asked, and the other one is cleared.
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
        // A turn does not reduce a load that is due to live flows alone.
        let grown = load > HIGHEST_LOAD && load.0 > TUNING.generation_growth * self.base.0;
        age >= TUNING.generation_lifetime || age >= TUNING.generation_shortest && grown
    }
}

#[cfg(test)]
mod tests;
