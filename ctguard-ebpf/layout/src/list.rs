//! Allow and deny lists.

/// The lists.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum List {
    /// IPv4 prefixes without a share, with their own grant.
    AllowV4 = 0,
    /// The same for IPv6.
    AllowV6 = 1,
    /// IPv4 prefixes whose packets are dropped.
    DenyV4 = 2,
    /// The same for IPv6.
    DenyV6 = 3,
    /// What feeds allow; the operator's lists go before those of feeds.
    FeedAllowV4 = 4,
    /// The same for IPv6.
    FeedAllowV6 = 5,
    /// What feeds deny; whoever is allowed is not denied by a feed.
    FeedDenyV4 = 6,
    /// The same for IPv6.
    FeedDenyV6 = 7,
}

impl List {
    /// The list's bit in `OperatorLimits::lists_in_use`.
    #[inline(always)]
    pub const fn bit(self) -> u32 {
        1 << self as u32
    }
}

/// One prefix of a list: a value of the longest-prefix maps.
///
/// Keys are the kernel's `bpf_lpm_trie_key`: prefix length in bits as a native `u32`, then the
/// address in network order. Packed to 4 bytes, because the value follows a key of 4 or 16.
#[repr(C, packed(4))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListEntry {
    /// Jiffies at which the entry ends; 0 is never. The data path checks it, but an ended entry
    /// hides a shorter prefix until the daemon removes it, a second later.
    pub expires_at: u64,
}

impl ListEntry {
    /// Most prefixes of a list.
    pub const CAPACITY: u32 = 4096;
}

/// One prefix of the feeds' lists, under the same keys.
///
/// None lies within another that ends as late or later, so an ended entry hides none that holds.
#[repr(C, packed(4))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedEntry {
    /// As [`ListEntry::expires_at`].
    pub expires_at: u64,
    /// A bit for each feed that lists the prefix.
    pub feeds: u32,
}

impl FeedEntry {
    /// Most prefixes of a list.
    pub const CAPACITY: u32 = 1 << 20;
    /// Size of a map: new entries come before those that they replace go. Only entries take memory.
    pub const MAP_CAPACITY: u32 = 2 * Self::CAPACITY;
}

const _: () = assert!(size_of::<FeedEntry>() == 12);

/// Whose deny list a refused packet counts for: its place in the map `refusals`. A feed's place is
/// the number of its bit.
#[derive(Clone, Copy, Debug)]
pub struct Refuser;

impl Refuser {
    /// The operator's own list.
    pub const OPERATOR: u32 = u32::BITS;
    /// All places.
    pub const PLACES: u32 = Self::OPERATOR + 1;

    /// One place for all `feeds` that list the source: that of the lowest number. Without feeds it
    /// is the operator's.
    #[inline(always)]
    pub const fn place(feeds: u32) -> u32 {
        feeds.trailing_zeros()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_packet_counts_once_and_for_the_feed_with_the_lowest_number() {
        for (feeds, place) in [(0b1, 0), (0b1100, 2), (1 << 31, 31), (0, Refuser::OPERATOR)] {
            assert_eq!(Refuser::place(feeds), place, "{feeds:b}");
        }
    }
}
