//! Headers outside a frame's first buffer: some drivers put no header there, or not all of them
//! (`mlx5e_skb_from_cqe_mpwrq_nonlinear`).

use core::arch::asm;

use aya_ebpf::{helpers::bpf_xdp_load_bytes, macros::map, maps::PerCpuArray, programs::XdpContext};
use ctguard_datapath::{packet::Reader, verifier::OpaqueZero};
use ctguard_layout::kernel_functions::FRAME_BYTES;

/// Headers of Ethernet, IPv4 and UDP: a whole frame is hardly ever shorter, so hardly any packet pays
/// for the question how long its frame is.
const SHORTEST_FRAME: u64 = 42;
/// Bytes that are copied: more than all headers but very long chains of extension headers.
const COPIED: u32 = 256;
const _: () = assert!(COPIED.is_power_of_two());
/// Where the reader may look before it knows that the copy has ended: 42 bytes of link headers, 40 of
/// IPv6, 16,384 of extension headers, 60 of TCP.
const READABLE: usize = (1 << 14) + 256;

/// `value` is aligned to eight bytes, as every map's.
#[repr(C, align(8))]
struct Headers([u8; READABLE]);

#[map(name = "headers")]
static HEADERS: PerCpuArray<Headers> = PerCpuArray::with_max_entries(1, 0);

/// A reader of the frame, or of a copy of its start if its first buffer is shorter than any that
/// makes an entry, and not the whole frame.
#[inline(always)]
pub(crate) fn of_frame(context: &XdpContext, zero: OpaqueZero) -> Reader<'_> {
    let buffer_bytes = context.data_end().wrapping_sub(context.data()) as u64;
    if buffer_bytes < SHORTEST_FRAME
        && let Some(copied) = copied(context, zero, buffer_bytes)
    {
        return copied;
    }
    of_first_buffer(context, zero)
}

/// A reader of the frame's first buffer.
#[inline(always)]
pub(crate) fn of_first_buffer(context: &XdpContext, zero: OpaqueZero) -> Reader<'_> {
    // SAFETY: the verifier checks every access against the frame's end; the driver aligns the
    // frame to at least two bytes.
    unsafe {
        let (start, end) = (context.data() as *const u8, context.data_end() as *const u8);
        Reader::new(start, end, zero)
    }
}

#[inline(always)]
fn copied(context: &XdpContext, zero: OpaqueZero, buffer_bytes: u64) -> Option<Reader<'static>> {
    let frame_bytes = frame_bytes(context);
    if frame_bytes == 0 || frame_bytes <= buffer_bytes {
        return None;
    }
    let bytes = if frame_bytes > u64::from(COPIED) { COPIED } else { frame_bytes as u32 };
    // The same number, for the verifier of Linux 6.1, which does not learn that it is not 0.
    let bytes = (zero.hide(bytes - 1) & (COPIED - 1)) + 1;
    let copy = HEADERS.get_ptr_mut(0)?.cast::<u8>();
    // SAFETY: the helper writes `bytes` bytes to this CPU's value of the map, which is longer.
    if unsafe { bpf_xdp_load_bytes(context.ctx, 0, copy.cast(), bytes) } != 0 {
        return None;
    }
    // SAFETY: what was just written is aligned, and stays this CPU's until the program ends.
    Some(unsafe { Reader::new(copy, copy.add(bytes as usize), zero) })
}

/// The frame's length.
#[inline(always)]
pub(crate) fn bytes_of_frame(context: &XdpContext) -> u32 {
    let buffer_bytes = context.data_end().wrapping_sub(context.data()) as u64;
    let all = frame_bytes(context);
    (if all > buffer_bytes { all } else { buffer_bytes }) as u32
}

/// The frame's length in all its buffers; 0 if the loader found that there is only one.
#[inline(always)]
fn frame_bytes(context: &XdpContext) -> u64 {
    let bytes;
    // SAFETY: the helper takes the program's context; a call preserves r6 to r9.
    unsafe {
        asm!(
            "call {mark}",
            mark = const FRAME_BYTES,
            inlateout("r1") context.ctx => _,
            lateout("r0") bytes,
            lateout("r2") _, lateout("r3") _, lateout("r4") _, lateout("r5") _,
        );
    }
    bytes
}
