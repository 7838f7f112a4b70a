//! Getting the program into the kernel, onto interfaces, and keeping it there.

mod attach;
mod beside;
mod bpffs;
mod clock;
mod detection;
mod direct_values;
mod egress;
mod former_link;
mod holders;
mod kernel_functions;
mod load;
mod object;
mod pins;
mod program_load;
mod refusal;
mod syscall;

pub use attach::{
    AttachError, Attachment, FormerPrograms, Mode, ModeChoice, Occupant, attach, is_attached,
    is_of_gone, name_moved,
};
pub use beside::{begin as begin_beside, finish as finish_replacement, forget, replace};
pub(crate) use bpffs::is_bpffs;
pub use bpffs::{
    MountError, check as check_pins, dies_with_container, prepare, remove, try_prepare,
};
pub use clock::{ClockError, KernelClock, monotonic};
pub use detection::{DetectionChoice, Detector};
pub use holders::{LinkHolder, link_holders};
pub use kernel_functions::{FunctionsError, check as check_lookup};
pub use load::{LoadError, Programs};
pub use pins::Pins;
#[cfg(feature = "testing")]
pub use program_load::load_object;
pub(crate) use syscall::{BatchMap, namespace_cookie};
