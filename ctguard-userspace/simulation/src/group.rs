//! A group of sources that behave alike, as a scenario describes it.

use std::{ops::Range, time::Duration};

use ctguard_layout::{Class, List};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{
    network::Network,
    quantity::{Hours, PerSecond, Ratio, Span},
};

/// Sources that are kept apart, at four bytes and two counts each.
const MOST_SOURCES: u32 = 1 << 24;

/// Sources that behave alike.
#[expect(clippy::struct_excessive_bools, reason = "each is a key of the file that says yes or no")]
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Group {
    pub name: String,
    /// How many; of spoofed ones each packet has another, out of a quarter of a billion.
    #[serde(default = "one")]
    pub sources: u32,
    /// New flows of each source, or of all where they are spoofed.
    pub rate: PerSecond,
    #[serde(default)]
    pub arrivals: Arrivals,
    /// Hours of each day; always by default.
    pub hours: Option<Hours>,
    /// On and off by turns, from `begins` on.
    pub pulse: Option<Pulse>,
    pub begins: Option<Span>,
    pub ends: Option<Span>,
    #[serde(default)]
    pub class: ClassName,
    #[serde(default)]
    pub packet: FirstPacket,
    #[serde(default = "https")]
    pub port: u16,
    /// Addresses of its sources: IPv4 addresses one by one, IPv6 addresses a /64 apart.
    pub network: Option<IpNet>,
    #[serde(default)]
    pub spoofed: bool,
    /// The flow's destination answers.
    #[serde(default = "yes")]
    pub answered: bool,
    /// TCP: the source ends the handshake; `answered` unless said otherwise, never of spoofed ones.
    pub completes: Option<bool>,
    /// TCP: the source answers a challenge as a live host does.
    pub answers_challenges: Option<bool>,
    /// It was seen in calm times before.
    #[serde(default)]
    pub known_before: bool,
    /// The list that its sources are on.
    pub list: Option<ListName>,
    /// It arrives on a guarded interface; else it only takes room in the table.
    #[serde(default = "yes")]
    pub guarded: bool,
    /// Rules drop its packets behind the guard, so that they never make entries.
    #[serde(default)]
    pub dropped_by_rules: bool,
    /// How long a flow lasts, from its answer to its end.
    #[serde(default)]
    pub lasts: Span,
    #[serde(default = "forty_milliseconds")]
    pub round_trip: Span,
    /// How often a flow is tried; once where the sources are spoofed.
    pub tries: Option<u32>,
    /// The first retransmission timer; TCP doubles it each time.
    pub retry_after: Option<Span>,
    /// The least part of its flows that succeeds at the first try.
    pub expect_at_once: Option<Ratio>,
    /// The least part that succeeds at all.
    pub expect_success: Option<Ratio>,
    /// The least fairness among its sources (Jain's index).
    pub expect_fairness: Option<Ratio>,
}

/// How flows follow one another.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Arrivals {
    #[default]
    Poisson,
    Constant,
}

/// On and off by turns.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Pulse {
    pub on: Span,
    pub off: Span,
}

/// A class of flows (`ctguard_layout::Class`), written.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum ClassName {
    #[default]
    Tcp,
    Udp,
    /// Echo requests.
    Other,
}

/// What opens a TCP flow.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum FirstPacket {
    #[default]
    Syn,
    /// Of no connection (`nf_conntrack_tcp_loose`).
    Ack,
}

/// A list of the operator's.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ListName {
    Allow,
    Deny,
}

impl From<ClassName> for Class {
    fn from(name: ClassName) -> Self {
        match name {
            ClassName::Tcp => Self::Tcp,
            ClassName::Udp => Self::Udp,
            ClassName::Other => Self::Other,
        }
    }
}

const fn one() -> u32 {
    1
}

const fn yes() -> bool {
    true
}

const fn https() -> u16 {
    443
}

const fn forty_milliseconds() -> Span {
    Span(Duration::from_millis(40))
}

