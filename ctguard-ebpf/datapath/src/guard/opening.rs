//! A packet that asks to open a flow.

use crate::{layout::Outcome, packet::TcpFlags};

/// A packet that asks to open a flow, or a RST.
///
/// It goes through [`super::CpuState`] to the code that decides on it, so that the verifier walks
/// that code once (see `verifier`). Class, tier and kind are numbers for the same reason.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(super) struct Opening {
    /// Only family and scope are set unless `has_tuple`.
    pub(super) tuple: Tuple,
    /// The number of a [`crate::layout::Class`].
    pub(super) class: u32,
    /// The number of [`crate::layout::Tier::Allowed`], or of the strangers until more is known.
    pub(super) tier: u32,
    /// Its outcome if nothing refuses it.
    pub(super) passes_as: Outcome,
    pub(super) has_tuple: bool,
    /// Whether there is a live connection with this tuple.
    pub(super) is_connected: bool,
    /// Whether it is a RST and opens nothing.
    pub(super) is_reset: bool,
    /// Whether the bucket of exempt flows may let it in (see [`crate::classify::is_exempt`]).
    pub(super) is_exempt: bool,
}

/// The tuple of a packet, of either family.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(super) struct Tuple {
    /// See [`crate::packet::Address::source_scope`].
    pub(super) scope: u64,
    pub(super) hash: u64,
    /// Hash of destination address, protocol and port, where services have limits.
    pub(super) service: u64,
    /// See [`crate::classify::Flow::key`].
    pub(super) key: u32,
    pub(super) family: u32,
    /// The number of a [`crate::layout::FlowKind`].
    pub(super) kind: u32,
    pub(super) flags: TcpFlags,
    /// TCP sequence number.
    pub(super) sequence: u32,
}

impl Opening {
    /// Whether its tuple was admitted a moment ago. Its source is not charged again, but it takes
    /// one from the grant, because the packet that was admitted may never have reached conntrack.
    #[inline(always)]
    pub(super) fn follows_admission(&self) -> bool {
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
