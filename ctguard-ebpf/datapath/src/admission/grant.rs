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
    // Jiffies of 64 bits do not wrap.
    let patience = u64::from(environment.daemon.heartbeat_patience_jiffies);
    if now.0 > grant.heartbeat.load().wrapping_add(patience) {
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

#[cfg(test)]
mod tests {
    use super::*;

    const RETRIED: usize = Tier::Retried.slot();

    fn may_take(grant: &Grant, evidence: u32) -> bool {
        leaves(grant, evidence, OpaqueZero::new(0))
    }

    fn expected(grant: &Grant) -> [u64; 2] {
        [0, 1].map(|better: usize| grant.retried.expected[better].load())
    }

    /// Fails when a moment without packets is taken for the end of them, or their end is not noticed.
    #[test]
    fn a_quarter_more_than_was_asked_for_is_expected_and_an_eighth_less_after_each_grant_without() {
        let grant = Grant::default();
        let renew = |limit| {
            grant.allowances[RETRIED].limit.store(limit);
            may_take(&grant, evidence::OTHER_PORT);
            expected(&grant)
        };
        assert_eq!(renew(100), [0, 0]);
        (0..16).for_each(|_| assert!(may_take(&grant, evidence::THIRD)));
        (0..8).for_each(|_| assert!(may_take(&grant, evidence::SAME_PORT)));
        assert_eq!(renew(200), [20, 10]);
        assert_eq!(renew(300), [17, 8]);
        assert_eq!(renew(400), [14, 7], "packets with other ports are not counted");
        (5..50).for_each(|tick| assert!(renew(tick * 100) < [14, 7]));
        assert_eq!(expected(&grant), [0, 0]);
    }

    /// Fails when who repeats addresses takes what senders with better evidence ask for, or when
    /// these keep out all others.
    #[test]
    fn better_evidence_finds_what_it_is_expected_to_ask_for_up_to_a_part_of_the_grant() {
        let grant = Grant::default();
        grant.allowances[RETRIED].limit.store(1000);
        grant.retried.limit.store(1000);
        grant.retried.left.store(100);
        let refused_from = |expected: [u64; 2], evidence| {
            grant.retried.expected.iter().zip(expected).for_each(|(it, flows)| it.store(flows));
            (900..1100_u64).find(|admitted| {
                grant.admitted[RETRIED].0.store(*admitted);
                !may_take(&grant, evidence)
            })
        };
        let few = |evidence| refused_from([20, 10], evidence);
        assert_eq!(few(evidence::THIRD), Some(1000));
        assert_eq!(few(evidence::SAME_PORT), Some(980));
        assert_eq!(few(evidence::OTHER_PORT), Some(970));
        let many = |evidence| refused_from([80, 80], evidence);
        assert_eq!(many(evidence::THIRD), Some(1000));
        assert_eq!(many(evidence::SAME_PORT), Some(950));
        assert_eq!(many(evidence::OTHER_PORT), Some(925));
    }
}
