//! How steady the fill is.

use serde::{Deserialize, Serialize};

use crate::table::FillPoint;

/// Mean and standard deviation, as shares of the table.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The mean.
    pub mean_ratio: f64,
    /// The standard deviation.
    pub deviation_ratio: f64,
}

impl Spread {
    /// Of the points between two times, both in seconds; none where there are none.
    #[must_use]
    pub fn of(series: &[FillPoint], between: (f64, f64), table_max: u64) -> Option<Self> {
        let within = series.iter().filter(|point| (between.0..between.1).contains(&point.seconds));
        let fills: Vec<f64> = within.map(|point| super::ratio(point.count, table_max)).collect();
        let number = f64::from(u32::try_from(fills.len()).ok().filter(|&number| number > 0)?);
        let mean = fills.iter().sum::<f64>() / number;
        let variance = fills.iter().map(|fill| (fill - mean).powi(2)).sum::<f64>() / number;
        Some(Self { mean_ratio: mean, deviation_ratio: variance.sqrt() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_points_of_the_time_count() {
        let series: Vec<FillPoint> = [(0.0, 100), (1.0, 40), (2.0, 60), (3.0, 0)]
            .map(|(seconds, count)| FillPoint { seconds, count })
            .to_vec();
        let spread = Spread::of(&series, (1.0, 3.0), 100).expect("points");
        assert!((spread.mean_ratio - 0.5).abs() < 1e-9, "{spread:?}");
        assert!((spread.deviation_ratio - 0.1).abs() < 1e-9, "{spread:?}");
        assert_eq!(Spread::of(&series, (5.0, 6.0), 100), None);
    }
}
