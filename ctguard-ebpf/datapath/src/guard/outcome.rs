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

/// How a new flow of a stranger is challenged.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// By an ACK that is sent back in place of its SYN.
    Ack,
    /// By silence: it is to come again.
    Retry,
}

/// What a packet is that rests on an admission of its tuple.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Vouched {
    /// It rests on none.
    No = 0,
    /// It goes on with the flow.
    Known = 1,
    /// It is the SYN, sent again.
    Repeated = 2,
}

/// What was decided on a packet that would open a flow, as a number: while it is hidden from the
/// verifier (see `blur`), all that follows is walked once.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Admitted = 0,
    /// As [`Vouched::Known`] and [`Vouched::Repeated`], whose numbers these are.
    Known = Vouched::Known as u32,
    Repeated = Vouched::Repeated as u32,
    UnknownInterface = 3,
    Source = 4,
    Prefix = 5,
    Service = 6,
    Challenge = 7,
    Grant = 8,
    Fallback = 9,
    Asked = 10,
    ToComeAgain = 11,
}

impl Decision {
    /// The number of a refusal.
    #[inline(always)]
    pub(super) const fn refused(refusal: Refusal) -> u32 {
        let decision = match refusal {
            Refusal::Source => Self::Source,
            Refusal::Prefix => Self::Prefix,
            Refusal::Service => Self::Service,
            Refusal::Challenge => Self::Challenge,
            Refusal::Grant => Self::Grant,
            Refusal::Fallback => Self::Fallback,
        };
        decision as u32
    }

    /// What comes of the decision of this number, on a packet of this class in this tier.
    #[inline(always)]
    pub(super) const fn packed(number: u32, class: u32, tier: u32) -> Packed {
        let (kind, detail) = match number {
            0 => (Packed::ADMITTED, tier),
            1 => (Packed::KNOWN, 0),
            2 => (Packed::REPEATED, 0),
            3 => (Packed::UNKNOWN_INTERFACE, 0),
            4 => (Packed::REFUSED, Refusal::Source as u32),
            5 => (Packed::REFUSED, Refusal::Prefix as u32),
            6 => (Packed::REFUSED, Refusal::Service as u32),
            7 => (Packed::REFUSED, Refusal::Challenge as u32),
            8 => (Packed::REFUSED, Refusal::Grant as u32),
            9 => (Packed::REFUSED, Refusal::Fallback as u32),
            10 => (Packed::CHALLENGED, Challenge::Ack as u32),
            _ => (Packed::CHALLENGED, Challenge::Retry as u32),
        };
        Packed(kind | class << 8 | detail << 16)
    }
}

/// A [`Judgement`] in one word: of an enum's other variants LLVM would carry registers that were
/// never set, which the verifier refuses to see stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Packed(u32);

impl Packed {
    /// Nothing is decided yet.
    pub(super) const UNDECIDED: Self = Self(0);
    const EXEMPT: u32 = 1;
    const NOT_OURS: u32 = 2;
    const UNKNOWN_INTERFACE: u32 = 3;
    const KNOWN: u32 = 4;
    const REPEATED: u32 = 5;
    const MAKES_NO_ENTRY: u32 = 6;
    const LATER_FRAGMENT: u32 = 7;
    const TINY_FRAGMENT: u32 = 8;
    const MALFORMED: u32 = 9;
    const DENIED: u32 = 10;
    const ADMITTED: u32 = 11;
    const REFUSED: u32 = 12;
    const CHALLENGED: u32 = 13;
    const ANSWERED: u32 = 14;
    const WAKE: u32 = 1 << 31;

    #[inline(always)]
    pub(super) const fn of(outcome: Outcome) -> Self {
        let (kind, class, detail) = match outcome {
            Outcome::Exempt => (Self::EXEMPT, 0, 0),
            Outcome::NotOurs => (Self::NOT_OURS, 0, 0),
            Outcome::UnknownInterface => (Self::UNKNOWN_INTERFACE, 0, 0),
            Outcome::Known => (Self::KNOWN, 0, 0),
            Outcome::Repeated => (Self::REPEATED, 0, 0),
            Outcome::MakesNoEntry => (Self::MAKES_NO_ENTRY, 0, 0),
            Outcome::LaterFragment => (Self::LATER_FRAGMENT, 0, 0),
            Outcome::TinyFragment => (Self::TINY_FRAGMENT, 0, 0),
            Outcome::Malformed(reason) => (Self::MALFORMED, 0, reason as u32),
            Outcome::Denied(class) => (Self::DENIED, class as u32, 0),
            Outcome::Admitted(class, tier) => (Self::ADMITTED, class as u32, tier as u32),
            Outcome::Refused(class, refusal) => (Self::REFUSED, class as u32, refusal as u32),
            Outcome::Challenged(class, challenge) => {
                (Self::CHALLENGED, class as u32, challenge as u32)
            }
            Outcome::ChallengeAnswered => (Self::ANSWERED, 0, 0),
        };
        Self(kind | class << 8 | detail << 16)
    }

    /// The same, and the daemon shall be woken if `wake` is 1.
    #[inline(always)]
    pub(super) const fn waking(self, wake: u32) -> Self {
        Self(self.0 | wake << 31)
    }

    /// What was packed.
    #[inline(always)]
    pub(super) const fn unpack(self) -> Judgement {
        let class = Class::from_number(self.0 >> 8 & 0xff);
        let detail = self.0 >> 16 & 0xff;
        let outcome = match self.0 & 0xff {
            Self::EXEMPT => Outcome::Exempt,
            Self::NOT_OURS => Outcome::NotOurs,
            Self::KNOWN => Outcome::Known,
            Self::REPEATED => Outcome::Repeated,
            Self::MAKES_NO_ENTRY => Outcome::MakesNoEntry,
            Self::LATER_FRAGMENT => Outcome::LaterFragment,
            Self::TINY_FRAGMENT => Outcome::TinyFragment,
            Self::MALFORMED => Outcome::Malformed(Malformed::from_number(detail)),
            Self::DENIED => Outcome::Denied(class),
            Self::ADMITTED => Outcome::Admitted(class, Tier::from_number(detail)),
            Self::REFUSED => Outcome::Refused(class, Refusal::from_number(detail)),
            Self::CHALLENGED if detail == Challenge::Ack as u32 => {
                Outcome::Challenged(class, Challenge::Ack)
            }
            Self::CHALLENGED => Outcome::Challenged(class, Challenge::Retry),
            Self::ANSWERED => Outcome::ChallengeAnswered,
            _ => Outcome::UnknownInterface,
        };
        Judgement { outcome, wake: self.0 & Self::WAKE != 0 }
    }
}

/// What became of a packet.
///
/// In words, as what it is made of: narrower parts the compiler packs into a register with what
/// happens to be in it, and the verifier allows no such thing with a pointer.
#[repr(u32)]
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
    /// A new flow, challenged.
    Challenged(Class, Challenge),
    /// A RST that answered a challenge.
    ChallengeAnswered,
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
