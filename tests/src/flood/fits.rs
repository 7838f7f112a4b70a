//! Three parts of a flood that start and stop at random, the same for the same seed.

use std::time::Duration;

use crate::{random::Random, recipe::layout::STRANDS};

/// The parts are the first strands of their flood.
const PARTS: usize = 3;
/// The shortest and the longest time that a part goes on, or rests.
const SPELL_MILLISECONDS: (u32, u32) = (200, 2000);

/// Which parts go on, and until when.
#[derive(Debug)]
pub(super) struct Fits {
    random: Random,
    parts: [(bool, Duration); PARTS],
}

impl Fits {
    pub(super) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        // A flood begins with one part at least.
        let first = random.index(PARTS);
        let parts =
            std::array::from_fn(|part| (part == first || random.once_in(2), spell(&mut random)));
        Self { random, parts }
    }

    /// The parts that take the turns so long after the start; none in a pause of all.
    pub(super) fn parts(&mut self, since_start: Duration) -> Option<[usize; STRANDS]> {
        for (goes_on, until) in &mut self.parts {
            while *until <= since_start {
                *goes_on = !*goes_on;
                *until += spell(&mut self.random);
            }
        }
        let on: Vec<usize> = (0..PARTS).filter(|part| self.parts[*part].0).collect();
        (!on.is_empty()).then(|| std::array::from_fn(|turn| on[turn % on.len()]))
    }
}

fn spell(random: &mut Random) -> Duration {
    let (shortest, longest) = SPELL_MILLISECONDS;
    Duration::from_millis(u64::from(shortest + random.below(longest - shortest)))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn course(seed: u64) -> Vec<Option<[usize; STRANDS]>> {
        let mut fits = Fits::new(seed);
        (0..200).map(|tick| fits.parts(Duration::from_millis(100 * tick))).collect()
    }

    #[test]
    fn every_course_begins_with_a_flood() {
        assert!((0..20).all(|seed| course(seed)[0].is_some()));
    }

    #[test]
    fn the_same_seed_gives_the_same_course_and_another_gives_another() {
        assert_eq!(course(3), course(3));
        assert_ne!(course(3), course(5));
    }

    #[test]
    fn within_twenty_seconds_all_go_on_at_once_and_each_alone_or_paused() {
        for seed in 0..20 {
            let seen: HashSet<usize> = course(seed)
                .iter()
                .map(|parts| parts.map_or(0, |parts| parts.iter().collect::<HashSet<_>>().len()))
                .collect();
            assert!(seen.contains(&PARTS) && seen.len() >= 3, "seed {seed}: {seen:?}");
        }
    }
}
