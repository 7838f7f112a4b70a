//! Conntrack's own answer: `bpf_xdp_ct_lookup` and `bpf_ct_release`
//! (`net/netfilter/nf_conntrack_bpf.c`, Linux 5.18).
//!
//! The calls are marks that the loader rewrites (see `kernel_functions`); where the kernel has no
//! such functions they find nothing and are never reached.

use core::arch::asm;

use aya_ebpf::programs::XdpContext;
use ctguard_datapath::{guard::Answer, packet::Address};

/// `struct bpf_ct_opts`. Kernels that know no zones take the first twelve bytes. In words: bytes
/// that are set apart come to a call of `memset`.
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

/// `BPF_F_CURRENT_NETNS`: that of the device.
const NAMESPACE_OF_DEVICE: i32 = -1;
/// `NF_CT_DEFAULT_ZONE_DIR`: the zone is that of either direction.
const BOTH_DIRECTIONS: u32 = 3;
const NO_ENTRY: i32 = -2;
/// Bytes of the options on kernels that know no zones, and on others.
const OPTIONS_BYTES: u32 = 12;
const OPTIONS_BYTES_WITH_ZONES: u32 = 16;

/// What is asked for.
#[derive(Clone, Copy)]
pub(crate) struct Question {
    /// Its number.
    pub(crate) protocol: u8,
    /// Source port, then destination port.
    pub(crate) ports: u32,
    /// Conntrack zone.
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
    // 16 is a bit that 12 lacks, and 4 the difference: either size without a branch, and whatever
    // the map holds, the verifier sees that it is one of the two.
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
    // SAFETY: the caller's; a call leaves r6 to r9 as they were.
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
