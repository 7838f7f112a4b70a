//! Conntrack's timeout for each kind of flow, whether it picks up connections midway, and whose ports
//! it does not read.

use ctguard_layout::{DaemonFacts, FlowKind};
use ctguard_units::CoarseClock;

use super::{ports, timeouts_writer::TimeoutSettings};

/// The settings of each kind; the smallest that this kernel has applies.
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

const CLOSING: &[&str] = &[
    "tcp_timeout_fin_wait",
    "tcp_timeout_close_wait",
    "tcp_timeout_last_ack",
    "tcp_timeout_time_wait",
];

/// For protocols that the kernel does not know.
const GENERIC: &[&str] = &["generic_timeout"];

/// In case even `generic_timeout` is missing.
const LAST_RESORT_SECONDS: u64 = 10;

/// Reads the settings of the caller's network namespace.
#[derive(Debug)]
pub struct Timeouts {
    settings: TimeoutSettings,
    are_missing: bool,
    without_ports: Vec<u8>,
}

impl Timeouts {
    pub fn open() -> Self {
        let settings = TimeoutSettings::of_the_kernel();
        let are_missing = least(&settings, GENERIC).is_none();
        // A request over netlink would load conntrack.
        let without_ports = if are_missing { Vec::new() } else { ports::protocols_without_ports() };
        Self { settings, are_missing, without_ports }
    }

    /// Whether there were no settings when this was opened, because conntrack was not loaded.
    pub const fn are_missing(&self) -> bool {
        self.are_missing
    }

    /// Whether conntrack takes any ACK for that of a handshake (`nf_conntrack_tcp_be_liberal`), so that a
    /// connection does not prove its source's address.
    pub fn take_any_ack(&self) -> bool {
        self.settings.read("tcp_be_liberal").is_some_and(|value| value != 0)
    }

    /// Writes the timeouts in coarse units, whether an ACK that belongs to no connection makes an entry,
    /// and which protocols have no ports.
    pub fn write(&self, clock: CoarseClock, facts: &mut DaemonFacts) {
        facts.tcp_loose = u32::from(self.settings.read("tcp_loose") != Some(0));
        facts.set_without_ports(&self.without_ports);
        let generic = least(&self.settings, GENERIC).unwrap_or(LAST_RESORT_SECONDS);
        for (kind, names) in KINDS {
            let seconds = least(&self.settings, names).unwrap_or(generic);
            facts.set_flow_timeout(kind, clock.timeout(seconds));
        }
    }
}

fn least(settings: &TimeoutSettings, names: &[&str]) -> Option<u64> {
    names.iter().filter_map(|name| settings.read(name)).min().map(u64::from)
}
