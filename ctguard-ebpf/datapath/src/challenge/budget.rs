//! How many challenges are answered in all, so that the guard is no reflector of note: each answer
//! goes to whoever a SYN names as its source.
//!
//! A count starts again with each unit of the times of retries. Where many may be answered, each CPU
//! counts a few of its own before it adds them.

use crate::{
    layout::{Environment, Grant},
    memory::Moment,
};

/// What a CPU adds at once, and the least limit at which it waits for so many.
const STEP: u32 = 16;
const MANY: u32 = 64 * STEP;

/// Whether another challenge may be answered now.
#[inline(always)]
pub(crate) fn has_left(grant: &Grant, environment: &Environment, now: Moment) -> bool {
    let limit = limit(environment);
    let word = grant.answers.load();
    limit == 0 || word >> 32 != u64::from(now.0) || word & u64::from(u32::MAX) < u64::from(limit)
}

/// Counts a challenge that is answered. `counted` is that of this CPU, and the result the next.
#[inline(always)]
pub(crate) fn take(grant: &Grant, environment: &Environment, now: Moment, counted: u32) -> u32 {
    let step = if limit(environment) < MANY { 1 } else { STEP };
    let counted = counted + 1;
    if counted < step {
        return counted;
    }
    if grant.answers.load() >> 32 == u64::from(now.0) {
        grant.answers.fetch_add(u64::from(step));
    } else {
        grant.answers.store(u64::from(now.0) << 32 | u64::from(step));
    }
    0
}

#[inline(always)]
const fn limit(environment: &Environment) -> u32 {
    let Environment { operator, daemon, .. } = environment;
    if operator.answers == 0 { daemon.answers } else { operator.answers }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(environment: &Environment, unit: u32, grant: &Grant) -> u32 {
        let (mut counted, mut answered) = (0, 0);
        while answered < 100_000 && has_left(grant, environment, Moment(unit)) {
            counted = take(grant, environment, Moment(unit), counted);
            answered += 1;
        }
        answered
    }

    #[test]
    fn each_unit_has_as_many_as_the_operator_set_or_else_as_the_links_can_take() {
        let (grant, mut environment) = (Grant::default(), Environment::default());
        assert_eq!(answered(&environment, 1, &grant), 100_000, "nothing is known");
        for (operator, links, expected) in
            [(0, 5, 5), (3, 5, 3), (0, 2_000, 2_000), (50_000, 10, 50_000)]
        {
            (environment.operator.answers, environment.daemon.answers) = (operator, links);
            for unit in [7, 8, u32::MAX, 0] {
                let grant = Grant::default();
                let spent_before = u64::from(unit.wrapping_sub(1)) << 32 | 0xffff;
                grant.answers.store(spent_before);
                assert_eq!(answered(&environment, unit, &grant), expected, "in unit {unit}");
            }
        }
    }
}
