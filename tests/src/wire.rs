//! Sends frames as they are out of a device: the other end of a guarded link.

use std::{fs::File, io::Write as _};

use anyhow::{Context as _, Result};

use crate::{flood::interface_index, netns::Handle, syscall};

/// A packet socket on one device.
#[derive(Debug)]
pub struct Wire {
    socket: File,
}

impl Wire {
    /// Opens `device` of the namespace.
    pub fn open(namespace: &Handle, device: &str) -> Result<Self> {
        let socket = namespace.run(|| {
            let index = interface_index(device)?;
            syscall::open_packet_socket(index).context("cannot open a packet socket")
        })?;
        Ok(Self { socket })
    }

    /// Sends one frame.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        (&self.socket).write_all(frame).context("cannot send a frame")
    }
}
