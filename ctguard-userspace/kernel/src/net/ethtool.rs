//! Offloads and channels of a device, as the family `ethtool` tells
//! (`Documentation/networking/ethtool-netlink.rst`, `include/uapi/linux/ethtool_netlink.h`).

use std::{collections::BTreeSet, io};

use netlink_packet_core::DefaultNla;

use super::{
    generic::{Family, if_supported, nested},
    link::{attributes_of, number, text},
};

const FAMILY: &str = "ethtool";
const VERSION: u8 = 1;

const FEATURES_GET: u8 = 11;
const CHANNELS_GET: u8 = 17;

/// In every request and answer.
const HEADER: u16 = 1;
const HEADER_INDEX: u16 = 1;

const FEATURES_CHANGEABLE: u16 = 2;
const FEATURES_ACTIVE: u16 = 4;
/// `ETHTOOL_A_BITSET_NOMASK`: only bits that are set are listed.
const BITSET_IS_LIST: u16 = 1;
const BITSET_BITS: u16 = 3;
const BIT_NAME: u16 = 2;
const BIT_IS_SET: u16 = 3;

const RECEIVE_MAX: u16 = 2;
const COMBINED_MAX: u16 = 5;
const RECEIVE_COUNT: u16 = 6;
const COMBINED_COUNT: u16 = 9;

/// What a device does to packets by itself, by names such as `rx-gro-hw`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offloads {
    on: BTreeSet<String>,
    changeable: BTreeSet<String>,
}

impl Offloads {
    /// None where the kernel does not tell, as before Linux 5.10.
    pub fn of(ifindex: u32) -> io::Result<Option<Self>> {
        let answer = ask(FEATURES_GET, ifindex)?;
        Ok(answer.map(|attributes| Self::decode(&attributes)))
    }

    fn decode(attributes: &[u8]) -> Self {
        let mut offloads = Self::default();
        for (kind, value) in attributes_of(attributes) {
            match kind {
                FEATURES_CHANGEABLE => offloads.changeable = names(value),
                FEATURES_ACTIVE => offloads.on = names(value),
                _ => {}
            }
        }
        offloads
    }

    pub fn is_on(&self, name: &str) -> bool {
        self.on.contains(name)
    }

    /// Nobody can switch it.
    pub fn is_fixed(&self, name: &str) -> bool {
        !self.changeable.contains(name)
    }

    #[cfg(any(test, feature = "testing"))]
    pub fn new(on: &[&str], changeable: &[&str]) -> Self {
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        Self { on: owned(on), changeable: owned(changeable) }
    }
}

/// Queues of a device, those that only receive apart from those that do both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Channels {
    pub receive: u32,
    pub receive_max: u32,
    pub combined: u32,
    pub combined_max: u32,
}

impl Channels {
    /// None where kernel or driver do not tell.
    pub fn of(ifindex: u32) -> io::Result<Option<Self>> {
        let answer = ask(CHANNELS_GET, ifindex)?;
        Ok(answer.map(|attributes| Self::decode(&attributes)))
    }

    fn decode(attributes: &[u8]) -> Self {
        let mut channels = Self::default();
        for (kind, value) in attributes_of(attributes) {
            let value = number(value).unwrap_or_default();
            match kind {
                RECEIVE_MAX => channels.receive_max = value,
                COMBINED_MAX => channels.combined_max = value,
                RECEIVE_COUNT => channels.receive = value,
                COMBINED_COUNT => channels.combined = value,
                _ => {}
            }
        }
        channels
    }

    /// Queues for what arrives.
    pub const fn receiving(&self) -> u32 {
        self.receive.saturating_add(self.combined)
    }
}

fn ask(command: u8, ifindex: u32) -> io::Result<Option<Vec<u8>>> {
    let Some(family) = Family::find(FAMILY, VERSION)? else { return Ok(None) };
    let index = DefaultNla::new(HEADER_INDEX, ifindex.to_ne_bytes().to_vec());
    let answers = if_supported(family.request(command, false, &[nested(HEADER, &[index])]))?;
    Ok(answers.and_then(|answers| answers.into_iter().next()))
}

/// The names of a bitset's bits that are set.
fn names(bitset: &[u8]) -> BTreeSet<String> {
    let is_list = attributes_of(bitset).any(|(kind, _)| kind == BITSET_IS_LIST);
    let bits = attributes_of(bitset).filter(|(kind, _)| *kind == BITSET_BITS);
    let bits = bits.flat_map(|(_, bits)| attributes_of(bits));
    let set =
        bits.filter(|(_, bit)| is_list || attributes_of(bit).any(|(kind, _)| kind == BIT_IS_SET));
    let name = |bit| attributes_of(bit).find(|(kind, _)| *kind == BIT_NAME);
    set.filter_map(|(_, bit)| name(bit)).map(|(_, name)| text(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::netlink::emitted;

    /// Fails when a bit that is listed and not set is taken for one that is.
    #[test]
    fn offloads_of_the_loopback_device_are_read() {
        let Some(offloads) = Offloads::of(1).unwrap() else { return };
        assert!(offloads.is_on("loopback") && offloads.is_fixed("loopback"), "{offloads:?}");
        assert!(!offloads.is_on("rx-lro"), "{offloads:?}");
        assert!(!offloads.is_fixed("tx-tcp-segmentation"), "{offloads:?}");
    }

    #[test]
    fn a_device_without_channels_has_none() {
        assert_eq!(Channels::of(1).unwrap(), None);
    }

    #[test]
    fn combined_channels_and_those_that_only_receive_are_told_apart() {
        let count = |kind, count: u32| DefaultNla::new(kind, count.to_ne_bytes().to_vec());
        let channels = Channels::decode(&emitted(&[
            count(RECEIVE_MAX, 1),
            count(COMBINED_MAX, 8),
            count(RECEIVE_COUNT, 1),
            count(COMBINED_COUNT, 4),
        ]));
        assert_eq!((channels.receiving(), channels.combined_max), (5, 8));
    }
}
