//! What the operator set: written by the command line, read by the data path and the daemon.

/// Classes of new flows, each with its own limits and stage.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// TCP: a SYN, or an ACK of no known connection while `nf_conntrack_tcp_loose` is on.
    Tcp = 0,
    /// UDP.
    Udp = 1,
    /// ICMP requests and every other protocol.
    Other = 2,
}

/// Number of classes.
pub const CLASSES: usize = 3;

/// Length of arrays by class: a power of two, so that a mask bounds the index. Only a source's
/// cells use the last (see [`Class::ANSWERED`]).
pub const CLASS_SLOTS: usize = 4;

impl Class {
    /// Every class, in the order of the maps' arrays.
    pub const ALL: [Self; CLASSES] = [Self::Tcp, Self::Udp, Self::Other];

    /// The number, in place of TCP's, of the cells of a source's flows that answered a challenge.
    pub const ANSWERED: u32 = 3;

    /// The same of SYNs that came again. No known source has such cells of its own.
    pub const RETRIED: u32 = 4;

    /// The place of the class of this number in arrays by class.
    #[inline(always)]
    pub const fn slot(number: u32) -> usize {
        number as usize & (CLASS_SLOTS - 1)
    }

    /// The class of this number.
    #[inline(always)]
    pub const fn from_number(number: u32) -> Self {
        match number {
            0 => Self::Tcp,
            1 => Self::Udp,
            _ => Self::Other,
        }
    }

    /// Its name in keys, labels and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Other => "other",
        }
    }
}

/// A rate and its burst.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    /// New flows a second; 0 is not set.
    pub flows_per_second: u32,
    /// New flows that may come at once; 0 is not set.
    pub burst: u32,
}

/// The `policy` map's only value.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// [`super::LAYOUT_VERSION`] of the maps; stays the first word in every version.
    pub layout_version: u32,
    /// [`Policy::DRY_RUN`], [`Policy::FAIL_OPEN`], [`Policy::NO_RECLAIM`], [`Policy::DNS`].
    pub switches: u32,
    /// Target fill in parts per million of the table's maximum.
    pub target_ppm: u32,
    /// Ceilings per source, by [`Class`]. Those that the operator did not set are defaults (see
    /// [`Policy::own_ceilings`]), which hold only outside calm, for sources that are not known.
    pub source: [Rate; CLASSES],
    /// New flows a second for the whole table while the daemon is dead; 0 is target · max / 120 s.
    pub fallback_flows_per_second: u32,
    /// Fair shares below which strangers of a class are challenged, in new flows a second.
    pub floor: [u32; CLASSES],
    /// Limits per prefix (IPv4 /24, IPv6 /48), by [`Class`]; off where not set.
    pub prefix: [Rate; CLASSES],
    /// Limits per service (destination address, protocol, port), by [`Class`]; off where not set.
    pub service: [Rate; CLASSES],
    /// Adaptive timeouts: fill at which they begin and end, in parts per million; 0 is off.
    pub adaptive_ppm: [u32; 2],
    /// Seconds without a packet after which an entry may be reclaimed, by class; 0 is never.
    pub reclaim_after: [u32; 6],
    /// The ceilings that the operator set, by class: a bit for the rate, and one
    /// [`CLASS_SLOTS`] higher for the burst.
    pub own_ceilings: u32,
    /// Challenges answered per second in all; 0 is half of what the links carry.
    pub answers_per_second: u32,
    /// Seconds above its part after which a source is denied; 0 is never.
    pub overload_after: u32,
    /// For how many seconds.
    pub overload_for: u32,
}

impl Policy {
    /// Count what would be dropped, and drop nothing.
    pub const DRY_RUN: u32 = 1;
    /// While the daemon is dead, admit every new flow within its source's ceiling.
    pub const FAIL_OPEN: u32 = 2;
    /// Do not reclaim.
    pub const NO_RECLAIM: u32 = 4;
    /// Answer challenged DNS queries by truncated replies.
    pub const DNS: u32 = 8;

    /// The bit of `own_ceilings` for a class's rate, or its burst.
    pub const fn ceiling_bit(class: usize, is_burst: bool) -> u32 {
        1 << (class + if is_burst { CLASS_SLOTS } else { 0 })
    }

    /// Whether the operator set the rate or the burst of a class's ceiling.
    pub const fn has_own_ceiling(&self, class: usize) -> bool {
        let bits = Self::ceiling_bit(class, false) | Self::ceiling_bit(class, true);
        self.own_ceilings & bits != 0
    }

    /// Whether `switch` is on.
    #[inline(always)]
    pub const fn has(&self, switch: u32) -> bool {
        self.switches & switch != 0
    }
}

const _: () = assert!(size_of::<Policy>() == 152);
