//! One interface, and how it is read from an rtnetlink message (`man 7 rtnetlink`, `if_link.h`).

use std::iter;

/// An interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    pub other_names: Vec<String>,
    /// `vlan`, `bridge`, `bond` …; none on hardware.
    pub kind: Option<String>,
    /// The interface it is stacked on, or whose peer it is.
    pub lower: Option<u32>,
    /// `lower` counts in another network namespace.
    pub lower_elsewhere: bool,
    /// The bridge, bond … that it is a port of.
    pub master: Option<u32>,
    /// `ARPHRD_…`.
    pub hardware: u16,
    /// Users that want every frame.
    pub promiscuity: u32,
    pub address: Option<[u8; 6]>,
    pub mtu: u32,
    pub xdp: Option<Attached>,
}

/// An XDP program on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attached {
    pub native: bool,
    pub program: u32,
}

const IFINFO_LENGTH: usize = 16;
/// `NLA_F_NESTED` and `NLA_F_NET_BYTEORDER` aside.
const TYPE_MASK: u16 = 0x3fff;

// `enum if_link.h`; those that libc lacks.
const IFLA_INFO_KIND: u16 = 1;
const IFLA_XDP_ATTACHED: u16 = 2;
const IFLA_XDP_PROG_ID: u16 = 4;
const IFLA_XDP_DRV_PROG_ID: u16 = 5;
const XDP_ATTACHED_SKB: u8 = 2;

impl Link {
    /// Reads the payload of an `RTM_NEWLINK` or `RTM_DELLINK` message.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let (header, attributes) = payload.split_at_checked(IFINFO_LENGTH)?;
        let mut link = Self {
            hardware: u16::from_ne_bytes(*header.get(2..)?.first_chunk()?),
            index: u32::from_ne_bytes(*header.get(4..)?.first_chunk()?),
            ..Self::default()
        };
        for (kind, value) in attributes_of(attributes) {
            match kind {
                libc::IFLA_IFNAME => link.name = text(value),
                libc::IFLA_LINK => link.lower = number(value).filter(|&index| index != 0),
                libc::IFLA_LINK_NETNSID => link.lower_elsewhere = true,
                libc::IFLA_MASTER => link.master = number(value),
                libc::IFLA_PROMISCUITY => link.promiscuity = number(value)?,
                libc::IFLA_MTU => link.mtu = number(value)?,
                libc::IFLA_ADDRESS => link.address = value.try_into().ok(),
                libc::IFLA_LINKINFO => {
                    link.kind = attributes_of(value)
                        .find(|&(kind, _)| kind == IFLA_INFO_KIND)
                        .map(|(_, value)| text(value));
                }
                libc::IFLA_PROP_LIST => {
                    link.other_names = attributes_of(value)
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

    /// Whether it answers to `name`.
    pub fn is_named(&self, name: &str) -> bool {
        self.name == name || self.other_names.iter().any(|other| other == name)
    }

    /// Whether it is of this kind.
    pub fn is_a(&self, kind: &str) -> bool {
        self.kind.as_deref() == Some(kind)
    }
}

fn attached(value: &[u8]) -> Option<Attached> {
    let mut generic = false;
    let mut program = None;
    for (kind, value) in attributes_of(value) {
        match kind {
            IFLA_XDP_ATTACHED => generic = value.first() == Some(&XDP_ATTACHED_SKB),
            // With both kinds attached, only the drivers' own attribute is there.
            IFLA_XDP_PROG_ID | IFLA_XDP_DRV_PROG_ID => program = program.or(number(value)),
            _ => {}
        }
    }
    Some(Attached { native: !generic, program: program? })
}

/// The attributes in `bytes`, as far as they are whole.
pub(super) fn attributes_of(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(*rest.first_chunk()?));
        let kind = u16::from_ne_bytes(*rest.get(2..)?.first_chunk()?) & TYPE_MASK;
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

pub(super) fn number(value: &[u8]) -> Option<u32> {
    value.first_chunk().map(|&bytes| u32::from_ne_bytes(bytes))
}

/// Text ends with a zero.
pub(super) fn text(value: &[u8]) -> String {
    let end = value.iter().position(|&byte| byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(value.get(..end).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vlan_child_tells_its_kind_and_its_parent() {
        let mut message = header(7, 1);
        push(&mut message, libc::IFLA_IFNAME, b"wan0.100\0");
        push(&mut message, libc::IFLA_LINK, &3u32.to_ne_bytes());
        let mut info = Vec::new();
        push(&mut info, IFLA_INFO_KIND, b"vlan\0");
        push(&mut message, libc::IFLA_LINKINFO, &info);

        let link = Link::parse(&message).unwrap();

        assert_eq!((link.index, link.name.as_str(), link.lower), (7, "wan0.100", Some(3)));
        assert!(link.is_a("vlan"));
    }

    #[test]
    fn an_attached_generic_program_is_seen() {
        let mut xdp = Vec::new();
        push(&mut xdp, IFLA_XDP_ATTACHED, &[XDP_ATTACHED_SKB]);
        push(&mut xdp, IFLA_XDP_PROG_ID, &42u32.to_ne_bytes());
        let mut message = header(7, 1);
        push(&mut message, libc::IFLA_XDP | 0x8000, &xdp);

        let link = Link::parse(&message).unwrap();

        assert_eq!(link.xdp, Some(Attached { native: false, program: 42 }));
    }

    #[test]
    fn a_message_cut_anywhere_is_no_crash() {
        let mut message = header(7, 1);
        push(&mut message, libc::IFLA_IFNAME, b"wan0\0");
        for length in 0..message.len() {
            let _ = Link::parse(&message[..length]);
        }
    }

    fn header(index: u32, hardware: u16) -> Vec<u8> {
        let mut bytes = vec![0; IFINFO_LENGTH];
        bytes[2..4].copy_from_slice(&hardware.to_ne_bytes());
        bytes[4..8].copy_from_slice(&index.to_ne_bytes());
        bytes
    }

    fn push(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
        let length = u16::try_from(value.len() + 4).unwrap();
        message.extend(length.to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend(value);
        message.resize(message.len().next_multiple_of(4), 0);
    }
}
