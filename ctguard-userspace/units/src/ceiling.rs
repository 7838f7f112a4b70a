//! The operator's ceilings in the data path's units.

use ctguard_layout::{CLASS_SLOTS, CLASSES, Ceiling, OperatorLimits, Policy, Rate, units::Ticks};

use crate::{
    coarse::answers,
    numbers::{real, whole},
};

/// The ceilings per source that the operator set for one interface or for all. A default is none of
/// them: the controller writes it into the shares while it holds.
pub fn ceilings(
    policy: &Policy,
    overrides: &[Rate; CLASSES],
    jiffies_per_second: u32,
) -> [Ceiling; CLASS_SLOTS] {
    by_class(|class| {
        let own = overrides[class];
        if policy.has_own_ceiling(class) || own != Rate::default() {
            compile(in_force(policy.source[class], own), jiffies_per_second)
        } else {
            Ceiling::default()
        }
    })
}

fn by_class(of: impl Fn(usize) -> Ceiling) -> [Ceiling; CLASS_SLOTS] {
    std::array::from_fn(|slot| if slot < CLASSES { of(slot) } else { Ceiling::default() })
}

/// The rate and burst on an interface: its `own` where they are set, else the policy's.
pub fn in_force(policy: Rate, own: Rate) -> Rate {
    let or = |own, policy| if own == 0 { policy } else { own };
    Rate {
        flows_per_second: or(own.flows_per_second, policy.flows_per_second),
        burst: or(own.burst, policy.burst),
    }
}

/// Limits of a scope by class; an interval of 0 means no limit.
fn scope_limits(rates: &[Rate; CLASSES], jiffies_per_second: u32) -> [Ceiling; CLASS_SLOTS] {
    by_class(|class| match rates[class] {
        Rate { flows_per_second: 0, .. } => Ceiling::default(),
        // The default burst is that of one second.
        rate => compile(
            in_force(Rate { burst: rate.flows_per_second, ..rate }, rate),
            jiffies_per_second,
        ),
    })
}

/// The limits of prefixes and services; `lists_in_use` has a bit for each list with entries.
pub fn operator_limits(
    policy: &Policy,
    lists_in_use: u32,
    jiffies_per_second: u32,
) -> OperatorLimits {
    let is_limited = |rates: &[Rate]| rates.iter().any(|rate| rate.flows_per_second != 0);
    let bit = |rates: &[Rate], bit| if is_limited(rates) { bit } else { 0 };
    OperatorLimits {
        prefix: scope_limits(&policy.prefix, jiffies_per_second),
        service: scope_limits(&policy.service, jiffies_per_second),
        scopes_in_use: bit(&policy.prefix, OperatorLimits::PREFIX)
            | bit(&policy.service, OperatorLimits::SERVICE),
        lists_in_use,
        answers: answers(policy.answers_per_second.into(), jiffies_per_second),
        reserved: 0,
    }
}

/// The buckets' clock counts jiffies, so a burst is at least the flows of one jiffy.
fn compile(rate: Rate, jiffies_per_second: u32) -> Ceiling {
    let interval = interval(u64::from(rate.flows_per_second), jiffies_per_second);
    let in_a_jiffy = rate.flows_per_second.div_ceil(jiffies_per_second.max(1));
    let burst = u64::from(rate.burst.max(in_a_jiffy).max(1));
    Ceiling { interval: Ticks(interval), tolerance: Ticks((burst - 1) * interval) }
}

/// A source may save its share for this time, because a browser opens its connections at once.
const SHARE_SAVED_SECONDS: u64 = 2;

/// A share as a ceiling; an infinite share is no limit.
pub fn share(flows_per_second: f64, jiffies_per_second: u32) -> Ceiling {
    if flows_per_second.is_infinite() {
        return Ceiling::default();
    }
    let second = u64::from(jiffies_per_second) * Ticks::PER_JIFFY;
    let interval = whole(real(second) / flows_per_second.max(LOWEST_SHARE)).saturating_add(1);
    let tolerance = (second * SHARE_SAVED_SECONDS).saturating_sub(interval);
    Ceiling { interval: Ticks(interval), tolerance: Ticks(tolerance.max(interval)) }
}

