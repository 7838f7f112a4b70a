//! The answer to a challenged DNS query: its own frame, sent back as a reply that is truncated (TC),
//! so that the resolver asks again over TCP (RFC 7766, section 5), which proves its address.

use super::{
    Answering,
    answer::{self, TIME_TO_LIVE},
};
use crate::{
    packet::{
        self, Ipv4, Ipv6, Writer,
        link::EthernetHeader,
        protocol,
        reader::{Be16, Be32},
    },
    verifier::OpaqueZero,
};

/// The port of DNS.
pub const PORT: u32 = 53;

type UdpHeader = [Be16; 4];
/// Identifier, flags, and the numbers of records in each section (RFC 1035, section 4.1.1).
type DnsHeader = [Be16; 6];

const RESPONSE: u16 = 0x8000;
const OPERATION: u16 = 0x7800;
/// glibc takes a reply that is neither authoritative nor recursive for a lame server's.
const AUTHORITATIVE: u16 = 0x0400;
const TRUNCATED: u16 = 0x0200;

/// The network header of a query, by family.
pub trait Reversible: Answering {
    /// The header of the reply; `None` if anything but a whole UDP datagram follows.
    fn reversed(query: Self::Header) -> Option<Self::Header>;
}

impl Reversible for Ipv4 {
    #[inline(always)]
    fn reversed(query: [Be32; 5]) -> Option<[Be32; 5]> {
        const FRAGMENTED: u32 = 0x3fff;
        let [version, fragment, lifetime, source, destination] = query.map(Be32::get);
        let carries = lifetime >> 16 & 0xff;
        if version >> 24 != 0x45 || fragment & FRAGMENTED != 0 || carries != protocol::UDP.into() {
            return None;
        }
        let lifetime = TIME_TO_LIVE << 24 | carries << 16;
        let checksum =
            answer::checksum(answer::sum(&[version, fragment, lifetime, source, destination]));
        Some([version, fragment, lifetime | checksum, destination, source].map(Be32::new))
    }
}

impl Reversible for Ipv6 {
    #[inline(always)]
    fn reversed(query: [Be32; 10]) -> Option<[Be32; 10]> {
        let [version, next, s0, s1, s2, s3, d0, d1, d2, d3] = query;
        if next.get() >> 8 & 0xff != protocol::UDP.into() {
            return None;
        }
        let next = Be32::new(next.get() & !0xff | TIME_TO_LIVE);
        Some([version, next, d0, d1, d2, d3, s0, s1, s2, s3])
    }
}

/// Turns the frame of a query, whose network header is at `network_offset`, into a reply of the same
/// length. `None`, and nothing is changed, if it holds no query right behind a bare network header.
#[inline(always)]
pub fn truncate<A: Reversible>(frame: &mut Writer<'_>, network_offset: u32) -> Option<()> {
    let udp_offset = network_offset + bytes::<A::Header>();
    let dns_offset = udp_offset + bytes::<UdpHeader>();
    let ethernet: EthernetHeader = frame.get(0)?;
    let network = A::reversed(frame.get(network_offset)?)?;
    let [from, to, length, checksum]: UdpHeader = frame.get(udp_offset)?;
    let [id, flags, questions, answers, authorities, additional]: DnsHeader =
        frame.get(dns_offset)?;
    // A second record beside EDNS's signs the query (RFC 8945), and no reply from here would verify.
    let asks = flags.get() & (RESPONSE | OPERATION) == 0
        && questions.get() == 1
        && answers.get() | authorities.get() == 0
        && additional.get() <= 1;
    if !asks || u32::from(to.get()) != PORT {
        return None;
    }
    let replied = flags.get() | RESPONSE | AUTHORITATIVE | TRUNCATED;
    let checksum = updated(checksum.get(), flags.get(), replied);
    frame.put(0, ethernet.reversed())?;
    frame.put(network_offset, network)?;
    frame.put(udp_offset, [to, from, length, Be16::new(checksum)])?;
    frame.put(dns_offset, [id, Be16::new(replied), questions, answers, authorities, additional])
}

