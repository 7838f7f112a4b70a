//! Getting the program into the kernel, onto interfaces, and keeping it there.

mod attach;
mod bpffs;
mod clock;
mod detection;
mod egress;
mod kernel_functions;
mod load;
mod object;
mod pins;
mod program_load;
mod refusal;
pub(crate) mod sizes;
mod syscall;

pub(crate) use attach::{
    AttachError, Attachment, Former, Mode, ModeChoice, Occupant, attach, is_attached,
};
pub(crate) use bpffs::{MountError, check as check_pins, prepare, remove};
pub(crate) use clock::{ClockError, KernelClock, monotonic};
pub(crate) use detection::{DetectionChoice, Detector};
pub(crate) use kernel_functions::{FunctionsError, check as check_lookup};
pub(crate) use load::{LoadError, Programs};
pub(crate) use pins::Pins;
pub(crate) use sizes::Sizes;
