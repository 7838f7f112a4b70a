//! Allow and deny lists.

/// The lists; a list's bit in `OperatorLimits::lists_in_use` is `1 << list as u32`.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum List {
    /// IPv4 prefixes that skip shares and have a grant of their own.
    AllowV4 = 0,
    /// The same for IPv6.
    AllowV6 = 1,
    /// IPv4 prefixes of which nothing passes.
    DenyV4 = 2,
    /// The same for IPv6.
    DenyV6 = 3,
}

impl List {
    /// The list's bit in `OperatorLimits::lists_in_use`.
    #[inline(always)]
    #[must_use]
    pub const fn bit(self) -> u32 {
        1 << self as u32
    }
}

/// One prefix of a list: a value of the longest-prefix maps.
///
/// Keys are the kernel's `bpf_lpm_trie_key`: prefix length in bits as a native `u32`, then the
/// address in network order. Packed to 4 bytes, for the value lies behind a key of 4 or 16.
#[repr(C, packed(4))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListEntry {
    /// Jiffies at which the entry ends; 0: never. The data path honours it by itself, but an ended
    /// entry hides a shorter one until the daemon removes it, a second later.
    pub expires_at: u64,
}

impl ListEntry {
    /// Prefixes that a list holds at most.
    pub const CAPACITY: u32 = 4096;
}
