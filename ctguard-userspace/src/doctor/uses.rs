//! What makes this machine track connections, and what that means for whoever wants to change it.

use std::{collections::BTreeSet, io};

use super::finding::{Finding, Findings};
use crate::{
    host::{Host, LEGACY_TABLES, Unread},
    net::{Rule, rules},
};

const RULES: &str = "nf_tables: a dump of all rules";

/// Expressions of nftables, and extensions of iptables, that translate addresses …
const TRANSLATE: [&str; 9] =
    ["nat", "masq", "redir", "MASQUERADE", "SNAT", "DNAT", "REDIRECT", "NETMAP", "FULLCONENAT"];
/// … that ask conntrack …
const ASK: [&str; 7] = ["ct", "conntrack", "state", "connlimit", "connbytes", "connmark", "CT"];
/// … and that tell senders that their packets were refused.
const REJECT: [&str; 2] = ["reject", "REJECT"];

/// Who writes rules, by the names that tables or chains of theirs have.
const WRITERS: [(&str, &str); 7] = [
    ("DOCKER", "Docker"),
    ("KUBE-", "Kubernetes"),
    ("ufw-", "ufw"),
    ("firewalld", "firewalld"),
    ("fw4", "OpenWrt"),
    ("LIBVIRT_", "libvirt"),
    ("SANITY", "APF"),
];

/// A2, of the list in `docs/doctor.md`.
pub(super) fn check(host: &Host, findings: &mut Findings) {
    let legacy_nat = findings.read("rules", host.has_legacy_nat());
    if let (Some(rules), Some(legacy_nat)) = (findings.read("rules", read(host)), legacy_nat) {
        findings.add(judge(&rules, legacy_nat));
    }
}

/// Whether this machine translates addresses, as far as its rules can be read.
pub(crate) fn translates_addresses(host: &Host) -> Result<bool, Unread> {
    let by_rule = || read(host).is_ok_and(|rules| with(&rules, &TRANSLATE).is_some());
    Ok(host.has_legacy_nat()? || by_rule())
}

/// Asks the kernel where no module can be loaded, or `nf_tables` is there: else to ask would load it.
fn read(host: &Host) -> Result<Vec<Rule>, Unread> {
    if !host.is_this() {
        return Err(Unread::new(RULES, "only the machine itself can list its rules"));
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

/// The first rule with one of these expressions.
fn with<'r>(rules: &'r [Rule], names: &[&str]) -> Option<&'r Rule> {
    let has = |rule: &&Rule| rule.expressions.iter().any(|name| names.contains(&name.as_str()));
    rules.iter().find(has)
}

fn judge(rules: &[Rule], legacy_nat: bool) -> Vec<Finding> {
    let place = |rule: &Rule| format!("table {}, chain {}", rule.table, rule.chain);
    let translates = with(rules, &TRANSLATE);
    let mut found = Vec::new();
    if let Some(rule) = translates {
        found.push(nat().read(RULES, place(rule)));
    } else if legacy_nat {
        found.push(nat().read(LEGACY_TABLES.join(", "), "nat"));
    } else {
        found.push(without_nat());
    }
    if let Some(rule) = with(rules, &ASK) {
        found.push(
            Finding::note("stateful", "rules ask conntrack about flows")
                .read(RULES, place(rule))
                .because(
                    "that alone has the kernel track all of them; limits in such rules come \
                    after the entry was made",
                ),
        );
    }
    if let Some(rule) = with(rules, &REJECT) {
        found.push(
            Finding::note("reject", "rules answer what they refuse")
                .read(RULES, place(rule))
                .because(
                    "under a flood each answer costs as much as a packet, and goes to whoever \
                    was named as the sender: DROP is quiet",
                ),
        );
    }
    let writers = writers(rules);
    if !writers.is_empty() {
        let writers: Vec<_> = writers.into_iter().collect();
        found.push(
            Finding::note("writers", format!("rules are written by {}", writers.join(", ")))
                .because(
                    "what is changed by hand in theirs is gone at their next start: use their \
                    own settings",
                ),
        );
    }
    found
}

fn nat() -> Finding {
    Finding::note("nat", "this machine translates addresses").because(
        "NAT needs conntrack for every flow that it may translate: `notrack` would break those",
    )
}

fn without_nat() -> Finding {
    Finding::note("no-nat", "this machine translates no addresses").because(
        "a busy service that no rule asks conntrack about can go untracked, both ways: \
         `nft add rule inet raw prerouting udp dport 53 notrack` and \
         `nft add rule inet raw output udp sport 53 notrack` for a DNS server",
    )
}

fn writers(rules: &[Rule]) -> BTreeSet<&'static str> {
    let of = |rule: &Rule| {
        let named = |mark: &str| rule.table.starts_with(mark) || rule.chain.starts_with(mark);
        WRITERS.iter().find(|(mark, _)| named(mark)).map(|(_, writer)| *writer)
    };
    rules.iter().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(table: &str, chain: &str, expressions: &[&str]) -> Rule {
        Rule {
            table: table.to_owned(),
            chain: chain.to_owned(),
            expressions: expressions.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    fn checks(rules: &[Rule], legacy_nat: bool) -> Vec<&'static str> {
        judge(rules, legacy_nat).iter().map(|finding| finding.check).collect()
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
        let writers = judge(&rules, false).pop().unwrap();
        assert_eq!(writers.what, "rules are written by Docker, ufw");
    }
}
