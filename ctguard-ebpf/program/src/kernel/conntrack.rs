//! Asks conntrack: `bpf_xdp_ct_lookup` and `bpf_ct_release`
//! (`net/netfilter/nf_conntrack_bpf.c`, Linux 5.18).
//!
//! The loader rewrites the calls (see `kernel_functions`). If the kernel lacks the functions, the
//! calls are never reached.

use core::arch::asm;

use aya_ebpf::programs::XdpContext;
use ctguard_datapath::{guard::Answer, packet::Address};

/// `struct bpf_ct_opts`. Kernels without zones take the first twelve bytes. The fields are words,
/// because setting single bytes makes the compiler call `memset`.
#[repr(C)]
struct Options {
    network_namespace: i32,
    error: i32,
    /// The protocol in the first byte, the direction in the second, the zone in the last two.
    protocol_and_zone: u32,
    /// In the first byte.
    zone_direction: u32,
}

const _: () = assert!(cfg!(target_endian = "little") && size_of::<Options>() == 16);

/// `struct bpf_sock_tuple`, in network byte order.
#[repr(C)]
struct Tuple<W> {
    source: W,
    destination: W,
    ports: [u16; 2],
}

/// `BPF_F_CURRENT_NETNS`.
const NAMESPACE_OF_DEVICE: i32 = -1;
/// `NF_CT_DEFAULT_ZONE_DIR`.
const BOTH_DIRECTIONS: u32 = 3;
const NO_ENTRY: i32 = -2;
/// Bytes of the options on kernels without zones, and on others.
const OPTIONS_BYTES: u32 = 12;
const OPTIONS_BYTES_WITH_ZONES: u32 = 16;

#[derive(Clone, Copy)]
pub(crate) struct Question {
    pub(crate) protocol: u8,
    /// Source port, then destination port.
    pub(crate) ports: u32,
    pub(crate) zone: u32,
    /// Bytes of the kernel's `struct bpf_ct_opts`.
    pub(crate) options_bytes: u32,
}

/// Asks about the flow between two addresses.
#[inline(always)]
pub(crate) fn ask<A: Address>(
    context: &XdpContext,
    source: A,
    destination: A,
    question: Question,
) -> Answer {
    let ports = [(question.ports >> 16) as u16, question.ports as u16].map(u16::to_be);
    let tuple =
        Tuple { source: source.on_the_wire(), destination: destination.on_the_wire(), ports };
    let mut options = Options {
        network_namespace: NAMESPACE_OF_DEVICE,
        error: 0,
        protocol_and_zone: u32::from(question.protocol) | question.zone << 16,
        zone_direction: BOTH_DIRECTIONS,
    };
    // 12 or 16 without a branch, and the verifier sees that it is one of them whatever the map
    // holds: 16 is a bit that 12 lacks, and 4 is the difference.
    let with_zones = question.options_bytes & OPTIONS_BYTES_WITH_ZONES;
    let bytes = OPTIONS_BYTES + (with_zones >> 2);
    // SAFETY: the arguments are those of the kernel's signature: the program's context, a tuple
    // and options on this stack with their lengths. The function reads both and writes `error`.
    let entry = unsafe { lookup(context, &raw const tuple, &raw mut options, bytes) };
    if entry != 0 {
        // SAFETY: the reference that the lookup took, given back once.
        unsafe { release(entry) };
        return Answer::Tracked;
    }
    // SAFETY: initialised above; the function may have written it since.
    let error = unsafe { (&raw const options.error).read_volatile() };
    if error == NO_ENTRY { Answer::Untracked } else { Answer::Silent }
}

#[inline(always)]
unsafe fn lookup<W>(
    context: &XdpContext,
    tuple: *const Tuple<W>,
    options: *mut Options,
    options_bytes: u32,
) -> u64 {
    let entry;
    // SAFETY: the caller's; a call preserves r6 to r9.
    unsafe {
        asm!(
            "call {mark}",
            mark = const ctguard_layout::kernel_functions::LOOKUP,
            inlateout("r1") context.ctx => _,
            inlateout("r2") tuple => _,
            inlateout("r3") size_of::<Tuple<W>>() => _,
            inlateout("r4") options => _,
            inlateout("r5") u64::from(options_bytes) => _,
            lateout("r0") entry,
        );
    }
    entry
}

#[inline(always)]
unsafe fn release(entry: u64) {
    // SAFETY: the caller's.
    unsafe {
        asm!(
            "call {mark}",
            mark = const ctguard_layout::kernel_functions::RELEASE,
            inlateout("r1") entry => _,
            lateout("r0") _, lateout("r2") _, lateout("r3") _, lateout("r4") _, lateout("r5") _,
        );
    }
}
