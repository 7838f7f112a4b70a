//! A dump of the kernel's, recorded on little-endian Linux 6.18 from one namespace.

use ctguard_datapath::packet::protocol::{DCCP, GRE, ICMP, ICMPV6, TCP, UDP};
use netlink_packet_core::{NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer};

use super::*;
use crate::{
    conntrack::{delete::Deletion, entry::Tuple},
    net::netlink::{HEADER_LENGTH, message},
};

const RECORDED: &[u8] = include_bytes!("recorded.bin");
const FLAGS_OFFSET: usize = 6;

#[test]
fn a_recorded_dump_is_told_entry_by_entry() {
    let (summary, last, entries) = read(RECORDED).unwrap();
    assert!(last);
    assert_eq!(summary, Summary { entries: 10, unread: 0, completeness: Completeness::Complete });
    let told: Vec<_> = entries
        .iter()
        .map(|entry| (entry.protocol, entry.original, entry.reply, entry.zone))
        .collect();
    let (inside, outside) = ("192.0.2.1", "198.51.100.2");
    let (inside6, outside6) = ("2001:db8::1", "2001:db8::2");
    let expected = [
        (200, tuple(inside, outside, 0), tuple(outside, inside, 0), 0),
        (
            UDP,
            tuple(inside, outside, ports(1112, 5007)),
            tuple(outside, inside, ports(5007, 1112)),
            7,
        ),
        (
            UDP,
            tuple(inside, outside, ports(1113, 5008)),
            tuple(outside, inside, ports(5008, 1113)),
            8,
        ),
        // Of PPTP's two calls only that of the packet is known.
        (GRE, tuple(inside, outside, 0x777), tuple(outside, inside, 0), 0),
        (GRE, tuple(inside, "198.51.100.3", 0), tuple("198.51.100.3", inside, 0), 0),
        (ICMP, tuple(inside, outside, 0x0800_1234), tuple(outside, inside, 0x1234), 0),
        // This kernel has no tracker for it.
        (DCCP, tuple(inside, outside, 0), tuple(outside, inside, 0), 0),
        (
            TCP,
            tuple(inside6, outside6, ports(2222, 443)),
            tuple(outside6, inside6, ports(443, 2222)),
            0,
        ),
        (ICMPV6, tuple(inside6, outside6, 0x8000_4321), tuple(outside6, inside6, 0x8100_4321), 0),
        // Source NAT: answers arrive for another address and port.
        (
            UDP,
            tuple(inside, outside, ports(1111, 5353)),
            tuple(outside, "198.51.100.9", ports(5353, 40000)),
            0,
        ),
    ];
    assert_eq!(told, expected);
}

#[test]
fn status_and_timeout_are_what_conntrack_shows() {
    const SEEN_REPLY: u32 = 1 << 1;
    const ASSURED: u32 = 1 << 2;
    const CONFIRMED: u32 = 1 << 3;
    let (_, _, entries) = read(RECORDED).unwrap();
    let tcp = entries.iter().find(|entry| entry.protocol == TCP).unwrap();
    assert_eq!(tcp.status & 0xf, SEEN_REPLY | ASSURED | CONFIRMED);
    let udp = entries.iter().find(|entry| entry.protocol == UDP).unwrap();
    assert_eq!(udp.status & 0xf, CONFIRMED);
    // Of the 30 s of `nf_conntrack_udp_timeout`.
    assert_eq!(udp.timeout_seconds, Some(29));
}

#[test]
fn a_dump_that_is_cut_short_has_no_end() {
    for length in 0..RECORDED.len() {
        match read(&RECORDED[..length]) {
            Ok((_, last, _)) => assert!(!last, "{length} bytes"),
            Err(DumpError::Io { source, .. }) => {
                assert_eq!(source.kind(), io::ErrorKind::InvalidData, "{length} bytes");
            }
            Err(error) => panic!("{length} bytes: {error}"),
        }
    }
}

#[test]
fn no_byte_of_a_dump_makes_the_reader_panic() {
    let mut bytes = RECORDED.to_vec();
    for offset in 0..bytes.len() {
        let intact = bytes[offset];
        for value in [0, 1, 3, 4, 0x7f, 0x80, 0xff, !intact] {
            bytes[offset] = value;
            if let Ok((summary, _, entries)) = read(&bytes) {
                assert_eq!(summary.entries, entries.len() as u64, "byte {offset} is {value}");
            }
        }
        bytes[offset] = intact;
    }
}

