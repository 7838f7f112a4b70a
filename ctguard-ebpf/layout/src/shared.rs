//! Numbers that several CPUs and userspace change at once.
//!
//! Rust offers no read-modify-write on BPF targets, so it is written here in assembly; the
//! instructions exist since Linux 5.12. Nothing is ordered by these numbers: each stands for
//! itself.

#[cfg(target_arch = "bpf")]
use core::cell::UnsafeCell;
use core::sync::atomic::AtomicU64;
#[cfg(not(target_arch = "bpf"))]
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// A 64-bit number in a map.
#[repr(transparent)]
#[derive(Debug, Default)]
pub struct Shared(AtomicU64);

impl Shared {
    /// A number that starts as `value`.
    pub const fn new(value: u64) -> Self {
        Self(AtomicU64::new(value))
    }

    /// Reads it.
    #[inline(always)]
    pub fn load(&self) -> u64 {
        #[cfg(not(target_arch = "bpf"))]
        {
            self.0.load(Relaxed)
        }
        // SAFETY: the aligned eight bytes of `self`. LLVM 22 selects no atomic load for BPF; a
        // volatile one is one instruction, which does not tear.
        #[cfg(target_arch = "bpf")]
        unsafe {
            self.0.as_ptr().read_volatile()
        }
    }

    /// Writes it.
    #[inline(always)]
    pub fn store(&self, value: u64) {
        #[cfg(not(target_arch = "bpf"))]
        self.0.store(value, Relaxed);
        // SAFETY: as in `load`; an `AtomicU64` may be changed through a shared reference.
        #[cfg(target_arch = "bpf")]
        unsafe {
            self.0.as_ptr().write_volatile(value);
        }
    }

    /// Adds `summand`, wrapping, and returns the number before.
    #[inline(always)]
    pub fn fetch_add(&self, summand: u64) -> u64 {
        #[cfg(not(target_arch = "bpf"))]
        {
            self.0.fetch_add(summand, Relaxed)
        }
        // SAFETY: BPF_ATOMIC | BPF_FETCH on the aligned eight bytes of `self`, as in `store`.
        #[cfg(target_arch = "bpf")]
        unsafe {
            let before;
            core::arch::asm!(
                "{value} = atomic_fetch_add((u64 *)({address} + 0), {value})",
                address = in(reg) self.0.as_ptr(),
                value = inlateout(reg) summand => before,
            );
            before
        }
    }

    /// Sets `bits`, and leaves the others.
    #[inline(always)]
    pub fn set_bits(&self, bits: u64) {
        #[cfg(not(target_arch = "bpf"))]
        self.0.fetch_or(bits, Relaxed);
        // SAFETY: BPF_ATOMIC | BPF_OR, as above.
        #[cfg(target_arch = "bpf")]
        unsafe {
            core::arch::asm!(
                "lock *(u64 *)({address} + 0) |= {bits}",
                address = in(reg) self.0.as_ptr(),
                bits = in(reg) bits,
            );
        }
    }

    /// Writes `new` if the number is `current`; whether it was.
    #[inline(always)]
    pub fn replace_if(&self, current: u64, new: u64) -> bool {
        #[cfg(not(target_arch = "bpf"))]
        {
            self.0.compare_exchange(current, new, Relaxed, Relaxed).is_ok()
        }
        // SAFETY: BPF_ATOMIC | BPF_CMPXCHG, as above; it compares with r0 and leaves there what
        // it found.
        #[cfg(target_arch = "bpf")]
        unsafe {
            let before: u64;
            core::arch::asm!(
                "r0 = cmpxchg_64({address} + 0, r0, {new})",
                address = in(reg) self.0.as_ptr(),
                new = in(reg) new,
                inlateout("r0") current => before,
            );
            before == current
        }
    }
}

/// A 32-bit number in a map; the last writer wins. Rust has no 32-bit atomic on BPF targets.
#[repr(transparent)]
#[derive(Debug, Default)]
pub struct SharedWord(
    #[cfg(not(target_arch = "bpf"))] AtomicU32,
    #[cfg(target_arch = "bpf")] UnsafeCell<u32>,
);

// SAFETY: it is read and written by single instructions of four aligned bytes, which do not tear.
#[cfg(target_arch = "bpf")]
unsafe impl Sync for SharedWord {}

impl SharedWord {
    /// Reads it.
    #[inline(always)]
    pub fn load(&self) -> u32 {
        #[cfg(not(target_arch = "bpf"))]
        {
            self.0.load(Relaxed)
        }
        // SAFETY: as in `Shared::load`, of four bytes.
        #[cfg(target_arch = "bpf")]
        unsafe {
            self.0.get().read_volatile()
        }
    }

    /// Writes it.
    #[inline(always)]
    pub fn store(&self, value: u32) {
        #[cfg(not(target_arch = "bpf"))]
        self.0.store(value, Relaxed);
        // SAFETY: as in `Shared::store`, of four bytes.
        #[cfg(target_arch = "bpf")]
        unsafe {
            self.0.get().write_volatile(value);
        }
    }

    /// Adds `summand`, wrapping; a concurrent addition may be lost.
    #[inline(always)]
    pub fn add(&self, summand: u32) {
        self.store(self.load().wrapping_add(summand));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replacement_needs_the_number_it_was_told() {
        let number = Shared::new(3);
        assert!(!number.replace_if(4, 5));
        assert_eq!(number.load(), 3);
        assert!(number.replace_if(3, 5));
        assert_eq!(number.fetch_add(2), 5);
        assert_eq!(number.load(), 7);
    }
}
