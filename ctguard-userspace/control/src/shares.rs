//! Finds which classes to challenge, and the share of each source, from the demands.

use std::time::Duration;

use ctguard_layout::{CLASSES, Class};

use super::{
    ControlPolicy,
    fair_share::fair_shares,
    load::Demands,
    stage::Stages,
    tiers::{Precedence as _, TIERS, Tier},
};
use crate::tuning::TUNING;

/// New flows per second for each source, by tier and class; infinite if only the ceiling holds.
pub(crate) type Shares = [[f64; CLASSES]; TIERS];

pub(crate) const NO_SHARES: Shares = [[f64::INFINITY; CLASSES]; TIERS];

/// Challenges strangers of as few classes as possible, the highest demand first, until the share of
/// the others is at least the policy's floor. Ends challenges that are no longer needed.
///
/// `budget` is the strangers' part of the budget rate in given stages; `may_begin` says which classes
/// may be challenged, and `excess` how many times the rate for which there is room a class asks for.
///
/// Who is challenged over TCP answers within a round trip, so TCP is challenged as soon as it asks for
/// far too much, however few its sources seem.
pub(crate) fn challenge(
    stages: &mut Stages,
    demands: &Demands,
    budget: impl Fn(&Stages) -> f64,
    may_begin: impl Fn(Class) -> bool,
    excess: impl Fn(Class) -> f64,
    policy: &ControlPolicy,
    now: Duration,
) {
    for class in Class::ALL {
        if stages.is_challenged(class) {
            let share = share_if_unchallenged(stages, demands, &budget, class);
            let suffices = share >= TUNING.sufficient_floors * policy.floor(class)
                && excess(class) <= TUNING.excess_ends;
            stages.end_challenge(class, now, suffices, excess(class) <= TUNING.excess_none);
        }
    }
    loop {
        let shares = strangers(stages, demands, budget(stages));
        let short = Class::ALL.into_iter().filter(|&class| {
            let is_overrun = class == Class::Tcp && excess(class) > TUNING.excess_begins;
            !stages.is_challenged(class)
                && may_begin(class)
                && (shares[class as usize] < policy.floor(class) || is_overrun)
        });
        let asked = |class: &Class| demands.total(Tier::Strangers, *class);
        let Some(class) = short.max_by(|one, other| asked(one).total_cmp(&asked(other))) else {
            break;
        };
        stages.challenge(class);
    }
}

/// The share of each stranger of a class, if that class were not challenged.
pub(crate) fn share_if_unchallenged(
    stages: &Stages,
    demands: &Demands,
    budget: impl Fn(&Stages) -> f64,
    class: Class,
) -> f64 {
    let stages = stages.unchallenged(class);
    strangers(&stages, demands, budget(&stages))[class as usize]
}

/// The shares of all tiers, given their parts of the budget rate. The grants of `scarce` tiers were
/// spent.
pub(crate) fn shares(
    stages: &Stages,
    demands: &Demands,
    budgets: &[f64; TIERS],
    scarce: [bool; TIERS],
    policy: &ControlPolicy,
) -> Shares {
    let mut shares = NO_SHARES;
    for tier in Tier::SERVED {
        let counts = |class| tier != Tier::Strangers || !stages.is_challenged(class);
        let by_class = demands.of(tier, counts);
        let unknown = by_class.iter().all(|demands| demands.is_empty());
        let fair = fair_shares(by_class, budgets[tier as usize]);
        for class in Class::ALL {
            let fair = fair[class as usize];
            // The sources are not known, but they ask for more than there is.
            let fair = if unknown && scarce[tier as usize] { 0.0 } else { fair };
            // There is no stricter stage for answered sources, so their share may fall below the floor.
            let below_floor = tier == Tier::Answered && !unknown;
            let fair = if below_floor { fair } else { fair.max(policy.floor(class)) };
            let is_own = policy.are_own_ceilings[class as usize];
            // The data path itself keeps to what the operator set.
            if !is_own || fair < policy.ceiling(class) {
                shares[tier as usize][class as usize] = fair.min(demands.cap(tier, class, policy));
            }
        }
    }
    shares
}

fn strangers(stages: &Stages, demands: &Demands, budget: f64) -> [f64; CLASSES] {
    fair_shares(demands.of(Tier::Strangers, |class| !stages.is_challenged(class)), budget)
}

#[expect(clippy::float_cmp, reason = "these numbers come out exactly")]
#[cfg(test)]
mod tests {
    use super::*;
    use crate::{load::OfferedLoad, stage::Stage};

