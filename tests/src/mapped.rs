//! A map's values in this process's memory, as the daemon sees them.

use std::{
    ffi::c_void,
    os::fd::{AsRawFd as _, BorrowedFd},
    ptr::NonNull,
};

use anyhow::{Context as _, Result, ensure};

/// The values of a memory-mappable array.
pub(crate) struct Mapped<T> {
    values: NonNull<T>,
    length: usize,
}

// SAFETY: the mapping belongs to the process, not to a thread; it is unmapped once, by its owner.
unsafe impl<T: Send> Send for Mapped<T> {}
// SAFETY: only a shared reference is given out, and `T` says whether threads may share one.
unsafe impl<T: Sync> Sync for Mapped<T> {}

impl<T> Mapped<T> {
    /// Maps `length` values of the array behind `map`, which must hold `T`s, so many at least.
    pub(crate) fn new(map: BorrowedFd<'_>, length: usize) -> Result<Self> {
        // SAFETY: a fresh shared mapping of a map's values, at an address of the kernel's choice.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length * size_of::<T>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                map.as_raw_fd(),
                0,
            )
        };
        ensure!(address != libc::MAP_FAILED, "mmap: {}", std::io::Error::last_os_error());
        let values = NonNull::new(address.cast::<T>()).context("mmap gave no address")?;
        Ok(Self { values, length })
    }

    /// The values, which the kernel may be changing.
    pub(crate) fn get(&self) -> &[T] {
        // SAFETY: the mapping holds `length` values, lives as long as `self` and is page-aligned;
        // `T` is shared with the kernel through atomics alone.
        unsafe { std::slice::from_raw_parts(self.values.as_ptr(), self.length) }
    }
}

impl<T> Drop for Mapped<T> {
    fn drop(&mut self) {
        let bytes = self.length * size_of::<T>();
        // SAFETY: the mapping that `new` made, of the same length.
        unsafe { libc::munmap(self.values.as_ptr().cast::<c_void>(), bytes) };
    }
}
