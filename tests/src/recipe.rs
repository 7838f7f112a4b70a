//! From the kind of a flood to the recipe that `lab_flood` follows.

use std::{fmt, net::IpAddr, str::FromStr};

use anyhow::{Context as _, Result, bail};
use etherparse::{EtherType, PacketBuilder};

use crate::addresses::Family;

use layout::{LONG_FRAME_WORDS, Recipe, SHORT_FRAME_WORDS, STRANDS, Strand};

#[path = "../../ctguard-ebpf/src/lab_recipe.rs"]
pub mod layout;

// SAFETY: `repr(C)`, integers only, no padding (the layout's own assertions fix its size).
unsafe impl aya::Pod for Recipe {}

/// The floods of the lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum FloodKind {
    /// TCP SYNs from one address, all source ports.
    SynOneSource,
    /// TCP SYNs from 2^28 addresses.
    SynSpoofed,
    /// UDP from one address, all source ports.
    UdpOneSource,
    /// UDP from 2^28 addresses.
    UdpSpoofed,
    /// The four others in turn.
    Mixed,
    /// TCP ACKs of no connection, from one address.
    AckOneSource,
    /// TCP ACKs of no connection, from 2^28 addresses.
    AckSpoofed,
}

impl FloodKind {
    fn strands(self) -> [(Segment, Sources); STRANDS] {
        use Segment::{Ack, Syn, Udp};
        use Sources::{One, Spoofed};
        match self {
            Self::SynOneSource => [(Syn, One); STRANDS],
            Self::SynSpoofed => [(Syn, Spoofed); STRANDS],
            Self::UdpOneSource => [(Udp, One); STRANDS],
            Self::UdpSpoofed => [(Udp, Spoofed); STRANDS],
            Self::Mixed => [(Syn, One), (Udp, Spoofed), (Udp, One), (Syn, Spoofed)],
            Self::AckOneSource => [(Ack, One); STRANDS],
            Self::AckSpoofed => [(Ack, Spoofed); STRANDS],
        }
    }
}

impl fmt::Display for FloodKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SynOneSource => "syn-one-source",
            Self::SynSpoofed => "syn-spoofed",
            Self::UdpOneSource => "udp-one-source",
            Self::UdpSpoofed => "udp-spoofed",
            Self::Mixed => "mixed",
            Self::AckOneSource => "ack-one-source",
            Self::AckSpoofed => "ack-spoofed",
        })
    }
}

/// What one frame of a flood carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Segment {
    Syn,
    Ack,
    Udp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sources {
    One,
    Spoofed,
}

/// How many frames a second a flood has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rate {
    /// As many as its CPU makes.
    Full,
    /// This many.
    PerSecond(u32),
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "max" | "0" => Ok(Self::Full),
            number => match number.replace('_', "").parse() {
                Ok(rate) => Ok(Self::PerSecond(rate)),
                Err(_) => Err("a number of packets a second, or max".to_owned()),
            },
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("max"),
            Self::PerSecond(rate) => rate.fmt(f),
        }
    }
}

/// The way of a flood's frames: addresses of the link, family, and the port they go at.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// Hardware addresses: source, destination.
    pub link: ([u8; 6], [u8; 6]),
    /// IPv4 or IPv6.
    pub family: Family,
    /// The destination port.
    pub port: u16,
}

/// The whole recipe of a flood.
pub fn recipe(kind: FloodKind, route: Route) -> Result<Recipe> {
    let mut recipe = Recipe { random: 0x9e37_79b9_7f4a_7c15, ..Recipe::default() };
    for (strand, (segment, sources)) in recipe.strands.iter_mut().zip(kind.strands()) {
        *strand = self::strand(segment, sources, route)?;
    }
    Ok(recipe)
}

/// Bytes of each frame of a flood: what the run must offer as its input.
#[must_use]
pub fn frame_length(family: Family) -> usize {
    8 * match family {
        Family::Ipv4 => SHORT_FRAME_WORDS,
        Family::Ipv6 => LONG_FRAME_WORDS,
    }
}

