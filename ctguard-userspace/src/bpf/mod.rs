//! Getting the program into the kernel, onto interfaces, and keeping it there.

mod attach;
mod bpffs;
mod clock;
mod egress;
mod load;
mod object;
mod pins;
mod syscall;

pub(crate) use attach::{AttachError, Attachment, Mode, ModeChoice, attach, is_attached};
pub(crate) use bpffs::{MountError, prepare, remove};
pub(crate) use clock::{ClockError, KernelClock, monotonic};
pub(crate) use load::{LoadError, Programs, Sizes};
pub(crate) use pins::Pins;
