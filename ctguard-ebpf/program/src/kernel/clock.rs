//! Jiffies.

use aya_ebpf::helpers::bpf_jiffies64;
use ctguard_layout::units::Jiffies;

/// The verifier replaces the call by one load (`bpf_jiffies64`, Linux 5.6).
#[inline(always)]
pub(crate) fn now() -> Jiffies {
    // SAFETY: the helper reads a kernel variable and takes no argument.
    Jiffies(unsafe { bpf_jiffies64() })
}
