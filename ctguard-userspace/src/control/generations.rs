//! When the table is dumped into the known-flows filter, and when its two generations change.
//!
//! The data path notes flows in the current generation and asks both; a turn clears the older one
//! and makes it the current. A flow that lives is in one of them, however long it is idle:
//! 1. A turn follows a complete dump that was written into the current generation and begun
//!    [`IN_FLIGHT`] or later after that became the current one.
//! 2. A flow that was in the table throughout that dump was told by it, so it is in that generation.
//! 3. A flow that came into the table later was noted no earlier than [`IN_FLIGHT`] before, so when
//!    that generation was the current one already: it is in it too.
//! 4. The turn spares that generation, and the next turn comes only when 1 to 3 hold of the new one.
//! 5. Of a filter that is new, nothing is claimed before its first complete dump.
//!
//! A flow that is dead is noted and told no more, so the second turn from then on forgets it.

use std::time::Duration;

/// How long a packet that was noted may be on its way into the table: what waits between the
/// network card and conntrack is handed on within some milliseconds. Packets held by a queue to
/// userspace have [`SHORTEST`], the least age of a generation at its turn.
pub(crate) const IN_FLIGHT: Duration = Duration::from_millis(100);

/// How long a generation lasts: for up to twice this, flows that are dead cost a lookup.
const LIFETIME: Duration = Duration::from_mins(1);

/// How long it lasts at least.
const SHORTEST: Duration = Duration::from_secs(5);

/// The load that ends it early: beyond, strangers are too often mistaken for known flows.
const HIGHEST_LOAD: Load = Load(0.25);

/// How soon a dump that failed is tried again, at first and in the end.
const RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_mins(1);

/// Share of the bits of the current generation that are set, 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub(crate) struct Load(pub(crate) f64);

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Wait,
    /// Write a dump of the table into the current generation, then tell [`Generations::dumped`].
    Dump,
    /// Clear the older generation, make it the current one, then tell [`Generations::turned`].
    Turn,
}

/// What was done so far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Generations {
    /// When the current generation became that.
    since: Duration,
    progress: Progress,
    /// No dump before.
    not_before: Duration,
    /// How long to wait after the next failure.
    retry: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// No dump was complete since the filter was made.
    Incomplete,
    /// The generation is young enough.
    Lasting,
    /// It has been dumped into and may become the older one.
    Dumped,
}

impl Generations {
    /// Of a filter that knows nothing, or nothing that is certain: the data path begins to note
    /// flows `now`. So it is made anew when another interface is guarded.
    pub(crate) const fn new(now: Duration) -> Self {
        Self {
            since: now,
            progress: Progress::Incomplete,
            not_before: now.saturating_add(IN_FLIGHT),
            retry: RETRY,
        }
    }

    /// What to do; asked again after each step and at each tick.
    pub(crate) fn next(&self, now: Duration, load: Load) -> Step {
        let dump_is_due = match self.progress {
            Progress::Dumped => return Step::Turn,
            Progress::Incomplete => true,
            Progress::Lasting => self.is_over(now, load),
        };
        if dump_is_due && now >= self.not_before { Step::Dump } else { Step::Wait }
    }

    /// A dump begun at `began` has ended `now`, all of it written into the current generation; it
    /// was `complete` if every entry that lived throughout was told.
    pub(crate) fn dumped(&mut self, began: Duration, now: Duration, complete: bool) {
        if !complete {
            self.not_before = now.saturating_add(self.retry);
            self.retry = self.retry.saturating_mul(2).min(LONGEST_RETRY);
            return;
        }
        self.not_before = self.since.saturating_add(IN_FLIGHT);
        self.retry = RETRY;
        if began >= self.not_before {
            self.progress = match self.progress {
                Progress::Incomplete => Progress::Lasting,
                Progress::Lasting | Progress::Dumped => Progress::Dumped,
            };
        }
    }

    /// The older generation was cleared and made the current one, by `now`.
    pub(crate) fn turned(&mut self, now: Duration) {
        self.since = now;
        self.progress = Progress::Lasting;
        self.not_before = now.saturating_add(IN_FLIGHT);
    }

    /// Whether a flow that neither generation knows is certainly new.
    pub(crate) const fn is_complete(&self) -> bool {
        !matches!(self.progress, Progress::Incomplete)
    }

    fn is_over(&self, now: Duration, load: Load) -> bool {
        let age = now.saturating_sub(self.since);
        age >= LIFETIME || age >= SHORTEST && load > HIGHEST_LOAD
    }
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
