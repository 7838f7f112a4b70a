//! Interfaces and their changes, over rtnetlink (`man 7 rtnetlink`, `if_link.h`).

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
};

use rustix::net::{
    AddressFamily, RecvFlags, SocketFlags, SocketType, bind, netlink::SocketAddrNetlink, recv,
    socket_with,
};

use super::{
    attribute::{attribute, attributes, emitted, find, number, text},
    netlink::{dump, garbled, request},
};

pub fn links() -> io::Result<Vec<Link>> {
    let links = dump(None, libc::RTM_GETLINK, &question(0))?;
    Ok(links.iter().filter_map(|link| Link::parse(link)).collect())
}

/// The interface with this index; `None` only if the kernel says that there is none.
pub fn link(index: u32) -> io::Result<Option<Link>> {
    match request(None, libc::RTM_GETLINK, &question(index)) {
        Ok(answers) => {
            let link = answers.first().and_then(|answer| Link::parse(answer));
            link.map(Some).ok_or_else(|| garbled("no interface in the answer"))
        }
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
        Err(error) => Err(error),
    }
}

/// An `ifinfomsg` and `IFLA_EXT_MASK`.
fn question(index: u32) -> Vec<u8> {
    /// `RTEXT_FILTER_SKIP_STATS`, for shorter answers.
    const SKIP_STATISTICS: u32 = 1 << 3;
    let mut body = [0, index, 0, 0].map(u32::to_ne_bytes).concat();
    body.extend(emitted(&[attribute(libc::IFLA_EXT_MASK, &SKIP_STATISTICS.to_ne_bytes())]));
    body
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    pub other_names: Vec<String>,
    /// `vlan`, `bridge`, `bond` …; `None` for hardware.
    pub kind: Option<String>,
    /// The interface that it is stacked on, or its peer.
    pub lower: Option<u32>,
    /// `lower` is an index in another network namespace.
    pub lower_elsewhere: bool,
    /// Its bridge, bond …
    pub master: Option<u32>,
    /// `ARPHRD_…`.
    pub hardware: u16,
    /// Number of users that want every frame.
    pub promiscuity: u32,
    pub address: Option<[u8; 6]>,
    pub mtu: u32,
    pub xdp: Option<Attached>,
    /// A bridge that calls netfilter for what crosses it.
    pub calls_netfilter: bool,
    /// Mode and hash policy of a bond.
    pub bond: Option<(u8, u8)>,
    /// A macvlan that takes every frame of `lower` (mode `passthru`).
    pub takes_all: bool,
}

/// An attached XDP program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attached {
    pub native: bool,
    pub program: u32,
}

const IFINFO_LENGTH: usize = 16;

// Of `if_link.h`; libc lacks them.
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_BR_NF_CALL_IPTABLES: u16 = 36;
const IFLA_BR_NF_CALL_IP6TABLES: u16 = 37;
const IFLA_BOND_MODE: u16 = 1;
const IFLA_BOND_XMIT_HASH_POLICY: u16 = 14;
const IFLA_MACVLAN_MODE: u16 = 1;
const MACVLAN_MODE_PASSTHRU: u32 = 8;
const IFLA_XDP_ATTACHED: u16 = 2;
const IFLA_XDP_PROG_ID: u16 = 4;
const IFLA_XDP_DRV_PROG_ID: u16 = 5;
const XDP_ATTACHED_SKB: u8 = 2;

