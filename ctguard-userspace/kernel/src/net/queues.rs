//! Counts the packets of each receive queue of a device.

use std::io;

use super::{
    Link,
    driver::{Driver, Statistic},
    netdev,
};

/// Prefix and suffix of the queue number in the drivers' names of packet counters.
const FORMS: [(&str, &str); 7] = [
    // virtio_net before Linux 6.9, ixgbe, igb, ice, hv_netvsc, veth …
    ("rx_queue_", "_packets"),
    // mlx5, mlx4
    ("rx", "_packets"),
    // i40e, iavf
    ("rx-", ".packets"),
    // ena
    ("queue_", "_rx_cnt"),
    // bnxt, unicast only
    ("[", "]: rx_ucast_packets"),
    // atlantic
    ("Queue[", "] InPackets"),
    // gve
    ("rx_packets[", "]"),
];

/// Since the device appeared, in order of queues; `None` if neither kernel nor driver count them.
pub fn received_by_queue(link: &Link, driver: Option<&Driver>) -> io::Result<Option<Vec<u64>>> {
    if let Some(packets) = netdev::received(link.index)? {
        return Ok(Some(packets));
    }
    let Some(driver) = driver else { return Ok(None) };
    let statistics = driver.statistics(&link.name, |name| queue(name).is_some())?;
    let packets = by_queue(&statistics);
    Ok((!packets.is_empty()).then_some(packets))
}

fn by_queue(statistics: &[Statistic]) -> Vec<u64> {
    let numbered = statistics.iter().filter_map(|one| Some((queue(&one.name)?, one.value)));
    let mut numbered: Vec<_> = numbered.collect();
    numbered.sort_unstable();
    numbered.into_iter().map(|(_, packets)| packets).collect()
}

/// The queue whose packets the statistic `name` counts.
fn queue(name: &str) -> Option<u32> {
    FORMS.iter().find_map(|(before, behind)| {
        let number = name.strip_prefix(before)?.strip_suffix(behind)?;
        number.bytes().all(|byte| byte.is_ascii_digit()).then(|| number.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_are_known_by_the_names_of_each_driver() {
        let names = [
            "rx_queue_3_packets",
            "rx3_packets",
            "rx-3.packets",
            "queue_3_rx_cnt",
            "[3]: rx_ucast_packets",
            "Queue[3] InPackets",
            "rx_packets[3]",
        ];
        assert_eq!(names.map(queue), [Some(3); 7]);
    }

    /// Fails when packets that XDP saw, that were sent, or the device's sum, are taken for those of
    /// a queue.
    #[test]
    fn other_statistics_are_no_packets_of_a_queue() {
        let names = [
            "rx_packets",
            "rx_queue_0_xdp_packets",
            "rx_queue_0_drops",
            "rx0_xdp_packets",
            "rx0_csum_complete",
            "rx_xdp_packets",
            "tx_queue_0_packets",
            "queue_0_tx_cnt",
            "queue_0_rx_bytes",
            "rx_pp_alloc_fast",
        ];
        assert_eq!(names.map(queue), [None; 10]);
    }

    #[test]
    fn packets_are_in_the_order_of_their_queues() {
        let one = |name: &str, value| Statistic { name: name.to_owned(), value };
        let found = by_queue(&[one("rx10_packets", 1), one("rx9_packets", 2), one("rx9_bytes", 3)]);
        assert_eq!(found, [2, 1]);
    }
}
