//! Follows the guarded interfaces: gone, back, renamed, promiscuous.

use std::io;

use anyhow::Context as _;
use log::{info, warn};

use super::{Guard, bring_up::note_mode};
use ctguard_kernel::{
    bpf::{self, Attachment},
    net::{self, Link, resolve},
};

/// Brings slots and attachments in line with the interfaces that there are.
///
/// What fails is told and tried again at the next look: an interface that just appeared may not
/// be ready.
pub(crate) fn look(guard: &mut Guard) -> io::Result<()> {
    let links = net::links()?;
    for position in 0..guard.interfaces.len() {
        let guarded = guard.interfaces[position].clone();
        let here = links.iter().find(|link| link.index == guarded.ifindex);
        match here {
            Some(link) if bpf::is_attached(&guard.pins, link.index) => {
                guard.interfaces[position].name.clone_from(&link.name);
                guard.maps.note_device(&links, link);
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
    guard.maps.note_stations();
    Ok(())
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
    let writing = guard.try_writing()?.context("somebody is changing settings")?;
    let own = guard.maps.interface_settings(old, &link.name);
    let writer = guard.maps.settings_writer(writing);
    if old != link.index {
        writer.remove_interface(old);
    }
    writer.add_interface(links, link, &own)?;
    let attachment =
        bpf::attach(&guard.pins, &mut guard.programs, link, guard.mode, guard.egress_by_filter)?;
    // Flows of an interface without programs have not been noted.
    guard.maps.doubt_known_flows();
    guard.known_flows.restart();
    note_mode(&guard.maps, link, &attachment);
    Ok(attachment)
}

fn remove_pins(guard: &Guard, ifindex: u32) {
    if let Err(error) = Attachment::detach(&guard.pins, ifindex) {
        warn!("cannot remove the pins of interface {ifindex}: {error}");
    }
}
