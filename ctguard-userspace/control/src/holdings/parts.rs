//! What part of the table each source may hold, and who holds more.

use std::collections::HashMap;

use super::{Entries, Holdings, Proof};
use crate::{sources::SourceScope, tuning::TUNING};

/// What sources may hold before they are held to their parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartsRoom {
    /// For all of them together.
    pub all: u64,
    /// What those that were there before may hold besides.
    pub reserve: u64,
}

/// What a source has because of its standing.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Claim {
    /// It may hold so much although others hold less.
    pub(crate) usual: Entries,
    /// It was there before the guard left calm.
    pub(crate) came_before: bool,
}

/// Entries above the part.
pub type Excess = Entries;

/// The most that each source may hold; `None` if all fits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// Of entries that prove its address, if it was there before.
    pub before: Option<u32>,
    /// Of entries that prove its address, if it is new.
    pub proving: Option<u32>,
    /// Of others.
    pub other: Option<u32>,
}

impl Parts {
    const fn of(self, proof: Proof, came_before: bool) -> Option<u32> {
        match proof {
            Proof::OfAddress if came_before => self.before,
            Proof::OfAddress => self.proving,
            Proof::None => self.other,
        }
    }
}

/// The largest p for which Σ min(held, max(p, usual)) fits into `room`; `None` if all fits.
///
/// Each source is (held, usual). 0 if not even what is usual fits.
fn part(sources: &[(u32, u32)], room: u64) -> Option<u32> {
    let fits = |part: u32| {
        let held = sources.iter().map(|&(held, usual)| u64::from(held.min(part.max(usual))));
        held.sum::<u64>() <= room
    };
    if fits(u32::MAX) {
        return None;
    }
    // The answer is in `low..high`.
    let (mut low, mut high) = (0, sources.iter().map(|&(held, _)| held).max()?);
    while high - low > 1 {
        let middle = low.midpoint(high);
        if fits(middle) { low = middle } else { high = middle }
    }
    Some(low)
}

impl Holdings {
    /// The part of each source, if all entries together may be `room`.
    ///
    /// Entries that prove an address and those that prove nothing share the room: each may use what
    /// the other leaves, and half of it always. So spoofed packets do not reduce the part of sources
    /// that completed handshakes to less than half. In the same way these share their room between
    /// those that were there before and newcomers: a crowd of bots that hold one connection each
    /// reduces the parts of newcomers only. Those that were there before may also have the `reserve`,
    /// which newcomers leave to them.
    pub(crate) fn parts(
        &self,
        claim: impl Fn(SourceScope) -> Claim,
        PartsRoom { all: room, reserve }: PartsRoom,
    ) -> Parts {
        let (proving, other) = (self.proving.total, self.other.total);
        if proving + other <= room {
            return Parts::default();
        }
        let left = |room: u64, by: u64| room.saturating_sub(by).max(room / 2);
        let (mut before, mut new) = (Vec::new(), Vec::new());
        for (&source, count) in &self.proving.counts {
            let Claim { usual, came_before } = claim(source);
            let group = if came_before { &mut before } else { &mut new };
            group.push((count.held, usual.proving));
        }
        let held_before = before.iter().map(|&(held, _)| u64::from(held)).sum();
        let others = self.other.counts.iter();
        let others: Vec<_> =
            others.map(|(&source, count)| (count.held, claim(source).usual.other)).collect();
        let part = |sources: &[(u32, u32)], room: u64| {
            part(sources, room).map(|part| part.max(TUNING.least_part))
        };
        let room_of_proving = left(room, other);
        let unattributed = self.proving.unattributed();
        Parts {
            before: part(&before, left(room_of_proving, proving - held_before) + reserve),
            proving: part(&new, left(room_of_proving, held_before).saturating_sub(unattributed)),
            other: part(&others, left(room, proving).saturating_sub(self.other.unattributed())),
        }
    }

    /// What sources hold above their parts. Those that were `marked` are so until they hold an eighth
    /// less than their part: marks do not come and go with each look.
    pub(crate) fn above(
        &self,
        parts: Parts,
        claim: impl Fn(SourceScope) -> Claim,
        marked: &HashMap<SourceScope, Excess>,
    ) -> HashMap<SourceScope, Excess> {
        let mut above = HashMap::<SourceScope, Excess>::new();
        if parts == Parts::default() {
            return above;
        }
        let excess = |source, held: u32, proof| {
            let Claim { usual, came_before } = claim(source);
            let most = parts.of(proof, came_before)?.max(usual.of(proof));
            let is_marked = marked.get(&source).is_some_and(|excess| excess.of(proof) > 0);
            held.checked_sub(if is_marked { most - most / 8 } else { most })
                .filter(|&more| more > 0)
        };
        for (&source, count) in &self.proving.counts {
            if let Some(excess) = excess(source, count.held, Proof::OfAddress) {
                above.entry(source).or_default().proving = excess;
            }
        }
        for (&source, count) in &self.other.counts {
            if let Some(excess) = excess(source, count.held, Proof::None) {
                above.entry(source).or_default().other = excess;
            }
        }
        above
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::hold, *};
    use crate::testing::Random;

    const NEW: fn(SourceScope) -> Claim = |_| Claim::default();

    fn room(all: u64) -> PartsRoom {
        PartsRoom { all, reserve: 0 }
    }

    /// Fails when those that were there before are held to a part while the target has room for what
    /// they open now and then.
    #[test]
    fn who_was_there_before_may_also_have_what_newcomers_leave_free() {
        let mut holdings = Holdings::default();
        for source in 0..350 {
            hold(&mut holdings, source, Proof::OfAddress, 9);
        }
        let before = |_| Claim { came_before: true, ..Claim::default() };
        let part = |reserve| holdings.parts(before, PartsRoom { all: 2_867, reserve }).before;
        assert_eq!([0, 614].map(part), [Some(8), None]);
    }

