//! Packets that a host needs to find its neighbours and its own address.
//!
//! A host on the link can send them from any address, and conntrack makes an entry for each. So
//! they have a small bucket of their own (`Grant::exempt`), and those that it does not let in are
//! judged like any other.

use crate::packet::{Address, Ipv4, Packet, Transport};

const DHCP_SERVER: u32 = 67;
const DHCP_CLIENT: u32 = 68;
const DHCPV6_CLIENT: u32 = 546;
const DHCPV6_SERVER: u32 = 547;

/// UDP ports of routing protocols that use link-local multicast, from the same port: RIP, `RIPng`,
/// LDP, HSRP, HSRP for IPv6, GLBP.
const ROUTING_PORTS: [u32; 6] = [520, 521, 646, 1985, 2029, 3222];

/// Whether the bucket of exempt flows may let the packet in. Asked last, and only of the few
/// packets that are about to be charged or denied.
#[inline(always)]
pub(crate) fn is_exempt<A: Address>(packet: &Packet<A>) -> bool {
    match packet.transport {
        Transport::Tcp { .. } => false,
        Transport::Udp { ports } => {
            is_dhcp(packet.source, packet.destination, ports)
                || is_link_local_multicast(packet.destination)
                    && ports >> 16 == ports & 0xffff
                    && ROUTING_PORTS.contains(&(ports & 0xffff))
        }
        Transport::Icmp(message) => A::FAMILY == 6 && is_neighbour_discovery(message.kind),
        Transport::Other { .. }
        | Transport::Unread
        | Transport::LaterFragment
        | Transport::TinyFragment => is_link_local_multicast(packet.destination),
    }
}

/// Whether a TCP or UDP packet may be one that [`is_exempt`] lets in: less work, and true of a few more.
#[inline(always)]
pub(crate) fn may_be_exempt(packet: &Packet<Ipv4>) -> bool {
    match packet.transport {
        Transport::Udp { ports } => {
            matches!(ports >> 16, DHCP_CLIENT | DHCP_SERVER)
                || is_link_local_multicast(packet.destination)
        }
        Transport::Tcp { .. } => false,
        Transport::Icmp(_)
        | Transport::Other { .. }
        | Transport::Unread
        | Transport::LaterFragment
        | Transport::TinyFragment => true,
    }
}

/// Whether an exempt packet is one of a DHCP client without an address: all of them have the same
/// tuple, so they make one entry and need no bucket.
#[inline(always)]
pub(crate) fn is_of_all_clients<A: Address>(packet: &Packet<A>) -> bool {
    A::FAMILY == 4 && first_word(packet.source) == 0 && first_word(packet.destination) == u32::MAX
}

/// 224.0.0.0/24 (RFC 5771, section 4) and `ff02::/16` (RFC 4291, section 2.7): OSPF, VRRP, PIM,
/// group membership. No router forwards them, so only a neighbour can send them.
#[inline(always)]
fn is_link_local_multicast<A: Address>(destination: A) -> bool {
    let first = first_word(destination);
    if A::FAMILY == 4 { first >> 8 == 0x00e0_0000 } else { first >> 16 == 0xff02 }
}

/// Router and neighbour discovery and redirect (RFC 4861), multicast listeners (RFC 2710, 3810).
/// Conntrack makes no entry for them (`nf_conntrack_icmpv6_error`, `icmpv6_new`).
#[inline(always)]
const fn is_neighbour_discovery(kind: u32) -> bool {
    matches!(kind, 130..=137 | 143)
}

/// DHCP while one side has no address yet (RFC 2131, section 4.1), and `DHCPv6` between link-local
/// addresses (RFC 8415, section 7.1). Renewals are ordinary UDP, whose requests the egress program
/// has noted.
#[inline(always)]
fn is_dhcp<A: Address>(source: A, destination: A, ports: u32) -> bool {
    let (from, to) = (ports >> 16, ports & 0xffff);
    if A::FAMILY == 4 {
        matches!((from, to), (DHCP_CLIENT, DHCP_SERVER) | (DHCP_SERVER, DHCP_CLIENT))
            && (first_word(source) == 0 || first_word(destination) == u32::MAX)
    } else {
        matches!((from, to), (DHCPV6_CLIENT, DHCPV6_SERVER) | (DHCPV6_SERVER, DHCPV6_CLIENT))
            && first_word(source) >> 22 == 0xfe80 >> 6
    }
}

#[inline(always)]
fn first_word<A: Address>(address: A) -> u32 {
    address.words().as_ref().first().copied().unwrap_or(0)
}
