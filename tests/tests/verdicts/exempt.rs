//! What always passes, however spent everything is, and what only looks like it.

use anyhow::Result;
use ctguard_layout::{Class, Counter};
use ctguard_tests::require;

use crate::{
    packets::{self, LOCAL, LOCAL6, REMOTE, REMOTE6},
    row::{self, Row, drops, passes},
};
use Counter::{Exempt, RefusedGrant, Seen, Wakeups};

const REFUSED_UDP: [Counter; 3] = [Seen(Class::Udp), RefusedGrant(Class::Udp), Wakeups];
const REFUSED_OTHER: [Counter; 3] = [Seen(Class::Other), RefusedGrant(Class::Other), Wakeups];
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
        passes("ARP", packets::ethernet(0x0806, &[0; 28]), &[Exempt]),
        passes("LLDP", packets::ethernet(0x88cc, &[0; 46]), &[Exempt]),
        passes("PPPoE discovery", packets::ethernet(0x8863, &[0; 46]), &[Exempt]),
        passes("LCP", packets::pppoe(0xc021, &[9, 1, 0, 8, 0, 0, 0, 0]), &[Exempt]),
        passes("IPv6CP", packets::pppoe(0x8057, &[1, 1, 0, 4]), &[Exempt]),
        passes("OSPF", packets::ipv4(REMOTE, "224.0.0.5", OSPF, 0, &[0; 24]), &[Exempt]),
        passes("VRRP", packets::ipv4(REMOTE, "224.0.0.18", VRRP, 0, &[0; 24]), &[Exempt]),
        passes("RIP", packets::udp_to(REMOTE, "224.0.0.9", 520, 520), &[Exempt]),
        passes("RIPng", packets::udp_to(ROUTER6, "ff02::9", 521, 521), &[Exempt]),
        passes("LDP", packets::udp_to(REMOTE, "224.0.0.2", 646, 646), &[Exempt]),
        drops("mDNS", packets::udp_to(REMOTE, "224.0.0.251", 5353, 5353), &REFUSED_UDP),
        drops("mDNS on IPv6", packets::udp_to(ROUTER6, "ff02::fb", 5353, 5353), &REFUSED_UDP),
        drops("RIP from afar", packets::udp_to(REMOTE, LOCAL, 520, 520), &REFUSED_UDP),
        passes("DHCP discover", packets::udp_to("0.0.0.0", "255.255.255.255", 68, 67), &[Exempt]),
        passes("DHCP offer", packets::udp_to(REMOTE, "255.255.255.255", 67, 68), &[Exempt]),
        passes("DHCPv6 reply", packets::udp_to(ROUTER6, "fe80::2", 547, 546), &[Exempt]),
        passes("DHCPv6 solicit", packets::udp_to("fe80::2", "ff02::1:2", 546, 547), &[Exempt]),
        drops("multicast that routers forward", packets::udp(REMOTE, "224.0.1.1", 1), &REFUSED_UDP),
        drops("site multicast", packets::udp(REMOTE6, "ff05::2", 1), &REFUSED_UDP),
        drops("DHCP between addresses", packets::udp_to(REMOTE, LOCAL, 67, 68), &REFUSED_UDP),
        drops("DHCPv6 from afar", packets::udp_to(REMOTE6, LOCAL6, 547, 546), &REFUSED_UDP),
        drops("OSPF from afar", packets::ipv4(REMOTE, LOCAL, OSPF, 0, &[0; 24]), &REFUSED_OTHER),
    ];
    for kind in (130..=137).chain([143]) {
        let message = packets::icmp(ROUTER6, "fe80::2", kind, 0);
        rows.push(passes("neighbour discovery", message, &[Exempt]));
    }
    rows.into_iter().map(Row::without_grant).collect()
}
