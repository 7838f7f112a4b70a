//! Rules that use conntrack, and what that means for changing them.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use super::{
    finding::{Finding, Findings},
    flow_rules,
};
use crate::host::{Host, LEGACY_TABLES, Listener, Unread};
use ctguard_kernel::{
    modules::{Part, Presence},
    net::{Rule, Ruleset, shared_timeouts},
};

pub(super) const RULES: &str = "nf_tables: dump of all rules";
pub(super) const SHARED_TIMEOUTS: &str = "nfnetlink_cttimeout: dump of all policies";

/// Expressions of nftables, and extensions of iptables, that translate addresses …
const TRANSLATE: [&str; 9] =
    ["nat", "masq", "redir", "MASQUERADE", "SNAT", "DNAT", "REDIRECT", "NETMAP", "FULLCONENAT"];
/// … that use conntrack …
const ASK: [&str; 7] = ["ct", "conntrack", "state", "connlimit", "connbytes", "connmark", "CT"];
/// … and that answer what they refuse.
const REJECT: [&str; 2] = ["reject", "REJECT"];

const DNS: u16 = 53;
const SSH: u16 = 22;
const MOST_PORTS: usize = 8;

/// Programs that write rules: how the names of their tables or chains start, who they are, and
/// where to put rules of one's own.
const WRITERS: [(&str, &str, &str); 16] = [
    ("DOCKER", "Docker", "the chain DOCKER-USER"),
    ("docker-bridges", "Docker", "a table of your own"),
    ("KUBE-", "Kubernetes", "Services and NetworkPolicies"),
    ("kube-proxy", "Kubernetes", "Services and NetworkPolicies"),
    ("cali-", "Calico", "its policies"),
    ("CILIUM_", "Cilium", "its policies"),
    ("FLANNEL-", "flannel", "a table of your own"),
    ("ufw-", "ufw", "/etc/ufw/before.rules"),
    ("firewalld", "firewalld", "firewall-cmd --permanent"),
    ("fw4", "OpenWrt", "/etc/config/firewall and /etc/nftables.d"),
    ("LIBVIRT_", "libvirt", "/etc/libvirt/hooks/network"),
    ("libvirt_network", "libvirt", "/etc/libvirt/hooks/network"),
    ("SANITY", "APF", "/etc/apf/preroute.rules and postroute.rules"),
    ("LOGDROPIN", "CSF", "/etc/csf/csfpre.sh and csfpost.sh"),
    ("f2b-", "fail2ban", "a table of your own"),
    ("vyos_", "VyOS", "`set firewall`"),
];

pub(super) fn check(host: &Host, rules: Result<Ruleset, Unread>, findings: &mut Findings) {
    let legacy_nat = findings.read("rules", host.has_legacy_nat());
    if let (Some(rules), Some(legacy_nat)) = (findings.read("rules", rules), legacy_nat) {
        let served = findings.read("no-nat", served(host)).unwrap_or_default();
        // Rules of the older iptables, which nf_tables does not list, may ask.
        let unlisted = ["filter", "mangle", "raw", "security"];
        let unlisted = unlisted.into_iter().any(|table| host.has_legacy(table).unwrap_or(true));
        findings.add(judge(&rules, (legacy_nat, unlisted), &served));
        flow_rules::check(host, &rules, findings);
    }
}

/// Whether this machine translates addresses, as far as its rules can be read by anybody.
pub(super) fn translates_addresses(
    host: &Host,
    rules: &Result<Ruleset, Unread>,
) -> Result<bool, Unread> {
    if host.has_legacy_nat()? {
        return Ok(true);
    }
    match rules {
        Ok(all) => Ok(with(all.rules.iter(), &TRANSLATE).is_some()),
        Err(unread) if unread.is_not_permitted => Err(unread.clone()),
        Err(_) => Ok(false),
    }
}

/// Does not ask where that would load a module.
pub(super) fn read(host: &Host) -> Result<Ruleset, Unread> {
    if !host.is_this() {
        return Err(Unread::new(RULES, "a copy of a machine has no rules to list"));
    }
    let mut rules = Ruleset::default();
    match Part::NfTables.presence() {
        Presence::Askable => rules = or_none(Ruleset::read(), RULES)?,
        Presence::Absent => {}
        Presence::Unknown => {
            return Err(Unread::new(
                RULES,
                "not asked for, as that might load the module nf_tables",
            ));
        }
    }
    if Part::Timeouts.presence() == Presence::Askable {
        rules.timeouts.extend(or_none(shared_timeouts(), SHARED_TIMEOUTS)?);
    }
    Ok(rules)
}

/// Nothing, for a kernel that was built without it.
fn or_none<T: Default>(read: io::Result<T>, source: &str) -> Result<T, Unread> {
    match read {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP)) => {
            Ok(T::default())
        }
        read => read.map_err(|error| Unread::failed(source, &error, "CAP_NET_ADMIN")),
    }
}

