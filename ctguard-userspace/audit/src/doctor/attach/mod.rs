//! Whether an interface can be guarded, and how well.

mod channels;
mod machine;
mod native;
mod program;
mod spread;
mod tags;

use super::{
    Health,
    finding::{Finding, Findings},
};
use crate::host::{Host, Unread};
use ctguard_kernel::{
    bpf::Pins,
    net::{Channels, Driver, Link, Offloads, Resolved, XdpFeatures, links, resolve},
};
use spread::Arrivals;

/// An interface that is asked about.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    pub interface: &'a str,
    /// Where its guard would be pinned.
    pub pins: &'a Pins,
}

/// An examination under way: packets are counted at its two ends.
pub(super) struct Examination<'a> {
    asked: Asked<'a>,
    links: Result<Vec<Link>, Unread>,
    before: Vec<Result<Option<Arrivals>, Unread>>,
}

impl<'a> Examination<'a> {
    pub(super) fn begin(host: &Host, asked: Asked<'a>) -> Self {
        let links = links_of(host);
        let resolved = links.as_ref().ok().and_then(|all| resolve(all, asked.interface).ok());
        let before = match (&links, &resolved) {
            (Ok(all), Some(resolved)) => {
                let cards = cards(all, &resolved.link).into_iter();
                cards.map(Arrivals::at).collect()
            }
            _ => Vec::new(),
        };
        Self { asked, links, before }
    }

    /// G, of the list in `docs/doctor.md`.
    pub(super) fn finish(self, host: &Host, guard: Option<&Health>, findings: &mut Findings) {
        machine::check(host, self.asked.pins, findings);
        let Some(links) = findings.read("interface", self.links) else { return };
        match resolve(&links, self.asked.interface) {
            Ok(Resolved { link, instead_of }) => {
                let name = &link.name;
                findings.add(instead_of.map(|kind| {
                    let what = format!("the guard belongs on {name}, below this {kind}");
                    Finding::note("interface", what).because("ctguard run finds it by itself")
                }));
                let surroundings = Surroundings { host, links: &links, guard };
                device(&surroundings, &link, self.asked.pins, findings);
                for before in self.before {
                    if let Some(Some(before)) = findings.read("spread", before) {
                        spread::check(&before, cpus(host), findings);
                    }
                }
            }
            Err(refusal) => findings.add([Finding::fault("interface", refusal.to_string())
                .because("ctguard run refuses it for the same reason")]),
        }
    }
}

fn links_of(host: &Host) -> Result<Vec<Link>, Unread> {
    const PLACE: &str = "rtnetlink: a dump of all interfaces";
    if !host.is_this() {
        return Err(Unread::new(PLACE, "only the machine itself can list its interfaces"));
    }
    links().map_err(|error| Unread::new(PLACE, &error))
}

/// Where a device is.
struct Surroundings<'a> {
    host: &'a Host,
    links: &'a [Link],
    /// None where there is no guard, or it cannot be read.
    guard: Option<&'a Health>,
}

fn device(surroundings: &Surroundings<'_>, link: &Link, pins: &Pins, findings: &mut Findings) {
    let guarded = program::check(link, pins, findings);
    let features = findings.read("native", told(link, "XDP features", XdpFeatures::of)).flatten();
    findings.add(native::generic_only(&link.name, features));
    // A driver that runs the program already does not refuse it any more.
    let may_become_native = guarded != Some(true) && native::is_possible(features);
    let would_be_native = guarded.unwrap_or(may_become_native);
    for card in cards(surroundings.links, link) {
        let card = Card::read(card, findings);
        if may_become_native {
            findings.add(native::obstacles(&card));
            findings.add(channels::for_native(&card, cpus(surroundings.host)));
        }
        findings.add(channels::single(&card));
    }
    if would_be_native {
        let offloads = told(link, "offloads", Offloads::of);
        if let Some(Some(offloads)) = findings.read("vlan-tags", offloads) {
            findings.add(tags::judge(surroundings, link, &offloads));
        }
    }
}

/// The devices whose drivers run the program: of a bond, its members (`bond_xdp_set`,
/// `drivers/net/bonding/bond_main.c`).
fn cards<'a>(links: &'a [Link], link: &'a Link) -> Vec<&'a Link> {
    if !link.is_a("bond") {
        return vec![link];
    }
    links.iter().filter(|member| member.master == Some(link.index)).collect()
}

/// What a network card tells of itself.
#[derive(Clone, Debug, Default)]
struct Card {
    name: String,
    mtu: u32,
    /// Not one of the kernel's own kinds of device.
    is_hardware: bool,
    /// Empty where it does not tell.
    driver: String,
    features: Option<XdpFeatures>,
    /// None where the kernel does not tell.
    offloads: Option<Offloads>,
    /// None where kernel or driver do not tell.
    channels: Option<Channels>,
}

impl Card {
    fn read(link: &Link, findings: &mut Findings) -> Self {
        let driver = told(link, "driver", |_| Driver::of(&link.name));
        Self {
            name: link.name.clone(),
            mtu: link.mtu,
            is_hardware: link.kind.is_none(),
            driver: findings
                .read("driver", driver)
                .flatten()
                .map_or_else(String::new, |it| it.name),
            // Told of the device itself, if it cannot be read.
            features: XdpFeatures::of(link.index).ok().flatten(),
            offloads: findings.read("offloads", told(link, "offloads", Offloads::of)).flatten(),
            channels: findings.read("channels", told(link, "channels", Channels::of)).flatten(),
        }
    }
}

fn told<T>(link: &Link, what: &str, ask: impl Fn(u32) -> std::io::Result<T>) -> Result<T, Unread> {
    ask(link.index).map_err(|error| Unread::new(format!("{what} of {}", link.name), &error))
}

/// How many CPUs there may be, as drivers count them (`nr_cpu_ids`).
fn cpus(host: &Host) -> Option<u32> {
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