impl Link {
    /// Parses the payload of an `RTM_NEWLINK` or `RTM_DELLINK` message.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let (header, rest) = payload.split_at_checked(IFINFO_LENGTH)?;
        let mut link = Self {
            hardware: u16::from_ne_bytes(*header.get(2..)?.first_chunk()?),
            index: u32::from_ne_bytes(*header.get(4..)?.first_chunk()?),
            ..Self::default()
        };
        for (kind, value) in attributes(rest) {
            match kind {
                libc::IFLA_IFNAME => link.name = text(value),
                libc::IFLA_LINK => link.lower = number(value).filter(|&index| index != 0),
                libc::IFLA_LINK_NETNSID => link.lower_elsewhere = true,
                libc::IFLA_MASTER => link.master = number(value),
                libc::IFLA_PROMISCUITY => link.promiscuity = number(value)?,
                libc::IFLA_MTU => link.mtu = number(value)?,
                libc::IFLA_ADDRESS => link.address = value.try_into().ok(),
                libc::IFLA_LINKINFO => {
                    link.kind = find(value, IFLA_INFO_KIND).map(text);
                    link.read_data(find(value, IFLA_INFO_DATA).unwrap_or_default());
                }
                libc::IFLA_PROP_LIST => {
                    link.other_names = attributes(value)
                        .filter(|&(kind, _)| kind == libc::IFLA_ALT_IFNAME)
                        .map(|(_, value)| text(value))
                        .collect();
                }
                libc::IFLA_XDP => link.xdp = attached(value),
                _ => {}
            }
        }
        Some(link)
    }

    fn read_data(&mut self, data: &[u8]) {
        match self.kind.as_deref() {
            Some("bridge") => {
                self.calls_netfilter = [IFLA_BR_NF_CALL_IPTABLES, IFLA_BR_NF_CALL_IP6TABLES]
                    .iter()
                    .any(|call| find(data, *call).is_some_and(|value| value != [0]));
            }
            Some("bond") => {
                let byte = |kind| find(data, kind).and_then(|value| value.first().copied());
                self.bond = byte(IFLA_BOND_MODE)
                    .map(|mode| (mode, byte(IFLA_BOND_XMIT_HASH_POLICY).unwrap_or_default()));
            }
            Some("macvlan" | "macvtap") => {
                let mode = find(data, IFLA_MACVLAN_MODE).and_then(number);
                self.takes_all = mode == Some(MACVLAN_MODE_PASSTHRU);
            }
            _ => {}
        }
    }

    pub fn is_named(&self, name: &str) -> bool {
        self.name == name || self.other_names.iter().any(|other| other == name)
    }

    pub fn is_a(&self, kind: &str) -> bool {
        self.kind.as_deref() == Some(kind)
    }
}

fn attached(value: &[u8]) -> Option<Attached> {
    let is_generic = find(value, IFLA_XDP_ATTACHED) == Some(&[XDP_ATTACHED_SKB]);
    // If both modes are attached, only the driver's attribute is there.
    let program = find(value, IFLA_XDP_PROG_ID).or_else(|| find(value, IFLA_XDP_DRV_PROG_ID))?;
    Some(Attached { native: !is_generic, program: number(program)? })
}

/// Reports that some interface changed; [`links`] shows which.
#[derive(Debug)]
pub struct LinkEvents(OwnedFd);

impl LinkEvents {
    pub fn subscribe() -> io::Result<Self> {
        /// `RTMGRP_LINK`.
        const LINK_GROUP: u32 = 1;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        bind(&socket, &SocketAddrNetlink::new(0, LINK_GROUP))?;
        Ok(Self(socket))
    }

