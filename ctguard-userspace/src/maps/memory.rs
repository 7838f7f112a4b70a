//! The only place where the layout's types meet kernel memory.
//!
//! One of the two modules of this crate with unsafe code (the other is `bpf::syscall`).

use std::{
    io,
    ops::Deref,
    os::fd::{AsFd, AsRawFd},
};

use aya::Pod;
use ctguard_ebpf::layout::{Counters, Environment, Grant, Interface, ListEntry, Policy};
use memmap2::{Mmap, MmapMut, MmapOptions};

/// A value of the layout as aya copies it in and out of a map.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub(crate) struct Value<T>(pub(crate) T);

// SAFETY: `repr(C)` of integers without padding; every bit pattern is valid.
unsafe impl Pod for Value<Policy> {}
// SAFETY: as above.
unsafe impl Pod for Value<Environment> {}
// SAFETY: as above.
unsafe impl Pod for Value<Interface> {}
// SAFETY: as above.
unsafe impl Pod for Value<ListEntry> {}
// SAFETY: as above.
unsafe impl Pod for Value<Counters> {}

/// The grant, in place: what is written here holds for the next packet.
#[derive(Debug)]
pub(crate) struct SharedGrant(MmapMut);

impl SharedGrant {
    /// Maps the only value of the `grant` map.
    pub(crate) fn map(fd: &impl AsFd) -> io::Result<Self> {
        // SAFETY: the memory belongs to a BPF array that the mapping keeps alive; kernel and
        // processes touch it with atomic instructions only.
        unsafe { MmapOptions::new().len(size_of::<Grant>()).map_mut(fd.as_fd().as_raw_fd()) }
            .map(Self)
    }
}

impl Deref for SharedGrant {
    type Target = Grant;

    fn deref(&self) -> &Grant {
        #[expect(clippy::cast_ptr_alignment, reason = "a mapping begins on a page")]
        let grant = self.0.as_ptr().cast::<Grant>();
        // SAFETY: the mapping is `size_of::<Grant>()` bytes long, begins on a page and lives as
        // long as `self`; `Grant` is atomics and plain integers that nobody writes.
        unsafe { &*grant }
    }
}

/// The first word of a memory-mappable array: the layout's version, in the `policy` map.
pub(crate) fn first_word(fd: &impl AsFd) -> io::Result<u32> {
    // SAFETY: as in `SharedGrant::map`; the first word is written once, when the maps are made.
    let memory: Mmap =
        unsafe { MmapOptions::new().len(size_of::<u32>()).map(fd.as_fd().as_raw_fd()) }?;
    let bytes = memory.first_chunk().copied().unwrap_or_default();
    Ok(u32::from_ne_bytes(bytes))
}
