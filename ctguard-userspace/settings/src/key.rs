//! The settings: one table with the name, place and meaning of each.

use std::{fmt, str::FromStr};

use ctguard_layout::{Class, Policy, Rate};
use thiserror::Error;

use crate::{document::quoted, value::Form};

/// A setting, or several alike: one for each class and interface that `CLASS` and `IF` stand for.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) meaning: &'static str,
    /// What applies while the setting has no value.
    pub(crate) unset: &'static str,
}

/// Where a setting is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// A bit of the policy that switches something on.
    On(u32),
    /// A bit of the policy that switches something off.
    Off(u32),
    /// A number in the policy; 0 is no value.
    Policy(Form, fn(&mut Policy, usize) -> &mut u32),
    /// A ceiling of the policy; the policy has a bit for each that the operator set.
    Source(Form, fn(&mut Rate) -> &mut u32),
    /// An interface's own ceiling; 0 is no value.
    Ceiling(Form, fn(&mut Rate) -> &mut u32),
    /// The conntrack zone of what arrives on an interface (`CT --zone`, nft `ct zone set`).
    ///
    /// The data path looks a flow up in its interface's zone, but hashes its tuple without the zone.
    /// So the same tuple in two zones shares bits of the known-flows filter, which costs a lookup. It
    /// also shares a slot of the flow cache and of the recent tuples: once it was found in one zone,
    /// it counts as known in the other for at most a second.
    Zone,
    /// Whether an interface answers SYNs of strangers to challenge them.
    Answer,
}

impl Kind {
    pub(crate) const fn form(self) -> Form {
        match self {
            Self::On(_) | Self::Off(_) | Self::Answer => Form::Switch,
            Self::Policy(form, _) | Self::Source(form, _) | Self::Ceiling(form, _) => form,
            Self::Zone => Form::Zone,
        }
    }
}

/// Every setting, in the order of the reference.
pub(crate) static TABLE: [Row; 28] = [
    row(
        "target",
        Kind::Policy(Form::Fill(1), |policy, _| &mut policy.target_ppm),
        "Highest fill to which guarded interfaces may bring the table",
    ),
    row("dry-run", Kind::On(Policy::DRY_RUN), "Decide and count as always, but drop nothing"),
    row(
        "fail-open",
        Kind::On(Policy::FAIL_OPEN),
        "While no daemon runs, enforce ceilings only and no fallback rate",
    ),
    row(
        "dns",
        Kind::On(Policy::DNS),
        "Answer a challenged DNS query, so that the resolver asks again over TCP",
    ),
    row(
        "fallback.rate",
        Kind::Policy(Form::Rate, |policy, _| &mut policy.fallback_flows_per_second),
        "New flows for the whole table while no daemon runs",
    )
    .or("target x maximum / 120 s"),
    row(
        "answers.rate",
        Kind::Policy(Form::Rate, |policy, _| &mut policy.answers_per_second),
        "Challenges answered in all",
    )
    .or("half of what the links carry"),
    row(
        "relief.reclaim",
        Kind::Off(Policy::NO_RECLAIM),
        "Delete idle entries to keep room below the target for new flows",
    ),
    row(
        "relief.unanswered-after",
        Kind::Policy(Form::Age, |policy, _| &mut policy.reclaim_after[0]),
        "Idle time after which an entry that nobody answered may be deleted",
    ),
    row(
        "relief.half-open-after",
        Kind::Policy(Form::Age, |policy, _| &mut policy.reclaim_after[1]),
        "The same for a TCP handshake that was not completed",
    ),
    row(
        "relief.finished-after",
        Kind::Policy(Form::Age, |policy, _| &mut policy.reclaim_after[2]),
        "The same for TCP in TIME_WAIT or CLOSE",
    ),
    row(
        "relief.answered-after",
        Kind::Policy(Form::Age, |policy, _| &mut policy.reclaim_after[3]),
        "The same for UDP and others with a reply, but no stream",
    ),
    row(
        "relief.stream-above-part-after",
        Kind::Policy(Form::Age, |policy, _| &mut policy.reclaim_after[4]),
        "The same for a UDP stream, if its source holds above its part",
    ),
    row(
        "relief.established-above-part-after",
        Kind::Policy(Form::Age, |policy, _| &mut policy.reclaim_after[5]),
        "The same for established TCP, if its source holds above its part",
    ),
    row(
        "relief.adaptive-start",
        Kind::Policy(Form::Fill(1), |policy, _| &mut policy.adaptive_ppm[0]),
        "Fill at which timeouts begin to shrink",
    ),
    // Beyond the maximum, so that timeouts of a full table are not yet at their least.
    row(
        "relief.adaptive-end",
        Kind::Policy(Form::Fill(2), |policy, _| &mut policy.adaptive_ppm[1]),
        "Fill at which timeouts would reach zero",
    ),
    row(
        "overload.after",
        Kind::Policy(Form::Age, |policy, _| &mut policy.overload_after),
        "Time above its part of the table after which a source is denied",
    ),
    row(
        "overload.for",
        Kind::Policy(Form::Age, |policy, _| &mut policy.overload_for),
        "How long it is denied; off: until it is removed from the list",
    ),
    row(
        "source.CLASS.rate",
        Kind::Source(Form::Rate, |ceiling| &mut ceiling.flows_per_second),
        "Ceiling: new flows from one source",
    ),
    row(
        "source.CLASS.burst",
        Kind::Source(Form::Burst, |ceiling| &mut ceiling.burst),
        "New flows that one source may open at once",
    ),
    row(
        "prefix.CLASS.rate",
        Kind::Policy(Form::Rate, |policy, class| &mut policy.prefix[class].flows_per_second),
        "New flows from one IPv4 /24 or IPv6 /48",
    ),
    row(
        "prefix.CLASS.burst",
        Kind::Policy(Form::Burst, |policy, class| &mut policy.prefix[class].burst),
        "New flows that one /24 or /48 may open at once",
    )
    .or("one second's worth"),
    row(
        "service.CLASS.rate",
        Kind::Policy(Form::Rate, |policy, class| &mut policy.service[class].flows_per_second),
        "New flows to one address and port",
    ),
    row(
        "service.CLASS.burst",
        Kind::Policy(Form::Burst, |policy, class| &mut policy.service[class].burst),
        "New flows to one address and port at once",
    )
    .or("one second's worth"),
    row(
        "floor.CLASS.rate",
        Kind::Policy(Form::Rate, |policy, class| &mut policy.floor[class]),
        "Fair share below which unknown sources are challenged",
    ),
    row(
        "interface.IF.source.CLASS.rate",
        Kind::Ceiling(Form::Rate, |ceiling| &mut ceiling.flows_per_second),
        "Ceiling of each source on this interface",
    )
    .or("source.CLASS.rate"),
    row(
        "interface.IF.source.CLASS.burst",
        Kind::Ceiling(Form::Burst, |ceiling| &mut ceiling.burst),
        "Burst of each source on this interface",
    )
    .or("source.CLASS.burst"),
    row("interface.IF.zone", Kind::Zone, "Conntrack zone that rules set for packets arriving here"),
    row(
        "interface.IF.answer",
        Kind::Answer,
        "Answer a SYN to challenge it; if off, wait for a second SYN",
    ),
];

