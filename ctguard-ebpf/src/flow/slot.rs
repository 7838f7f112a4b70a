//! One remembered flow in 64 bits.
//!
//! | bits | what |
//! | --- | --- |
//! | 63–30 | fingerprint: the hash's high 34 bits; with 16 slots looked at, a tuple never seen passes for a known one with a chance of 10^-9 |
//! | 29 | the inside has answered: more than a SYN has left for it |
//! | 28 | closing: a FIN or RST passed |
//! | 27–0 | coarse time at which it ends |

use super::Passing;
use crate::{
    layout::{Environment, FlowKind},
    packet::TcpFlags,
    units::Coarse,
};

const FINGERPRINT: u64 = !0 << 30;
const ANSWERED: u64 = 1 << 29;
const CLOSING: u64 = 1 << 28;
const EXPIRY: u64 = CLOSING - 1;

/// More coarse units than any timeout lasts (12 days), fewer than half the clock.
const LONGEST: u32 = 1 << 20;

/// A slot of the flow cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot(pub(super) u64);

impl Slot {
    /// A slot for the flow of this hash, not yet alive.
    #[inline(always)]
    pub(super) const fn new(hash: u64) -> Self {
        Self(hash & FINGERPRINT)
    }

    /// Whether the slot is that of this hash's flow.
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

    /// Coarse units until it ends, negative when it has ended. An empty slot ended when the clock
    /// read zero.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "28 bits are moved to the top of 32")]
    pub(super) const fn lifetime(self, now: Coarse) -> i64 {
        let left = (self.0 as u32).wrapping_sub(now.0) << 4;
        (left.cast_signed() >> 4) as i64
    }

    /// Neither answered nor closing.
    #[inline(always)]
    pub(super) const fn is_opening(self) -> bool {
        self.0 & (ANSWERED | CLOSING) == 0
    }

    /// The slot after a packet of its flow has passed.
    ///
    /// A TCP flow counts as established once the inside has sent more than a SYN: a spoofed SYN
    /// and a blind ACK after it get no such answer, so they are not remembered for days.
    #[inline(always)]
    pub(super) const fn after(
        self,
        environment: &Environment,
        passing: Passing,
        now: Coarse,
    ) -> Self {
        let flags = passing.flags;
        let mut state = self.0 & (ANSWERED | CLOSING);
        if passing.leaving && flags.any(TcpFlags::ACK) && !flags.any(TcpFlags::SYN) {
            state |= ANSWERED;
        }
        if flags.any(TcpFlags::FIN | TcpFlags::RST) {
            state |= CLOSING;
        }
        let timeout = if flags.any(TcpFlags::RST) {
            environment.flow_timeout(FlowKind::TcpReset)
        } else {
            environment.flow_timeout_in(passing.kind, state_number(state))
        };
        let expiry = now.0.wrapping_add(timeout);
        Self(self.0 & FINGERPRINT | state | expiry as u64 & EXPIRY)
    }
}

/// The two bits of the state as a number below four.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "two bits are left")]
const fn state_number(state: u64) -> u32 {
    (state / CLOSING) as u32
}