fn with<'r>(mut rules: impl Iterator<Item = &'r Rule>, names: &[&str]) -> Option<&'r Rule> {
    let has = |rule: &&Rule| rule.expressions.iter().any(|name| names.contains(&name.as_str()));
    rules.find(has)
}

/// Beside the rules: whether the older iptables translates addresses, and whether it may ask.
fn judge(
    rules: &Ruleset,
    (legacy_nat, legacy_asks): (bool, bool),
    served: &[(&str, String)],
) -> Vec<Finding> {
    let nat = Finding::note("nat", "this machine does NAT").because(
        "NAT needs conntrack for every flow that it may translate; `notrack` would break them",
    );
    let asks = with(rules.all_rules(), &ASK);
    let mut found = vec![match with(rules.rules.iter(), &TRANSLATE) {
        Some(rule) => nat.read(RULES, place(rule)),
        None if legacy_nat => nat.read(LEGACY_TABLES.join(", "), "nat"),
        None => without_nat(served, asks.is_some() || legacy_asks),
    }];
    found.extend(asks.map(|rule| {
        Finding::note("stateful", "rules use conntrack").read(RULES, place(rule)).because(
            "a single such rule makes the kernel track every flow. Limits in such rules apply after \
             the entry was created: dropping the packet frees it, so a flood costs time but fills \
             nothing; in a full table no rule sees the packet",
        )
    }));
    found.extend(with(rules.rules.iter(), &REJECT).map(|rule| {
        Finding::note("reject", "rules answer refused packets").read(RULES, place(rule)).because(
            "under a flood every answer costs CPU and goes to a possibly forged address; DROP sends \
             none",
        )
    }));
    let writers = writers(rules);
    let names: Vec<_> = writers.keys().copied().collect();
    let places = writers.iter().map(|(writer, place)| format!("for {writer}: {place}"));
    let why = format!(
        "changes by hand are lost when they restart. Put your own rules elsewhere: {}",
        places.collect::<Vec<_>>().join("; ")
    );
    let managed = Finding::note("writers", format!("rules are managed by {}", names.join(", ")));
    found.extend(managed.because(why).when(!writers.is_empty()));
    found
}

pub(super) fn place(rule: &Rule) -> String {
    format!("table {}, chain {}", rule.table, rule.chain)
}

/// Protocols and their first ports that other machines can reach, as nftables writes them.
fn served(host: &Host) -> Result<Vec<(&'static str, String)>, Unread> {
    let ports = |listeners: Vec<Listener>, wanted: fn(u16) -> bool| {
        let reachable = listeners.into_iter().filter(|socket| !socket.is_local());
        let ports: BTreeSet<u16> = reachable.map(|socket| socket.at.port()).collect();
        let ports = ports.into_iter().filter(|port| wanted(*port)).take(MOST_PORTS);
        ports.map(|port| port.to_string()).collect::<Vec<_>>().join(", ")
    };
    // Most other UDP sockets belong to clients, and SSH is better off tracked.
    let udp = ports(Listener::of_udp(host)?, |port| port == DNS);
    let tcp = ports(Listener::read(host)?, |port| port != SSH);
    let all = [("udp", udp), ("tcp", tcp)].into_iter().filter(|(_, ports)| !ports.is_empty());
    Ok(all.map(|(protocol, ports)| (protocol, format!("{{ {ports} }}"))).collect())
}

fn without_nat(matches: &[(&str, String)], rules_ask: bool) -> Finding {
    let answer = if rules_ask {
        "where your rules accept `ct state new` for these ports, write `ct state { new, untracked }` \
         with the same restrictions, and accept what leaves from the ports; do not accept everything \
         that is untracked"
    } else {
        "no rule needs conntrack for them"
    };
    let finding = Finding::note("no-nat", "this machine does no NAT");
    if matches.is_empty() {
        return finding.because(format!(
            "a busy service needs no entries if both directions are excluded from tracking \
             (`docs/table-full.md` has the rules); {answer}"
        ));
    }
    let named = matches.iter().map(|(protocol, ports)| format!("{protocol} {ports}"));
    let why = format!(
        "its services ({}) need no entries if both directions are excluded from tracking; {answer}",
        named.collect::<Vec<_>>().join(", ")
    );
    let chain = |hook: &str| {
        format!("nft 'add chain inet untracked {hook} {{ type filter hook {hook} priority raw; }}'")
    };
    let rule = |rule: String| format!("nft 'add rule inet untracked {rule} notrack'");
    let finding = finding
        .because(why)
        .by_hand("nft add table inet untracked")
        .by_hand(chain("prerouting"))
        .by_hand(chain("output"));
    matches.iter().fold(finding, |finding, (protocol, ports)| {
        let to_us = format!("prerouting fib daddr type local {protocol} dport {ports}");
        finding.by_hand(rule(to_us)).by_hand(rule(format!("output {protocol} sport {ports}")))
    })
}

