//! What `ctguard allow list` prints; expired entries are left out.

use std::{
    io::{self, Write},
    time::Duration,
};

use serde::Serialize;

use super::SCHEMA_VERSION;
use crate::feeds::FeedsStatus;
use ctguard_kernel::maps::{Entry, FeedListed};

#[derive(Debug, Serialize)]
pub(crate) struct ListReport {
    schema_version: u32,
    entries: Vec<ListedPrefix>,
}

#[derive(Debug, Serialize)]
struct ListedPrefix {
    prefix: String,
    /// Null for an entry that does not expire.
    remaining_seconds: Option<u64>,
    /// Those that list it; none for an entry of the operator.
    feeds: Vec<String>,
}

impl ListReport {
    /// `now` is in jiffies.
    pub(crate) fn new(
        own: &[Entry],
        (of_feeds, feeds): (&[FeedListed], &FeedsStatus),
        now: u64,
        jiffies_per_second: u32,
    ) -> Self {
        let per_second = u64::from(jiffies_per_second.max(1));
        let own = own.iter().map(|entry| (*entry, Vec::new()));
        let of_feeds = of_feeds.iter().map(|&FeedListed { prefix, expires_at, feeds: bits }| {
            let names = feeds.names(bits).into_iter().map(str::to_owned);
            (Entry { prefix, expires_at }, names.collect())
        });
        let live = own.chain(of_feeds).filter(|(entry, _)| entry.is_live(now));
        let entries = live.map(|(Entry { prefix, expires_at: at }, feeds)| ListedPrefix {
            prefix: prefix.to_string(),
            remaining_seconds: (at != 0).then(|| (at - now).div_ceil(per_second)),
            feeds,
        });
        Self { schema_version: SCHEMA_VERSION, entries: entries.collect() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) fn write_text(&self, out: &mut impl Write) -> io::Result<()> {
        self.entries.iter().try_for_each(|entry| {
            let left = entry.remaining_seconds.map(Duration::from_secs);
            let left = left.map(|left| format!(" for {}", humantime::format_duration(left)));
            let feeds = &entry.feeds;
            let feeds = match feeds.len() {
                0 => String::new(),
                1 => format!(" (feed {})", feeds[0]),
                _ => format!(" (feeds {})", feeds.join(", ")),
            };
            writeln!(out, "{}{}{feeds}", entry.prefix, left.unwrap_or_default())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feeds::FeedStatus;

    fn feed(name: &str, slot: u32) -> FeedStatus {
        FeedStatus { name: name.to_owned(), slot, ..FeedStatus::default() }
    }

    #[test]
    fn what_ended_is_left_out_and_feeds_are_named() {
        let entry =
            |prefix: &str, expires_at| Entry { prefix: prefix.parse().unwrap(), expires_at };
        let entries =
            [entry("192.0.2.1/32", 0), entry("192.0.2.2/32", 999), entry("192.0.2.3/32", 1250)];

        let feeds = [FeedListed { prefix: entries[0].prefix, expires_at: 0, feeds: 3 }];
        let status = FeedsStatus { feeds: vec![feed("b", 1), feed("a", 0)], fault: None };

        let report = ListReport::new(&entries, (&feeds, &status), 1000, 250);

        let mut text = Vec::new();
        report.write_text(&mut text).unwrap();
        let expected = "192.0.2.1/32\n192.0.2.3/32 for 1s\n192.0.2.1/32 (feeds b, a)\n";
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }
}
