//! Follows the guarded interfaces: gone, back, renamed, promiscuous.

use ctguard_ebpf::layout::Interface;
use log::{info, warn};

use super::{Guard, bring_up::note_mode, settle::name_bytes};
use ctguard_kernel::{
    bpf::{self, Attachment},
    net::{self, Link, resolve, station},
};
use ctguard_units::ceilings;

/// Brings slots and attachments in line with the interfaces that there are.
///
/// What fails is told and tried again at the next look: an interface that just appeared may not
/// be ready. False while somebody changes settings: then all of it is for the next look.
pub(crate) fn look(guard: &mut Guard) -> anyhow::Result<bool> {
    let links = net::links()?;
    let Some(_writing) = guard.try_writing()? else { return Ok(false) };
    for position in 0..guard.interfaces.len() {
        let guarded = guard.interfaces[position].clone();
        let here = links.iter().find(|link| link.index == guarded.ifindex);
        match here {
            Some(link) if bpf::is_attached(&guard.pins, link.index) => {
                guard.interfaces[position].name.clone_from(&link.name);
                refresh_slot(guard, &links, link);
            }
            Some(link) => {
                if guarded.attached {
                    warn!("the program is gone from {}; attaching it again", link.name);
                    guard.interfaces[position].attached = false;
                }
                attach_again(guard, &links, link, position);
            }
            None => {
                if guarded.attached {
                    warn!("{} is gone; waiting for it to come back", guarded.name);
                    guard.interfaces[position].attached = false;
                    remove_pins(guard, guarded.ifindex);
                }
                if let Ok(resolved) = resolve(&links, &guarded.name) {
                    attach_again(guard, &links, &resolved.link, position);
                }
            }
        }
    }
    if let Err(error) = guard.maps.note_stations() {
        warn!("cannot tell the program which stations are ours: {error}");
    }
    Ok(true)
}

/// Attaches to `link` in the place of interface `position`, whose overrides it takes over.
fn attach_again(guard: &mut Guard, links: &[Link], link: &Link, position: usize) {
    let old = guard.interfaces[position].ifindex;
    match try_attach(guard, links, link, old) {
        Ok(attachment) => {
            info!("guarding {} ({}) again", link.name, attachment.mode.name());
            let guarded = &mut guard.interfaces[position];
            guarded.name.clone_from(&link.name);
            guarded.ifindex = link.index;
            guarded.mode = attachment.mode;
            guarded.attached = true;
            guarded.complaint = None;
        }
        Err(error) => {
            let complaint = Some(format!("cannot guard {} again: {error:#}", link.name));
            let guarded = &mut guard.interfaces[position];
            if let Some(text) = complaint.as_ref().filter(|_| guarded.complaint != complaint) {
                warn!("{text}");
            }
            guarded.complaint = complaint;
        }
    }
}

fn try_attach(
    guard: &mut Guard,
    links: &[Link],
    link: &Link,
    old: u32,
) -> anyhow::Result<Attachment> {
    let policy = guard.maps.policy()?;
    let former = guard.maps.interfaces.of(old)?.map_or(Interface::FREE, |slot| slot.interface);
    if old != link.index {
        guard.maps.interfaces.remove(old)?;
    }
    guard.maps.interfaces.put(Interface {
        ifindex: link.index,
        mode: 0,
        station: station(links, link),
        ceilings: ceilings(&policy.source, &former.overrides, guard.jiffies_per_second),
        name: name_bytes(&link.name),
        overrides: former.overrides,
        zone: former.zone,
        answers_nothing: former.answers_nothing,
    })?;
    let attachment =
        bpf::attach(&guard.pins, &mut guard.programs, link, guard.mode, guard.egress_by_filter)?;
    // Flows of an interface without programs have not been noted.
    guard.maps.note_known_incomplete()?;
    guard.known_flows.restart();
    note_mode(&mut guard.maps, link, &attachment)?;
    Ok(attachment)
}

/// Name and station of an interface that is there.
fn refresh_slot(guard: &mut Guard, links: &[Link], link: &Link) {
    let Ok(Some(slot)) = guard.maps.interfaces.of(link.index) else { return };
    let fresh =
        Interface { station: station(links, link), name: name_bytes(&link.name), ..slot.interface };
    if fresh != slot.interface
        && let Err(error) = guard.maps.interfaces.put(fresh)
    {
        warn!("cannot refresh {}: {error}", link.name);
    }
}

fn remove_pins(guard: &Guard, ifindex: u32) {
    if let Err(error) = Attachment::detach(&guard.pins, ifindex) {
        warn!("cannot remove the pins of interface {ifindex}: {error}");
    }
}
