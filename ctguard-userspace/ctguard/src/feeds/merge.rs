//! What all feeds list together, and how the maps get there.

use ctguard_kernel::maps::{Entry, FeedListed};
use ctguard_layout::FeedEntry;
use ipnet::IpNet;

/// What the maps have to do, in this order: no prefix that stays is missing in between.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    pub(super) put: Vec<FeedListed>,
    pub(super) remove: Vec<IpNet>,
}

/// Each prefix once, with the longest time that it is listed for.
pub(super) fn sorted(mut entries: Vec<Entry>) -> Vec<Entry> {
    entries.sort_unstable_by_key(|entry| entry.prefix);
    entries.dedup_by(|later, first| {
        let is_same = later.prefix == first.prefix;
        if is_same {
            first.expires_at = later_end(first.expires_at, later.expires_at);
        }
        is_same
    });
    entries
}

/// What holds at `now` of what feeds list, each with its bit. A prefix within another that lasts as long
/// is left out: the data path looks at the longest prefix alone, and one that ended would hide the other.
pub(super) fn union<'f>(
    feeds: impl IntoIterator<Item = (u32, &'f [Entry])>,
    now: u64,
) -> Vec<FeedListed> {
    let mut all = Vec::new();
    for (feeds, entries) in feeds {
        let live = entries.iter().filter(|entry| entry.is_live(now));
        all.extend(live.map(|&Entry { prefix, expires_at }| FeedListed {
            prefix,
            expires_at,
            feeds,
        }));
    }
    all.sort_unstable_by_key(|listed| listed.prefix);
    all.dedup_by(|later, first| {
        let is_same = later.prefix == first.prefix;
        if is_same {
            first.expires_at = later_end(first.expires_at, later.expires_at);
            first.feeds |= later.feeds;
        }
        is_same
    });
    // Those that hold the prefix, the widest first; each lasts longer than the one before it.
    let mut around: Vec<(IpNet, u64)> = Vec::new();
    all.retain(|listed| {
        while around.pop_if(|(outer, _)| !outer.contains(&listed.prefix)).is_some() {}
        let end = end(listed.expires_at);
        let is_needed = around.last().is_none_or(|(_, outer)| *outer < end);
        if is_needed {
            around.push((listed.prefix, end));
        }
        is_needed
    });
    all
}

/// The family that has more prefixes than a list takes, and how many.
pub(super) fn too_many(wanted: &[FeedListed]) -> Option<(&'static str, usize)> {
    let v4 = wanted.partition_point(|listed| matches!(listed.prefix, IpNet::V4(_)));
    let counts = [("IPv4", v4), ("IPv6", wanted.len() - v4)];
    counts.into_iter().find(|(_, count)| *count > FeedEntry::CAPACITY as usize)
}

/// From what the maps hold to what is `wanted`. Where the end of an entry differs by no more than
/// `slack`, as it does each time that a source tells how long is left, the old one stays.
pub(super) fn changes(held: &[FeedListed], wanted: &mut [FeedListed], slack: u64) -> Changes {
    let mut changes = Changes::default();
    let mut held = held.iter().peekable();
    for listed in wanted {
        while let Some(gone) = held.next_if(|old| old.prefix < listed.prefix) {
            changes.remove.push(gone.prefix);
        }
        let old = held.next_if(|old| old.prefix == listed.prefix);
        if let Some(old) = old
            && old.feeds == listed.feeds
            && end(old.expires_at).abs_diff(end(listed.expires_at)) <= slack
        {
            listed.expires_at = old.expires_at;
            continue;
        }
        changes.put.push(*listed);
    }
    changes.remove.extend(held.map(|gone| gone.prefix));
    changes
}

const fn end(expires_at: u64) -> u64 {
    if expires_at == 0 { u64::MAX } else { expires_at }
}

