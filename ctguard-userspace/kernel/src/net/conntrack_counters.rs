//! Conntrack's counters over ctnetlink, which has them even if the kernel was built without
//! `CONFIG_NF_CONNTRACK_PROCFS`, as distributions do.

use std::{collections::BTreeMap, io};

use netlink_packet_core::parse_u32_be;
use rustix::net::netlink;

use super::{
    attribute::attributes,
    netlink::{NFGENMSG_LENGTH, dump},
};

/// `NFNL_SUBSYS_CTNETLINK << 8` with `IPCTNL_MSG_CT_GET_STATS_CPU`.
const GET: u16 = 0x104;

/// `enum ctattr_stats_cpu` (`include/uapi/linux/netfilter/nfnetlink_conntrack.h`), with the names of
/// the columns in `/proc/net/stat/nf_conntrack`.
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

/// Sums over all CPUs of those counters that this kernel has.
pub fn conntrack_counters() -> io::Result<BTreeMap<String, u64>> {
    let mut sums = BTreeMap::new();
    for cpu in dump(Some(netlink::NETFILTER), GET, &[0; NFGENMSG_LENGTH])? {
        for (kind, value) in attributes(cpu.get(NFGENMSG_LENGTH..).unwrap_or_default()) {
            let name = NAMES.iter().find(|(number, _)| *number == kind);
            if let (Some((_, name)), Ok(number)) = (name, parse_u32_be(value)) {
                *sums.entry((*name).to_owned()).or_default() += u64::from(number);
            }
        }
    }
    Ok(sums)
}
