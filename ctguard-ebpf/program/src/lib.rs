//! What programs in the kernel share: the answer to a challenged SYN.
#![no_std]
#![cfg_attr(feature = "bpf", feature(asm_experimental_arch))]

#[cfg(feature = "bpf")]
pub mod answer;
