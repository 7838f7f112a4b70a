//! What leaves: parsed, turned round and noted, so that its answer is known or asked about.

use crate::{
    classify,
    flow::{self, FlowLines, Passing},
    hash,
    known_flows::{self, KnownWords},
    layout::Environment,
    packet::{self, Address, Malformed, Network, Packet, Reader, TcpFlags},
    place::Place,
    units::{Coarse, Jiffies},
};

/// Notes a frame that leaves, so that its answer is known. A frame that cannot be parsed tells
/// nothing.
#[inline(always)]
pub fn note_leaving<L: FlowLines + KnownWords>(
    mut frame: Reader<'_>,
    environment: &Environment,
    lines: &L,
    now: Jiffies,
) -> Result<(), Malformed> {
    match packet::parse_link(&mut frame)?.network {
        Network::Ipv4 => note(&packet::parse_ipv4(&mut frame)?, environment, lines, now),
        Network::Ipv6 => note(&packet::parse_ipv6(&mut frame)?, environment, lines, now),
        Network::NotIp | Network::Untold => {}
    }
    Ok(())
}

#[inline(always)]
fn note<A: Address, L: FlowLines + KnownWords>(
    packet: &Packet<A>,
    environment: &Environment,
    lines: &L,
    now: Jiffies,
) {
    let Some(leaving) = classify::classify_leaving(packet) else { return };
    let flow = leaving.flow;
    let coarse = Coarse::at(now, environment.daemon.coarse_shift);
    let hash = hash::tuple(
        &environment.fixed.tuple_key,
        packet.destination,
        packet.source,
        packet.protocol,
        flow.key,
    );
    let place = Place::of_flow(hash, environment);
    let answers = leaving.answers;
    let passing = Passing { leaving: true, answers, kind: flow.kind as u32, flags: flow.flags };
    let is_reset = flow.flags.any(TcpFlags::RST);
    if environment.asks_conntrack(flow.class) {
        // What leaves proves nothing: conntrack may have refused to track it. It is asked when the
        // answer comes.
        if !is_reset {
            known_flows::note(lines, environment, hash);
        } else if let Some(known) = flow::find(lines, place) {
            let _ = known.pass(environment, passing, coarse);
        }
        return;
    }
    let changed = match flow::find(lines, place) {
        Some(known) if known.is_alive(coarse) => known.pass(environment, passing, coarse),
        Some(ended) if leaving.makes_known => {
            ended.reopen(place, environment, passing, coarse);
            true
        }
        None if leaving.makes_known => {
            flow::remember(lines, place, environment, passing, coarse);
            true
        }
        Some(_) | None => false,
    };
    // Once a second for each flow: conntrack may be asked some day.
    if changed {
        known_flows::note(lines, environment, hash);
    }
}
