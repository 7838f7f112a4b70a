//! Workarounds for the kernel's verifier. None of them changes what the program does.
//!
//! The verifier walks every path of a program and stops where it meets a state that it has seen. A
//! constant that differs between two paths (which slot matched, how many tags were skipped) keeps
//! their states apart, and everything behind is walked once for each: 735,000 instructions instead
//! of a tenth of that. It knows nothing of what is read from a map, so a number that went through
//! one, or that a zero from one was added to, leaves the paths in the same state.

use core::cell::Cell;

/// A zero read from a map, where the verifier cannot know its value.
#[derive(Clone, Copy)]
pub struct OpaqueZero(u32);

impl OpaqueZero {
    /// `zero` is 0, read from a map.
    #[inline(always)]
    #[must_use]
    pub const fn new(zero: u32) -> Self {
        Self(zero)
    }

    /// `number`, whose value the verifier does not know afterwards.
    #[inline(always)]
    #[must_use]
    pub const fn hide(self, number: u32) -> u32 {
        number.wrapping_add(self.0)
    }
}

/// A place in a per-CPU map for one value, which the verifier does not know when it is read again.
///
/// Numbers that are used as an index behind it must not be enums in `T`: LLVM would leave out the
/// mask that the verifier asks for.
#[derive(Default)]
#[repr(transparent)]
pub struct Scratch<T>(Cell<T>);

impl<T: Copy> Scratch<T> {
    /// Stores `value`.
    #[inline(always)]
    pub fn put(&self, value: T) {
        self.0.set(value);
    }

    /// What was stored last.
    #[inline(always)]
    #[must_use]
    pub fn get(&self) -> T {
        forget_memory();
        self.0.get()
    }

    /// `value`, which the verifier does not know afterwards.
    #[inline(always)]
    #[must_use]
    pub fn hide(&self, value: T) -> T {
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

/// Keeps LLVM from merging the conditions before and behind it.
///
/// LLVM would or them together in a register. The verifier of Linux 6.1 loses what it knew of a
/// number once an unknown one was or-ed to it (`adjust_scalar_min_max_vals`): behind "no slot, or not
/// a SYN" it would no longer know that there is a slot.
#[inline(always)]
pub fn keep_conditions_apart() {
    #[cfg(target_arch = "bpf")]
    // SAFETY: no instruction.
    unsafe {
        core::arch::asm!("", options(nomem, nostack));
    }
}

/// −1 for a negative number, else 0: a mask in place of a branch.
///
/// LLVM turns such arithmetic into comparisons, and so into branches, where it recognizes it.
#[inline(always)]
#[must_use]
#[cfg(target_arch = "bpf")]
pub fn sign(number: i64) -> i64 {
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

/// −1 for a negative number, else 0.
#[inline(always)]
#[must_use]
#[cfg(not(target_arch = "bpf"))]
pub const fn sign(number: i64) -> i64 {
    number >> 63
}
