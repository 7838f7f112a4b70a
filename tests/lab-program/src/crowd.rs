//! Connections that a crowd opens and completes, and that nobody holds: each side answers a packet
//! from what the packet says.
//!
//! A connection is SYN, SYN-ACK, ACK, FIN of the server, FIN of the client, ACK. The crowd also
//! answers a challenge ACK as a client does that has sent a SYN (RFC 9293, 3.10.7.3): by a RST of
//! the number acknowledged, and by its SYN again, which `lab_flood` sends when it is due.

use aya_ebpf::{
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC, xdp_action},
    btf_maps::Array,
    helpers::bpf_redirect,
    macros::{btf_map, classifier, xdp},
    programs::{TcContext, XdpContext},
};
use ctguard_layout::shared::Shared;

use super::{
    RECIPE, checksum,
    recipe::{
        CHALLENGES, CLIENT_SEQUENCE, CROWD_PORT, HOLD_PORT, HOLDS, LARGEST_CROWD, SERVER_SEQUENCE,
        Strand, TURNS_TOLD_APART,
    },
};

/// SYN-ACKs that each member saw.
#[btf_map(name = "lab_accepted")]
static ACCEPTED: Array<Shared, LARGEST_CROWD> = Array::new();

/// The turns whose SYN is to be sent again, in a ring.
#[btf_map(name = "lab_challenges")]
static CHALLENGED_TURNS: Array<u64, CHALLENGES> = Array::new();

/// Turns put into the ring.
#[btf_map(name = "lab_challenged")]
static CHALLENGED_COUNT: Array<Shared, 1> = Array::new();

/// A bit for each turn that was challenged: only the first SYN is sent again at once.
#[btf_map(name = "lab_repeated")]
static REPEATED: Array<Shared, { TURNS_TOLD_APART / 64 }> = Array::new();

/// A bit for each connection that is held open.
#[btf_map(name = "lab_held")]
static HELD: Array<Shared, { TURNS_TOLD_APART / 64 }> = Array::new();

/// A bit for each connection whose client showed the cookie of `lab_challenge`.
#[btf_map(name = "lab_shown")]
static SHOWN: Array<Shared, { TURNS_TOLD_APART / 64 }> = Array::new();

/// Connections closed by both sides.
#[btf_map(name = "lab_completed")]
static COMPLETED: Array<Shared, 1> = Array::new();

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// Answers for each member of the crowd; on the ingress of the device that floods.
#[classifier]
pub fn lab_crowd(context: TcContext) -> i32 {
    answer::<Client>(&context)
}

/// Answers as the server; on the ingress of the device that its packets arrive on.
#[classifier]
pub fn lab_server(context: TcContext) -> i32 {
    answer::<Server>(&context)
}

/// Challenges each SYN at the crowd's port, unless its client showed the cookie before: what a
/// guard that answers does, without its table, its limits or its secrets.
#[xdp]
pub fn lab_challenger(context: XdpContext) -> u32 {
    match challenge(&context) {
        Some(Fate::Answered(_)) => xdp_action::XDP_TX,
        Some(Fate::Taken) => xdp_action::XDP_DROP,
        Some(Fate::Pass) | None => xdp_action::XDP_PASS,
    }
}

#[inline(always)]
fn challenge(context: &XdpContext) -> Option<Fate> {
    let ends = (context.data(), context.data_end());
    match ethertype(ends)? {
        0x0800 => challenge_in::<34, 4>(ends),
        0x86dd => challenge_in::<54, 16>(ends),
        _ => None,
    }
}

#[inline(always)]
fn challenge_in<const TRANSPORT: usize, const ADDRESS: usize>(
    ends: (usize, usize),
) -> Option<Fate> {
    const COOKIE: u32 = 0xc00c_1e55;
    let frame = Frame::<TRANSPORT, ADDRESS>::of(ends)?;
    let segment = frame.segment();
    if segment.to_port != CROWD_PORT {
        return None;
    }
    // Good enough to tell connections of one test apart.
    let mixed = segment.from.wrapping_mul(0x9e37_79b1)
        ^ u32::from(segment.from_port).wrapping_mul(0x85eb_ca6b);
    let bit = mixed >> (32 - TURNS_TOLD_APART.trailing_zeros());
    let (word, mask) = (SHOWN.get(bit / 64)?, 1 << (bit % 64));
    match segment.flags & (FIN | SYN | RST | ACK) {
        SYN if word.load() & mask == 0 => {
            let reply = Reply { sequence: !segment.sequence, acknowledgment: COOKIE, flags: ACK };
            frame.turn_into(&reply);
            Some(Fate::Answered(reply))
        }
        RST if segment.sequence == COOKIE => {
            word.set_bits(mask);
            Some(Fate::Taken)
        }
        _ => None,
    }
}

