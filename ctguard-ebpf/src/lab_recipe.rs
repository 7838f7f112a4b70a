//! What the flood generator sends, as it lies in the map `lab_recipe`: written by the tests crate
//! (which includes this file by its path), read for each frame by `lab_flood`.

/// The lengths that frames have, in words of 8 bytes, each frame padded to the next: IPv4 with TCP
/// or UDP; IPv6 with TCP, IPv4 with SCTP; IPv6 with SCTP; IPv6 with 16 extension headers and TCP.
pub const FRAME_WORDS: [usize; 4] = [8, 10, 11, LONGEST_FRAME_WORDS];
/// Words of 8 bytes in the longest frame.
pub const LONGEST_FRAME_WORDS: usize = 26;
/// Kinds of frames that one flood can take in turn, a power of two.
pub const STRANDS: usize = 4;
/// Where in a frame the 4 bytes lie that differ between spoofed sources: the whole address of
/// IPv4, the second half of the network part of IPv6 (so each spoofed source has its own /64).
pub const SOURCE_AT: usize = 26;
/// Where the header checksum of IPv4 lies in a frame.
pub const IPV4_CHECKSUM_AT: usize = 24;

/// One kind of frame. Sums are one's complement sums of 16-bit words as the machine loads them.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Strand {
    /// The whole frame, its source word, drawn number and checksums still to be filled in.
    pub frame: [u64; LONGEST_FRAME_WORDS],
    /// The fixed bits of the bytes at [`SOURCE_AT`], in network order.
    pub source: u32,
    /// The random bits of the bytes at [`SOURCE_AT`], in network order.
    pub spoofed: u32,
    /// Sum of the IPv4 header without what is filled in; 0 for IPv6, which has no such checksum.
    pub header_sum: u32,
    /// Sum of pseudo header and transport without what is filled in, the source word left out.
    pub transport_sum: u32,
    /// Where the number lies that is drawn for each packet: a port, or the identifier of an echo
    /// request. 0 where the frame has none, though its packet may: its checksum counts it then.
    pub drawn_at: u32,
    /// Where the transport's checksum lies in the frame; 0 where it is elsewhere, or constant.
    pub checksum_at: u32,
    /// The lowest number drawn.
    pub drawn_first: u16,
    /// The highest number drawn.
    pub drawn_last: u16,
    /// [`CONTINUES`], [`WITHOUT_PSEUDO_HEADER`], or both.
    pub flags: u32,
}

/// The frame carries on the packet of the one before: its source and its number are the same.
pub const CONTINUES: u32 = 1;
/// The transport's checksum does not cover the addresses, as in ICMP for IPv4.
pub const WITHOUT_PSEUDO_HEADER: u32 = 2;

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
const _: () = assert!(size_of::<Strand>() == 240);
const _: () = assert!(size_of::<Recipe>() == STRANDS * 240 + 16);
