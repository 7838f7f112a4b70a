//! Removes a guard from the kernel.

use std::{fs, io};

use ctguard_kernel::{
    bpf::{self, Attachment, Pins},
    lock,
};

/// The links go first, so no packet meets a program without its maps. Pins that somebody removed are
/// no failure.
pub(crate) fn dismantle(pins: &Pins) -> io::Result<()> {
    if pins.path().exists() {
        unpin(pins)?;
    }
    lock::forget_writing(pins.path());
    bpf::remove(pins)
}

fn unpin(pins: &Pins) -> io::Result<()> {
    for ifindex in pins.attached()? {
        Attachment::detach(pins, ifindex)?;
    }
    for entry in fs::read_dir(pins.path())? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
