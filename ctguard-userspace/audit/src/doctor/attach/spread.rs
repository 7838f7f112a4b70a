//! Whether incoming packets are spread over the card's queues, and so over the CPUs.

use super::super::{
    finding::{Finding, Findings},
    text::{per_cent, share},
};
use crate::host::Unread;
use ctguard_kernel::net::{Channels, Driver, Link, received_by_queue};

/// The share of one queue from which the spread is bad.
const MOST: f64 = 0.8;
/// Fewer packets prove nothing: during an audit, and since the device was created.
const ENOUGH_NOW: u64 = 10_000;
const ENOUGH: u64 = 1_000_000;

#[derive(Clone, Debug)]
pub(super) struct Arrivals {
    link: Link,
    driver: Option<Driver>,
    packets: Vec<u64>,
}

impl Arrivals {
    /// None where there is one queue.
    pub(super) fn at(link: &Link) -> Result<Option<Self>, Unread> {
        let failed = |error| unread(link, &error);
        let driver = Driver::of(&link.name).map_err(failed)?;
        let packets = received_by_queue(link, driver.as_ref()).map_err(failed)?;
        if packets.is_none() && has_queues(link) {
            return Err(unread(link, "neither the kernel nor the driver counts them"));
        }
        let packets = packets.filter(|packets| packets.len() >= 2);
        Ok(packets.map(|packets| Self { link: link.clone(), driver, packets }))
    }
}

fn unread(link: &Link, reason: &(impl ToString + ?Sized)) -> Unread {
    Unread::new(format!("packets by queue of {}", link.name), reason)
}

fn has_queues(link: &Link) -> bool {
    let channels = Channels::of(link.index).ok().flatten();
    link.kind.is_none() && channels.is_some_and(|channels| channels.receiving() > 1)
}

pub(super) fn check(before: &Arrivals, cpus: Option<u32>, findings: &mut Findings) {
    let Arrivals { link, driver, packets } = before;
    let name = &link.name;
    let after = received_by_queue(link, driver.as_ref()).map_err(|error| unread(link, &error));
    if let Some(Some(after)) = findings.read("spread", after) {
        findings.add(uneven(packets, &after).map(|uneven| finding(name, &uneven, cpus)));
    }
}

#[derive(Debug, PartialEq)]
struct Uneven {
    queue: usize,
    queues: usize,
    share: f64,
    packets: u64,
    /// During this audit, not since the device was created.
    now: bool,
}

fn uneven(before: &[u64], after: &[u64]) -> Option<Uneven> {
    let now: Vec<_> =
        before.iter().zip(after).map(|(before, after)| after.saturating_sub(*before)).collect();
    let enough_now = before.len() == after.len() && now.iter().sum::<u64>() >= ENOUGH_NOW;
    let counted = if enough_now { &now[..] } else { after };
    let packets = counted.iter().fold(0, |sum: u64, queue| sum.saturating_add(*queue));
    if counted.len() < 2 || (!enough_now && packets < ENOUGH) {
        return None;
    }
    let (queue, most) = counted.iter().enumerate().max_by_key(|(_, packets)| **packets)?;
    let share = share(*most, packets);
    let queues = counted.len();
    (share > MOST).then_some(Uneven { queue, queues, share, packets, now: enough_now })
}

fn finding(name: &str, uneven: &Uneven, cpus: Option<u32>) -> Finding {
    let Uneven { queue, queues, share, packets, now } = uneven;
    let when = if *now { "during this audit" } else { "since the device was created" };
    let share = per_cent(*share);
    let what = format!("one of {queues} queues of {name} receives {share} of all packets");
    let read = format!("queue {queue}: {share} of {packets} {when}");
    let mask = mask(cpus.unwrap_or(1));
    Finding::warning("spread", what)
        .read(format!("packets by queue of {name}"), read)
        .because(
            "one CPU does most of the work. Cards spread flows by addresses and ports, which PPPoE, \
             QinQ and tunnels hide, and a single flow always uses one queue. RPS moves the work after \
             native XDP, such as conntrack's, to other CPUs",
        )
        .by_hand(format!(
            "for queue in /sys/class/net/{name}/queues/rx-*; do echo {mask} > $queue/rps_cpus; done"
        ))
        .by_hand(format!("ethtool -N {name} rx-flow-hash udp4 sdfn    # if only UDP is affected"))
}

/// A mask of all CPUs as `bitmap_parse` reads it: groups of 32, the last ones first.
fn mask(cpus: u32) -> String {
    let (groups, rest) = (cpus / 32, cpus % 32);
    let first = (rest > 0).then(|| format!("{:x}", (1_u32 << rest) - 1));
    let full = (0..groups).map(|_| "ffffffff".to_owned());
    first.into_iter().chain(full).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(before: &[u64], after: &[u64]) -> Option<(usize, bool)> {
        uneven(before, after).map(|uneven| (uneven.queue, uneven.now))
    }

    #[test]
    fn one_queue_that_takes_nearly_all_is_found() {
        assert_eq!(queue(&[0, 0], &[100_000, 900_001]), Some((1, true)));
        let idle = [100_000, 100_000, 1_800_001, 100_000];
        assert_eq!(queue(&idle, &idle), Some((2, false)));
    }

    #[test]
    fn queues_that_share_and_one_queue_alone_are_not() {
        assert_eq!(queue(&[0; 4], &[250_000, 260_000, 240_000, 250_000]), None);
        assert_eq!(queue(&[0], &[9_000_000]), None);
        assert_eq!(queue(&[], &[]), None);
        assert_eq!(queue(&[0, 0], &[20_000, 80_000]), None, "exactly what is allowed");
    }

    #[test]
    fn few_packets_tell_nothing() {
        assert_eq!(queue(&[10, 10], &[10, 9_009]), None);
        assert_eq!(queue(&[999_000, 1], &[999_100, 1]), None);
    }

    /// Fails when a skew of the past is told though the traffic of now is spread.
    #[test]
    fn what_arrives_now_counts_before_what_came_in_the_past() {
        assert_eq!(queue(&[90_000_000, 0], &[90_010_000, 10_000]), None);
        assert_eq!(queue(&[90_000_000], &[90_010_000, 10_000]), Some((0, false)), "new queues");
    }

    #[test]
    fn a_mask_has_a_bit_for_each_cpu() {
        assert_eq!(mask(2), "3");
        assert_eq!(mask(8), "ff");
        assert_eq!(mask(32), "ffffffff");
        assert_eq!(mask(40), "ff,ffffffff");
    }
}
