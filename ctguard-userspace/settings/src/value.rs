//! Values as operators write them: `85%`, `200/s`, `on`.

use std::{fmt, str::FromStr};

use serde::Serialize;
use thiserror::Error;

use super::key::{Form, Key};

/// Rates and bursts beyond this are typing errors: no packet rate gets there.
const HIGHEST: u32 = 10_000_000;

const MILLION: f64 = 1_000_000.0;

/// The value of a setting.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// What holds without a setting.
    Default,
    Switch(bool),
    /// Parts per million.
    Ratio(u32),
    /// New flows a second.
    Rate(u32),
    /// New flows.
    Burst(u32),
    /// A conntrack zone; 0 is the default zone.
    Zone(u16),
}

/// Why a value cannot be read.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ValueError {
    #[error("{value} is not on or off")]
    Switch { value: String },
    #[error("{value} is not a fill between 0 and {most} (write 0.85 or 85%)")]
    Ratio { value: String, most: u8 },
    #[error("{value} is not a rate from 1 to {HIGHEST} new flows per second (write 200 or 200/s)")]
    Rate { value: String },
    #[error("{value} is not a number of new flows from 1 to {HIGHEST}")]
    Burst { value: String },
    #[error("{value} is not a conntrack zone from 0 to {}", u16::MAX)]
    Zone { value: String },
}

impl Value {
    /// Reads the value of `key`; `default` takes a setting back.
    pub fn parse(key: &Key, text: &str) -> Result<Self, ValueError> {
        if text == "default" {
            return Ok(Self::Default);
        }
        let value = text.to_owned();
        match key.form() {
            Form::Switch => match text {
                "true" | "on" => Ok(Self::Switch(true)),
                "false" | "off" => Ok(Self::Switch(false)),
                _ => Err(ValueError::Switch { value }),
            },
            Form::Fill(most) => {
                ratio(text, most.into()).map(Self::Ratio).ok_or(ValueError::Ratio { value, most })
            }
            Form::Rate => count(text.strip_suffix("/s").unwrap_or(text))
                .map(Self::Rate)
                .ok_or(ValueError::Rate { value }),
            Form::Burst => count(text).map(Self::Burst).ok_or(ValueError::Burst { value }),
            Form::Zone => number(text).map(Self::Zone).ok_or(ValueError::Zone { value }),
        }
    }
}

fn ratio(text: &str, most: f64) -> Option<u32> {
    let ratio = match text.strip_suffix('%') {
        Some(percent) => percent.trim_end().parse::<f64>().ok()? / 100.0,
        None => text.parse::<f64>().ok()?,
    };
    let parts = (ratio * MILLION).round();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a whole number from 1 to two millions"
    )]
    (1.0..=most * MILLION).contains(&parts).then_some(parts as u32)
}

fn count(text: &str) -> Option<u32> {
    number(text).filter(|count| (1..=HIGHEST).contains(count))
}

/// Without a sign, which the standard library takes.
fn number<N: FromStr>(text: &str) -> Option<N> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Switch(on) => f.write_str(if *on { "on" } else { "off" }),
            Self::Ratio(parts) => write!(f, "{}%", f64::from(*parts) / (MILLION / 100.0)),
            Self::Rate(flows) => write!(f, "{flows}/s"),
            Self::Burst(flows) => write!(f, "{flows}"),
            Self::Zone(zone) => write!(f, "{zone}"),
        }
    }
}

impl Serialize for Value {
    /// Ratios, counts, zones and switches as JSON's own, rates as text with their unit, a setting that
    /// is not made as null.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Default => serializer.serialize_none(),
            Self::Switch(on) => serializer.serialize_bool(*on),
            Self::Ratio(parts) => serializer.serialize_f64(f64::from(*parts) / MILLION),
            Self::Rate(_) => serializer.collect_str(self),
            Self::Burst(flows) => serializer.serialize_u32(*flows),
            Self::Zone(zone) => serializer.serialize_u16(*zone),
        }
    }
}

#[cfg(test)]
mod tests {
    use ctguard_layout::Class;

    use super::*;
    use crate::key::Part;

    #[test]
    fn a_target_is_a_ratio_or_a_percentage() {
        for text in ["0.85", "85%", "85.0 %", ".85"] {
            assert_eq!(Value::parse(&Key::Target, text), Ok(Value::Ratio(850_000)), "{text}");
        }
        assert_eq!(Value::parse(&Key::Target, "1"), Ok(Value::Ratio(1_000_000)));
    }

    #[test]
    fn a_target_of_nothing_or_more_than_everything_is_refused() {
        for text in ["1.5", "0", "-1", "101%", "85", "NaN", "inf", "", "%", "0.0000001"] {
            assert!(Value::parse(&Key::Target, text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_rate_is_a_number_with_or_without_its_unit() {
        let key = Key::Source(Class::Tcp, Part::Rate);
        for text in ["200", "200/s"] {
            assert_eq!(Value::parse(&key, text), Ok(Value::Rate(200)), "{text}");
        }
        assert_eq!(Value::parse(&key, "10000000"), Ok(Value::Rate(HIGHEST)));
    }

    #[test]
    fn a_rate_of_nothing_or_beyond_all_networks_is_refused() {
        let key = Key::Source(Class::Udp, Part::Rate);
        for text in ["0", "1e12", "10000001", "-5", "+5", "5/m", "/s", "", "99999999999999999999"] {
            assert!(Value::parse(&key, text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_burst_has_no_unit() {
        let key = Key::Source(Class::Tcp, Part::Burst);
        assert_eq!(Value::parse(&key, "7"), Ok(Value::Burst(7)));
        assert!(Value::parse(&key, "7/s").is_err());
    }

    #[test]
    fn a_zone_is_a_number_of_sixteen_bits() {
        let key = Key::Zone("wan0".into());
        for (text, zone) in [("0", 0), ("7", 7), ("65535", 65_535)] {
            assert_eq!(Value::parse(&key, text), Ok(Value::Zone(zone)), "{text}");
        }
        for text in ["65536", "-1", "+1", "0x5", "1.0", "", "five"] {
            assert!(Value::parse(&key, text).is_err(), "{text}");
        }
    }

    #[test]
    fn values_are_written_as_they_are_read() {
        assert_eq!(Value::Ratio(850_000).to_string(), "85%");
        assert_eq!(Value::Ratio(995_000).to_string(), "99.5%");
        assert_eq!(Value::Rate(50).to_string(), "50/s");
        assert_eq!(Value::Switch(true).to_string(), "on");
    }
}
