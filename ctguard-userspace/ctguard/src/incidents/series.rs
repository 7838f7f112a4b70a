//! What an incident looked like over time: a bounded number of points, which cover longer spans the
//! longer the incident lasts.

use std::time::Duration;

use ctguard_units::{real, whole};
use serde::{Deserialize, Serialize};

/// Points; half as many remain when there would be more.
const MOST_POINTS: usize = 240;

/// Columns of the same length.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Series {
    /// Seconds after the beginning at which each point's span ends; the first begins at 0.
    pub(crate) at_seconds: Vec<u32>,
    /// The most entries in each span.
    pub(crate) entries: Vec<u64>,
    /// New flows per second, averages of each span.
    pub(crate) arriving_per_second: Vec<u32>,
    pub(crate) admitted_per_second: Vec<u32>,
    pub(crate) refused_per_second: Vec<u32>,
}

/// What happened between two readings.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Step {
    /// Since the beginning.
    pub(super) at: Duration,
    pub(super) entries: u64,
    /// New flows since the last step.
    pub(super) arriving: u64,
    pub(super) admitted: u64,
    pub(super) refused: u64,
}

/// A series that grows.
#[derive(Debug, Default)]
pub(super) struct Growing {
    points: Vec<Step>,
    /// Joins so many steps.
    span: usize,
    steps: usize,
}

impl Growing {
    pub(super) fn add(&mut self, step: Step) {
        self.span = self.span.max(1);
        if let Some(last) = self.points.last_mut().filter(|_| self.steps < self.span) {
            last.join(&step);
            self.steps += 1;
        } else {
            self.halve_if_full();
            self.points.push(step);
            self.steps = 1;
        }
    }

    fn halve_if_full(&mut self) {
        if self.points.len() < MOST_POINTS {
            return;
        }
        let pairs = self.points.chunks(2).filter_map(|pair| {
            let mut joined = *pair.first()?;
            if let Some(second) = pair.get(1) {
                joined.join(second);
            }
            Some(joined)
        });
        self.points = pairs.collect();
        self.span *= 2;
    }

    pub(super) fn series(&self) -> Series {
        let mut series = Series::default();
        let mut before = Duration::ZERO;
        for point in &self.points {
            let seconds = point.at.saturating_sub(before).as_secs_f64().max(0.001);
            before = point.at;
            series.at_seconds.push(u32::try_from(point.at.as_secs()).unwrap_or(u32::MAX));
            series.entries.push(point.entries);
            series.arriving_per_second.push(rate(point.arriving, seconds));
            series.admitted_per_second.push(rate(point.admitted, seconds));
            series.refused_per_second.push(rate(point.refused, seconds));
        }
        series
    }
}

impl Step {
    fn join(&mut self, next: &Self) {
        self.at = next.at;
        self.entries = self.entries.max(next.entries);
        self.arriving += next.arriving;
        self.admitted += next.admitted;
        self.refused += next.refused;
    }
}

fn rate(flows: u64, seconds: f64) -> u32 {
    u32::try_from(whole((real(flows) / seconds).round())).unwrap_or(u32::MAX)
}

impl Series {
    /// Not in a file that somebody edited.
    pub(super) fn has_equal_columns(&self) -> bool {
        let rates =
            [&self.arriving_per_second, &self.admitted_per_second, &self.refused_per_second];
        self.entries.len() == self.at_seconds.len()
            && rates.iter().all(|rates| rates.len() == self.at_seconds.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grown(seconds: u64) -> Series {
        let mut growing = Growing::default();
        for second in 1..=seconds {
            growing.add(Step {
                at: Duration::from_secs(second),
                entries: if second == 1000 { 9000 } else { second % 7 },
                arriving: 100,
                admitted: 20,
                refused: 80,
            });
        }
        growing.series()
    }

    #[test]
    fn a_short_incident_has_a_point_a_second() {
        let series = grown(3);
        assert_eq!(series.at_seconds, [1, 2, 3]);
        assert_eq!(series.entries, [1, 2, 3]);
        assert_eq!(series.refused_per_second, [80; 3]);
    }

    #[test]
    fn a_long_incident_has_a_bounded_number_of_points_and_keeps_its_peak_and_its_rates() {
        for seconds in [240, 241, 5000, 86_400 * 7] {
            let series = grown(seconds);
            let points = series.at_seconds.len();
            assert!((MOST_POINTS / 2..=MOST_POINTS).contains(&points), "{seconds}: {points}");
            assert_eq!(u64::from(*series.at_seconds.last().unwrap()), seconds);
            assert!(series.at_seconds.is_sorted());
            assert_eq!(series.entries.iter().max() == Some(&9000), seconds >= 1000);
            assert!(series.arriving_per_second.iter().all(|rate| *rate == 100));
            assert!(series.admitted_per_second.iter().all(|rate| *rate == 20));
        }
    }
}