fn strand(segment: Segment, sources: Sources, route: Route) -> Result<Strand> {
    let source = match sources {
        Sources::One => route.family.flood_source(),
        Sources::Spoofed => route.family.spoofed_base(),
    };
    let mut frame = packet(segment, source, route)?;
    let transport_at = match route.family {
        Family::Ipv4 => 14 + 20,
        Family::Ipv6 => 14 + 40,
    };
    let checksum_at = transport_at + if segment == Segment::Udp { 6 } else { 16 };
    // What the program fills in counts as zero in the sums, and is zero in the template.
    let mut source_word = [0; 4];
    take(&mut frame, layout::SOURCE_AT, &mut source_word)?;
    take(&mut frame, checksum_at, &mut [0; 2])?;
    take(&mut frame, transport_at, &mut [0; 2])?;
    let (header_sum, addresses_at) = match route.family {
        Family::Ipv4 => {
            take(&mut frame, layout::IPV4_CHECKSUM_AT, &mut [0; 2])?;
            (sum(&frame[14..transport_at]), 26)
        }
        Family::Ipv6 => (0, 22),
    };
    let protocol = if segment == Segment::Udp { 17 } else { 6 };
    let length = u16::try_from(frame.len() - transport_at).context("a frame is too long")?;
    let pseudo_header = u32::from(u16::to_be(protocol)) + u32::from(length.to_be());

    Ok(Strand {
        source: u32::from_ne_bytes(source_word),
        spoofed: match sources {
            Sources::One => 0,
            Sources::Spoofed => 0x0fff_ffff_u32.to_be(),
        },
        header_sum,
        transport_sum: fold(sum(&frame[addresses_at..]) + pseudo_header),
        port_at: u32::try_from(transport_at).context("a frame is too long")?,
        checksum_at: u32::try_from(checksum_at).context("a frame is too long")?,
        frame: words(&frame),
    })
}

/// A whole frame as a well-kept library makes it.
fn packet(segment: Segment, source: IpAddr, route: Route) -> Result<Vec<u8>> {
    let link = PacketBuilder::ethernet2(route.link.0, route.link.1);
    let target = route.family.flood_target(route.port);
    let packet = match (source, target.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => link.ipv4(from.octets(), to.octets(), 64),
        (IpAddr::V6(from), IpAddr::V6(to)) => link.ipv6(from.octets(), to.octets(), 64),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
            bail!("a flood has one family")
        }
    };
    let mut frame = Vec::new();
    let written = match segment {
        Segment::Syn => packet.tcp(0, target.port(), 1, 64240).syn().write(&mut frame, &[]),
        Segment::Ack => packet.tcp(0, target.port(), 1, 64240).ack(1).write(&mut frame, &[]),
        Segment::Udp => packet.udp(0, target.port()).write(&mut frame, b"flood..."),
    };
    written.context("cannot make the flood's frame")?;
    let ethertype = u16::from_be_bytes([frame[12], frame[13]]);
    debug_assert!([EtherType::IPV4.0, EtherType::IPV6.0].contains(&ethertype));
    Ok(frame)
}

/// Moves bytes out of a frame and leaves zeroes.
fn take(frame: &mut [u8], at: usize, bytes: &mut [u8]) -> Result<()> {
    let field = frame.get_mut(at..at + bytes.len()).context("a frame is too short")?;
    bytes.copy_from_slice(field);
    field.fill(0);
    Ok(())
}

/// The one's complement sum of 16-bit words as this machine loads them.
fn sum(bytes: &[u8]) -> u32 {
    let words = bytes.chunks(2).map(|word| match *word {
        [first, second] => u16::from_ne_bytes([first, second]),
        [first] => u16::from_ne_bytes([first, 0]),
        _ => 0,
    });
    fold(words.map(u32::from).sum())
}

/// Leaves room in 32 bits for what the program adds.
fn fold(sum: u32) -> u32 {
    let folded = (sum & 0xffff) + (sum >> 16);
    (folded & 0xffff) + (folded >> 16)
}

fn words(frame: &[u8]) -> [u64; LONG_FRAME_WORDS] {
    let mut words = [0; LONG_FRAME_WORDS];
    for (word, bytes) in words.iter_mut().zip(frame.chunks(8)) {
        let mut padded = [0; 8];
        padded.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        *word = u64::from_ne_bytes(padded);
    }
    words
}