/// One flow in ten seconds. A bucket counts time, so a flow that was charged at a low share remains
/// expensive after shares have risen again.
const LOWEST_SHARE: f64 = 0.1;

/// Ticks between two flows, rounded up, so that a limit is never too loose.
pub fn interval(flows_per_second: u64, jiffies_per_second: u32) -> u64 {
    (u64::from(jiffies_per_second) * Ticks::PER_JIFFY).div_ceil(flows_per_second.max(1)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy = Policy {
        layout_version: 0,
        switches: 0,
        target_ppm: 0,
        source: [UNSET; CLASSES],
        fallback_flows_per_second: 0,
        floor: [0; CLASSES],
        prefix: [UNSET; CLASSES],
        service: [UNSET; CLASSES],
        adaptive_ppm: [0; 2],
        reclaim_after: [0; 6],
        overload_after: 0,
        overload_for: 0,
        own_ceilings: 0,
        answers_per_second: 0,
    };
    const UNSET: Rate = Rate { flows_per_second: 0, burst: 0 };

    #[test]
    fn two_hundred_a_second_are_two_hundred_intervals_a_second() {
        let ceiling = compile(rate(200, 100), 250);
        assert_eq!(ceiling.interval, Ticks(250 * 65_536 / 200));
        assert_eq!(ceiling.tolerance, Ticks(99 * 250 * 65_536 / 200));
    }

    #[test]
    fn only_ceilings_that_the_operator_set_are_compiled() {
        let policy = Policy {
            source: [rate(50, 200), rate(100, 400), rate(20, 50)],
            own_ceilings: Policy::ceiling_bit(0, true),
            ..POLICY
        };
        let own = [UNSET, UNSET, rate(0, 9)];
        let [tcp, udp, other, _] = ceilings(&policy, &own, 250);
        assert_eq!(tcp, compile(rate(50, 200), 250));
        assert_eq!(udp, Ceiling::default());
        assert_eq!(other, compile(rate(20, 9), 250));
    }

    #[test]
    fn a_scope_without_a_rate_has_no_limit_and_one_without_a_burst_a_seconds_worth() {
        let limits = scope_limits(&[UNSET, rate(100, 0), rate(100, 5)], 250);
        assert_eq!(limits[0], Ceiling::default());
        assert_eq!(limits[1].tolerance.0, 99 * limits[1].interval.0);
        assert_eq!(limits[2].tolerance.0, 4 * limits[2].interval.0);
    }

    #[test]
    fn a_burst_is_at_least_one_jiffys_worth() {
        let ceiling = compile(rate(10_000, 1), 100);
        assert_eq!(ceiling.tolerance.0, 99 * ceiling.interval.0);
    }

    #[test]
    fn the_highest_rate_has_an_interval() {
        assert_eq!(compile(rate(10_000_000, 1), 100).interval, Ticks(1));
    }

    #[test]
    fn an_interface_overrides_rate_and_burst_each_by_itself() {
        assert_eq!(in_force(rate(50, 200), UNSET), rate(50, 200));
        assert_eq!(in_force(rate(50, 200), rate(7, 0)), rate(7, 200));
        assert_eq!(in_force(rate(50, 200), rate(0, 9)), rate(50, 9));
    }

    #[test]
    fn a_share_is_saved_for_two_seconds_and_is_two_flows_at_least() {
        let burst = |rate| {
            let Ceiling { interval, tolerance } = share(rate, 250);
            tolerance.0 / interval.0 + 1
        };
        assert_eq!([burst(3.0), burst(1.0), burst(0.01)], [5, 2, 2]);
        assert_eq!(share(4.0, 250).interval, Ticks(250 * 65_536 / 4 + 1));
        assert_eq!(share(f64::INFINITY, 250), Ceiling::default());
    }

    fn rate(flows_per_second: u32, burst: u32) -> Rate {
        Rate { flows_per_second, burst }
    }
}
