//! What the flood generator sends, as it lies in the map `lab_recipe`: written by the tests crate
//! (which includes this file by its path), read for each frame by `lab_flood`.

/// The lengths that frames have, in words of 8 bytes, each frame padded to the next: IPv4 with TCP
/// or UDP; IPv6 with TCP, IPv4 with SCTP; IPv6 with SCTP; IPv6 with 16 extension headers and TCP.
pub const FRAME_WORDS: [usize; 4] = [8, 10, 11, LONGEST_FRAME_WORDS];
/// Words of 8 bytes in the longest frame.
pub const LONGEST_FRAME_WORDS: usize = 26;
/// Kinds of frames that one flood can take in turn, a power of two.
pub const STRANDS: usize = 4;
/// Where the header checksum of IPv4 lies in a frame.
pub const IPV4_CHECKSUM_AT: usize = 24;

/// One kind of frame. Sums are one's complement sums of 16-bit words as the machine loads them.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Strand {
    /// The whole frame, its address word, drawn number and checksums still to be filled in.
    pub frame: [u64; LONGEST_FRAME_WORDS],
    /// The fixed bits of the address word, in network order; of a crowd its first member.
    pub address: u32,
    /// The random bits of the address word, in network order.
    pub spoofed: u32,
    /// Where the address word lies, 4 bytes that differ from frame to frame: a whole address of
    /// IPv4, the second half of the network part of one of IPv6 (so each has its own /64).
    pub address_at: u32,
    /// Members of the crowd that send in turn, each from one port after the other; 0 where
    /// addresses and ports are random.
    pub crowd: u32,
    /// From one member's address word to the next, as a number.
    pub step: u32,
    /// Sum of the IPv4 header without what is filled in; 0 for IPv6, which has no such checksum.
    pub header_sum: u32,
    /// Sum of pseudo header and transport without what is filled in, the address word left out.
    pub transport_sum: u32,
    /// Where the number lies that is drawn for each packet: a port, or the identifier of an echo
    /// request. 0 where the frame has none, though its packet may: its checksum counts it then.
    pub drawn_at: u32,
    /// Where the transport's checksum lies in the frame; 0 where it is elsewhere, or constant.
    pub checksum_at: u32,
    /// The lowest number drawn.
    pub drawn_first: u32,
    /// The highest number drawn.
    pub drawn_last: u32,
    /// [`CONTINUES`], [`WITHOUT_PSEUDO_HEADER`], [`CHALLENGED`], [`HOLDS`].
    pub flags: u32,
    /// Connections that each member holds at most; 0 is any number.
    pub most_held: u32,
    /// Keeps the size a multiple of 8.
    pub padding: u32,
}

/// The frame carries on the packet of the one before: its source and its number are the same.
pub const CONTINUES: u32 = 1;
/// The transport's checksum does not cover the addresses, as in ICMP for IPv4.
pub const WITHOUT_PSEUDO_HEADER: u32 = 2;
/// What is sent again are the frames that were challenged; else each frame of a crowd.
pub const CHALLENGED: u32 = 4;
/// Members hold their connections: the first strand opens them, the second closes them. A
/// connection that is open is not opened again.
pub const HOLDS: u32 = 8;

/// Challenges remembered until their SYN is sent again, a power of two.
pub const CHALLENGES: usize = 1 << 16;
/// Turns after which a connection is not told from another one, a power of two.
pub const TURNS_TOLD_APART: usize = 1 << 23;
/// The most members that a crowd has.
pub const LARGEST_CROWD: usize = 1 << 14;
/// The port of the inside server that completes a crowd's connections and keeps none.
pub const CROWD_PORT: u16 = 7100;
/// The port of the inside server that leaves closing to the client.
pub const HOLD_PORT: u16 = 7200;
/// The sequence number of every SYN.
pub const CLIENT_SEQUENCE: u32 = 1;
/// The sequence number of every SYN-ACK of that server.
pub const SERVER_SEQUENCE: u32 = 0x1000_0000;

/// A whole flood, and the state of the generator that makes it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recipe {
    /// The frames taken in turn.
    pub strands: [Strand; STRANDS],
    /// State of the random numbers (xorshift), never 0.
    pub random: u64,
    /// Frames made for the first time, which also says whose turn it is.
    pub turn: u64,
    /// Frames sent again.
    pub again: u64,
    /// Connections that were closed, if they were open.
    pub closed: u64,
}

const _: () = assert!(STRANDS.is_power_of_two());
const _: () = assert!(CHALLENGES.is_power_of_two() && TURNS_TOLD_APART.is_power_of_two());
const _: () = assert!(size_of::<Strand>() == 264);
const _: () = assert!(size_of::<Recipe>() == STRANDS * 264 + 32);
