//! The order of the checks of an interface.

use std::collections::BTreeSet;

use super::{
    super::{
        finding::{Finding, Findings, Severity},
        guard::Health,
    },
    card::{Card, asked, cards, cpus},
    channels, machine, native, program,
    spread::{self, Arrivals},
    tags,
};
use crate::host::{Host, Unread};
use ctguard_kernel::{
    bpf::{Mode, Pins},
    net::{Link, Offloads, Resolved, Stations, Surroundings, XdpFeatures, links, resolve},
};

#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    pub interface: &'a str,
    /// Where its guard would be pinned.
    pub pins: &'a Pins,
}

/// An examination that has begun: packets are counted at its start and its end.
pub(crate) struct Examination<'a> {
    asked: Asked<'a>,
    links: Result<Vec<Link>, Unread>,
    before: Vec<Result<Option<Arrivals>, Unread>>,
}

impl<'a> Examination<'a> {
    pub(crate) fn begin(host: &Host, asked: Asked<'a>) -> Self {
        let links = links_of(host);
        let all = links.as_deref().unwrap_or_default();
        let link = resolve(all, asked.interface).map(|resolved| resolved.link);
        let cards = link.as_ref().map(|link| cards(all, link)).unwrap_or_default();
        let before = cards.into_iter().map(Arrivals::at).collect();
        Self { asked, links, before }
    }

    pub(crate) fn finish(self, host: &Host, guard: Option<&Health>, findings: &mut Findings) {
        machine::check(host, self.asked.pins, findings);
        let Some(links) = findings.read("interface", self.links) else { return };
        let Resolved { link, instead_of } = match resolve(&links, self.asked.interface) {
            Ok(resolved) => resolved,
            Err(refusal) => {
                let finding = Finding::fault("interface", refusal.to_string());
                return findings
                    .add([finding.because("ctguard run refuses it for the same reason")]);
            }
        };
        findings.add(instead_of.map(|kind| {
            let what = format!("the guard belongs on {}, below this {kind}", link.name);
            Finding::note("interface", what).because("ctguard run attaches it there by itself")
        }));
        let around = Surroundings::of(links, &[link.index]);
        findings.add(limited(&link.name, &Stations::of(&around, &link)));
        let links = around.links;
        let guarded = program::check(&links, &link, self.asked.pins, findings);
        let features =
            findings.read("native", asked(&link, "XDP features", XdpFeatures::of)).flatten();
        findings.add(native::bond(&link).or_else(|| native::generic_only(&link.name, features)));
        // A driver that already runs the program does not refuse it any more.
        let may_become_native =
            guarded != Some(true) && native::is_possible(features) && native::bond(&link).is_none();
        for card in cards(&links, &link) {
            let card = Card::read(card, findings);
            if may_become_native {
                findings.add(native::obstacles(&card));
                findings.add(channels::for_native(&card, cpus(host)));
            }
            findings.add(channels::single(&card));
        }
        if guarded.unwrap_or(may_become_native) {
            let offloads = asked(&link, "offloads", Offloads::of);
            let offloads = findings.read("vlan-tags", offloads).flatten();
            findings.add(offloads.and_then(|it| tags::judge(&links, guard, &link, &it)));
        }
        for before in self.before {
            if let Some(Some(before)) = findings.read("spread", before) {
                spread::check(&before, cpus(host), findings);
            }
        }
    }
}

/// The driver of a device, and whether the program will run in it, as far as that can be told.
pub(crate) fn outlook(links: &[Link], link: &Link) -> String {
    let mut unread = Findings::default();
    let features = XdpFeatures::of(link.index).ok().flatten();
    let cards: Vec<_> = cards(links, link).iter().map(|it| Card::read(it, &mut unread)).collect();
    let drivers: BTreeSet<_> = cards.iter().map(|card| &card.driver[..]).collect();
    let drivers: Vec<_> = drivers.into_iter().filter(|driver| !driver.is_empty()).collect();
    let driver = if drivers.is_empty() { "driver unknown".to_owned() } else { drivers.join(", ") };
    if Mode::Native.loses_answers(link) {
        return format!("{driver}; generic XDP, whose answers reach the other end");
    }
    let refused = native::bond(link).or_else(|| native::generic_only(&link.name, features));
    let refused = refused.or_else(|| {
        let mut obstacles = cards.iter().flat_map(native::obstacles);
        obstacles.find(|found| found.severity == Severity::Warning)
    });
    match refused {
        Some(found) => format!("{driver}; generic XDP, which takes more CPU: {}", found.what),
        None => format!("{driver}; native XDP"),
    }
}

/// Which frames a guard limits, where others arrive too.
fn limited(name: &str, stations: &Stations) -> Option<Finding> {
    let finding = Finding::note("limited-frames", format!("on {name}, {stations}")).because(
        "a guard limits only what this network namespace may track; frames that conntrack never sees \
         make no entries, and pass",
    );
    finding.when(*stations != Stations::All)
}

fn links_of(host: &Host) -> Result<Vec<Link>, Unread> {
    const PLACE: &str = "rtnetlink: dump of all interfaces";
    if !host.is_this() {
        return Err(Unread::new(PLACE, "a copy of a machine has no interfaces to list"));
    }
    links().map_err(|error| Unread::new(PLACE, &error))
}
