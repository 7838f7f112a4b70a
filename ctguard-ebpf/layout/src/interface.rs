//! The settings of one guarded interface.

use super::policy::{CLASS_SLOTS, CLASSES, Rate};
use crate::units::Ticks;

/// Slots of the `interfaces` map. An interface is in slot `ifindex % INTERFACE_SLOTS` or one of the
/// [`INTERFACE_PROBES`] − 1 behind it (wrapping), so the data path needs no hash.
pub const INTERFACE_SLOTS: u32 = 64;

/// Slots in which one interface may be.
pub const INTERFACE_PROBES: u32 = 4;

/// MAC addresses in [`Interface::stations`].
pub const STATIONS: usize = 4;

/// A [`Rate`] in the data path's units.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ceiling {
    /// Time between two flows at the rate.
    pub interval: Ticks,
    /// How far the theoretical arrival time may be ahead: (burst − 1) · interval.
    pub tolerance: Ticks,
}

/// One value of the `interfaces` map; `ifindex` 0 is a free slot. The daemon writes the fields
/// before `ceilings`, the operator the others.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interface {
    /// The kernel's index of the interface.
    pub ifindex: u32,
    /// One of [`Interface::NATIVE`], [`Interface::GENERIC`].
    pub mode: u32,
    /// MAC addresses, as big-endian numbers, of the unicast frames that this network namespace may
    /// track; all others pass. Free places repeat the first. 0 if it may track every frame.
    pub stations: [u64; STATIONS],
    /// Name, ended by zeros.
    pub name: [u8; 16],
    /// The operator's ceilings per source in force here, by class; an interval of 0 is none.
    pub ceilings: [Ceiling; CLASS_SLOTS],
    /// The operator's own ceilings for this interface, by class; zeros where the policy's hold.
    pub overrides: [Rate; CLASSES],
    /// The conntrack zone of packets that arrive here (`CT --zone`); 0 is the default zone.
    pub zone: u32,
    /// 1 if no challenge ACK is sent here; a stranger's SYN must come again instead.
    pub answers_nothing: u32,
}

impl Interface {
    /// The driver runs the program.
    pub const NATIVE: u32 = 1;
    /// The network stack runs the program.
    pub const GENERIC: u32 = 2;
    /// A free slot.
    pub const FREE: Self = Self {
        ifindex: 0,
        mode: 0,
        stations: [0; STATIONS],
        name: [0; 16],
        ceilings: [Ceiling { interval: Ticks(0), tolerance: Ticks(0) }; CLASS_SLOTS],
        overrides: [Rate { flows_per_second: 0, burst: 0 }; CLASSES],
        zone: 0,
        answers_nothing: 0,
    };
}

const _: () = assert!(size_of::<Interface>() == 192);
const _: () = assert!(core::mem::offset_of!(Interface, ceilings) == 56);
