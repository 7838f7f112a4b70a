//! Challenges without the guard around them: every SYN is answered, every RST that carries its
//! cookie ends here.

use aya_ebpf::{
    bindings::xdp_action,
    btf_maps::Array,
    macros::{btf_map, xdp},
    programs::XdpContext,
};
use ctguard_datapath::{
    challenge::{Answer, Answering, Connection, Slot, choose, proves},
    packet::{self, Network, Packet, Reader, TcpFlags, Transport},
    verifier::OpaqueZero,
};
use ctguard_layout::CookieKey;
use ctguard_program::answer;

#[btf_map(name = "lab_cookie_key")]
static KEY: Array<CookieKey, 1> = Array::new();

/// The slot, then a zero that the verifier does not know.
#[btf_map(name = "lab_slot")]
static SLOT: Array<[u32; 2], 1> = Array::new();

/// Where the flags of a segment lie in a frame of IPv4 without options.
const FLAGS_AT: usize = 14 + 20 + 13;

/// Challenges whoever sends a SYN.
#[xdp(frags)]
pub fn lab_challenge(context: XdpContext) -> u32 {
    challenge(&context).unwrap_or(xdp_action::XDP_ABORTED)
}

/// The same for measurements, IPv4 alone: makes a SYN of the frame first, which is the answer that
/// the run before left of it.
#[xdp(frags)]
pub fn lab_rechallenge(context: XdpContext) -> u32 {
    let flags = context.data() + FLAGS_AT;
    if flags + 1 > context.data_end() {
        return xdp_action::XDP_ABORTED;
    }
    // SAFETY: the byte at `flags` is in the frame.
    unsafe { *(flags as *mut u8) = TcpFlags::SYN as u8 };
    challenge(&context).unwrap_or(xdp_action::XDP_ABORTED)
}

#[inline(always)]
fn challenge(context: &XdpContext) -> Option<u32> {
    let key = KEY.get(0)?;
    let [slot, zero] = *SLOT.get(0)?;
    let zero = OpaqueZero::new(zero);
    // SAFETY: the verifier checks every access against the frame's end; the driver aligns the
    // frame to at least two bytes.
    let mut reader = unsafe {
        let (start, end) = (context.data() as *const u8, context.data_end() as *const u8);
        Reader::new(start, end, zero)
    };
    let slot = Slot(slot);
    let verdict = match packet::parse_link(&mut reader).ok()?.network {
        Network::Ipv4 => judge(context, key, slot, zero, &packet::parse_ipv4(&mut reader).ok()?),
        Network::Ipv6 => judge(context, key, slot, zero, &packet::parse_ipv6(&mut reader).ok()?),
        Network::NotIp | Network::Unparsed => xdp_action::XDP_PASS,
    };
    Some(verdict)
}

#[inline(always)]
fn judge<A: Answering>(
    context: &XdpContext,
    key: &CookieKey,
    slot: Slot,
    zero: OpaqueZero,
    packet: &Packet<A>,
) -> u32 {
    let Packet { source, destination, transport, .. } = *packet;
    let Transport::Tcp { ports, flags, sequence, .. } = transport else {
        return xdp_action::XDP_PASS;
    };
    let connection = Connection { source, destination, ports };
    if flags.any(TcpFlags::RST) {
        return match proves(key, &connection, sequence, slot) {
            true => xdp_action::XDP_DROP,
            false => xdp_action::XDP_PASS,
        };
    }
    if !flags.any(TcpFlags::SYN) || flags.any(TcpFlags::ACK) {
        return xdp_action::XDP_PASS;
    }
    let answered = choose(key, &connection, sequence, slot)
        .and_then(|cookie| answer::write(context, zero, &Answer { connection, sequence, cookie }));
    if answered.is_some() { xdp_action::XDP_TX } else { xdp_action::XDP_PASS }
}
