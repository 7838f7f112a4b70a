//! The grant: how many new flows the data path may admit, as absolute numbers.
//!
//! The data path counts admissions A and admits only while A < G. The daemon writes
//! G = A + headroom, so a late write cannot admit more than the headroom that the daemon saw.

use crate::shared::Shared;

/// How a source is served; each tier has its own A and G. While all classes are calm and the
/// strangers' grant is not spent, all sources but the allowed ones count as strangers.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// Everybody.
    Strangers = 0,
    /// Sources on the allow list.
    Allowed = 1,
    /// Sources that have held connections on many days.
    Regulars = 2,
    /// Sources that completed a handshake in the last minutes.
    Proven = 3,
    /// A tuple that answered a challenge ACK.
    Answered = 4,
    /// A tuple that was refused a moment ago and came again.
    Retried = 5,
    /// Sources that were proven before the guard left calm.
    Earlier = 6,
    /// Known sources that hold more than their part of the table.
    AbovePart = 7,
}

/// Number of tiers.
pub const TIERS: usize = 8;

/// Length of arrays by tier: a power of two, so that a mask bounds the index.
pub const TIER_SLOTS: usize = 8;

impl Tier {
    /// Every tier, in the order of the maps' arrays.
    pub const ALL: [Self; TIERS] = [
        Self::Strangers,
        Self::Allowed,
        Self::Regulars,
        Self::Proven,
        Self::Answered,
        Self::Retried,
        Self::Earlier,
        Self::AbovePart,
    ];

    /// Its place in arrays by tier.
    #[inline(always)]
    pub const fn slot(self) -> usize {
        self as usize & (TIER_SLOTS - 1)
    }

    /// Its name in labels and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Strangers => "strangers",
            Self::Allowed => "allowed",
            Self::Regulars => "regulars",
            Self::Proven => "proven",
            Self::Answered => "answered",
            Self::Retried => "retried",
            Self::Earlier => "earlier",
            Self::AbovePart => "above-part",
        }
    }
}

/// One tier's grant, written by the daemon.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Allowance {
    /// G: admissions since the maps were made at which no more flows are admitted.
    pub limit: Shared,
    /// Admissions at which the daemon is woken for another grant; below `limit`.
    pub wake_at: Shared,
}

/// A GCRA for the whole table: it replaces one tier's grant while the heartbeat is old.
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

/// Who asked for the grant of the tier *retried*, by evidence: a sender's third packet, or its second
/// from the same port; written by the data path (see `admission::grant`).
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct RetriedShares {
    /// G when a packet last looked.
    pub limit: Shared,
    /// What was left then.
    pub left: Shared,
    /// How many have asked since.
    pub asked: [Shared; 2],
    /// How many are expected to ask before G changes again.
    pub expected: [Shared; 2],
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
    pub admitted: [Admissions; TIER_SLOTS],
    /// G and its wake-up mark, by [`Tier`]; written by the daemon.
    pub allowances: [Allowance; TIER_SLOTS],
    /// Jiffies of the daemon's last tick.
    pub heartbeat: Shared,
    /// Jiffies of the last wake-up for a spent grant; written by the data path.
    pub woken_at: Shared,
    /// Jiffies of the last challenge ACK; written by the data path, which looks for answers only for
    /// a while afterwards.
    pub challenged_at: Shared,
    /// The rate of new flows that no other limit holds (see `classify::exempt`).
    pub exempt: Fallback,
    /// Challenges answered in this unit of the times of retries: the unit's number, then theirs (see
    /// `challenge::budget`).
    pub answers: Shared,
    /// Zero.
    pub reserved: u64,
    /// The fallback rates, by [`Tier`].
    pub fallback: [Fallback; TIER_SLOTS],
    /// How the grant of the tier *retried* is shared.
    pub retried: RetriedShares,
}

impl Grant {
    /// A, by tier.
    pub fn admissions(&self) -> [u64; TIERS] {
        Tier::ALL.map(|tier| self.admitted[tier.slot()].0.load())
    }

    /// G, by tier.
    pub fn limits(&self) -> [u64; TIERS] {
        Tier::ALL.map(|tier| self.allowances[tier.slot()].limit.load())
    }
}

const _: () = assert!(size_of::<Grant>() == 960);
const _: () = assert!(core::mem::offset_of!(Grant, allowances) == 512);
const _: () = assert!(core::mem::offset_of!(Grant, fallback) == 704);
