//! The answer to a challenged SYN, written into the live frame.

use core::arch::asm;

use aya_ebpf::{helpers::bpf_xdp_adjust_tail, programs::XdpContext};
use ctguard_datapath::{
    blur::Blur,
    challenge::{Answer, Answering},
    packet::{self, Writer},
};

/// Turns the SYN into its answer, which `XDP_TX` then sends back. False where the driver cannot cut
/// it, and the frame is as it was. Pointers into the frame are void after the call.
#[inline(always)]
pub fn write<A: Answering>(context: &XdpContext, blur: Blur, answer: &Answer<A>) -> bool {
    try_write(context, blur, answer).is_some()
}

#[inline(always)]
fn try_write<A: Answering>(context: &XdpContext, blur: Blur, answer: &Answer<A>) -> Option<()> {
    let network_offset = packet::network_offset(frame(context).reader(blur))?;
    let bytes = Answer::<A>::frame_bytes(network_offset);
    // What the first buffer holds; a frame in fragments is as long as its packet says, or the kernel
    // cuts it not.
    let buffer_bytes = context.data_end().wrapping_sub(context.data()) as u32;
    let packet_bytes = A::packet_bytes(frame(context).reader(blur))?;
    let told_bytes = network_offset + (packet_bytes & 0xffff);
    let frame_bytes = if told_bytes > buffer_bytes { told_bytes } else { buffer_bytes };
    if frame_bytes < bytes {
        return None;
    }
    // SAFETY: the context that the kernel gave to this run.
    let error = unsafe { bpf_xdp_adjust_tail(context.ctx, bytes.wrapping_sub(frame_bytes) as i32) };
    if error != 0 {
        return None;
    }
    answer.write(&mut frame(context), network_offset)
}

/// The frame, as if nobody had looked at it yet: LLVM must keep neither pointers into it nor what
/// was read, for the verifier would follow each length of headers that was found before apart.
#[inline(always)]
pub fn frame(context: &XdpContext) -> Writer<'_> {
    // SAFETY: no instruction.
    unsafe { asm!("") };
    // SAFETY: the verifier checks every access against the frame's end; the driver aligns the
    // frame to at least two bytes, and nobody else has it.
    unsafe { Writer::new(context.data() as *mut u8, context.data_end() as *mut u8) }
}
