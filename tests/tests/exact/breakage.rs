//! Everything that can be wrong or odd with a packet on its way onto the wire.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ctguard_tests::random::Random;

use crate::{
    frame::{
        AUTHENTICATION, DESTINATION_OPTIONS, FRAGMENT, HOP_BY_HOP, NETWORK_AT, Packet, ROUTING,
        checksum_at, in_pppoe, set_header_checksum, set_transport_checksum, tagged,
    },
    network::{ROUTER, ROUTER6, TO_WAN},
};

/// An odd way to lay a packet out.
pub(crate) struct Odd {
    pub(crate) kind: &'static str,
    pub(crate) frames: Vec<Vec<u8>>,
    /// The packet in one frame.
    pub(crate) whole: Vec<u8>,
    /// Fragments of it are missing, or overlap.
    pub(crate) never_whole: bool,
}

impl Odd {
    pub(crate) fn one(kind: &'static str, frame: Vec<u8>) -> Self {
        Self { kind, whole: frame.clone(), frames: vec![frame], never_whole: false }
    }
}

/// Lays a packet out in some odd way, or, mostly, gives it back to be laid out plainly.
pub(crate) fn laid_out(packet: Packet, random: &mut Random) -> Result<Odd, Packet> {
    match random.below(40) {
        0..=2 => Ok(fragmented(packet, random)),
        3..=5 if packet.from.is_ipv6() => Ok(chained(packet, random)),
        3..=4 => Ok(with_options(packet, random)),
        6..=7 => Ok(between_odd_addresses(packet, random)),
        8 => {
            let hops = random.one_of(&[0, 1]);
            Ok(Odd::one("last hop", Packet { hops, ..packet }.frame(TO_WAN)))
        }
        9..=14 => damaged(packet, random),
        _ => Err(packet),
    }
}

fn damaged(packet: Packet, random: &mut Random) -> Result<Odd, Packet> {
    let mut frame = packet.frame(TO_WAN);
    let kind = match random.below(11) {
        0 => {
            let Some(at) = checksum_at(packet.protocol) else { return Err(packet) };
            let at = frame.len() - packet.payload.len() + at;
            let Some(byte) = frame.get_mut(at) else { return Err(packet) };
            *byte ^= 0x55;
            "bad transport checksum"
        }
        1 if packet.from.is_ipv4() => {
            frame[NETWORK_AT + 10] ^= 0x55;
            "bad header checksum"
        }
        2 => {
            frame.truncate(NETWORK_AT + random.index(frame.len() - NETWORK_AT));
            "truncated"
        }
        3 => {
            frame.extend([0xee].repeat(1 + random.index(40)));
            "trailing bytes"
        }
        4 => {
            frame[NETWORK_AT] = frame[NETWORK_AT] & 0x0f | random.byte() & 0xf0;
            "version"
        }
        5 => {
            set_length(&mut frame, packet.from.is_ipv4(), random);
            "length"
        }
        6 => {
            frame = dressed(&frame, random);
            "tags and sessions"
        }
        7 => {
            frame[..6].copy_from_slice(&random.one_of(&[
                [2, 0, 0, 0, 0, 9],
                [0xff; 6],
                [1, 0, 0x5e, 0, 0, 1],
            ]));
            "other station"
        }
        8 => {
            let payload = short_transport(&packet, random);
            frame = Packet { payload, ..packet }.frame(TO_WAN);
            "short transport"
        }
        9 => {
            let at = NETWORK_AT + random.index(frame.len() - NETWORK_AT);
            frame[at] = random.byte();
            if packet.from.is_ipv4() && frame.len() >= NETWORK_AT + 60 {
                set_header_checksum(&mut frame[NETWORK_AT..]);
            }
            "random byte"
        }
        _ => {
            for _ in 0..=random.below(4) {
                let at = random.index(frame.len());
                frame[at] = random.byte();
            }
            "random bytes"
        }
    };
    Ok(Odd::one(kind, frame))
}

/// A length that the frame does not have.
fn set_length(frame: &mut [u8], four: bool, random: &mut Random) {
    let at = NETWORK_AT + if four { 2 } else { 4 };
    let told = u16::from_be_bytes([frame[at], frame[at + 1]]);
    let length = match random.below(4) {
        0 => 0,
        1 => told.saturating_sub(1 + (random.half() & 15)),
        2 => told.saturating_add(1 + (random.half() & 15)),
        _ => random.half(),
    };
    frame[at..at + 2].copy_from_slice(&length.to_be_bytes());
    if four {
        set_header_checksum(&mut frame[NETWORK_AT..]);
    }
}

/// A transport header cut short in a packet that says so, or of a length that it does not have.
fn short_transport(packet: &Packet, random: &mut Random) -> Vec<u8> {
    let mut payload = packet.payload.clone();
    if random.below(2) == 0 {
        payload.truncate(random.index(payload.len().max(1)));
    } else if payload.len() >= 14 {
        // The data offset of TCP, the length of UDP.
        let at = random.one_of(&[12, 5, 4]);
        payload[at] = random.byte();
    }
    set_transport_checksum(packet.from, packet.to, packet.protocol, &mut payload);
    payload
}

fn dressed(frame: &[u8], random: &mut Random) -> Vec<u8> {
    let identifier = random.one_of(&[0, 0, 1, 7]);
    let (dot1q, dot1ad) = ((0x8100, identifier), (0x88a8, identifier));
    match random.below(5) {
        0 => tagged(frame, &[dot1q]),
        1 => tagged(frame, &[dot1ad]),
        2 => tagged(frame, &[dot1ad, dot1q]),
        3 => tagged(frame, &[dot1q, dot1q, dot1q]),
        _ => in_pppoe(frame),
    }
}

