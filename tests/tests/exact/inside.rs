//! Packets that the inside sends: flows it opens, through NAT and without, and answers to others.

use std::net::IpAddr;

use ctguard_tests::{conntrack::Tuple, random::Random};

use crate::{
    flows::Flows,
    frame::{GRE, ICMP, ICMPV6, Packet, SCTP, TCP, UDP, UDPLITE, checksum_at},
    network::{MASQUERADED, MASQUERADED6, POOLED, POOLED6, ROUTED, ROUTED6, TO_LAN},
    outside::{far, nth},
    transport,
};

/// A frame of the inside.
pub(crate) struct Departure {
    pub(crate) kind: &'static str,
    pub(crate) frame: Vec<u8>,
    pub(crate) tuple: Tuple,
}

/// Draws what the inside sends next.
pub(crate) fn departure(flows: &Flows, random: &mut Random) -> Departure {
    let answered = if random.below(5) < 3 { flows.answerable(random) } else { None };
    let tuple = answered.map_or_else(|| opened(random), |flow| flow.sent);
    let (kind, mut payload) = transport::payload(&tuple, false, random);
    let at = checksum_at(tuple.protocol).filter(|at| payload.len() > *at && random.once_in(50));
    let kind = if let Some(at) = at {
        payload[at] ^= 0x55;
        "bad transport checksum"
    } else {
        kind
    };
    let packet = Packet::new(tuple.from, tuple.to, tuple.protocol, payload);
    Departure { kind, frame: packet.frame(TO_LAN), tuple }
}

fn opened(random: &mut Random) -> Tuple {
    let six = random.below(5) < 2;
    let hosts: [IpAddr; 3] =
        if six { [MASQUERADED6, POOLED6, ROUTED6] } else { [MASQUERADED, POOLED, ROUTED] };
    let protocol = random.one_of(&[TCP, TCP, TCP, UDP, UDP, SCTP, UDPLITE, GRE, ICMP, 50]);
    let protocol = if six && protocol == ICMP && !random.once_in(8) { ICMPV6 } else { protocol };
    let (from_port, to_port) = match protocol {
        ICMP | ICMPV6 => (random.half(), transport::icmp_type(protocol == ICMPV6, random)),
        GRE if random.below(2) == 0 => (0, 1 + (random.half() & 0xff)),
        GRE | 50 => (0, 0),
        _ => (random.half(), random.one_of(&[80, 53, 443])),
    };
    let first = random.one_of(&hosts);
    Tuple { from: nth(first, random), to: far(six, random), protocol, from_port, to_port }
}
