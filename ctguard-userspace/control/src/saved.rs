//! What a paced tier has earned and not spent.

use std::time::Duration;

use crate::tuning::TUNING;
use ctguard_units::{real, whole};

/// What a paced tier has earned and not spent.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Saved(f64);

impl Saved {
    /// Earns `rate` × `elapsed`, less what was `spent`, and saves up to `most`.
    pub(crate) fn earn(&mut self, rate: f64, elapsed: Duration, spent: u64, most: f64) {
        let earned = rate * elapsed.min(TUNING.longest_earning).as_secs_f64();
        self.0 = (self.0 + earned - real(spent)).clamp(0.0, most.max(TUNING.fewest_saved));
    }

    /// Replaces what was saved.
    pub(crate) const fn grant(&mut self, flows: f64) {
        self.0 = flows;
    }

    pub(crate) const fn flows(self) -> u64 {
        whole(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_spent_is_saved_for_a_while() {
        let mut saved = Saved::default();
        for _ in 0..100 {
            saved.earn(100.0, Duration::from_millis(20), 0, 100.0);
        }
        assert_eq!(saved.flows(), 100);
        saved.earn(100.0, Duration::from_millis(20), 50, 100.0);
        assert_eq!(saved.flows(), 52);
    }

    #[test]
    fn a_late_tick_is_no_burst() {
        let mut saved = Saved::default();
        saved.earn(100.0, Duration::from_secs(5), 0, 1000.0);
        assert_eq!(saved.flows(), 20);
    }

    #[test]
    fn a_slow_tier_can_save_a_few_flows() {
        let mut saved = Saved::default();
        for _ in 0..1000 {
            saved.earn(0.1, Duration::from_millis(100), 0, 0.1);
        }
        assert_eq!(saved.flows(), 4);
    }
}
