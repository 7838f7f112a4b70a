//! A link and the program it ran before a start, so that a start that fails can put it back.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
};

use super::syscall::{self, LinkInfo};

pub(super) struct FormerLink {
    link: OwnedFd,
    program: OwnedFd,
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
        Ok(Some(Self { link, program: syscall::program_by_id(info.program)? }))
    }

    pub(super) fn restore(&self) -> io::Result<()> {
        syscall::update_link(self.link.as_fd(), self.program.as_fd())
    }
}
