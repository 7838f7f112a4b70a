//! How long the kernel keeps what kind of flow, and whether it picks connections up midway.

use std::path::Path;

use ctguard_layout::{DaemonFacts, FlowKind};

use super::table::Setting;
use ctguard_units::CoarseClock;

/// The settings that decide each kind; the least of those that this kernel has counts.
const KINDS: [(FlowKind, &[&str]); 10] = [
    (FlowKind::TcpOpening, &["tcp_timeout_syn_sent", "tcp_timeout_syn_recv"]),
    (
        FlowKind::TcpEstablished,
        &["tcp_timeout_established", "tcp_timeout_max_retrans", "tcp_timeout_unacknowledged"],
    ),
    (FlowKind::TcpClosing, CLOSING),
    (FlowKind::TcpClosingEstablished, CLOSING),
    (FlowKind::TcpReset, &["tcp_timeout_close"]),
    (FlowKind::Udp, &["udp_timeout", "udp_timeout_stream"]),
    (FlowKind::Icmp, &["icmp_timeout", "icmpv6_timeout"]),
    (FlowKind::Gre, &["gre_timeout", "gre_timeout_stream"]),
    (
        FlowKind::Sctp,
        &[
            "sctp_timeout_closed",
            "sctp_timeout_cookie_wait",
            "sctp_timeout_cookie_echoed",
            "sctp_timeout_established",
            "sctp_timeout_shutdown_sent",
            "sctp_timeout_shutdown_recd",
            "sctp_timeout_shutdown_ack_sent",
            "sctp_timeout_heartbeat_sent",
            "dccp_timeout_closereq",
            "dccp_timeout_closing",
            "dccp_timeout_open",
            "dccp_timeout_partopen",
            "dccp_timeout_request",
            "dccp_timeout_respond",
            "dccp_timeout_timewait",
        ],
    ),
    (FlowKind::Generic, GENERIC),
];

/// Every state behind a FIN.
const CLOSING: &[&str] = &[
    "tcp_timeout_fin_wait",
    "tcp_timeout_close_wait",
    "tcp_timeout_last_ack",
    "tcp_timeout_time_wait",
];

/// What a protocol that the kernel knows nothing of falls under.
const GENERIC: &[&str] = &["generic_timeout"];

/// `nf_ct_generic_timeout`'s first value, should even that setting be missing.
const LAST_RESORT_SECONDS: u64 = 10;

/// The settings, kept open.
#[derive(Debug)]
pub struct Timeouts {
    kinds: Vec<(FlowKind, Vec<Setting>)>,
    generic: Vec<Setting>,
    tcp_loose: Option<Setting>,
}

impl Timeouts {
    pub fn open() -> Self {
        Self {
            kinds: KINDS.iter().map(|&(kind, names)| (kind, open_all(names))).collect(),
            generic: open_all(GENERIC),
            tcp_loose: open("tcp_loose"),
        }
    }

    /// Whether this kernel had none of the settings, because conntrack was not loaded.
    pub const fn are_missing(&self) -> bool {
        self.generic.is_empty()
    }

    /// Tells the data path the timeouts, in coarse units, and what makes an entry.
    pub fn write(&self, clock: CoarseClock, facts: &mut DaemonFacts) {
        facts.tcp_loose = u32::from(self.tcp_loose());
        let generic = least(&self.generic).unwrap_or(LAST_RESORT_SECONDS);
        for (kind, settings) in &self.kinds {
            let timeout = clock.timeout(least(settings).unwrap_or(generic));
            facts.set_flow_timeout(*kind, timeout);
        }
    }

    /// Whether an ACK of no connection makes an entry.
    fn tcp_loose(&self) -> bool {
        self.tcp_loose.as_ref().and_then(|setting| setting.read().ok()) != Some(0)
    }
}

fn open_all(names: &[&str]) -> Vec<Setting> {
    names.iter().filter_map(|name| open(name)).collect()
}

fn open(name: &str) -> Option<Setting> {
    Setting::open(Path::new(&format!("/proc/sys/net/netfilter/nf_conntrack_{name}"))).ok()
}

fn least(settings: &[Setting]) -> Option<u64> {
    settings.iter().filter_map(|setting| setting.read().ok()).min()
}
