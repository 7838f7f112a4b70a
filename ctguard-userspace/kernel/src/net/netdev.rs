//! XDP features and packets by receive queue of a device, from the generic netlink family `netdev`
//! (`Documentation/netlink/specs/netdev.yaml`, `include/uapi/linux/netdev.h`).

use std::io;

use netlink_packet_core::parse_u64;

use super::{
    attribute::{attribute, find, number},
    generic::ask,
    netlink::{dump, request},
};

const FAMILY: &str = "netdev";

const DEVICE_GET: u8 = 1;
const DEVICE_INDEX: u16 = 1;
const DEVICE_XDP_FEATURES: u16 = 3;

/// `NETDEV_CMD_QSTATS_GET`, since Linux 6.9.
const STATISTICS_GET: u8 = 12;
const STATISTICS_INDEX: u16 = 1;
const STATISTICS_QUEUE_TYPE: u16 = 2;
const STATISTICS_QUEUE: u16 = 3;
const STATISTICS_SCOPE: u16 = 4;
const STATISTICS_RECEIVED: u16 = 8;
const SCOPE_QUEUE: u64 = 1;
const TYPE_RECEIVE: u32 = 0;

/// `enum netdev_xdp_act`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XdpFeatures(u64);

impl XdpFeatures {
    pub const NATIVE: Self = Self(1);
    /// Native, also for programs that take frames in fragments.
    pub const FRAGMENTS: Self = Self(1 | 1 << 5);
    #[cfg(any(test, feature = "testing"))]
    pub const NONE: Self = Self(0);

    /// `None` if the kernel cannot say, as before Linux 6.3.
    pub fn of(ifindex: u32) -> io::Result<Option<Self>> {
        let index = attribute(DEVICE_INDEX, &ifindex.to_ne_bytes());
        let answers = ask(request, FAMILY, DEVICE_GET, &[index])?.unwrap_or_default();
        let features = answers.first().and_then(|answer| find(answer, DEVICE_XDP_FEATURES));
        Ok(features.and_then(wide).map(Self))
    }

    pub const fn are_native(self) -> bool {
        self.0 & Self::NATIVE.0 != 0
    }

    pub const fn have_fragments(self) -> bool {
        self.0 & Self::FRAGMENTS.0 == Self::FRAGMENTS.0
    }
}

/// Packets of each receive queue since the device appeared, in order of queues; `None` if kernel or
/// driver do not count them.
pub(super) fn received(ifindex: u32) -> io::Result<Option<Vec<u64>>> {
    let wanted = [
        attribute(STATISTICS_INDEX, &ifindex.to_ne_bytes()),
        attribute(STATISTICS_SCOPE, &SCOPE_QUEUE.to_ne_bytes()),
    ];
    let answers = ask(dump, FAMILY, STATISTICS_GET, &wanted)?.unwrap_or_default();
    let mut queues: Vec<_> = answers.iter().filter_map(|answer| queue(answer)).collect();
    queues.sort_unstable();
    let packets: Vec<_> = queues.into_iter().map(|(_, packets)| packets).collect();
    Ok((!packets.is_empty()).then_some(packets))
}

/// A receive queue's number and its packets.
fn queue(answer: &[u8]) -> Option<(u32, u64)> {
    let receives = find(answer, STATISTICS_QUEUE_TYPE).and_then(number)? == TYPE_RECEIVE;
    let queue = find(answer, STATISTICS_QUEUE).and_then(number)?;
    let packets = find(answer, STATISTICS_RECEIVED).and_then(wide)?;
    receives.then_some((queue, packets))
}

/// A number of 32 or 64 bits (`nla_put_uint`).
fn wide(value: &[u8]) -> Option<u64> {
    parse_u64(value).ok().or_else(|| number(value).map(u64::from))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::emitted;

    #[test]
    fn the_loopback_device_has_no_native_xdp_where_the_kernel_tells() {
        if let Some(features) = XdpFeatures::of(1).unwrap() {
            assert_eq!(features, XdpFeatures::NONE);
        }
        assert_eq!(received(1).unwrap(), None);
    }

    /// The numbers of a driver that takes fragments (43), and of one that does not (3).
    #[test]
    fn fragments_are_told_from_native_xdp_without_them() {
        assert!(XdpFeatures(43).are_native() && XdpFeatures(43).have_fragments());
        assert!(XdpFeatures(3).are_native() && !XdpFeatures(3).have_fragments());
        assert!(!XdpFeatures(0).are_native());
    }

    /// Fails when packets that leave are counted, or a number of 64 bits is read as one of 32.
    #[test]
    fn a_receive_queue_is_told_from_one_that_sends() {
        let answer = |kind: u32, packets: &[u8]| {
            emitted(&[
                attribute(STATISTICS_INDEX, &4_u32.to_ne_bytes()),
                attribute(STATISTICS_QUEUE_TYPE, &kind.to_ne_bytes()),
                attribute(STATISTICS_QUEUE, &7_u32.to_ne_bytes()),
                attribute(STATISTICS_RECEIVED, packets),
            ])
        };
        assert_eq!(queue(&answer(0, &5_u32.to_ne_bytes())), Some((7, 5)));
        assert_eq!(queue(&answer(0, &(1_u64 << 40).to_ne_bytes())), Some((7, 1 << 40)));
        assert_eq!(queue(&answer(1, &5_u32.to_ne_bytes())), None);
    }
}
