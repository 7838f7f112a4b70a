//! Memory for answers whose length only the kernel knows.
//!
//! `ETHTOOL_GSTRINGS` and `ETHTOOL_GSTATS` write as many items as the driver has at that moment, which
//! may be more than it reported before (`ethtool_get_strings`, `ethtool_get_stats` in
//! `net/ethtool/ioctl.c`). Kernels with the fix of CVE-2025-68795 check the length.

use std::{io, ptr, slice};

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

/// A multiple of every page size.
const FENCE_BYTES: usize = 1 << 16;

/// Zeroed memory before a page that cannot be written: longer answers fail with EFAULT.
#[derive(Debug)]
pub(super) struct Fenced {
    start: *mut u8,
    /// Without the fence.
    bytes: usize,
}

impl Fenced {
    /// At least `bytes` long.
    pub(super) fn new(bytes: usize) -> io::Result<Self> {
        let bytes = bytes.max(1).next_multiple_of(FENCE_BYTES);
        // SAFETY: a new mapping, at an address that the kernel chooses, is nobody else's.
        let start = unsafe {
            mmap_anonymous(
                ptr::null_mut(),
                bytes + FENCE_BYTES,
                ProtFlags::empty(),
                MapFlags::PRIVATE,
            )
        }?;
        let fenced = Self { start: start.cast(), bytes };
        // SAFETY: the first `bytes` of the mapping just made, which nothing refers to yet.
        unsafe { mprotect(start, bytes, MprotectFlags::READ | MprotectFlags::WRITE) }?;
        Ok(fenced)
    }

    pub(super) fn start(&mut self) -> *mut libc::c_char {
        self.start.cast()
    }

    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: `bytes` of the mapping are readable and initialised. They live as long as `self`, and
        // writers borrow it mutably.
        unsafe { slice::from_raw_parts(self.start, self.bytes) }
    }

    /// Reads a number of 32 bits.
    pub(super) fn number(&self, at: usize) -> usize {
        let bytes = self.bytes().get(at..).and_then(|rest| rest.first_chunk());
        bytes.map_or(0, |&bytes| usize::try_from(u32::from_ne_bytes(bytes)).unwrap_or(usize::MAX))
    }

    /// Writes a number of 32 bits, if there is room.
    pub(super) fn put(&mut self, at: usize, number: u32) {
        // SAFETY: as in `bytes`, and `self` is borrowed mutably.
        let all = unsafe { slice::from_raw_parts_mut(self.start, self.bytes) };
        if let Some(bytes) = all.get_mut(at..).and_then(|rest| rest.first_chunk_mut()) {
            *bytes = number.to_ne_bytes();
        }
    }
}

impl Drop for Fenced {
    fn drop(&mut self) {
        // SAFETY: the whole mapping that `new` made, which nothing refers to any more.
        let _ = unsafe { munmap(self.start.cast(), self.bytes + FENCE_BYTES) };
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, os::fd::AsRawFd as _};

    use super::*;

    #[test]
    fn a_number_is_where_it_was_put() {
        let mut fenced = Fenced::new(12).unwrap();
        fenced.put(8, 70_000);
        assert_eq!((fenced.number(8), fenced.number(0)), (70_000, 0));
        fenced.put(usize::MAX, 1);
        assert_eq!(fenced.number(usize::MAX), 0);
    }

    /// Fails when the kernel can write behind what was asked for.
    #[test]
    fn the_kernel_stops_at_the_fence() {
        let mut fenced = Fenced::new(1).unwrap();
        let zeros = File::open("/dev/zero").unwrap();
        let (start, bytes) = (fenced.start().cast(), fenced.bytes + FENCE_BYTES);
        // SAFETY: `read` writes to the memory of `fenced` alone, which is what the test shows.
        let read = unsafe { libc::read(zeros.as_raw_fd(), start, bytes) };
        assert_eq!(usize::try_from(read).unwrap(), fenced.bytes);
    }
}
