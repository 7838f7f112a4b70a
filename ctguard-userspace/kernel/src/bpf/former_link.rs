//! A link and the program it ran before a start, so that a start that fails can put it back.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
};

use super::syscall::{self, LinkInfo};

pub(super) struct FormerLink {
    link: OwnedFd,
    pub(super) program: OwnedFd,
    id: u32,
}

impl FormerLink {
    /// `None` if nothing is pinned, or only the link of an interface that is gone.
    pub(super) fn of(
        pinned: Option<(OwnedFd, LinkInfo)>,
        ifindex: u32,
    ) -> io::Result<Option<Self>> {
        let Some((link, info)) = pinned.filter(|(_, info)| info.ifindex == ifindex) else {
            return Ok(None);
        };
        Ok(Some(Self { link, program: syscall::program_by_id(info.program)?, id: info.program }))
    }

    /// For good; nobody can attach it again.
    pub(super) fn detach(&self) -> io::Result<()> {
        syscall::detach_link(self.link.as_fd())
    }

    /// Whether the link is still on an interface.
    pub(super) fn is_attached(&self) -> io::Result<bool> {
        Ok(syscall::link_info(self.link.as_fd())?.ifindex != 0)
    }

    /// Whether a link runs the same program.
    pub(super) fn is_run_by(&self, link: &LinkInfo) -> bool {
        link.ifindex != 0 && link.program == self.id
    }

    pub(super) fn restore(&self) -> io::Result<()> {
        syscall::update_link(self.link.as_fd(), self.program.as_fd())
    }
}
