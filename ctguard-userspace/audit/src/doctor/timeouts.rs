//! How long entries live.

use super::finding::{Finding, Findings, Severity};
use crate::host::{Host, Unread, sysctl_path};

/// What a timeout should be, in seconds.
struct Rule {
    /// Behind `net.netfilter.nf_conntrack_`.
    name: &'static str,
    /// Shorter hurts users …
    least: Option<(Severity, u64, &'static str)>,
    /// … and longer fills the table.
    most: Option<(Severity, u64, &'static str)>,
}

impl Rule {
    /// Of a state that is rare: what is longer than the kernel's own was set by somebody.
    const fn at_most(name: &'static str, seconds: u64, why: &'static str) -> Self {
        Self { name, least: None, most: Some((Severity::Note, seconds, why)) }
    }
}

/// What `ctguard tune` sets of them.
const TUNED: [&str; 6] = [
    "tcp_timeout_established",
    "tcp_timeout_syn_sent",
    "tcp_timeout_time_wait",
    "udp_timeout",
    "udp_timeout_stream",
    "generic_timeout",
];

const ESTABLISHED_LONG: &str = "a connection whose ends went away without a word stays so long; \
    RFC 5382 (REQ-5) asks a NAT for 2 hours 4 minutes";
const ESTABLISHED_SHORT: &str = "RFC 5382 (REQ-5) asks a NAT for 2 hours 4 minutes: TCP keepalive \
    comes after two hours, and connections that are quiet for longer than the timeout break";

const RULES: &[Rule] = &[
    Rule {
        name: "tcp_timeout_syn_sent",
        least: Some((Severity::Warning, 10, "SYNs are repeated after 1, 3 and 7 seconds")),
        most: Some((
            Severity::Note,
            60,
            "a SYN that nobody answers holds its entry so long; who scans opens thousands",
        )),
    },
    Rule {
        name: "tcp_timeout_syn_recv",
        least: Some((Severity::Warning, 10, "SYN-ACKs are repeated after 1, 3 and 7 seconds")),
        most: Some((Severity::Note, 60, "a SYN that is answered and given up holds it so long")),
    },
    Rule::at_most(
        "tcp_timeout_time_wait",
        60,
        "of short connections most entries are in this state",
    ),
    Rule::at_most(
        "tcp_timeout_fin_wait",
        120,
        "a connection that one side closed holds its entry so long",
    ),
    Rule::at_most(
        "tcp_timeout_close_wait",
        3599,
        "kube-proxy sets an hour, for servers that close late",
    ),
    Rule::at_most("tcp_timeout_last_ack", 30, "both sides have closed, and one ACK is missing"),
    Rule::at_most("tcp_timeout_close", 10, "a connection that was reset is over"),
    Rule::at_most(
        "tcp_timeout_unacknowledged",
        300,
        "data that nobody acknowledges: the other side is gone",
    ),
    Rule::at_most(
        "tcp_timeout_max_retrans",
        300,
        "the same segment was sent three times: the other side is gone",
    ),
    Rule::at_most("icmp_timeout", 30, "each ping of another identifier is an entry"),
    Rule::at_most("icmpv6_timeout", 30, "each ping of another identifier is an entry"),
    Rule::at_most("gre_timeout", 30, "tunnels that nobody answers"),
    Rule::at_most("gre_timeout_stream", 180, "tunnels after their last packet"),
    Rule {
        name: "udp_timeout",
        least: Some((Severity::Warning, 10, "an answer that takes longer finds no entry")),
        most: None,
    },
    Rule {
        name: "udp_timeout_stream",
        least: Some((
            Severity::Warning,
            120,
            "RFC 4787 (REQ-5) asks a NAT for 2 minutes: QUIC, WireGuard and calls fall silent \
             behind a shorter one",
        )),
        most: Some((
            Severity::Warning,
            180,
            "each UDP conversation stays so long after its last packet",
        )),
    },
    Rule {
        name: "generic_timeout",
        least: None,
        most: Some((Severity::Note, 120, "for protocols that conntrack does not know")),
    },
];

/// E, of the list in `docs/doctor.md`.
pub(super) fn check(host: &Host, findings: &mut Findings) {
    let forwards = host.forwards().unwrap_or(false);
    if let Some(Some(seconds)) = findings.read("timeout", number(host, "tcp_timeout_established")) {
        findings.add(established(seconds, forwards));
    }
    for rule in RULES {
        if let Some(Some(seconds)) = findings.read("timeout", number(host, rule.name)) {
            findings.add(rule.judge(seconds));
        }
    }
    for name in FLOWTABLE {
        if let Some(Some(seconds)) = findings.read("timeout", host.number(&sysctl_path(name))) {
            findings.add((seconds > FLOWTABLE_SECONDS).then(|| {
                Finding::note("timeout", format!("{name} is {seconds} s"))
                    .read(sysctl_path(name), seconds)
                    .because("a flow stays in its flowtable so long after its last packet")
            }));
        }
    }
    switches(host, findings);
    events(host, findings);
}

/// Flowtables', where the kernel has them.
const FLOWTABLE: [&str; 2] =
    ["net.netfilter.nf_flowtable_tcp_timeout", "net.netfilter.nf_flowtable_udp_timeout"];
const FLOWTABLE_SECONDS: u64 = 30;
const SOCKETS: &str = "/proc/net/netlink";

/// 1 prepares every entry for events; 2, the default since 5.19, only while somebody listens
/// (`nf_ct_ecache_ext_add`, `net/netfilter/nf_conntrack_ecache.c`).
fn events(host: &Host, findings: &mut Findings) {
    let Some(Some(1)) = findings.read("events", number(host, "events")) else { return };
    let Some(Some(sockets)) = findings.read("events", host.text(SOCKETS)) else { return };
    findings.add((!sockets.lines().any(hears_conntrack)).then(|| {
        Finding::note("events", "each entry is prepared for events that nobody listens to")
            .read(sysctl_path(&key("events")), 1)
            .read(SOCKETS, "no socket in a group of conntrack's")
            .because(
                "takes some bytes of each entry; 2 does so only while somebody listens (on \
                 kernels before 5.19, 0 does not at all)",
            )
    }));
}

/// `sk Eth Pid Groups …`: of `NETLINK_NETFILTER`, in one of the groups of `enum nfnetlink_groups`
/// that tell of entries.
fn hears_conntrack(line: &str) -> bool {
    const NETFILTER: &str = "12";
    const NEW_UPDATE_DESTROY: u32 = 0b111;
    let mut words = line.split_whitespace().skip(1);
    let is_netfilter = words.next() == Some(NETFILTER);
    let groups = words.nth(1).and_then(|groups| u32::from_str_radix(groups, 16).ok());
    is_netfilter && groups.is_some_and(|groups| groups & NEW_UPDATE_DESTROY != 0)
}

fn number(host: &Host, name: &str) -> Result<Option<u64>, Unread> {
    host.number(&sysctl_path(&key(name)))
}

fn key(name: &str) -> String {
    format!("net.netfilter.nf_conntrack_{name}")
}

fn established(seconds: u64, forwards: bool) -> Option<Finding> {
    let name = "tcp_timeout_established";
    let (severity, why) = match seconds {
        ..300 => (Severity::Fault, ESTABLISHED_SHORT),
        300..7440 => (Severity::Warning, ESTABLISHED_SHORT),
        86_401.. if forwards => (Severity::Warning, ESTABLISHED_LONG),
        86_401.. => (Severity::Note, ESTABLISHED_LONG),
        7440.. => return None,
    };
    Some(finding(name, severity, seconds, why))
}

fn finding(name: &'static str, severity: Severity, seconds: u64, why: &str) -> Finding {
    let what = format!("{} is {seconds} s", key(name));
    let found =
        Finding::of("timeout", severity, what).read(sysctl_path(&key(name)), seconds).because(why);
    if TUNED.contains(&name) { found.tune("ctguard tune --apply") } else { found }
}

impl Rule {
    fn judge(&self, seconds: u64) -> Option<Finding> {
        let (severity, limit, why) = match (self.least, self.most) {
            (Some(least), _) if seconds < least.1 => least,
            (_, Some(most)) if seconds > most.1 => most,
            _ => return None,
        };
        let finding = finding(self.name, severity, seconds, why);
        Some(finding.by_hand(format!("sysctl -w {}={limit}", key(self.name))))
    }
}

fn switches(host: &Host, findings: &mut Findings) {
    let mut note = |name: &str, value: u64, check, what: &str, why: &str| {
        if let Some(Some(found)) = findings.read(check, number(host, name)) {
            findings.add((found == value).then(|| {
                Finding::note(check, what).read(sysctl_path(&key(name)), found).because(why)
            }));
        }
    };
    note(
        "tcp_loose",
        1,
        "tcp-loose",
        "an ACK of no known connection makes an entry",
        "connections survive a reboot of the router that way, and a flood of ACKs fills the table \
         as well; SYNPROXY needs 0",
    );
    note(
        "tcp_be_liberal",
        1,
        "liberal",
        "TCP is tracked without a look at its windows",
        "needed where only one direction passes here",
    );
    note(
        "checksum",
        0,
        "checksum",
        "checksums are not verified before an entry is made",
        "OpenWrt does so, for speed",
    );
    note(
        "acct",
        1,
        "accounting",
        "each entry counts its packets and bytes",
        "takes 32 bytes more of each entry",
    );
    note(
        "timestamp",
        1,
        "timestamps",
        "each entry has its times of start and end",
        "takes 16 bytes more of each entry",
    );
    if let Some(Some(helper)) = findings.read("helpers", number(host, "helper")) {
        findings.add((helper == 1).then(|| {
            Finding::warning("helpers", "helpers are assigned to flows by port alone")
                .read(sysctl_path(&key("helper")), helper)
                .because(
                    "whoever reaches such a port can have the firewall opened; kernels since \
                    6.0 no longer know this",
                )
                .by_hand("sysctl -w net.netfilter.nf_conntrack_helper=0")
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::testing::Machine;

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
    fn every_rule_is_quiet_at_its_limits_and_speaks_beyond_them() {
        for rule in RULES {
            for (limit, beyond) in
                [(rule.least.map(|least| least.1), -1), (rule.most.map(|most| most.1), 1)]
            {
                let Some(limit) = limit else { continue };
                assert!(rule.judge(limit).is_none(), "{} {limit}", rule.name);
                let beyond = limit.checked_add_signed(beyond).unwrap();
                assert!(rule.judge(beyond).is_some(), "{} {beyond}", rule.name);
            }
        }
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
