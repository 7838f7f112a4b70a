//! Writes changes into the data path's set of known sources.

use ctguard_datapath::{
    place::Place,
    sources::{self, Insertion, LINES, SourceSet},
    verifier::OpaqueZero,
};
use ctguard_layout::HashKey;

use crate::sources::{Changes, KnownSources, SourceScope};

/// Writes `changes`, and updates `written` to what the set then holds. Returns the sources that found
/// no room, because both of their lines are full.
pub fn apply<S: SourceSet>(
    set: &S,
    key: &HashKey,
    changes: Changes,
    written: &mut KnownSources,
) -> Vec<SourceScope> {
    let place = |source: SourceScope| Place::of(source.hash(key), LINES - 1, OpaqueZero::new(0));
    let is_fewer = !changes.removed.is_empty();
    for source in changes.removed {
        sources::remove(set, place(source));
        written.remove(&source);
    }
    if is_fewer {
        sources::summarize(set);
    }
    let mut left_out = Vec::new();
    for (source, tiers) in changes.written {
        match sources::insert(set, place(source), tiers) {
            Insertion::Inserted | Insertion::Changed => {
                written.insert(source, tiers);
            }
            Insertion::Full => left_out.push(source),
        }
    }
    left_out
}

#[cfg(test)]
mod tests {
    use ctguard_datapath::sources::{Tiers, testing::Set};

    use super::*;
    use crate::sources::sync;

    const KEY: HashKey = HashKey { words: [0x9e37_79b9_7f4a_7c15; 12] };

    fn find(set: &Set, source: SourceScope) -> Option<Tiers> {
        let place = Place::of(source.hash(&KEY), LINES - 1, OpaqueZero::new(0));
        sources::find(set, place).map(|known| known.tiers)
    }

    #[test]
    fn the_set_follows_who_is_known() {
        let (set, mut written) = (Set::default(), KnownSources::new());
        let [one, two] = [SourceScope::V4(1), SourceScope::V6(2)];
        for new in [
            KnownSources::from([(one, Tiers::PROVEN)]),
            KnownSources::from([(one, Tiers::REGULAR), (two, Tiers::PROVEN)]),
            KnownSources::from([(two, Tiers::PROVEN)]),
        ] {
            let changes = sync(&written, &new);
            assert_eq!(apply(&set, &KEY, changes, &mut written), []);
            assert_eq!(written, new);
            assert_eq!(find(&set, one), new.get(&one).copied());
            assert_eq!(find(&set, two), new.get(&two).copied());
        }
    }

    #[test]
    fn who_finds_no_room_is_told_and_not_taken_for_written() {
        let (set, mut written) = (Set::default(), KnownSources::new());
        set.lines.iter().flat_map(|line| &line.slots).for_each(|slot| slot.store(u64::MAX));
        let one = SourceScope::V4(1);
        let changes = sync(&written, &KnownSources::from([(one, Tiers::REGULAR)]));
        assert_eq!(apply(&set, &KEY, changes, &mut written), [one]);
        assert!(written.is_empty());
    }
}