#[test]
fn an_entry_that_cannot_be_read_is_left_out_and_leaves_the_dump_incomplete() {
    let mut bytes = RECORDED.to_vec();
    // The first attribute of the first entry claims more than the message has.
    bytes[HEADER_LENGTH + NFGENMSG_LENGTH + 1] = 0xff;
    let (summary, last, _) = read(&bytes).unwrap();
    assert!(last);
    assert_eq!(summary, Summary { entries: 9, unread: 1, completeness: Completeness::Interrupted });
}

#[test]
fn a_dump_that_the_kernel_calls_interrupted_is() {
    let mut bytes = RECORDED.to_vec();
    bytes[FLAGS_OFFSET] |= u8::try_from(NLM_F_DUMP_INTR).unwrap();
    let (summary, _, entries) = read(&bytes).unwrap();
    assert_eq!((summary.completeness, entries.len()), (Completeness::Interrupted, 10));
}

#[test]
fn a_refusal_says_what_to_do() {
    let refused = |errno: i32| read(&error(errno)).unwrap_err();
    assert!(matches!(refused(libc::EPERM), DumpError::Refused));
    assert!(matches!(refused(libc::EINVAL), DumpError::Absent));
    assert!(refused(libc::EINVAL).to_string().ends_with("modprobe nf_conntrack_netlink"));
    assert!(matches!(refused(libc::ENOMEM), DumpError::Io { .. }));
}

#[test]
fn a_dump_that_ends_with_an_error_has_failed() {
    let done = message(NLMSG_DONE, 0, &(-libc::ENOBUFS).to_ne_bytes());
    assert!(matches!(read(&done), Err(DumpError::Io { .. })));
    let (summary, last, _) = read(&message(NLMSG_DONE, 0, &[0; 4])).unwrap();
    assert!(last && summary.entries == 0);
}

#[test]
fn the_request_asks_for_both_families() {
    let bytes = request_bytes();
    let request = NetlinkBuffer::new_checked(&bytes[..]).unwrap();
    assert_eq!((request.message_type(), request.flags()), (0x101, 0x301));
    assert_eq!(request.payload(), [0; NFGENMSG_LENGTH]);
}

#[test]
fn a_reader_that_has_enough_is_told_no_more() {
    let mut summary = Summary { entries: 0, unread: 0, completeness: Completeness::Complete };
    let mut left = 3;
    let last = summary.read(RECORDED, &mut |_, _| {
        left -= 1;
        if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(last.unwrap());
    assert_eq!((summary.entries, summary.completeness), (3, Completeness::Interrupted));
}

fn read(bytes: &[u8]) -> Result<(Summary, bool, Vec<Entry>), DumpError> {
    let mut summary = Summary { entries: 0, unread: 0, completeness: Completeness::Complete };
    let mut entries = Vec::new();
    let last = summary.read(bytes, &mut |entry, _| {
        entries.push(*entry);
        ControlFlow::Continue(())
    })?;
    Ok((summary, last, entries))
}

/// A code as the kernel writes it, and the header of the request that it answers.
fn error(errno: i32) -> Vec<u8> {
    let mut payload = (-errno).to_ne_bytes().to_vec();
    payload.extend(&request_bytes()[..HEADER_LENGTH]);
    message(NLMSG_ERROR, 0, &payload)
}

fn tuple(source: &str, destination: &str, key: u32) -> Tuple {
    Tuple { source: source.parse().unwrap(), destination: destination.parse().unwrap(), key }
}

fn ports(source: u32, destination: u32) -> u32 {
    source << 16 | destination
}

#[test]
fn a_damaged_dump_is_read_as_far_as_it_goes() {
    ctguard_damage::survives!(&[RECORDED], |bytes: &[u8]| {
        let mut summary = Summary { entries: 0, unread: 0, completeness: Completeness::Complete };
        let mut each = |entry: &Entry, attributes: &[u8]| {
            let _ = Deletion::of(entry, attributes);
            ControlFlow::Continue(())
        };
        let _ = summary.read(bytes, &mut each);
        assert!(summary.entries <= u64::try_from(bytes.len() / HEADER_LENGTH).unwrap());
    });
}