fn later_end(a: u64, b: u64) -> u64 {
    if end(a) >= end(b) { a } else { b }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(texts: &[(&str, u64)]) -> Vec<Entry> {
        let entry = |&(prefix, expires_at): &(&str, u64)| Entry {
            prefix: prefix.parse().unwrap(),
            expires_at,
        };
        sorted(texts.iter().map(entry).collect())
    }

    fn shown(union: &[FeedListed]) -> Vec<String> {
        let show = |it: &FeedListed| format!("{} {} {:b}", it.prefix, it.expires_at, it.feeds);
        union.iter().map(show).collect()
    }

    #[test]
    fn a_prefix_stays_as_long_as_one_feed_lists_it() {
        let a = entries(&[("192.0.2.7/32", 0), ("192.0.2.8/32", 0)]);
        let b = entries(&[("192.0.2.7/32", 0)]);
        let both = union([(1, &a[..]), (2, &b)], 0);
        assert_eq!(shown(&both), ["192.0.2.7/32 0 11", "192.0.2.8/32 0 1"]);
        let mut without_a = union([(1, &[][..]), (2, &b)], 0);
        let after = changes(&both, &mut without_a, 0);
        assert_eq!(after.remove, ["192.0.2.8/32".parse().unwrap()]);
        assert_eq!(shown(&after.put), ["192.0.2.7/32 0 10"]);
    }

    #[test]
    fn of_several_ends_the_latest_holds() {
        let a = entries(&[("192.0.2.7/32", 50), ("192.0.2.7/32", 70), ("192.0.2.8/32", 9)]);
        let b = entries(&[("192.0.2.7/32", 60), ("192.0.2.8/32", 0)]);
        let both = union([(1, &a[..]), (4, &b)], 0);
        assert_eq!(shown(&both), ["192.0.2.7/32 70 101", "192.0.2.8/32 0 101"]);
    }

    /// Fails when an entry that has ended can hide a wider one that holds.
    #[test]
    fn no_entry_lies_within_one_that_lasts_as_long() {
        let all = entries(&[
            ("192.0.2.0/24", 100),
            ("192.0.2.0/25", 100),
            ("192.0.2.7/32", 50),
            ("192.0.2.8/32", 200),
            ("192.0.2.128/25", 300),
            ("192.0.2.129/32", 250),
            ("192.0.3.0/24", 5),
            ("2001:db8::/32", 0),
            ("2001:db8::1/128", 9),
        ]);
        let left = ["192.0.2.0/24 100 1", "192.0.2.8/32 200 1", "192.0.2.128/25 300 1"];
        let left = left.into_iter().chain(["192.0.3.0/24 5 1", "2001:db8::/32 0 1"]);
        assert_eq!(shown(&union([(1, &all[..])], 0)), left.collect::<Vec<_>>());
        let later = ["192.0.2.8/32 200 1", "192.0.2.128/25 300 1", "2001:db8::/32 0 1"];
        assert_eq!(shown(&union([(1, &all[..])], 100)), later);
    }

    #[test]
    fn what_was_hidden_by_a_wider_prefix_comes_back_when_that_goes() {
        let (a, b) = (entries(&[("192.0.2.0/24", 0)]), entries(&[("192.0.2.7/32", 0)]));
        let before = union([(1, &a[..]), (2, &b)], 0);
        assert_eq!(shown(&before), ["192.0.2.0/24 0 1"]);
        let mut after = union([(1, &[][..]), (2, &b)], 0);
        let Changes { put, remove } = changes(&before, &mut after, 0);
        assert_eq!(shown(&put), ["192.0.2.7/32 0 10"]);
        assert_eq!(remove, ["192.0.2.0/24".parse().unwrap()]);
    }

    #[test]
    fn an_end_that_is_told_a_little_differently_is_no_change() {
        let held = union([(1, &entries(&[("192.0.2.7/32", 1000)])[..])], 0);
        for (end, is_news) in [(1000, false), (1010, false), (990, false), (1011, true), (0, true)]
        {
            let mut wanted = union([(1, &entries(&[("192.0.2.7/32", end)])[..])], 0);
            assert_eq!(changes(&held, &mut wanted, 10) != Changes::default(), is_news, "{end}");
            assert_eq!(wanted[0].expires_at, if is_news { end } else { 1000 });
        }
    }

    #[test]
    fn the_changes_lead_from_any_state_to_any_other() {
        let mut random = 1_u32;
        let mut some = || {
            let mut all = Vec::new();
            for number in 0..64_u32 {
                random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let (is_in, bits) = (random >> 31 == 1, 26 + (random >> 24) % 7);
                let prefix = format!("192.0.2.{}/{bits}", number * 4).parse::<IpNet>().unwrap();
                all.extend(is_in.then_some(Entry { prefix: prefix.trunc(), expires_at: 0 }));
            }
            union([(1, &sorted(all)[..])], 0)
        };
        for _ in 0..200 {
            let (before, mut wanted) = (some(), some());
            let Changes { put, remove } = changes(&before, &mut wanted, 0);
            let mut reached: Vec<_> =
                before.iter().filter(|old| !remove.contains(&old.prefix)).copied().collect();
            reached.retain(|old| put.iter().all(|new| new.prefix != old.prefix));
            reached.extend(&put);
            reached.sort_unstable_by_key(|listed| listed.prefix);
            assert_eq!(reached, wanted);
        }
    }

    #[test]
    fn more_than_a_list_takes_is_found_by_family() {
        let listed = |number: u32| FeedListed {
            prefix: IpNet::new(std::net::Ipv4Addr::from(number).into(), 32).unwrap(),
            expires_at: 0,
            feeds: 1,
        };
        let mut all: Vec<_> = (0..FeedEntry::CAPACITY).map(listed).collect();
        assert_eq!(too_many(&all), None);
        all.push(listed(FeedEntry::CAPACITY));
        assert_eq!(too_many(&all), Some(("IPv4", FeedEntry::CAPACITY as usize + 1)));
    }
}
