//! What passes although all grants are spent, and what only looks like it.

use anyhow::Result;
use ctguard_layout::{Class, Counter, Grant, Outcome};
use ctguard_tests::require;

use crate::{
    packets::{self, LOCAL, LOCAL6, REMOTE, REMOTE6},
    row::{self, Row, drops, passes},
};
use Counter::{Flows, Packets, Wakeups};
use Outcome::{Exempt, RefusedGrant};

const REFUSED_UDP: [Counter; 2] = [Flows(RefusedGrant, Class::Udp), Wakeups];
const REFUSED_OTHER: [Counter; 2] = [Flows(RefusedGrant, Class::Other), Wakeups];
const ROUTER6: &str = "fe80::1";
const OSPF: u8 = 89;
const VRRP: u8 = 112;

/// Fails when a host could be cut off its own link by a spent grant, or when a packet that a
/// router forwards slips through as if it belonged to the link.
#[test]
fn the_link_works_while_nothing_else_passes() -> Result<()> {
    if !require::root("the_link_works_while_nothing_else_passes") {
        return Ok(());
    }
    row::check(&rows())
}

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = vec![
        passes("ARP", packets::ethernet(0x0806, &[0; 28]), &[Packets(Exempt)]),
        passes("LLDP", packets::ethernet(0x88cc, &[0; 46]), &[Packets(Exempt)]),
        passes("PPPoE discovery", packets::ethernet(0x8863, &[0; 46]), &[Packets(Exempt)]),
        passes("LCP", packets::pppoe(0xc021, &[9, 1, 0, 8, 0, 0, 0, 0]), &[Packets(Exempt)]),
        passes("IPv6CP", packets::pppoe(0x8057, &[1, 1, 0, 4]), &[Packets(Exempt)]),
        passes("OSPF", ospf(), &[Packets(Exempt)]),
        passes("VRRP", packets::ipv4(REMOTE, "224.0.0.18", VRRP, 0, &[0; 24]), &[Packets(Exempt)]),
        passes("RIP", packets::udp_to(REMOTE, "224.0.0.9", 520, 520), &[Packets(Exempt)]),
        passes("RIPng", packets::udp_to(ROUTER6, "ff02::9", 521, 521), &[Packets(Exempt)]),
        passes("LDP", packets::udp_to(REMOTE, "224.0.0.2", 646, 646), &[Packets(Exempt)]),
        drops(
            "RIP from another port",
            packets::udp_to(REMOTE, "224.0.0.9", 1520, 520),
            &REFUSED_UDP,
        ),
        drops("OSPF, the bucket spent", ospf(), &REFUSED_OTHER).where_grant(spend_bucket),
        passes("OSPF again, the bucket spent", ospf(), &[Packets(Exempt)])
            .after_arrival_of(ospf())
            .where_grant(spend_bucket),
        passes("a DHCP client, the bucket spent", discover(), &[Packets(Exempt)])
            .where_grant(spend_bucket),
        drops("mDNS", packets::udp_to(REMOTE, "224.0.0.251", 5353, 5353), &REFUSED_UDP),
        drops("mDNS on IPv6", packets::udp_to(ROUTER6, "ff02::fb", 5353, 5353), &REFUSED_UDP),
        drops("RIP from afar", packets::udp_to(REMOTE, LOCAL, 520, 520), &REFUSED_UDP),
        passes("DHCP discover", discover(), &[Packets(Exempt)]),
        passes(
            "DHCP offer",
            packets::udp_to(REMOTE, "255.255.255.255", 67, 68),
            &[Packets(Exempt)],
        ),
        passes("DHCPv6 reply", packets::udp_to(ROUTER6, "fe80::2", 547, 546), &[Packets(Exempt)]),
        passes(
            "DHCPv6 solicit",
            packets::udp_to("fe80::2", "ff02::1:2", 546, 547),
            &[Packets(Exempt)],
        ),
        drops("multicast that routers forward", packets::udp(REMOTE, "224.0.1.1", 1), &REFUSED_UDP),
        drops("site multicast", packets::udp(REMOTE6, "ff05::2", 1), &REFUSED_UDP),
        drops("DHCP between addresses", packets::udp_to(REMOTE, LOCAL, 67, 68), &REFUSED_UDP),
        drops("DHCPv6 from afar", packets::udp_to(REMOTE6, LOCAL6, 547, 546), &REFUSED_UDP),
        drops("OSPF from afar", packets::ipv4(REMOTE, LOCAL, OSPF, 0, &[0; 24]), &REFUSED_OTHER),
    ];
    for kind in (130..=137).chain([143]) {
        let message = packets::icmp(ROUTER6, "fe80::2", kind, 0);
        rows.push(passes("neighbour discovery", message, &[Packets(Exempt)]));
    }
    rows.into_iter().map(Row::without_grant).collect()
}

fn ospf() -> Vec<u8> {
    packets::ipv4(REMOTE, "224.0.0.5", OSPF, 0, &[0; 24])
}

fn discover() -> Vec<u8> {
    packets::udp_to("0.0.0.0", "255.255.255.255", 68, 67)
}

fn spend_bucket(grant: &Grant) {
    grant.exempt.arrival.store(1 << 62);
}
