//! What a packet meets, in order: link, lists, meaning, recent tuples, known-flows filter, flow
//! cache, conntrack, standing, admission; and the outcome.

mod admit;
mod outcome;
mod standing;

pub use crate::layout::Offered;
pub use outcome::{Answer, Challenge, Judgement, Outcome};

use admit::{Opening, Tuple};
use outcome::{Decision, Packed, Vouched};

use crate::{
    blur::{self, Blur},
    challenge::{self, Answering},
    classify::{self, Flow, Meaning},
    flow::{self, FlowLines, Found, Passing},
    hash,
    known_flows::{self, KnownWords},
    layout::{
        BucketLine, Class, Environment, FlowKind, Grant, Interface, Limits, List, MemoryLine,
        OperatorLimits, Policy, SCRATCH_WORDS, Tier,
    },
    packet::{
        self, Address, Frame, Ipv4, Ipv6, Malformed, Network, Packet, Reader, TcpFlags, Transport,
    },
    place::Place,
    recent,
    shared::Shared,
    sources::SourceSet,
    units::{Coarse, Jiffies},
};

/// The maps that not every packet needs.
pub trait Tables: FlowLines + KnownWords + SourceSet {
    /// The line of a scope's cells at `index`.
    fn bucket_line(&self, scope: Scope, index: u32) -> Option<&BucketLine>;
    /// The line at `index` of a memory.
    fn memory_line(&self, memory: Memory, index: u32) -> Option<&MemoryLine>;
    /// Whether the list holds the IPv4 address, not expired at `now`.
    fn lists_ipv4(&self, list: List, address: Ipv4, now: Jiffies) -> bool;
    /// Whether the list holds the IPv6 address, not expired at `now`.
    fn lists_ipv6(&self, list: List, address: Ipv6, now: Jiffies) -> bool;
    /// The interface that the packet arrived on.
    fn interface(&self) -> Option<&Interface>;
    /// What the operator set.
    fn policy(&self) -> Option<&Policy>;
    /// The grant.
    fn grant(&self) -> Option<&Grant>;
    /// What the controller found.
    fn limits(&self) -> Option<&Limits>;
    /// This CPU's slot for a tuple that goes on.
    fn recent(&self, hash: u64) -> Option<&Shared>;
    /// This CPU's scratch memory.
    fn scratch(&self) -> &[Shared; SCRATCH_WORDS];
    /// Asks conntrack about the flow of a TCP or UDP packet.
    fn ask_conntrack<A: Address>(&self, packet: &Packet<A>, flow: Flow) -> Answer;
    /// Source and destination of the packet, read from the frame again.
    fn addresses<A: Answering>(&self) -> Option<(A, A)>;
    /// Writes a challenge ACK in the place of a SYN, and tells whether it could.
    fn answer<A: Answering>(&self, answer: &challenge::Answer<A>) -> bool;
    /// Whether this new flow's offered load is written down.
    fn samples(&self) -> bool;
    /// Keeps what is to be shown of a packet that opens a flow, or is denied.
    fn show<A: Address>(&self, packet: &Packet<A>, now: Jiffies);
    /// Notes offered load of a source.
    fn note_offered(&self, line: u32, offered: Offered);
}

/// What cells count for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// A source.
    Source,
    /// A prefix of sources.
    Prefix,
    /// A destination address, protocol and port.
    Service,
}

/// What is remembered for seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// Tuples that were refused and may come again.
    Retries,
    /// Tuples that answered a challenge.
    Answered,
    /// Sources that ended a flow they had answered for.
    Resets,
}

/// The map that every packet needs, and the others.
pub struct Guard<'m, T> {
    /// What every packet needs.
    pub environment: &'m Environment,
    /// The rest.
    pub tables: T,
}

/// An address that lists can be asked about.
trait Listed: Answering {
    const ALLOW: List;
    const DENY: List;
    fn is_in<T: Tables>(self, list: List, tables: &T, now: Jiffies) -> bool;
}

impl Listed for Ipv4 {
    const ALLOW: List = List::AllowV4;
    const DENY: List = List::DenyV4;
    #[inline(always)]
    fn is_in<T: Tables>(self, list: List, tables: &T, now: Jiffies) -> bool {
        tables.lists_ipv4(list, self, now)
    }
}

impl Listed for Ipv6 {
    const ALLOW: List = List::AllowV6;
    const DENY: List = List::DenyV6;
    #[inline(always)]
    fn is_in<T: Tables>(self, list: List, tables: &T, now: Jiffies) -> bool {
        tables.lists_ipv6(list, self, now)
    }
}

