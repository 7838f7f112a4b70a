//! Cuts the tiers' grants so that together they never pass the target.
//!
//! A grant is in force until it is overwritten. So what one tier loses in a tick, another gets only in
//! the next.

use super::tiers::{Precedence as _, TIERS, Tier};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Allowances {
    /// New flows that each tier may open after its A was read.
    pub flows: [u64; TIERS],
    /// A tier got less than half of its part, because another's grant must be taken back first.
    pub held_back: bool,
}

/// Cuts the `wanted` flows to the `headroom`, which was read after A. `outstanding` is G − A by tier,
/// when A was read.
///
/// Until all new grants are written, each tier can open the greater of its old and its new grant. The
/// sum of these never passes the headroom. If the headroom has shrunk below what was outstanding, no
/// tier gets more than it had.
pub(crate) fn fit(wanted: [u64; TIERS], outstanding: [u64; TIERS], headroom: u64) -> Allowances {
    let mut flows = [0; TIERS];
    let mut left = headroom;
    for tier in Tier::SERVED.map(|tier| tier as usize) {
        flows[tier] = wanted[tier].min(left);
        left -= flows[tier];
    }
    let had: u64 = sum(outstanding);
    let mut free = headroom.saturating_sub(had);
    let mut held_back = false;
    for tier in Tier::SERVED.map(|tier| tier as usize) {
        let more = flows[tier].saturating_sub(outstanding[tier]);
        if more > free {
            let fitted = flows[tier];
            flows[tier] = outstanding[tier] + free;
            held_back |= flows[tier] < fitted / 2;
        }
        free -= more.min(free);
    }
    Allowances { flows, held_back }
}

fn sum(flows: [u64; TIERS]) -> u64 {
    Tier::SERVED.into_iter().fold(0, |sum, tier| sum.saturating_add(flows[tier as usize]))
}

#[cfg(test)]
mod tests {
    use std::collections::{HashSet, VecDeque};

    use super::*;

    const STRANGERS: usize = Tier::Strangers as usize;
    const REGULARS: usize = Tier::Regulars as usize;

    #[test]
    fn who_is_served_first_gets_the_last_of_the_headroom() {
        let allowances = fit(flows(8, 5), flows(0, 0), 10);
        assert_eq!(allowances, Allowances { flows: flows(5, 5), held_back: false });
    }

    #[test]
    fn what_is_taken_back_is_given_away_only_a_tick_later() {
        let first = fit(flows(0, 10), flows(10, 0), 10);
        assert_eq!(first, Allowances { flows: flows(0, 0), held_back: true });
        let second = fit(flows(0, 10), flows(0, 0), 10);
        assert_eq!(second, Allowances { flows: flows(0, 10), held_back: false });
    }

    #[test]
    fn a_headroom_that_shrank_takes_back_at_once() {
        assert_eq!(fit(flows(9, 1), flows(9, 1), 3).flows, flows(2, 1));
    }

    /// Every order of packets, expiries, reads and writes, with whatever a controller may want, in
    /// a table of three and two tiers.
    #[test]
    fn no_order_of_reads_and_packets_passes_the_target() {
        let mut model = Model::default();
        model.explore();
        assert!(model.seen.len() > 2000, "{} states", model.seen.len());
        assert!(model.fullest == TARGET, "the target is reached");
    }

    /// Fails when grants are moved at once, as one would with one tier.
    #[test]
    fn the_model_would_notice_a_grant_given_twice() {
        let mut model = Model { careless: true, ..Model::default() };
        model.explore();
        assert!(model.fullest > TARGET, "{} entries", model.fullest);
    }

    const TARGET: u64 = 3;

    /// Where the controller is in its tick; what it read and means to write.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    enum Phase {
        Idle,
        /// A was read, with so many packets of it under way.
        Admissions {
            in_flight: u64,
            outstanding: [u64; 2],
            since: [u64; 2],
        },
        /// The count was read too: the new grants, less what was admitted since A was read.
        Writing {
            flows: [u64; 2],
            since: [u64; 2],
            written: usize,
        },
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    struct State {
        entries: u64,
        /// Admitted, not in the table yet.
        under_way: u64,
        /// G − A, by tier.
        left: [u64; 2],
        phase: Phase,
    }

    #[derive(Default)]
    struct Model {
        seen: HashSet<State>,
        waiting: VecDeque<State>,
        fullest: u64,
        careless: bool,
    }

    impl Model {
        fn explore(&mut self) {
            self.reach(State { entries: 0, under_way: 0, left: [0, 0], phase: Phase::Idle });
            while let Some(state) = self.waiting.pop_front() {
                self.packets(state);
                self.controller(state);
            }
        }

        fn reach(&mut self, state: State) {
            self.fullest = self.fullest.max(state.entries);
            // A model that passed the target has shown it.
            if state.entries <= TARGET && self.seen.insert(state) {
                self.waiting.push_back(state);
            }
        }

        fn packets(&mut self, state: State) {
            for tier in 0..2 {
                if state.left[tier] > 0 {
                    let mut next = state;
                    next.left[tier] -= 1;
                    next.under_way += 1;
                    match &mut next.phase {
                        Phase::Idle => {}
                        Phase::Admissions { since, .. } | Phase::Writing { since, .. } => {
                            since[tier] += 1;
                        }
                    }
                    self.reach(next);
                }
            }
            if state.under_way > 0 {
                let under_way = state.under_way - 1;
                self.reach(State { entries: state.entries + 1, under_way, ..state });
                self.reach(State { under_way, ..state });
            }
            if state.entries > 0 {
                self.reach(State { entries: state.entries - 1, ..state });
            }
        }

        fn controller(&mut self, state: State) {
            match state.phase {
                Phase::Idle => self.reach(State {
                    phase: Phase::Admissions {
                        in_flight: state.under_way,
                        outstanding: state.left,
                        since: [0, 0],
                    },
                    ..state
                }),
                Phase::Admissions { in_flight, outstanding, since } => {
                    let headroom = TARGET.saturating_sub(state.entries + in_flight);
                    for wanted in
                        (0..=TARGET).flat_map(|one| (0..=TARGET).map(move |two| [one, two]))
                    {
                        let had = if self.careless { [0, 0] } else { outstanding };
                        let fitted =
                            fit(flows(wanted[0], wanted[1]), flows(had[0], had[1]), headroom);
                        let flows = [fitted.flows[STRANGERS], fitted.flows[REGULARS]];
                        self.reach(State {
                            phase: Phase::Writing { flows, since, written: 0 },
                            ..state
                        });
                    }
                }
                Phase::Writing { flows, since, written } => {
                    let mut next = state;
                    next.left[written] = flows[written].saturating_sub(since[written]);
                    next.phase = if written == 1 {
                        Phase::Idle
                    } else {
                        Phase::Writing { flows, since, written: written + 1 }
                    };
                    self.reach(next);
                }
            }
        }
    }

    fn flows(strangers: u64, regulars: u64) -> [u64; TIERS] {
        let mut flows = [0; TIERS];
        flows[STRANGERS] = strangers;
        flows[REGULARS] = regulars;
        flows
    }
}
