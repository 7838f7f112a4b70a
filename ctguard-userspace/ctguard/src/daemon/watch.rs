//! Follows the guarded interfaces: gone, back, renamed, promiscuous.

use std::io;

use anyhow::{Context as _, anyhow};
use log::{info, warn};

use super::{
    Guard, arrivals,
    bring_up::note_mode,
    guarded::{Guarded, another_of, merge},
    known_flows,
};
use crate::{events::What, interfaces::memberless};
use ctguard_kernel::{
    bpf::{self, Attachment},
    net::{self, Link, Refusal, Sight, Stations, Surroundings, lacks_members, resolve},
};

/// What it means that an interface is not guarded.
const OPEN: &str = "it is open to floods";

/// Updates slots and attachments. A failure is tried again at the next look, because a new interface
/// may not be ready.
pub(crate) fn look(guard: &mut Guard) -> anyhow::Result<()> {
    let links = net::links()?;
    let indices = indices(guard, &links);
    let around = Surroundings::of(links, &indices);
    let seen = follow_devices(guard, &around);
    // Entries come first: a device that was made again has one.
    arrivals::follow(guard, &around);
    seen?;
    guard.maps.note_stations();
    if around.exempting != guard.around.exempting {
        note_exempting(guard, around.exempting.as_deref());
    }
    guard.around = around;
    arrivals::publish(guard);
    Ok(())
}

fn follow_devices(guard: &mut Guard, around: &Surroundings) -> anyhow::Result<()> {
    let mut position = 0;
    while position < guard.interfaces.len() {
        if follow_device(guard, around, position)? {
            position += 1;
        }
    }
    Ok(())
}

/// Whether the entry stays.
fn follow_device(
    guard: &mut Guard,
    around: &Surroundings,
    position: usize,
) -> anyhow::Result<bool> {
    let links = &around.links;
    let guarded = guard.interfaces[position].clone();
    match find(links, guarded.ifindex, net::link)?.filter(|link| is_it(guard, &guarded, link)) {
        Some(link) if bpf::is_attached(&guard.pins, link.index) => {
            guard.interfaces[position].name.clone_from(&link.name);
            guard.maps.note_device(around, &link);
            note_stations(guard, around, &link, position);
        }
        Some(link) => {
            // It may be renamed, and by its old name nobody would know it at the next look.
            guard.interfaces[position].name.clone_from(&link.name);
            if guarded.attached {
                guard.interfaces[position].attached = false;
                // Whoever removed it may do so again and again.
                let kept = Err(anyhow!("somebody removed it"));
                let task = format!("keep the program on {}", link.name);
                guard.attempted(&task, "it is attached again", &kept);
            }
            return Ok(attach_again(guard, around, &link, position, !guarded.attached));
        }
        None => {
            if guarded.attached {
                guard.report(What::InterfaceGone { interface: guarded.name.clone() });
                guard.interfaces[position].attached = false;
                Attachment::detach(&guard.pins, guarded.ifindex)
                    .with_context(|| format!("cannot remove the pins of {}", guarded.name))?;
            }
            match resolve(links, &guarded.name) {
                Ok(resolved) => {
                    return Ok(attach_again(guard, around, &resolved.link, position, true));
                }
                Err(Refusal::Unknown { .. }) => {}
                Err(refusal) => {
                    let refused = Err(refusal.into());
                    guard.attempted(&again(&guarded.name), OPEN, &refused);
                }
            }
        }
    }
    Ok(true)
}

/// Whether `link`, which has the index of what was guarded, is that device, maybe renamed. The kernel gives
/// the index of one that is gone to another.
fn is_it(guard: &Guard, guarded: &Guarded, link: &Link) -> bool {
    link.name == guarded.name || guarded.attached && !bpf::is_of_gone(&guard.pins, link.index)
}

/// Says that rules exempt packets, which conntrack then never knows.
pub(crate) fn note_exempting(guard: &Guard, table: Option<&str>) {
    let Some(table) = table.filter(|_| guard.programs.detector().options_bytes() != 0) else {
        return;
    };
    warn!(
        "rules in table {table} exempt packets from tracking: of those that arrive here, each looks like a \
         new flow. --new-flow-detection flow-cache knows their flows by what leaves"
    );
}

/// Whether what netfilter sees has changed since the last look: no event tells so.
pub(crate) fn has_new_sight(guard: &Guard) -> bool {
    let links = &guard.around.links;
    !guard.around.still_hold(&Sight::of(links, &indices(guard, links)))
}

/// Of what is guarded, and of what may be as soon as it can be.
fn indices(guard: &Guard, links: &[Link]) -> Vec<u32> {
    let guarded = guard.interfaces.iter().map(|it| it.ifindex);
    guarded.chain(arrivals::leads(guard, links)).collect()
}

