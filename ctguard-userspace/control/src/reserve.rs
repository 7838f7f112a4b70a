//! Room kept below the target for flows that the guard does not judge.
//!
//! Flows from inside and of the host itself fill the table too. If a flood took all room up to the
//! target, they would push the table beyond it while the flood's entries live. So the reserve is what
//! they will open in `TUNING.reserve_horizon`.

use crate::tuning::TUNING;
use std::{collections::VecDeque, time::Duration};

use ctguard_units::{TableSample, whole};

/// How fast others have filled the table lately.
#[derive(Debug, Default)]
pub struct Reserve {
    /// Entries and deletions, less admissions, over the window.
    others: VecDeque<(Duration, i128)>,
    /// Entries per second that others add.
    rate: f64,
}

impl Reserve {
    /// Whether the next observation is due.
    pub fn is_due(&self, now: Duration) -> bool {
        self.others.back().is_none_or(|&(at, _)| now.saturating_sub(at) >= TUNING.reserve_step)
    }

    /// `admitted` are all new flows, counted just before the table, and `deleted` all entries that
    /// the guard deleted.
    pub fn observe(&mut self, now: Duration, table: TableSample, admitted: u64, deleted: u64) {
        let others = i128::from(table.entries) + i128::from(deleted) - i128::from(admitted);
        let elapsed = self.others.back().map_or(Duration::ZERO, |&(at, _)| now.saturating_sub(at));
        self.others.push_back((now, others));
        while self.others.get(1).is_some_and(|&(at, _)| at + TUNING.reserve_window <= now) {
            self.others.pop_front();
        }
        self.rate *= (-elapsed.as_secs_f64() / TUNING.reserve_memory.as_secs_f64()).exp();
        self.rate = self.rate.max(self.growth(now, others));
    }

    /// Entries per second that others add.
    pub const fn per_second(&self) -> f64 {
        self.rate
    }

    /// Entries to keep free.
    pub fn entries(&self, table: TableSample) -> u64 {
        whole(self.rate * TUNING.reserve_horizon.as_secs_f64())
            .min(table.max / TUNING.reserve_divisor)
    }

    /// Entries per second that others added over the window.
    fn growth(&self, now: Duration, others: i128) -> f64 {
        let Some(&(since, before)) = self.others.front() else { return 0.0 };
        let elapsed = now.saturating_sub(since);
        if elapsed < TUNING.reserve_window_least {
            return 0.0;
        }
        let added = u32::try_from((others - before).max(0)).unwrap_or(u32::MAX);
        f64::from(added) / elapsed.as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: u64 = 10_000;

    #[test]
    fn nothing_is_kept_while_only_the_guard_admits() {
        let mut reserve = Reserve::default();
        let kept = run(&mut reserve, 0..100, |tick| (1000 + tick * 7, tick * 7));
        assert_eq!(kept, 0);
    }

    #[test]
    fn ten_seconds_of_what_others_open_are_kept() {
        let mut reserve = Reserve::default();
        let kept = run(&mut reserve, 0..100, |tick| (1000 + tick, 0));
        assert_eq!(kept, 100, "ten a second");
    }

    #[test]
    fn admissions_that_never_become_entries_keep_nothing() {
        let mut reserve = Reserve::default();
        let kept = run(&mut reserve, 0..100, |tick| (1000, tick * 50_000));
        assert_eq!(kept, 0);
    }

    #[test]
    fn no_more_than_a_tenth_of_the_table_is_kept() {
        let mut reserve = Reserve::default();
        let kept = run(&mut reserve, 0..100, |tick| (1000 + tick * 50, 0));
        assert_eq!(kept, MAX / 10);
    }

    #[test]
    fn a_burst_of_expiry_does_not_hide_what_others_open() {
        let mut reserve = Reserve::default();
        run(&mut reserve, 0..100, |tick| (1000 + tick, 0));
        let kept = run(&mut reserve, 100..200, |_| (100, 0));
        assert!((75..100).contains(&kept), "{kept} ten seconds after the growth ended");
    }

    fn run(
        reserve: &mut Reserve,
        ticks: std::ops::Range<u64>,
        observe: impl Fn(u64) -> (u64, u64),
    ) -> u64 {
        for tick in ticks {
            let now = Duration::from_millis(tick * 100);
            let (entries, admitted) = observe(tick);
            assert!(reserve.is_due(now));
            reserve.observe(now, TableSample { entries, max: MAX }, admitted, 0);
            assert!(!reserve.is_due(now));
        }
        reserve.entries(TableSample { entries: 0, max: MAX })
    }
}
