//! Estimates when an entry was refreshed last, from the time that it has left.

use ctguard_datapath::packet::protocol;

use crate::conntrack::{Entry, timeouts_writer::TimeoutSettings};

/// An entry is young until its last packet is a full second old. Less would hit handshakes that are
/// under way, and the kernel reports the time left in seconds.
const YOUTH_SECONDS: u32 = 2;

// Timeouts that an unreplied entry may have started from. A TCP entry starts from a SYN or was picked
// up midway (`nf_conntrack_tcp_packet`).
const TCP: &[&str] =
    &["tcp_timeout_syn_sent", "tcp_timeout_unacknowledged", "tcp_timeout_established"];
const UDP: &[&str] = &["udp_timeout"];
const ICMP: &[&str] = &["icmp_timeout"];
const ICMPV6: &[&str] = &["icmpv6_timeout"];
const GRE: &[&str] = &["gre_timeout"];
const OTHER: &[&str] = &[
    "generic_timeout",
    "sctp_timeout_cookie_wait",
    "dccp_timeout_request",
    "sctp_timeout_heartbeat_sent",
];

/// The kernel's timeouts for unreplied entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ages {
    tcp: Vec<u32>,
    udp: Vec<u32>,
    icmp: Vec<u32>,
    icmpv6: Vec<u32>,
    gre: Vec<u32>,
    other: Vec<u32>,
}

impl Ages {
    /// Reads the timeouts of this thread's namespace.
    pub fn read() -> Self {
        let settings = TimeoutSettings::of_the_kernel();
        let read = |names: &[&str]| names.iter().filter_map(|name| settings.read(name)).collect();
        Self {
            tcp: read(TCP),
            udp: read(UDP),
            icmp: read(ICMP),
            icmpv6: read(ICMPV6),
            gre: read(GRE),
            other: read(OTHER),
        }
    }

    pub(super) fn is_young(&self, entry: &Entry) -> bool {
        let Some(left) = entry.timeout_seconds else { return false };
        let timeouts = match entry.protocol {
            protocol::TCP => &self.tcp,
            protocol::UDP | protocol::UDPLITE => &self.udp,
            protocol::ICMP => &self.icmp,
            protocol::ICMPV6 => &self.icmpv6,
            protocol::GRE => &self.gre,
            _ => &self.other,
        };
        // The time left is rounded down: 119 of 120 in an entry's first second.
        timeouts.iter().any(|timeout| (left..left.saturating_add(YOUTH_SECONDS)).contains(timeout))
    }
}

#[cfg(test)]
pub(super) mod testing {
    use super::Ages;

    /// The kernel's defaults.
    pub(crate) fn defaults() -> Ages {
        Ages {
            tcp: vec![120, 300, 432_000],
            udp: vec![30],
            icmp: vec![30],
            icmpv6: vec![30],
            gre: vec![30],
            other: vec![600, 3, 20, 30],
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::{testing::defaults, *};
    use crate::conntrack::Tuple;

    fn is_young(protocol: u8, timeout_seconds: Option<u32>) -> bool {
        let address = IpAddr::from(Ipv4Addr::LOCALHOST);
        let tuple = Tuple { source: address, destination: address, key: 0 };
        let (original, reply) = (tuple, tuple);
        let entry = Entry { original, reply, protocol, status: 0, timeout_seconds, zone: 0 };
        defaults().is_young(&entry)
    }

    #[test]
    fn an_entry_is_young_for_its_first_second() {
        for full in [120, 300, 432_000] {
            assert!(is_young(protocol::TCP, Some(full)));
            assert!(is_young(protocol::TCP, Some(full - 1)));
            assert!(!is_young(protocol::TCP, Some(full - 2)));
        }
        assert!(is_young(protocol::UDP, Some(29)));
        assert!(!is_young(protocol::UDP, Some(28)));
    }

    #[test]
    fn more_left_than_any_timeout_is_an_entry_older_than_the_timeouts() {
        assert!(!is_young(protocol::UDP, Some(100)));
        assert!(!is_young(protocol::UDP, None));
    }
}
