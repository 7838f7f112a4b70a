//! Segments of a connection in each kind of frame that the parser reads.

use anyhow::Result;
use ctguard_datapath::{
    challenge::{Answering, Connection},
    packet::{Ipv4, Ipv6},
};
use ctguard_tests::random::Random;
use etherparse::{IpHeaders, PacketBuilder, PacketBuilderStep};

/// A frame's name and its bytes.
type Named = (String, Vec<u8>);

/// A family of addresses, and what its packets may be like.
pub(crate) trait Family: Answering + std::fmt::Debug {
    const ETHERTYPE: [u8; 2];
    const PPP_PROTOCOL: [u8; 2];
    /// Options of IPv4, or extension headers of IPv6.
    const MORE: [&'static [u8]; 3];

    fn any(random: &mut Random) -> Self;
    fn builder(source: Self, destination: Self) -> PacketBuilderStep<IpHeaders>;
    /// Puts these options or extension headers behind the network header.
    fn lengthen(packet: &mut Vec<u8>, more: &[u8]) -> Result<()>;
}

/// What Linux sends: segment size, SACK, timestamps, window scale.
const TCP_OPTIONS: [u8; 20] = [2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 1, 2, 3, 0, 0, 0, 0, 1, 3, 3, 7];

/// The segment in every kind of frame; the first has no options at all.
pub(crate) fn frames<A: Family>(
    connection: &Connection<A>,
    sequence: u32,
    flags: u8,
) -> Result<Vec<Named>> {
    let mut frames = Vec::new();
    for more in A::MORE {
        for tcp_options in [[].as_slice(), &TCP_OPTIONS] {
            let mut packet = packet(connection, sequence, flags, tcp_options)?;
            A::lengthen(&mut packet, more)?;
            for (link, name) in links::<A>(packet.len())? {
                let name = format!("{name}, {} and {}", more.len(), tcp_options.len());
                frames.push((name, [link, packet.clone()].concat()));
            }
        }
    }
    Ok(frames)
}

fn packet<A: Family>(
    connection: &Connection<A>,
    sequence: u32,
    flags: u8,
    options: &[u8],
) -> Result<Vec<u8>> {
    let Connection { source, destination, ports } = *connection;
    let [from, to] = [u16::try_from(ports >> 16)?, u16::try_from(ports & 0xffff)?];
    let segment = A::builder(source, destination).tcp(from, to, sequence, 64_240);
    let mut packet = Vec::new();
    segment.options_raw(options)?.write(&mut packet, &[])?;
    let flags_at = packet.len() - options.len() - 20 + 13;
    packet[flags_at] = flags;
    Ok(packet)
}

fn links<A: Family>(packet_bytes: usize) -> Result<[(Vec<u8>, &'static str); 6]> {
    let stations = [2, 2, 2, 2, 2, 3, 4, 4, 4, 4, 4, 5];
    let link = |headers: &[&[u8]]| [&stations, headers.concat().as_slice()].concat();
    let length = u16::try_from(packet_bytes + 2)?.to_be_bytes();
    let session: &[u8] = &[[0x88, 0x64, 0x11, 0, 0x12, 0x34].as_slice(), &length].concat();
    let (customer, provider): (&[u8], &[u8]) = (&[0x81, 0, 0x60, 7], &[0x88, 0xa8, 0, 9]);
    Ok([
        (link(&[&A::ETHERTYPE]), "Ethernet"),
        (link(&[customer, &A::ETHERTYPE]), "one tag"),
        (link(&[provider, customer, &A::ETHERTYPE]), "two tags"),
        (link(&[session, &A::PPP_PROTOCOL]), "PPPoE"),
        (link(&[customer, session, &A::PPP_PROTOCOL]), "PPPoE in a tag"),
        (link(&[provider, customer, session, &A::PPP_PROTOCOL]), "PPPoE in two tags"),
    ])
}

impl Family for Ipv4 {
    const ETHERTYPE: [u8; 2] = [0x08, 0x00];
    const PPP_PROTOCOL: [u8; 2] = [0x00, 0x21];
    const MORE: [&'static [u8]; 3] = [&[], &[1; 12], &[1; 40]];

    fn any(random: &mut Random) -> Self {
        Self(random.word())
    }

    fn builder(source: Self, destination: Self) -> PacketBuilderStep<IpHeaders> {
        PacketBuilder::ipv4(source.0.to_be_bytes(), destination.0.to_be_bytes(), 57)
    }

    fn lengthen(packet: &mut Vec<u8>, options: &[u8]) -> Result<()> {
        packet.splice(20..20, options.iter().copied());
        packet[0] += u8::try_from(options.len() / 4)?;
        let total = u16::try_from(packet.len())?;
        packet[2..4].copy_from_slice(&total.to_be_bytes());
        Ok(())
    }
}

impl Family for Ipv6 {
    const ETHERTYPE: [u8; 2] = [0x86, 0xdd];
    const PPP_PROTOCOL: [u8; 2] = [0x00, 0x57];
    /// Hop-by-hop and destination options, eight bytes each.
    const MORE: [&'static [u8]; 3] = [&[], &[60], &[0, 60, 60]];

    fn any(random: &mut Random) -> Self {
        Self([(); 4].map(|()| random.word()))
    }

    fn builder(source: Self, destination: Self) -> PacketBuilderStep<IpHeaders> {
        PacketBuilder::ipv6(source.to_bytes(), destination.to_bytes(), 57)
    }

    fn lengthen(packet: &mut Vec<u8>, kinds: &[u8]) -> Result<()> {
        for kind in kinds.iter().rev() {
            let next = std::mem::replace(&mut packet[6], *kind);
            packet.splice(40..40, [next, 0, 1, 4, 0, 0, 0, 0]);
        }
        let payload = u16::try_from(packet.len() - 40)?;
        packet[4..6].copy_from_slice(&payload.to_be_bytes());
        Ok(())
    }
}
