//! What programs in the kernel share: the answer to a challenged SYN.
#![no_std]

#[cfg(feature = "bpf")]
pub mod answer;
