//! How many new flows per second the table can take, and what a tier saves of its rate.

use std::time::Duration;

use super::smoothed::Smoothed;
use crate::tuning::TUNING;
use ctguard_units::{real, real_difference, whole};

/// How the table changes without the guard: entries that others open, less those that leave.
#[derive(Debug)]
pub(crate) struct Growth {
    last: Option<(Duration, u64, u64)>,
    others: Smoothed,
}

impl Growth {
    pub(crate) const fn new() -> Self {
        Self { last: None, others: Smoothed::over(TUNING.growth_memory) }
    }

    /// `new_flows` are all admitted so far, counted just before the table.
    pub(crate) fn observe(&mut self, now: Duration, entries: u64, new_flows: u64) {
        if let Some((at, entries_before, new_flows_before)) = self.last {
            let grown = real_difference(entries, entries_before);
            let admitted = real(new_flows.saturating_sub(new_flows_before));
            self.others.observe(grown - admitted, now.saturating_sub(at));
        }
        self.last = Some((now, entries, new_flows));
    }

    /// Entries per second; negative while more leave than others add.
    pub(crate) const fn others(&self) -> f64 {
        self.others.per_second()
    }

    /// Entries per second that leave and are not replaced by others.
    pub(crate) fn expiry(&self) -> f64 {
        (-self.others()).max(0.0)
    }
}

/// New flows per second that fill `distance` entries in the settling time, if others add `others`
/// entries per second.
pub(crate) fn budget(distance: f64, others: f64) -> f64 {
    (distance / TUNING.settling_time.as_secs_f64() - others).clamp(0.0, TUNING.budget_highest)
}

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

#[expect(clippy::float_cmp, reason = "these numbers come out exactly")]
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_at_its_level_takes_what_leaves() {
        assert_eq!(budget(0.0, -116.0), 116.0);
    }

    #[test]
    fn what_others_open_is_left_to_them() {
        assert_eq!(budget(6000.0, 30.0), 70.0);
        assert_eq!(budget(600.0, 30.0), 0.0);
    }

    #[test]
    fn above_its_level_a_table_takes_less_than_leaves() {
        assert_eq!(budget(-600.0, -116.0), 106.0);
    }

    #[test]
    fn growth_is_what_was_not_admitted_by_us_and_has_a_sign() {
        let mut growth = Growth::new();
        for tick in 0..2000 {
            growth.observe(Duration::from_millis(100 * tick), 9000 - 2 * tick, 3 * tick);
        }
        assert!((growth.others() + 50.0).abs() < 0.1, "{}", growth.others());
        assert!((growth.expiry() - 50.0).abs() < 0.1);
    }

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
