//! Fragments, and chains of IPv6 extension headers.

use anyhow::Result;
use ctguard_layout::{Class, Counter, List, Outcome, Policy};
use ctguard_tests::require;

use crate::{
    packets::{
        self, LOCAL, LOCAL6, REMOTE, REMOTE6, TCP, UDP, chained, fragment6, ipv4, ipv4_bytes, ipv6,
        syn_header, transport_of,
    },
    row::{self, Row, drops, passes},
};
use Counter::{Flows, Packets, Wakeups};
use Outcome::{Admitted, Denied, LaterFragment, RefusedGrant, TinyFragment};

const NEW_TCP: [Counter; 1] = [Flows(Admitted, Class::Tcp)];
const NEW_UDP: [Counter; 1] = [Flows(Admitted, Class::Udp)];
const NEW_OTHER: [Counter; 1] = [Flows(Admitted, Class::Other)];
const MORE: u16 = 0x2000;
const OPTIONS: u8 = 60;
/// Extension headers that the parser reads.
const READ: usize = 8;

/// Fails when a flow passes uncharged cut into pieces or behind a chain of headers (RFC 1858,
/// 3128, 7112), or when an ordinary fragment is lost.
#[test]
fn no_flow_hides_in_fragments_or_behind_headers() -> Result<()> {
    if !require::root("no_flow_hides_in_fragments_or_behind_headers") {
        return Ok(());
    }
    row::check(&rows())
}

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = cut();
    rows.extend(cut6());
    rows.extend(behind_headers());
    rows
}

fn cut() -> Vec<Row> {
    let syn = syn_header(1);
    let datagram = transport_of(&packets::udp(REMOTE, LOCAL, 1));
    let four =
        |protocol, fragment, payload: &[u8]| ipv4(REMOTE, LOCAL, protocol, fragment, payload);
    vec![
        passes("a first fragment with its whole header", four(TCP, MORE, &syn), &NEW_TCP),
        passes("the same of UDP", four(UDP, MORE, &datagram), &NEW_UDP),
        passes("a later fragment", four(TCP, 185, &[0; 64]), &[Packets(LaterFragment)])
            .without_grant(),
        passes("the last fragment", four(UDP, MORE | 2, &[0; 64]), &[Packets(LaterFragment)]),
        passes("UDP at offset 1", four(UDP, 1, &[0; 64]), &[Packets(LaterFragment)]),
        drops("TCP at offset 1", four(TCP, 1, &[0; 64]), &[Packets(TinyFragment)]),
        drops(
            "TCP at offset 1, more to come",
            four(TCP, MORE | 1, &[0; 64]),
            &[Packets(TinyFragment)],
        ),
        drops("eight bytes of TCP", four(TCP, MORE, &syn[..8]), &[Packets(TinyFragment)]),
        drops("sixteen bytes of TCP", four(TCP, MORE, &syn[..16]), &[Packets(TinyFragment)]),
        drops("no byte of UDP", four(UDP, MORE, &[]), &[Packets(TinyFragment)]),
        drops(
            "half an ICMP header",
            four(packets::ICMP, MORE, &[8, 0, 0, 0]),
            &[Packets(TinyFragment)],
        ),
        passes(
            "a tiny fragment in a dry run",
            four(TCP, MORE, &syn[..8]),
            &[Packets(TinyFragment)],
        )
        .after(|path| path.set_policy(|policy| policy.switches = Policy::DRY_RUN)),
        drops(
            "a later fragment of a denied source",
            four(TCP, 185, &[0; 64]),
            &[Flows(Denied, Class::Tcp)],
        )
        .after(|path| {
            path.list_ipv4(List::DenyV4, ipv4_bytes(REMOTE), 32, 0)?;
            row::set_environment(path, |facts| facts.operator.lists_in_use = List::DenyV4.bit())
        }),
    ]
}

fn cut6() -> Vec<Row> {
    let syn = syn_header(1);
    let datagram = transport_of(&packets::udp(REMOTE, LOCAL, 1));
    vec![
        passes("a first IPv6 fragment", fragment6(TCP, 0, true, &syn), &NEW_TCP),
        passes("an atomic IPv6 fragment", fragment6(UDP, 0, false, &datagram), &NEW_UDP),
        passes(
            "a later IPv6 fragment",
            fragment6(TCP, 100, false, &[0; 64]),
            &[Packets(LaterFragment)],
        )
        .without_grant(),
        drops("IPv6 TCP at offset 1", fragment6(TCP, 1, false, &[0; 64]), &[Packets(TinyFragment)]),
        drops(
            "eight bytes of TCP on IPv6",
            fragment6(TCP, 0, true, &syn[..8]),
            &[Packets(TinyFragment)],
        ),
        drops(
            "half a UDP header on IPv6",
            fragment6(UDP, 0, true, &[0; 4]),
            &[Packets(TinyFragment)],
        ),
    ]
}

fn behind_headers() -> Vec<Row> {
    let syn = syn_header(1);
    let refused = [Flows(RefusedGrant, Class::Other), Wakeups];
    let mut rows = Vec::new();
    for headers in 0..=READ {
        rows.push(passes(
            "a SYN behind headers that are read",
            chained(headers, TCP, &syn),
            &NEW_TCP,
        ));
    }
    // Conntrack takes the last header's word for where the next one is (`ipv6_skip_exthdr`).
    for (name, frame) in outside() {
        rows.push(passes(name, frame.clone(), &NEW_OTHER));
        rows.push(drops(name, frame, &refused).without_grant());
    }
    for headers in [READ + 1, 16, 64] {
        let long = chained(headers, TCP, &syn);
        rows.push(passes("a longer chain", long.clone(), &NEW_OTHER));
        rows.push(
            passes("a longer chain again", long.clone(), &NEW_OTHER).after_arrival_of(long.clone()),
        );
        rows.push(drops("a longer chain without a grant", long, &refused).without_grant());
    }
    rows
}

/// Chains of headers that end outside the frame, or outside what the packet says is its length.
fn outside() -> [(&'static str, Vec<u8>); 3] {
    let mut longer = chained(2, UDP, &[0; 8]);
    longer[14 + 5] = 8;
    let cut = [UDP, 0, 1, 4];
    let long = [UDP, 9, 1, 4, 0, 0, 0, 0];
    [
        ("half an extension header", ipv6(REMOTE6, LOCAL6, OPTIONS, &cut)),
        ("an extension header longer than the frame", ipv6(REMOTE6, LOCAL6, OPTIONS, &long)),
        ("extension headers longer than the packet", longer),
    ]
}
