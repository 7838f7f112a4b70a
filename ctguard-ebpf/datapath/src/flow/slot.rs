//! One remembered flow in 64 bits.
//!
//! | bits | what |
//! | --- | --- |
//! | 63–30 | fingerprint: the hash's high 34 bits; a lookup compares 16 slots, so an unseen tuple matches with a chance of 10^-9 |
//! | 29 | answered: the inside has opened the flow or sent data for it, so conntrack has its entry |
//! | 28 | closing: a FIN or RST passed |
//! | 27–0 | coarse time at which it ends |
//!
//! The admission alone does not prove that conntrack has the entry: the packet may have died on its
//! way.

use super::Passing;
use crate::{
    layout::{Environment, FlowKind},
    packet::TcpFlags,
    units::Coarse,
    verifier::sign,
};

const FINGERPRINT: u64 = !0 << 30;
const ANSWERED: u64 = 1 << 29;
const CLOSING: u64 = 1 << 28;
const EXPIRY: u64 = CLOSING - 1;

/// The longest timeout: 12 days.
const LONGEST: u32 = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot(pub(super) u64);

impl Slot {
    /// The slot of a flow that `passing` opens now.
    #[inline(always)]
    pub(super) const fn opened(
        hash: u64,
        environment: &Environment,
        passing: Passing,
        now: Coarse,
    ) -> Self {
        let state = state_after(0, passing);
        Self::ending(hash, state, now, timeout(environment, passing, state))
    }

    #[inline(always)]
    const fn ending(fingerprint: u64, state: u64, now: Coarse, timeout: u32) -> Self {
        let expiry = now.0.wrapping_add(timeout) as u64;
        Self(fingerprint & FINGERPRINT | state | expiry & EXPIRY)
    }

    /// The same, ending in at most `life` coarse units.
    pub(super) fn ending_within(self, life: u32, now: Coarse) -> Self {
        let state = self.0 & (ANSWERED | CLOSING);
        Self::ending(self.0, state, now, self.remaining(now).min(life))
    }

    #[inline(always)]
    pub(super) const fn is_of(self, hash: u64) -> bool {
        (self.0 ^ hash) & FINGERPRINT == 0
    }

    /// Coarse units until it ends; 0 when it has ended.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the mask leaves 28 bits")]
    pub(super) const fn remaining(self, now: Coarse) -> u32 {
        let left = (self.0 as u32).wrapping_sub(now.0) & EXPIRY as u32;
        if left <= LONGEST { left } else { 0 }
    }

    /// The same without a branch; negative when it has ended.
    #[inline(always)]
    pub(super) fn lifetime(self, now: Coarse) -> i64 {
        let left = (self.0.wrapping_sub(u64::from(now.0)) & EXPIRY).cast_signed();
        let ended = !sign(left - i64::from(LONGEST) - 1);
        left - (ended & CLOSING.cast_signed())
    }

    #[inline(always)]
    pub(super) const fn is_opening(self) -> bool {
        self.0 & (ANSWERED | CLOSING) == 0
    }

    #[inline(always)]
    pub(crate) const fn is_answered(self) -> bool {
        self.0 & ANSWERED != 0
    }

    /// Answered and not closing.
    #[inline(always)]
    pub(crate) const fn is_established(self) -> bool {
        self.0 & (ANSWERED | CLOSING) == ANSWERED
    }

    /// Established and already prolonged in this coarse unit, as nearly every packet finds it: the
    /// packet changes nothing.
    #[inline(always)]
    pub(crate) const fn is_fresh(self, environment: &Environment, kind: u32, now: Coarse) -> bool {
        let timeout = environment.flow_timeout_at(kind, state_number(ANSWERED));
        self.0 == Self::ending(self.0, ANSWERED, now, timeout).0
    }

    /// The slot after a packet of its flow has passed.
    ///
    /// A packet that arrives prolongs only an established flow: of others conntrack may have no
    /// entry, or one that the packet does not refresh.
    #[inline(always)]
    pub(super) const fn after(
        self,
        environment: &Environment,
        passing: Passing,
        now: Coarse,
    ) -> Self {
        let state = state_after(self.0 & (ANSWERED | CLOSING), passing);
        let mut timeout = timeout(environment, passing, state);
        if !passing.leaving && state != ANSWERED {
            let remaining = self.remaining(now);
            timeout = if remaining < timeout { remaining } else { timeout };
        }
        Self::ending(self.0, state, now, timeout)
    }
}

#[inline(always)]
const fn state_after(mut state: u64, passing: Passing) -> u64 {
    if passing.answers {
        state |= ANSWERED;
    }
    if passing.flags.any(TcpFlags::FIN | TcpFlags::RST) {
        state |= CLOSING;
    }
    if passing.flags.any(TcpFlags::RST) {
        // It may delete conntrack's entry at once (`nf_conntrack_tcp_packet`).
        state &= !ANSWERED;
    }
    state
}

#[inline(always)]
const fn timeout(environment: &Environment, passing: Passing, state: u64) -> u32 {
    if passing.flags.any(TcpFlags::RST) {
        environment.flow_timeout(FlowKind::TcpReset)
    } else if passing.flags.any(TcpFlags::SYN) {
        environment.flow_timeout_at(passing.kind, 0)
    } else {
        environment.flow_timeout_at(passing.kind, state_number(state))
    }
}

/// The two bits of the state as a number below four.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "two bits are left")]
const fn state_number(state: u64) -> u32 {
    (state / CLOSING) as u32
}
