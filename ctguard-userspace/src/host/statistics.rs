//! Conntrack's counters: `/proc/net/stat/nf_conntrack`, a line for each CPU, in hexadecimal, columns
//! by their names in the first (`ct_cpu_seq_show`, `net/netfilter/nf_conntrack_standalone.c`).

use std::collections::BTreeMap;

use super::{Host, Unread};

pub(crate) const STATISTICS: &str = "/proc/net/stat/nf_conntrack";

/// Sums over all CPUs, since conntrack was loaded into this namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Statistics(BTreeMap<String, u64>);

impl Statistics {
    /// None where the kernel has no such file.
    pub(crate) fn read(host: &Host) -> Result<Option<Self>, Unread> {
        let Some(text) = host.text(STATISTICS)? else { return Ok(None) };
        Self::parse(&text).map(Some).ok_or_else(|| Unread::new(STATISTICS, "a line is garbled"))
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let names: Vec<_> = lines.next()?.split_whitespace().collect();
        let mut sums = BTreeMap::new();
        for line in lines {
            for (name, number) in names.iter().zip(line.split_whitespace()) {
                let number = u64::from_str_radix(number, 16).ok()?;
                let sum: &mut u64 = sums.entry((*name).to_owned()).or_default();
                // The one column that each CPU shows whole.
                *sum = if *name == "entries" { number } else { sum.saturating_add(number) };
            }
        }
        Some(Self(sums))
    }

    /// Counters of other files, added to these.
    pub(crate) fn extend(&mut self, counters: impl IntoIterator<Item = (String, u64)>) {
        self.0.extend(counters);
    }

    /// Whether this kernel has the column.
    pub(crate) fn has(&self, column: &str) -> bool {
        self.0.contains_key(column)
    }

    /// New flows dropped for a full table. One that could not be inserted is counted as dropped as
    /// well (`nf_ct_resolve_clash`, `net/netfilter/nf_conntrack_core.c`), and is none of them.
    pub(crate) fn dropped_for_room(&self) -> u64 {
        self.get("drop").saturating_sub(self.get("insert_failed"))
    }

    /// A column's sum; 0 where this kernel does not have it.
    pub(crate) fn get(&self, column: &str) -> u64 {
        self.0.get(column).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_summed_over_cpus_by_name_and_entries_are_not() {
        let text = "entries  clashres drop early_drop\n0000000a 00000001 00000010 00000000\n\
                    0000000a 00000002 000000ff 00000003\n";
        let found = Statistics::parse(text).unwrap();
        assert_eq!(found.get("entries"), 10);
        assert_eq!(found.get("drop"), 0x10f);
        assert_eq!(found.get("early_drop"), 3);
        assert_eq!(found.get("chainlength"), 0);
        assert_eq!(Statistics::parse("entries\nxyz\n"), None);
    }
}
