//! Counters: one for each outcome and class, and a few others.

use super::{
    outcome::{Group, Outcome, TABLE},
    policy::{CLASS_SLOTS, Class},
};

/// Counters in the line; a power of two, so that a mask finds the place.
pub const COUNTERS: usize = 1 << INDEX_BITS;
const INDEX_BITS: u32 = 7;

/// The `counters` map's value, one for each CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Counters {
    /// By [`Counter::index`].
    pub values: [u64; COUNTERS],
}

/// What is counted. Each outcome has a row with a place for each class and one for packets without
/// a class. The last row is for counters that are no outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// New flows with this outcome.
    Flows(Outcome, Class),
    /// Packets with this outcome, which has no class.
    Packets(Outcome),
    /// New flows of sources on the allow list; they also count as admitted.
    Allowed(Class),
    /// Wake-ups sent to the daemon.
    Wakeups,
}

/// Low bits of an index, which hold the class; the others hold the number of the outcome.
pub const CLASS_BITS: u32 = 2;
/// The place in a row of packets without a class.
pub const NO_CLASS: u32 = (1 << CLASS_BITS) - 1;

const LAST_ROW: u32 = (1 << (INDEX_BITS - CLASS_BITS)) - 1;

const _: () = assert!(1 << CLASS_BITS == CLASS_SLOTS && TABLE.len() <= LAST_ROW as usize);

impl Counter {
    /// Its place in [`Counters::values`].
    #[inline(always)]
    pub const fn index(self) -> u32 {
        let (row, place) = match self {
            Self::Flows(outcome, class) => (outcome as u32, class as u32),
            Self::Packets(outcome) => (outcome as u32, NO_CLASS),
            Self::Allowed(class) => (LAST_ROW, class as u32),
            Self::Wakeups => (LAST_ROW, NO_CLASS),
        };
        row << CLASS_BITS | place
    }

    /// Every counter.
    pub fn all() -> impl Iterator<Item = Self> {
        let outcomes = TABLE.iter().flat_map(|row| {
            let is_packet = row.group == Group::Packet;
            let classes = Class::ALL.into_iter().filter(move |_| !is_packet);
            let packets = is_packet.then_some(Self::Packets(row.outcome));
            classes.map(move |class| Self::Flows(row.outcome, class)).chain(packets)
        });
        outcomes.chain(Class::ALL.map(Self::Allowed)).chain([Self::Wakeups])
    }

    /// The counters of a class whose sum is the new flows seen.
    pub fn seen(class: Class) -> impl Iterator<Item = Self> {
        let new = TABLE.iter().filter(|row| row.is_new_flow);
        new.map(move |row| Self::Flows(row.outcome, class))
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_counter_has_a_place_of_its_own() {
        let places: BTreeSet<u32> = Counter::all().map(Counter::index).collect();
        assert_eq!(places.len(), Counter::all().count());
        assert!(places.iter().all(|&place| (place as usize) < COUNTERS));
    }

    #[test]
    fn new_flows_seen_are_those_admitted_challenged_or_refused_by_a_limit() {
        let seen = |outcome| {
            Counter::seen(Class::Udp).any(|counter| counter == Counter::Flows(outcome, Class::Udp))
        };
        assert!(seen(Outcome::Admitted) && seen(Outcome::ChallengedBySilence));
        assert!(seen(Outcome::RefusedGrant) && !seen(Outcome::Denied) && !seen(Outcome::Known));
    }
}
