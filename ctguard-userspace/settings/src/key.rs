//! Names of the settings.

use std::{fmt, str::FromStr};

use ctguard_layout::Class;
use thiserror::Error;

/// A setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    Target,
    DryRun,
    FailOpen,
    FallbackRate,
    /// Unreplied entries of a table above its target are deleted.
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
    /// The fair share below which strangers are challenged.
    Floor(Class),
    /// A ceiling per source of one interface.
    Interface(String, Class, Part),
    /// The conntrack zone of what arrives on one interface (`CT --zone`, nft `ct zone set`).
    ///
    /// The data path looks a flow up in its interface's zone, but hashes its tuple without the zone.
    /// So the same tuple in two zones shares bits of the known-flows filter, which costs a lookup. It
    /// also shares a slot of the flow cache and of the recent tuples: once it was found in one zone,
    /// it counts as known in the other for at most a second.
    Zone(String),
    /// Whether SYNs of strangers are answered on this interface, to challenge them.
    Answer(String),
}

/// How a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Switch,
    /// A fill of the table, up to so many times its maximum.
    Fill(u8),
    Rate,
    Burst,
    Zone,
}

/// Half of a ceiling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Rate,
    Burst,
}

/// No setting has this name.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error(
    "unknown key {key}{}",
    near.as_ref().map_or_else(
        || "; ctguard set --help lists all keys".to_owned(),
        |near| format!(", did you mean {near}?")
    )
)]
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

    pub(super) const fn form(&self) -> Form {
        match self {
            Self::DryRun | Self::FailOpen | Self::Reclaim | Self::Answer(_) => Form::Switch,
            Self::Target | Self::AdaptiveStart => Form::Fill(1),
            // Beyond the maximum, so that timeouts of a full table are not yet at their least.
            Self::AdaptiveEnd => Form::Fill(2),
            Self::FallbackRate | Self::Floor(_) => Form::Rate,
            Self::Source(_, part)
            | Self::Prefix(_, part)
            | Self::Service(_, part)
            | Self::Interface(_, _, part) => match part {
                Part::Rate => Form::Rate,
                Part::Burst => Form::Burst,
            },
            Self::Zone(_) => Form::Zone,
        }
    }

    pub(super) const fn class(&self) -> Option<Class> {
        match self {
            Self::Source(class, _)
            | Self::Prefix(class, _)
            | Self::Service(class, _)
            | Self::Floor(class)
            | Self::Interface(_, class, _) => Some(*class),
            Self::Target
            | Self::DryRun
            | Self::FailOpen
            | Self::FallbackRate
            | Self::Reclaim
            | Self::AdaptiveStart
            | Self::AdaptiveEnd
            | Self::Zone(_)
            | Self::Answer(_) => None,
        }
    }

    /// What the setting does, in one line.
    pub(super) const fn meaning(&self) -> &'static str {
        match self {
            Self::Target => "Highest fill to which guarded interfaces may bring the table",
            Self::DryRun => "Decide and count as always, but drop nothing",
            Self::FailOpen => "While no daemon runs, enforce ceilings only and no fallback rate",
            Self::FallbackRate => "New flows for the whole table while no daemon runs",
            Self::Reclaim => "Delete unreplied entries while the table is above its target",
            Self::AdaptiveStart => "Fill at which timeouts begin to shrink",
            Self::AdaptiveEnd => "Fill at which timeouts would reach zero",
            Self::Source(_, Part::Rate) => "Ceiling: new flows from one source",
            Self::Source(_, Part::Burst) => "New flows that one source may open at once",
            Self::Prefix(_, Part::Rate) => "New flows from one IPv4 /24 or IPv6 /48",
            Self::Prefix(_, Part::Burst) => "New flows that one /24 or /48 may open at once",
            Self::Service(_, Part::Rate) => "New flows to one address and port",
            Self::Service(_, Part::Burst) => "New flows to one address and port at once",
            Self::Floor(_) => "Fair share below which unknown sources are challenged",
            Self::Interface(_, _, Part::Rate) => "Ceiling of each source on this interface",
            Self::Interface(_, _, Part::Burst) => "Burst of each source on this interface",
            Self::Zone(_) => "Conntrack zone that rules set for packets arriving here",
            Self::Answer(_) => "Answer a SYN to challenge it; if off, wait for a second SYN",
        }
    }

    /// What holds where the setting has no value.
    pub(super) const fn unset(&self) -> &'static str {
        match self {
            Self::FallbackRate => "target x maximum / 120 s",
            Self::Prefix(_, Part::Burst) | Self::Service(_, Part::Burst) => "one second's worth",
            Self::Interface(_, _, Part::Rate) => "source.CLASS.rate",
            Self::Interface(_, _, Part::Burst) => "source.CLASS.burst",
            Self::Prefix(_, Part::Rate)
            | Self::Service(_, Part::Rate)
            | Self::AdaptiveStart
            | Self::AdaptiveEnd
            | Self::Target
            | Self::DryRun
            | Self::FailOpen
            | Self::Reclaim
            | Self::Source(..)
            | Self::Floor(_)
            | Self::Zone(_)
            | Self::Answer(_) => "off",
        }
    }

    fn ceilings() -> impl Iterator<Item = (Class, Part)> {
        Class::ALL.into_iter().flat_map(|class| [(class, Part::Rate), (class, Part::Burst)])
    }
}

impl Form {
    /// The form in help.
    pub(super) const fn notation(self) -> &'static str {
        match self {
            Self::Switch => "on|off",
            Self::Fill(_) => "N%",
            Self::Rate => "N/s",
            Self::Burst | Self::Zone => "N",
        }
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
    // Of an interface's key only the interface's name may be right: it ends one or three dots before
    // the key does.
    let names = text.strip_prefix("interface.").into_iter().flat_map(|rest| {
        [1, 3]
            .into_iter()
            .filter_map(|dots| rest.rsplitn(dots + 1, '.').nth(dots))
            .filter(|name| !name.is_empty())
    });
    let (score, name) = Key::all()
        .into_iter()
        .chain(names.flat_map(Key::of_interface))
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
    fn a_key_like_no_other_names_where_all_are_listed() {
        let error = "xyzzy".parse::<Key>().unwrap_err();
        assert_eq!(error.to_string(), "unknown key xyzzy; ctguard set --help lists all keys");
    }

    #[test]
    fn a_misspelt_key_of_an_interface_names_the_near_one_of_that_interface() {
        for (misspelt, near) in [
            ("interface.wan0.zon", "interface.wan0.zone"),
            ("interface.eth0.100.anser", "interface.eth0.100.answer"),
            ("interface.eth0.100.source.tpc.rate", "interface.eth0.100.source.tcp.rate"),
        ] {
            let error = misspelt.parse::<Key>().unwrap_err();
            assert_eq!(error.near.as_deref(), Some(near));
        }
    }

    #[test]
    fn an_interface_without_a_name_is_no_key() {
        assert!("interface..source.tcp.rate".parse::<Key>().is_err());
        assert!("interface..zone".parse::<Key>().is_err());
        assert!("interface.zone".parse::<Key>().is_err());
    }
}
