//! Fairness between networks: one host with a routed /48 has as many sources as it likes.

use std::cmp::Reverse;

use super::sources::SourceScope;

/// The /24 or /48 of a source.
const fn network(source: SourceScope) -> SourceScope {
    match source {
        SourceScope::V4(address) => SourceScope::V4(address & !0xff),
        SourceScope::V6(prefix) => SourceScope::V6(prefix & !0xffff),
    }
}

/// Orders items by turns: the best of each network, then the second best of each, and so on.
///
/// Whatever number is taken from the front, each network gets its max-min fair part of it. Each item
/// comes with its number within its network.
pub(crate) fn by_turns<I, R: Ord>(
    mut items: Vec<I>,
    source: impl Fn(&I) -> SourceScope,
    rank: impl Fn(&I) -> R,
) -> Vec<(usize, I)> {
    let best_first = |item: &I| (Reverse(rank(item)), source(item));
    items.sort_unstable_by_key(|item| (network(source(item)), best_first(item)));
    let (mut turn, mut last) = (0, None);
    let mut turns: Vec<(usize, I)> = items
        .into_iter()
        .map(|item| {
            let network = Some(network(source(&item)));
            turn = if network == last { turn + 1 } else { 0 };
            last = network;
            (turn, item)
        })
        .collect();
    turns.sort_unstable_by_key(|(turn, item)| (*turn, best_first(item)));
    turns
}

/// Leaves `most` of the items at most, the first by turns.
pub(crate) fn cut<I, R: Ord>(
    items: Vec<I>,
    most: usize,
    source: impl Fn(&I) -> SourceScope,
    rank: impl Fn(&I) -> R,
) -> Vec<I> {
    if items.len() <= most {
        return items;
    }
    by_turns(items, source, rank).into_iter().take(most).map(|(_, item)| item).collect()
}
