//! Single decisions on new flows, for `ctguard run --trace`.
//!
//! `AYA_LOG_LEVEL` is a constant to the verifier, so without `--trace` all of this is dead code
//! that never reaches the processor. A decision is noted where it is made and logged where all
//! paths have met: the verifier would walk the logging once for each of them.

use aya_ebpf::{macros::map, maps::PerCpuArray, programs::XdpContext};
use aya_log_ebpf::{
    debug,
    macro_support::{Level, level_enabled},
};
use ctguard_datapath::{
    admission::Refusal,
    guard::Outcome,
    packet::{Address, Ipv6, Packet, Transport},
};
use ctguard_layout::units::Jiffies;

/// A decision of this CPU that is not logged yet, and when it logged one last.
#[repr(C)]
struct Decision {
    /// Words of the address, as many as its family has.
    source: [u32; 4],
    destination: [u32; 4],
    traced_at: u64,
    family: u32,
    protocol: u32,
    port: u32,
    /// Position in [`NAMES`] plus one; 0: nothing to log.
    name: u32,
}

/// The name of what is not decided yet.
const UNDECIDED: u32 = u32::MAX;

#[map(name = "decision")]
static DECISION: PerCpuArray<Decision> = PerCpuArray::with_max_entries(1, 0);

/// Notes a packet that is being decided on: at most one a jiffy on each CPU.
#[inline(always)]
pub(crate) fn note<A: Address>(packet: &Packet<A>, now: Jiffies) {
    if !level_enabled(Level::Debug) {
        return;
    }
    let Some(decision) = DECISION.get_ptr_mut(0) else { return };
    // SAFETY: this CPU's value of the map.
    let decision = unsafe { &mut *decision };
    if decision.traced_at == now.0 {
        return;
    }
    decision.traced_at = now.0;
    copy(&mut decision.source, packet.source);
    copy(&mut decision.destination, packet.destination);
    decision.family = A::FAMILY;
    decision.protocol = packet.protocol.into();
    decision.port = 0;
    if let Transport::Tcp { ports, .. } | Transport::Udp { ports } = packet.transport {
        // SAFETY: a field of the value above. Volatile, or LLVM moves it in front of the branch,
        // where the other variants have set no ports, which the verifier refuses to read.
        unsafe { (&raw mut decision.port).write_volatile(ports & 0xffff) };
    }
    decision.name = UNDECIDED;
}

/// Notes what became of the packet that was noted, if one was.
#[inline(always)]
pub(crate) fn note_outcome(outcome: Outcome) {
    if !level_enabled(Level::Debug) {
        return;
    }
    let name = match outcome {
        Outcome::Admitted(..) => 1,
        Outcome::Refused(_, Refusal::Source) => 2,
        Outcome::Refused(_, Refusal::Grant) => 3,
        Outcome::Refused(_, Refusal::Fallback) => 4,
        Outcome::Denied(_) => 5,
        Outcome::Challenged(..) | Outcome::Refused(_, Refusal::Challenge) => 6,
        Outcome::Refused(_, Refusal::Prefix) => 7,
        Outcome::Refused(_, Refusal::Service) => 8,
        _ => 0,
    };
    let Some(decision) = DECISION.get_ptr_mut(0) else { return };
    // SAFETY: this CPU's value of the map.
    let decision = unsafe { &mut *decision };
    if decision.name == UNDECIDED {
        decision.name = name;
    }
}

/// Logs the decision that was noted, if one was.
#[inline(always)]
pub(crate) fn log(context: &XdpContext) {
    if !level_enabled(Level::Debug) {
        return;
    }
    let Some(decision) = DECISION.get_ptr_mut(0) else { return };
    // SAFETY: as above.
    let decision = unsafe { &mut *decision };
    let Some(name) = decision.name.checked_sub(1).filter(|_| decision.name != UNDECIDED) else {
        return;
    };
    decision.name = 0;
    let (protocol, port) = (decision.protocol, decision.port);
    if decision.family == 4 {
        let ([source, ..], [destination, ..]) = (decision.source, decision.destination);
        debug!(
            context,
            "{}: {:i} -> {:i} protocol {} port {}",
            self::name(name),
            source,
            destination,
            protocol,
            port
        );
    } else {
        let source = Ipv6(decision.source).to_bytes();
        let destination = Ipv6(decision.destination).to_bytes();
        debug!(
            context,
            "{}: {:i} -> {:i} protocol {} port {}",
            self::name(name),
            source,
            destination,
            protocol,
            port
        );
    }
}

/// What can become of a new flow; all names have one length, so that the verifier need not know
/// which it is.
static NAMES: [[u8; 8]; 8] = [
    *b"admitted",
    *b"source  ",
    *b"grant   ",
    *b"fallback",
    *b"denied  ",
    *b"asked   ",
    *b"prefix  ",
    *b"service ",
];

#[inline(always)]
fn name(position: u32) -> &'static str {
    // SAFETY: every name is ASCII.
    unsafe { core::str::from_utf8_unchecked(&NAMES[position as usize & (NAMES.len() - 1)]) }
}

#[inline(always)]
fn copy<A: Address>(into: &mut [u32; 4], address: A) {
    for (into, word) in into.iter_mut().zip(address.words().as_ref()) {
        *into = *word;
    }
}