    /// Raises the part by one entry at a time.
    #[test]
    fn the_part_is_the_largest_that_fits() {
        let mut random = Random::new(5);
        for _ in 0..2000 {
            let count = random.below(8);
            let sources: Vec<(u32, u32)> =
                (0..count).map(|_| (random.below(30), random.below(20))).collect();
            let room = u64::from(random.below(150));
            let fits = |part: u32| {
                sources
                    .iter()
                    .map(|&(held, usual)| u64::from(held.min(part.max(usual))))
                    .sum::<u64>()
                    <= room
            };
            let all = sources.iter().map(|&(held, _)| u64::from(held)).sum::<u64>();
            let largest = (0..40).take_while(|&part| fits(part)).last().unwrap_or(0);
            let expected = (all > room).then_some(largest);
            assert_eq!(part(&sources, room), expected, "{sources:?} {room}");
        }
    }

    #[test]
    fn who_holds_less_than_its_part_is_not_above_it_and_who_is_known_has_more() {
        let mut holdings = Holdings::default();
        for source in 0..10 {
            hold(&mut holdings, source, Proof::OfAddress, 6);
        }
        hold(&mut holdings, 100, Proof::OfAddress, 500);
        hold(&mut holdings, 101, Proof::OfAddress, 500);
        let office = |source| {
            let proving = if source == SourceScope::V4(101) { 600 } else { 0 };
            Claim { usual: Entries { proving, other: 0 }, came_before: false }
        };
        let parts = holdings.parts(office, room(600));
        assert_eq!(parts, Parts { proving: Some(40), ..Parts::default() });
        let above = holdings.above(parts, office, &HashMap::new());
        assert_eq!(
            above,
            HashMap::from([(SourceScope::V4(100), Excess { proving: 460, other: 0 })])
        );
    }

    /// Fails when bots that hold one connection each put those above their part that hold a few, and
    /// were there before.
    #[test]
    fn a_crowd_of_newcomers_reduces_the_parts_of_newcomers_only() {
        let mut holdings = Holdings::default();
        for client in 0..30 {
            hold(&mut holdings, client, Proof::OfAddress, 10);
        }
        (100..1100).for_each(|bot| hold(&mut holdings, bot, Proof::OfAddress, 1));
        let claim =
            |source| Claim { came_before: source < SourceScope::V4(20), ..Claim::default() };
        let parts = holdings.parts(claim, room(1000));
        let least = Some(TUNING.least_part);
        assert_eq!(parts, Parts { before: None, proving: least, other: None });
        let above = holdings.above(parts, claim, &HashMap::new());
        assert_eq!(above.len(), 10);
        assert!((20..30).all(|client| above[&SourceScope::V4(client)].proving == 6));
        // They have half of the room, and share it evenly.
        hold(&mut holdings, 0, Proof::OfAddress, 500);
        let parts = holdings.parts(claim, room(1000));
        assert_eq!(parts.before, Some(310));
    }

    #[test]
    fn who_was_above_its_part_is_until_it_holds_an_eighth_less() {
        let above = |held, marked: &HashMap<SourceScope, Excess>| {
            let mut holdings = Holdings::default();
            for (proof, source) in [(Proof::OfAddress, 1), (Proof::None, 2)] {
                hold(&mut holdings, source, proof, held);
            }
            let parts = Parts { before: None, proving: Some(80), other: Some(80) };
            holdings.above(parts, NEW, marked)
        };
        assert!(above(80, &HashMap::new()).is_empty());
        let marks = above(81, &HashMap::new());
        let excess = [(1, 1, 0), (2, 0, 1)];
        assert_eq!(marks, excesses(excess));
        assert_eq!(above(80, &marks), excesses(excess.map(|(n, p, o)| (n, 10 * p, 10 * o))));
        assert!(above(70, &marks).is_empty());
    }

    fn excesses<const N: usize>(of: [(u32, u32, u32); N]) -> HashMap<SourceScope, Excess> {
        of.map(|(source, proving, other)| (SourceScope::V4(source), Excess { proving, other }))
            .into()
    }

    #[test]
    fn nobody_is_above_its_part_while_all_fits() {
        let mut holdings = Holdings::default();
        hold(&mut holdings, 1, Proof::OfAddress, 100);
        assert_eq!(holdings.parts(NEW, room(100)), Parts::default());
        assert_ne!(holdings.parts(NEW, room(99)), Parts::default());
    }

    /// Fails when somebody who sends in a victim's name puts it above its part, or reduces the part
    /// of sources that completed handshakes to less than their half.
    #[test]
    fn spoofed_packets_put_nobody_above_the_part_of_connections() {
        let mut holdings = Holdings::default();
        for client in 0..10 {
            hold(&mut holdings, client, Proof::OfAddress, 50);
        }
        let parts = holdings.parts(NEW, room(1000));
        assert_eq!(parts, Parts::default());
        for spoofed in 0..2000 {
            hold(&mut holdings, 1000 + spoofed, Proof::None, 1);
        }
        hold(&mut holdings, 1, Proof::None, 5000);
        let parts = holdings.parts(NEW, room(1000));
        assert_eq!(parts.proving, None);
        let above = holdings.above(parts, NEW, &HashMap::new());
        let victim = above[&SourceScope::V4(1)];
        assert_eq!((above.len(), victim.proving), (1, 0));
        assert!(victim.other > 4900);
    }
}
