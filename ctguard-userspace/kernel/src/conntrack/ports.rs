//! Finds the protocols with ports whose flows this kernel tells apart by addresses alone, because it
//! has no tracker for them: UDP-Lite from Linux 7.1 on, DCCP on 6.18, others as it was built.

use ctguard_datapath::packet::protocol;
use rustix::net::netlink;

use super::dump::GET;
use crate::net::{attribute, emitted, nested, netlink::request};

/// TCP, UDP and ICMP always have a tracker.
const MAY_LACK_ONE: [u8; 4] = [protocol::SCTP, protocol::DCCP, protocol::UDPLITE, protocol::GRE];
const UNSPECIFIED: [u8; 4] = [0; 4];

/// Empty if the kernel cannot be asked.
pub(super) fn protocols_without_ports() -> Vec<u8> {
    MAY_LACK_ONE.into_iter().filter(|number| takes_no_ports(*number)).collect()
}

/// Asks about an entry between two addresses that no packet has. A tracker refuses a tuple without
/// ports (`nf_ct_port_nlattr_to_tuple`); without one, such an entry may exist, but does not.
fn takes_no_ports(number: u8) -> bool {
    let addresses = [attribute(1, &UNSPECIFIED), attribute(2, &UNSPECIFIED)];
    let tuple = [nested(1, &addresses), nested(2, &[attribute(1, &[number])])];
    let mut body = vec![libc::AF_INET.to_le_bytes()[0], 0, 0, 0];
    body.extend(emitted(&[nested(1, &tuple)]));
    let answer = request(Some(netlink::NETFILTER), GET, &body);
    answer.is_err_and(|error| error.raw_os_error() == Some(libc::ENOENT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conntrack::{
        dump, testing,
        testing::{TestTable, Wanted, status},
    };

    /// Fails when the probe and the table disagree on which protocols have ports.
    #[test]
    fn protocols_without_a_tracker_have_entries_without_ports() {
        let Some(table) = TestTable::make("protocols_without_a_tracker") else { return };
        let (asked, mut seen) = table.run(|| {
            let ends = (("192.0.2.1", 7), ("198.51.100.1", 9));
            let wanted = [protocol::SCTP, protocol::DCCP, protocol::UDPLITE]
                .map(|number| Wanted::new(number, ends.0, ends.1, status::UNREPLIED));
            testing::fill(wanted.into_iter());
            let mut seen = Vec::new();
            dump(|entry| {
                if entry.original.key == 0 {
                    seen.push(entry.protocol);
                }
            })
            .unwrap();
            (protocols_without_ports(), seen)
        });
        seen.sort_by_key(|number| MAY_LACK_ONE.iter().position(|it| it == number));
        assert_eq!(asked, seen);
    }
}