const fn row(name: &'static str, kind: Kind, meaning: &'static str) -> Row {
    Row { name, kind, meaning, unset: "off" }
}

impl Row {
    const fn or(self, unset: &'static str) -> Self {
        Self { unset, ..self }
    }

    fn scope(&self) -> Option<&str> {
        self.name.rsplit_once('.').map(|(scope, _)| scope)
    }
}

/// A setting of one class and interface.
#[derive(Clone, Debug)]
pub struct Key {
    pub(crate) row: &'static Row,
    class: Option<Class>,
    pub(crate) interface: Option<String>,
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
        Self::with(None)
    }

    /// Every key of one interface.
    pub fn of_interface(name: &str) -> Vec<Self> {
        Self::with(Some(name))
    }

    /// The rows of a scope come class by class.
    fn with(interface: Option<&str>) -> Vec<Self> {
        let mut keys = Vec::new();
        for rows in TABLE.chunk_by(|a, b| a.scope() == b.scope()) {
            if rows[0].name.contains("IF") != interface.is_some() {
                continue;
            }
            let has_class = rows[0].name.contains("CLASS");
            let classes = if has_class { Class::ALL.map(Some).to_vec() } else { vec![None] };
            for class in classes {
                let interface = || interface.map(str::to_owned);
                keys.extend(rows.iter().map(|row| Self { row, class, interface: interface() }));
            }
        }
        keys
    }

    /// The interface that it is of.
    #[must_use]
    pub fn interface(&self) -> Option<&str> {
        self.interface.as_deref()
    }

    /// The parts of the name, of which that of an interface may have dots in it.
    #[must_use]
    pub fn path(&self) -> Vec<String> {
        let unnamed = Self { interface: None, ..self.clone() }.to_string();
        let part = |part: &str| match (part, &self.interface) {
            ("", Some(name)) => name.clone(),
            _ => part.to_owned(),
        };
        unnamed.split('.').map(part).collect()
    }

    /// The name as a dotted key of TOML: that of an interface needs quotes.
    #[must_use]
    pub fn in_toml(&self) -> String {
        let Some(interface) = &self.interface else { return self.to_string() };
        Self { interface: Some(quoted(interface)), ..self.clone() }.to_string()
    }

    /// Index of the class in the policy's arrays.
    pub(crate) fn class(&self) -> usize {
        self.class.map_or(0, |class| class as usize)
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

impl Eq for Key {}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let class = self.class.map_or("", Class::name);
        let name = self.row.name.replace("CLASS", class);
        f.write_str(&name.replace("IF", self.interface.as_deref().unwrap_or_default()))
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
    nearest_of(text, [])
}

/// The same among all keys and `others`.
pub(crate) fn nearest_of(text: &str, others: impl IntoIterator<Item = String>) -> Option<String> {
    const NEAR: f64 = 0.8;
    // Of an interface's key only the interface's name may be right: it ends one or three dots before
    // the key does.
    let names = text.strip_prefix("interface.").into_iter().flat_map(|rest| {
        [1, 3]
            .into_iter()
            .filter_map(|dots| rest.rsplitn(dots + 1, '.').nth(dots))
            .filter(|name| !name.is_empty())
    });
    let keys = Key::all().into_iter().chain(names.flat_map(Key::of_interface));
    let (score, name) = others
        .into_iter()
        .chain(keys.map(|key| key.to_string()))
        .map(|name| (strsim::jaro_winkler(text, &name), name))
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
