//! Code that ctguard's and the lab's eBPF programs share: the answer to a challenged SYN.
#![no_std]

#[cfg(feature = "bpf")]
pub mod answer;
