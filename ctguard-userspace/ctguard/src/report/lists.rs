//! What `ctguard allow list` prints; expired entries are left out.

use std::{
    io::{self, Write},
    time::Duration,
};

use serde::Serialize;

use super::SCHEMA_VERSION;
use ctguard_kernel::maps::Entry;

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
}

impl ListReport {
    /// `now` is in jiffies.
    pub(crate) fn new(entries: &[Entry], now: u64, jiffies_per_second: u32) -> Self {
        let per_second = u64::from(jiffies_per_second.max(1));
        let left = |at: u64| (at != 0).then(|| (at - now).div_ceil(per_second));
        let live = entries.iter().filter(|entry| entry.is_live(now));
        let entries = live.map(|entry| ListedPrefix {
            prefix: entry.prefix.to_string(),
            remaining_seconds: left(entry.expires_at),
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
            writeln!(out, "{}{}", entry.prefix, left.unwrap_or_default())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ended_is_left_out() {
        let entry =
            |prefix: &str, expires_at| Entry { prefix: prefix.parse().unwrap(), expires_at };
        let entries =
            [entry("192.0.2.1/32", 0), entry("192.0.2.2/32", 999), entry("192.0.2.3/32", 1250)];

        let report = ListReport::new(&entries, 1000, 250);

        let mut text = Vec::new();
        report.write_text(&mut text).unwrap();
        assert_eq!(String::from_utf8(text).unwrap(), "192.0.2.1/32\n192.0.2.3/32 for 1s\n");
    }
}
