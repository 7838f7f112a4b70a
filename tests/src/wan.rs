//! The counters of the router's links, from the kernel's own device statistics.

use anyhow::{Context as _, Result};
use serde_json::Value;
use std::{collections::BTreeMap, process::Command};

use crate::{
    exec,
    netns::Handle,
    router::{ISP, LAN, Network, SERVERS, WAN},
};

/// Packets on their way into the router, and out of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounters {
    /// Flood frames that found room in the queue.
    pub queued: u64,
    /// Flood frames that found it full.
    pub lost_in_queue: u64,
    /// Other packets that found the queue full, answers to the flood included.
    pub others_lost_in_queue: u64,
    /// Packets a program on the interface dropped.
    pub dropped_in_xdp: u64,
    /// Packets that it answered in their place.
    pub answered_in_xdp: u64,
    /// Packets on their way out, other than such answers, that found the next hop's queue full.
    pub leaving_lost_in_queue: u64,
}

/// Reads the counters of both links together.
pub fn read(network: &Network) -> Result<LinkCounters> {
    let outer = read_link((&network.internet, ISP), (&network.router, WAN))?;
    let inner = read_link((&network.inside, SERVERS), (&network.router, LAN))?;
    Ok(LinkCounters {
        queued: outer.queued + inner.queued,
        lost_in_queue: outer.lost_in_queue + inner.lost_in_queue,
        others_lost_in_queue: outer.others_lost_in_queue + inner.others_lost_in_queue,
        dropped_in_xdp: outer.dropped_in_xdp + inner.dropped_in_xdp,
        answered_in_xdp: outer.answered_in_xdp + inner.answered_in_xdp,
        leaving_lost_in_queue: outer.leaving_lost_in_queue + inner.leaving_lost_in_queue,
    })
}

/// Reads the counters of a device outside, and of the router's at the other end.
fn read_link(far: (&Handle, &str), near: (&Handle, &str)) -> Result<LinkCounters> {
    let sender = statistics(far.0, far.1)?;
    let receiver = statistics(near.0, near.1)?;
    let lost_in_queue = sum(&sender, "xdp_xmit_errors");
    // The device counts both as dropped (`veth_get_stats64`, drivers/net/veth.c).
    let arriving = tx_dropped(far.0, far.1)?;
    let leaving = tx_dropped(near.0, near.1)?;
    Ok(LinkCounters {
        queued: sum(&sender, "xdp_xmit"),
        lost_in_queue,
        others_lost_in_queue: arriving.saturating_sub(lost_in_queue),
        dropped_in_xdp: sum(&receiver, "xdp_drops"),
        answered_in_xdp: sum(&receiver, "xdp_tx"),
        leaving_lost_in_queue: leaving.saturating_sub(sum(&receiver, "xdp_tx_errors")),
    })
}

/// Packets that a program on this device dropped since the device is there.
pub fn dropped_in_xdp(namespace: &Handle, device: &str) -> Result<u64> {
    Ok(sum(&statistics(namespace, device)?, "xdp_drops"))
}

/// Packets that the receiver of this device has taken from its queue since the device is there.
pub fn received(namespace: &Handle, device: &str) -> Result<u64> {
    Ok(sum(&statistics(namespace, device)?, "xdp_packets"))
}

impl LinkCounters {
    /// What was counted since `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            queued: self.queued.saturating_sub(earlier.queued),
            lost_in_queue: self.lost_in_queue.saturating_sub(earlier.lost_in_queue),
            others_lost_in_queue: self
                .others_lost_in_queue
                .saturating_sub(earlier.others_lost_in_queue),
            dropped_in_xdp: self.dropped_in_xdp.saturating_sub(earlier.dropped_in_xdp),
            answered_in_xdp: self.answered_in_xdp.saturating_sub(earlier.answered_in_xdp),
            leaving_lost_in_queue: self
                .leaving_lost_in_queue
                .saturating_sub(earlier.leaving_lost_in_queue),
        }
    }
}

/// Packets that the device took and could not send on.
fn tx_dropped(namespace: &Handle, device: &str) -> Result<u64> {
    let shown = exec::run(Command::new("ip").args([
        "-n",
        namespace.name(),
        "-s",
        "-j",
        "link",
        "show",
        device,
    ]))?;
    let links: Value = serde_json::from_str(&shown).context("cannot read `ip -j`")?;
    let dropped = links.pointer("/0/stats64/tx/dropped").and_then(Value::as_u64);
    dropped.with_context(|| format!("{device} does not count what it drops"))
}

/// `ethtool -S`: a name and a number a line.
fn statistics(namespace: &Handle, device: &str) -> Result<BTreeMap<String, u64>> {
    let text = exec::run(namespace.command("ethtool").args(["-S", device]))
        .with_context(|| format!("cannot read the statistics of {device}"))?;
    let lines = text.lines().filter_map(|line| line.split_once(": "));
    let numbers = lines
        .filter_map(|(name, number)| Some((name.trim().to_owned(), number.trim().parse().ok()?)));
    Ok(numbers.collect())
}

/// The counter of all queues together: names are `rx_queue_0_xdp_drops` and the like.
fn sum(statistics: &BTreeMap<String, u64>, counter: &str) -> u64 {
    let ours = statistics.iter().filter(|(name, _)| {
        let queue = name.strip_suffix(counter).and_then(|name| name.strip_suffix('_'));
        queue.is_some_and(|queue| queue.ends_with(|last: char| last.is_ascii_digit()))
    });
    ours.map(|(_, number)| number).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_summed_over_queues_by_their_whole_name() {
        let names =
            ["rx_queue_0_xdp_drops", "rx_queue_1_xdp_drops", "rx_queue_0_drops", "xdp_drops"];
        let statistics = names.into_iter().map(|name| (name.to_owned(), 1)).collect();
        assert_eq!(sum(&statistics, "xdp_drops"), 2);
        assert_eq!(sum(&statistics, "drops"), 1);
    }
}