    const POLICY: ControlPolicy = ControlPolicy {
        target_ppm: 850_000,
        ceilings: [50, 100, 20],
        are_own_ceilings: [true; CLASSES],
        floors: [1, 1, 1],
        reclaim: false,
    };

    #[test]
    fn a_udp_flood_does_not_challenge_tcp() {
        let demands = demands(&[(Class::Tcp, 200, 0.5), (Class::Udp, 5000, 10.0)]);
        assert_eq!(stages_after(&demands, 200.0), [Stage::Fair, Stage::Challenge, Stage::Fair]);
    }

    #[test]
    fn both_are_challenged_when_either_is_too_much() {
        let demands = demands(&[(Class::Tcp, 5000, 5.0), (Class::Udp, 5000, 10.0)]);
        assert_eq!(
            stages_after(&demands, 200.0),
            [Stage::Challenge, Stage::Challenge, Stage::Fair]
        );
    }

    #[test]
    fn few_heavy_sources_are_limited_and_nobody_is_challenged() {
        let demands = demands(&[(Class::Tcp, 10, 50.0), (Class::Tcp, 100, 0.5)]);
        let mut stages = fair();
        challenge(&mut stages, &demands, |_| 200.0, |_| true, |_| 1.0, &POLICY, Duration::ZERO);
        assert_eq!(stages.of(), [Stage::Fair; CLASSES]);
        let shares = shares(&stages, &demands, &[200.0; TIERS], [false; TIERS], &POLICY);
        assert_eq!(shares[Tier::Strangers as usize][0], 15.0);
        assert_eq!(shares[Tier::Regulars as usize], [f64::INFINITY; CLASSES]);
    }

    #[test]
    fn what_answered_is_shared_below_the_floor_when_it_asks_for_too_much() {
        let mut demands = Demands::default();
        let load = OfferedLoad {
            class: Class::Tcp,
            tier: Tier::Answered,
            flows_per_second: 5.0,
            is_seen_once: false,
        };
        demands.replace(&vec![load; 1000], &POLICY, |_| false, 100.0);
        let shares = shares(&fair(), &demands, &[100.0; TIERS], [true; TIERS], &POLICY);
        assert!((shares[Tier::Answered as usize][0] - 0.1).abs() < 1e-9);
    }

    #[test]
    fn default_ceilings_hold_in_a_class_that_asks_for_too_much_for_sources_that_were_not_there_before()
     {
        let policy = ControlPolicy { are_own_ceilings: [false; CLASSES], ..POLICY };
        let budgets = [1e6; TIERS];
        let offered = |class, flows_per_second| OfferedLoad {
            class,
            tier: Tier::Proven,
            flows_per_second,
            is_seen_once: false,
        };
        let loads = [offered(Class::Tcp, 900.0), offered(Class::Udp, 250.0)];
        let mut demands = Demands::default();
        demands.replace(&loads, &policy, |_| false, 800.0);
        let shares = shares(&fair(), &demands, &budgets, [false; TIERS], &policy);
        for tier in [Tier::Strangers, Tier::Proven, Tier::Answered, Tier::Retried] {
            assert_eq!(shares[tier as usize], [50.0, f64::INFINITY, f64::INFINITY]);
        }
        assert_eq!(shares[Tier::Earlier as usize], [f64::INFINITY; CLASSES]);
        let own = super::shares(&fair(), &Demands::default(), &budgets, [false; TIERS], &POLICY);
        assert_eq!(own[Tier::Strangers as usize], [f64::INFINITY; CLASSES]);
    }

    #[test]
    fn a_spent_tier_of_unknown_sources_keeps_to_the_floor() {
        let demands = Demands::default();
        let shares = shares(&fair(), &demands, &[100.0; TIERS], [true; TIERS], &POLICY);
        assert_eq!(shares[Tier::Retried as usize], [1.0; CLASSES]);
    }

    fn stages_after(demands: &Demands, budget: f64) -> [Stage; CLASSES] {
        let mut stages = fair();
        challenge(&mut stages, demands, |_| budget, |_| true, |_| 1.0, &POLICY, Duration::ZERO);
        stages.of()
    }

    fn fair() -> Stages {
        let mut stages = Stages::default();
        stages.leave_calm();
        stages
    }

    fn demands(groups: &[(Class, usize, f64)]) -> Demands {
        let load = |&(class, count, flows_per_second): &(Class, usize, f64)| {
            vec![
                OfferedLoad { class, tier: Tier::Strangers, flows_per_second, is_seen_once: false };
                count
            ]
        };
        let loads: Vec<OfferedLoad> = groups.iter().flat_map(load).collect();
        let mut demands = Demands::default();
        demands.replace(&loads, &POLICY, |_| false, 100.0);
        demands
    }
}
