//! Packets that leave: their reversed tuples are noted, so that the replies are looked up.

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

/// Notes a frame that leaves. One that cannot be parsed is not noted.
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
        Network::NotIp | Network::Unparsed => {}
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
    let Some(leaving) = classify::classify_leaving(packet, &environment.daemon) else { return };
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
    let passing = Passing { leaving: true, answers, kind: flow.kind, flags: flow.flags };
    let is_reset = flow.flags.any(TcpFlags::RST);
    if environment.asks_conntrack(flow.class) {
        // Conntrack may have refused to track the packet, so it is asked when the reply comes.
        if !is_reset {
            known_flows::note(lines, environment, hash);
        } else if let Some(known) = flow::find(lines, place) {
            known.pass(environment, passing, coarse);
        }
        return;
    }
    let changed = match flow::find(lines, place) {
        Some(known) if known.is_alive(coarse) => known.pass(environment, passing, coarse),
        Some(ended) if leaving.makes_known => {
            flow::put(lines, Some(ended), place, environment, passing, coarse);
            true
        }
        None if leaving.makes_known => {
            flow::remember(lines, place, environment, passing, coarse);
            true
        }
        Some(_) | None => false,
    };
    // Once a second for each flow, in case a later start asks conntrack.
    if changed {
        known_flows::note(lines, environment, hash);
    }
}
