//! Conntrack's counters over ctnetlink, which tells them also where the kernel was built without
//! `CONFIG_NF_CONNTRACK_PROCFS`, as distributions do.

use std::{collections::BTreeMap, io};

use rustix::net::netlink;

use super::{link::attributes_of, netlink::request_of};

/// `NFNL_SUBSYS_CTNETLINK << 8` with `IPCTNL_MSG_CT_GET_STATS_CPU`.
const GET: u16 = 0x104;
/// `struct nfgenmsg`.
const HEADER_LENGTH: usize = 4;

/// `enum ctattr_stats_cpu` (`include/uapi/linux/netfilter/nfnetlink_conntrack.h`), by the names that
/// the columns of `/proc/net/stat/nf_conntrack` have.
const NAMES: [(u16, &str); 10] = [
    (2, "found"),
    (4, "invalid"),
    (8, "insert"),
    (9, "insert_failed"),
    (10, "drop"),
    (11, "early_drop"),
    (12, "icmp_error"),
    (13, "search_restart"),
    (14, "clashres"),
    (15, "chainlength"),
];

/// Sums over all CPUs, in this network namespace; without those that this kernel does not tell.
pub fn conntrack_counters() -> io::Result<BTreeMap<String, u64>> {
    let mut sums = BTreeMap::new();
    for answer in request_of(Some(netlink::NETFILTER), GET, true, &[0; HEADER_LENGTH])? {
        let attributes = answer.payload.get(HEADER_LENGTH..).unwrap_or_default();
        for (kind, value) in attributes_of(attributes) {
            let name = NAMES.iter().find(|(number, _)| *number == kind).map(|(_, name)| *name);
            let number = value.try_into().ok().map(u32::from_be_bytes);
            if let (Some(name), Some(number)) = (name, number) {
                *sums.entry(name.to_owned()).or_default() += u64::from(number);
            }
        }
    }
    Ok(sums)
}
