//! The grant: how many new flows the data path may admit, as absolute numbers.
//!
//! The data path counts admissions A and admits only while A < G. The daemon writes
//! G = A + headroom, so a late write can never let more pass than the headroom it saw.

use crate::shared::Shared;

/// Who a new flow is admitted as; each tier has its own admissions and its own grant.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// Everybody.
    Strangers = 0,
    /// Sources on the allow list.
    Allowed = 1,
}

/// Number of tiers.
pub const TIERS: usize = 2;

/// One tier's side of the grant that the daemon writes.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Allowance {
    /// G: admissions (absolute, since the maps were made) at which no more are let in.
    pub limit: Shared,
    /// Admissions at which the daemon is woken for more; below `limit`.
    pub wake_at: Shared,
}

/// What replaces one tier's grant while the heartbeat is old: a GCRA for the whole table.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Fallback {
    /// Theoretical arrival time in ticks; moved by the data path.
    pub arrival: Shared,
    /// Ticks between two flows.
    pub interval: Shared,
    /// How far the arrival time may run ahead, in ticks.
    pub tolerance: Shared,
}

/// A counter alone in its cache line.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct Admissions(pub Shared);

/// The `grant` map's only value.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Grant {
    /// A, by [`Tier`]: new flows admitted since the maps were made; written by the data path.
    pub admitted: [Admissions; TIERS],
    /// G and its wake-up mark, by [`Tier`]; written by the daemon.
    pub allowances: [Allowance; TIERS],
    /// Jiffies of the daemon's last tick.
    pub heartbeat: Shared,
    /// Jiffies at which a spent grant woke the daemon last; written by the data path.
    pub woken_at: Shared,
    /// Zero.
    pub reserved: [u64; 2],
    /// What holds without a daemon, by [`Tier`].
    pub fallback: [Fallback; TIERS],
    /// Zero.
    pub reserved2: [u64; 2],
}

const _: () = assert!(size_of::<Grant>() == 256);
const _: () = assert!(core::mem::offset_of!(Grant, allowances) == 128);
const _: () = assert!(core::mem::offset_of!(Grant, fallback) == 192);
