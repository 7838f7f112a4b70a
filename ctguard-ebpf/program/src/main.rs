//! The eBPF programs of ctguard: entry points around the library.
//!
//! `ctguard_ingress` judges what arrives (XDP), `ctguard_egress` remembers what leaves (traffic
//! control), `ctguard_clock` tells userspace the time in jiffies.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

/// The part that knows kernel helpers.
mod kernel {
    pub(crate) mod clock;
    pub(crate) mod conntrack;
    pub(crate) mod count;
    pub(crate) mod interface;
    pub(crate) mod maps;
    pub(crate) mod tables;
    pub(crate) mod trace;
}

use aya_ebpf::{
    bindings::{TC_ACT_UNSPEC, xdp_action},
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use ctguard_datapath::{guard::Guard, leaving::note_leaving, packet::Reader, verifier::OpaqueZero};
use ctguard_layout::{Action, Policy, units::Jiffies};
use kernel::{
    clock,
    count::{CpuCounters, wake_daemon},
    maps,
    tables::{KernelFlows, KernelTables},
    trace,
};

/// Bytes of a leaving packet that are made readable when its headers lie in fragments: the longest
/// chain that the parser reads fits in it.
const LEAVING_HEADERS_BYTES: u32 = 256;

/// Judges a packet that arrives. Without its maps set up it passes everything.
#[xdp(frags)]
#[inline(always)]
pub fn ctguard_ingress(context: XdpContext) -> u32 {
    judge(&context).unwrap_or(Action::Pass) as u32
}

const _: () = assert!(
    Action::Drop as u32 == xdp_action::XDP_DROP
        && Action::Pass as u32 == xdp_action::XDP_PASS
        && Action::Answer as u32 == xdp_action::XDP_TX
);

#[inline(always)]
fn judge(context: &XdpContext) -> Option<Action> {
    let environment = maps::ENVIRONMENT.get(0)?;
    let workspace = maps::WORKSPACE.get(0)?;
    let guard = Guard { environment, tables: KernelTables { context, environment, workspace } };
    let now = clock::now();
    // SAFETY: the verifier checks every access against the frame's end; the driver aligns the
    // frame to at least two bytes.
    let frame = unsafe {
        let (start, end) = (context.data() as *const u8, context.data_end() as *const u8);
        Reader::new(start, end, OpaqueZero::new(environment.fixed.zero))
    };

    let judgement = guard.judge(frame, now);
    let counters = CpuCounters::of_this_cpu()?;
    judgement.count(|index| counters.add(index));
    if judgement.wakes() {
        wake_daemon(now);
    }
    trace::log(context, judgement);
    let is_dry_run = || maps::POLICY.get(0).is_some_and(|policy| policy.has(Policy::DRY_RUN));
    Some(judgement.action(is_dry_run))
}

/// Remembers a packet that leaves, so that its answer is known, and lets it go.
#[classifier]
#[inline(always)]
pub fn ctguard_egress(context: TcContext) -> i32 {
    if let Some(environment) = maps::ENVIRONMENT.get(0) {
        let now = clock::now();
        let note = |context: &TcContext| {
            // SAFETY: as in `judge`; the network header of a socket buffer is aligned too.
            let frame = unsafe {
                let (start, end) = (context.data() as *const u8, context.data_end() as *const u8);
                Reader::new(start, end, OpaqueZero::new(environment.fixed.zero))
            };
            note_leaving(frame, environment, &KernelFlows, now)
        };
        if note(&context).is_err()
            && context.pull_data(LEAVING_HEADERS_BYTES.min(context.len())).is_ok()
        {
            let _ = note(&context);
        }
    }
    TC_ACT_UNSPEC
}

/// The low 32 bits of jiffies, for a test run: userspace has no other way to read them.
#[xdp]
#[inline(always)]
pub fn ctguard_clock(_context: XdpContext) -> u32 {
    let Jiffies(now) = clock::now();
    now as u32
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
