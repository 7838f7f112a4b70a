//! What a packet may do to conntrack's table, judged by the packet alone.

mod exempt;

pub(crate) use exempt::{is_exempt, is_of_all_clients, may_be_exempt};

use crate::{
    hash::low_word,
    layout::{Class, DaemonFacts, FlowKind},
    packet::{Address, IcmpMessage, Packet, TcpFlags, Transport, protocol},
    verifier::sign,
};

/// What a packet means to the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// Makes no entry, whether its flow is known or not.
    MakesNoEntry,
    /// A later fragment.
    LaterFragment,
    /// A first fragment to be dropped.
    TinyFragment,
    /// Belongs to a flow; see [`Flow::opens`].
    Of(Flow),
    /// Its flow is unknown, so each such packet counts as a new flow.
    Unparsed,
}

/// A packet's flow among those between the same addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Its class.
    pub class: Class,
    /// The number of a [`FlowKind`], which says which timeouts it has.
    pub kind: u32,
    /// Ports, identifier or key, as conntrack's tuple has them.
    pub key: u32,
    /// Control bits of a TCP segment; 0 for other protocols.
    pub flags: TcpFlags,
}

impl Flow {
    #[inline(always)]
    const fn without_flags(class: Class, kind: u32, key: u32) -> Self {
        Self { class, kind, key, flags: TcpFlags(0) }
    }

    /// A SYN without ACK, the only segment that opens a flow even if its tuple is known.
    #[inline(always)]
    pub(crate) const fn is_syn(self) -> bool {
        self.flags.0 & (TcpFlags::SYN | TcpFlags::ACK) == TcpFlags::SYN
    }

    /// Neither opens nor closes a TCP connection.
    #[inline(always)]
    pub(crate) const fn goes_on(self) -> bool {
        !self.flags.any(TcpFlags::SYN | TcpFlags::FIN | TcpFlags::RST)
    }

    /// Whether the packet makes an entry if conntrack does not know its flow.
    ///
    /// Measured for TCP: a SYN does, and an ACK while `nf_conntrack_tcp_loose` is on. RST, SYN-ACK,
    /// FIN and a segment without flags do not (`get_conntrack_index` and `tcp_new`,
    /// `net/netfilter/nf_conntrack_proto_tcp.c`).
    #[inline(always)]
    pub const fn opens(self, tcp_loose: bool) -> bool {
        if !matches!(self.class, Class::Tcp) {
            true
        } else if self.flags.any(TcpFlags::RST) {
            false
        } else if self.flags.any(TcpFlags::SYN) {
            self.is_syn()
        } else {
            tcp_loose && self.flags.any(TcpFlags::ACK) && !self.flags.any(TcpFlags::FIN)
        }
    }
}

/// Classifies a packet that arrives.
#[inline(always)]
pub fn classify<A: Address>(packet: &Packet<A>, facts: &DaemonFacts) -> Meaning {
    match packet.transport {
        Transport::Tcp { ports, flags, .. } => {
            let kind = FlowKind::TcpOpening as u32;
            Meaning::Of(Flow { class: Class::Tcp, kind, key: ports, flags })
        }
        Transport::Udp { ports } => {
            Meaning::Of(Flow::without_flags(Class::Udp, FlowKind::Udp as u32, ports))
        }
        Transport::Icmp(message) => classify_icmp::<A>(message),
        Transport::Other { key } => {
            let tracking = Tracking::of(packet.protocol, facts);
            let kind = tracking.kind(other_kind(packet.protocol));
            Meaning::Of(Flow::without_flags(Class::Other, kind, tracking.key(key)))
        }
        Transport::Unread => Meaning::Unparsed,
        Transport::LaterFragment => Meaning::LaterFragment,
        Transport::TinyFragment => Meaning::TinyFragment,
    }
}

/// What a packet that leaves shows of its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Leaving {
    /// The flow as its arriving packets are classified.
    pub(crate) flow: Flow,
    /// It shows that conntrack has an entry: it opens the flow or carries data. A bare ACK does
    /// not; a host sends one to a forged SYN too.
    pub(crate) answers: bool,
    /// It makes an unknown flow known.
    pub(crate) makes_known: bool,
}

