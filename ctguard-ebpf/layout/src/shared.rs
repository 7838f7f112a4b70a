//! A 64-bit number that several CPUs and userspace change at once.
//!
//! Rust offers no read-modify-write on BPF targets, though the instructions exist since Linux
//! 5.12; they are written here by hand. Nothing is ordered by them: each number stands for itself.

#[cfg(target_arch = "bpf")]
use core::cell::UnsafeCell;
#[cfg(not(target_arch = "bpf"))]
use core::sync::atomic::AtomicU32;
use core::sync::atomic::AtomicU64;
#[cfg(not(target_arch = "bpf"))]
use core::sync::atomic::Ordering::Relaxed;

/// A number in a map.
#[repr(transparent)]
#[derive(Debug, Default)]
pub struct Shared(AtomicU64);

impl Shared {
    /// A number that starts as `value`.
    #[must_use]
    pub const fn new(value: u64) -> Self {
        Self(AtomicU64::new(value))
    }

    /// Reads it.
    #[inline(always)]
    #[must_use]
    #[cfg(not(target_arch = "bpf"))]
    pub fn load(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// Writes it.
    #[inline(always)]
    #[cfg(not(target_arch = "bpf"))]
    pub fn store(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// Adds `summand`, wrapping, and tells what it was before.
    #[inline(always)]
    #[cfg(not(target_arch = "bpf"))]
    pub fn fetch_add(&self, summand: u64) -> u64 {
        self.0.fetch_add(summand, Relaxed)
    }

    /// Sets `bits`, and leaves the others.
    #[inline(always)]
    #[cfg(not(target_arch = "bpf"))]
    pub fn set_bits(&self, bits: u64) {
        self.0.fetch_or(bits, Relaxed);
    }

    /// Writes `new` if it is `current`, and tells whether it was.
    #[inline(always)]
    #[cfg(not(target_arch = "bpf"))]
    pub fn replace_if(&self, current: u64, new: u64) -> bool {
        self.0.compare_exchange(current, new, Relaxed, Relaxed).is_ok()
    }

    /// Reads it.
    #[inline(always)]
    #[must_use]
    #[cfg(target_arch = "bpf")]
    pub fn load(&self) -> u64 {
        // SAFETY: the aligned eight bytes of `self`. LLVM 22 selects no atomic load for BPF; a
        // volatile one is one instruction, which does not tear.
        unsafe { self.0.as_ptr().read_volatile() }
    }

    /// Writes it.
    #[inline(always)]
    #[cfg(target_arch = "bpf")]
    pub fn store(&self, value: u64) {
        // SAFETY: as in `load`; an `AtomicU64` may be changed through a shared reference.
        unsafe { self.0.as_ptr().write_volatile(value) }
    }

    /// Adds `summand`, wrapping, and tells what it was before.
    #[inline(always)]
    #[cfg(target_arch = "bpf")]
    pub fn fetch_add(&self, summand: u64) -> u64 {
        let before;
        // SAFETY: BPF_ATOMIC | BPF_FETCH on the aligned eight bytes of `self`, which may be
        // changed through a shared reference because they are an `AtomicU64`.
        unsafe {
            core::arch::asm!(
                "{value} = atomic_fetch_add((u64 *)({address} + 0), {value})",
                address = in(reg) self.0.as_ptr(),
                value = inlateout(reg) summand => before,
            );
        }
        before
    }

    /// Sets `bits`, and leaves the others.
    #[inline(always)]
    #[cfg(target_arch = "bpf")]
    pub fn set_bits(&self, bits: u64) {
        // SAFETY: BPF_ATOMIC | BPF_OR, as above.
        unsafe {
            core::arch::asm!(
                "lock *(u64 *)({address} + 0) |= {bits}",
                address = in(reg) self.0.as_ptr(),
                bits = in(reg) bits,
            );
        }
    }

    /// Writes `new` if it is `current`, and tells whether it was.
    #[inline(always)]
    #[cfg(target_arch = "bpf")]
    pub fn replace_if(&self, current: u64, new: u64) -> bool {
        let before: u64;
        // SAFETY: BPF_ATOMIC | BPF_CMPXCHG, as above; it compares with r0 and leaves there what
        // it found.
        unsafe {
            core::arch::asm!(
                "r0 = cmpxchg_64({address} + 0, r0, {new})",
                address = in(reg) self.0.as_ptr(),
                new = in(reg) new,
                inlateout("r0") current => before,
            );
        }
        before == current
    }
}

/// A 32-bit number of which the last writer's value stands.
#[repr(transparent)]
#[derive(Debug, Default)]
#[cfg(not(target_arch = "bpf"))]
pub struct SharedWord(AtomicU32);

/// A 32-bit number of which the last writer's value stands; Rust has no such atomic here.
#[repr(transparent)]
#[derive(Debug, Default)]
#[cfg(target_arch = "bpf")]
pub struct SharedWord(UnsafeCell<u32>);

// SAFETY: it is read and written by single instructions of four aligned bytes, which do not tear.
#[cfg(target_arch = "bpf")]
unsafe impl Sync for SharedWord {}

impl SharedWord {
    /// Reads it.
    #[inline(always)]
    #[must_use]
    #[cfg(not(target_arch = "bpf"))]
    pub fn load(&self) -> u32 {
        self.0.load(Relaxed)
    }

    /// Writes it.
    #[inline(always)]
    #[cfg(not(target_arch = "bpf"))]
    pub fn store(&self, value: u32) {
        self.0.store(value, Relaxed);
    }

    /// Reads it.
    #[inline(always)]
    #[must_use]
    #[cfg(target_arch = "bpf")]
    pub fn load(&self) -> u32 {
        // SAFETY: as in `Shared::load`, of four bytes.
        unsafe { self.0.get().read_volatile() }
    }

    /// Writes it.
    #[inline(always)]
    #[cfg(target_arch = "bpf")]
    pub fn store(&self, value: u32) {
        // SAFETY: as in `Shared::store`, of four bytes.
        unsafe { self.0.get().write_volatile(value) }
    }

    /// Adds `summand`, wrapping; what another CPU adds at the same moment may be lost.
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
