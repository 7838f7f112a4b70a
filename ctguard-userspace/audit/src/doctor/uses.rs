//! Rules that use conntrack, and what that means for changing them.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use super::finding::{Finding, Findings};
use crate::host::{Host, LEGACY_TABLES, Listener, Unread};
use ctguard_kernel::net::{Rule, rules};

const RULES: &str = "nf_tables: dump of all rules";

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

pub(super) fn check(host: &Host, findings: &mut Findings) {
    let legacy_nat = findings.read("rules", host.has_legacy_nat());
    if let (Some(rules), Some(legacy_nat)) = (findings.read("rules", read(host)), legacy_nat) {
        let served = findings.read("no-nat", Served::read(host)).unwrap_or_default();
        findings.add(judge(&rules, legacy_nat, &served));
    }
}

/// Whether this machine translates addresses, as far as its rules can be read.
pub(super) fn translates_addresses(host: &Host) -> Result<bool, Unread> {
    let by_rule = || read(host).is_ok_and(|rules| with(&rules, &TRANSLATE).is_some());
    Ok(host.has_legacy_nat()? || by_rule())
}

/// Does not ask where that would load the module `nf_tables`.
fn read(host: &Host) -> Result<Vec<Rule>, Unread> {
    if !host.is_this() {
        return Err(Unread::new(RULES, "a copy of a machine has no rules to list"));
    }
    let is_there = host.is_there("/sys/module/nf_tables")
        || host.is_built_in("nf_tables")?
        || !host.is_there(&host.modules()?);
    if !is_there {
        return Ok(Vec::new());
    }
    match rules() {
        Ok(rules) => Ok(rules),
        // A kernel without nf_tables.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP)) => {
            Ok(Vec::new())
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(Unread::new(RULES, "not permitted; run as root, or with CAP_NET_ADMIN"))
        }
        Err(error) => Err(Unread::new(RULES, &error)),
    }
}

fn with<'r>(rules: &'r [Rule], names: &[&str]) -> Option<&'r Rule> {
    let has = |rule: &&Rule| rule.expressions.iter().any(|name| names.contains(&name.as_str()));
    rules.iter().find(has)
}

fn judge(rules: &[Rule], legacy_nat: bool, served: &Served) -> Vec<Finding> {
    let place = |rule: &Rule| format!("table {}, chain {}", rule.table, rule.chain);
    let nat = Finding::note("nat", "this machine does NAT").because(
        "NAT needs conntrack for every flow that it may translate; `notrack` would break them",
    );
    let asks = with(rules, &ASK);
    let mut found = vec![match with(rules, &TRANSLATE) {
        Some(rule) => nat.read(RULES, place(rule)),
        None if legacy_nat => nat.read(LEGACY_TABLES.join(", "), "nat"),
        None => without_nat(served, asks.is_some()),
    }];
    found.extend(asks.map(|rule| {
        Finding::note("stateful", "rules use conntrack").read(RULES, place(rule)).because(
            "a single such rule makes the kernel track every flow; limits in such rules apply after \
             the entry was created",
        )
    }));
    found.extend(with(rules, &REJECT).map(|rule| {
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

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Served {
    tcp: BTreeSet<u16>,
    udp: BTreeSet<u16>,
}

impl Served {
    fn read(host: &Host) -> Result<Self, Unread> {
        let ports = |listeners: Vec<Listener>, wanted: fn(u16) -> bool| {
            let served = listeners.into_iter().filter(|socket| !socket.is_local());
            served.map(|socket| socket.at.port()).filter(|port| wanted(*port)).collect()
        };
        Ok(Self {
            // SSH is better off tracked.
            tcp: ports(Listener::read(host)?, |port| port != SSH),
            // Most other UDP sockets belong to clients.
            udp: ports(Listener::of_udp(host)?, |port| port == DNS),
        })
    }

    /// A protocol and its first ports, as nftables writes them.
    fn matches(&self) -> Vec<(&'static str, String)> {
        let all = [("udp", &self.udp), ("tcp", &self.tcp)];
        let all = all.into_iter().filter(|(_, ports)| !ports.is_empty());
        let words = |ports: &BTreeSet<u16>| {
            let ports = ports.iter().take(MOST_PORTS).map(u16::to_string);
            format!("{{ {} }}", ports.collect::<Vec<_>>().join(", "))
        };
        all.map(|(protocol, ports)| (protocol, words(ports))).collect()
    }
}

fn without_nat(served: &Served, rules_ask: bool) -> Finding {
    let answer = if rules_ask {
        "your rules must then accept `ct state untracked`"
    } else {
        "no rule needs conntrack for them"
    };
    let finding = Finding::note("no-nat", "this machine does no NAT");
    let matches = served.matches();
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
fn writers(rules: &[Rule]) -> BTreeMap<&'static str, &'static str> {
    let of = |rule: &Rule| {
        let named = |mark: &str| rule.table.starts_with(mark) || rule.chain.starts_with(mark);
        let found = WRITERS.iter().find(|(mark, ..)| named(mark));
        found.map(|(_, writer, place)| (*writer, *place))
    };
    rules.iter().filter_map(of).collect()
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
        }
    }

    fn checks(rules: &[Rule], legacy_nat: bool) -> Vec<&'static str> {
        judge(rules, legacy_nat, &Served::default()).iter().map(|finding| finding.check).collect()
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
        let writers = judge(&rules, false, &Served::default()).pop().unwrap();
        assert_eq!(writers.what, "rules are managed by Docker, ufw");
    }

    /// Fails when a router is told how not to track what it translates.
    #[test]
    fn notrack_is_told_for_the_ports_that_are_served_and_never_beside_nat() {
        let served = Served { tcp: BTreeSet::from([80, 443]), udp: BTreeSet::from([53]) };
        let commands = |rules: &[Rule], legacy| -> String {
            let found = judge(rules, legacy, &served);
            let mends = found.iter().flat_map(|finding| &finding.mend);
            mends.map(|mend| mend.command.as_str()).collect::<Vec<_>>().join("\n")
        };
        let told = commands(&[], false);
        assert!(told.contains("udp dport { 53 } notrack"), "{told}");
        assert!(told.contains("output tcp sport { 80, 443 } notrack"), "{told}");
        assert_eq!(commands(&[], true), "");
        assert_eq!(commands(&[rule("nat", "postrouting", &["masq"])], false), "");
        let asks = judge(&[rule("filter", "input", &["ct"])], false, &served);
        assert!(asks[0].why.contains("ct state untracked"), "{}", asks[0].why);
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
        let served = Served::read(machine.host()).unwrap();
        assert_eq!(served, Served { tcp: BTreeSet::from([80]), udp: BTreeSet::from([53]) });
    }
}
