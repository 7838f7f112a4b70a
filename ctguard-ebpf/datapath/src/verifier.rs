//! Workarounds for the kernel's verifier. None of them changes what the program does.
//!
//! The verifier walks every path of a program and stops where it meets a state that it has seen. If
//! a constant differs between two paths (which slot matched, how many tags were skipped), their
//! states differ too, and it walks all code behind once for each: 735,000 instructions instead of a
//! tenth of that. It knows no value that was read from a map. So a number that went through a map,
//! or to which a zero from a map was added, lets the paths meet in one state.

use core::cell::Cell;

/// A zero read from a map, where the verifier cannot know its value.
#[derive(Clone, Copy)]
pub struct OpaqueZero(u32);

impl OpaqueZero {
    /// `zero` is 0, read from a map.
    #[inline(always)]
    pub const fn new(zero: u32) -> Self {
        Self(zero)
    }

    /// `number`, whose value the verifier does not know afterwards.
    #[inline(always)]
    pub const fn hide(self, number: u32) -> u32 {
        number.wrapping_add(self.0)
    }
}

/// Room for one value in a per-CPU map; the verifier does not know the value that is read back.
///
/// `T` must hold numbers that are used as an index as integers, not as enums: for an enum LLVM
/// leaves out the mask that the verifier needs.
#[derive(Default)]
#[repr(transparent)]
pub(crate) struct Scratch<T>(Cell<T>);

impl<T: Copy> Scratch<T> {
    #[inline(always)]
    pub(crate) fn put(&self, value: T) {
        self.0.set(value);
    }

    #[inline(always)]
    pub(crate) fn get(&self) -> T {
        forget_memory();
        self.0.get()
    }

    /// `value`, which the verifier does not know afterwards.
    #[inline(always)]
    pub(crate) fn hide(&self, value: T) -> T {
        self.put(value);
        self.get()
    }
}

/// Makes LLVM read memory again, instead of using what it read or wrote before.
#[inline(always)]
pub fn forget_memory() {
    #[cfg(target_arch = "bpf")]
    // SAFETY: no instruction.
    unsafe {
        core::arch::asm!("", options(nostack));
    }
}

/// Keeps LLVM from merging the branches before and after it into one.
///
/// LLVM would combine both conditions by OR in a register. The verifier of Linux 6.1 forgets what
/// it knew of a number that an unknown one is combined with (`adjust_scalar_min_max_vals`): after
/// "no slot, or not a SYN" it would no longer know that there is a slot.
#[inline(always)]
pub(crate) fn branch_barrier() {
    #[cfg(target_arch = "bpf")]
    // SAFETY: no instruction.
    unsafe {
        core::arch::asm!("", options(nomem, nostack));
    }
}

/// −1 for a negative number, else 0: a mask in place of a branch. In assembly, because LLVM turns
/// such arithmetic into branches where it recognizes it.
#[inline(always)]
pub(crate) fn sign(number: i64) -> i64 {
    #[cfg(not(target_arch = "bpf"))]
    {
        number >> 63
    }
    #[cfg(target_arch = "bpf")]
    {
        let sign;
        // SAFETY: one arithmetic shift of a register.
        unsafe {
            core::arch::asm!(
                "{number} s>>= 63",
                number = inlateout(reg) number => sign,
                options(pure, nomem, nostack),
            );
        }
        sign
    }
}