/// Their names, and where to put rules of one's own.
fn writers(rules: &Ruleset) -> BTreeMap<&'static str, &'static str> {
    let of = |rule: &Rule| {
        let named = |mark: &str| rule.table.starts_with(mark) || rule.chain.starts_with(mark);
        let found = WRITERS.iter().find(|(mark, ..)| named(mark));
        found.map(|(_, writer, place)| (*writer, *place))
    };
    rules.all_rules().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::testing::Machine;

    fn rule(table: &str, chain: &str, expressions: &[&str]) -> Rule {
        Rule {
            table: table.to_owned(),
            chain: chain.to_owned(),
            expressions: expressions.iter().map(|name| (*name).to_owned()).collect(),
            ..Rule::default()
        }
    }

    fn ruleset(rules: &[Rule]) -> Ruleset {
        Ruleset { rules: rules.to_vec(), ..Ruleset::default() }
    }

    fn checks(rules: &[Rule], legacy_nat: bool) -> Vec<&'static str> {
        judge(&ruleset(rules), (legacy_nat, false), &[])
            .iter()
            .map(|finding| finding.check)
            .collect()
    }

    /// Fails when somebody with NAT is told to go without conntrack.
    #[test]
    fn notrack_is_named_only_where_nothing_is_translated() {
        assert_eq!(checks(&[], false), ["no-nat"]);
        assert_eq!(checks(&[], true), ["nat"]);
        assert_eq!(checks(&[rule("nat", "postrouting", &["meta", "masq"])], false), ["nat"]);
        let iptables = rule("nat", "POSTROUTING", &["cmp", "MASQUERADE"]);
        assert_eq!(checks(&[iptables], false), ["nat"]);
    }

    #[test]
    fn whoever_writes_rules_is_named_once() {
        let rules = [
            rule("nat", "DOCKER", &["cmp", "DNAT"]),
            rule("filter", "DOCKER-USER", &["ct", "immediate"]),
            rule("filter", "ufw-user-input", &["reject"]),
        ];
        assert_eq!(checks(&rules, false), ["nat", "stateful", "reject", "writers"]);
        let writers = judge(&ruleset(&rules), (false, false), &[]).pop().unwrap();
        assert_eq!(writers.what, "rules are managed by Docker, ufw");
    }

    /// Fails when a router is told how not to track what it translates.
    #[test]
    fn notrack_is_told_for_the_ports_that_are_served_and_never_beside_nat() {
        let served = [("udp", "{ 53 }".to_owned()), ("tcp", "{ 80, 443 }".to_owned())];
        let commands = |rules: &[Rule], legacy| -> String {
            let found = judge(&ruleset(rules), (legacy, false), &served);
            let mends = found.iter().flat_map(|finding| &finding.mend);
            mends.map(|mend| mend.command.as_str()).collect::<Vec<_>>().join("\n")
        };
        let told = commands(&[], false);
        assert!(told.contains("udp dport { 53 } notrack"), "{told}");
        assert!(told.contains("output tcp sport { 80, 443 } notrack"), "{told}");
        assert_eq!(commands(&[], true), "");
        assert_eq!(commands(&[rule("nat", "postrouting", &["masq"])], false), "");
        let asks = [rule("filter", "input", &["ct"])];
        let judged = |rules: &[Rule], legacy| judge(&ruleset(rules), (false, legacy), &served);
        for found in [judged(&asks, false), judged(&[], true)] {
            let why = &found[0].why;
            assert!(why.contains("{ new, untracked }") && !why.contains("no rule"), "{why}");
        }
    }

    /// Fails when a chain that nothing jumps to counts for what it does, or not for what it costs.
    #[test]
    fn rules_that_no_packet_comes_to_translate_and_reject_nothing_but_track() {
        let idle = vec![rule("nat", "old", &["masq"]), rule("filter", "old", &["ct", "reject"])];
        let rules = Ruleset { idle, ..Ruleset::default() };
        let found = judge(&rules, (false, false), &[]);
        let checks: Vec<_> = found.iter().map(|finding| finding.check).collect();
        assert_eq!(checks, ["no-nat", "stateful"]);
    }

    #[test]
    fn what_only_this_machine_reaches_is_not_served() {
        let machine = Machine::healthy("uses-served");
        let line = |address: &str, state: &str| {
            format!("0: {address} 00000000:0000 {state} 00000000:00000000\n")
        };
        let tcp = [("00000000:0016", "0A"), ("00000000:0050", "0A"), ("0100007F:1F90", "0A")];
        let tcp: String = tcp.iter().map(|(address, state)| line(address, state)).collect();
        machine.write("/proc/net/tcp", &format!("heading\n{tcp}"));
        let udp = [("00000000:0035", "07"), ("00000000:A000", "07")];
        let udp: String = udp.iter().map(|(address, state)| line(address, state)).collect();
        machine.write("/proc/net/udp", &format!("heading\n{udp}"));
        let (udp, tcp) = (("udp", "{ 53 }".to_owned()), ("tcp", "{ 80 }".to_owned()));
        assert_eq!(served(machine.host()).unwrap(), [udp, tcp]);
    }
}
