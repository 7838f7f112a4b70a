//! Packets that no stack would track: each kind passes and is counted by its reason.

use anyhow::Result;
use ctguard_layout::Counter;
use ctguard_tests::require;

use crate::{
    packets::{
        self, ICMP, ICMPV6, LOCAL, LOCAL6, REMOTE, REMOTE6, TCP, UDP, ethernet, ipv4, ipv6,
        syn_header,
    },
    row::{self, Row, passes},
};
use Counter::{
    MalformedIcmp, MalformedIpv4, MalformedIpv6, MalformedLink, MalformedTcp, MalformedUdp,
};

/// Fails when a malformed packet is charged, dropped, or counted for another reason.
#[test]
fn each_kind_of_malformed_packet_passes_and_is_counted_by_its_reason() -> Result<()> {
    if !require::root("each_kind_of_malformed_packet_passes_and_is_counted_by_its_reason") {
        return Ok(());
    }
    row::check(&rows())
}

pub(crate) fn rows() -> Vec<Row> {
    // With everything spent: what is malformed costs nobody anything.
    let rows = link().into_iter().chain(network()).chain(transport());
    rows.map(Row::without_grant).collect()
}

fn link() -> Vec<Row> {
    vec![
        passes("half a VLAN tag", ethernet(0x8100, &[0, 1]), &[MalformedLink]),
        passes("half a second tag", ethernet(0x88a8, &[0, 1, 0x81, 0, 0]), &[MalformedLink]),
        passes("half a PPPoE header", ethernet(0x8864, &[0x11, 0, 0, 1]), &[MalformedLink]),
        passes(
            "PPPoE without a protocol",
            ethernet(0x8864, &[0x11, 0, 0, 1, 0, 2, 0]),
            &[MalformedLink],
        ),
    ]
}

fn network() -> Vec<Row> {
    let four = packets::syn(1);
    let six = packets::udp(REMOTE6, LOCAL6, 1);
    let changed = |frame: &[u8], at: usize, byte: u8| {
        let mut frame = frame.to_vec();
        frame[at] = byte;
        frame
    };
    vec![
        passes("IPv4 cut in its header", four[..14 + 19].to_vec(), &[MalformedIpv4]),
        passes("IPv4 cut in its options", changed(&four[..14 + 24], 14, 0x4f), &[MalformedIpv4]),
        passes("version 5", changed(&four, 14, 0x55), &[MalformedIpv4]),
        passes("a header of 16 bytes", changed(&four, 14, 0x44), &[MalformedIpv4]),
        passes("shorter than its header", changed(&four, 17, 19), &[MalformedIpv4]),
        passes("IPv6 cut in its header", six[..14 + 39].to_vec(), &[MalformedIpv6]),
        passes("version 4 as IPv6", changed(&six, 14, 0x40), &[MalformedIpv6]),
    ]
}

fn transport() -> Vec<Row> {
    let four = |protocol, payload: &[u8]| ipv4(REMOTE, LOCAL, protocol, 0, payload);
    let six = |protocol, payload: &[u8]| ipv6(REMOTE6, LOCAL6, protocol, payload);
    let syn = syn_header(1);
    let with_offset = |words: u8| {
        let mut header = syn.clone();
        header[12] = words << 4;
        header
    };
    let short_udp = [0, 1, 0, 9, 0, 7, 0, 0];
    let echo = [8, 0, 0, 0, 0, 1, 0];
    vec![
        passes("TCP cut in its header", four(TCP, &syn[..19]), &[MalformedTcp]),
        passes("no byte of TCP", four(TCP, &[]), &[MalformedTcp]),
        passes("a TCP header of 16 bytes", four(TCP, &with_offset(4)), &[MalformedTcp]),
        passes("TCP options beyond the packet", four(TCP, &with_offset(15)), &[MalformedTcp]),
        passes("TCP cut on IPv6", six(TCP, &syn[..12]), &[MalformedTcp]),
        passes("a TCP header of 0 bytes on IPv6", six(TCP, &with_offset(0)), &[MalformedTcp]),
        passes("UDP cut in its header", four(UDP, &short_udp[..7]), &[MalformedUdp]),
        passes("UDP of seven bytes", four(UDP, &short_udp), &[MalformedUdp]),
        passes("UDP cut on IPv6", six(UDP, &short_udp[..4]), &[MalformedUdp]),
        passes("ICMP cut in its header", four(ICMP, &echo), &[MalformedIcmp]),
        passes("ICMPv6 cut in its header", six(ICMPV6, &[128, 0, 0]), &[MalformedIcmp]),
    ]
}
