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

/// State of the random numbers (xorshift), never 0.
#[btf_map(name = "lab_random")]
static RANDOM: Array<u64, 1> = Array::new();

/// Where an IPv4 source address lies in a frame, in two halves.
const SOURCE_AT: usize = 26;
/// The first four bits of the address stay as they are.
const SPOOFED: u32 = 0x0fff_ffff;

/// Gives the frame one of 2^28 sources and hands it to the measured program. A frame is what the
/// run before left of it, so nothing else is to be made anew.
#[xdp(frags)]
pub fn lab_spoof(context: XdpContext) -> u32 {
    if spoof(&context).is_some() {
        // SAFETY: the map holds a program of this type, or nothing, and then the call returns.
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
fn spoof(context: &XdpContext) -> Option<()> {
    let state = RANDOM.get_ptr_mut(0)?;
    // SAFETY: a value of the array lives as long as the map; one thread at a time measures.
    let random = super::next_random(unsafe { &mut *state }) as u32;
    let source = context.data() + SOURCE_AT;
    if source + 4 > context.data_end() {
        return None;
    }
    let halves = source as *mut [u16; 2];
    // SAFETY: four bytes at `source` are in the frame, which is aligned to 2.
    let [first, second] = unsafe { *halves };
    let old = u32::from(u16::from_be(first)) << 16 | u32::from(u16::from_be(second));
    let new = old & !SPOOFED | random & SPOOFED;
    // SAFETY: as above.
    unsafe { *halves = [((new >> 16) as u16).to_be(), (new as u16).to_be()] };
    Some(())
}
