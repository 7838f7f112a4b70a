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

impl Class {
    /// Every class, in the order of the maps' arrays.
    pub const ALL: [Self; CLASSES] = [Self::Tcp, Self::Udp, Self::Other];

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
    /// [`Policy::DRY_RUN`] and [`Policy::FAIL_OPEN`].
    pub switches: u32,
    /// Target fill in parts per million of the table's maximum.
    pub target_ppm: u32,
    /// Ceilings per source, by [`Class`].
    pub source: [Rate; CLASSES],
    /// New flows a second for the whole table while no daemon lives; 0: target · max / 120 s.
    pub fallback_flows_per_second: u32,
    /// Zero.
    pub reserved: [u32; 2],
}

impl Policy {
    /// Decide everything, drop nothing.
    pub const DRY_RUN: u32 = 1;
    /// Without a living daemon, let every new flow pass that its source's ceiling allows.
    pub const FAIL_OPEN: u32 = 2;

    /// Whether `switch` is on.
    #[inline(always)]
    #[must_use]
    pub const fn has(&self, switch: u32) -> bool {
        self.switches & switch != 0
    }
}

const _: () = assert!(size_of::<Policy>() == 48);
