//! Single decisions on new flows, for `ctguard run --trace`.
//!
//! `AYA_LOG_LEVEL` is a constant to the verifier, so without `--trace` it removes all of this as
//! dead code. A packet is noted where its addresses are known, and logged where all paths have met,
//! because the verifier would walk the logging once for each path.

use aya_ebpf::{macros::map, maps::PerCpuArray, programs::XdpContext};
use aya_log_ebpf::{
    debug,
    macro_support::{Level, level_enabled},
};
use ctguard_datapath::{
    guard::Judgement,
    packet::{Address, Ipv6, Packet, Transport},
};
use ctguard_layout::{Group, TABLE, units::Jiffies};

/// A packet on this CPU whose outcome is not logged yet.
#[repr(C)]
struct Decision {
    /// Words of the address, as many as its family has.
    source: [u32; 4],
    destination: [u32; 4],
    /// Jiffies at which a packet was noted last.
    traced_at: u64,
    family: u32,
    protocol: u32,
    port: u32,
    /// 1 until it is logged.
    is_noted: u32,
}

#[map(name = "decision")]
static DECISION: PerCpuArray<Decision> = PerCpuArray::with_max_entries(1, 0);

/// Whether decisions are logged.
#[inline(always)]
pub(crate) fn is_on() -> bool {
    level_enabled(Level::Debug)
}

/// Notes a packet that is being judged: at most one per jiffy and CPU.
#[inline(always)]
pub(crate) fn note<A: Address>(packet: &Packet<A>, now: Jiffies) {
    if !is_on() {
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
        // SAFETY: a field of the value above. Volatile, or LLVM moves it before the branch, where
        // the verifier refuses to read ports that other variants have not set.
        unsafe { (&raw mut decision.port).write_volatile(ports & 0xffff) };
    }
    decision.is_noted = 1;
}

/// Logs the outcome of the packet that was noted, if it has a class.
#[inline(always)]
pub(crate) fn log(context: &XdpContext, judgement: Judgement) {
    if !is_on() {
        return;
    }
    let Some(decision) = DECISION.get_ptr_mut(0) else { return };
    // SAFETY: this CPU's value of the map.
    let decision = unsafe { &mut *decision };
    if decision.is_noted == 0 {
        return;
    }
    decision.is_noted = 0;
    if !judgement.has_class() {
        return;
    }
    let row = judgement.number();
    let (protocol, port) = (decision.protocol, decision.port);
    if decision.family == 4 {
        let ([from, ..], [to, ..]) = (decision.source, decision.destination);
        debug!(
            context,
            "{}: {:i} -> {:i} protocol {} port {}",
            name(row),
            from,
            to,
            protocol,
            port
        );
    } else {
        let from = Ipv6(decision.source).to_bytes();
        let to = Ipv6(decision.destination).to_bytes();
        debug!(
            context,
            "{}: {:i} -> {:i} protocol {} port {}",
            name(row),
            from,
            to,
            protocol,
            port
        );
    }
}

/// Labels of all outcomes by number, padded to one length, so that the verifier need not know which
/// one it is.
static NAMES: [[u8; NAME_BYTES]; NAME_SLOTS] = {
    let (mut names, mut position) = ([[b' '; NAME_BYTES]; NAME_SLOTS], 0);
    while position < TABLE.len() {
        let (label, mut at) = (TABLE[position].label.as_bytes(), 0);
        while at < label.len() && at < NAME_BYTES {
            names[position][at] = label[at];
            at += 1;
        }
        position += 1;
    }
    names
};

const NAME_SLOTS: usize = TABLE.len().next_power_of_two();
/// The longest label of what is shown.
const NAME_BYTES: usize = {
    let (mut longest, mut position) = (0, 0);
    while position < TABLE.len() {
        let row = &TABLE[position];
        if !matches!(row.group, Group::Packet) && row.label.len() > longest {
            longest = row.label.len();
        }
        position += 1;
    }
    longest
};

#[inline(always)]
fn name(position: u32) -> &'static str {
    // SAFETY: every label is ASCII.
    unsafe { core::str::from_utf8_unchecked(&NAMES[position as usize & (NAME_SLOTS - 1)]) }
}

#[inline(always)]
fn copy<A: Address>(into: &mut [u32; 4], address: A) {
    for (into, word) in into.iter_mut().zip(address.words().as_ref()) {
        *into = *word;
    }
}
