//! Why ctguard may charge for a packet of which conntrack makes no entry, and the few reasons why
//! one may pass uncharged that makes one. Each reason names who in the kernel, or in ctguard,
//! decides so.

use std::time::Duration;

use ctguard_layout::{Class, Counter};
use ctguard_tests::pinned::Counts;

use crate::{
    dissect::{Frame, Ip},
    flows::{Note, Noted},
    frame::{
        ACK, FIN, FRAGMENT, GRE, HOP_BY_HOP, ICMP, ICMPV6, RST, SCTP, SYN, TCP, UDP, UDPLITE, URG,
        crc32c, transport_checksum,
    },
    network::{self, TO_WAN},
};

/// Who tells known flows from new ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Detection {
    FlowCache,
    Conntrack,
}

impl Detection {
    /// The option of `ctguard run` that asks for it.
    pub(crate) const OPTION: &str = "--new-flow-detection";

    /// What to add to `ctguard run`.
    pub(crate) const fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::FlowCache => &[Self::OPTION, "flow-cache"],
            Self::Conntrack => &[Self::OPTION, "conntrack"],
        }
    }
}

/// All that is known of a packet whose charge and entries differ.
pub(crate) struct Facts<'p> {
    pub(crate) detection: Detection,
    /// The packet in one frame.
    pub(crate) frame: &'p Frame,
    /// Some fragments of it were never sent, or overlap.
    pub(crate) never_whole: bool,
    /// Conntrack had an entry of its tuple before.
    pub(crate) was_known: bool,
    /// Conntrack has an entry of the tuple turned round.
    pub(crate) way_back_is_taken: bool,
    pub(crate) counts: &'p Counts,
    /// What happened to the tuple before, the latest last.
    pub(crate) notes: &'p [Noted],
}

const NO_NEXT_HEADER: u8 = 59;

type Reason = (&'static str, fn(&Facts<'_>) -> bool);

