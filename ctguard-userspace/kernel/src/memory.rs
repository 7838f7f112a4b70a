//! Memory of the process.

/// Above this many bytes, memory is a mapping of its own: glibc's first threshold, and musl's.
#[cfg(target_env = "gnu")]
const OWN_MAPPING: libc::c_int = 128 << 10;

/// Has all threads take memory from one heap: what one gives back, another finds. Few of them ask for
/// memory at the same time. What a look at the table collects is mapped apart: glibc would raise the
/// threshold to the size of what was given back, and keep the heap's holes from then on. To be called
/// before there are other threads (`mallopt`).
pub fn share_one_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: they take no pointer.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_MMAP_THRESHOLD, OWN_MAPPING);
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