impl Group {
    /// Whether the source goes on with what it began.
    pub(crate) fn completes(&self) -> bool {
        !self.spoofed && self.answered && self.completes.unwrap_or(true)
    }

    /// Whether a challenge is answered.
    pub(crate) fn answers_challenges(&self) -> bool {
        self.class == ClassName::Tcp && self.answers_challenges.unwrap_or(!self.spoofed)
    }

    pub(crate) fn tries(&self) -> u32 {
        let usual = match self.class {
            _ if self.spoofed => 1,
            ClassName::Tcp => 7,
            ClassName::Udp => 3,
            ClassName::Other => 1,
        };
        self.tries.unwrap_or(usual).max(1)
    }

    /// From try number `tried`, counted from 1, to the next.
    pub(crate) fn patience(&self, tried: u32) -> Duration {
        let tcp = self.class == ClassName::Tcp;
        let usual = Duration::from_secs(if tcp { 1 } else { 5 });
        let first = self.retry_after.map_or(usual, |span| span.0);
        if tcp { first * (1 << (tried - 1).min(6)) } else { first }
    }

    /// New flows a second of all its sources.
    pub(crate) fn total_rate(&self) -> f64 {
        if self.spoofed { self.rate.0 } else { self.rate.0 * f64::from(self.sources) }
    }

    /// When it may send, hours and pulse apart.
    pub(crate) fn active(&self, duration: Duration) -> Range<Duration> {
        let begins = self.begins.unwrap_or_default().0;
        begins..self.ends.map_or(duration, |ends| ends.0.min(duration))
    }

    /// The addresses of its sources; `index` is its place among the groups.
    pub(crate) fn network(&self, index: usize) -> Network {
        match self.network {
            Some(network) => Network::of(network),
            None if self.spoofed => Network::anybody(),
            None => Network::numbered(index),
        }
    }

    pub(crate) const fn list(&self, ipv6: bool) -> Option<List> {
        match (self.list, ipv6) {
            (Some(ListName::Allow), false) => Some(List::AllowV4),
            (Some(ListName::Allow), true) => Some(List::AllowV6),
            (Some(ListName::Deny), false) => Some(List::DenyV4),
            (Some(ListName::Deny), true) => Some(List::DenyV6),
            (None, _) => None,
        }
    }

    /// The key that breaks a rule, and the rule.
    pub(super) fn broken_rule(&self) -> Option<(&'static str, &'static str)> {
        if self.name.is_empty() {
            return Some(("name", "must not be empty"));
        }
        if !(1..=MOST_SOURCES).contains(&self.sources) {
            return Some(("sources", "must be from 1 to 16777216; for more, set spoofed"));
        }
        if self.begins >= self.ends && self.begins.is_some() && self.ends.is_some() {
            return Some(("ends", "must be after begins"));
        }
        if self.pulse.is_some_and(|pulse| pulse.on.0.is_zero() || pulse.off.0.is_zero()) {
            return Some(("pulse", "on and off must be longer than zero"));
        }
        if self.packet == FirstPacket::Ack && self.class != ClassName::Tcp {
            return Some(("packet", "ack needs class tcp"));
        }
        if self.network.is_some_and(|network| Network::of(network).is_short_of(self.sources)) {
            return Some(("network", "must have room for all sources"));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::scenario::Scenario;

    #[test]
    fn a_group_needs_a_name_and_a_rate() {
        let group = parse("");
        assert!(group.completes() && group.answers_challenges());
        assert_eq!((group.tries(), group.patience(3)), (7, Duration::from_secs(4)));
    }

    #[test]
    fn spoofed_sources_neither_complete_nor_answer_nor_try_again() {
        let group = parse("spoofed = true");
        assert!(!group.completes() && !group.answers_challenges());
        assert_eq!(group.tries(), 1);
    }

    fn parse(more: &str) -> Group {
        let text = format!("duration = '10s'\n[[group]]\nname = 'a'\nrate = '5/s'\n{more}\n");
        Scenario::parse(&text, Path::new("s.toml")).unwrap().groups.remove(0)
    }
}
