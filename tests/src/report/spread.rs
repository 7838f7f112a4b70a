//! How steady the fill is.

use serde::{Deserialize, Serialize};

use crate::table::FillPoint;

/// Mean and standard deviation, as shares of the table.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The mean.
    pub mean_ratio: f64,
    /// The standard deviation from the straight line that fits best: the legitimate load's entries
    /// outlive a run of seconds, so the fill grows with no flood too.
    pub deviation_ratio: f64,
}

impl Spread {
    /// Of the points between two times, both in seconds; none where there are none.
    #[must_use]
    pub fn of(series: &[FillPoint], between: (f64, f64), table_max: u64) -> Option<Self> {
        let points: Vec<(f64, f64)> = series
            .iter()
            .filter(|point| (between.0..between.1).contains(&point.seconds))
            .map(|point| (point.seconds, super::ratio(point.count, table_max)))
            .collect();
        let number = f64::from(u32::try_from(points.len()).ok().filter(|&number| number > 0)?);
        let mean = |of: &dyn Fn((f64, f64)) -> f64| {
            points.iter().map(|&point| of(point)).sum::<f64>() / number
        };
        let (middle, mean_ratio) = (mean(&|(seconds, _)| seconds), mean(&|(_, fill)| fill));
        let time = mean(&|(seconds, _)| (seconds - middle).powi(2));
        let together = mean(&|(seconds, fill)| (seconds - middle) * (fill - mean_ratio));
        let slope = if time > 0.0 { together / time } else { 0.0 };
        let variance =
            mean(&|(seconds, fill)| (fill - mean_ratio - slope * (seconds - middle)).powi(2));
        Some(Self { mean_ratio, deviation_ratio: variance.sqrt() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_points_of_the_time_count() {
        let spread = of(&[(0.0, 100), (1.0, 40), (2.0, 60), (3.0, 40), (4.0, 0)], (1.0, 4.0));
        let spread = spread.expect("points");
        assert!((spread.mean_ratio - 140.0 / 300.0).abs() < 1e-9, "{spread:?}");
        assert!((spread.deviation_ratio - 0.02_f64.sqrt() / 1.5).abs() < 1e-9, "{spread:?}");
        assert_eq!(of(&[(0.0, 100)], (5.0, 6.0)), None);
    }

    /// Fails when growth of the load counts as unsteadiness, or a wave does not.
    #[test]
    fn a_slope_is_steady_and_a_wave_is_not() {
        let slope: Vec<(f64, u64)> =
            (0..100_u32).map(|n| (f64::from(n), 2 * u64::from(n))).collect();
        assert!(of(&slope, (0.0, 100.0)).expect("points").deviation_ratio < 1e-9);
        let wave: Vec<(f64, u64)> =
            (0..100_u32).map(|n| (f64::from(n), 50 + 10 * u64::from(n / 5 % 2 == 0))).collect();
        let deviation = of(&wave, (0.0, 100.0)).expect("points").deviation_ratio;
        assert!((deviation - 0.05).abs() < 0.001, "{deviation}");
    }

    fn of(points: &[(f64, u64)], between: (f64, f64)) -> Option<Spread> {
        let series: Vec<FillPoint> =
            points.iter().map(|&(seconds, count)| FillPoint { seconds, count }).collect();
        Spread::of(&series, between, 100)
    }
}
