//! From the kind of a flood to the recipe that `lab_flood` follows.

mod frame;
mod kind;
mod sources;

use std::{fmt, str::FromStr};

use anyhow::{Context as _, Result, bail};

use crate::addresses::Family;

use frame::Whole;
use kind::{Part, Segment};
use layout::{
    CHALLENGED, CONTINUES, FRAME_WORDS, HOLDS, LONGEST_FRAME_WORDS, Recipe, Strand,
    WITHOUT_PSEUDO_HEADER,
};
use sources::Ends;

pub use frame::EXTENSION_HEADERS;
pub use kind::{Again, FloodKind};
pub use sources::Sources;

#[path = "../lab-program/src/recipe.rs"]
pub mod layout;

// SAFETY: `repr(C)`, integers only, no padding (the layout's own assertions fix its size).
unsafe impl aya::Pod for Recipe {}

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

/// A recipe, and how long the frames are that it makes.
#[derive(Clone, Copy, Debug)]
pub struct Made {
    /// What the generator reads.
    pub recipe: Recipe,
    /// Bytes of each frame: what a run must offer as its input.
    pub frame_length: usize,
}

/// The whole recipe of a flood.
pub fn recipe(kind: FloodKind, route: Route) -> Result<Made> {
    check_family(kind, route.family)?;
    let mut recipe = Recipe { random: 0x9e37_79b9_7f4a_7c15, ..Recipe::default() };
    let mut longest = 0;
    for (strand, (segment, sources)) in recipe.strands.iter_mut().zip(kind.strands()) {
        let length;
        (*strand, length) = self::strand(segment, sources, route)?;
        longest = longest.max(length);
    }
    let words = FRAME_WORDS.into_iter().find(|words| words * 8 >= longest);
    Ok(Made { recipe, frame_length: 8 * words.context("a frame is too long")? })
}

/// Fails where a flood cannot have a family.
pub fn check_family(kind: FloodKind, family: Family) -> Result<()> {
    match kind.only_family() {
        Some(only) if only != family => bail!("a flood of {kind} is {only}, not {family}"),
        _ => Ok(()),
    }
}

/// A strand, and the bytes of its frame.
fn strand(segment: Segment, sources: Sources, route: Route) -> Result<(Strand, usize)> {
    let ends = Ends::of(sources, route)?;
    let mut whole = frame::whole(segment, ends, route)?;
    // What the program fills in counts as zero in the sums, and is zero in the template.
    let mut address = [0; 4];
    take(&mut whole.bytes, ends.address_at, &mut address)?;
    for field in [whole.checksum_at, whole.drawn_at].into_iter().flatten() {
        take(&mut whole.bytes, field, &mut [0; 2])?;
    }
    let mut strand = Strand {
        address: u32::from_ne_bytes(address),
        spoofed: ends.spoofed,
        address_at: u32::try_from(ends.address_at)?,
        drawn_at: offset(whole.drawn_at)?,
        checksum_at: offset(whole.checksum_at)?,
        drawn_first: whole.drawn.0.into(),
        drawn_last: whole.drawn.1.into(),
        ..Strand::default()
    };
    if let Some(crowd) = ends.crowd {
        (strand.crowd, strand.step) = (crowd.members, crowd.word_step());
    }
    if sources.answer() {
        strand.flags |= CHALLENGED;
    }
    if let Some(most) = sources.hold() {
        strand.flags |= HOLDS;
        strand.most_held = most;
    }
    if whole.protocol == etherparse::IpNumber::ICMP {
        strand.flags |= WITHOUT_PSEUDO_HEADER;
        strand.transport_sum = sum(&whole.bytes[whole.transport_at..]);
    } else {
        strand.transport_sum =
            fold(sum(&whole.bytes[whole.transport_at..]) + pseudo_sum(&whole, route)?);
    }
    let mut bytes = whole.bytes;
    if let Segment::Fragment(part) = segment {
        let offset;
        (bytes, offset) = frame::fragment(&bytes, part)?;
        match part {
            Part::Head => strand.checksum_at = 0,
            Part::Rest => {
                strand.flags |= CONTINUES;
                strand.drawn_at = 0;
                strand.checksum_at -= u32::try_from(offset)?;
            }
        }
    }
    if route.family == Family::Ipv4 {
        take(&mut bytes, layout::IPV4_CHECKSUM_AT, &mut [0; 2])?;
        strand.header_sum = sum(&bytes[14..34]);
    }
    strand.frame = words(&bytes);
    Ok((strand, bytes.len()))
}

/// The sum of the pseudo header, the address word left out (RFC 9293, 3.1; RFC 8200, 8.1).
fn pseudo_sum(whole: &Whole, route: Route) -> Result<u32> {
    let addresses = match route.family {
        Family::Ipv4 => 26..34,
        Family::Ipv6 => 22..54,
    };
    let length = u16::try_from(whole.bytes.len() - whole.transport_at)?;
    let numbers = u32::from(u16::from(whole.protocol.0).to_be()) + u32::from(length.to_be());
    Ok(fold(sum(&whole.bytes[addresses]) + numbers))
}

/// An offset as the recipe has it: 0 where there is none.
fn offset(at: Option<usize>) -> Result<u32> {
    u32::try_from(at.unwrap_or(0)).context("a frame is too long")
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

fn words(frame: &[u8]) -> [u64; LONGEST_FRAME_WORDS] {
    let mut words = [0; LONGEST_FRAME_WORDS];
    for (word, bytes) in words.iter_mut().zip(frame.chunks(8)) {
        let mut padded = [0; 8];
        padded.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        *word = u64::from_ne_bytes(padded);
    }
    words
}