    /// Drops all events so far. An overrun counts as an event.
    pub fn drain(&self) {
        let mut buffer = [0; 1 << 12];
        loop {
            match recv(&self.0, &mut buffer[..], RecvFlags::TRUNC) {
                Ok(_) | Err(rustix::io::Errno::NOBUFS | rustix::io::Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }
}

impl AsRawFd for LinkEvents {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AsFd for LinkEvents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::DefaultNla;

    use super::*;
    use crate::net::nested;

    #[test]
    fn the_loopback_device_is_among_the_interfaces_and_is_found_by_its_index() {
        let links = links().unwrap();
        let loopback = links.iter().find(|link| link.name == "lo").unwrap();
        assert_eq!(link(loopback.index).unwrap().as_ref(), Some(loopback));
    }

    #[test]
    fn an_index_that_no_interface_has_is_told_from_an_error() {
        assert_eq!(link(i32::MAX.unsigned_abs()).unwrap(), None);
    }

    #[test]
    fn a_vlan_child_tells_its_kind_and_its_parent() {
        let link = parse(&[
            attribute(libc::IFLA_IFNAME, b"wan0.100\0"),
            attribute(libc::IFLA_LINK, &3u32.to_ne_bytes()),
            nested(libc::IFLA_LINKINFO, &[attribute(IFLA_INFO_KIND, b"vlan\0")]),
        ]);

        assert_eq!((link.index, link.name.as_str(), link.lower), (7, "wan0.100", Some(3)));
        assert!(link.is_a("vlan"));
    }

    #[test]
    fn what_a_bridge_a_bond_and_a_macvlan_do_is_told() {
        let kind = |kind: &[u8], data: &[DefaultNla]| {
            let parts = [attribute(IFLA_INFO_KIND, kind), nested(IFLA_INFO_DATA, data)];
            parse(&[nested(libc::IFLA_LINKINFO, &parts)])
        };
        for (call, value, expected) in [
            (IFLA_BR_NF_CALL_IPTABLES, 1, true),
            (IFLA_BR_NF_CALL_IP6TABLES, 1, true),
            (IFLA_BR_NF_CALL_IPTABLES, 0, false),
            (IFLA_BR_NF_CALL_IP6TABLES + 1, 1, false),
        ] {
            let link = kind(b"bridge\0", &[attribute(call, &[value])]);
            assert_eq!(link.calls_netfilter, expected, "{call}");
        }
        let bond = [attribute(IFLA_BOND_MODE, &[6]), attribute(IFLA_BOND_XMIT_HASH_POLICY, &[2])];
        assert_eq!(kind(b"bond\0", &bond).bond, Some((6, 2)));
        let mode = |mode: u32| [attribute(IFLA_MACVLAN_MODE, &mode.to_ne_bytes())];
        assert!(kind(b"macvlan\0", &mode(MACVLAN_MODE_PASSTHRU)).takes_all);
        assert!(!kind(b"macvlan\0", &mode(4)).takes_all);
    }

    #[test]
    fn an_attached_generic_program_is_seen() {
        let xdp = [
            attribute(IFLA_XDP_ATTACHED, &[XDP_ATTACHED_SKB]),
            attribute(IFLA_XDP_PROG_ID, &42u32.to_ne_bytes()),
        ];
        let link = parse(&[nested(libc::IFLA_XDP, &xdp)]);
        assert_eq!(link.xdp, Some(Attached { native: false, program: 42 }));
    }

    #[test]
    fn a_message_cut_anywhere_is_no_crash() {
        let message = message(&[attribute(libc::IFLA_IFNAME, b"wan0\0")]);
        for length in 0..message.len() {
            let _ = Link::parse(&message[..length]);
        }
    }

    fn parse(attributes: &[DefaultNla]) -> Link {
        Link::parse(&message(attributes)).unwrap()
    }

    fn message(attributes: &[DefaultNla]) -> Vec<u8> {
        let mut bytes = [0, 7, 0, 0].map(u32::to_ne_bytes).concat();
        bytes.extend(emitted(attributes));
        bytes
    }

    #[test]
    fn a_damaged_message_is_no_crash() {
        let vlan = message(&[
            attribute(libc::IFLA_IFNAME, b"wan0.100\0"),
            attribute(libc::IFLA_LINK, &3u32.to_ne_bytes()),
            attribute(libc::IFLA_ADDRESS, &[2; 6]),
            nested(libc::IFLA_LINKINFO, &[attribute(IFLA_INFO_KIND, b"vlan\0")]),
            nested(libc::IFLA_PROP_LIST, &[attribute(libc::IFLA_ALT_IFNAME, b"uplink\0")]),
        ]);
        let bond = [attribute(IFLA_BOND_MODE, &[6]), attribute(IFLA_BOND_XMIT_HASH_POLICY, &[2])];
        let bond = message(&[
            nested(
                libc::IFLA_LINKINFO,
                &[attribute(IFLA_INFO_KIND, b"bond\0"), nested(IFLA_INFO_DATA, &bond)],
            ),
            nested(libc::IFLA_XDP, &[attribute(IFLA_XDP_PROG_ID, &42u32.to_ne_bytes())]),
        ]);
        ctguard_damage::survives!(&[&vlan, &bond], |bytes: &[u8]| drop(Link::parse(bytes)));
    }
}
