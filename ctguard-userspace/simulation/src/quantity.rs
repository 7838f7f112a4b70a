//! Values of a scenario as people write them, `500/s`, `20ms`, `99.9%`, and the arithmetic of counts.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, de};
use thiserror::Error;

/// Packets a second beyond this are typing errors.
const HIGHEST_RATE: f64 = 100_000_000.0;

/// Why a value is none.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub(crate) enum QuantityError {
    #[error("{0} is not a rate (write 500/s, 30/min or 0.5/h)")]
    Rate(String),
    #[error("{0} is not a time (write 20ms, 10s or 1day)")]
    Span(String),
    #[error("{0} is not a ratio between 0 and 1 (write 0.999 or 99.9%)")]
    Ratio(String),
    #[error("{0} are not hours of a day (write 08:00-18:00)")]
    Hours(String),
}

/// New flows a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct PerSecond(pub f64);

/// A length of time, or a moment since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span(pub Duration);

/// A part of a whole, 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub(crate) struct Ratio(pub f64);

/// From a time of the day to a later one; the scenario begins at midnight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hours {
    pub from: Duration,
    pub until: Duration,
}

impl FromStr for PerSecond {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let error = || QuantityError::Rate(text.to_owned());
        let (number, seconds) = match text.split_once('/') {
            Some((number, "s")) => (number, 1.0),
            Some((number, "min")) => (number, 60.0),
            Some((number, "h")) => (number, 3600.0),
            Some(_) | None => return Err(error()),
        };
        let rate = number.trim_end().parse::<f64>().map_err(|_| error())? / seconds;
        if rate > 0.0 && rate <= HIGHEST_RATE { Ok(Self(rate)) } else { Err(error()) }
    }
}

impl FromStr for Span {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let span = humantime::parse_duration(text);
        span.map(Self).map_err(|_| QuantityError::Span(text.to_owned()))
    }
}

impl FromStr for Ratio {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let ratio = match text.strip_suffix('%') {
            Some(percent) => percent.trim_end().parse::<f64>().map(|percent| percent / 100.0),
            None => text.parse(),
        };
        ratio
            .ok()
            .filter(|ratio| (0.0..=1.0).contains(ratio))
            .map(Self)
            .ok_or_else(|| QuantityError::Ratio(text.to_owned()))
    }
}

impl FromStr for Hours {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let hours = text.split_once('-').and_then(|(from, until)| {
            Some(Self { from: time_of_day(from)?, until: time_of_day(until)? })
        });
        hours
            .filter(|hours| hours.from < hours.until)
            .ok_or_else(|| QuantityError::Hours(text.to_owned()))
    }
}

fn time_of_day(text: &str) -> Option<Duration> {
    let (hour, minute) = text.trim().split_once(':')?;
    let (hour, minute) = (hour.parse::<u64>().ok()?, minute.parse::<u64>().ok()?);
    let minutes = hour * 60 + minute;
    (hour <= 24 && minute < 60 && minutes <= 24 * 60).then(|| Duration::from_mins(minutes))
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = format!("{:.3}", self.0 * 100.0);
        write!(f, "{} %", percent.trim_end_matches('0').trim_end_matches('.'))
    }
}

macro_rules! read_from_text {
    ($($quantity:ty),*) => {$(
        impl<'de> Deserialize<'de> for $quantity {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    )*};
}

read_from_text!(PerSecond, Span, Ratio, Hours);

/// A count among floats.
#[expect(clippy::cast_precision_loss, reason = "counts of flows stay below 2^53")]
pub(crate) const fn float(count: u64) -> f64 {
    count as f64
}

/// The whole part of a number that is not negative.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float saturates, and no count is negative"
)]
pub(crate) const fn whole(number: f64) -> u64 {
    number as u64
}

/// `part` of `all`; of nothing, nothing.
pub(crate) fn ratio(part: u64, all: u64) -> Option<f64> {
    (all > 0).then(|| float(part) / float(all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_has_a_unit_of_time() {
        assert_eq!("500/s".parse(), Ok(PerSecond(500.0)));
        assert_eq!("30/min".parse(), Ok(PerSecond(0.5)));
        assert_eq!("7200/h".parse(), Ok(PerSecond(2.0)));
        for text in ["500", "500/d", "-1/s", "0/s", "inf/s", "NaN/s", "/s", "1e9/s"] {
            assert!(text.parse::<PerSecond>().is_err(), "{text}");
        }
    }

    #[test]
    fn hours_end_on_the_day_that_they_begin_on() {
        let hours: Hours = "08:30-24:00".parse().unwrap();
        assert_eq!(hours.from, Duration::from_mins(8 * 60 + 30));
        assert_eq!(hours.until, Duration::from_hours(24));
        for text in ["18:00-08:00", "8-18", "08:00", "25:00-26:00", "08:60-09:00"] {
            assert!(text.parse::<Hours>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_ratio_is_written_as_a_percentage_without_needless_digits() {
        assert_eq!("99.9%".parse::<Ratio>().unwrap().to_string(), "99.9 %");
        assert_eq!("1".parse::<Ratio>().unwrap().to_string(), "100 %");
        assert!("101%".parse::<Ratio>().is_err());
    }
}
