//! The answer to a SYN: the frame it came in, turned round and cut to a bare ACK.

use super::Connection;
use crate::{
    blur::Blur,
    hash::low_word,
    packet::{
        self, Address, Ipv4, Ipv6, Reader, TcpFlags, Writer,
        link::{EthernetHeader, SessionEnd},
        protocol,
        reader::{Be32, WireHeader},
    },
};

/// What answers a SYN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer<A> {
    /// The connection that the client asks for.
    pub connection: Connection<A>,
    /// Sequence number of its SYN.
    pub sequence: u32,
    /// What it must send back.
    pub cookie: u32,
}

/// An address whose family can be answered.
pub trait Answering: Address {
    /// A network header of the family, as it lies on the wire.
    type Header: WireHeader;

    /// The header in front of a bare TCP segment.
    fn header(source: Self, destination: Self) -> Self::Header;

    /// Source and destination of a packet in the frame that the reader stands at; `None` when it
    /// ends before them.
    fn read(frame: Reader<'_>) -> Option<(Self, Self)>;

    /// Bytes of the packet in the frame that the reader stands at, by its header's own account.
    fn packet_bytes(frame: Reader<'_>) -> Option<u32>;
}

const TCP_HEADER_WORDS: u32 = 5;
const TCP_HEADER_BYTES: u16 = 20;
const _: () = assert!(TCP_HEADER_BYTES as u32 == TCP_HEADER_WORDS * 4);
/// What Linux gives its own packets.
const TIME_TO_LIVE: u32 = 64;
const DO_NOT_FRAGMENT: u32 = 0x4000;
/// Any would do; the one that the exchange was measured with.
const WINDOW: u32 = 1024;

impl<A: Answering> Answer<A> {
    /// Bytes of the answer's frame; no SYN's is shorter.
    #[inline(always)]
    #[must_use]
    pub const fn frame_bytes(network_offset: u32) -> u32 {
        network_offset + Self::PACKET_BYTES as u32
    }

    #[expect(clippy::cast_possible_truncation, reason = "twenty or forty")]
    const NETWORK_HEADER_BYTES: u16 = size_of::<A::Header>() as u16;
    const PACKET_BYTES: u16 = Self::NETWORK_HEADER_BYTES + TCP_HEADER_BYTES;

    /// Writes the answer over the SYN, whose network header is at `network_offset`. What follows
    /// the answer's [`Self::frame_bytes`] is to be cut off.
    ///
    /// `None` when the frame is shorter than that; some of it may be written then.
    #[inline(always)]
    pub fn write(&self, frame: &mut Writer<'_>, network_offset: u32) -> Option<()> {
        let Connection { source, destination, .. } = self.connection;
        let ethernet: EthernetHeader = frame.get(0)?;
        frame.put(0, ethernet.turned_round())?;

        let session_offset = network_offset.wrapping_sub(SessionEnd::BYTES);
        let session: SessionEnd = frame.get(session_offset)?;
        if let Some(session) = session.before(Self::PACKET_BYTES) {
            frame.put(session_offset, session)?;
        }
        frame.put(network_offset, A::header(destination, source))?;
        let segment_offset = network_offset + u32::from(Self::NETWORK_HEADER_BYTES);
        frame.put(segment_offset, self.segment().map(Be32::new))
    }

    /// The TCP header (RFC 9293, section 3.1), which is all of the segment.
    #[inline(always)]
    fn segment(&self) -> [u32; TCP_HEADER_WORDS as usize] {
        let Connection { source, destination, ports } = self.connection;
        // Any sequence number would do: a client that waits for a SYN-ACK looks at the
        // acknowledgment first. This one is a function of its own, the same whenever it asks again.
        let segment = [
            ports.rotate_left(16),
            !self.sequence,
            self.cookie,
            TCP_HEADER_WORDS << 28 | TcpFlags::ACK << 16 | WINDOW,
            0,
        ];
        let pseudo_header = sum(source.words().as_ref())
            + sum(destination.words().as_ref())
            + u64::from(TCP_HEADER_BYTES)
            + u64::from(protocol::TCP);
        let checksum = checksum(pseudo_header + sum(&segment));
        let [ports, sequence, acknowledgment, window, _] = segment;
        [ports, sequence, acknowledgment, window, checksum << 16]
    }
}

impl Answering for Ipv4 {
    type Header = [Be32; 5];

    /// Without options, and with identification 0, which a packet that is never fragmented may
    /// have (RFC 6864, section 4.1).
    #[inline(always)]
    fn header(source: Self, destination: Self) -> [Be32; 5] {
        let length = 20 + u32::from(TCP_HEADER_BYTES);
        let lifetime = TIME_TO_LIVE << 24 | u32::from(protocol::TCP) << 16;
        let words = [0x4500_0000 | length, DO_NOT_FRAGMENT, lifetime, source.0, destination.0];
        let [version, fragment, lifetime, source, destination] = words;
        [version, fragment, lifetime | checksum(sum(&words)), source, destination].map(Be32::new)
    }

    #[inline(always)]
    fn read(mut frame: Reader<'_>) -> Option<(Self, Self)> {
        packet::skip_link(&mut frame)?;
        let [_, _, _, source, destination]: &[Be32; 5] = frame.take()?;
        Some((Self(source.get()), Self(destination.get())))
    }

    #[inline(always)]
    fn packet_bytes(mut frame: Reader<'_>) -> Option<u32> {
        packet::skip_link(&mut frame)?;
        let [length, ..]: &[Be32; 5] = frame.take()?;
        Some(length.get() & 0xffff)
    }
}

impl Answering for Ipv6 {
    type Header = [Be32; 10];

    #[inline(always)]
    fn header(source: Self, destination: Self) -> [Be32; 10] {
        let next = u32::from(TCP_HEADER_BYTES) << 16 | u32::from(protocol::TCP) << 8 | TIME_TO_LIVE;
        let (Self([s0, s1, s2, s3]), Self([d0, d1, d2, d3])) = (source, destination);
        [0x6000_0000, next, s0, s1, s2, s3, d0, d1, d2, d3].map(Be32::new)
    }

    #[inline(always)]
    fn read(mut frame: Reader<'_>) -> Option<(Self, Self)> {
        packet::skip_link(&mut frame)?;
        let [_, _, s0, s1, s2, s3, d0, d1, d2, d3]: &[Be32; 10] = frame.take()?;
        let [source, destination] = [[s0, s1, s2, s3], [d0, d1, d2, d3]];
        Some((Self(source.map(|word| word.get())), Self(destination.map(|word| word.get()))))
    }

    #[inline(always)]
    fn packet_bytes(mut frame: Reader<'_>) -> Option<u32> {
        packet::skip_link(&mut frame)?;
        let [_, length, ..]: &[Be32; 10] = frame.take()?;
        Some(40 + (length.get() >> 16))
    }
}

/// Turns the frame of a SYN into the answer's and tells how many of its bytes that has.
///
/// `None`, and nothing is changed, when the frame is too short for a SYN or lies at an odd address.
pub fn write_answer<A: Answering>(frame: &mut [u8], answer: &Answer<A>) -> Option<usize> {
    let network_offset = packet::network_offset(Writer::over(frame)?.reader(Blur::new(0)))?;
    let bytes = usize::try_from(Answer::<A>::frame_bytes(network_offset)).ok()?;
    let mut writer = Writer::over(frame.get_mut(..bytes)?)?;
    answer.write(&mut writer, network_offset)?;
    Some(bytes)
}

/// The sum of words, of which the checksum is made.
#[inline(always)]
fn sum(words: &[u32]) -> u64 {
    words.iter().map(|word| u64::from(*word)).sum()
}

/// The Internet checksum (RFC 1071) of what has this sum, in words of 32 bits and network order.
#[inline(always)]
const fn checksum(sum: u64) -> u32 {
    let folded = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
    let folded = (folded & 0xffff) + (folded >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    low_word(folded) ^ 0xffff
}

#[cfg(test)]
mod tests;
