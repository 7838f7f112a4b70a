//! Quantities as scenarios write them: `500/s`, `20ms`, `99.9%`, `08:00-18:00`.

use std::{fmt, time::Duration};

use ctguard_units::real;
use serde::{Deserialize, Deserializer, Serialize, de};

/// Higher packet rates are typing errors.
const HIGHEST_RATE: f64 = 100_000_000.0;

/// New flows per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct PerSecond(pub f64);

/// A length of time, or a moment since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span(pub Duration);

/// From 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize)]
pub(crate) struct Ratio(pub f64);

/// Hours of each day; the scenario begins at midnight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hours {
    pub from: Duration,
    pub until: Duration,
}

impl PerSecond {
    fn parse(text: &str) -> Option<Self> {
        let (number, unit) = text.split_once('/')?;
        let seconds = match unit {
            "s" => 1.0,
            "min" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        let rate = number.trim_end().parse::<f64>().ok()? / seconds;
        (rate > 0.0 && rate <= HIGHEST_RATE).then_some(Self(rate))
    }
}

impl Span {
    fn parse(text: &str) -> Option<Self> {
        humantime::parse_duration(text).ok().map(Self)
    }
}

impl Ratio {
    fn parse(text: &str) -> Option<Self> {
        let ratio = match text.strip_suffix('%') {
            Some(percent) => percent.trim_end().parse::<f64>().ok()? / 100.0,
            None => text.parse().ok()?,
        };
        (0.0..=1.0).contains(&ratio).then_some(Self(ratio))
    }
}

impl Hours {
    fn parse(text: &str) -> Option<Self> {
        let (from, until) = text.split_once('-')?;
        let hours = Self { from: time_of_day(from)?, until: time_of_day(until)? };
        (hours.from < hours.until).then_some(hours)
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

macro_rules! deserialize {
    ($($quantity:ty: $expected:literal;)*) => {$(
        impl<'de> Deserialize<'de> for $quantity {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::parse(&text).ok_or_else(|| de::Error::custom(format!("{text} {}", $expected)))
            }
        }
    )*};
}

deserialize! {
    PerSecond: "is not a rate (write 500/s, 30/min or 0.5/h)";
    Span: "is not a time (write 20ms, 10s or 1day)";
    Ratio: "is not a ratio between 0 and 1 (write 0.999 or 99.9%)";
    Hours: "are not hours of a day (write 08:00-18:00)";
}

/// `None` if `all` is 0.
pub(crate) fn ratio(part: u64, all: u64) -> Option<f64> {
    (all > 0).then(|| real(part) / real(all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_has_a_unit_of_time() {
        assert_eq!(PerSecond::parse("500/s"), Some(PerSecond(500.0)));
        assert_eq!(PerSecond::parse("30/min"), Some(PerSecond(0.5)));
        assert_eq!(PerSecond::parse("7200/h"), Some(PerSecond(2.0)));
        for text in ["500", "500/d", "-1/s", "0/s", "inf/s", "NaN/s", "/s", "1e9/s"] {
            assert_eq!(PerSecond::parse(text), None, "{text}");
        }
    }

    #[test]
    fn hours_end_on_the_day_that_they_begin_on() {
        let hours = Hours::parse("08:30-24:00").unwrap();
        assert_eq!(hours.from, Duration::from_mins(8 * 60 + 30));
        assert_eq!(hours.until, Duration::from_hours(24));
        for text in ["18:00-08:00", "8-18", "08:00", "25:00-26:00", "08:60-09:00"] {
            assert_eq!(Hours::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_ratio_is_written_as_a_percentage_without_needless_digits() {
        assert_eq!(Ratio::parse("99.9%").unwrap().to_string(), "99.9 %");
        assert_eq!(Ratio::parse("1").unwrap().to_string(), "100 %");
        assert_eq!(Ratio::parse("101%"), None);
    }
}
