use netlink_packet_core::{DefaultNla, Emitable};

use super::*;

const V4: [&[u8]; 2] = [&[192, 0, 2, 1], &[198, 51, 100, 1]];
const V6: [&[u8]; 2] = [&[0x20; 16], &[0x30; 16]];
const PORTS: [(u16, &[u8]); 2] = [(2, &[0x01, 0x02]), (3, &[0x03, 0x04])];
const ICMP: [(u16, &[u8]); 3] = [(4, &[0x12, 0x34]), (5, &[8]), (6, &[1])];
const ICMPV6: [(u16, &[u8]); 3] = [(7, &[0x12, 0x34]), (8, &[128]), (9, &[1])];

#[test]
fn protocols_with_ports_are_keyed_by_them() {
    for number in [6, 17, 33, 132, 136] {
        assert_eq!(key(number, V4, &PORTS), Some(0x0102_0304), "protocol {number}");
    }
}

#[test]
fn a_protocol_that_the_kernel_tracks_by_addresses_has_no_key() {
    for number in [33, 132, 136] {
        assert_eq!(key(number, V4, &[]), Some(0), "protocol {number}");
    }
    assert_eq!(key(50, V4, &PORTS), Some(0));
    for number in [6, 17] {
        assert_eq!(key(number, V4, &[]), None, "protocol {number} always has ports");
    }
}

#[test]
fn a_call_of_pptp_is_keyed_by_the_number_that_its_packets_carry() {
    assert_eq!(key(47, V4, &PORTS), Some(0x0304));
}

#[test]
fn icmp_is_keyed_by_type_code_and_identifier_within_its_own_family() {
    assert_eq!(key(1, V4, &ICMP), Some(0x0801_1234));
    assert_eq!(key(58, V6, &ICMPV6), Some(0x8001_1234));
    // The data path takes it for a protocol without a key.
    assert_eq!(key(1, V6, &ICMP), Some(0));
    assert_eq!(key(58, V4, &ICMPV6), Some(0));
    assert_eq!(key(1, V4, &ICMP[..2]), None, "no code");
}

#[test]
fn what_a_newer_kernel_adds_is_passed_over() {
    let mut attributes = entry();
    attributes.extend(attribute(999, &[1, 2, 3]));
    assert_eq!(Entry::decode(&attributes), Entry::decode(&entry()));
    assert!(Entry::decode(&entry()).is_some());
}

#[test]
fn an_entry_without_a_direction_or_a_status_is_not_read() {
    let parts = parts();
    for missing in 0..parts.len() {
        let attributes: Vec<u8> = parts
            .iter()
            .enumerate()
            .filter(|&(index, _)| index != missing)
            .flat_map(|(_, part)| part.clone())
            .collect();
        assert_eq!(Entry::decode(&attributes), None, "without part {missing}");
    }
}

#[test]
fn an_attribute_of_another_length_is_not_read() {
    for (kind, value) in [(attribute::STATUS, 3), (attribute::TIMEOUT, 5), (attribute::ZONE, 4)] {
        let mut attributes = entry();
        attributes.extend(attribute(kind, &vec![0; value]));
        assert_eq!(Entry::decode(&attributes), None, "attribute {kind} of {value} bytes");
    }
    assert_eq!(key(17, [&[1, 2, 3], V4[1]], &PORTS), None, "an address of three bytes");
}

#[test]
fn addresses_of_two_families_are_not_read() {
    assert_eq!(key(17, [V4[0], V6[0]], &PORTS), None);
}

#[test]
fn directions_of_two_protocols_are_not_read() {
    let attributes = [
        attribute(attribute::ORIGINAL, &direction(17, V4, &PORTS)),
        attribute(attribute::REPLY, &direction(6, V4, &PORTS)),
        attribute(attribute::STATUS, &[0; 4]),
    ];
    assert_eq!(Entry::decode(&attributes.concat()), None);
}

#[test]
fn an_entry_may_have_no_timeout() {
    assert_eq!(Entry::decode(&entry()).unwrap().timeout_seconds, None);
    let mut attributes = entry();
    attributes.extend(attribute(attribute::TIMEOUT, &[0, 0, 1, 0]));
    assert_eq!(Entry::decode(&attributes).unwrap().timeout_seconds, Some(256));
}

fn key(number: u8, addresses: [&[u8]; 2], transport: &[(u16, &[u8])]) -> Option<u32> {
    let decoded = Direction::decode(&direction(number, addresses, transport));
    decoded.map(|direction| direction.tuple.key)
}

fn entry() -> Vec<u8> {
    parts().concat()
}

fn parts() -> [Vec<u8>; 3] {
    let tuple = direction(17, V4, &PORTS);
    [
        attribute(attribute::ORIGINAL, &tuple),
        attribute(attribute::REPLY, &tuple),
        attribute(attribute::STATUS, &[0, 0, 0, 8]),
    ]
}

fn direction(number: u8, [source, destination]: [&[u8]; 2], rest: &[(u16, &[u8])]) -> Vec<u8> {
    let first = if source.len() == 16 { address::V6_SOURCE } else { address::V4_SOURCE };
    let addresses = [attribute(first, source), attribute(first + 1, destination)].concat();
    let mut transport = attribute(transport::NUMBER, &[number]);
    transport.extend(rest.iter().flat_map(|&(kind, value)| attribute(kind, value)));
    [attribute(part::ADDRESSES, &addresses), attribute(part::PROTOCOL, &transport)].concat()
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let attribute = DefaultNla::new(kind, value.to_vec());
    let mut bytes = vec![0; attribute.buffer_len()];
    attribute.emit(&mut bytes);
    bytes
}
