//! IPv4 and IPv6 addresses: the only types in which the two families' paths differ.

/// An address as 32-bit words in host order, the first on the wire first.
pub trait Address: Copy + PartialEq {
    /// The address as words.
    type Words: AsRef<[u32]>;
    /// IP version.
    const FAMILY: u32;

    /// The whole address.
    fn words(self) -> Self::Words;

    /// The words as they lie on the wire.
    fn on_the_wire(self) -> Self::Words;

    /// What identifies a source: the whole IPv4 address, or the first 64 bits of an IPv6 address
    /// (one host may use any of the rest, RFC 4291 section 2.5.4).
    fn source_scope(self) -> u64;
}

/// An IPv4 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4(pub u32);

/// An IPv6 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv6(pub [u32; 4]);

impl Ipv6 {
    /// The address from the standard library's type.
    pub fn from_address(address: core::net::Ipv6Addr) -> Self {
        let octets = address.octets();
        let mut parsed = [0; 4];
        for (word, bytes) in parsed.iter_mut().zip(octets.as_chunks().0) {
            *word = u32::from_be_bytes(*bytes);
        }
        Self(parsed)
    }

    /// The address as it lies on the wire.
    #[inline(always)]
    pub fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        for (into, word) in bytes.chunks_exact_mut(4).zip(self.0) {
            into.copy_from_slice(&word.to_be_bytes());
        }
        bytes
    }
}

impl Address for Ipv4 {
    type Words = [u32; 1];
    const FAMILY: u32 = 4;

    #[inline(always)]
    fn words(self) -> [u32; 1] {
        [self.0]
    }

    #[inline(always)]
    fn on_the_wire(self) -> [u32; 1] {
        [self.0.to_be()]
    }

    #[inline(always)]
    fn source_scope(self) -> u64 {
        u64::from(self.0)
    }
}

impl Address for Ipv6 {
    type Words = [u32; 4];
    const FAMILY: u32 = 6;

    #[inline(always)]
    fn words(self) -> [u32; 4] {
        self.0
    }

    #[inline(always)]
    fn on_the_wire(self) -> [u32; 4] {
        self.0.map(u32::to_be)
    }

    #[inline(always)]
    fn source_scope(self) -> u64 {
        u64::from(self.0[0]) << 32 | u64::from(self.0[1])
    }
}
