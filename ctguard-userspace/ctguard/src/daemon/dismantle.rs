//! Removes a guard from the kernel.

use std::io;

use ctguard_kernel::{
    bpf::{self, Attachment, Pins},
    lock,
};

/// The links go first, so no packet meets a program without its maps. Pins that somebody removed are
/// no failure.
pub(crate) fn dismantle(pins: &Pins) -> io::Result<()> {
    bpf::finish_replacement(pins)?;
    if pins.path().exists() {
        for ifindex in pins.attached()? {
            Attachment::detach(pins, ifindex)?;
        }
        bpf::forget(pins)?;
    }
    lock::forget_writing(pins.path());
    bpf::remove(pins)
}