#[expect(clippy::cast_possible_truncation, reason = "forty at most")]
const fn bytes<H>() -> u32 {
    size_of::<H>() as u32
}

/// A checksum of UDP after a word has changed (RFC 1624); 0 is none (RFC 768).
#[inline(always)]
const fn updated(checksum: u16, old: u16, new: u16) -> u16 {
    if checksum == 0 {
        return 0;
    }
    let sum = (!checksum) as u32 + (!old) as u32 + new as u32;
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    let [low, high, ..] = folded.to_le_bytes();
    let checksum = !u16::from_le_bytes([low, high]);
    if checksum == 0 { 0xffff } else { checksum }
}

/// Turns the frame of a query into a truncated reply. `None`, and nothing is changed, if it holds
/// none, or lies at an odd address.
pub fn write_truncated<A: Reversible>(frame: &mut [u8]) -> Option<()> {
    let mut writer = Writer::over(frame)?;
    let network_offset = packet::network_offset(writer.reader(OpaqueZero::new(0)))?;
    truncate::<A>(&mut writer, network_offset)
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};

    use super::*;
    use crate::challenge::testing::ones_complement;

    #[repr(align(2))]
    struct Aligned([u8; 256]);

    /// `www.example`, IN A, with an OPT record of 1,232 bytes.
    const QUERY: &[u8] = b"\x12\x34\x01\x20\0\x01\0\0\0\0\0\x01\x03wWw\x07example\0\0\x01\0\x01\
                           \0\0\x29\x04\xd0\0\0\0\0\0\0";

    #[test]
    fn a_query_comes_back_as_a_truncated_reply_of_the_same_length() {
        for (name, query) in
            [("IPv4", ipv4(QUERY)), ("IPv6", ipv6(QUERY)), ("tag", tagged(ipv4(QUERY)))]
        {
            let reply = truncated(&query).unwrap();
            assert_eq!(reply.len(), query.len(), "{name}");
            let (ours, theirs) =
                (SlicedPacket::from_ethernet(&reply), SlicedPacket::from_ethernet(&query));
            let (ours, theirs) = (ours.unwrap(), theirs.unwrap());
            match (ours.net.unwrap(), theirs.net.unwrap()) {
                (NetSlice::Ipv4(ours), NetSlice::Ipv4(theirs)) => {
                    let (ours, theirs) = (ours.header(), theirs.header());
                    assert_eq!(
                        (ours.source(), ours.destination()),
                        (theirs.destination(), theirs.source())
                    );
                    assert_eq!(ours.header_checksum(), ours.to_header().calc_header_checksum());
                    assert_eq!(ours.ttl(), 64);
                }
                (NetSlice::Ipv6(ours), NetSlice::Ipv6(theirs)) => {
                    let (ours, theirs) = (ours.header(), theirs.header());
                    assert_eq!(
                        (ours.source(), ours.destination()),
                        (theirs.destination(), theirs.source())
                    );
                    assert_eq!(ours.hop_limit(), 64);
                }
                other => panic!("{name}: {other:?}"),
            }
            let (Some(TransportSlice::Udp(ours)), Some(TransportSlice::Udp(theirs))) =
                (ours.transport, theirs.transport)
            else {
                panic!("{name}")
            };
            assert_eq!(ours.source_port(), theirs.destination_port(), "{name}");
            assert_eq!(ours.destination_port(), theirs.source_port(), "{name}");
            let payload = ours.payload();
            assert_eq!(
                payload[..4],
                [0x12, 0x34, 0x87, 0x20],
                "{name}: QR, AA, TC, and RD and AD as they were"
            );
            assert_eq!(payload[4..], QUERY[4..], "{name}: the question as it was");
            assert_eq!(sum_of_udp(&reply), 0xffff, "{name}");
            assert_eq!((&reply[..6], &reply[6..12]), (&query[6..12], &query[..6]), "{name}");
        }
    }

    #[test]
    fn the_checksum_is_right_whatever_was_asked() {
        for id in 0..=u16::MAX {
            let mut query = QUERY.to_vec();
            query[..2].copy_from_slice(&id.to_be_bytes());
            assert_eq!(sum_of_udp(&truncated(&ipv4(&query)).unwrap()), 0xffff, "{id}");
        }
    }

    #[test]
    fn a_datagram_without_a_checksum_has_none_in_the_reply() {
        let mut query = ipv4(QUERY);
        query[40..42].fill(0);
        assert_eq!(truncated(&query).unwrap()[40..42], [0, 0]);
    }

    /// Fails when a reply is sent for a reply, so that two guards could answer each other for ever.
    #[test]
    fn what_is_no_query_is_left_alone() {
        let changed = |at: usize, byte: u8| {
            let mut payload = QUERY.to_vec();
            payload[at] = byte;
            ipv4(&payload)
        };
        let mut fragment = ipv4(QUERY);
        fragment[20] |= 0x20;
        let mut options = ipv4(QUERY);
        options.splice(34..34, [1; 4]);
        options[14] += 1;
        let frames = [
            ("reply", changed(2, 0x81)),
            ("notify", changed(2, 0x21)),
            ("no question", changed(5, 0)),
            ("two questions", changed(5, 2)),
            ("answer", changed(7, 1)),
            ("signed", changed(11, 2)),
            ("cut short", ipv4(&QUERY[..11])),
            ("first fragment", fragment),
            ("options", options),
            (
                "another port",
                udp(
                    PacketBuilder::ethernet2([2; 6], [4; 6])
                        .ipv4([192, 0, 2, 1], [198, 51, 100, 2], 57)
                        .udp(4242, 54),
                    QUERY,
                ),
            ),
            ("its own reply", truncated(&ipv4(QUERY)).unwrap()),
        ];
        for (name, frame) in frames {
            assert_eq!(truncated(&frame), None, "{name}");
        }
    }

    fn truncated(query: &[u8]) -> Option<Vec<u8>> {
        let mut frame = Aligned([0; 256]);
        let frame = &mut frame.0[..query.len()];
        frame.copy_from_slice(query);
        let is_ipv6 = query[12..14] == [0x86, 0xdd];
        let done =
            if is_ipv6 { write_truncated::<Ipv6>(frame) } else { write_truncated::<Ipv4>(frame) };
        if done.is_none() {
            assert_eq!(frame, query, "nothing is changed");
        }
        done.map(|()| frame.to_vec())
    }

    fn ipv4(payload: &[u8]) -> Vec<u8> {
        let link = PacketBuilder::ethernet2([2; 6], [4; 6]);
        udp(link.ipv4([192, 0, 2, 1], [198, 51, 100, 2], 57).udp(4242, 53), payload)
    }

    fn ipv6(payload: &[u8]) -> Vec<u8> {
        let link = PacketBuilder::ethernet2([2; 6], [4; 6]);
        udp(link.ipv6([0x20; 16], [0xfd; 16], 57).udp(4242, 53), payload)
    }

    fn tagged(mut frame: Vec<u8>) -> Vec<u8> {
        frame.splice(12..12, [0x81, 0, 0, 7]);
        frame
    }

    fn udp(
        builder: etherparse::PacketBuilderStep<etherparse::UdpHeader>,
        payload: &[u8],
    ) -> Vec<u8> {
        let mut frame = Vec::new();
        builder.write(&mut frame, payload).unwrap();
        frame
    }

    /// Over pseudo-header and datagram; 0xffff if the checksum in it is right (RFC 1071).
    fn sum_of_udp(frame: &[u8]) -> u32 {
        let at = if frame[12..14] == [0x81, 0] { 18 } else { 14 };
        let (addresses, datagram) =
            if frame[at] >> 4 == 4 { (at + 12, at + 20) } else { (at + 8, at + 40) };
        let length = u16::try_from(frame.len() - datagram).unwrap().to_be_bytes();
        let covered = [&frame[addresses..], &[0, protocol::UDP], &length].concat();
        ones_complement(&covered)
    }
}
