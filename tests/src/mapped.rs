//! A map's one value in this process's memory, as the daemon sees it.

use std::{
    ffi::c_void,
    os::fd::{AsRawFd as _, BorrowedFd},
    ptr::NonNull,
};

use anyhow::{Context as _, Result, ensure};

/// The one value of a memory-mappable array.
pub(crate) struct Mapped<T> {
    value: NonNull<T>,
}

// SAFETY: the mapping belongs to the process, not to a thread; it is unmapped once, by its owner.
unsafe impl<T: Send> Send for Mapped<T> {}
// SAFETY: only a shared reference is given out, and `T` says whether threads may share one.
unsafe impl<T: Sync> Sync for Mapped<T> {}

impl<T> Mapped<T> {
    /// Maps the value of the array behind `map`, which must hold a `T`.
    pub(crate) fn new(map: BorrowedFd<'_>) -> Result<Self> {
        // SAFETY: a fresh shared mapping of a map's values, at an address of the kernel's choice.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                size_of::<T>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                map.as_raw_fd(),
                0,
            )
        };
        ensure!(address != libc::MAP_FAILED, "mmap: {}", std::io::Error::last_os_error());
        let value = NonNull::new(address.cast::<T>()).context("mmap gave no address")?;
        Ok(Self { value })
    }

    /// The value, which the kernel may be changing.
    pub(crate) fn get(&self) -> &T {
        // SAFETY: the mapping lives as long as `self`, is page-aligned, and `T` is shared with the
        // kernel through atomics alone.
        unsafe { self.value.as_ref() }
    }
}

impl<T> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping that `new` made, of the same length.
        unsafe { libc::munmap(self.value.as_ptr().cast::<c_void>(), size_of::<T>()) };
    }
}
