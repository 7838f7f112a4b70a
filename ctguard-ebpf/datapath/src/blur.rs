//! Keeping the verifier from following every path apart.
//!
//! The kernel's verifier walks each path of a program and stops where it meets a state that it has
//! seen. A constant that tells paths apart (which slot matched, how many tags were stepped over)
//! keeps their states different, and all that follows is walked once for each: 735,000
//! instructions instead of a tenth of that. Adding a zero that the verifier cannot know, because
//! it lies in a map, makes the states one.

/// A zero of unknown value.
#[derive(Clone, Copy)]
pub struct Blur(u32);

impl Blur {
    /// `zero` is 0, read from where the verifier cannot see it.
    #[inline(always)]
    #[must_use]
    pub const fn new(zero: u32) -> Self {
        Self(zero)
    }

    /// `number`, and the verifier no longer knows which.
    #[inline(always)]
    #[must_use]
    pub const fn hide(self, number: u32) -> u32 {
        number.wrapping_add(self.0)
    }
}

/// Keeps LLVM from making one condition of what is asked before and behind.
///
/// It would add them up in a register, and the verifier of Linux 6.1 knows nothing of a known
/// number that an unknown one was or-ed to (`adjust_scalar_min_max_vals`): behind "no slot, or not a
/// SYN" it would no longer know that there is a slot.
#[inline(always)]
pub fn apart() {
    #[cfg(target_arch = "bpf")]
    // SAFETY: it is empty.
    unsafe {
        core::arch::asm!("", options(nomem, nostack));
    }
}

/// −1 for a negative number, else 0: a mask in place of a branch.
///
/// LLVM makes comparisons, and so branches, of such arithmetic where it sees it through.
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