/// Classifies a packet that leaves; `None` if it belongs to no flow whose packets may arrive.
#[inline(always)]
pub(crate) fn classify_leaving<A: Address>(
    packet: &Packet<A>,
    facts: &DaemonFacts,
) -> Option<Leaving> {
    let (class, kind, key, flags) = match packet.transport {
        Transport::Tcp { ports, flags, .. } => {
            (Class::Tcp, FlowKind::TcpOpening, swap_ports(ports), flags)
        }
        Transport::Udp { ports } => (Class::Udp, FlowKind::Udp, swap_ports(ports), TcpFlags(0)),
        Transport::Other { key } => {
            // PPTP has another call number each way, so a call's replies are charged once.
            let key = if packet.protocol == protocol::GRE { key } else { swap_ports(key) };
            let key = Tracking::of(packet.protocol, facts).key(key);
            (Class::Other, other_kind(packet.protocol), key, TcpFlags(0))
        }
        Transport::Icmp(message) => {
            (Class::Other, FlowKind::Icmp, request_of::<A>(message)?, TcpFlags(0))
        }
        Transport::Unread | Transport::LaterFragment | Transport::TinyFragment => return None,
    };
    let number = if let Transport::Other { .. } = packet.transport {
        Tracking::of(packet.protocol, facts).kind(kind)
    } else {
        kind as u32
    };
    let flow = Flow { class, kind: number, key, flags };
    let is_reset = flags.any(TcpFlags::RST);
    let answers = if let Transport::Tcp { carries_data, .. } = packet.transport {
        flow.is_syn() || carries_data && !is_reset
    } else {
        true
    };
    let makes_known = match kind {
        // Of an unknown flow, conntrack tracks only segments that open one (`tcp_new`).
        FlowKind::TcpOpening => flow.opens(true),
        FlowKind::Icmp => false,
        // A call's replies have another tuple (`gre_pkt_to_tuple`).
        FlowKind::Gre => key == 0,
        FlowKind::TcpClosing
        | FlowKind::TcpEstablished
        | FlowKind::TcpClosingEstablished
        | FlowKind::TcpReset
        | FlowKind::Udp
        | FlowKind::Sctp
        | FlowKind::Generic => true,
    };
    Some(Leaving { flow, answers, makes_known })
}

/// The key of the request that an ICMP message replies to.
#[inline(always)]
const fn request_of<A: Address>(message: IcmpMessage) -> Option<u32> {
    let kind = match (A::FAMILY, message.kind) {
        (4, 0) => 8,
        (4, 14 | 16 | 18) | (6, 129 | 140) => message.kind - 1,
        _ => return None,
    };
    Some(icmp_key(IcmpMessage { kind, ..message }))
}

/// `icmp_new` and `icmpv6_new` in the kernel's `nf_conntrack_proto_icmp*.c`.
#[inline(always)]
fn classify_icmp<A: Address>(message: IcmpMessage) -> Meaning {
    let opens = if A::FAMILY == 4 {
        // Echo, timestamp, information and address mask requests.
        matches!(message.kind, 8 | 13 | 15 | 17)
    } else {
        // Echo request and node information query.
        matches!(message.kind, 128 | 139)
    };
    if !opens {
        return Meaning::MakesNoEntry;
    }
    Meaning::Of(Flow::without_flags(Class::Other, FlowKind::Icmp as u32, icmp_key(message)))
}

#[inline(always)]
const fn icmp_key(message: IcmpMessage) -> u32 {
    message.kind << 24 | message.code << 16 | message.identifier
}

/// The number of the [`FlowKind`] of a protocol's flows, once answered.
pub(crate) fn kind_of(number: u8, facts: &DaemonFacts) -> u32 {
    match number {
        protocol::TCP => FlowKind::TcpOpening as u32,
        protocol::UDP => FlowKind::Udp as u32,
        protocol::ICMP | protocol::ICMPV6 => FlowKind::Icmp as u32,
        other => Tracking::of(other, facts).kind(other_kind(other)),
    }
}

#[inline(always)]
const fn other_kind(number: u8) -> FlowKind {
    match number {
        protocol::GRE => FlowKind::Gre,
        protocol::SCTP | protocol::DCCP => FlowKind::Sctp,
        protocol::UDPLITE => FlowKind::Udp,
        _ => FlowKind::Generic,
    }
}

