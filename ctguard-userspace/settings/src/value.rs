//! Values as operators write them: `85%`, `200/s`, `on`.

use std::{fmt, str::FromStr};

use serde::Serialize;
use thiserror::Error;

/// Rates and bursts beyond this are typing errors: no packet rate gets there.
const HIGHEST: u32 = 10_000_000;

const MILLION: f64 = 1_000_000.0;

/// The value of a setting.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// Not set.
    Default,
    Switch(bool),
    /// Parts per million.
    Ratio(u32),
    /// New flows a second.
    Rate(u32),
    /// New flows.
    Burst(u32),
    /// Seconds; 0 is off.
    Age(u32),
    /// A conntrack zone; 0 is the default zone.
    Zone(u16),
}

/// How the value of a setting is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Switch,
    /// A fill of the table, up to so many times its maximum.
    Fill(u8),
    Rate,
    Burst,
    Age,
    Zone,
}

/// Why a value cannot be read.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{text} is not {}", form.expected())]
pub struct ValueError {
    text: String,
    form: Form,
}

impl Form {
    /// Reads a value; `default` resets a setting.
    pub(crate) fn parse(self, text: &str) -> Result<Value, ValueError> {
        if text == "default" {
            return Ok(Value::Default);
        }
        let value = match (self, text) {
            (Self::Switch, "true" | "on") => Some(Value::Switch(true)),
            (Self::Switch, "false" | "off") => Some(Value::Switch(false)),
            (Self::Switch, _) => None,
            (Self::Fill(most), _) => ratio(text, most.into()).map(Value::Ratio),
            (Self::Rate, _) => count(text.strip_suffix("/s").unwrap_or(text)).map(Value::Rate),
            (Self::Burst, _) => count(text).map(Value::Burst),
            (Self::Age, "off") => Some(Value::Age(0)),
            (Self::Age, _) => count(text.strip_suffix('s').unwrap_or(text)).map(Value::Age),
            (Self::Zone, _) => number(text).map(Value::Zone),
        };
        value.ok_or_else(|| ValueError { text: text.to_owned(), form: self })
    }

    /// The value that a number in the policy stands for.
    pub(crate) const fn value(self, number: u32) -> Value {
        match self {
            Self::Age => Value::Age(number),
            _ if number == 0 => Value::Default,
            Self::Fill(_) => Value::Ratio(number),
            Self::Rate => Value::Rate(number),
            Self::Burst | Self::Switch | Self::Zone => Value::Burst(number),
        }
    }

    /// The form in help.
    pub(crate) const fn notation(self) -> &'static str {
        match self {
            Self::Switch => "on|off",
            Self::Fill(_) => "N%",
            Self::Rate => "N/s",
            Self::Burst | Self::Zone => "N",
            Self::Age => "Ns|off",
        }
    }

    pub(crate) fn expected(self) -> String {
        match self {
            Self::Switch => "on or off".to_owned(),
            Self::Fill(most) => format!("a fill between 0 and {most} (write 0.85 or 85%)"),
            Self::Rate => {
                format!("a rate from 1 to {HIGHEST} new flows per second (write 200 or 200/s)")
            }
            Self::Burst => format!("a number of new flows from 1 to {HIGHEST}"),
            Self::Age => "a number of seconds (write 10s), or off".to_owned(),
            Self::Zone => format!("a conntrack zone from 0 to {}", u16::MAX),
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
            Self::Age(0) => f.write_str("off"),
            Self::Age(seconds) => write!(f, "{seconds}s"),
            Self::Zone(zone) => write!(f, "{zone}"),
        }
    }
}

impl Serialize for Value {
    /// Rates are text with their unit, a setting without a value is null.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Default => serializer.serialize_none(),
            Self::Switch(on) => serializer.serialize_bool(*on),
            Self::Ratio(parts) => serializer.serialize_f64(f64::from(*parts) / MILLION),
            Self::Rate(_) | Self::Age(_) => serializer.collect_str(self),
            Self::Burst(flows) => serializer.serialize_u32(*flows),
            Self::Zone(zone) => serializer.serialize_u16(*zone),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_ratio_or_a_percentage() {
        for text in ["0.85", "85%", "85.0 %", ".85"] {
            assert_eq!(Form::Fill(1).parse(text), Ok(Value::Ratio(850_000)), "{text}");
        }
        assert_eq!(Form::Fill(1).parse("1"), Ok(Value::Ratio(1_000_000)));
    }

    #[test]
    fn a_target_of_nothing_or_more_than_everything_is_refused() {
        for text in ["1.5", "0", "-1", "101%", "85", "NaN", "inf", "", "%", "0.0000001"] {
            assert!(Form::Fill(1).parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_rate_is_a_number_with_or_without_its_unit() {
        for text in ["200", "200/s"] {
            assert_eq!(Form::Rate.parse(text), Ok(Value::Rate(200)), "{text}");
        }
        assert_eq!(Form::Rate.parse("10000000"), Ok(Value::Rate(HIGHEST)));
    }

    #[test]
    fn a_rate_of_nothing_or_beyond_all_networks_is_refused() {
        for text in ["0", "1e12", "10000001", "-5", "+5", "5/m", "/s", "", "99999999999999999999"] {
            assert!(Form::Rate.parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_burst_has_no_unit() {
        assert_eq!(Form::Burst.parse("7"), Ok(Value::Burst(7)));
        assert!(Form::Burst.parse("7/s").is_err());
    }

    #[test]
    fn a_zone_is_a_number_of_sixteen_bits() {
        for (text, zone) in [("0", 0), ("7", 7), ("65535", 65_535)] {
            assert_eq!(Form::Zone.parse(text), Ok(Value::Zone(zone)), "{text}");
        }
        for text in ["65536", "-1", "+1", "0x5", "1.0", "", "five"] {
            assert!(Form::Zone.parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn values_are_written_as_they_are_read() {
        assert_eq!(Value::Ratio(850_000).to_string(), "85%");
        assert_eq!(Value::Ratio(995_000).to_string(), "99.5%");
        assert_eq!(Value::Rate(50).to_string(), "50/s");
        assert_eq!(Value::Switch(true).to_string(), "on");
        for text in ["10s", "off"] {
            assert_eq!(Form::Age.parse(text).unwrap().to_string(), text);
        }
    }
}
