//! The eBPF programs of ctguard, around the data path: `ctguard_ingress` judges packets that arrive
//! (XDP), `ctguard_egress` notes packets that leave (traffic control), and `ctguard_clock` gives
//! userspace the time in jiffies.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod kernel {
    pub(crate) mod capture;
    pub(crate) mod clock;
    pub(crate) mod conntrack;
    pub(crate) mod count;
    pub(crate) mod headers;
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
use ctguard_layout::{Action, Counter, Policy, units::Jiffies};
use kernel::{
    capture, clock,
    count::{CpuCounters, count_refusal, wake_daemon},
    headers, maps,
    tables::{KernelFlows, KernelTables},
    trace,
};

/// Bytes of a leaving packet that are made readable if its headers lie in fragments: enough for the
/// longest chain that the parser reads.
const LEAVING_HEADERS_BYTES: u32 = 256;

/// Judges a packet that arrives. It passes everything until its maps are set up.
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
    let cpu_state = maps::WORKSPACE.get(0)?;
    let zero = OpaqueZero::new(environment.fixed.zero);
    let guard = Guard { environment, tables: KernelTables { context, environment, cpu_state } };
    let now = clock::now();
    let counters = CpuCounters::of_this_cpu()?;
    if !trace::is_on() {
        let judgement = guard.judge_plain(headers::of_first_buffer(context, zero), now);
        if !judgement.is_undecided() {
            counters.add(judgement.counter());
            if judgement.is_known() {
                return Some(Action::Pass);
            }
            if judgement.wakes() {
                counters.add(Counter::Wakeups.index());
                wake_daemon(now);
            }
            return Some(Action::Drop);
        }
    }
    let judgement = guard.judge(headers::of_frame(context, zero), now);
    judgement.count(|index| counters.add(index));
    if judgement.is_denied()
        && let Some(feeds) = guard.tables.refusing_feeds(judgement.is_denied_ipv4(), now)
    {
        count_refusal(feeds);
    }
    if judgement.wakes() {
        wake_daemon(now);
    }
    trace::log(context, judgement);
    let is_dry_run = || maps::POLICY.get(0).is_some_and(|policy| policy.has(Policy::DRY_RUN));
    let order = &environment.capture;
    if !judgement.is_known() && order.asks_for(judgement.number(), now.0) {
        capture::copy(context, order, judgement.number(), is_dry_run(), now);
    }
    Some(judgement.action(is_dry_run))
}

/// Notes a packet that leaves, so that its reply is looked up, and passes it.
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

/// Returns the low 32 bits of jiffies to a test run: userspace cannot read them otherwise.
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
