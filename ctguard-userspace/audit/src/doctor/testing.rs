//! A machine for tests: set up rightly, until a test breaks something.

use std::{collections::BTreeSet, fs};

use super::{
    audit::{Audit, Besides, audit},
    finding::{Finding, Severity},
    guard::Health,
    mends::given,
    role::Role,
};
use crate::{
    host::{Host, Unread, present_name, testing::Fake},
    tune::{Max, propose},
};

/// A server with 4 GiB, as `ctguard tune --apply --persist` leaves it.
pub const HEALTHY: &[(&str, &str)] = &[
    ("/proc/sys/kernel/osrelease", "6.12.0\n"),
    ("/proc/uptime", "1000.0 2000.0\n"),
    ("/proc/meminfo", "MemTotal: 4194304 kB\nMemAvailable: 3145728 kB\n"),
    ("/proc/slabinfo", "nf_conntrack 96 160 256 16 1 : tunables 0 0 0\n"),
    (
        "/proc/net/stat/nf_conntrack",
        "entries clashres drop early_drop insert_failed invalid\n00000400 0 0 0 0 100\n",
    ),
    ("/proc/net/softnet_stat", "00000001 00000000 00000000\n"),
    ("/proc/net/snmp", "Ip: Forwarding InReceives\nIp: 2 100000\n"),
    ("/proc/net/snmp6", "Ip6InReceives 100000\nIp6ReasmFails 2\n"),
    (
        "/proc/net/netstat",
        "TcpExt: ListenOverflows TCPReqQFullDrop TCPReqQFullDoCookies\nTcpExt: 0 0 0\n",
    ),
    (
        "/proc/net/tcp",
        "sl local_address rem_address st tx_queue:rx_queue\n\
            0: 00000000:0016 00000000:0000 0A 00000000:00000000\n",
    ),
    ("/proc/sys/net/core/somaxconn", "4096\n"),
    ("/proc/sys/net/ipv4/tcp_syncookies", "1\n"),
    ("/proc/sys/net/ipv4/tcp_max_syn_backlog", "512\n"),
    ("/proc/sys/net/netfilter/nf_conntrack_frag6_high_thresh", "4194304\n"),
    ("/proc/net/nf_conntrack_expect", ""),
    ("/proc/self/mounts", "proc /proc proc rw,nosuid 0 0\n"),
    ("/dev/kmsg", "6,1,1000,-;eth0: link up\n"),
    ("/proc/sys/net/ipv4/ip_forward", "0\n"),
    ("/proc/sys/net/nf_conntrack_max", "262144\n"),
    ("/proc/sys/net/netfilter/nf_conntrack_count", "1024\n"),
    ("/proc/sys/net/netfilter/nf_conntrack_max", "262144\n"),
    ("/proc/sys/net/netfilter/nf_conntrack_buckets", "262144\n"),
    ("/proc/sys/net/netfilter/nf_conntrack_expect_max", "1024\n"),
    ("/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established", "86400\n"),
    ("/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_syn_sent", "60\n"),
    ("/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_time_wait", "60\n"),
    ("/proc/sys/net/netfilter/nf_conntrack_udp_timeout", "30\n"),
    ("/proc/sys/net/netfilter/nf_conntrack_udp_timeout_stream", "120\n"),
    ("/proc/sys/net/netfilter/nf_conntrack_generic_timeout", "120\n"),
    ("/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_syn_recv", "60\n"),
    ("/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_last_ack", "30\n"),
    ("/proc/sys/net/netfilter/nf_conntrack_icmp_timeout", "30\n"),
    ("/proc/sys/net/netfilter/nf_conntrack_gre_timeout_stream", "180\n"),
    ("/proc/sys/net/netfilter/nf_flowtable_tcp_timeout", "30\n"),
    ("/proc/sys/net/netfilter/nf_conntrack_events", "2\n"),
    ("/etc/modules-load.d/conntrack.conf", "nf_conntrack\n"),
    ("/etc/sysctl.conf", "# a distribution's comment\n"),
];

pub struct Machine(Fake);

impl Machine {
    pub fn healthy(test: &str) -> Self {
        Self(Fake::new(test, HEALTHY))
    }

    pub fn host(&self) -> &Host {
        &self.0.host
    }

    pub fn write(&self, path: &str, text: &str) {
        self.0.write(path, text);
    }

    pub fn remove(&self, path: &str) {
        fs::remove_file(self.host().path(path)).unwrap();
    }

    pub fn audit(&self) -> Audit {
        self.audit_beside(Ok(None))
    }

    pub fn audit_beside(&self, guard: Result<Option<Health>, Unread>) -> Audit {
        let guard = Box::new(|| guard);
        audit(self.host(), Besides { interface: None, flood: 100_000, guard })
    }

    /// What is wrong, without notes.
    pub fn found(&self) -> Vec<(&'static str, Severity)> {
        self.all_found().into_iter().filter(|(_, severity)| *severity != Severity::Note).collect()
    }

    pub fn checks(&self) -> Vec<&'static str> {
        self.found().into_iter().map(|(check, _)| check).collect()
    }

    /// Compares the settings in doctor's commands with what the `tune` of the same finding sets; returns
    /// those compared.
    pub fn compare_with_tune(&self, name: &str) -> BTreeSet<String> {
        let mut compared = BTreeSet::new();
        // These are mended with the value of a line.
        let is_of_line = |finding: &Finding| ["drift", "too-early"].contains(&finding.check);
        let found = self.audit().findings.into_iter().filter(|finding| !is_of_line(finding));
        for Finding { check, mend, .. } in found {
            let is_for_nat = mend.iter().any(|mend| mend.command.contains("--for nat-router"));
            let role = is_for_nat.then_some(Role::NatRouter);
            let Ok(proposal) = propose(self.host(), role, Max::Auto) else { continue };
            for (key, value) in mend.iter().flat_map(|mend| given(&mend.command)) {
                let key = present_name(key);
                let change = proposal.changes.iter().find(|change| change.key == key);
                let Some(change) = change else { continue };
                assert_eq!(value, change.then.to_string(), "{name}: {check} sets {key}");
                assert!(change.changes(), "{name}: {check} sets {key}, and tune does not");
                compared.insert(key.to_owned());
            }
        }
        compared
    }

    pub fn all_found(&self) -> Vec<(&'static str, Severity)> {
        self.audit().findings.iter().map(|finding| (finding.check, finding.severity)).collect()
    }
}

impl Audit {
    pub fn notes(&self, check: &str) -> Vec<&Finding> {
        self.findings.iter().filter(|finding| finding.check == check).collect()
    }
}
