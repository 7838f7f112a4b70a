//! The data path of ctguard: what a packet meets, in order.
//!
//! `packet` reads the headers, `classify` tells whether the packet could make conntrack allocate,
//! `flow` whether conntrack knows its flow already, `admission` whether a new flow may pass by its
//! source's ceiling (`bucket`) and by the grant, `challenge` whether somebody lives at the address
//! of a SYN. `guard` holds the order, `verdict` what comes of it. The library knows no kernel helper
//! and runs on the host as it runs in the kernel.
#![cfg_attr(not(test), no_std)]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]
#![expect(
    clippy::inline_always,
    reason = "one program without calls: the verifier follows it, and no stack frame is spent"
)]

pub mod admission;
pub mod blur;
pub mod bucket;
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
pub mod recent;
pub mod sources;
pub mod tracked;
pub mod verdict;

use ctguard_layout::{self as layout, shared, units};