/// Says which frames are limited, if that changed.
fn note_stations(guard: &mut Guard, around: &Surroundings, link: &Link, position: usize) {
    let stations = Stations::of(around, link);
    if guard.interfaces[position].stations != stations {
        info!("{}: {stations}", link.name);
        guard.interfaces[position].stations = stations;
    }
}

/// Finds an interface by its index. If the list lacks it, only the kernel's own answer for that index
/// says that it is gone.
fn find(
    links: &[Link],
    index: u32,
    ask: impl FnOnce(u32) -> io::Result<Option<Link>>,
) -> io::Result<Option<Link>> {
    match links.iter().find(|link| link.index == index) {
        Some(link) => Ok(Some(link.clone())),
        None => ask(index),
    }
}

/// Attaches to `link` instead of interface `position`, whose settings it takes over. If `link` is guarded
/// under another name, its entry stands for both from here on; whether the entry stays.
fn attach_again(
    guard: &mut Guard,
    around: &Surroundings,
    link: &Link,
    position: usize,
    is_news: bool,
) -> bool {
    if let Some(other) = another_of(&guard.interfaces, position, link.index) {
        let attempt = become_part_of(guard, position, other);
        let stays = attempt.is_err();
        guard.attempted(&again(&link.name), "it is tried again", &attempt);
        return stays;
    }
    if lacks_members(&around.links, link) {
        let attempt = Err(anyhow!(memberless(&link.name)));
        guard.attempted(&again(&link.name), "it is guarded when it has one", &attempt);
        return true;
    }
    let old = guard.interfaces[position].ifindex;
    let attempt = try_attach(guard, around, link, old).map(|attachment| {
        if is_news {
            guard.report(What::InterfaceBack { interface: link.name.clone() });
        }
        let guarded = &mut guard.interfaces[position];
        guarded.name.clone_from(&link.name);
        guarded.ifindex = link.index;
        guarded.mode = attachment.mode;
        guarded.attached = true;
        note_stations(guard, around, link, position);
    });
    if attempt.is_err() && guard.maps.interfaces.of(link.index).is_some() {
        // Its settings are there now.
        guard.interfaces[position].ifindex = link.index;
    }
    guard.attempted(&again(&link.name), OPEN, &attempt);
    true
}

/// Removes the entry at `position` and its slot; the settings of the one at `other` stay.
fn become_part_of(guard: &mut Guard, position: usize, other: usize) -> anyhow::Result<()> {
    let writing = guard.try_writing()?.context("somebody is changing settings")?;
    let device = guard.interfaces[other].name.clone();
    let former = merge(&mut guard.interfaces, position, other);
    if guard.interfaces.iter().all(|it| it.ifindex != former.ifindex) {
        guard.maps.settings_writer(writing).remove_interface(former.ifindex);
    }
    let device = (device != former.name).then_some(device);
    guard.report(What::InterfaceGuarded { interface: former.name, device });
    Ok(())
}

fn again(name: &str) -> String {
    format!("guard {name} again")
}

fn try_attach(
    guard: &mut Guard,
    around: &Surroundings,
    link: &Link,
    old: u32,
) -> anyhow::Result<Attachment> {
    let writing = guard.try_writing()?.context("somebody is changing settings")?;
    let own = guard.maps.interface_settings(old, &link.name);
    let writer = guard.maps.settings_writer(writing);
    if old != link.index {
        writer.remove_interface(old);
    }
    writer.add_interface(around, link, &own)?;
    let attachment =
        bpf::attach(&guard.pins, &mut guard.programs, link, guard.mode, guard.egress_by_filter)?;
    // The filter lacks flows of an interface without programs.
    known_flows::learn(guard);
    note_mode(&guard.maps, link, &attachment);
    Ok(attachment)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wan() -> Link {
        Link { index: 7, name: "wan0".to_owned(), ..Link::default() }
    }

    /// Fails when pins are removed because a list of interfaces lacks one.
    #[test]
    fn an_interface_that_a_list_lacks_is_gone_only_where_the_kernel_says_so() {
        let another = [Link { index: 1, ..Link::default() }];
        assert_eq!(find(&another, 7, |_| Ok(Some(wan()))).unwrap(), Some(wan()));
        assert_eq!(find(&another, 7, |_| Ok(None)).unwrap(), None);
        let error = || io::Error::from(io::ErrorKind::TimedOut);
        find(&another, 7, |_| Err(error())).unwrap_err();
    }

    #[test]
    fn an_interface_of_the_list_is_not_asked_for_again() {
        assert_eq!(find(&[wan()], 7, |_| unreachable!()).unwrap(), Some(wan()));
    }
}
