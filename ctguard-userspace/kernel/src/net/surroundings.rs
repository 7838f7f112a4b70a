//! The interfaces of this network namespace, and what netfilter sees of frames that cross bridges.

use std::{
    fmt::{self, Display, Formatter},
    fs,
};

use super::{
    link::Link,
    neighbours::received,
    nf_tables::{self, Rule, Ruleset},
};

/// With one of them on, iptables and conntrack see what crosses any bridge (`br_netfilter_hooks.c`).
const CALLS: [&str; 2] =
    ["net.bridge.bridge-nf-call-iptables", "net.bridge.bridge-nf-call-ip6tables"];

#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    pub links: Vec<Link>,
    pub sight: Sight,
    /// Rules that track what crosses bridges, or hand it to this machine.
    pub(super) tracking: Option<BridgedBy>,
    /// A table with rules that exempt packets from tracking.
    pub exempting: Option<String>,
}

/// What changes without an event of rtnetlink.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sight {
    /// The setting that is on.
    pub(super) sysctl: Option<&'static str>,
    /// The generation of nftables' rules, or why it is unknown.
    pub(super) rules: Option<Result<u32, String>>,
    /// Interfaces and unicast addresses that they receive besides their own.
    pub(super) received: Vec<(u32, [u8; 6])>,
}

/// Why conntrack sees what crosses a bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BridgedBy {
    Sysctl(&'static str),
    /// The bridge's own `nf_call_iptables` or `nf_call_ip6tables`.
    Bridge,
    Rules {
        table: String,
    },
    /// Perhaps it does not: its rules cannot be read.
    Unread {
        error: String,
    },
}

impl Surroundings {
    /// `links` are all interfaces, those with the numbers `guarded` among them.
    pub fn of(links: Vec<Link>, guarded: &[u32]) -> Self {
        let sight = Sight::of(&links, guarded);
        let mut around = Self { links, sight, ..Self::default() };
        let rules = match &around.sight.rules {
            None => return around,
            Some(Err(error)) => Err(error.clone()),
            Some(Ok(_)) => nf_tables::rules().map_err(|error| error.to_string()),
        };
        match rules {
            Err(error) => around.tracking = Some(BridgedBy::Unread { error }),
            Ok(rules) => {
                let table = |is_meant: fn(&Rule) -> bool| {
                    rules.iter().find(|rule| is_meant(rule)).map(|rule| rule.table.clone())
                };
                around.tracking =
                    table(Rule::tracks_bridged).map(|table| BridgedBy::Rules { table });
                around.exempting = table(Rule::exempts).and_then(exempting);
            }
        }
        around
    }

    /// Whether this is still so where netfilter sees `sight`: rules that could not be read are worth
    /// another attempt.
    pub fn still_hold(&self, sight: &Sight) -> bool {
        let has_rules = matches!(self.sight.rules, Some(Ok(_)));
        let are_unread = matches!(self.tracking, Some(BridgedBy::Unread { .. }));
        *sight == self.sight && !(has_rules && are_unread)
    }

    /// Why conntrack sees what crosses `bridge`; `None` if it does not.
    pub(super) fn bridged_by(&self, bridge: &Link) -> Option<BridgedBy> {
        let by_sysctl = self.sight.sysctl.map(BridgedBy::Sysctl);
        let by_itself = || bridge.calls_netfilter.then_some(BridgedBy::Bridge);
        by_sysctl.or_else(by_itself).or_else(|| self.tracking.clone())
    }

    /// The name of the bridge above `link`.
    pub(super) fn bridge_of(&self, link: &Link) -> Option<String> {
        let master = self.links.iter().find(|master| Some(master.index) == link.master)?;
        master.is_a("bridge").then(|| master.name.clone())
    }
}

impl Sight {
    pub fn of(links: &[Link], guarded: &[u32]) -> Self {
        let mut sight = Self::default();
        for link in links.iter().filter(|link| guarded.contains(&link.index)) {
            if link.master.is_none() {
                // Unknown addresses are charged.
                let received = received(link.index).unwrap_or_default();
                sight.received.extend(received.into_iter().map(|address| (link.index, address)));
            }
        }
        sight.sysctl = CALLS.into_iter().find(|key| is_on(key));
        sight.rules = nf_tables::generation().map_err(|error| error.to_string()).transpose();
        sight
    }

    pub(super) fn received_by(&self, ifindex: u32) -> Vec<[u8; 6]> {
        let of_it = self.received.iter().filter(|(index, _)| *index == ifindex);
        of_it.map(|(_, address)| *address).collect()
    }
}

/// The table of a rule that exempts packets, if any come to such a rule; `table` if that is unknown.
fn exempting(table: String) -> Option<String> {
    let Ok(all) = Ruleset::read() else { return Some(table) };
    all.rules.into_iter().find(Rule::exempts).map(|rule| rule.table)
}

/// Linux before 5.3 has one value for all network namespaces, and no file without `br_netfilter`.
fn is_on(key: &str) -> bool {
    let text = fs::read_to_string(format!("/proc/sys/{}", key.replace('.', "/")));
    text.is_ok_and(|text| text.trim() != "0")
}

impl Display for BridgedBy {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sysctl(key) => write!(f, "{key} is on"),
            Self::Bridge => f.write_str("its nf_call_iptables or nf_call_ip6tables is on"),
            Self::Rules { table } => write!(f, "rules in table bridge {table}"),
            Self::Unread { error } => write!(f, "perhaps; rules cannot be read: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails when a list of rules that was interrupted once is never read again.
    #[test]
    fn rules_that_could_not_be_read_are_read_again_though_they_are_the_same() {
        let sight = Sight { rules: Some(Ok(7)), ..Sight::default() };
        let around = Surroundings { sight: sight.clone(), ..Surroundings::default() };
        assert!(around.still_hold(&sight));
        assert!(!around.still_hold(&Sight { rules: Some(Ok(8)), ..Sight::default() }));
        let tracking = Some(BridgedBy::Unread { error: "interrupted".to_owned() });
        assert!(!Surroundings { tracking: tracking.clone(), ..around }.still_hold(&sight));
        let refused = Sight { rules: Some(Err("refused".to_owned())), ..Sight::default() };
        let around = Surroundings { sight: refused.clone(), tracking, ..Surroundings::default() };
        assert!(around.still_hold(&refused), "their number cannot be read either");
    }
}
