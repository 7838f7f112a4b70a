//! The answer to a challenged SYN or DNS query, written into the live frame.

use aya_ebpf::{helpers::bpf_xdp_adjust_tail, programs::XdpContext};
use ctguard_datapath::{
    challenge::{self, Answer, Answering, Reversible},
    packet::{self, Writer},
    verifier::{OpaqueZero, forget_memory},
};

/// Bytes of a frame that are sent whatever it holds (IEEE 802.3, less the checksum): to cut a shorter
/// one would save nothing.
const SHORTEST_SENT: u32 = 60;

/// Turns the SYN into its answer, which `XDP_TX` then sends back. `None` if the driver cannot cut
/// the frame, which is unchanged then. Pointers into the frame are invalid after the call.
#[inline(always)]
pub fn write<A: Answering>(
    context: &XdpContext,
    zero: OpaqueZero,
    answer: &Answer<A>,
) -> Option<()> {
    let network_offset = packet::network_offset(frame(context).reader(zero))?;
    let bytes = Answer::<A>::frame_bytes(network_offset);
    // The first buffer; if the frame has more, its length is the packet's, or the kernel does not
    // cut it.
    let buffer_bytes = context.data_end().wrapping_sub(context.data()) as u32;
    let packet_bytes = A::packet_bytes(frame(context).reader(zero))?;
    let claimed_bytes = network_offset + (packet_bytes & 0xffff);
    let frame_bytes = if claimed_bytes > buffer_bytes { claimed_bytes } else { buffer_bytes };
    if frame_bytes < bytes {
        return None;
    }
    if frame_bytes > bytes && frame_bytes > SHORTEST_SENT {
        let surplus = bytes.wrapping_sub(frame_bytes) as i32;
        // SAFETY: the context that the kernel gave to this run.
        if unsafe { bpf_xdp_adjust_tail(context.ctx, surplus) } != 0 {
            return None;
        }
    }
    answer.write(&mut frame(context), network_offset)
}

/// Turns a DNS query into a truncated reply; `None`, and nothing is changed, if it is none.
#[inline(always)]
pub fn truncate<A: Reversible>(context: &XdpContext, zero: OpaqueZero) -> Option<()> {
    let network_offset = packet::network_offset(frame(context).reader(zero))?;
    challenge::truncate::<A>(&mut frame(context), network_offset)
}

/// The frame as if it had not been read yet: if LLVM kept pointers or values, the verifier would
/// walk the code once for each length of headers.
#[inline(always)]
pub fn frame(context: &XdpContext) -> Writer<'_> {
    forget_memory();
    // SAFETY: the verifier checks every access against the frame's end; the driver aligns the
    // frame to at least two bytes, and nobody else has it.
    unsafe { Writer::new(context.data() as *mut u8, context.data_end() as *mut u8) }
}
