//! What the operator set. Written by the command line, read by the data path and the daemon.

/// Kinds of new flows that have limits and a stage of their own.
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

/// Length of what the data path keeps by class: a power of two, so that a mask finds the place. The
/// last is not used.
pub const CLASS_SLOTS: usize = 4;

impl Class {
    /// Every class, in the order of the maps' arrays.
    pub const ALL: [Self; CLASSES] = [Self::Tcp, Self::Udp, Self::Other];

    /// Where the class of this number lies in what the data path keeps by class.
    #[inline(always)]
    #[must_use]
    pub const fn slot(number: u32) -> usize {
        number as usize & (CLASS_SLOTS - 1)
    }

    /// The class of this number.
    #[inline(always)]
    #[must_use]
    pub const fn from_number(number: u32) -> Self {
        match number {
            0 => Self::Tcp,
            1 => Self::Udp,
            _ => Self::Other,
        }
    }

    /// Its name in keys, labels and JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Other => "other",
        }
    }
}

/// A rate and the burst above it that is let through.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    /// New flows a second; 0 stands for "not set".
    pub flows_per_second: u32,
    /// New flows that may come at once; 0 stands for "not set".
    pub burst: u32,
}

/// The `policy` map's only value.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// [`super::LAYOUT_VERSION`] of who made the maps; stays the first word in every version.
    pub layout_version: u32,
    /// [`Policy::DRY_RUN`], [`Policy::FAIL_OPEN`], [`Policy::NO_RECLAIM`].
    pub switches: u32,
    /// Target fill in parts per million of the table's maximum.
    pub target_ppm: u32,
    /// Ceilings per source, by [`Class`].
    pub source: [Rate; CLASSES],
    /// New flows a second for the whole table while no daemon lives; 0: target · max / 120 s.
    pub fallback_flows_per_second: u32,
    /// Fair shares below which strangers of a class are challenged, in new flows a second.
    pub floor: [u32; CLASSES],
    /// Limits per prefix (IPv4 /24, IPv6 /48), by [`Class`]; off where not set.
    pub prefix: [Rate; CLASSES],
    /// Limits per service (destination address, protocol, port), by [`Class`]; off where not set.
    pub service: [Rate; CLASSES],
    /// Adaptive timeouts: fill at which they begin and end, in parts per million; 0 is off.
    pub adaptive_ppm: [u32; 2],
    /// Zero.
    pub reserved: [u32; 2],
}

impl Policy {
    /// Decide everything, drop nothing.
    pub const DRY_RUN: u32 = 1;
    /// Without a living daemon, let every new flow pass that its source's ceiling allows.
    pub const FAIL_OPEN: u32 = 2;
    /// Delete no entries from a table that is above its target.
    pub const NO_RECLAIM: u32 = 4;

    /// Whether `switch` is on.
    #[inline(always)]
    #[must_use]
    pub const fn has(&self, switch: u32) -> bool {
        self.switches & switch != 0
    }
}

const _: () = assert!(size_of::<Policy>() == 120);
