//! Traffic for the lab, made in the kernel: never part of the product.
//!
//! `lab_flood` is run by `BPF_PROG_TEST_RUN` with live frames: the kernel hands it frames of a page
//! pool of the run, the program writes each from the recipe, a copy goes out of the device, and the
//! frame itself ends in a sink. Were a frame of the pool still on its way when the run ends, the
//! kernel would try to free the pool a second later, at a cost that grows with the number of such
//! pools (`mem_allocator_disconnect` in net/core/xdp.c walks all of them); a paced flood makes
//! thousands a second. A frame comes back with whatever was written before, so every byte is
//! written every time; the sums in the recipe make that cheap.
#![no_std]
#![no_main]

mod challenge;
mod crowd;
mod recipe;
mod reference;
mod spoof;

use aya_ebpf::{
    bindings::{BPF_F_BROADCAST, TC_ACT_UNSPEC, xdp_action},
    btf_maps::{Array, DevMap, PerCpuArray},
    macros::{btf_map, classifier, xdp},
    programs::{TcContext, XdpContext},
};
use recipe::{
    CHALLENGED, CONTINUES, FRAME_WORDS, HOLDS, IPV4_CHECKSUM_AT, Recipe, STRANDS, Strand,
    WITHOUT_PSEUDO_HEADER,
};

#[btf_map(name = "lab_recipe")]
static RECIPE: Array<Recipe, 1> = Array::new();

/// Up to which number frames are due to be sent again.
#[btf_map(name = "lab_due")]
static DUE: Array<u64, 1> = Array::new();

/// Up to which number connections are due to be closed.
#[btf_map(name = "lab_close_due")]
static CLOSE_DUE: Array<u64, 1> = Array::new();

/// Frames that `lab_flood` made.
#[btf_map(name = "lab_offered")]
static OFFERED: PerCpuArray<u64, 1> = PerCpuArray::new();

/// Where each frame goes: a copy to the flood's device, the frame itself to the last, the sink.
#[btf_map(name = "lab_ways")]
static WAYS: DevMap<2> = DevMap::new();

/// The destination port, in network order, whose packets `lab_drop_flood` drops.
#[btf_map(name = "lab_flood_port")]
static FLOOD_PORT: Array<u32, 1> = Array::new();

/// The IPv4 /4 that spoofed sources are of.
const SPOOFED_NETWORK: u16 = 96 >> 4;

/// The floor of every measurement: drops what it is given.
#[xdp]
pub fn lab_floor(_context: XdpContext) -> u32 {
    xdp_action::XDP_DROP
}

/// The floor of what leaves: an empty egress program.
#[classifier]
pub fn lab_egress_floor(_context: TcContext) -> i32 {
    TC_ACT_UNSPEC
}

