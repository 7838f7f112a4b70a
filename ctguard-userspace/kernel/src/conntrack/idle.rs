//! Estimates when an entry saw its last packet, from the time that it has left.

use std::{collections::VecDeque, time::Duration};

use ctguard_datapath::packet::protocol;

use super::{Entry, status::ASSURED, timeouts_writer::TimeoutSettings};

/// What a packet may give an entry of one kind: the first timeout, or one of the others if it is
/// shorter (`nf_conntrack_tcp_packet`, `net/netfilter/nf_conntrack_proto_tcp.c`, and the files beside
/// it). TCP's come first, in the order of [`super::TcpState`].
const ROWS: [&[&str]; 17] = [
    &["tcp_timeout_syn_sent", UNACKNOWLEDGED, RETRANSMITTED],
    &["tcp_timeout_syn_recv", UNACKNOWLEDGED, RETRANSMITTED],
    // A RST that does not fit exactly leaves the state, and gives the timeout of CLOSE.
    &["tcp_timeout_established", UNACKNOWLEDGED, RETRANSMITTED, "tcp_timeout_close"],
    &["tcp_timeout_fin_wait", UNACKNOWLEDGED, RETRANSMITTED],
    &["tcp_timeout_close_wait", UNACKNOWLEDGED, RETRANSMITTED],
    &["tcp_timeout_last_ack", UNACKNOWLEDGED, RETRANSMITTED],
    &["tcp_timeout_time_wait", UNACKNOWLEDGED, RETRANSMITTED],
    &["tcp_timeout_close"],
    &["udp_timeout"],
    &["udp_timeout_stream"],
    &["gre_timeout"],
    &["gre_timeout_stream"],
    &["icmp_timeout"],
    &["icmpv6_timeout"],
    &[
        "sctp_timeout_established",
        "sctp_timeout_closed",
        "sctp_timeout_cookie_wait",
        "sctp_timeout_cookie_echoed",
        "sctp_timeout_shutdown_sent",
        "sctp_timeout_shutdown_recd",
        "sctp_timeout_shutdown_ack_sent",
        "sctp_timeout_heartbeat_sent",
    ],
    &[
        "dccp_timeout_open",
        "dccp_timeout_request",
        "dccp_timeout_respond",
        "dccp_timeout_partopen",
        "dccp_timeout_closereq",
        "dccp_timeout_closing",
        "dccp_timeout_timewait",
    ],
    &["generic_timeout"],
];
const UNACKNOWLEDGED: &str = "tcp_timeout_unacknowledged";
const RETRANSMITTED: &str = "tcp_timeout_max_retrans";

/// The kernel's timeouts, and what they were before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FullTimeouts {
    /// By row.
    rows: Vec<Vec<u32>>,
    /// By row, the oldest first.
    former: Vec<VecDeque<Former>>,
}

/// Timeouts from `least` to `most` seconds, none of which has been in force since `until`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Former {
    least: u32,
    most: u32,
    until: Duration,
}

/// As many former timeouts of a row are told apart.
const MOST_FORMER: usize = 8;

impl FullTimeouts {
    /// Reads the timeouts of this thread's namespace again; returns whether they have changed.
    pub fn follow(&mut self, now: Duration) -> bool {
        let settings = TimeoutSettings::of_the_kernel();
        self.set(|name| settings.read(name), now)
    }

    fn set(&mut self, read: impl Fn(&str) -> Option<u32>, now: Duration) -> bool {
        let row = |names: &&[&str]| {
            let mut row: Vec<u32> = names.iter().filter_map(|name| read(name)).collect();
            if let Some(&usual) = row.first() {
                row.retain(|&timeout| timeout <= usual);
            }
            row
        };
        let rows: Vec<_> = ROWS.iter().map(row).collect();
        if self.rows == rows {
            return false;
        }
        self.former.resize_with(rows.len(), VecDeque::new);
        let before = std::mem::replace(&mut self.rows, rows);
        for ((former, before), row) in self.former.iter_mut().zip(before).zip(&self.rows) {
            former.retain(|former| former.passed(now) <= former.most);
            let gone = before.into_iter().filter(|timeout| !row.contains(timeout));
            former.extend(gone.map(|timeout| Former { least: timeout, most: timeout, until: now }));
            while former.len() > MOST_FORMER
                && let Some(oldest) = former.pop_front()
                && let Some(next) = former.front_mut()
            {
                *next = oldest.and(*next);
            }
        }
        true
    }

