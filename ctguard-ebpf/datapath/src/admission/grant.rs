//! The grant: admissions A pass only while A < G; without a daemon, a rate instead.

use super::{Admission, Candidate};
use crate::{
    bucket::gcra,
    layout::{Ceiling, Environment, Fallback, Grant, Outcome, Policy, TIER_SLOTS, Tier},
    retries::evidence,
    units::{Jiffies, Ticks},
    verifier::OpaqueZero,
};

/// What is left of a tier's grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Allowance {
    Left,
    Spent,
    /// The daemon is dead; the fallback rate holds.
    Fallback,
    /// The daemon is dead, and the fallback rate admits nothing now.
    FallbackSpent,
}

impl Allowance {
    #[inline(always)]
    pub(crate) const fn is_spent(self) -> bool {
        matches!(self, Self::Spent | Self::FallbackSpent)
    }

    /// Whether the daemon lives, so that grants hold.
    #[inline(always)]
    pub(crate) const fn is_of_daemon(self) -> bool {
        matches!(self, Self::Left | Self::Spent)
    }
}

/// Looks at a tier's grant, so that refusals cost no locked instruction.
///
/// CPUs that look at the same moment may take one admission each beyond G; the daemon keeps back
/// one for every CPU.
#[inline(always)]
pub(crate) fn peek(
    grant: &Grant,
    tier: u32,
    environment: &Environment,
    policy: &Policy,
    now: Jiffies,
) -> Allowance {
    let position = tier as usize % TIER_SLOTS;
    let heartbeat = Jiffies(grant.heartbeat.load());
    if now.since(heartbeat) > u64::from(environment.daemon.heartbeat_patience_jiffies) {
        let rate = &grant.fallback[position];
        if policy.has(Policy::FAIL_OPEN) || excess(rate, rate.arrival.load(), now) == 0 {
            Allowance::Fallback
        } else {
            Allowance::FallbackSpent
        }
    } else if grant.admitted[position].0.load() >= grant.allowances[position].limit.load() {
        Allowance::Spent
    } else {
        Allowance::Left
    }
}

/// Whether a packet may take from the retried tier's grant, by its evidence: what packets with better
/// evidence are expected to ask for is left to them, but no more than half of the grant to thirds and
/// three quarters to all with better evidence, so that who repeats addresses cannot keep out others.
#[inline(always)]
pub(crate) fn leaves(grant: &Grant, evidence: u32, zero: OpaqueZero) -> bool {
    let position = Tier::Retried.slot();
    let limit = grant.allowances[position].limit.load();
    let admitted = grant.admitted[position].0.load();
    let shares = &grant.retried;
    if shares.limit.load() != limit {
        shares.limit.store(limit);
        shares.left.store(limit.saturating_sub(admitted));
        for (asked, expected) in shares.asked.iter().zip(&shares.expected) {
            // Falls slowly, so that a moment without packets is not taken for the end of them.
            let before = expected.load();
            let (now, least) = (asked.load() * 5 / 4, before - before.div_ceil(8));
            expected.store(if now > least { now } else { least });
            asked.store(0);
        }
    }
    let [thirds, same_port] = [0, 1].map(|better: usize| shares.expected[better].load());
    let left = shares.left.load();
    let kept = match evidence {
        evidence::THIRD => 0,
        evidence::SAME_PORT => lesser(thirds, left / 2),
        _ => lesser(thirds + same_port, left - left / 4),
    };
    if evidence < evidence::OTHER_PORT {
        // Hidden from LLVM, which would leave out the mask that the verifier of Linux 6.1 needs.
        shares.asked[(zero.hide(evidence) & 1) as usize].fetch_add(1);
    }
    admitted + kept < limit
}

#[inline(always)]
const fn lesser(one: u64, other: u64) -> u64 {
    if one < other { one } else { other }
}

/// Takes one admission from a tier's grant, given what [`peek`] saw. The fallback rate counts only
/// new flows, so packets that follow an admission pass it.
#[inline(always)]
pub(super) fn take(
    grant: &Grant,
    allowance: Allowance,
    candidate: &Candidate<'_>,
    policy: &Policy,
    now: Jiffies,
) -> Admission {
    let position = candidate.tier as usize % TIER_SLOTS;
    let admitted = &grant.admitted[position].0;
    match allowance {
        Allowance::Spent => Admission { outcome: Outcome::RefusedGrant, wake: false },
        Allowance::Left => {
            let before = admitted.fetch_add(1);
            let wake = before == grant.allowances[position].wake_at.load();
            Admission { outcome: Outcome::Admitted, wake }
        }
        Allowance::Fallback | Allowance::FallbackSpent => {
            let passes = candidate.follows_admission
                || policy.has(Policy::FAIL_OPEN)
                || take_rate(&grant.fallback[position], now);
            if passes {
                admitted.fetch_add(1);
            }
            let outcome = if passes { Outcome::Admitted } else { Outcome::RefusedFallback };
            Admission { outcome, wake: false }
        }
    }
}

/// Limits wake-ups to one per jiffy, so that they cost little under a flood that is refused.
#[inline(always)]
pub(crate) fn is_first_in_jiffy(grant: &Grant, now: Jiffies) -> bool {
    let first = grant.woken_at.load() != now.0;
    if first {
        grant.woken_at.store(now.0);
    }
    first
}

/// Takes one flow from a GCRA for the whole table. A CPU that loses the exchange is refused, so the
/// rate holds exactly.
#[inline(always)]
pub(crate) fn take_rate(rate: &Fallback, now: Jiffies) -> bool {
    let arrival = rate.arrival.load();
    if excess(rate, arrival, now) != 0 {
        return false;
    }
    let Ticks(next) = gcra::charged(Ticks(arrival), now.to_ticks(), &ceiling(rate));
    rate.arrival.replace_if(arrival, next)
}

#[inline(always)]
fn excess(rate: &Fallback, arrival: u64, now: Jiffies) -> i64 {
    gcra::excess(Ticks(arrival), now.to_ticks(), &ceiling(rate))
}

#[inline(always)]
fn ceiling(rate: &Fallback) -> Ceiling {
    Ceiling { interval: Ticks(rate.interval.load()), tolerance: Ticks(rate.tolerance.load()) }
}
