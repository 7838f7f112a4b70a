//! A group of sources that behave alike, as a scenario describes it.

use std::{ops::Range, time::Duration};

use ctguard_layout::{Class, List};
use ipnet::IpNet;
use serde::Deserialize;

use super::{
    network::Network,
    quantity::{Hours, PerSecond, Ratio, Span},
};

/// A connection that is over counts for its source until it can be reclaimed.
const TIME_WAIT: Duration = Duration::from_secs(10);

/// Bounds the memory for counts by source.
const MOST_SOURCES: u32 = 1 << 24;

#[expect(clippy::struct_excessive_bools, reason = "each is a key of the file")]
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Group {
    pub name: String,
    /// Not used if `spoofed`.
    #[serde(default = "one")]
    pub sources: u32,
    /// Of each source, or of all together if `spoofed`.
    pub rate: PerSecond,
    #[serde(default)]
    pub arrivals: Arrivals,
    /// Hours of each day; always by default.
    pub hours: Option<Hours>,
    /// From `begins` on.
    pub pulse: Option<Pulse>,
    pub begins: Option<Span>,
    pub ends: Option<Span>,
    #[serde(default = "tcp", with = "ClassName")]
    pub class: Class,
    #[serde(default)]
    pub packet: FirstPacket,
    #[serde(default = "https")]
    pub port: u16,
    /// One source per IPv4 address or IPv6 /64.
    pub network: Option<IpNet>,
    /// Each packet has a random source.
    #[serde(default)]
    pub spoofed: bool,
    /// The destination answers.
    #[serde(default = "yes")]
    pub answered: bool,
    /// TCP: the source completes the handshake. By default it does if it can.
    pub completes: Option<bool>,
    /// TCP: the source answers challenges. By default only spoofed ones do not.
    pub answers_challenges: Option<bool>,
    /// The sources are regulars.
    #[serde(default)]
    pub known_before: bool,
    pub list: Option<ListName>,
    /// Its packets arrive on a guarded interface.
    #[serde(default = "yes")]
    pub guarded: bool,
    /// A firewall behind the guard drops its packets, so that they never make entries.
    #[serde(default)]
    pub dropped_by_rules: bool,
    /// It is an attack, until its last flow has ended.
    #[serde(default)]
    pub attack: bool,
    /// Time from a flow's answer to its end.
    #[serde(default)]
    pub lasts: Span,
    /// TCP: nothing is sent in this time.
    #[serde(default)]
    pub idle: bool,
    #[serde(default = "forty_milliseconds")]
    pub round_trip: Span,
    /// Transmissions of a flow's first packet; see [`Group::tries`].
    pub tries: Option<u32>,
    /// The first retransmission timer; TCP doubles it each time.
    pub retry_after: Option<Span>,
    /// Least part of the flows that succeed at the first try.
    pub expect_at_once: Option<Ratio>,
    /// The same of flows that begin during an attack, and of all others.
    pub expect_in_attacks: Option<Ratio>,
    pub expect_outside_attacks: Option<Ratio>,
    /// Least part of the flows that succeed.
    pub expect_success: Option<Ratio>,
    /// Least fairness among the sources (Jain's index).
    pub expect_fairness: Option<Ratio>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Arrivals {
    #[default]
    Poisson,
    Constant,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Pulse {
    pub on: Span,
    pub off: Span,
}

/// [`Class`], as a scenario writes it.
#[derive(Deserialize)]
#[serde(remote = "Class", rename_all = "kebab-case")]
enum ClassName {
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
    /// Makes an entry under `nf_conntrack_tcp_loose`.
    Ack,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ListName {
    Allow,
    Deny,
}

const fn one() -> u32 {
    1
}

const fn yes() -> bool {
    true
}

const fn tcp() -> Class {
    Class::Tcp
}

const fn https() -> u16 {
    443
}

const fn forty_milliseconds() -> Span {
    Span(Duration::from_millis(40))
}

impl Group {
    /// Whether the source completes the handshake.
    pub(crate) fn completes(&self) -> bool {
        !self.spoofed && self.answered && self.completes.unwrap_or(true)
    }

    pub(crate) fn answers_challenges(&self) -> bool {
        self.class == Class::Tcp && self.answers_challenges.unwrap_or(!self.spoofed)
    }

    pub(crate) fn tries(&self) -> u32 {
        let usual = match self.class {
            _ if self.spoofed => 1,
            Class::Tcp => 7,
            Class::Udp => 3,
            Class::Other => 1,
        };
        self.tries.unwrap_or(usual).max(1)
    }

    /// From transmission number `tried`, counted from 1, to the next.
    pub(crate) fn patience(&self, tried: u32) -> Duration {
        let tcp = self.class == Class::Tcp;
        let usual = Duration::from_secs(if tcp { 1 } else { 5 });
        let first = self.retry_after.map_or(usual, |span| span.0);
        if tcp { first * (1 << (tried - 1).min(6)) } else { first }
    }

    /// New flows per second of all sources.
    pub(crate) fn total_rate(&self) -> f64 {
        if self.spoofed { self.rate.0 } else { self.rate.0 * f64::from(self.sources) }
    }

    /// When it may send; `hours` and `pulse` may forbid it in between.
    pub(crate) fn active(&self, duration: Duration) -> Range<Duration> {
        let begins = self.begins.unwrap_or_default().0;
        begins..self.ends.map_or(duration, |ends| ends.0.min(duration))
    }

    /// What a regular has learnt to hold: two standard deviations above its mean, of connections and
    /// of other flows.
    #[expect(clippy::cast_possible_truncation, reason = "far fewer than 2^24")]
    pub(crate) fn usual(&self) -> [f32; 2] {
        let held = self.lasts.0 + if self.class == Class::Tcp { TIME_WAIT } else { Duration::ZERO };
        let mean = self.rate.0 * held.as_secs_f64();
        let usual = (mean + 2.0 * mean.sqrt()) as f32;
        if self.class == Class::Tcp { [usual, 0.0] } else { [0.0, usual] }
    }

    /// `index` is the group's place in the scenario.
    pub(crate) fn network(&self, index: usize) -> Network {
        match self.network {
            Some(network) => Network::of(network),
            None if self.spoofed => Network::spoofed(),
            None => Network::of_group(index),
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
        let network = self.network.map(Network::of);
        let rules = [
            (self.name.is_empty(), "name", "must not be empty"),
            (
                !(1..=MOST_SOURCES).contains(&self.sources),
                "sources",
                "must be from 1 to 16777216; for more, set spoofed",
            ),
            (
                self.ends.is_some() && self.begins.is_some() && self.begins >= self.ends,
                "ends",
                "must be after begins",
            ),
            (
                self.pulse.is_some_and(|pulse| pulse.on.0.is_zero() || pulse.off.0.is_zero()),
                "pulse",
                "on and off must be longer than zero",
            ),
            (
                self.packet == FirstPacket::Ack && self.class != Class::Tcp,
                "packet",
                "ack needs class tcp",
            ),
            (
                network.is_some_and(|network| network.size() < u64::from(self.sources)),
                "network",
                "must have room for all sources",
            ),
        ];
        let broken = rules.into_iter().find(|(is_broken, ..)| *is_broken);
        broken.map(|(_, key, rule)| (key, rule))
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