    /// Whole seconds since the entry's last packet, if not more; `None` if nothing is known about it.
    pub fn idle(&self, entry: &Entry, now: Duration) -> Option<u32> {
        let left = entry.timeout_seconds?;
        let row = row(entry);
        // An entry is as young as any timeout allows that its last packet may have given it. The time
        // left is rounded down: 119 of 120 in an entry's first second.
        let current = self.rows.get(row)?.iter().filter_map(|full| full.checked_sub(left));
        let former = self.former.get(row)?.iter().filter_map(|former| former.idle(left, now));
        current.chain(former).min().map(|passed| passed.saturating_sub(1))
    }
}

impl Former {
    /// `None` if it cannot have left so much.
    fn idle(self, left: u32, now: Duration) -> Option<u32> {
        let passed = self.passed(now);
        let most = self.most.checked_sub(left)?;
        (most >= passed).then(|| self.least.saturating_sub(left).max(passed))
    }

    fn passed(self, now: Duration) -> u32 {
        u32::try_from(now.saturating_sub(self.until).as_secs()).unwrap_or(u32::MAX)
    }

    fn and(self, other: Self) -> Self {
        Self {
            least: self.least.min(other.least),
            most: self.most.max(other.most),
            until: self.until.max(other.until),
        }
    }
}

