//! Fairness between networks: one host with a routed /48 has as many sources as it likes.

use std::cmp::Reverse;

use super::sources::SourceScope;

/// The /24 or /48 of a source.
const fn network(source: SourceScope) -> u64 {
    match source {
        SourceScope::V4(address) => (address >> 8) as u64,
        SourceScope::V6(prefix) => 1 << 63 | prefix >> 16,
    }
}

/// A turn, a rank, and the place of an item: sorted by turns, higher ranks first.
pub(crate) type Turn<R> = (u32, Reverse<R>, u32);

/// In turn 0 comes the item of each network that ranks highest, in turn 1 the second, and so on.
///
/// Whatever number is taken in the order of the turns, each network gets its max-min fair part.
pub(crate) fn turns<I, R: Ord>(
    items: &[I],
    source: impl Fn(&I) -> SourceScope,
    rank: impl Fn(&I) -> R,
) -> Vec<Turn<R>> {
    let key = |(item, place)| (network(source(item)), Reverse(rank(item)), place);
    let mut by_network: Vec<(u64, Reverse<R>, u32)> = items.iter().zip(0..).map(key).collect();
    by_network.sort_unstable();
    let (mut turn, mut last) = (0, None);
    let turns = by_network.into_iter().map(|(network, rank, place)| {
        turn = if last == Some(network) { turn + 1 } else { 0 };
        last = Some(network);
        (turn, rank, place)
    });
    turns.collect()
}

/// Leaves the first `most` of the items in the order of their turns.
pub(crate) fn cut<I, R: Ord>(
    items: &mut Vec<I>,
    most: usize,
    source: impl Fn(&I) -> SourceScope,
    rank: impl Fn(&I) -> R,
) {
    if items.len() <= most {
        return;
    }
    let mut turns = turns(items, source, rank);
    turns.select_nth_unstable(most);
    let mut is_kept = vec![false; items.len()];
    for &(.., place) in &turns[..most] {
        is_kept[place as usize] = true;
    }
    let mut is_kept = is_kept.into_iter();
    items.retain(|_| is_kept.next() == Some(true));
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::testing::Random;

    /// Against turns that are taken one by one.
    #[test]
    fn whatever_is_cut_leaves_each_network_its_turns() {
        let mut random = Random::new(3);
        for _ in 0..200 {
            let count = 1 + random.below(60);
            let items: Vec<(SourceScope, u32)> = (0..count)
                .map(|host| {
                    let network = random.below(1 + random.clone().below(8));
                    let source = match host % 2 {
                        0 => SourceScope::V4(network << 8 | host),
                        _ => SourceScope::V6(u64::from(network) << 16 | u64::from(host)),
                    };
                    (source, random.below(5) * 100 + host)
                })
                .collect();
            let most = random.below(count + 5) as usize;
            let mut expected = turns_one_by_one(&items, most);
            let mut kept = items;
            cut(&mut kept, most, |&(source, _)| source, |&(_, rank)| rank);
            expected.sort_unstable();
            kept.sort_unstable();
            assert_eq!(kept, expected);
        }
    }

    fn turns_one_by_one(items: &[(SourceScope, u32)], most: usize) -> Vec<(SourceScope, u32)> {
        let mut networks = BTreeMap::<_, Vec<_>>::new();
        for &(source, rank) in items {
            networks.entry(network(source)).or_default().push((Reverse(rank), source));
        }
        for items in networks.values_mut() {
            items.sort_unstable_by(|one, other| other.cmp(one));
        }
        let mut kept = Vec::new();
        while kept.len() < most {
            let mut turn: Vec<_> = networks.values_mut().filter_map(Vec::pop).collect();
            if turn.is_empty() {
                break;
            }
            turn.sort_unstable();
            kept.extend(turn.into_iter().take(most - kept.len()).map(|(rank, s)| (s, rank.0)));
        }
        kept
    }

    #[test]
    fn a_routed_48_does_not_take_the_places_of_others() {
        let host = (0..10_000).map(|subnet| SourceScope::V6(0x2001_0db8_0000_0000 | subnet));
        let others = (0..50).map(|other| SourceScope::V4(other << 8));
        let mut kept = host.chain(others.clone()).collect();
        cut(&mut kept, 100, |&source| source, |_| 0);
        assert!(others.into_iter().all(|other| kept.contains(&other)));
        assert_eq!(kept.len(), 100);
    }
}