impl<T: Tables> Guard<'_, T> {
    /// Judges a frame that arrives.
    #[inline(always)]
    pub fn judge(&self, mut frame: Reader<'_>, now: Jiffies) -> Judgement {
        let packed = match self.try_judge(&mut frame, now) {
            Ok(packed) => packed,
            Err(malformed) => Packed::of(Outcome::Malformed(malformed)),
        };
        packed.unpack()
    }

    #[inline(always)]
    fn try_judge(&self, reader: &mut Reader<'_>, now: Jiffies) -> Result<Packed, Malformed> {
        let frame = packet::parse_link(reader)?;
        if self.environment.daemon.stations_in_use != 0 && self.is_for_another(frame) {
            return Ok(Packed::of(Outcome::NotOurs));
        }
        let next = match frame.network {
            Network::Ipv4 => self.look_at(&packet::parse_ipv4(reader)?, now),
            Network::Ipv6 => self.look_at(&packet::parse_ipv6(reader)?, now),
            Network::NotIp => Packed::of(Outcome::Exempt),
            // No address was read: all such frames share the cells of 0.0.0.0.
            Network::Untold => self.untold(Ipv4(0), Tier::Strangers),
        };
        if next != Packed::UNDECIDED {
            return Ok(next);
        }
        let opening = Opening::read(self.tables.scratch());
        // From here on the family is a number: what follows is in the program once.
        Ok(if opening.is_reset == 0 { self.open(&opening, now) } else { self.reset(&opening, now) })
    }

    #[inline(always)]
    fn look_at<A: Listed>(&self, packet: &Packet<A>, now: Jiffies) -> Packed {
        let meaning = classify::classify(packet);
        if self.is_listed(A::DENY, packet.source, now) && !classify::is_exempt(packet) {
            let denied = Outcome::Denied(class_of(packet.protocol));
            self.tables.show(packet, now);
            return Packed::of(denied);
        }
        match meaning {
            Meaning::MakesNoEntry | Meaning::Untold if classify::is_exempt(packet) => {
                Packed::of(Outcome::Exempt)
            }
            Meaning::MakesNoEntry => Packed::of(Outcome::MakesNoEntry),
            Meaning::LaterFragment => Packed::of(Outcome::LaterFragment),
            Meaning::TinyFragment => Packed::of(Outcome::TinyFragment),
            Meaning::Untold => self.untold(packet.source, self.tier(packet, now)),
            Meaning::Of(flow) => self.look_up(packet, flow, now),
        }
    }

    #[inline(always)]
    fn look_up<A: Listed>(&self, packet: &Packet<A>, flow: Flow, now: Jiffies) -> Packed {
        let coarse = self.coarse(now);
        let hash = self.tuple_hash(packet, flow);
        let (recent, mark) = (self.tables.recent(hash), recent::mark(hash, coarse));
        if flow.goes_on() && recent.is_some_and(|slot| slot.load() == mark) {
            return Packed::of(Outcome::Known);
        }
        if flow.flags.any(TcpFlags::RST)
            && let Some(slot) = recent
        {
            // It may have ended the entry (`nf_conntrack_tcp_packet`).
            slot.store(0);
        }
        let place = Place::of_flow(hash, self.environment);
        let exact = self.environment.asks_conntrack(flow.class);
        // What the filter does not hold is in no cache either: floods read no more than it.
        let certainly_new = exact
            && self.environment.daemon.known_complete != 0
            && !known_flows::may_hold(&self.tables, self.environment, hash);
        let found = if certainly_new { None } else { flow::find(&self.tables, place) };
        if let Some(found) = &found
            && flow.goes_on()
            && found.is_fresh(self.environment, flow.kind, coarse)
        {
            if let Some(slot) = recent {
                slot.store(mark);
            }
            return Packed::of(Outcome::Known);
        }

        let opens = flow.opens(self.environment.daemon.tcp_loose != 0);
        let answer = if !exact || !opens {
            Answer::Silent
        } else if certainly_new {
            Answer::Untracked
        } else {
            self.tables.ask_conntrack(packet, flow)
        };
        if answer == Answer::Tracked {
            if flow.is_syn() {
                return Packed::of(Outcome::Repeated);
            }
            self.put(found, place, confirmed(flow), coarse);
            return Packed::of(Outcome::Known);
        }
        let known = found.as_ref().filter(|found| found.is_alive(coarse));
        if let Some(known) = known
            && answer == Answer::Silent
            && !flow.is_syn()
            && (known.is_answered() || !flow.opens(true))
        {
            let _ = known.pass(self.environment, arriving(flow), coarse);
            return self.ended(packet, flow, hash, Some(known), true);
        }
        if !opens {
            return self.ended(packet, flow, hash, known, false);
        }

        // Where conntrack has no entry yet, what follows the first packet at once may make one too.
        let vouched = match (answer, known) {
            (Answer::Silent, Some(known)) => self.vouched(known, flow, coarse),
            _ => Vouched::No,
        };
        if vouched == Vouched::No {
            if classify::is_exempt(packet) {
                return Packed::of(Outcome::Exempt);
            }
            if self.learns(flow, now) {
                let passing = Passing { answers: true, ..arriving(flow) };
                flow::remember(&self.tables, place, self.environment, passing, coarse);
                known_flows::note(&self.tables, self.environment, hash);
                return Packed::of(Outcome::Known);
            }
        }
        // A live connection outlasts a SYN of its tuple, which conntrack ignores.
        let outlasts = known.is_some_and(|known| {
            blur::apart();
            answer == Answer::Silent && flow.is_syn() && known.is_established()
        });
        self.tables.show(packet, now);
        Opening {
            class: flow.class as u32,
            tier: self.tier(packet, now) as u32,
            vouched: vouched as u32,
            tuple: self.tuple(packet, flow, hash),
            has_tuple: 1,
            outlasts: u32::from(outlasts),
            is_reset: 0,
        }
        .write(self.tables.scratch());
        Packed::UNDECIDED
    }

    /// A packet that no more is known of than its source.
    #[inline(always)]
    fn untold<A: Address>(&self, source: A, tier: Tier) -> Packed {
        Opening {
            class: Class::Other as u32,
            tier: tier as u32,
            vouched: Vouched::No as u32,
            tuple: Tuple {
                family: A::FAMILY,
                scope: source.source_scope(),
                kind: FlowKind::Generic as u32,
                key: 0,
                flags: TcpFlags(0),
                hash: 0,
                service: 0,
                sequence: 0,
            },
            has_tuple: 0,
            outlasts: 0,
            is_reset: 0,
        }
        .write(self.tables.scratch());
        Packed::UNDECIDED
    }

    /// What a packet comes to that opens nothing; a RST may answer a challenge all the same.
    #[inline(always)]
    fn ended<A: Address>(
        &self,
        packet: &Packet<A>,
        flow: Flow,
        hash: u64,
        found: Option<&Found<'_>>,
        known: bool,
    ) -> Packed {
        if flow.flags.any(TcpFlags::RST) {
            let completed = match found {
                Some(found) => self.blur().hide(u32::from(found.is_answered())),
                None => 0,
            };
            Opening {
                class: flow.class as u32,
                tier: Tier::Strangers as u32,
                vouched: if known { Vouched::Known } else { Vouched::No } as u32,
                tuple: self.tuple(packet, flow, hash),
                has_tuple: 1,
                outlasts: completed,
                is_reset: 1,
            }
            .write(self.tables.scratch());
            return Packed::UNDECIDED;
        }
        if known { Packed::of(Outcome::Known) } else { Packed::of(Outcome::MakesNoEntry) }
    }

    #[inline(always)]
    fn tuple<A: Address>(&self, packet: &Packet<A>, flow: Flow, hash: u64) -> Tuple {
        let sequence = match packet.transport {
            Transport::Tcp { sequence, .. } => sequence,
            Transport::Udp { .. }
            | Transport::Icmp(_)
            | Transport::Other { .. }
            | Transport::Unread
            | Transport::LaterFragment
            | Transport::TinyFragment => 0,
        };
        let service = if self.environment.operator.scopes_in_use & OperatorLimits::SERVICE != 0 {
            let port = match flow.class {
                Class::Tcp | Class::Udp => flow.key & 0xffff,
                Class::Other => 0,
            };
            let key = &self.environment.fixed.source_key;
            hash::service(key, packet.destination, packet.protocol, port)
        } else {
            0
        };
        let (family, scope) = (A::FAMILY, packet.source.source_scope());
        let Flow { kind, key, flags, .. } = flow;
        Tuple { family, scope, kind: kind as u32, key, flags, hash, service, sequence }
    }

    /// Takes a RST for the answer to a challenge, or for what it is otherwise.
    #[inline(always)]
    fn reset(&self, reset: &Opening, now: Jiffies) -> Packed {
        Packed::of(if self.takes_reset(&reset.tuple, reset.outlasts != 0, now) {
            Outcome::ChallengeAnswered
        } else if reset.vouched == Vouched::Known as u32 {
            Outcome::Known
        } else {
            Outcome::MakesNoEntry
        })
    }

    /// Decides on a packet that would open a flow, and remembers the flow if it passes.
    #[inline(always)]
    fn open(&self, opening: &Opening, now: Jiffies) -> Packed {
        let decided = self.admit(opening, now);
        let Tuple { hash, kind, flags, .. } = opening.tuple;
        if decided.passes & opening.has_tuple != 0 {
            known_flows::note(&self.tables, self.environment, hash);
        }
        let is_admitted = decided.decision == Decision::Admitted as u32;
        if is_admitted && opening.has_tuple & !opening.outlasts & 1 != 0 {
            let place = Place::of_flow(hash, self.environment);
            let arriving = Passing { leaving: false, answers: false, kind, flags };
            let found = flow::find(&self.tables, place);
            self.put(found, place, arriving, self.coarse(now));
        }
        Decision::packed(decided.decision, opening.class, decided.tier).waking(decided.wake)
    }

    /// Remembers a flow as `passing` opens it, in the slot that it has or in a new one.
    #[inline(always)]
    fn put(&self, found: Option<Found<'_>>, place: Place, passing: Passing, coarse: Coarse) {
        match found {
            Some(found) => found.reopen(place, self.environment, passing, coarse),
            None => flow::remember(&self.tables, place, self.environment, passing, coarse),
        }
    }

    /// What a packet is that rests on an admission of its tuple: one that nobody inside has
    /// answered yet, so that the packet admitted may never have reached conntrack. It is not
    /// charged to its source again, but takes one from the grant as if it made an entry.
    #[inline(always)]
    fn vouched(&self, known: &Found<'_>, flow: Flow, coarse: Coarse) -> Vouched {
        if !flow.is_syn() {
            Vouched::Known
        } else if known.is_just_opened(self.environment, coarse) {
            Vouched::Repeated
        } else {
            Vouched::No
        }
    }

    /// Whether an unknown connection is taken for one that is older than the guard.
    #[inline(always)]
    fn learns(&self, flow: Flow, now: Jiffies) -> bool {
        matches!(flow.class, Class::Tcp)
            && !flow.is_syn()
            && now.0 < self.environment.daemon.learning_until
    }

    #[inline(always)]
    fn is_for_another(&self, frame: Frame<'_>) -> bool {
        let station = self.tables.interface().map_or(0, |interface| interface.station);
        let ethernet = frame.ethernet;
        station != 0 && ethernet.is_unicast() && ethernet.destination() != station
    }

    #[inline(always)]
    fn tier<A: Listed>(&self, packet: &Packet<A>, now: Jiffies) -> Tier {
        if self.is_listed(A::ALLOW, packet.source, now) { Tier::Allowed } else { Tier::Strangers }
    }

    #[inline(always)]
    fn is_listed<A: Listed>(&self, list: List, source: A, now: Jiffies) -> bool {
        self.environment.operator.lists_in_use & list.bit() != 0
            && source.is_in(list, &self.tables, now)
    }

    #[inline(always)]
    fn tuple_hash<A: Address>(&self, packet: &Packet<A>, flow: Flow) -> u64 {
        let Packet { source, destination, protocol, .. } = *packet;
        hash::tuple(&self.environment.fixed.tuple_key, source, destination, protocol, flow.key)
    }

    #[inline(always)]
    const fn blur(&self) -> Blur {
        Blur::new(self.environment.fixed.zero)
    }

    #[inline(always)]
    const fn coarse(&self, now: Jiffies) -> Coarse {
        Coarse::at(now, self.environment.daemon.coarse_shift)
    }
}

/// A packet of a flow that conntrack has just said it knows.
#[inline(always)]
const fn confirmed(flow: Flow) -> Passing {
    Passing { leaving: true, answers: true, kind: flow.kind as u32, flags: flow.flags }
}

#[inline(always)]
const fn arriving(flow: Flow) -> Passing {
    Passing { leaving: false, answers: false, kind: flow.kind as u32, flags: flow.flags }
}

#[inline(always)]
const fn class_of(protocol: u8) -> Class {
    match protocol {
        packet::protocol::TCP => Class::Tcp,
        packet::protocol::UDP => Class::Udp,
        _ => Class::Other,
    }
}

#[cfg(test)]
mod tests;
