//! Packets that arrive on the guarded interface: of every protocol, whole and broken, of tuples
//! never seen, of flows that live and of flows that have ended.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ctguard_tests::{conntrack::Tuple, random::Random};

use crate::{
    breakage::{self, Odd},
    flows::Flows,
    frame::{
        AUTHENTICATION, DCCP, ESP, GRE, ICMP, ICMPV6, IPIP, OSPF, Packet, SCTP, TCP, UDP, UDPLITE,
    },
    network::{POOL, POOL6, ROUTED, ROUTED6, ROUTER, ROUTER6, TO_WAN},
    transport,
};

/// Frames that belong together: one packet, or the fragments of one.
pub(crate) struct Arrival {
    pub(crate) kind: &'static str,
    pub(crate) frames: Vec<Vec<u8>>,
    /// Of the packet before it was broken.
    pub(crate) tuple: Tuple,
    /// What the stack sees once all fragments are there: the packet in one frame.
    pub(crate) whole: Vec<u8>,
    /// Fragments of it are missing, or overlap.
    pub(crate) never_whole: bool,
}

/// Draws what arrives next.
pub(crate) fn arrival(number: u32, flows: &Flows, random: &mut Random) -> Arrival {
    let drawn = match random.below(11) {
        0..=3 => None,
        // As if who was just spoken to answered, from the outside too.
        10 => flows.recent(random).map(Tuple::reversed),
        4..=6 => flows.live(random),
        7 => flows.ended(random),
        _ => flows.recent(random),
    };
    let tuple = drawn.unwrap_or_else(|| fresh(random));
    let (kind, mut packet) = if random.once_in(25) {
        let about = flows.live(random).unwrap_or(tuple).reversed();
        ("icmp error", transport::error_about(about.to, about.from, &about, random))
    } else {
        let (kind, payload) = transport::payload(&tuple, true, random);
        (kind, Packet::new(tuple.from, tuple.to, tuple.protocol, payload))
    };
    packet.identification = u16::try_from(number & 0xffff).unwrap_or(0);
    let tuple = if packet.protocol == tuple.protocol {
        tuple
    } else {
        Tuple { protocol: packet.protocol, from_port: 0, to_port: 0, ..tuple }
    };
    let odd = breakage::laid_out(packet, random)
        .unwrap_or_else(|packet| Odd::one(kind, packet.frame(TO_WAN)));
    let Odd { kind, frames, whole, never_whole } = odd;
    Arrival { kind, frames, tuple, whole, never_whole }
}

/// A tuple of few hosts and ports, so that some meet again, or of any.
fn fresh(random: &mut Random) -> Tuple {
    let six = random.below(5) < 2;
    let protocol = match random.below(64) {
        0..=25 => TCP,
        26..=40 => UDP,
        41..=47 if six => ICMPV6,
        41..=47 => ICMP,
        48..=50 => SCTP,
        51..=52 => UDPLITE,
        53 => DCCP,
        54..=57 => GRE,
        58 => ESP,
        59 if !six => AUTHENTICATION,
        60 => IPIP,
        // ICMP of the other family.
        61 if six => ICMP,
        61 => ICMPV6,
        _ => random.one_of(&[2, 27, 46, 59, OSPF, 103, 112, 115, 200, 253]),
    };
    let (from_port, to_port) = match protocol {
        ICMP | ICMPV6 => (random.half() & 0xff, transport::icmp_type(protocol == ICMPV6, random)),
        TCP | UDP | SCTP | UDPLITE | DCCP => {
            let from = if random.once_in(32) { 0 } else { random.half() };
            (from, random.one_of(&[80, 53, 8080, 22, 9, 0, 443, 5000]))
        }
        GRE if random.below(2) == 0 => (0, 1 + (random.half() & 0xff)),
        _ => (0, 0),
    };
    let to = if six { target6(random) } else { target(random) };
    Tuple { from: far(six, random), to, protocol, from_port, to_port }
}

/// A host of the far side.
pub(crate) fn far(six: bool, random: &mut Random) -> IpAddr {
    let any = random.below(3) == 0;
    if six {
        let (network, host) = if any { (random.half(), random.half()) } else { (1, 1) };
        Ipv6Addr::new(0x2001, 0xdb8, 0xf, network, 0, 0, 0, host | random.half() & 7).into()
    } else {
        let [high, low] = if any { random.half().to_be_bytes() } else { [0, random.byte() & 7] };
        Ipv4Addr::new(198, 18, high, low).into()
    }
}

fn target(random: &mut Random) -> IpAddr {
    match random.below(8) {
        0..=2 => ROUTER,
        3 => nth(POOL, random),
        4..=6 => nth(ROUTED, random),
        _ => Ipv4Addr::new(192, 0, 2, random.byte()).into(),
    }
}

fn target6(random: &mut Random) -> IpAddr {
    match random.below(8) {
        0..=2 => ROUTER6,
        3 => nth(POOL6, random),
        _ => nth(ROUTED6, random),
    }
}

/// One of the eight hosts that begin with this.
pub(crate) fn nth(first: IpAddr, random: &mut Random) -> IpAddr {
    let further = random.below(8);
    match first {
        IpAddr::V4(first) => Ipv4Addr::from_bits(first.to_bits() + further).into(),
        IpAddr::V6(first) => Ipv6Addr::from_bits(first.to_bits() + u128::from(further)).into(),
    }
}
