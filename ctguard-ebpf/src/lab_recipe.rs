//! What the flood generator sends, as it lies in the map `lab_recipe`: written by the tests crate
//! (which includes this file by its path), read for each frame by `lab_flood`.

/// Words of 8 bytes in the shortest frame: IPv4 with TCP or UDP, padded to 64 bytes.
pub const SHORT_FRAME_WORDS: usize = 8;
/// Words of 8 bytes in the longest frame: IPv6 with TCP, padded to 80 bytes.
pub const LONG_FRAME_WORDS: usize = 10;
/// Kinds of frames that one flood can take in turn, a power of two.
pub const STRANDS: usize = 4;
/// Where in a frame the 4 bytes lie that differ between spoofed sources: the whole address of
/// IPv4, the second half of the network part of IPv6 (so each spoofed source has its own /64).
pub const SOURCE_AT: usize = 26;
/// Where the header checksum of IPv4 lies in a frame.
pub const IPV4_CHECKSUM_AT: usize = 24;
/// The lowest source port drawn.
pub const FIRST_PORT: u16 = 1024;

/// One kind of frame. Sums are one's complement sums of 16-bit words as the machine loads them.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Strand {
    /// The whole frame, its source word, source port and checksums still to be filled in.
    pub frame: [u64; LONG_FRAME_WORDS],
    /// The fixed bits of the bytes at [`SOURCE_AT`], in network order.
    pub source: u32,
    /// The random bits of the bytes at [`SOURCE_AT`], in network order.
    pub spoofed: u32,
    /// Sum of the IPv4 header without what is filled in; 0 for IPv6, which has no such checksum.
    pub header_sum: u32,
    /// Sum of pseudo header and transport without what is filled in, the source word left out.
    pub transport_sum: u32,
    /// Where the source port (for ICMP the identifier) lies in the frame.
    pub port_at: u32,
    /// Where the transport's checksum lies in the frame.
    pub checksum_at: u32,
}

/// A whole flood, and the state of the generator that makes it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recipe {
    /// The frames taken in turn.
    pub strands: [Strand; STRANDS],
    /// State of the random numbers (xorshift), never 0.
    pub random: u64,
    /// Frames made, which also says whose turn it is.
    pub turn: u64,
}

const _: () = assert!(STRANDS.is_power_of_two());
const _: () = assert!(size_of::<Strand>() == 104);
const _: () = assert!(size_of::<Recipe>() == STRANDS * 104 + 16);
