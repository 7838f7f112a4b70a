//! What a packet may do to conntrack's table, before anything is looked up.

mod exempt;

use crate::{
    layout::{Class, FlowKind},
    packet::{Address, IcmpMessage, Packet, TcpFlags, Transport, protocol},
};

/// What a packet means to the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// Never judged: the host could not be reached, or not find its way, without it.
    Exempt,
    /// Makes no entry, whether its flow is known or not, and tells nothing of one.
    MakesNoEntry,
    /// A later fragment.
    LaterFragment,
    /// A first fragment to be dropped.
    TinyFragment,
    /// Opens a flow.
    Opens(Flow),
    /// Opens a flow unless it is known.
    MayOpen(Flow),
    /// Makes no entry, but tells how a known flow goes on.
    Continues(Flow),
    /// Cannot be told apart from others, so each one counts as a new flow.
    Untold,
}

/// What tells a packet's flow apart from others between the same addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Its class.
    pub class: Class,
    /// Which timeouts it has.
    pub kind: FlowKind,
    /// Ports, identifier or key.
    pub key: u32,
    /// Control bits of a TCP segment; 0 for other protocols.
    pub flags: TcpFlags,
}

/// Classifies a packet that arrives. `tcp_loose`: an ACK of no connection makes an entry.
///
/// Which packets make an entry was measured on a router: TCP with SYN, or ACK while
/// `nf_conntrack_tcp_loose` is on, but not RST, SYN-ACK and FIN (`tcp_conntracks` in
/// `net/netfilter/nf_conntrack_proto_tcp.c`); ICMP requests (`icmp_new` there).
#[inline(always)]
pub fn classify<A: Address>(packet: &Packet<A>, tcp_loose: bool) -> Meaning {
    if exempt::is_link_local_multicast(packet.destination) {
        return Meaning::Exempt;
    }
    match packet.transport {
        Transport::Tcp { ports, flags } => classify_tcp(ports, flags, tcp_loose),
        Transport::Udp { ports } => {
            if exempt::is_dhcp(packet.source, packet.destination, ports) {
                return Meaning::Exempt;
            }
            Meaning::MayOpen(Flow {
                class: Class::Udp,
                kind: FlowKind::Udp,
                key: ports,
                flags: TcpFlags(0),
            })
        }
        Transport::Icmp(message) => classify_icmp::<A>(message),
        Transport::Other { key } => Meaning::MayOpen(Flow {
            class: Class::Other,
            kind: other_kind(packet.protocol),
            key,
            flags: TcpFlags(0),
        }),
        Transport::UnreadExtensions => Meaning::Untold,
        Transport::LaterFragment => Meaning::LaterFragment,
        Transport::TinyFragment => Meaning::TinyFragment,
    }
}

/// What a packet that leaves tells of a flow, or `None` where it opens none for answers: a RST, an
/// ICMP message, a later fragment.
#[inline(always)]
pub fn classify_leaving<A: Address>(packet: &Packet<A>) -> Option<Flow> {
    let (class, kind, key, flags) = match packet.transport {
        Transport::Tcp { flags, .. } if flags.any(TcpFlags::RST) => return None,
        Transport::Tcp { ports, flags } => {
            (Class::Tcp, FlowKind::TcpOpening, swap_ports(ports), flags)
        }
        Transport::Udp { ports } => (Class::Udp, FlowKind::Udp, swap_ports(ports), TcpFlags(0)),
        Transport::Other { key } => {
            let key = if packet.protocol == protocol::GRE { key } else { swap_ports(key) };
            (Class::Other, other_kind(packet.protocol), key, TcpFlags(0))
        }
        Transport::Icmp(_)
        | Transport::UnreadExtensions
        | Transport::LaterFragment
        | Transport::TinyFragment => return None,
    };
    Some(Flow { class, kind, key, flags })
}

#[inline(always)]
fn classify_tcp(ports: u32, flags: TcpFlags, tcp_loose: bool) -> Meaning {
    let flow = Flow { class: Class::Tcp, kind: FlowKind::TcpOpening, key: ports, flags };
    // The order of `get_conntrack_index`: RST, SYN, FIN, ACK.
    if flags.any(TcpFlags::RST) {
        Meaning::Continues(flow)
    } else if flags.any(TcpFlags::SYN) {
        if flags.any(TcpFlags::ACK) { Meaning::Continues(flow) } else { Meaning::Opens(flow) }
    } else if flags.any(TcpFlags::FIN) {
        Meaning::Continues(flow)
    } else if flags.any(TcpFlags::ACK) {
        if tcp_loose { Meaning::MayOpen(flow) } else { Meaning::Continues(flow) }
    } else {
        Meaning::MakesNoEntry
    }
}

