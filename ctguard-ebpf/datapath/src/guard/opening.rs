//! A packet that asks to open a flow.

use crate::{layout::Outcome, packet::TcpFlags};

/// A packet that asks to open a flow, or a RST.
///
/// It goes through the workspace to what decides on it, so that the verifier walks that once (see
/// `verifier`); hence class, tier and kind are numbers.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(super) struct Opening {
    /// Its tuple; if that is not known, the source alone.
    pub(super) tuple: Tuple,
    /// The number of a [`crate::layout::Class`].
    pub(super) class: u32,
    /// The number of [`crate::layout::Tier::Allowed`], or of the strangers until more is known.
    pub(super) tier: u32,
    /// Its outcome if nothing refuses it. [`Outcome::Known`] and [`Outcome::Repeated`] rest on an
    /// admission of the tuple.
    pub(super) passes_as: Outcome,
    /// Whether the tuple is known.
    pub(super) has_tuple: bool,
    /// Whether a live connection has its tuple.
    pub(super) outlasts: bool,
    /// Whether it is a RST and opens nothing.
    pub(super) is_reset: bool,
}

/// The tuple of a packet. Its family is a number, so that the program has what follows once.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(super) struct Tuple {
    /// What its source is told by.
    pub(super) scope: u64,
    pub(super) hash: u64,
    /// Hash of the service asked for, where services have limits.
    pub(super) service: u64,
    /// Its key (see [`crate::classify::Flow::key`]).
    pub(super) key: u32,
    pub(super) family: u32,
    /// The number of its [`crate::layout::FlowKind`].
    pub(super) kind: u32,
    pub(super) flags: TcpFlags,
    /// Of TCP.
    pub(super) sequence: u32,
}

impl Opening {
    /// Whether it rests on an admission of its tuple. Its source is not charged again, but it takes
    /// one from the grant, because the packet that was admitted may never have reached conntrack.
    #[inline(always)]
    pub(super) fn rests_on_admission(&self) -> bool {
        self.passes_as != Outcome::Admitted
    }
}

impl Tuple {
    /// A SYN without ACK; other segments of TCP that open a flow have ACK.
    #[inline(always)]
    pub(super) const fn is_syn(&self) -> bool {
        self.flags.any(TcpFlags::SYN) && !self.flags.any(TcpFlags::ACK)
    }
}
