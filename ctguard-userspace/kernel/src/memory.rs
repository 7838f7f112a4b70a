//! Memory of the process.

/// Has all threads take memory from one heap: what one gives back, another finds. Few of them ask for
/// memory at the same time. To be called before there are others (`mallopt`).
pub fn share_one_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes no pointer.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Gives free memory back to the kernel. A start reads the kernel's types and relocates the programs,
/// which takes megabytes that the daemon never needs again; glibc keeps them (`malloc_trim`).
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes no pointer, and moves nothing that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}