/// Lets everything pass; a veth whose peer answers by `XDP_TX` needs a program on its own side.
#[xdp]
pub fn lab_pass(_context: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// Where spoofed sources would be, if they were: what is sent to them ends here, and all else
/// passes. An internet that routed it all would have no time left for anybody.
#[xdp]
pub fn lab_nowhere(context: XdpContext) -> u32 {
    match (load(&context, 12), load(&context, 30)) {
        (Some(ethertype), Some(high)) if u16::from_be(ethertype) == 0x0800 => {
            if u16::from_be(high) >> 12 == SPOOFED_NETWORK {
                xdp_action::XDP_DROP
            } else {
                xdp_action::XDP_PASS
            }
        }
        _ => xdp_action::XDP_PASS,
    }
}

/// The guard that cannot be beaten: knows the flood's port, drops exactly the flood.
#[xdp]
pub fn lab_drop_flood(context: XdpContext) -> u32 {
    match is_flood(&context) {
        Some(true) => xdp_action::XDP_DROP,
        Some(false) | None => xdp_action::XDP_PASS,
    }
}

/// Writes one frame of the flood and sends it.
#[xdp]
pub fn lab_flood(context: XdpContext) -> u32 {
    match write_frame(&context) {
        Some(true) => {
            WAYS.redirect(0, u64::from(BPF_F_BROADCAST)).unwrap_or(xdp_action::XDP_ABORTED)
        }
        Some(false) => xdp_action::XDP_DROP,
        None => xdp_action::XDP_ABORTED,
    }
}

/// Where the frames of a run end, in the same run.
#[xdp(map = "devmap")]
pub fn lab_sink(_context: XdpContext) -> u32 {
    xdp_action::XDP_DROP
}

#[inline(always)]
fn is_flood(context: &XdpContext) -> Option<bool> {
    let ethertype = load(context, 12)?;
    // Floods behind extension headers, and those without a port of their own, are not for it.
    let port_at = match u16::from_be(ethertype) {
        0x0800 => 14 + 20 + 2,
        0x86dd => 14 + 40 + 2,
        _ => return Some(false),
    };
    let port = load(context, port_at)?;
    Some(u32::from(port) == *FLOOD_PORT.get(0)?)
}

#[inline(always)]
fn write_frame(context: &XdpContext) -> Option<bool> {
    let recipe = RECIPE.get_ptr_mut(0)?;
    // SAFETY: a value of the array lives as long as the map; one thread at a time runs a flood.
    let recipe = unsafe { &mut *recipe };
    let holds = recipe.strands[0].flags & HOLDS != 0;
    let (turn, closes) = next_turn(recipe)?;
    if holds && crowd::is_held(turn) != closes {
        return Some(false);
    }
    let strand = match holds {
        false => turn as usize & (STRANDS - 1),
        true => closes as usize,
    };
    let strand = &recipe.strands[strand];
    let (address, drawn) = match strand.crowd {
        0 => random_place(strand, &mut recipe.random),
        members => place_in_crowd(strand, members, turn)?,
    };

    copy_template(context, strand)?;
    fill_in(context, strand, address, drawn)?;

    let offered = OFFERED.get_ptr_mut(0)?;
    // SAFETY: the slot is this CPU's own, and XDP is not preempted by itself.
    unsafe { *offered += 1 };
    Some(true)
}

/// Whose turn it is, and whether to close; what is due goes before what is new.
#[inline(always)]
fn next_turn(recipe: &mut Recipe) -> Option<(u64, bool)> {
    if recipe.again < *DUE.get(0)? {
        let again = recipe.again;
        recipe.again += 1;
        return match recipe.strands[0].flags & CHALLENGED {
            0 => Some((again, false)),
            _ => Some((crowd::challenged(again)?, false)),
        };
    }
    if recipe.closed < *CLOSE_DUE.get(0)? {
        let closed = recipe.closed;
        recipe.closed += 1;
        return Some((closed, true));
    }
    let turn = recipe.turn;
    recipe.turn += 1;
    let Strand { crowd, most_held, .. } = recipe.strands[0];
    let all = u64::from(crowd) * u64::from(most_held);
    Some((turn.checked_rem(all).unwrap_or(turn), false))
}

/// An address word as it lies in the frame, and a number.
#[inline(always)]
fn random_place(strand: &Strand, state: &mut u64) -> (u32, u16) {
    let random = match strand.flags & CONTINUES {
        0 => next_random(state),
        _ => *state,
    };
    let span = strand.drawn_last - strand.drawn_first + 1;
    let drawn = strand.drawn_first + (((random >> 48) as u32 * span) >> 16);
    (strand.address | (random as u32 & strand.spoofed), drawn as u16)
}

/// The same for each time that the turn is taken.
#[inline(always)]
fn place_in_crowd(strand: &Strand, members: u32, turn: u64) -> Option<(u32, u16)> {
    let (round, member) = (turn / u64::from(members), (turn % u64::from(members)) as u32);
    let span = u64::from(strand.drawn_last - strand.drawn_first + 1);
    let address = u32::from_be(strand.address) + member * strand.step;
    let drawn = strand.drawn_first + round.checked_rem(span)? as u32;
    Some((address.to_be(), drawn as u16))
}

/// Marsaglia's xorshift64: a few instructions, where the helper costs a call.
#[inline(always)]
fn next_random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[inline(always)]
fn copy_template(context: &XdpContext, strand: &Strand) -> Option<()> {
    let [shortest, short, long, longest] = FRAME_WORDS;
    copy_words(context, strand, 0, shortest)?;
    // A frame of one of the lesser lengths ends where its words do.
    let _ = copy_words(context, strand, shortest, short)
        .and_then(|()| copy_words(context, strand, short, long))
        .and_then(|()| copy_words(context, strand, long, longest));
    Some(())
}

#[inline(always)]
fn copy_words(context: &XdpContext, strand: &Strand, from: usize, to: usize) -> Option<()> {
    if context.data() + to * 8 > context.data_end() {
        return None;
    }
    let frame = context.data() as *mut u64;
    let mut word = from;
    while word < to {
        // SAFETY: the frame has `to` words, and the kernel lays live frames out on 8 bytes.
        unsafe { *frame.add(word) = strand.frame[word] };
        word += 1;
    }
    Some(())
}

#[inline(always)]
fn fill_in(context: &XdpContext, strand: &Strand, address: u32, drawn: u16) -> Option<()> {
    let (first, second) = (address as u16, (address >> 16) as u16);
    let drawn = drawn.to_be();

    store(context, strand.address_at as usize, first)?;
    store(context, strand.address_at as usize + 2, second)?;
    if strand.drawn_at != 0 {
        store(context, strand.drawn_at as usize, drawn)?;
    }

    let address_sum = u32::from(first) + u32::from(second);
    if strand.header_sum != 0 {
        store(context, IPV4_CHECKSUM_AT, checksum(strand.header_sum + address_sum))?;
    }
    if strand.checksum_at == 0 {
        return Some(());
    }
    let pseudo_header = match strand.flags & WITHOUT_PSEUDO_HEADER {
        0 => address_sum,
        _ => 0,
    };
    let transport = checksum(strand.transport_sum + pseudo_header + u32::from(drawn));
    store(context, strand.checksum_at as usize, transport)
}

/// The checksum that makes a sum right; never 0, which to UDP means that there is none.
#[inline(always)]
fn checksum(sum: u32) -> u16 {
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    match !(folded as u16) {
        0 => 0xffff,
        checksum => checksum,
    }
}

/// The 16 bits at `at`, as they lie in the frame.
#[inline(always)]
fn load(context: &XdpContext, at: usize) -> Option<u16> {
    let field = context.data() + at;
    if field + 2 > context.data_end() {
        return None;
    }
    // SAFETY: two bytes at `field` are in the frame; `at` is even and frames are aligned to 2.
    Some(unsafe { *(field as *const u16) })
}

#[inline(always)]
fn store(context: &XdpContext, at: usize, value: u16) -> Option<()> {
    // The verifier wants a bound on offsets that come from the map.
    let field = context.data() + (at & 0xfe);
    if field + 2 > context.data_end() {
        return None;
    }
    // SAFETY: two bytes at `field` are in the frame; the mask keeps the offset even.
    unsafe { *(field as *mut u16) = value };
    Some(())
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
