//! What a packet meets, in order: link, lists, meaning, recent tuples, known-flows filter, flow
//! cache, conntrack, standing, admission; and the outcome.

mod admit;
mod judgement;
mod opening;
mod standing;
mod tables;
mod workspace;

pub use crate::layout::Offered;
pub use judgement::Judgement;
pub use tables::{Answer, Memory, Scope, Tables};
pub use workspace::Workspace;

use opening::{Opening, Tuple};

use crate::{
    challenge::Answering,
    classify::{self, Flow, Meaning},
    flow::{self, Found, Passing},
    hash, known_flows,
    layout::{Class, Environment, FlowKind, List, OperatorLimits, Outcome, Tier},
    packet::{
        self, Address, Frame, Ipv4, Ipv6, Malformed, Network, Packet, Reader, TcpFlags, Transport,
    },
    place::Place,
    recent,
    units::{Coarse, Jiffies},
    verifier::{OpaqueZero, keep_conditions_apart},
};

/// Judges packets.
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
        match self.try_judge(&mut frame, now) {
            Ok(judgement) => judgement,
            Err(malformed) => Judgement::packet(malformed.outcome()),
        }
    }

    #[inline(always)]
    fn try_judge(&self, reader: &mut Reader<'_>, now: Jiffies) -> Result<Judgement, Malformed> {
        let frame = packet::parse_link(reader)?;
        if self.environment.daemon.stations_in_use != 0 && self.is_for_another(frame) {
            return Ok(Judgement::packet(Outcome::NotOurs));
        }
        let judgement = match frame.network {
            Network::Ipv4 => self.look_at(&packet::parse_ipv4(reader)?, now),
            Network::Ipv6 => self.look_at(&packet::parse_ipv6(reader)?, now),
            Network::NotIp => Judgement::packet(Outcome::Exempt),
            // No address was read: all such frames share the cells of 0.0.0.0.
            Network::Untold => self.open_untold(Ipv4(0), Tier::Strangers),
        };
        if judgement != Judgement::UNDECIDED {
            return Ok(judgement);
        }
        let opening = self.tables.workspace().opening.get();
        Ok(if opening.is_reset { self.reset(&opening, now) } else { self.open(&opening, now) })
    }

    #[inline(always)]
    fn look_at<A: Listed>(&self, packet: &Packet<A>, now: Jiffies) -> Judgement {
        let meaning = classify::classify(packet);
        if self.is_listed(A::DENY, packet.source, now) && !classify::is_exempt(packet) {
            self.tables.show(packet, now);
            return Judgement::of(Outcome::Denied, class_of(packet.protocol) as u32);
        }
        match meaning {
            Meaning::MakesNoEntry | Meaning::Untold if classify::is_exempt(packet) => {
                Judgement::packet(Outcome::Exempt)
            }
            Meaning::MakesNoEntry => Judgement::packet(Outcome::MakesNoEntry),
            Meaning::LaterFragment => Judgement::packet(Outcome::LaterFragment),
            Meaning::TinyFragment => Judgement::packet(Outcome::TinyFragment),
            Meaning::Untold => self.open_untold(packet.source, self.tier(packet, now)),
            Meaning::Of(flow) => self.look_up(packet, flow, now),
        }
    }

    #[inline(always)]
    fn look_up<A: Listed>(&self, packet: &Packet<A>, flow: Flow, now: Jiffies) -> Judgement {
        let coarse = self.coarse(now);
        let hash = self.tuple_hash(packet, flow);
        let (recent, mark) = (self.tables.workspace().recent(hash), recent::mark(hash, coarse));
        if flow.goes_on() && recent.load() == mark {
            return Judgement::packet(Outcome::Known);
        }
        if flow.flags.any(TcpFlags::RST) {
            // It may have ended the entry (`nf_conntrack_tcp_packet`).
            recent.store(0);
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
            recent.store(mark);
            return Judgement::packet(Outcome::Known);
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
                return Judgement::packet(Outcome::Repeated);
            }
            self.put(found, place, confirmed(flow), coarse);
            return Judgement::packet(Outcome::Known);
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
        let passes_as = match (answer, known) {
            (Answer::Silent, Some(known)) => self.passes_as(known, flow, coarse),
            _ => Outcome::Admitted,
        };
        if passes_as == Outcome::Admitted {
            if classify::is_exempt(packet) {
                return Judgement::packet(Outcome::Exempt);
            }
            if self.learns(flow, now) {
                let passing = Passing { answers: true, ..arriving(flow) };
                flow::remember(&self.tables, place, self.environment, passing, coarse);
                known_flows::note(&self.tables, self.environment, hash);
                return Judgement::packet(Outcome::Known);
            }
        }
        // A live connection outlasts a SYN of its tuple, which conntrack ignores.
        let outlasts = known.is_some_and(|known| {
            keep_conditions_apart();
            answer == Answer::Silent && flow.is_syn() && known.is_established()
        });
        self.tables.show(packet, now);
        self.decide_later(Opening {
            tuple: self.tuple(packet, flow, hash),
            class: flow.class as u32,
            tier: self.tier(packet, now) as u32,
            passes_as,
            has_tuple: true,
            outlasts,
            is_reset: false,
        })
    }

    /// Leaves a packet to [`Guard::open`] or [`Guard::reset`], which both families share.
    #[inline(always)]
    fn decide_later(&self, opening: Opening) -> Judgement {
        self.tables.workspace().opening.put(opening);
        Judgement::UNDECIDED
    }

    /// A packet of which only the source is known.
    #[inline(always)]
    fn open_untold<A: Address>(&self, source: A, tier: Tier) -> Judgement {
        let tuple = Tuple {
            family: A::FAMILY,
            scope: source.source_scope(),
            kind: FlowKind::Generic as u32,
            ..Tuple::default()
        };
        let (class, tier) = (Class::Other as u32, tier as u32);
        self.decide_later(Opening { tuple, class, tier, ..Opening::default() })
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
    ) -> Judgement {
        let passes_as = if known { Outcome::Known } else { Outcome::MakesNoEntry };
        if !flow.flags.any(TcpFlags::RST) {
            return Judgement::packet(passes_as);
        }
        let outlasts = found.is_some_and(Found::is_answered);
        self.decide_later(Opening {
            tuple: self.tuple(packet, flow, hash),
            class: flow.class as u32,
            tier: Tier::Strangers as u32,
            passes_as,
            has_tuple: true,
            outlasts,
            is_reset: true,
        })
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
    fn reset(&self, reset: &Opening, now: Jiffies) -> Judgement {
        let answers = self.takes_reset(&reset.tuple, reset.outlasts, now);
        Judgement::packet(if answers { Outcome::ChallengeAnswered } else { reset.passes_as })
    }

    /// Decides on a packet that would open a flow, and remembers the flow if it passes.
    #[inline(always)]
    fn open(&self, opening: &Opening, now: Jiffies) -> Judgement {
        let decided = self.admit(opening, now);
        let Tuple { hash, kind, flags, .. } = opening.tuple;
        if decided.passes && opening.has_tuple {
            known_flows::note(&self.tables, self.environment, hash);
        }
        let is_admitted = decided.judgement.is(Outcome::Admitted);
        if is_admitted && opening.has_tuple && !opening.outlasts {
            let place = Place::of_flow(hash, self.environment);
            let arriving = Passing { leaving: false, answers: false, kind, flags };
            let found = flow::find(&self.tables, place);
            self.put(found, place, arriving, self.coarse(now));
        }
        decided.judgement
    }

    /// Remembers a flow as `passing` opens it, in the slot that it has or in a new one.
    #[inline(always)]
    fn put(&self, found: Option<Found<'_>>, place: Place, passing: Passing, coarse: Coarse) {
        match found {
            Some(found) => found.reopen(place, self.environment, passing, coarse),
            None => flow::remember(&self.tables, place, self.environment, passing, coarse),
        }
    }

    /// What a packet is, unless it is refused, whose flow nobody inside has answered yet (see
    /// [`Opening::rests_on_admission`]).
    #[inline(always)]
    fn passes_as(&self, known: &Found<'_>, flow: Flow, coarse: Coarse) -> Outcome {
        if !flow.is_syn() {
            Outcome::Known
        } else if known.is_just_opened(self.environment, coarse) {
            Outcome::Repeated
        } else {
            Outcome::Admitted
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
    const fn zero(&self) -> OpaqueZero {
        OpaqueZero::new(self.environment.fixed.zero)
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