#[inline(always)]
fn classify_icmp<A: Address>(message: IcmpMessage) -> Meaning {
    let opens = if A::FAMILY == 4 {
        // Echo, timestamp, information and address mask requests.
        matches!(message.kind, 8 | 13 | 15 | 17)
    } else {
        if exempt::is_neighbour_discovery(message.kind) {
            return Meaning::Exempt;
        }
        // Echo request and node information query.
        matches!(message.kind, 128 | 139)
    };
    if !opens {
        return Meaning::MakesNoEntry;
    }
    Meaning::MayOpen(Flow {
        class: Class::Other,
        kind: FlowKind::Icmp,
        key: u32::from(message.kind) << 16 | u32::from(message.identifier),
        flags: TcpFlags(0),
    })
}

#[inline(always)]
const fn other_kind(number: u8) -> FlowKind {
    match number {
        protocol::GRE => FlowKind::Gre,
        protocol::SCTP => FlowKind::Sctp,
        protocol::UDPLITE => FlowKind::Udp,
        _ => FlowKind::Generic,
    }
}

#[inline(always)]
const fn swap_ports(ports: u32) -> u32 {
    ports.rotate_left(16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Ipv4, Ipv6};

    const REMOTE: Ipv4 = Ipv4(0xc000_0201);
    const LOCAL: Ipv4 = Ipv4(0xc633_6401);

    #[test]
    fn only_a_syn_opens_a_connection() {
        let opens = |flags| matches!(classify(&tcp(flags), true), Meaning::Opens(_));
        assert!(opens(TcpFlags::SYN));
        for flags in [0x12, 0x04, 0x14, 0x01, 0x11, 0x10, 0x18, 0x06, 0x00] {
            assert!(!opens(flags), "{flags:#x}");
        }
    }

    #[test]
    fn an_ack_may_open_only_while_tcp_loose_is_on() {
        assert!(matches!(classify(&tcp(TcpFlags::ACK), true), Meaning::MayOpen(_)));
        assert!(matches!(classify(&tcp(TcpFlags::ACK), false), Meaning::Continues(_)));
    }

    #[test]
    fn requests_of_icmp_open_and_everything_else_of_it_does_not() {
        for kind in 0..=255 {
            let opens = matches!(classify(&icmp(REMOTE, LOCAL, kind), true), Meaning::MayOpen(_));
            assert_eq!(opens, [8, 13, 15, 17].contains(&kind), "ICMP type {kind}");
        }
        let (remote, local) = (Ipv6([0x2001_0db8, 0, 0, 1]), Ipv6([0x2001_0db8, 1, 0, 1]));
        for kind in 0..=255 {
            let opens = matches!(classify(&icmp(remote, local, kind), true), Meaning::MayOpen(_));
            assert_eq!(opens, [128, 139].contains(&kind), "ICMPv6 type {kind}");
        }
    }

    #[test]
    fn neighbour_discovery_is_exempt() {
        let (remote, local) = (Ipv6([0xfe80_0000, 0, 0, 1]), Ipv6([0xfe80_0000, 0, 0, 2]));
        for kind in 133..=137 {
            assert_eq!(classify(&icmp(remote, local, kind), true), Meaning::Exempt);
        }
    }

    #[test]
    fn what_leaves_is_told_as_its_answer_will_arrive() {
        let leaving = Packet { source: LOCAL, destination: REMOTE, ..udp(5353, 53) };
        let answer = Packet { source: REMOTE, destination: LOCAL, ..udp(53, 5353) };
        let Meaning::MayOpen(arriving) = classify(&answer, true) else { panic!("udp may open") };
        assert_eq!(classify_leaving(&leaving).unwrap().key, arriving.key);
    }

    #[test]
    fn a_rst_that_leaves_makes_nothing_known() {
        assert_eq!(classify_leaving(&tcp(TcpFlags::RST | TcpFlags::ACK)), None);
    }

    #[test]
    fn dhcp_passes_only_as_hosts_without_an_address_speak_it() {
        let broadcast = Packet {
            source: Ipv4(0),
            destination: Ipv4(0xffff_ffff),
            ..udp(68, 67)
        };
        assert_eq!(classify(&broadcast, true), Meaning::Exempt);
        assert!(matches!(classify(&udp(68, 67), true), Meaning::MayOpen(_)));
    }

    fn tcp(flags: u8) -> Packet<Ipv4> {
        packet(protocol::TCP, Transport::Tcp { ports: 1 << 16 | 2, flags: TcpFlags(flags) })
    }

    fn udp(source: u32, destination: u32) -> Packet<Ipv4> {
        packet(protocol::UDP, Transport::Udp { ports: source << 16 | destination })
    }

    fn packet(protocol: u8, transport: Transport) -> Packet<Ipv4> {
        Packet { source: REMOTE, destination: LOCAL, protocol, transport }
    }

    fn icmp<A: Address>(source: A, destination: A, kind: u8) -> Packet<A> {
        let protocol = if A::FAMILY == 4 { protocol::ICMP } else { protocol::ICMPV6 };
        let transport = Transport::Icmp(IcmpMessage { kind, identifier: 7 });
        Packet { source, destination, protocol, transport }
    }
}