/// What a segment says, from whom and to whom: the address words, as they lie in the frame.
struct Segment {
    from: u32,
    to: u32,
    from_port: u16,
    to_port: u16,
    sequence: u32,
    acknowledgment: u32,
    flags: u8,
}

/// What becomes of a packet.
enum Fate {
    /// It is for somebody else.
    Pass,
    /// It needs no answer.
    Taken,
    Answered(Reply),
}

struct Reply {
    sequence: u32,
    acknowledgment: u32,
    flags: u8,
}

/// Who answers.
trait Side {
    /// Whether it answers UDP at the crowd's port by what it was sent.
    const ANSWERS_DATAGRAMS: bool;

    fn judge(segment: &Segment) -> Option<Fate>;
}

struct Client;
struct Server;

/// The turn that lies at this place of the ring.
#[inline(always)]
pub(super) fn challenged(place: u64) -> Option<u64> {
    CHALLENGED_TURNS.get(place as u32 & (CHALLENGES as u32 - 1)).copied()
}

#[inline(always)]
fn answer<S: Side>(context: &TcContext) -> i32 {
    let answered = match ethertype((context.data(), context.data_end())) {
        Some(0x0800) => answer_in::<S, 34, 4>(context),
        Some(0x86dd) => answer_in::<S, 54, 16>(context),
        _ => None,
    };
    answered.unwrap_or(TC_ACT_UNSPEC)
}

/// Answers where the transport lies at `TRANSPORT`, right behind two addresses of `ADDRESS` bytes.
#[inline(always)]
fn answer_in<S: Side, const TRANSPORT: usize, const ADDRESS: usize>(
    context: &TcContext,
) -> Option<i32> {
    let ends = (context.data(), context.data_end());
    if S::ANSWERS_DATAGRAMS
        && let Some(datagram) = Frame::<TRANSPORT, ADDRESS>::of_protocol(ends, 17, 8)
    {
        if datagram.word(TRANSPORT + 2) != CROWD_PORT {
            return None;
        }
        // Sums stay right where words change places.
        datagram.turn_around();
        // SAFETY: as below.
        return Some(unsafe { bpf_redirect((*context.skb.skb).ifindex, 0) } as i32);
    }
    let frame = Frame::<TRANSPORT, ADDRESS>::of(ends)?;
    match S::judge(&frame.segment())? {
        Fate::Pass => None,
        Fate::Taken => Some(TC_ACT_SHOT),
        Fate::Answered(reply) => {
            frame.turn_into(&reply);
            // SAFETY: the context is the kernel's; the device is the one the packet came from.
            Some(unsafe { bpf_redirect((*context.skb.skb).ifindex, 0) } as i32)
        }
    }
}

impl Side for Client {
    const ANSWERS_DATAGRAMS: bool = false;

    #[inline(always)]
    fn judge(segment: &Segment) -> Option<Fate> {
        let strand = &RECIPE.get(0)?.strands[0];
        let Some(member) = member(strand, segment.to) else { return Some(Fate::Pass) };
        let fate = match segment.flags & (FIN | SYN | RST | ACK) {
            flags if flags == SYN | ACK => {
                ACCEPTED.get(member)?.fetch_add(1);
                if strand.flags & HOLDS != 0 {
                    let bit = turn(strand, member, segment.to_port) as u32;
                    let bit = bit & (TURNS_TOLD_APART as u32 - 1);
                    HELD.get(bit / 64)?.set_bits(1 << (bit % 64));
                }
                Fate::Answered(segment.reply(1, ACK))
            }
            // What the server answers to a client that left first.
            flags if flags == FIN | ACK && segment.acknowledgment == CLIENT_SEQUENCE + 2 => {
                COMPLETED.get(0)?.fetch_add(1);
                Fate::Answered(segment.reply(1, ACK))
            }
            flags if flags == FIN | ACK => Fate::Answered(segment.reply(1, FIN | ACK)),
            ACK if segment.acknowledgment == CLIENT_SEQUENCE + 2 => {
                COMPLETED.get(0)?.fetch_add(1);
                Fate::Taken
            }
            ACK => {
                send_again(strand, member, segment.to_port)?;
                Fate::Answered(Reply {
                    sequence: segment.acknowledgment,
                    acknowledgment: 0,
                    flags: RST,
                })
            }
            _ => Fate::Taken,
        };
        Some(fate)
    }
}

