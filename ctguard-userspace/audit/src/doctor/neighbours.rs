//! Hosts in the networks that this machine is part of, by hardware address and name.

use std::{collections::HashMap, net::IpAddr};

use super::finding::Findings;
use crate::host::Host;

const ARP: &str = "/proc/net/arp";
/// The leases of dnsmasq, and of `OpenWrt`'s: expiry, hardware address, address, name, client.
const LEASES: [&str; 2] = ["/var/lib/misc/dnsmasq.leases", "/tmp/dhcp.leases"];

/// The name or hardware address of each neighbour.
pub(super) type Neighbours = HashMap<IpAddr, String>;

pub(super) fn read(host: &Host, findings: &mut Findings) -> Neighbours {
    let mut text = |path| findings.text("neighbours", host, path);
    let mut names = HashMap::new();
    for line in text(ARP).lines().skip(1) {
        let mut words = line.split_whitespace();
        let address = words.next().and_then(|word| word.parse().ok());
        if let (Some(address), Some(hardware)) = (address, words.nth(2)) {
            names.insert(address, hardware.to_owned());
        }
    }
    for line in LEASES.map(text).join("\n").lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        if let [_, hardware, address, name, ..] = words[..]
            && let Ok(address) = address.parse()
            && name != "*"
        {
            names.insert(address, format!("{name}, {hardware}"));
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::testing::Fake;

    #[test]
    fn a_lease_names_who_arp_only_numbers() {
        let fake = Fake::new(
            "neighbours",
            &[
                (
                    "/proc/net/arp",
                    "IP address HW type Flags HW address Mask Device\n\
                192.0.2.7 0x1 0x2 02:00:00:00:00:07 * lan0\n192.0.2.8 0x1 0x2 02:00:00:00:00:08 * lan0\n",
                ),
                ("/tmp/dhcp.leases", "1700000000 02:00:00:00:00:08 192.0.2.8 printer 01:02\n"),
            ],
        );
        let neighbours = read(&fake.host, &mut Findings::default());
        let name = |address: &str| neighbours.get(&address.parse::<IpAddr>().unwrap()).cloned();
        assert_eq!(name("192.0.2.7").as_deref(), Some("02:00:00:00:00:07"));
        assert_eq!(name("192.0.2.8").as_deref(), Some("printer, 02:00:00:00:00:08"));
        assert_eq!(name("192.0.2.9"), None);
    }
}
