//! Names of the settings.

use std::{fmt, str::FromStr};

use ctguard_ebpf::layout::Class;
use thiserror::Error;

/// A setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    Target,
    DryRun,
    FailOpen,
    FallbackRate,
    /// No entries are deleted from a table above its target.
    Reclaim,
    /// Fill at which timeouts begin to shrink.
    AdaptiveStart,
    /// Fill at which they are at their least.
    AdaptiveEnd,
    /// A ceiling per source.
    Source(Class, Part),
    /// A limit per prefix.
    Prefix(Class, Part),
    /// A limit per service.
    Service(Class, Part),
    /// The fair share below which strangers of a class are challenged.
    Floor(Class),
    /// A ceiling per source of one interface.
    Interface(String, Class, Part),
    /// The conntrack zone of what arrives on one interface (`CT --zone`, nft `ct zone set`).
    ///
    /// The data path looks a flow up in its interface's zone, but its hash of a tuple has no zone:
    /// the same tuple in two zones shares the bits of the known-flows filter, which costs a lookup,
    /// and a slot of the flow cache and of the recent tuples, so that one which has just been found
    /// in its zone passes for known in the other for at most a second.
    Zone(String),
    /// SYNs of strangers are answered on this interface, to challenge them.
    Answer(String),
}

/// Half of a ceiling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Rate,
    Burst,
}

/// No setting has this name.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("unknown key {key}{}", near.as_ref().map(|near| format!(", did you mean {near}?")).unwrap_or_default())]
pub struct UnknownKey {
    pub key: String,
    pub near: Option<String>,
}

impl Key {
    /// Every key but those of single interfaces.
    pub fn all() -> Vec<Self> {
        let mut keys = vec![
            Self::Target,
            Self::DryRun,
            Self::FailOpen,
            Self::FallbackRate,
            Self::Reclaim,
            Self::AdaptiveStart,
            Self::AdaptiveEnd,
        ];
        for scope in [Self::Source, Self::Prefix, Self::Service] {
            keys.extend(Self::ceilings().map(|(class, part)| scope(class, part)));
        }
        keys.extend(Class::ALL.map(Self::Floor));
        keys
    }

    /// Every key of one interface.
    pub fn of_interface(name: &str) -> Vec<Self> {
        Self::ceilings()
            .map(|(class, part)| Self::Interface(name.to_owned(), class, part))
            .chain([Self::Zone(name.to_owned()), Self::Answer(name.to_owned())])
            .collect()
    }

    fn ceilings() -> impl Iterator<Item = (Class, Part)> {
        Class::ALL.into_iter().flat_map(|class| [(class, Part::Rate), (class, Part::Burst)])
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Target => f.write_str("target"),
            Self::DryRun => f.write_str("dry-run"),
            Self::FailOpen => f.write_str("fail-open"),
            Self::FallbackRate => f.write_str("fallback.rate"),
            Self::Reclaim => f.write_str("relief.reclaim"),
            Self::AdaptiveStart => f.write_str("relief.adaptive-start"),
            Self::AdaptiveEnd => f.write_str("relief.adaptive-end"),
            Self::Prefix(class, part) => write!(f, "prefix.{}.{part}", class.name()),
            Self::Service(class, part) => write!(f, "service.{}.{part}", class.name()),
            Self::Floor(class) => write!(f, "floor.{}.rate", class.name()),
            Self::Answer(name) => write!(f, "interface.{name}.answer"),
            Self::Source(class, part) => write!(f, "source.{}.{part}", class.name()),
            Self::Interface(name, class, part) => {
                write!(f, "interface.{name}.source.{}.{part}", class.name())
            }
            Self::Zone(name) => write!(f, "interface.{name}.zone"),
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rate => "rate",
            Self::Burst => "burst",
        })
    }
}

impl FromStr for Key {
    type Err = UnknownKey;

    /// An interface's name may have dots in it, so its key is read from both ends.
    fn from_str(text: &str) -> Result<Self, UnknownKey> {
        if let Some(key) = Self::all().into_iter().find(|key| key.to_string() == text) {
            return Ok(key);
        }
        let of_interface = text.strip_prefix("interface.").and_then(|rest| {
            Self::of_interface("")
                .iter()
                .find_map(|key| rest.strip_suffix(key.to_string().strip_prefix("interface.")?))
                .filter(|name| !name.is_empty())
        });
        let keys = of_interface.map(Self::of_interface).unwrap_or_default();
        let key = keys.into_iter().find(|key| key.to_string() == text);
        key.ok_or_else(|| UnknownKey { key: text.to_owned(), near: nearest(text) })
    }
}

/// The key that was meant, if one is near enough to be worth saying.
fn nearest(text: &str) -> Option<String> {
    const NEAR: f64 = 0.8;
    let (score, name) = Key::all()
        .into_iter()
        .map(|key| (strsim::jaro_winkler(text, &key.to_string()), key.to_string()))
        .max_by(|(a, _), (b, _)| a.total_cmp(b))?;
    (score >= NEAR).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_read_back_from_its_name() {
        for key in Key::all().into_iter().chain(Key::of_interface("eth0.100")) {
            assert_eq!(key.to_string().parse(), Ok(key));
        }
    }

    #[test]
    fn a_misspelt_key_names_the_near_one() {
        let error = "source.tpc.rate".parse::<Key>().unwrap_err();
        assert_eq!(error.near.as_deref(), Some("source.tcp.rate"));
        assert_eq!(error.to_string(), "unknown key source.tpc.rate, did you mean source.tcp.rate?");
    }

    #[test]
    fn a_key_like_no_other_names_none() {
        assert_eq!("xyzzy".parse::<Key>().unwrap_err().to_string(), "unknown key xyzzy");
    }

    #[test]
    fn an_interface_without_a_name_is_no_key() {
        assert!("interface..source.tcp.rate".parse::<Key>().is_err());
        assert!("interface..zone".parse::<Key>().is_err());
        assert!("interface.zone".parse::<Key>().is_err());
    }
}
