//! A network card and what is around it.

use std::io;

use super::super::finding::Findings;
use crate::host::{Host, Unread};
use ctguard_kernel::net::{Channels, Driver, Link, Offloads, XdpFeatures};

#[derive(Clone, Debug, Default)]
pub(super) struct Card {
    pub(super) name: String,
    pub(super) mtu: u32,
    /// Not one of the kernel's own kinds of device.
    pub(super) is_hardware: bool,
    pub(super) driver: String,
    pub(super) features: Option<XdpFeatures>,
    pub(super) offloads: Option<Offloads>,
    pub(super) channels: Option<Channels>,
}

impl Card {
    pub(super) fn read(link: &Link, findings: &mut Findings) -> Self {
        let driver = findings.read("driver", asked(link, "driver", |_| Driver::of(&link.name)));
        Self {
            name: link.name.clone(),
            mtu: link.mtu,
            is_hardware: link.kind.is_none(),
            driver: driver.flatten().map_or_else(String::new, |it| it.name),
            // A failure was reported for the device itself.
            features: XdpFeatures::of(link.index).ok().flatten(),
            offloads: findings.read("offloads", asked(link, "offloads", Offloads::of)).flatten(),
            channels: findings.read("channels", asked(link, "channels", Channels::of)).flatten(),
        }
    }
}

/// The devices whose drivers run the program: for a bond its members (`bond_xdp_set`,
/// `drivers/net/bonding/bond_main.c`).
pub(super) fn cards<'a>(links: &'a [Link], link: &'a Link) -> Vec<&'a Link> {
    if !link.is_a("bond") {
        return vec![link];
    }
    links.iter().filter(|member| member.master == Some(link.index)).collect()
}

pub(super) fn asked<T>(
    link: &Link,
    what: &str,
    ask: impl Fn(u32) -> io::Result<T>,
) -> Result<T, Unread> {
    ask(link.index).map_err(|error| Unread::new(format!("{what} of {}", link.name), &error))
}

/// The number of possible CPUs, as drivers count them (`nr_cpu_ids`).
pub(super) fn cpus(host: &Host) -> Option<u32> {
    let possible = host.text("/sys/devices/system/cpu/possible").ok()??;
    let last = possible.trim().rsplit(['-', ',']).next()?;
    last.parse::<u32>().ok()?.checked_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::testing::Fake;

    #[test]
    fn cpus_are_counted_as_far_as_they_may_come() {
        for (text, count) in [("0-7\n", Some(8)), ("0\n", Some(1)), ("0-3,8-11\n", Some(12))] {
            let fake = Fake::new("cpus", &[("/sys/devices/system/cpu/possible", text)]);
            assert_eq!(cpus(&fake.host), count, "{text}");
        }
    }

    #[test]
    fn the_cards_of_a_bond_are_its_members() {
        let link = |index, kind: Option<&str>, master| Link {
            index,
            kind: kind.map(str::to_owned),
            master,
            ..Link::default()
        };
        let links = [link(1, Some("bond"), None), link(2, None, Some(1)), link(3, None, None)];
        let indices = |of| cards(&links, of).iter().map(|card| card.index).collect::<Vec<_>>();
        assert_eq!(indices(&links[0]), [2]);
        assert_eq!(indices(&links[2]), [3]);
    }
}