impl Side for Server {
    const ANSWERS_DATAGRAMS: bool = true;

    #[inline(always)]
    fn judge(segment: &Segment) -> Option<Fate> {
        let closes = match segment.to_port {
            CROWD_PORT => true,
            HOLD_PORT => false,
            _ => return Some(Fate::Pass),
        };
        let fate = match segment.flags & (FIN | SYN | RST | ACK) {
            SYN => Fate::Answered(Reply {
                sequence: SERVER_SEQUENCE,
                acknowledgment: segment.sequence + 1,
                flags: SYN | ACK,
            }),
            // The handshake is done, and so is the connection.
            ACK if closes && segment.acknowledgment == SERVER_SEQUENCE + 1 => {
                Fate::Answered(segment.reply(0, FIN | ACK))
            }
            flags if flags == FIN | ACK && closes => Fate::Answered(segment.reply(1, ACK)),
            flags if flags == FIN | ACK => Fate::Answered(segment.reply(1, FIN | ACK)),
            _ => Fate::Taken,
        };
        Some(fate)
    }
}

/// Which member of the crowd has this address word.
#[inline(always)]
fn member(strand: &Strand, word: u32) -> Option<u32> {
    let offset = u32::from_be(word).wrapping_sub(u32::from_be(strand.address));
    // A crowd without members has no step either.
    let member = offset.checked_div(strand.step)?;
    (member < strand.crowd).then_some(member)
}

/// Whether this turn's connection is held open.
#[inline(always)]
pub(super) fn is_held(turn: u64) -> bool {
    let bit = turn as u32 & (TURNS_TOLD_APART as u32 - 1);
    HELD.get(bit / 64).is_some_and(|word| word.load() & (1 << (bit % 64)) != 0)
}

/// Whose turn it was that a member's port comes from.
#[inline(always)]
fn turn(strand: &Strand, member: u32, port: u16) -> u64 {
    let round = u64::from(port.wrapping_sub(strand.drawn_first as u16));
    round * u64::from(strand.crowd) + u64::from(member)
}

/// Notes that the SYN from this port is due again, unless it was before.
#[inline(always)]
fn send_again(strand: &Strand, member: u32, port: u16) -> Option<()> {
    let turn = turn(strand, member, port);
    let bit = turn as u32 & (TURNS_TOLD_APART as u32 - 1);
    let word = REPEATED.get(bit / 64)?;
    let mask = 1 << (bit % 64);
    if word.load() & mask == 0 {
        word.set_bits(mask);
        let place = CHALLENGED_COUNT.get(0)?.fetch_add(1) as u32 & (CHALLENGES as u32 - 1);
        let slot = CHALLENGED_TURNS.get_ptr_mut(place)?;
        // SAFETY: the slot lives as long as the map; it is read milliseconds later.
        unsafe { *slot = turn };
    }
    Some(())
}

impl Segment {
    /// What goes on where this segment, which takes `length` of sequence space, asks to.
    #[inline(always)]
    const fn reply(&self, length: u32, flags: u8) -> Reply {
        Reply {
            sequence: self.acknowledgment,
            acknowledgment: self.sequence.wrapping_add(length),
            flags,
        }
    }
}

/// A frame with IP of the shortest header and 20 bytes of TCP in it, as 16-bit words.
struct Frame<const TRANSPORT: usize, const ADDRESS: usize>(*mut u16);

impl<const TRANSPORT: usize, const ADDRESS: usize> Frame<TRANSPORT, ADDRESS> {
    const NETWORK: usize = 14;
    const SOURCE: usize = TRANSPORT - 2 * ADDRESS;
    const DESTINATION: usize = TRANSPORT - ADDRESS;
    const TCP: u8 = 6;
    const TCP_LENGTH: u16 = 20;

    #[inline(always)]
    fn of(ends: (usize, usize)) -> Option<Self> {
        Self::of_protocol(ends, Self::TCP, Self::TCP_LENGTH as usize)
    }

