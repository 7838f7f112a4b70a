//! Attaches the egress program: as a TCX link since Linux 6.6, else as a clsact filter.
//!
//! It runs before other egress programs, because one that ends the chain would hide packets from it.

use std::{fs, io, os::fd::AsFd};

use aya::programs::{
    Link as _, ProgramError, SchedClassifier, TcAttachType,
    links::LinkError,
    tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle, qdisc_add_clsact},
};
use ctguard_layout::programs;
use thiserror::Error;

use super::{
    Pins,
    former_link::FormerLink,
    pins::{remove_directory_if_there, remove_if_there},
    syscall,
};
use crate::net::{self, Link, clsact};

/// Of the filter; numbers that nobody else is likely to choose.
const PRIORITY: u16 = 199;
const HANDLE: TcHandle = TcHandle::new(0, 199);

#[derive(Debug, Error)]
pub enum EgressError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Program(#[from] ProgramError),
    #[error(transparent)]
    Filter(#[from] TcError),
    #[error(transparent)]
    Link(#[from] LinkError),
}

/// Attaches the program, or replaces it in place; true if it was not attached before.
pub(super) fn attach(
    pins: &Pins,
    program: &mut SchedClassifier,
    link: &Link,
    by_filter: bool,
) -> Result<bool, EgressError> {
    if let Some((fd, info)) = pins.tcx_link(link.index)? {
        if info.ifindex == link.index {
            syscall::update_link(fd.as_fd(), program.fd()?.as_fd())?;
            return Ok(false);
        }
        remove_if_there(&pins.tcx(link.index))?;
    }
    if has_filter(pins, link.index)? {
        update_filter(program, link)?;
        return Ok(false);
    }
    if !by_filter {
        match syscall::attach_tcx_egress(program.fd()?.as_fd(), link.index) {
            Ok(fd) => {
                syscall::pin(fd.as_fd(), &pins.tcx(link.index))?;
                return Ok(true);
            }
            Err(error) if error.raw_os_error() != Some(libc::EINVAL) => return Err(error.into()),
            Err(_) => {}
        }
    }
    attach_filter(pins, program, link)?;
    Ok(true)
}

/// What was attached before a start.
pub(super) enum FormerEgress {
    Nothing,
    Link(FormerLink),
    Filter(Box<SchedClassifier>),
    /// A filter whose program is pinned no more.
    Unknown,
}

impl FormerEgress {
    pub(super) fn of(pins: &Pins, ifindex: u32) -> io::Result<Self> {
        if let Some(link) = FormerLink::of(pins.tcx_link(ifindex)?, ifindex)? {
            return Ok(Self::Link(link));
        }
        if !has_filter(pins, ifindex)? {
            return Ok(Self::Nothing);
        }
        let pin = pins.program(programs::EGRESS);
        if !pin.exists() {
            return Ok(Self::Unknown);
        }
        let pinned = SchedClassifier::from_pin(pin);
        pinned.map(|program| Self::Filter(program.into())).map_err(io::Error::other)
    }

    pub(super) fn restore(self, pins: &Pins, link: &Link) -> Result<(), EgressError> {
        match self {
            Self::Nothing => Ok(detach(pins, link.index)?),
            Self::Link(former) => Ok(former.restore()?),
            Self::Filter(mut program) => update_filter(&mut program, link),
            Self::Unknown => Ok(()),
        }
    }
}

/// Whether the link is still attached; for a filter, whether its qdisc is still there.
pub(super) fn is_attached(pins: &Pins, ifindex: u32) -> bool {
    match pins.tcx_link(ifindex) {
        Ok(Some((_, info))) => info.ifindex == ifindex,
        Ok(None) | Err(_) => {
            pins.filter(ifindex).exists() && clsact::exists(ifindex).unwrap_or(true)
        }
    }
}

/// Undoes [`attach`], even if the interface is gone.
pub(super) fn detach(pins: &Pins, ifindex: u32) -> io::Result<()> {
    remove_if_there(&pins.tcx(ifindex))?;
    // Without the filter the qdisc is there where the kernel refused the filter.
    let [has_filter, has_qdisc] = [pins.filter(ifindex), pins.qdisc(ifindex)].map(|it| it.exists());
    if !has_filter && !has_qdisc {
        return Ok(());
    }
    if let Some(link) = net::link(ifindex)? {
        if has_filter && clsact::exists(ifindex)? {
            filter_link(&link.name)?.detach().map_err(io::Error::other)?;
        }
        if has_qdisc && clsact::exists(ifindex)? {
            clsact::remove_if_unused(ifindex)?;
        }
    }
    remove_directory_if_there(&pins.qdisc(ifindex))?;
    remove_directory_if_there(&pins.filter(ifindex))
}

/// Whether the filter is there; it goes with its qdisc, for one when the device is moved to another network
/// namespace.
fn has_filter(pins: &Pins, ifindex: u32) -> io::Result<bool> {
    Ok(pins.filter(ifindex).exists() && clsact::exists(ifindex)?)
}

fn attach_filter(
    pins: &Pins,
    program: &mut SchedClassifier,
    link: &Link,
) -> Result<(), EgressError> {
    if !clsact::exists(link.index)? {
        fs::create_dir_all(pins.qdisc(link.index))?;
        qdisc_add_clsact(&link.name)?;
    }
    let options = NlOptions { priority: PRIORITY, handle: HANDLE, classid: None };
    let options = TcAttachOptions::Netlink(options);
    match program.attach_with_options(&link.name, TcAttachType::Egress, options) {
        // The filter outlives this process: no link may remove it when it is dropped.
        Ok(id) => std::mem::forget(program.take_link(id)?),
        // Ours, whose pins somebody removed. Who made the qdisc was among them; it goes only if it is unused.
        Err(_) if !is_of_another(pins, link)? && update_filter(program, link).is_ok() => {
            fs::create_dir_all(pins.qdisc(link.index))?;
        }
        Err(error) => return Err(error.into()),
    }
    Ok(fs::create_dir_all(pins.filter(link.index))?)
}

/// Whether an XDP program is on the interface that is not pinned here: the filter may be that guard's.
pub(super) fn is_of_another(pins: &Pins, link: &Link) -> io::Result<bool> {
    let has_program = || Ok(net::link(link.index)?.is_some_and(|now| now.xdp.is_some()));
    if pins.has_xdp(link.index)? { Ok(false) } else { has_program() }
}

fn update_filter(program: &mut SchedClassifier, link: &Link) -> Result<(), EgressError> {
    let id = program.attach_to_link(filter_link(&link.name)?)?;
    std::mem::forget(program.take_link(id)?);
    Ok(())
}

fn filter_link(name: &str) -> io::Result<SchedClassifierLink> {
    SchedClassifierLink::attached(name, TcAttachType::Egress, PRIORITY, HANDLE, None)
}