fn fragmented(mut packet: Packet, random: &mut Random) -> Odd {
    if packet.payload.len() < 24 && random.below(2) == 0 {
        packet.payload.resize(32, 0);
        set_transport_checksum(packet.from, packet.to, packet.protocol, &mut packet.payload);
    }
    let first = 1 + random.index(3);
    let cuts = if random.below(2) == 0 { vec![first] } else { vec![first, first + 1] };
    let mut frames = packet.fragments(TO_WAN, &cuts);
    let whole = packet.frame(TO_WAN);
    let mut never_whole = false;
    let kind = match random.below(8) {
        0 if frames.len() > 1 => {
            frames.swap_remove(random.index(frames.len()));
            never_whole = true;
            "some fragments"
        }
        1 => {
            let piece = [0x5a; 16];
            never_whole = true;
            frames.insert(1, packet.fragment(TO_WAN, packet.protocol, &piece, 8, true));
            "overlapping fragments"
        }
        2 => {
            let first = packet.fragment(TO_WAN, packet.protocol, &packet.payload, 0, false);
            frames = vec![first];
            "atomic fragment"
        }
        _ => "fragments",
    };
    if frames.len() > 1 && random.below(3) == 0 {
        let last = frames.len() - 1;
        frames.swap(0, last);
    }
    Odd { kind, frames, whole, never_whole }
}

fn chained(mut packet: Packet, random: &mut Random) -> Odd {
    let kinds = [HOP_BY_HOP, ROUTING, AUTHENTICATION, DESTINATION_OPTIONS, FRAGMENT];
    let headers = random.one_of(&[1, 1, 1, 2, 2, 3, 4, 7, 8, 9, 16, 64]);
    for position in 0..headers {
        let kind = if position == 0 || headers < 4 {
            random.one_of(&kinds)
        } else {
            random.one_of(&kinds[1..])
        };
        packet.extensions.push((kind, extension(kind, random)));
    }
    Odd::one("extension headers", packet.frame(TO_WAN))
}

/// An extension header behind its first byte.
fn extension(kind: u8, random: &mut Random) -> Vec<u8> {
    match kind {
        FRAGMENT => {
            let mut body = vec![0, 0, random.one_of(&[0, 0, 0, 0, 1, 8])];
            // Above those of whole packets' fragments, which have 16 bits.
            body.extend((random.word() | 1 << 16).to_be_bytes());
            body
        }
        AUTHENTICATION => vec![1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1],
        // Type 4 with no segment left, which is passed over.
        ROUTING => vec![0, 4, random.one_of(&[0, 0, 0, 1]), 0, 0, 0, 0],
        _ => {
            // Padding, an option that nobody knows and all pass over, too much padding, an option
            // that whoever does not know it discards.
            match random.below(16) {
                0 => vec![1, 1, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
                1 => vec![0, 0x7e, 4, 0, 0, 0, 0],
                2..=4 => vec![1, 1, 4, 0, 0, 0, 0, 0x1e, 6, 0, 0, 0, 0, 0, 0],
                _ => vec![0, 1, 4, 0, 0, 0, 0],
            }
        }
    }
}

fn with_options(mut packet: Packet, random: &mut Random) -> Odd {
    packet.options = match random.below(6) {
        0 => vec![1; 4 + 4 * random.index(10)],
        1 => vec![0x94, 4, 0, 0],
        2 => vec![7, 7, 4, 0, 0, 0, 0, 0],
        3 => vec![0x83, 7, 4, 0, 0, 0, 0, 0],
        4 => vec![random.byte(), random.byte(), random.byte(), random.byte()],
        _ => vec![0; 40],
    };
    Odd::one("ip options", packet.frame(TO_WAN))
}

/// Loopback, multicast, broadcast, the router's own and nobody's.
fn between_odd_addresses(mut packet: Packet, random: &mut Random) -> Odd {
    let odd = if packet.from.is_ipv4() {
        let choices: [[u8; 4]; 9] = [
            [127, 0, 0, 1],
            [224, 0, 0, 1],
            [224, 0, 0, 5],
            [224, 0, 1, 1],
            [239, 1, 1, 1],
            [255, 255, 255, 255],
            [198, 51, 100, 3],
            [0, 0, 0, 0],
            [240, 0, 0, 1],
        ];
        let chosen = random.one_of(&choices);
        if random.once_in(10) { ROUTER } else { Ipv4Addr::from(chosen).into() }
    } else {
        let choices: [[u16; 2]; 8] = [
            [0, 1],
            [0, 0],
            [0xff02, 1],
            [0xff02, 2],
            [0xff02, 5],
            [0xff05, 2],
            [0xfe80, 1],
            [0xff01, 1],
        ];
        let [first, last] = random.one_of(&choices);
        let address = Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, last);
        if random.once_in(10) { ROUTER6 } else { IpAddr::from(address) }
    };
    if random.below(3) == 0 {
        packet.from = odd;
    } else {
        packet.to = odd;
    }
    let (from, to, protocol) = (packet.from, packet.to, packet.protocol);
    set_transport_checksum(from, to, protocol, &mut packet.payload);
    Odd::one("odd addresses", packet.frame(TO_WAN))
}
