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
        name: "tcp_timeout_time_wait",
        least: None,
        most: Some((Severity::Note, 60, "of short connections most entries are in this state")),
    },
    Rule {
        name: "tcp_timeout_fin_wait",
        least: None,
        most: Some((
            Severity::Note,
            120,
            "a connection that one side closed holds its entry so long",
        )),
    },
    Rule {
        name: "tcp_timeout_close_wait",
        least: None,
        most: Some((Severity::Note, 3599, "kube-proxy sets an hour, for servers that close late")),
    },
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
    switches(host, findings);
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
    Finding::of("timeout", severity, what)
        .read(sysctl_path(&key(name)), seconds).because(why).tune("ctguard tune --apply")
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
}
