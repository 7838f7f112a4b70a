//! Conntrack's counters: `/proc/net/stat/nf_conntrack` has the columns' names and a line for each CPU,
//! in hexadecimal (`ct_cpu_seq_show`, `net/netfilter/nf_conntrack_standalone.c`).
//!
//! The network stack's counters have the names that `nstat` uses: `/proc/net/snmp` and
//! `/proc/net/netstat` (a line of names above a line of numbers), `/proc/net/snmp6` (a name and a
//! number a line), and each CPU's backlog in `/proc/net/softnet_stat` (`softnet_seq_show`,
//! `net/core/net-procfs.c`).

use std::collections::BTreeMap;

use super::machine::{Host, Unread};
use ctguard_kernel::net::conntrack_counters;

pub const STATISTICS: &str = "/proc/net/stat/nf_conntrack";

/// The same counters, where the kernel was built without that file.
const CTNETLINK: &str = "ctnetlink: counters of each CPU";

const SNMP: &str = "/proc/net/snmp";
const SNMP6: &str = "/proc/net/snmp6";
pub const NETSTAT: &str = "/proc/net/netstat";
pub const SOFTNET: &str = "/proc/net/softnet_stat";
pub const BACKLOG_FULL: &str = "SoftnetDropped";
/// How often a CPU used up its receive budget.
pub const SQUEEZED: &str = "SoftnetSqueezed";

/// Sums over all CPUs, since conntrack was loaded into this namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    pub(crate) sums: BTreeMap<String, u64>,
    over_ctnetlink: bool,
    /// Linux 4.8 to 5.9 count a flow that lost a race as a drop too, as later ones do, and have no
    /// column for races that were resolved (`nf_ct_resolve_clash`).
    counts_races: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Dropped new flows, including those that could not be inserted (`nf_ct_resolve_clash`,
    /// `net/netfilter/nf_conntrack_core.c`).
    drop: u64,
    not_inserted: u64,
    early_drop: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// New flows dropped because the table was full.
    pub dropped: u64,
    /// Entries evicted to make room.
    pub early_dropped: u64,
}

impl Losses {
    pub fn in_all(self) -> Lost {
        self.since(Self::default())
    }

    /// What was lost since then; everything if the counters have started again with the module.
    pub fn since(self, before: Self) -> Lost {
        let began_anew = self.drop < before.drop || self.early_drop < before.early_drop;
        let before = if began_anew { Self::default() } else { before };
        let not_inserted = self.not_inserted.saturating_sub(before.not_inserted);
        Lost {
            // Some are not inserted but not dropped, such as one that expired meanwhile.
            dropped: (self.drop - before.drop).saturating_sub(not_inserted),
            early_dropped: self.early_drop - before.early_drop,
        }
    }
}

impl Statistics {
    /// None where neither the file nor ctnetlink has them.
    pub fn read(host: &Host) -> Result<Option<Self>, Unread> {
        let Some(text) = host.text(STATISTICS)? else {
            return Ok(if host.is_this() { Self::over_ctnetlink() } else { None });
        };
        let read =
            Self::parse(&text).ok_or_else(|| Unread::new(STATISTICS, "a line is garbled"))?;
        let release = host.release()?;
        let counts_races = release.is_some_and(|release| ((4, 8)..(5, 10)).contains(&release));
        Ok(Some(Self { counts_races, ..read }))
    }

    fn over_ctnetlink() -> Option<Self> {
        let sums = conntrack_counters().ok().filter(|sums| !sums.is_empty())?;
        Some(Self { sums, over_ctnetlink: true, ..Self::default() })
    }

    pub const fn place(&self) -> &'static str {
        if self.over_ctnetlink { CTNETLINK } else { STATISTICS }
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let names: Vec<_> = lines.next()?.split_whitespace().collect();
        let mut sums = BTreeMap::new();
        for line in lines {
            for (name, number) in names.iter().zip(line.split_whitespace()) {
                let number = u64::from_str_radix(number, 16).ok()?;
                let sum: &mut u64 = sums.entry((*name).to_owned()).or_default();
                // The same in each CPU's line.
                *sum = if *name == "entries" { number } else { sum.saturating_add(number) };
            }
        }
        Some(Self { sums, ..Self::default() })
    }

    pub fn of_stack(host: &Host) -> Result<Self, Unread> {
        let mut counters = Self::default();
        for file in [SNMP, NETSTAT] {
            let text = host.text(file)?.unwrap_or_default();
            let mut lines = text.lines();
            while let (Some(names), Some(numbers)) = (lines.next(), lines.next()) {
                counters.sums.extend(pairs(names, numbers));
            }
        }
        let text = host.text(SNMP6)?.unwrap_or_default();
        counters.sums.extend(text.lines().filter_map(|line| {
            let (name, number) = line.split_once(char::is_whitespace)?;
            Some((name.to_owned(), number.trim().parse().ok()?))
        }));
        let text = host.text(SOFTNET)?.unwrap_or_default();
        for (name, column) in [(BACKLOG_FULL, 1), (SQUEEZED, 2)] {
            let numbers = text.lines().filter_map(|line| line.split_whitespace().nth(column));
            let numbers = numbers.filter_map(|number| u64::from_str_radix(number, 16).ok());
            counters.sums.extend([(name.to_owned(), numbers.sum())]);
        }
        Ok(counters)
    }

    pub fn has(&self, column: &str) -> bool {
        self.sums.contains_key(column)
    }

    pub fn losses(&self) -> Losses {
        // Other kernels do not count these as drops, and none does where a chain was too long.
        let counts = self.counts_races || self.has("clashres");
        let counts_as_drop = if counts { self.get("insert_failed") } else { 0 };
        let not_inserted = counts_as_drop.saturating_sub(self.get("chainlength"));
        Losses { drop: self.get("drop"), not_inserted, early_drop: self.get("early_drop") }
    }

    /// 0 where this kernel does not have the column.
    pub fn get(&self, column: &str) -> u64 {
        self.sums.get(column).copied().unwrap_or(0)
    }
}

