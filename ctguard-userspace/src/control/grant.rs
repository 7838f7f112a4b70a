//! How many new flows each tier may open until the next tick: the guarantee of the target fill.

use ctguard_ebpf::layout::{TIERS, Tier};

/// What a table without a maximum may take in one tick: far more than any network brings.
const UNLIMITED: u64 = 1 << 40;

/// Parts of a whole in `Policy::target_ppm`.
const MILLION: u64 = 1_000_000;

/// The guarded table at one instant, read after the admissions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TableSample {
    pub(crate) entries: u64,
    /// 0: the operator set no maximum.
    pub(crate) max: u64,
}

/// What the daemon writes for one tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TierGrant {
    /// G.
    pub(crate) limit: u64,
    /// Admissions at which the daemon wants to be woken.
    pub(crate) wake_at: u64,
}

impl TableSample {
    /// Entries at the target fill.
    pub(crate) fn target(self, target_ppm: u32) -> u64 {
        let parts = u128::from(self.max) * u128::from(target_ppm) / u128::from(MILLION);
        u64::try_from(parts).unwrap_or(u64::MAX).min(self.max)
    }
}

/// The grants by tier, from A (`admitted`, read before the table) and what was admitted but may
/// not be in the table yet.
///
/// Strangers may fill the table to its target, less the `reserve` for flows that others open. Allowed sources may go on above it, into a quarter
/// of the space that is left there, and never take more than that quarter at a time: both tiers
/// together stay below the maximum whatever arrives.
pub(crate) fn grants(
    table: TableSample,
    target_ppm: u32,
    admitted: [u64; TIERS],
    in_flight: u64,
    reserve: u64,
) -> [TierGrant; TIERS] {
    let taken = table.entries.saturating_add(in_flight);
    let target = table.target(target_ppm);
    let spare = (table.max - target) / 4;
    let mut allowances = [UNLIMITED; TIERS];
    if table.max > 0 {
        allowances[Tier::Strangers as usize] = target.saturating_sub(taken.saturating_add(reserve));
        allowances[Tier::Allowed as usize] = (target + spare).saturating_sub(taken).min(spare);
    }
    let mut grants = [TierGrant { limit: 0, wake_at: 0 }; TIERS];
    for ((grant, admitted), allowance) in grants.iter_mut().zip(admitted).zip(allowances) {
        grant.limit = admitted.saturating_add(allowance);
        grant.wake_at = admitted.saturating_add(allowance - allowance.div_ceil(4));
    }
    grants
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: u32 = 850_000;
    const STRANGERS: usize = Tier::Strangers as usize;
    const ALLOWED: usize = Tier::Allowed as usize;

    #[test]
    fn strangers_get_what_is_missing_to_the_target() {
        assert_eq!(grants(table(100), TARGET, [500, 0], 0, 0)[STRANGERS].limit, 500 + 750);
    }

    #[test]
    fn what_is_in_flight_is_taken_for_granted() {
        assert_eq!(grants(table(100), TARGET, [500, 0], 50, 0)[STRANGERS].limit, 500 + 700);
    }

    #[test]
    fn the_reserve_is_kept_from_strangers_only() {
        let grants = grants(table(100), TARGET, [500, 0], 0, 200);
        assert_eq!((grants[STRANGERS].limit, grants[ALLOWED].limit), (500 + 550, 37));
    }

    #[test]
    fn a_table_at_its_target_gives_strangers_nothing_and_allowed_sources_their_quarter() {
        let grants = grants(table(850), TARGET, [500, 20], 0, 0);
        assert_eq!(grants[STRANGERS].limit, 500);
        assert_eq!(grants[ALLOWED].limit, 20 + 37);
    }

    #[test]
    fn allowed_sources_never_get_more_than_a_quarter_of_the_space_above_the_target() {
        assert_eq!(grants(table(0), TARGET, [0, 20], 0, 0)[ALLOWED].limit, 20 + 37);
        assert_eq!(grants(table(880), TARGET, [0, 20], 0, 0)[ALLOWED].limit, 20 + 7);
        assert_eq!(grants(table(1000), TARGET, [0, 20], 0, 0)[ALLOWED].limit, 20);
    }

    #[test]
    fn both_tiers_together_stay_below_the_maximum_at_every_fill() {
        for entries in 0..=1000 {
            let [strangers, allowed] = grants(table(entries), TARGET, [0, 0], 0, 0);
            assert!(entries + strangers.limit + allowed.limit <= 1000.max(entries), "{entries}");
        }
    }

    #[test]
    fn the_daemon_is_woken_when_three_quarters_are_spent() {
        assert_eq!(grants(table(450), TARGET, [500, 0], 0, 0)[STRANGERS].wake_at, 500 + 300);
    }

    #[test]
    fn a_target_of_everything_leaves_no_space_above_it() {
        let grants = grants(table(0), 1_000_000, [0, 0], 0, 0);
        assert_eq!((grants[STRANGERS].limit, grants[ALLOWED].limit), (1000, 0));
    }

    #[test]
    fn a_table_without_a_maximum_is_no_limit() {
        let table = TableSample { entries: 5_000_000, max: 0 };
        assert_eq!(grants(table, TARGET, [7, 7], 0, 0)[STRANGERS].limit, 7 + UNLIMITED);
    }

    fn table(entries: u64) -> TableSample {
        TableSample { entries, max: 1000 }
    }
}
