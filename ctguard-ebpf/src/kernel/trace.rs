//! Single decisions on new flows, for `ctguard run --trace`.
//!
//! `AYA_LOG_LEVEL` is a constant to the verifier, so without `--trace` all of this is dead code
//! that never reaches the processor.

use aya_ebpf::{macros::map, maps::PerCpuArray, programs::XdpContext};
use aya_log_ebpf::{
    debug,
    macro_support::{Level, level_enabled},
};
use ctguard_ebpf::{
    admission::Refusal,
    blur::Blur,
    guard::Outcome,
    packet::{self, Address, Network, Packet, Reader, Transport},
    units::Jiffies,
};

/// Jiffies of this CPU's last trace.
#[map(name = "traced_at")]
static TRACED_AT: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// Logs what became of a new flow: at most one decision a jiffy on each CPU.
#[inline(always)]
pub(crate) fn decision(
    context: &XdpContext,
    frame: Reader<'_>,
    outcome: Outcome,
    now: Jiffies,
    blur: Blur,
) {
    if !level_enabled(Level::Debug) {
        return;
    }
    if let Some(number) = number(outcome)
        && is_first_in_jiffy(now)
    {
        log(context, frame, blur.hide(number), blur);
    }
}

#[inline(always)]
fn is_first_in_jiffy(now: Jiffies) -> bool {
    let Some(traced_at) = TRACED_AT.get_ptr_mut(0) else { return false };
    // SAFETY: this CPU's value of the map.
    unsafe {
        let first = *traced_at != now.0;
        *traced_at = now.0;
        first
    }
}

#[inline(always)]
fn log(context: &XdpContext, mut frame: Reader<'_>, number: u32, blur: Blur) {
    let Ok(link) = packet::parse_link(&mut frame) else { return };
    match link.network {
        Network::Ipv4 => {
            if let Ok(packet) = packet::parse_ipv4(&mut frame) {
                let (source, destination) = (packet.source.0, packet.destination.0);
                debug!(
                    context,
                    "{}: {:i} -> {:i} protocol {} port {}",
                    name(number),
                    source,
                    destination,
                    packet.protocol,
                    port(&packet, blur)
                );
            }
        }
        Network::Ipv6 => {
            if let Ok(packet) = packet::parse_ipv6(&mut frame) {
                debug!(
                    context,
                    "{}: {:i} -> {:i} protocol {} port {}",
                    name(number),
                    packet.source.to_bytes(),
                    packet.destination.to_bytes(),
                    packet.protocol,
                    port(&packet, blur)
                );
            }
        }
        Network::NotIp | Network::TooManyTags => {}
    }
}

/// Destination port; 0 where there is none.
#[inline(always)]
fn port<A: Address>(packet: &Packet<A>, blur: Blur) -> u16 {
    blur.hide(match packet.transport {
        Transport::Tcp { ports, .. } | Transport::Udp { ports } => ports,
        _ => 0,
    }) as u16
}

/// What can become of a new flow. All names have one length and are found by a number that the
/// verifier does not know, so that it follows the rest once and not once for each.
#[inline(always)]
fn number(outcome: Outcome) -> Option<u32> {
    match outcome {
        Outcome::Admitted(..) => Some(0),
        Outcome::Refused(_, Refusal::Source) => Some(1),
        Outcome::Refused(_, Refusal::Grant) => Some(2),
        Outcome::Refused(_, Refusal::Fallback) => Some(3),
        Outcome::Denied(_) => Some(4),
        _ => None,
    }
}

static NAMES: [[u8; 8]; 8] = [
    *b"admitted",
    *b"source  ",
    *b"grant   ",
    *b"fallback",
    *b"denied  ",
    [b' '; 8],
    [b' '; 8],
    [b' '; 8],
];

#[inline(always)]
fn name(number: u32) -> &'static str {
    // SAFETY: every name is ASCII.
    unsafe { core::str::from_utf8_unchecked(&NAMES[number as usize & (NAMES.len() - 1)]) }
}
