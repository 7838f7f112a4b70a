//! How long entries live, and what else conntrack's switches do to them.

use super::{
    finding::{Finding, Findings},
    role::Role,
    timeout_rules::{TIMEOUTS, TimeoutRule},
};
use crate::host::{Host, sysctl_path};

const FLOWTABLE: [&str; 2] =
    ["net.netfilter.nf_flowtable_tcp_timeout", "net.netfilter.nf_flowtable_udp_timeout"];
const FLOWTABLE_SECONDS: u64 = 30;
const SOCKETS: &str = "/proc/net/netlink";

/// Switches: name, the value to mention, check, what it means, what it does.
const SWITCHES: [(&str, u64, &str, &str, &str); 5] = [
    (
        "tcp_loose",
        1,
        "tcp-loose",
        "an ACK that belongs to no known connection creates an entry",
        "connections survive a reboot of the router that way, but a flood of ACKs fills the table \
         too; SYNPROXY needs 0",
    ),
    (
        "tcp_be_liberal",
        1,
        "liberal",
        "conntrack does not check TCP windows, and any ACK completes a connection",
        "only needed where packets of one direction take another path; ctguard cannot tell then who \
         completed a handshake, and treats those sources as strangers",
    ),
    (
        "checksum",
        0,
        "checksum",
        "checksums are not verified before an entry is created",
        "OpenWrt does the same, for speed",
    ),
    ("acct", 1, "accounting", "every entry counts packets and bytes", "costs 32 bytes an entry"),
    ("timestamp", 1, "timestamps", "every entry stores its times", "costs 16 bytes an entry"),
];

pub(super) fn check(host: &Host, role: Role, findings: &mut Findings) {
    for rule in &TIMEOUTS {
        let seconds = findings.number("timeout", host, &rule.key());
        findings.add(seconds.and_then(|seconds| judge(rule, seconds, role)));
    }
    for key in FLOWTABLE {
        let seconds = findings.number("timeout", host, key).filter(|it| *it > FLOWTABLE_SECONDS);
        findings.add(seconds.map(|seconds| {
            Finding::note("timeout", format!("{key} is {seconds} s"))
                .read(sysctl_path(key), seconds)
                .because("a flow stays in its flowtable this long after its last packet")
        }));
    }
    for (name, value, check, what, why) in SWITCHES {
        let found = findings.number(check, host, &key(name)).filter(|found| *found == value);
        findings.add(found.map(|found| {
            Finding::note(check, what).read(sysctl_path(&key(name)), found).because(why)
        }));
    }
    let by_port = findings.number("helpers", host, &key("helper")) == Some(1);
    let helper = Finding::warning("helpers", "helpers are assigned to flows by port alone")
        .read(sysctl_path(&key("helper")), 1)
        .because(
            "whoever can reach such a port can have the firewall opened; Linux 6.0 removed this \
             setting",
        )
        .by_hand("sysctl -w net.netfilter.nf_conntrack_helper=0");
    findings.add(helper.when(by_port));
    events(host, findings);
}

fn judge(rule: &TimeoutRule, seconds: u64, machine: Role) -> Option<Finding> {
    let wrong = rule.judge(seconds, machine)?;
    let key = rule.key();
    let finding = Finding::of("timeout", wrong.severity, format!("{key} is {seconds} s"))
        .read(sysctl_path(&key), seconds)
        .because(wrong.why);
    let finding = if rule.is_tuned() { finding.tune("ctguard tune --apply") } else { finding };
    Some(finding.by_hand(format!("sysctl -w {key}={}", wrong.should_be)))
}

/// 1 prepares every entry for events; 2, the default since 5.19, only while somebody listens
/// (`nf_ct_ecache_ext_add`, `net/netfilter/nf_conntrack_ecache.c`).
fn events(host: &Host, findings: &mut Findings) {
    let Some(1) = findings.number("events", host, &key("events")) else { return };
    let Some(Some(sockets)) = findings.read("events", host.text(SOCKETS)) else { return };
    let what = "every entry is prepared for events, and nobody listens to them";
    let unheard = Finding::note("events", what)
        .read(sysctl_path(&key("events")), 1)
        .read(SOCKETS, "no socket listens to conntrack")
        .because(
            "costs some bytes an entry; 2 spends them only while somebody listens (before Linux \
             5.19: 0, never)",
        );
    findings.add(unheard.when(!sockets.lines().any(hears_conntrack)));
}

/// A line `sk Eth Pid Groups …`: a socket of `NETLINK_NETFILTER`, in one of the groups of
/// `enum nfnetlink_groups` that get events of entries.
fn hears_conntrack(line: &str) -> bool {
    const NETFILTER: &str = "12";
    const NEW_UPDATE_DESTROY: u32 = 0b111;
    let mut words = line.split_whitespace().skip(1);
    let is_netfilter = words.next() == Some(NETFILTER);
    let groups = words.nth(1).and_then(|groups| u32::from_str_radix(groups, 16).ok());
    is_netfilter && groups.is_some_and(|groups| groups & NEW_UPDATE_DESTROY != 0)
}

fn key(name: &str) -> String {
    format!("net.netfilter.nf_conntrack_{name}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{finding::Severity, testing::Machine};

    fn with(name: &str, seconds: &str, forwards: &str) -> Vec<(&'static str, Severity)> {
        let machine = Machine::healthy(&format!("timeouts-{name}-{seconds}-{forwards}"));
        machine.write("/proc/sys/net/ipv4/ip_forward", forwards);
        machine.write(&sysctl_path(&key(name)), seconds);
        machine.all_found().into_iter().filter(|(check, _)| *check == "timeout").collect()
    }

    #[test]
    fn five_days_are_a_warning_on_a_router_and_a_note_on_a_server() {
        let name = "tcp_timeout_established";
        assert_eq!(with(name, "432000", "1"), [("timeout", Severity::Warning)]);
        assert_eq!(with(name, "432000", "0"), [("timeout", Severity::Note)]);
        assert_eq!(with(name, "86400", "1"), []);
    }

    /// Fails when advice from the web (54000 is fine, 600 is not) is taken for right or wrong alike.
    #[test]
    fn an_established_timeout_below_what_the_rfc_asks_is_found() {
        let name = "tcp_timeout_established";
        assert_eq!(with(name, "54000", "1"), []);
        assert_eq!(with(name, "7439", "0"), [("timeout", Severity::Warning)]);
        assert_eq!(with(name, "299", "0"), [("timeout", Severity::Fault)]);
    }

    #[test]
    fn events_that_nobody_hears_are_a_note() {
        let machine = Machine::healthy("timeouts-events");
        let noted = || !machine.audit().notes("events").is_empty();
        machine.write(&sysctl_path(&key("events")), "1\n");
        let header = "sk Eth Pid Groups Rmem\n";
        machine.write(SOCKETS, &format!("{header}0 12 99 00000000 0\n0 0 7 00000007 0\n"));
        assert!(noted(), "a socket of rtnetlink");
        machine.write(SOCKETS, &format!("{header}0 12 99 00000001 0\n"));
        assert!(!noted(), "conntrack -E");
        machine.remove(SOCKETS);
        machine.write(&sysctl_path(&key("events")), "2\n");
        assert!(!noted());
    }
}
