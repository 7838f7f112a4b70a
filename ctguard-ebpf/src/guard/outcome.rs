//! What became of a packet, and what was learnt on the way.

use crate::{
    admission::Refusal,
    layout::{Class, Tier},
    packet::Malformed,
};

/// What conntrack says of a packet's flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It has an entry of the flow, so the packet makes none.
    Tracked,
    /// It has none.
    Untracked,
    /// It does not say.
    Silent,
}

/// A new flow that was offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offered {
    /// The source, as its scope has it.
    pub address: u64,
    /// 4 or 6.
    pub family: u32,
    /// Its class.
    pub class: Class,
    /// It was refused.
    pub refused: bool,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Not ours, or never judged.
    Exempt,
    /// For another station.
    NotOurs,
    /// On an interface that has no slot.
    UnknownInterface,
    /// Of a flow that conntrack knows.
    Known,
    /// A SYN sent again.
    Repeated,
    /// Makes no entry.
    MakesNoEntry,
    /// A later fragment.
    LaterFragment,
    /// A first fragment to be dropped.
    TinyFragment,
    /// Not to be parsed.
    Malformed(Malformed),
    /// From a denied source.
    Denied(Class),
    /// A new flow, admitted.
    Admitted(Class, Tier),
    /// A new flow, refused.
    Refused(Class, Refusal),
}

/// An outcome, and whether the daemon shall be woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// What became of the packet.
    pub outcome: Outcome,
    /// The grant is nearly spent.
    pub wake: bool,
}

impl From<Outcome> for Judgement {
    #[inline(always)]
    fn from(outcome: Outcome) -> Self {
        Self { outcome, wake: false }
    }
}
