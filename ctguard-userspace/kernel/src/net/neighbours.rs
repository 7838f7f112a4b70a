//! The unicast addresses that a device receives besides its own, such as those of macvlans in other
//! network namespaces (`rtnl_fdb_dump`, `net/core/rtnetlink.c`).

use std::io;

use super::{attribute::find, netlink::dump};

/// `struct ndmsg`, and where its flags are.
const NDMSG_LENGTH: usize = 12;
const FLAGS: usize = 10;
/// `NTF_SELF`: of the device itself, not of its bridge.
const SELF: u8 = 2;
/// `NDA_LLADDR`.
const ADDRESS: u16 = 2;
/// `AF_BRIDGE`.
const BRIDGE: u32 = 7;

pub(super) fn received(ifindex: u32) -> io::Result<Vec<[u8; 6]>> {
    // An `ifinfomsg`, because kernels before 5.0 take an `ndmsg` for a dump of all devices.
    let body = [BRIDGE, ifindex, 0, 0].map(u32::to_ne_bytes).concat();
    match dump(None, libc::RTM_GETNEIGH, &body) {
        // No family bridge in this kernel.
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(Vec::new()),
        entries => Ok(entries?.iter().filter_map(|entry| of_device(entry, ifindex)).collect()),
    }
}

fn of_device(entry: &[u8], ifindex: u32) -> Option<[u8; 6]> {
    let (header, attributes) = entry.split_at_checked(NDMSG_LENGTH)?;
    let index = u32::from_ne_bytes(*header.get(4..)?.first_chunk()?);
    let address: [u8; 6] = find(attributes, ADDRESS)?.try_into().ok()?;
    let is_group = address[0] & 1 != 0;
    (index == ifindex && header.get(FLAGS)? & SELF != 0 && !is_group).then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        conntrack::testing::TestTable,
        net::{attribute, emitted, links, tests::run},
    };

    #[test]
    fn a_group_and_an_entry_of_the_bridge_are_no_address_of_the_device() {
        let entry = |flags: u8, address: [u8; 6]| {
            let mut bytes = vec![0; NDMSG_LENGTH];
            bytes[4..8].copy_from_slice(&7_u32.to_ne_bytes());
            bytes[FLAGS] = flags;
            bytes.extend(emitted(&[attribute(ADDRESS, &address)]));
            bytes
        };
        let unicast = [2, 0, 0, 0, 0, 9];
        assert_eq!(of_device(&entry(SELF, unicast), 7), Some(unicast));
        assert_eq!(of_device(&entry(SELF, unicast), 8), None);
        assert_eq!(of_device(&entry(4, unicast), 7), None);
        assert_eq!(of_device(&entry(SELF, [1, 0, 0x5e, 0, 0, 1]), 7), None);
    }

    /// Fails when a macvlan that went to another network namespace is not seen on its device.
    #[test]
    fn a_macvlan_in_another_namespace_is_an_address_of_its_device() {
        let Some(namespace) = TestTable::make("a_macvlan_in_another_namespace") else { return };
        let Some(other) = TestTable::make("another_namespace_of_a_macvlan") else { return };
        namespace.run(|| {
            run("ip", &["link", "add", "one", "up", "type", "veth", "peer", "name", "two"]);
            let link = links().unwrap().into_iter().find(|link| link.is_named("one")).unwrap();
            assert_eq!(received(link.index).unwrap(), [[0; 6]; 0]);
            let address = "02:00:00:00:00:09";
            let macvlan = ["link", "add", "link", "one", "name", "mac0", "address", address];
            run("ip", &[&macvlan[..], &["type", "macvlan", "mode", "bridge"]].concat());
            run("ip", &["link", "set", "mac0", "netns", other.name()]);
            other.run(|| run("ip", &["link", "set", "mac0", "up"]));
            assert_eq!(received(link.index).unwrap(), [[2, 0, 0, 0, 0, 9]]);
        });
    }
}