/// Why a packet that makes an entry passed uncharged.
pub(crate) fn uncharged(facts: &Facts<'_>) -> Option<&'static str> {
    first(&UNCHARGED, facts).or_else(|| first(&FAULTS, facts))
}

/// Why a packet was charged that made no entry.
pub(crate) fn for_nothing(facts: &Facts<'_>) -> Option<&'static str> {
    first(&FOR_NOTHING, facts)
}

fn first(reasons: &[Reason], facts: &Facts<'_>) -> Option<&'static str> {
    reasons.iter().find(|(_, holds)| holds(facts)).map(|(reason, _)| *reason)
}

/// By design.
const UNCHARGED: [Reason; 5] = [
    (
        "the table does not grow: the entry of a closed connection ends (tcp_packet, NF_REPEAT)",
        |facts| !is_of_cache(facts) && facts.was_known && facts.counts.of(Counter::Repeated) > 0,
    ),
    ("exempt: multicast of a link, DHCP (classify::is_exempt)", |facts| {
        facts.counts.of(Counter::Exempt) > 0
    }),
    ("conntrack's answer of this second, before it was deleted or reset", |facts| {
        !is_of_cache(facts) && is_known_since(facts, &[Note::Deleted, Note::Reset], UNIT)
    }),
    ("conntrack's answer of this second, before its entry timed out", |facts| {
        let arrived =
            |noted: &Noted| matches!(noted.note, Note::Arrived(_)) && noted.at.elapsed() < UNIT;
        let was_known = facts.counts.of(Counter::Known) > 0;
        !is_of_cache(facts) && was_known && facts.notes.iter().any(arrived)
    }),
    ("flow cache: known until its timeout after it was deleted", |facts| {
        is_of_cache(facts) && is_known_since(facts, &[Note::Deleted], Duration::MAX)
    }),
];

/// Ways past the grant that are known, each to be closed and then taken out here.
const FAULTS: [Reason; 3] = [
    ("FAULT, flow cache: known until its timeout after a RST (nf_conntrack_tcp_packet)", |facts| {
        is_of_cache(facts) && is_known_since(facts, &[Note::Reset], Duration::MAX)
    }),
    (
        "FAULT, flow cache: prolonged by what conntrack refused, while its entry timed out",
        |facts| {
            let refused = |noted: &Noted| matches!(noted.note, Note::Arrived(kind) | Note::Left(kind) if REFUSED.contains(&kind));
            is_of_cache(facts)
                && facts.counts.of(Counter::Known) > 0
                && facts.notes.iter().any(refused)
        },
    ),
    ("FAULT, flow cache: known by what left, of which conntrack has no entry", |facts| {
        is_of_cache(facts) && is_known_since(facts, &[Note::LeftUntracked], Duration::MAX)
    }),
];

/// Kinds whose packets conntrack may refuse, for their checksum or their state.
const REFUSED: [&str; 4] = ["bad transport checksum", "udp-lite", "udp-lite as UDP", "sctp"];

/// A unit of coarse time, in which an answer of conntrack's holds, and some more for a slow machine.
const UNIT: Duration = Duration::from_secs(5);

/// Whether the flow cache alone tells flows of this protocol; conntrack can be asked about TCP and
/// UDP only (`bpf_xdp_ct_lookup`).
fn is_of_cache(facts: &Facts<'_>) -> bool {
    let can_be_asked = ip(facts).is_some_and(|ip| matches!(ip.protocol, TCP | UDP));
    facts.detection == Detection::FlowCache || !can_be_asked
}

/// Passed for known, and one of these was noted so lately.
fn is_known_since(facts: &Facts<'_>, notes: &[Note], lately: Duration) -> bool {
    let holds = |noted: &Noted| notes.contains(&noted.note) && noted.at.elapsed() < lately;
    facts.counts.of(Counter::Known) > 0 && facts.notes.iter().any(holds)
}

/// GRE of version 1, which conntrack tells apart by its call.
fn is_call(ip: &Ip) -> bool {
    ip.protocol == GRE && ip.payload.get(1).is_some_and(|version| version & 7 == 1)
}

/// The first that holds is told, so what is sure comes before what is likely.
const FOR_NOTHING: [Reason; 23] = [
    ("known by an admission alone, so charged to the grant again", |facts| {
        let seen: u64 =
            Class::ALL.into_iter().map(|class| facts.counts.of(Counter::Seen(class))).sum();
        seen < facts.counts.taken
    }),
    ("for another station: ip_rcv_core, ip6_rcv_core", |facts| {
        let to = facts.frame.destination;
        to != TO_WAN.destination && to[0] & 1 == 0
    }),
    ("for a group of stations: ip_forward, ip6_forward", |facts| {
        facts.frame.destination[0] & 1 == 1
    }),
    ("of a VLAN without a device: __netif_receive_skb_core", |facts| {
        facts.frame.tags.iter().any(|identifier| *identifier != 0)
    }),
    ("of a session without a device: pppoe_rcv", |facts| facts.frame.ethertype == 0x8864),
    ("not sound: ip_rcv_core, ip6_rcv_core", |facts| ip(facts).is_none_or(|ip| !ip.is_sound)),
    ("options refused: ip_rcv_options, ip_forward_options", |facts| {
        ip(facts).is_some_and(|ip| ip.options.iter().any(|byte| *byte > 1))
    }),
    ("no address of a host: ip_route_input_slow, ip6_rcv_core, ip6_forward", |facts| {
        ip(facts).is_some_and(|ip| is_odd(ip.from) || ip.from == network::ROUTER || is_odd(ip.to))
    }),
    ("its last hop: ip_forward, ip6_forward", |facts| ip(facts).is_some_and(|ip| ip.hops < 2)),
    ("never whole: ip_frag_queue, nf_ct_frag6_queue", |facts| {
        facts.never_whole || ip(facts).is_some_and(|ip| ip.is_fragment)
    }),
    ("no room for its header: tcp_error, udp_error, icmp_error", |facts| {
        ip(facts).is_some_and(|ip| match ip.protocol {
            TCP => ip.payload.len() < 20,
            UDP | UDPLITE | ICMP | ICMPV6 => ip.payload.len() < 8,
            _ => false,
        })
    }),
    ("its extension headers: ip6_parse_tlv, ipv6_skip_exthdr", |facts| {
        ip(facts).is_some_and(|ip| !ip.chain_ends || ip.extensions.first().is_some_and(is_refused))
    }),
    ("a wrong checksum: nf_ip_checksum, nf_ip6_checksum, sctp_error", |facts| {
        ip(facts).is_some_and(|ip| !has_right_checksum(ip))
    }),
    ("impossible flags: tcp_error", |facts| {
        let flags = tcp_flags(facts);
        flags.is_some_and(|flags| !is_possible(flags))
    }),
    ("opens no association: sctp_new, do_basic_checks", |facts| {
        ip(facts).is_some_and(|ip| ip.protocol == SCTP)
    }),
    ("ICMP of the other family: nf_conntrack_icmp_packet, nf_conntrack_icmpv6_packet", |facts| {
        ip(facts).is_some_and(|ip| ip.protocol == if ip.from.is_ipv4() { ICMPV6 } else { ICMP })
    }),
    ("no next header: ipv6_skip_exthdr", |facts| {
        ip(facts).is_some_and(|ip| ip.from.is_ipv6() && ip.protocol == NO_NEXT_HEADER)
    }),
    ("a call that is not PPP's: gre_pkt_to_tuple", |facts| {
        ip(facts).is_some_and(|ip| is_call(ip) && ip.payload.get(2..4) != Some(&[0x88, 0x0b]))
    }),
    ("the way back is another flow's: nf_nat_setup_info, __nf_conntrack_confirm", |facts| {
        let has_ports = |ip: &Ip| matches!(ip.protocol, TCP | UDP | UDPLITE | SCTP | ICMP | ICMPV6);
        facts.way_back_is_taken
            || ip(facts).is_some_and(|ip| network::is_translated(ip.from) && !has_ports(ip))
    }),
    ("a SYN of a flow that conntrack has: always charged", |facts| {
        facts.was_known && tcp_flags(facts).is_some_and(|flags| flags & (SYN | ACK) == SYN)
    }),
    ("in the filter after the next dump: made by what ctguard does not read, or forged", |facts| {
        // What a hidden address sends leaves in another form, which tells nothing of this tuple.
        let is_hidden = ip(facts).is_some_and(|ip| network::is_translated(ip.to));
        let has_left = facts.notes.iter().any(|noted| matches!(noted.note, Note::Left(_)));
        facts.was_known && (is_hidden || !has_left) && !is_of_cache(facts)
    }),
    ("more tags or headers than ctguard reads", |facts| {
        let is_long = ip(facts).is_some_and(|ip| {
            let fragments = ip.extensions.iter().filter(|(kind, _)| *kind == FRAGMENT).count();
            ip.extensions.len() > 8 || fragments > 1
        });
        is_long || facts.frame.tags.len() > 2
    }),
    ("flow cache: forgotten sooner than by conntrack", |facts| {
        facts.was_known && is_of_cache(facts)
    }),
];

fn ip<'f>(facts: &Facts<'f>) -> Option<&'f Ip> {
    facts.frame.ip.as_ref()
}

/// Hop-by-hop options with more padding than seven bytes in a row, or one that who does not know it
/// discards.
fn is_refused((kind, header): &(u8, Vec<u8>)) -> bool {
    let mut options = header.get(2..).unwrap_or_default();
    let mut padding = 0;
    while *kind == HOP_BY_HOP
        && let [option, rest @ ..] = options
    {
        let length = if *option == 0 { 1 } else { 2 + rest.first().map_or(0, |n| usize::from(*n)) };
        padding = if *option < 2 { padding + length } else { 0 };
        if *option >> 6 != 0 || padding > 7 || length > options.len() {
            return true;
        }
        options = &options[length..];
    }
    false
}

fn tcp_flags(facts: &Facts<'_>) -> Option<u8> {
    ip(facts).filter(|ip| ip.protocol == TCP)?.payload.get(13).copied()
}

/// `tcp_valid_flags`, ECE, CWR and PSH left out.
fn is_possible(flags: u8) -> bool {
    let flags = flags & (FIN | SYN | RST | ACK | URG);
    [SYN, SYN | URG, SYN | ACK, RST, RST | ACK, FIN | ACK, FIN | ACK | URG, ACK, ACK | URG]
        .contains(&flags)
}

/// What no router forwards from or to, and what is no host's.
fn is_odd(address: std::net::IpAddr) -> bool {
    match address {
        std::net::IpAddr::V4(address) => {
            let [first, ..] = address.octets();
            first == 0 || first == 127 || first >= 224
        }
        std::net::IpAddr::V6(address) => {
            address.is_multicast()
                || address.is_unspecified()
                || address.is_loopback()
                || address.is_unicast_link_local()
        }
    }
}

fn has_right_checksum(ip: &Ip) -> bool {
    let payload = ip.payload.as_slice();
    match ip.protocol {
        UDP => {
            let Some(length) = payload.get(4..6) else { return true };
            let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
            let Some(datagram) = payload.get(..length) else { return false };
            let has_none = ip.from.is_ipv4() && datagram.get(6..8) == Some(&[0, 0]);
            has_none || transport_checksum(ip.from, ip.to, UDP, datagram) == 0
        }
        TCP | ICMP | ICMPV6 => transport_checksum(ip.from, ip.to, ip.protocol, payload) == 0,
        // Conntrack takes the pseudo-header of UDP.
        UDPLITE => transport_checksum(ip.from, ip.to, UDP, payload) == 0,
        SCTP => {
            let mut packet = payload.to_vec();
            let Some(field) = packet.get_mut(8..12) else { return false };
            let told = [field[0], field[1], field[2], field[3]];
            field.fill(0);
            crc32c(&packet) == told
        }
        _ => true,
    }
}