/// `Ip: Forwarding InReceives` above `Ip: 1 4711`; values that are no count, such as −1, are skipped.
fn pairs<'t>(names: &'t str, numbers: &'t str) -> impl Iterator<Item = (String, u64)> + 't {
    let mut names = names.split_whitespace();
    let protocol = names.next().unwrap_or_default().trim_end_matches(':');
    names
        .zip(numbers.split_whitespace().skip(1))
        .filter_map(move |(name, number)| Some((format!("{protocol}{name}"), number.parse().ok()?)))
}

#[cfg(test)]
mod tests {
    use ctguard_datapath::packet::protocol::UDP;

    use super::{super::testing::Fake, *};
    use ctguard_kernel::conntrack::testing::{TestTable, Wanted, fill, status};

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

    fn losses(text: &str) -> Losses {
        Statistics::parse(text).unwrap().losses()
    }

    /// Fails when a flow that lost a race is told as one that found the table full, or when one that
    /// is not inserted makes a million drops of before seem new.
    #[test]
    fn what_was_not_inserted_is_no_loss_for_want_of_room() {
        let before = losses("clashres insert_failed drop early_drop\n0 2 100 5\n");
        let lost = |text: &str| losses(text).since(before);
        let header = "clashres insert_failed drop early_drop\n";
        assert_eq!(lost(&format!("{header}0 3 100 5\n")), Lost::default());
        let now = lost(&format!("{header}0 3 105 6\n"));
        assert_eq!((now.dropped, now.early_dropped), (4, 1));
        assert_eq!(
            losses("searched insert_failed drop early_drop\n0 9 10 0\n").in_all().dropped,
            16
        );
    }

    #[test]
    fn counters_that_began_anew_count_from_nothing() {
        let before = losses("clashres insert_failed drop early_drop\n0 0 100 5\n");
        let now = losses("clashres insert_failed drop early_drop\n0 1 3 0\n").since(before);
        assert_eq!((now.dropped, now.early_dropped), (2, 0));
    }

    /// Fails when a counter has another's number.
    #[test]
    fn ctnetlink_tells_what_the_file_tells() {
        let test = "ctnetlink_tells_what_the_file_tells";
        let Some(table) = TestTable::make(test) else { return };
        table.run(|| {
            let flow =
                |port| Wanted::new(UDP, ("192.0.2.1", port), ("198.51.100.1", 53), status::REPLIED);
            fill((1000..1020).map(flow));
            let shown = std::fs::read_to_string("/proc/thread-self/net/stat/nf_conntrack").unwrap();
            let file = Statistics::parse(&shown).unwrap();
            let told = Statistics::over_ctnetlink().unwrap();
            assert!(told.get("insert") >= 20, "{told:?}");
            for (name, sum) in &told.sums {
                assert_eq!(file.get(name), *sum, "{name}");
            }
        });
    }

    #[test]
    fn counters_have_the_names_that_nstat_uses() {
        let fake = Fake::new(
            "stack",
            &[
                (SNMP, "Ip: Forwarding InReceives\nIp: 1 4711\nTcp: MaxConn\nTcp: -1\n"),
                (NETSTAT, "TcpExt: SyncookiesSent ListenOverflows\nTcpExt: 2 3\n"),
                (SNMP6, "Ip6ReasmFails                   \t5\n"),
                (SOFTNET, "00000009 0000000a 00000002\n00000009 00000001 00000000\n"),
            ],
        );
        let counters = Statistics::of_stack(&fake.host).unwrap();
        let get = |name| counters.get(name);
        assert_eq!((get("IpInReceives"), get("TcpExtListenOverflows")), (4711, 3));
        assert_eq!((get("Ip6ReasmFails"), get(BACKLOG_FULL), get(SQUEEZED)), (5, 11, 2));
        assert!(!counters.has("TcpMaxConn"));
    }

    #[test]
    fn files_that_are_not_there_count_nothing() {
        let fake = Fake::new("stack-none", &[]);
        assert_eq!(Statistics::of_stack(&fake.host).unwrap().get("IpInReceives"), 0);
    }
}
