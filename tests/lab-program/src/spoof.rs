//! A packet of another source each time, for measurements: what a program costs when nothing that
//! it reads was read before.

use aya_ebpf::{
    bindings::xdp_action,
    btf_maps::{Array, ProgramArray},
    macros::{btf_map, xdp},
    programs::XdpContext,
};

/// The program that is measured.
#[btf_map(name = "lab_measured")]
static MEASURED: ProgramArray<1> = ProgramArray::new();

/// State of the random numbers (xorshift), never 0; and the bits of the source that vary, none of
/// the first four.
#[btf_map(name = "lab_random")]
static RANDOM: Array<[u64; 2], 1> = Array::new();

/// Where an IPv4 source address lies in a frame, in two halves.
const SOURCE_AT: usize = 26;

/// Gives the frame another source and hands it to the measured program. A frame is what the
/// run before left of it, so nothing else is to be made anew.
#[xdp(frags)]
pub fn lab_spoof(context: XdpContext) -> u32 {
    if spoof(&context).is_some() {
        // SAFETY: the map holds a program of this type, or nothing, and then the call returns.
        unsafe { MEASURED.tail_call(&context, 0) };
    }
    xdp_action::XDP_ABORTED
}

/// The frame that the program below writes anew.
#[btf_map(name = "lab_frame")]
static FRAME: Array<[u16; FRAME_LENGTH / 2], 1> = Array::new();

/// A SYN without options.
const FRAME_LENGTH: usize = 14 + 20 + 20;

/// The same for programs that change the frame: writes it first.
#[xdp(frags)]
pub fn lab_spoof_anew(context: XdpContext) -> u32 {
    if write(&context).and_then(|()| spoof(&context)).is_some() {
        // SAFETY: as above.
        unsafe { MEASURED.tail_call(&context, 0) };
    }
    xdp_action::XDP_ABORTED
}

/// The floor of these measurements: drops what it is given.
#[xdp(frags)]
pub fn lab_spoof_floor(_context: XdpContext) -> u32 {
    xdp_action::XDP_DROP
}

#[inline(always)]
fn write(context: &XdpContext) -> Option<()> {
    let template = FRAME.get(0)?;
    if context.data() + FRAME_LENGTH > context.data_end() {
        return None;
    }
    // SAFETY: the frame is that long, and aligned to 2.
    unsafe { *(context.data() as *mut [u16; FRAME_LENGTH / 2]) = *template };
    Some(())
}

#[inline(always)]
fn spoof(context: &XdpContext) -> Option<()> {
    let state = RANDOM.get_ptr_mut(0)?;
    // SAFETY: a value of the array lives as long as the map; one thread at a time measures.
    let [state, spoofed] = unsafe { &mut *state };
    let random = super::next_random(state) as u32;
    let spoofed = *spoofed as u32;
    let source = context.data() + SOURCE_AT;
    if source + 4 > context.data_end() {
        return None;
    }
    let halves = source as *mut [u16; 2];
    // SAFETY: four bytes at `source` are in the frame, which is aligned to 2.
    let [first, second] = unsafe { *halves };
    let old = u32::from(u16::from_be(first)) << 16 | u32::from(u16::from_be(second));
    let new = old & !spoofed | random & spoofed;
    // SAFETY: as above.
    unsafe { *halves = [((new >> 16) as u16).to_be(), (new as u16).to_be()] };
    Some(())
}