fn row(entry: &Entry) -> usize {
    let is_assured = usize::from(entry.status & ASSURED != 0);
    // Of a kernel without a tracker for the protocol.
    let has_no_ports = [entry.original.key, entry.reply.key] == [0; 2];
    match entry.protocol {
        protocol::UDPLITE | protocol::SCTP | protocol::DCCP if has_no_ports => 16,
        protocol::TCP => entry.tcp_state.map_or(0, |state| state as usize),
        protocol::UDP | protocol::UDPLITE => 8 + is_assured,
        protocol::GRE => 10 + is_assured,
        protocol::ICMP => 12,
        protocol::ICMPV6 => 13,
        protocol::SCTP => 14,
        protocol::DCCP => 15,
        _ => 16,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;
    use crate::conntrack::{TcpState, Tuple};

    /// The kernel's defaults.
    fn usual(name: &str) -> Option<u32> {
        let seconds = match name {
            "tcp_timeout_syn_sent" | "tcp_timeout_fin_wait" | "tcp_timeout_time_wait" => 120,
            "tcp_timeout_syn_recv" | "tcp_timeout_close_wait" => 60,
            "tcp_timeout_established" => 432_000,
            "tcp_timeout_last_ack" | "udp_timeout" | "icmp_timeout" | "icmpv6_timeout" => 30,
            "tcp_timeout_close" => 10,
            UNACKNOWLEDGED | RETRANSMITTED => 300,
            "udp_timeout_stream" => 120,
            "generic_timeout" => 600,
            "sctp_timeout_cookie_wait" => 3,
            "sctp_timeout_established" => 210,
            _ => return None,
        };
        Some(seconds)
    }

    fn timeouts() -> FullTimeouts {
        let mut timeouts = FullTimeouts::default();
        timeouts.set(usual, Duration::ZERO);
        timeouts
    }

    fn entry(protocol: u8, tcp_state: Option<TcpState>, status: u32, left: u32) -> Entry {
        let address = IpAddr::from(Ipv4Addr::LOCALHOST);
        let tuple = Tuple { source: address, destination: address, key: 1 };
        Entry {
            original: tuple,
            reply: tuple,
            protocol,
            status,
            tcp_state,
            has_helper: false,
            timeout_seconds: Some(left),
            zone: 0,
        }
    }

    fn idle(entry: &Entry) -> Option<u32> {
        timeouts().idle(entry, Duration::from_secs(9))
    }

    #[test]
    fn the_time_left_says_how_long_no_packet_came() {
        let tcp = |state, left| idle(&entry(protocol::TCP, Some(state), 0, left));
        assert_eq!(tcp(TcpState::SynSent, 120), Some(0));
        assert_eq!(tcp(TcpState::SynSent, 119), Some(0), "up to a second");
        assert_eq!(tcp(TcpState::SynSent, 118), Some(1));
        assert_eq!(tcp(TcpState::SynReceived, 54), Some(5));
        assert_eq!(tcp(TcpState::TimeWait, 0), Some(119));
        assert_eq!(tcp(TcpState::Close, 8), Some(1));
        let udp = |status, left| idle(&entry(protocol::UDP, None, status, left));
        assert_eq!([udp(0, 28), udp(ASSURED, 28)], [Some(1), Some(91)]);
        assert_eq!(idle(&entry(protocol::SCTP, None, 0, 1)), Some(1));
        assert_eq!(idle(&entry(50, None, 0, 500)), Some(99));
        let mut without_ports = entry(protocol::UDPLITE, None, ASSURED, 500);
        assert_eq!(idle(&without_ports), None);
        [without_ports.original.key, without_ports.reply.key] = [0; 2];
        assert_eq!(idle(&without_ports), Some(99));
    }

    /// Fails when a connection whose data is not acknowledged yet is taken for one that was idle for
    /// days.
    #[test]
    fn of_several_timeouts_the_one_counts_that_makes_the_entry_youngest() {
        let established = |left| idle(&entry(protocol::TCP, Some(TcpState::Established), 0, left));
        assert_eq!(established(431_998), Some(1));
        assert_eq!(established(300), Some(0));
        assert_eq!(established(290), Some(9));
        assert_eq!(established(10), Some(0), "a RST that did not fit exactly");
        assert_eq!(idle(&entry(protocol::TCP, Some(TcpState::TimeWait), 0, 10)), Some(109));
    }

    #[test]
    fn more_left_than_any_timeout_says_nothing() {
        assert_eq!(idle(&entry(protocol::UDP, None, 0, 100)), None);
        let without = Entry { timeout_seconds: None, ..entry(protocol::UDP, None, 0, 0) };
        assert_eq!(idle(&without), None);
        assert_eq!(FullTimeouts::default().idle(&entry(50, None, 0, 1), Duration::ZERO), None);
    }

    #[test]
    fn an_entry_from_before_timeouts_shrank_is_at_least_as_old_as_the_change() {
        let (mut timeouts, seconds) = (timeouts(), Duration::from_secs);
        let shrunk = |name: &str| usual(name).map(|seconds| seconds / 4);
        timeouts.set(shrunk, seconds(50));
        timeouts.set(shrunk, seconds(60));
        let of = |left, now| timeouts.idle(&entry(protocol::UDP, None, 0, left), seconds(now));
        assert_eq!([of(20, 50), of(12, 63), of(31, 63)], [Some(9), Some(17), None]);
        assert_eq!([of(20, 63), of(5, 63)], [None, Some(1)], "an entry of the new timeout");
    }

    /// Fails when connections that speak seem idle for days because their timeout has risen again.
    #[test]
    fn an_entry_from_before_timeouts_grew_is_not_taken_for_older_than_it_is() {
        let (mut timeouts, seconds) = (timeouts(), Duration::from_secs);
        let of = |timeouts: &FullTimeouts, left, now| {
            let entry = entry(protocol::TCP, Some(TcpState::Established), 0, left);
            timeouts.idle(&entry, seconds(now))
        };
        let established = |timeout| {
            move |name: &str| {
                usual(name).map(|usual| if usual == 432_000 { timeout } else { usual })
            }
        };
        assert!(timeouts.set(established(7440), seconds(1000)));
        assert!(timeouts.set(usual, seconds(2000)) && !timeouts.set(usual, seconds(2000)));
        assert_eq!([of(&timeouts, 7438, 2001), of(&timeouts, 7400, 2039)], [Some(1), Some(39)]);
        assert_eq!(of(&timeouts, 7400, 2050), Some(424_599), "since it has grown");
        assert_eq!(of(&timeouts, 430_000, 2050), Some(1999));
        // More than are told apart.
        for step in 1..20 {
            timeouts.set(established(7440 + step), seconds(2050 + u64::from(step)));
        }
        timeouts.set(usual, seconds(2100));
        assert!(timeouts.former.iter().all(|former| former.len() <= MOST_FORMER));
        assert!((1..20).all(|step| of(&timeouts, 7438 + step, 2101) <= Some(20)));
    }
}
