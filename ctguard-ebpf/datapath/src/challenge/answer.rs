//! The answer to a SYN: its own frame, reversed and cut to a bare ACK.

use super::Connection;
use crate::{
    hash::low_word,
    packet::{
        self, Address, Ipv4, Ipv6, Reader, TcpFlags, Writer,
        link::{EthernetHeader, SessionEnd},
        protocol,
        reader::{Be32, WireHeader},
    },
    verifier::OpaqueZero,
};

/// A challenge ACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer<A> {
    /// The connection that the client asks for.
    pub connection: Connection<A>,
    /// Sequence number of its SYN.
    pub sequence: u32,
    /// The number that the client must send back.
    pub cookie: u32,
}

/// The network header of a challenge ACK, by family.
pub trait Answering: Address {
    /// A network header on the wire.
    type Header: WireHeader;

    /// The header before a bare TCP segment.
    fn header(source: Self, destination: Self) -> Self::Header;

    /// Source and destination of the packet in `frame`; `None` if the frame ends before them.
    fn read(frame: Reader<'_>) -> Option<(Self, Self)>;

    /// Bytes of the packet in `frame`, according to its header's length field.
    fn packet_bytes(frame: Reader<'_>) -> Option<u32>;
}

const TCP_HEADER_WORDS: u32 = 5;
const TCP_HEADER_BYTES: u16 = 20;
const _: () = assert!(TCP_HEADER_BYTES as u32 == TCP_HEADER_WORDS * 4);
/// The default of Linux.
pub(super) const TIME_TO_LIVE: u32 = 64;
const DO_NOT_FRAGMENT: u32 = 0x4000;
/// Any value would do; the exchange was measured with this one.
const WINDOW: u32 = 1024;

impl<A: Answering> Answer<A> {
    /// Bytes of the answer's frame.
    #[inline(always)]
    pub const fn frame_bytes(network_offset: u32) -> u32 {
        network_offset + Self::PACKET_BYTES as u32
    }

    #[expect(clippy::cast_possible_truncation, reason = "twenty or forty")]
    const NETWORK_HEADER_BYTES: u16 = size_of::<A::Header>() as u16;
    const PACKET_BYTES: u16 = Self::NETWORK_HEADER_BYTES + TCP_HEADER_BYTES;

    /// Writes the answer over the SYN, whose network header is at `network_offset`. The caller cuts
    /// the frame to [`Self::frame_bytes`]. `None` if the frame is shorter; it may be written in
    /// part.
    #[inline(always)]
    pub fn write(&self, frame: &mut Writer<'_>, network_offset: u32) -> Option<()> {
        let Connection { source, destination, .. } = self.connection;
        let ethernet: EthernetHeader = frame.get(0)?;
        frame.put(0, ethernet.reversed())?;

        let session_offset = network_offset.wrapping_sub(SessionEnd::BYTES);
        let session: SessionEnd = frame.get(session_offset)?;
        if let Some(session) = session.before(Self::PACKET_BYTES) {
            frame.put(session_offset, session)?;
        }
        frame.put(network_offset, A::header(destination, source))?;
        let segment_offset = network_offset + u32::from(Self::NETWORK_HEADER_BYTES);
        frame.put(segment_offset, self.segment().map(Be32::new))
    }

    /// The TCP header (RFC 9293, section 3.1); the segment has no payload.
    #[inline(always)]
    fn segment(&self) -> [u32; TCP_HEADER_WORDS as usize] {
        let Connection { source, destination, ports } = self.connection;
        // Any sequence number would do: a client that waits for a SYN-ACK checks the acknowledgment
        // first. This one depends only on the client's, so it is the same for a repeated SYN.
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

    /// Identification is 0, as RFC 6864, section 4.1 allows for packets that are never fragmented.
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

/// Turns the frame of a SYN into its answer and returns the answer's length.
///
/// `None`, and nothing is changed, if the frame is too short for a SYN or lies at an odd address.
pub fn write_answer<A: Answering>(frame: &mut [u8], answer: &Answer<A>) -> Option<usize> {
    let network_offset = packet::network_offset(Writer::over(frame)?.reader(OpaqueZero::new(0)))?;
    let bytes = usize::try_from(Answer::<A>::frame_bytes(network_offset)).ok()?;
    let mut writer = Writer::over(frame.get_mut(..bytes)?)?;
    answer.write(&mut writer, network_offset)?;
    Some(bytes)
}

#[inline(always)]
pub(super) fn sum(words: &[u32]) -> u64 {
    words.iter().map(|word| u64::from(*word)).sum()
}

/// The Internet checksum (RFC 1071) from a sum of 32-bit words in network order.
#[inline(always)]
pub(super) const fn checksum(sum: u64) -> u32 {
    let folded = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
    let folded = (folded & 0xffff) + (folded >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    low_word(folded) ^ 0xffff
}

#[cfg(test)]
mod tests;