    /// A frame with so many bytes of this protocol at least; only those may be read.
    #[inline(always)]
    fn of_protocol((start, end): (usize, usize), wanted: u8, length: usize) -> Option<Self> {
        if start + TRANSPORT + length > end {
            return None;
        }
        let frame = Self(start as *mut u16);
        let network = frame.word(Self::NETWORK).to_be_bytes()[0];
        let protocol = match ADDRESS {
            4 if network == 0x45 => frame.word(22).to_be_bytes()[1],
            16 => frame.word(20).to_be_bytes()[0],
            _ => return None,
        };
        (protocol == wanted).then_some(frame)
    }

    #[inline(always)]
    fn segment(&self) -> Segment {
        let word = match ADDRESS {
            4 => 0,
            _ => 4,
        };
        Segment {
            from: self.long(Self::SOURCE + word).to_be(),
            to: self.long(Self::DESTINATION + word).to_be(),
            from_port: self.word(TRANSPORT),
            to_port: self.word(TRANSPORT + 2),
            sequence: self.long(TRANSPORT + 4),
            acknowledgment: self.long(TRANSPORT + 8),
            flags: self.word(TRANSPORT + 12).to_be_bytes()[1],
        }
    }

    /// Makes the frame its answer: sender and receiver change places.
    #[inline(always)]
    fn turn_into(&self, reply: &Reply) {
        self.turn_around();
        self.put_long(TRANSPORT + 4, reply.sequence);
        self.put_long(TRANSPORT + 8, reply.acknowledgment);
        self.put(TRANSPORT + 12, 0x5000 | u16::from(reply.flags));
        self.put(TRANSPORT + 14, 64240);
        self.put(TRANSPORT + 16, 0);
        self.put(TRANSPORT + 18, 0);
        let pseudo_header = u32::from(u16::from(Self::TCP).to_be() + Self::TCP_LENGTH.to_be());
        let sum = pseudo_header + self.sum(Self::SOURCE, TRANSPORT + 20);
        self.put(TRANSPORT + 16, u16::from_be(checksum(sum)));
        match ADDRESS {
            4 => {
                self.put(14, 0x4500);
                self.put(16, 20 + Self::TCP_LENGTH);
                self.put(18, 0);
                self.put(20, 0x4000);
                self.put(22, 0x4000 | u16::from(Self::TCP));
                self.put(24, 0);
                self.put(24, u16::from_be(checksum(self.sum(Self::NETWORK, TRANSPORT))));
            }
            _ => {
                self.put(18, Self::TCP_LENGTH);
                self.put(20, u16::from_be_bytes([Self::TCP, 64]));
            }
        }
    }

    /// Sender and receiver change places.
    #[inline(always)]
    fn turn_around(&self) {
        self.swap(0, 6, 6);
        self.swap(Self::SOURCE, Self::DESTINATION, ADDRESS);
        self.swap(TRANSPORT, TRANSPORT + 2, 2);
    }

    #[inline(always)]
    fn swap(&self, one: usize, other: usize, bytes: usize) {
        let mut at = 0;
        while at < bytes {
            let (first, second) = (self.word(one + at), self.word(other + at));
            self.put(one + at, second);
            self.put(other + at, first);
            at += 2;
        }
    }

    /// The sum of words as the machine loads them.
    #[inline(always)]
    fn sum(&self, from: usize, to: usize) -> u32 {
        let (mut at, mut sum) = (from, 0);
        while at < to {
            sum += u32::from(self.word(at).to_be());
            at += 2;
        }
        sum
    }

    #[inline(always)]
    fn long(&self, at: usize) -> u32 {
        u32::from(self.word(at)) << 16 | u32::from(self.word(at + 2))
    }

    #[inline(always)]
    fn put_long(&self, at: usize, value: u32) {
        self.put(at, (value >> 16) as u16);
        self.put(at + 2, value as u16);
    }

    #[inline(always)]
    fn word(&self, at: usize) -> u16 {
        // SAFETY: `of_protocol` found the frame to reach to where the constant offsets of its
        // protocol end; offsets are even and frames are aligned to 2.
        u16::from_be(unsafe { *self.0.add(at / 2) })
    }

    #[inline(always)]
    fn put(&self, at: usize, value: u16) {
        // SAFETY: as in `word`.
        unsafe { *self.0.add(at / 2) = value.to_be() }
    }
}

#[inline(always)]
fn ethertype((start, end): (usize, usize)) -> Option<u16> {
    if start + 14 > end {
        return None;
    }
    // SAFETY: two bytes at 12 are in the frame, which is aligned to 2.
    Some(u16::from_be(unsafe { *((start + 12) as *const u16) }))
}
