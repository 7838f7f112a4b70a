//! Offloads and channels of a device, from the generic netlink family `ethtool`
//! (`Documentation/networking/ethtool-netlink.rst`, `include/uapi/linux/ethtool_netlink.h`).

use std::{collections::BTreeSet, io};

use super::{
    attribute::{attribute, attributes, find, nested, number, text},
    generic,
    netlink::request,
};

const FAMILY: &str = "ethtool";

const LINK_MODES_GET: u8 = 4;
const FEATURES_GET: u8 = 11;
const CHANNELS_GET: u8 = 17;

const HEADER: u16 = 1;
const HEADER_INDEX: u16 = 1;

/// In Mbit/s.
const LINK_MODES_SPEED: u16 = 5;
const SPEED_UNKNOWN: u32 = u32::MAX;

const FEATURES_CHANGEABLE: u16 = 2;
const FEATURES_ACTIVE: u16 = 4;
/// `ETHTOOL_A_BITSET_NOMASK`: only set bits are listed.
const BITSET_IS_LIST: u16 = 1;
const BITSET_BITS: u16 = 3;
const BIT_NAME: u16 = 2;
const BIT_IS_SET: u16 = 3;

const RECEIVE_MAX: u16 = 2;
const COMBINED_MAX: u16 = 5;
const RECEIVE_COUNT: u16 = 6;
const COMBINED_COUNT: u16 = 9;

/// By names such as `rx-gro-hw`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offloads {
    on: BTreeSet<String>,
    changeable: BTreeSet<String>,
}

impl Offloads {
    /// `None` if the kernel cannot say, as before Linux 5.10.
    pub fn of(ifindex: u32) -> io::Result<Option<Self>> {
        Ok(ask(FEATURES_GET, ifindex)?.map(|answer| Self::decode(&answer)))
    }

    fn decode(answer: &[u8]) -> Self {
        let names = |kind| find(answer, kind).map(names).unwrap_or_default();
        Self { on: names(FEATURES_ACTIVE), changeable: names(FEATURES_CHANGEABLE) }
    }

    pub fn is_on(&self, name: &str) -> bool {
        self.on.contains(name)
    }

    pub fn is_fixed(&self, name: &str) -> bool {
        !self.changeable.contains(name)
    }

    #[cfg(any(test, feature = "testing"))]
    pub fn new(on: &[&str], changeable: &[&str]) -> Self {
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        Self { on: owned(on), changeable: owned(changeable) }
    }
}

/// Numbers of queues: those that only receive, and combined ones that also send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Channels {
    pub receive: u32,
    pub receive_max: u32,
    pub combined: u32,
    pub combined_max: u32,
}

impl Channels {
    /// `None` if kernel or driver do not say.
    pub fn of(ifindex: u32) -> io::Result<Option<Self>> {
        Ok(ask(CHANNELS_GET, ifindex)?.map(|answer| Self::decode(&answer)))
    }

    fn decode(answer: &[u8]) -> Self {
        let count = |kind| find(answer, kind).and_then(number).unwrap_or_default();
        Self {
            receive: count(RECEIVE_COUNT),
            receive_max: count(RECEIVE_MAX),
            combined: count(COMBINED_COUNT),
            combined_max: count(COMBINED_MAX),
        }
    }

    /// Number of queues that receive.
    pub const fn receiving(&self) -> u32 {
        self.receive.saturating_add(self.combined)
    }
}

/// A device's speed in Mbit/s; `None` if kernel or driver do not say, or while there is no link.
pub fn speed(ifindex: u32) -> io::Result<Option<u32>> {
    Ok(ask(LINK_MODES_GET, ifindex)?.and_then(|answer| decode_speed(&answer)))
}

fn decode_speed(answer: &[u8]) -> Option<u32> {
    let speed = find(answer, LINK_MODES_SPEED).and_then(number)?;
    (speed != 0 && speed != SPEED_UNKNOWN).then_some(speed)
}

fn ask(command: u8, ifindex: u32) -> io::Result<Option<Vec<u8>>> {
    let header = nested(HEADER, &[attribute(HEADER_INDEX, &ifindex.to_ne_bytes())]);
    let answers = generic::ask(request, FAMILY, command, &[header])?;
    Ok(answers.and_then(|answers| answers.into_iter().next()))
}

/// Names of the set bits of a bitset.
fn names(bitset: &[u8]) -> BTreeSet<String> {
    let is_list = find(bitset, BITSET_IS_LIST).is_some();
    let bits = attributes(find(bitset, BITSET_BITS).unwrap_or_default()).map(|(_, bit)| bit);
    let set = bits.filter(|bit| is_list || find(bit, BIT_IS_SET).is_some());
    set.filter_map(|bit| find(bit, BIT_NAME)).map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::emitted;

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
    fn a_speed_that_is_not_known_is_none() {
        let of = |speed: u32| {
            decode_speed(&emitted(&[attribute(LINK_MODES_SPEED, &speed.to_ne_bytes())]))
        };
        assert_eq!([10_000, 0, SPEED_UNKNOWN].map(of), [Some(10_000), None, None]);
        assert_eq!(speed(1).unwrap(), None, "the loopback device has none");
    }

    #[test]
    fn combined_channels_and_those_that_only_receive_are_told_apart() {
        let count = |kind, count: u32| attribute(kind, &count.to_ne_bytes());
        let channels = Channels::decode(&emitted(&[
            count(RECEIVE_MAX, 1),
            count(COMBINED_MAX, 8),
            count(RECEIVE_COUNT, 1),
            count(COMBINED_COUNT, 4),
        ]));
        assert_eq!((channels.receiving(), channels.combined_max), (5, 8));
    }

    #[test]
    fn damaged_answers_are_no_crash() {
        let bit = |name: &[u8]| nested(1, &[attribute(BIT_NAME, name), attribute(BIT_IS_SET, &[])]);
        let bits = nested(BITSET_BITS, &[bit(b"rx-gro\0"), bit(b"rx-lro\0")]);
        let offloads = emitted(&[nested(FEATURES_ACTIVE, &[bits])]);
        let others = emitted(&[
            attribute(RECEIVE_COUNT, &u32::MAX.to_ne_bytes()),
            attribute(COMBINED_COUNT, &4u32.to_ne_bytes()),
            attribute(LINK_MODES_SPEED, &10_000u32.to_ne_bytes()),
        ]);
        ctguard_damage::survives!(&[&offloads, &others], |bytes: &[u8]| {
            let _ = Offloads::decode(bytes);
            let _ = Channels::decode(bytes).receiving();
            let _ = decode_speed(bytes);
        });
    }
}
