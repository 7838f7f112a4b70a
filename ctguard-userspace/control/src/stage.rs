//! The stage of each class, and how long a better one must be justified before it begins.

use crate::tuning::TUNING;
use std::time::Duration;

pub(super) use ctguard_layout::Stage;
use ctguard_layout::{CLASSES, Class};

/// The stages in force, and since when better ones would suffice.
///
/// Calm ends for all classes at once: the data path uses either all tiers or only strangers and
/// allowed sources, whatever the class.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stages {
    of: [Stage; CLASSES],
    quiet: Lasting,
    sufficient: [Lasting; CLASSES],
    unasked: [Lasting; CLASSES],
}

impl Stages {
    pub(crate) const fn of(&self) -> [Stage; CLASSES] {
        self.of
    }

    pub(crate) fn is_calm(&self) -> bool {
        self.of == [Stage::Calm; CLASSES]
    }

    pub(crate) fn is_challenged(&self, class: Class) -> bool {
        self.of[class as usize] == Stage::Challenge
    }

    /// Whether strangers of any class are challenged.
    pub(crate) fn challenges(&self) -> bool {
        self.of.contains(&Stage::Challenge)
    }

    pub(crate) fn leave_calm(&mut self) {
        *self = Self { of: [Stage::Fair; CLASSES], ..Self::default() };
    }

    pub(crate) fn challenge(&mut self, class: Class) {
        self.of[class as usize] = Stage::Challenge;
        self.sufficient[class as usize] = Lasting::default();
        self.unasked[class as usize] = Lasting::default();
    }

    /// The same stages without a challenge of this class.
    pub(crate) fn unchallenged(&self, class: Class) -> Self {
        let mut stages = *self;
        if stages.is_challenged(class) {
            stages.of[class as usize] = Stage::Fair;
        }
        stages
    }

    /// Ends the challenge of a class once its strangers' share has been `sufficient` for long enough,
    /// or they have asked for next to nothing (`unasked`) for a shorter time.
    pub(crate) fn end_challenge(
        &mut self,
        class: Class,
        now: Duration,
        sufficient: bool,
        unasked: bool,
    ) {
        let suffices = self.sufficient[class as usize].observe(now, sufficient || unasked);
        let is_unasked = self.unasked[class as usize].observe(now, unasked);
        let is_over = suffices >= TUNING.unchallenged_after || is_unasked >= TUNING.unasked_after;
        if is_over && self.is_challenged(class) {
            self.of[class as usize] = Stage::Fair;
        }
    }

    /// Returns to calm once it has been `quiet` for long enough without challenges.
    pub(crate) fn calm_down(&mut self, now: Duration, quiet: bool) {
        let quiet = quiet && self.of == [Stage::Fair; CLASSES];
        if self.quiet.observe(now, quiet) >= TUNING.calm_after {
            *self = Self::default();
        }
    }
}

/// Since when something has held without a break.
#[derive(Clone, Copy, Debug, Default)]
struct Lasting(Option<Duration>);

impl Lasting {
    fn observe(&mut self, now: Duration, holds: bool) -> Duration {
        self.0 = if holds { self.0.or(Some(now)) } else { None };
        self.0.map_or(Duration::ZERO, |since| now.saturating_sub(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calm_ends_for_all_classes_at_once() {
        let mut stages = Stages::default();
        assert!(stages.is_calm());
        stages.leave_calm();
        assert_eq!(stages.of(), [Stage::Fair; CLASSES]);
    }

    #[test]
    fn five_quiet_seconds_without_a_break_are_calm() {
        let mut stages = fair();
        stages.calm_down(seconds(0), true);
        stages.calm_down(seconds(4), false);
        stages.calm_down(seconds(5), true);
        stages.calm_down(seconds(9), true);
        assert!(!stages.is_calm());
        stages.calm_down(seconds(10), true);
        assert!(stages.is_calm());
    }

    #[test]
    fn a_challenge_ends_after_ten_seconds_in_which_it_was_not_needed() {
        let mut stages = fair();
        stages.challenge(Class::Udp);
        assert_eq!(stages.of(), [Stage::Fair, Stage::Challenge, Stage::Fair]);
        stages.end_challenge(Class::Udp, seconds(1), true, false);
        stages.end_challenge(Class::Udp, seconds(10), true, false);
        assert!(stages.is_challenged(Class::Udp));
        stages.end_challenge(Class::Udp, seconds(11), true, false);
        assert_eq!(stages.of(), [Stage::Fair; CLASSES]);
    }

    #[test]
    fn a_challenge_that_nobody_asks_to_pass_ends_after_a_second() {
        let mut stages = fair();
        stages.challenge(Class::Udp);
        stages.end_challenge(Class::Udp, seconds(1), false, true);
        assert!(stages.is_challenged(Class::Udp));
        stages.end_challenge(Class::Udp, seconds(2), false, true);
        assert!(!stages.is_challenged(Class::Udp));
    }

    #[test]
    fn nothing_is_calm_while_somebody_is_challenged() {
        let mut stages = fair();
        stages.challenge(Class::Tcp);
        for second in 0..100 {
            stages.calm_down(seconds(second), true);
        }
        assert!(stages.is_challenged(Class::Tcp));
    }

    fn fair() -> Stages {
        let mut stages = Stages::default();
        stages.leave_calm();
        stages
    }

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }
}
