//! The data path: all decisions about a packet.
//!
//! `guard` holds the order. `packet` reads the headers, `classify` says whether the packet could
//! make an entry, and `flow` and `known_flows` whether conntrack knows its flow. `admission`
//! applies the grant and the limits (`bucket`), and `challenge` tests whether the sender of a SYN
//! is real. `verifier` has workarounds for the kernel's verifier. The library calls no kernel
//! helper, so it runs on the host as in the kernel.
#![cfg_attr(not(test), no_std)]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]
#![expect(
    clippy::inline_always,
    reason = "one program without calls: the verifier follows it, and no stack frame is spent"
)]

mod admission;
pub mod bucket;
pub mod capture;
pub mod challenge;
pub mod classify;
pub mod flow;
pub mod guard;
pub mod hash;
pub mod known_flows;
pub mod leaving;
pub mod memory;
pub mod packet;
pub mod place;
mod recent;
pub mod retries;
pub mod sources;
pub mod tracked;
pub mod verifier;

use ctguard_layout::{self as layout, shared, units};
