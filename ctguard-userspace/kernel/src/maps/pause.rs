//! A pause: nothing is dropped until a deadline.
//!
//! It is kept in bits of the policy's switches that the data path does not read, beside the switch for
//! a dry run, which it turns on. So it outlives the daemon, goes with the guard, and costs no packet
//! anything. Who finds that it is over ends it.

use std::time::Duration;

use ctguard_layout::{Policy, units::Jiffies};

/// The operator's own switch for a dry run, which holds again after the pause.
const OWN_DRY_RUN: u32 = 1 << 7;
/// The deadline: seconds of jiffies, without the bits that have no room; 0 is no pause.
const SHIFT: u32 = 8;
const SECONDS: u64 = (1 << (u32::BITS - SHIFT)) - 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pause(u32);

impl Pause {
    /// Much less than the deadline can tell, so that one of the past is not taken for one to come.
    pub const LONGEST: Duration = Duration::from_hours(24);

    /// It lasts `span`, and up to a second longer.
    #[must_use]
    pub fn until(now: Jiffies, per_second: u32, span: Duration) -> Self {
        let ends = seconds(now, per_second) + span.min(Self::LONGEST).as_secs() + 1;
        Self::at(ends).unwrap_or(Self(1))
    }

    /// How long it still lasts, in whole seconds; zero if it is over.
    #[must_use]
    pub fn left(self, now: Jiffies, per_second: u32) -> Duration {
        let left = u64::from(self.0).wrapping_sub(seconds(now, per_second)) & SECONDS;
        Duration::from_secs(if left > Self::LONGEST.as_secs() + 1 { 0 } else { left })
    }

    fn at(seconds: u64) -> Option<Self> {
        let seconds = u32::try_from(seconds & SECONDS).ok().filter(|seconds| *seconds > 0)?;
        Some(Self(seconds))
    }

    pub(super) fn of(policy: &Policy) -> Option<Self> {
        Self::at((policy.switches >> SHIFT).into())
    }
}

fn seconds(now: Jiffies, per_second: u32) -> u64 {
    now.0 / u64::from(per_second.max(1))
}

/// The policy as the operator set it.
pub(super) fn without_pause(policy: Policy) -> Policy {
    let (switches, is_paused) = (policy.switches, Pause::of(&policy).is_some());
    let others = switches & (OWN_DRY_RUN - 1) & !Policy::DRY_RUN;
    let is_dry = if is_paused { OWN_DRY_RUN } else { Policy::DRY_RUN };
    let dry_run = if switches & is_dry != 0 { Policy::DRY_RUN } else { 0 };
    Policy { switches: others | dry_run, ..policy }
}

/// The policy in force.
pub(super) fn with_pause(own: Policy, pause: Option<Pause>) -> Policy {
    let Some(Pause(ends)) = pause else { return own };
    let dry_run = if own.has(Policy::DRY_RUN) { OWN_DRY_RUN } else { 0 };
    Policy { switches: own.switches | Policy::DRY_RUN | dry_run | ends << SHIFT, ..own }
}

#[cfg(test)]
mod tests {
    use ctguard_settings::DEFAULT_POLICY;

    use super::*;

    const HZ: u32 = 250;
    const MINUTE: Duration = Duration::from_mins(1);

    fn at(seconds: u64) -> Jiffies {
        Jiffies(seconds * u64::from(HZ))
    }

    #[test]
    fn a_pause_drops_nothing_and_leaves_the_operators_switches_as_they_were() {
        let pause = Pause::until(at(5), HZ, MINUTE);
        for switches in [0, Policy::DRY_RUN, Policy::DNS, Policy::DRY_RUN | Policy::FAIL_OPEN] {
            let own = Policy { switches, ..DEFAULT_POLICY };
            let paused = with_pause(own, Some(pause));
            assert!(paused.has(Policy::DRY_RUN));
            assert_eq!(Pause::of(&paused), Some(pause));
            assert_eq!(without_pause(paused), own);
            assert_eq!(with_pause(without_pause(paused), None), own);
            assert_eq!((without_pause(own), Pause::of(&own)), (own, None));
        }
    }

    #[test]
    fn a_pause_lasts_as_long_as_it_was_asked_to_and_at_most_a_second_longer() {
        let pause = Pause::until(at(5), HZ, MINUTE);
        assert_eq!(pause.left(at(5), HZ), MINUTE + Duration::from_secs(1));
        assert_eq!(pause.left(at(65), HZ), Duration::from_secs(1));
        assert_eq!(pause.left(at(66), HZ), Duration::ZERO);
        assert_eq!(pause.left(at(66 + 100 * 86_400), HZ), Duration::ZERO);
    }

    /// Fails when a pause ends at once, or never, on a machine that has been up for half a year.
    #[test]
    fn a_pause_ends_although_the_seconds_have_no_room_for_the_uptime() {
        for began in [SECONDS - 30, SECONDS - 60, SECONDS - 61, SECONDS, 5 * SECONDS + 7] {
            let pause = Pause::until(at(began), HZ, MINUTE);
            let left = pause.left(at(began + 59), HZ).as_secs();
            assert!((1..=3).contains(&left), "{left} s left");
            assert_eq!(pause.left(at(began + 63), HZ), Duration::ZERO);
        }
    }
}