/// All ones if the kernel has no tracker for a protocol, but one entry for each pair of addresses
/// (`nf_conntrack_proto_generic.c`); else 0. A mask, because the verifier would walk what follows a
/// branch twice.
#[derive(Clone, Copy)]
struct Tracking(u32);

impl Tracking {
    #[inline(always)]
    fn of(number: u8, facts: &DaemonFacts) -> Self {
        Self(low_word(sign(facts.port_bit_as_sign(number)).cast_unsigned()))
    }

    #[inline(always)]
    const fn key(self, key: u32) -> u32 {
        key & !self.0
    }

    #[inline(always)]
    const fn kind(self, kind: FlowKind) -> u32 {
        let kind = kind as u32;
        kind ^ (kind ^ FlowKind::Generic as u32) & self.0
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
    fn a_syn_opens_a_connection_and_an_ack_does_while_tcp_loose_is_on() {
        let opens = |flags, tcp_loose| {
            let Meaning::Of(flow) = classify(&tcp(flags), &facts()) else { panic!("{flags:#x}") };
            flow.opens(tcp_loose)
        };
        for flags in 0..=0x3f {
            let [fin, syn, rst, ack] = [0x01, 0x02, 0x04, 0x10].map(|bit| flags & bit != 0);
            let expected = !rst && if syn { !ack } else { ack && !fin };
            assert_eq!(opens(flags, true), expected, "{flags:#x}");
            assert_eq!(opens(flags, false), expected && syn, "{flags:#x}, not loose");
        }
    }

    #[test]
    fn requests_of_icmp_open_and_everything_else_of_it_does_not() {
        for kind in 0..=255 {
            let opens = matches!(classify(&icmp(REMOTE, LOCAL, kind), &facts()), Meaning::Of(_));
            assert_eq!(opens, [8, 13, 15, 17].contains(&kind), "ICMP type {kind}");
        }
        let (remote, local) = (Ipv6([0x2001_0db8, 0, 0, 1]), Ipv6([0x2001_0db8, 1, 0, 1]));
        for kind in 0..=255 {
            let opens = matches!(classify(&icmp(remote, local, kind), &facts()), Meaning::Of(_));
            assert_eq!(opens, [128, 139].contains(&kind), "ICMPv6 type {kind}");
        }
    }

    #[test]
    fn neighbour_discovery_is_exempt_and_an_echo_is_not() {
        let (remote, local) = (Ipv6([0xfe80_0000, 0, 0, 1]), Ipv6([0xfe80_0000, 0, 0, 2]));
        for kind in 133..=137 {
            assert!(is_exempt(&icmp(remote, local, kind)), "type {kind}");
        }
        assert!(!is_exempt(&icmp(remote, local, 128)));
    }

    #[test]
    fn multicast_that_no_router_forwards_is_exempt() {
        let ospf = packet(89, Transport::Other { key: 0 });
        let to = |destination| Packet { destination, ..ospf };
        assert!(is_exempt(&to(Ipv4(0xe000_0005))));
        assert!(!is_exempt(&to(Ipv4(0xe000_0105))));
        let group = Ipv4(0xe000_0009);
        assert!(is_exempt(&Packet { destination: group, ..udp(520, 520) }), "RIP");
        assert!(!is_exempt(&Packet { destination: group, ..udp(522, 522) }), "any other UDP");
        assert!(!is_exempt(&Packet { destination: group, ..udp(1520, 520) }), "no port of RIP");
    }

    #[test]
    fn what_leaves_is_told_as_its_answer_will_arrive() {
        let leaving = Packet { source: LOCAL, destination: REMOTE, ..udp(5353, 53) };
        let answer = Packet { source: REMOTE, destination: LOCAL, ..udp(53, 5353) };
        let Meaning::Of(arriving) = classify(&answer, &facts()) else { panic!("udp has a flow") };
        assert_eq!(classify_leaving(&leaving, &facts()).unwrap().flow.key, arriving.key);
    }

    #[test]
    fn a_rst_that_leaves_makes_nothing_known() {
        let leaving = classify_leaving(&tcp(TcpFlags::RST | TcpFlags::ACK), &facts()).unwrap();
        assert!(!leaving.makes_known && !leaving.answers);
    }

    #[test]
    fn a_bare_ack_that_leaves_answers_nothing() {
        assert!(!classify_leaving(&tcp(TcpFlags::ACK), &facts()).unwrap().answers);
        assert!(classify_leaving(&tcp(TcpFlags::SYN), &facts()).unwrap().answers);
    }

    #[test]
    fn an_echo_reply_that_leaves_answers_its_request() {
        let Meaning::Of(request) = classify(&icmp(REMOTE, LOCAL, 8), &facts()) else {
            panic!("a request")
        };
        let leaving = classify_leaving(&icmp(LOCAL, REMOTE, 0), &facts()).unwrap();
        assert_eq!(leaving.flow.key, request.key);
        assert!(!leaving.makes_known);
        assert_eq!(classify_leaving(&icmp(LOCAL, REMOTE, 3), &facts()), None);
    }

    #[test]
    fn dhcp_passes_only_as_hosts_without_an_address_speak_it() {
        let broadcast = Packet { source: Ipv4(0), destination: Ipv4(0xffff_ffff), ..udp(68, 67) };
        assert!(is_exempt(&broadcast));
        assert!(!is_exempt(&udp(68, 67)));
    }

    #[test]
    fn ports_tell_flows_apart_only_where_the_kernel_reads_them() {
        let mut facts = facts();
        let of = |number, facts: &DaemonFacts| {
            let packet = packet(number, Transport::Other { key: 3 << 16 | 5 });
            let Meaning::Of(arriving) = classify(&packet, facts) else { panic!("{number}") };
            let leaving = classify_leaving(&packet, facts).unwrap();
            assert_eq!(kind_of(number, facts), arriving.kind, "{number}");
            (arriving.kind, arriving.key, leaving.flow.key)
        };
        facts.set_without_ports(&[protocol::UDPLITE, protocol::DCCP]);
        assert_eq!(of(protocol::UDPLITE, &facts), (FlowKind::Generic as u32, 0, 0));
        assert_eq!(of(protocol::DCCP, &facts), (FlowKind::Generic as u32, 0, 0));
        assert_eq!(of(protocol::SCTP, &facts), (FlowKind::Sctp as u32, 3 << 16 | 5, 5 << 16 | 3));
        assert_eq!(of(protocol::GRE, &facts).0, FlowKind::Gre as u32);
        facts.set_without_ports(&[protocol::SCTP, protocol::GRE]);
        assert_eq!(of(protocol::UDPLITE, &facts), (FlowKind::Udp as u32, 3 << 16 | 5, 5 << 16 | 3));
        assert_eq!(of(protocol::SCTP, &facts), (FlowKind::Generic as u32, 0, 0));
        assert_eq!(of(protocol::GRE, &facts), (FlowKind::Generic as u32, 0, 0));
        let udp = Packet { protocol: protocol::UDP, ..udp(3, 5) };
        facts.set_without_ports(&[protocol::UDPLITE, protocol::DCCP, protocol::SCTP]);
        let Meaning::Of(flow) = classify(&udp, &facts) else { panic!("udp has a flow") };
        assert_eq!((flow.kind, flow.key), (FlowKind::Udp as u32, 3 << 16 | 5));
    }

    fn facts() -> DaemonFacts {
        DaemonFacts::default()
    }

    fn tcp(flags: u32) -> Packet<Ipv4> {
        packet(
            protocol::TCP,
            Transport::Tcp {
                ports: 1 << 16 | 2,
                flags: TcpFlags(flags),
                sequence: 0,
                carries_data: false,
            },
        )
    }

    fn udp(source: u32, destination: u32) -> Packet<Ipv4> {
        packet(protocol::UDP, Transport::Udp { ports: source << 16 | destination })
    }

    fn packet(protocol: u8, transport: Transport) -> Packet<Ipv4> {
        Packet { source: REMOTE, destination: LOCAL, protocol, transport }
    }

    fn icmp<A: Address>(source: A, destination: A, kind: u32) -> Packet<A> {
        let protocol = if A::FAMILY == 4 { protocol::ICMP } else { protocol::ICMPV6 };
        let transport = Transport::Icmp(IcmpMessage { kind, code: 0, identifier: 7 });
        Packet { source, destination, protocol, transport }
    }
}
