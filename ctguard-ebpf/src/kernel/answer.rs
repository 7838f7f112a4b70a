//! The answer to a challenged SYN, written into the live frame.

use aya_ebpf::{
    helpers::{bpf_xdp_adjust_tail, bpf_xdp_get_buff_len},
    programs::XdpContext,
};
use ctguard_ebpf::{
    blur::Blur,
    challenge::{Answer, Answering},
    packet::{self, Writer},
};

/// Turns the SYN into its answer, which `XDP_TX` then sends back. False where the driver cannot cut
/// it, and the frame is as it was. Pointers into the frame are void after the call.
#[inline(always)]
pub(crate) fn write<A: Answering>(context: &XdpContext, blur: Blur, answer: &Answer<A>) -> bool {
    try_write(context, blur, answer).is_some()
}

#[inline(always)]
fn try_write<A: Answering>(context: &XdpContext, blur: Blur, answer: &Answer<A>) -> Option<()> {
    // A frame in fragments counts whole: it has its headers in the first, or they could not have
    // been read, and is cut from its end. The call must come first: LLVM knows nothing of the frame
    // after it, and so cannot keep the offset from when the link headers were parsed, of which the
    // verifier would follow each value apart.
    // SAFETY: the context that the kernel gave to this run.
    let frame_bytes = unsafe { bpf_xdp_get_buff_len(context.ctx) } as u32;
    let network_offset = packet::network_offset(frame(context).reader(blur))?;
    let bytes = Answer::<A>::frame_bytes(network_offset);
    if frame_bytes < bytes {
        return None;
    }
    // SAFETY: as above.
    let error = unsafe { bpf_xdp_adjust_tail(context.ctx, bytes.wrapping_sub(frame_bytes) as i32) };
    if error != 0 {
        return None;
    }
    answer.write(&mut frame(context), network_offset)
}

#[inline(always)]
fn frame(context: &XdpContext) -> Writer<'_> {
    // SAFETY: the verifier checks every access against the frame's end; the driver aligns the
    // frame to at least two bytes, and nobody else has it.
    unsafe { Writer::new(context.data() as *mut u8, context.data_end() as *mut u8) }
}
