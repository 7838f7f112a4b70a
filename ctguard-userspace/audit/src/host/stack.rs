//! Counters of the network stack in this namespace, under the names that `nstat` uses:
//! `/proc/net/snmp` and `/proc/net/netstat` (a line of names above a line of numbers),
//! `/proc/net/snmp6` (a name and a number a line), and each CPU's backlog in
//! `/proc/net/softnet_stat` (`softnet_seq_show`, `net/core/net-procfs.c`).

use super::{
    machine::{Host, Unread},
    statistics::Statistics,
};

const SNMP: &str = "/proc/net/snmp";
const SNMP6: &str = "/proc/net/snmp6";
pub const NETSTAT: &str = "/proc/net/netstat";
pub const SOFTNET: &str = "/proc/net/softnet_stat";
pub const BACKLOG_FULL: &str = "SoftnetDropped";
/// How often a CPU used up its receive budget.
pub const SQUEEZED: &str = "SoftnetSqueezed";

impl Statistics {
    pub fn of_stack(host: &Host) -> Result<Self, Unread> {
        let mut counters = Self::default();
        for file in [SNMP, NETSTAT] {
            let text = host.text(file)?.unwrap_or_default();
            let mut lines = text.lines();
            while let (Some(names), Some(numbers)) = (lines.next(), lines.next()) {
                counters.extend(pairs(names, numbers));
            }
        }
        let text = host.text(SNMP6)?.unwrap_or_default();
        counters.extend(text.lines().filter_map(|line| {
            let (name, number) = line.split_once(char::is_whitespace)?;
            Some((name.to_owned(), number.trim().parse().ok()?))
        }));
        let text = host.text(SOFTNET)?.unwrap_or_default();
        for (name, column) in [(BACKLOG_FULL, 1), (SQUEEZED, 2)] {
            let numbers = text.lines().filter_map(|line| line.split_whitespace().nth(column));
            let numbers = numbers.filter_map(|number| u64::from_str_radix(number, 16).ok());
            counters.extend([(name.to_owned(), numbers.sum())]);
        }
        Ok(counters)
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
    use super::{super::testing::Fake, *};

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
