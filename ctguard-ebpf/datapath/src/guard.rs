//! The order in which a packet is judged: deny list, classification, recent tuples, known-flows
//! filter, flow cache, conntrack, tier, admission.

mod admit;
mod cpu_state;
mod early;
mod judgement;
mod opening;
mod plain;
mod tables;
mod tier;

pub use crate::layout::Offered;
pub use cpu_state::CpuState;
pub use judgement::Judgement;
pub use tables::{Answer, Memory, Scope, Tables};

use opening::{Opening, Tuple};

use crate::{
    challenge::Answering,
    classify::{self, Flow, Meaning},
    flow::{self, Found, Passing},
    hash, known_flows,
    layout::{Class, Environment, FlowKind, Interface, List, OperatorLimits, Outcome, Tier},
    packet::{
        self, Address, Frame, Ipv4, Ipv6, Malformed, Network, Packet, Reader, TcpFlags, Transport,
    },
    place::Place,
    recent,
    units::{Coarse, Jiffies},
    verifier::{OpaqueZero, branch_barrier},
};

/// Judges packets.
pub struct Guard<'m, T> {
    /// What every packet needs.
    pub environment: &'m Environment,
    /// The other maps, conntrack and the frame.
    pub tables: T,
}

/// An address that is looked up in the allow and deny lists of its family.
trait Listed: Answering {
    const ALLOW: List;
    const DENY: List;
    const FEED_ALLOW: List;
    const FEED_DENY: List;
    fn is_in<T: Tables>(self, list: List, tables: &T, now: Jiffies) -> bool;
}

impl Listed for Ipv4 {
    const ALLOW: List = List::AllowV4;
    const DENY: List = List::DenyV4;
    const FEED_ALLOW: List = List::FeedAllowV4;
    const FEED_DENY: List = List::FeedDenyV4;
    #[inline(always)]
    fn is_in<T: Tables>(self, list: List, tables: &T, now: Jiffies) -> bool {
        tables.lists_ipv4(list, self, now)
    }
}

impl Listed for Ipv6 {
    const ALLOW: List = List::AllowV6;
    const DENY: List = List::DenyV6;
    const FEED_ALLOW: List = List::FeedAllowV6;
    const FEED_DENY: List = List::FeedDenyV6;
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
            Network::Ipv4 => self.judge_packet(&packet::parse_ipv4(reader)?, now),
            Network::Ipv6 => self.judge_packet(&packet::parse_ipv6(reader)?, now),
            Network::NotIp => Judgement::packet(Outcome::Exempt),
            // No address was read: all such frames share the cells of 0.0.0.0.
            Network::Unparsed => self.open_unparsed(Ipv4(0), Tier::Strangers, false),
        };
        if judgement != Judgement::UNDECIDED {
            return Ok(judgement);
        }
        let opening = self.tables.cpu_state().opening.get();
        let judgement =
            if opening.is_reset { self.reset(&opening, now) } else { self.open(&opening, now) };
        Ok(judgement.not_denied())
    }

    #[inline(always)]
    fn judge_packet<A: Listed>(&self, packet: &Packet<A>, now: Jiffies) -> Judgement {
        let meaning = classify::classify(packet, &self.environment.daemon);
        if self.is_denied(packet.source, now) && !classify::is_exempt(packet) {
            self.tables.show(packet, now);
            return Judgement::denied(class_of(packet.protocol) as u32, A::FAMILY);
        }
        match meaning {
            Meaning::MakesNoEntry if classify::is_exempt(packet) => {
                Judgement::packet(Outcome::Exempt)
            }
            Meaning::MakesNoEntry => Judgement::packet(Outcome::MakesNoEntry),
            Meaning::LaterFragment => Judgement::packet(Outcome::LaterFragment),
            Meaning::TinyFragment => Judgement::packet(Outcome::TinyFragment),
            Meaning::Unparsed => {
                let is_exempt = classify::is_exempt(packet);
                self.open_unparsed(packet.source, self.list_tier(packet, now), is_exempt)
            }
            Meaning::Of(flow) => self.judge_flow(packet, flow, now),
        }
    }

    #[inline(always)]
    fn judge_flow<A: Listed>(&self, packet: &Packet<A>, flow: Flow, now: Jiffies) -> Judgement {
        let coarse = self.coarse(now);
        let hash = self.tuple_hash(packet, flow);
        let (recent, mark) = (self.tables.cpu_state().recent(hash), recent::mark(hash, coarse));
        if flow.goes_on() && recent.load() == mark {
            return Judgement::packet(Outcome::Known);
        }
        if flow.flags.any(TcpFlags::RST) {
            // A RST may delete conntrack's entry (`nf_conntrack_tcp_packet`).
            recent.store(0);
        }
        let exact = self.environment.asks_conntrack(flow.class);
        // A tuple that the filter does not hold is not in the flow cache either, so a flood costs
        // no more than this one lookup.
        let certainly_new = exact
            && self.environment.daemon.known_complete != 0
            && !known_flows::may_hold(&self.tables, self.environment, hash);
        let found = if certainly_new {
            None
        } else {
            flow::find(&self.tables, Place::of_flow(hash, self.environment))
        };
        if let Some(found) = &found
            && flow.goes_on()
            && found.slot.is_fresh(self.environment, flow.kind, coarse)
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
            let passing = Passing { leaving: true, answers: true, ..arriving(flow) };
            let place = Place::of_flow(hash, self.environment);
            flow::put(&self.tables, found, place, self.environment, passing, coarse);
            return Judgement::packet(Outcome::Known);
        }
        let known = found.as_ref().filter(|found| found.is_alive(coarse));
        if let Some(known) = known
            && answer == Answer::Silent
            && !flow.is_syn()
            && (known.slot.is_answered() || !flow.opens(true))
        {
            known.pass(self.environment, arriving(flow), coarse);
            return self.pass_or_reset(packet, flow, hash, true);
        }
        if !opens {
            return self.pass_or_reset(packet, flow, hash, false);
        }

        // Until conntrack has the entry, packets right behind the first may make one too.
        let passes_as = match (answer, known) {
            (Answer::Silent, Some(known)) => self.passes_as(known, flow, coarse),
            _ => Outcome::Admitted,
        };
        let is_exempt = classify::is_exempt(packet);
        if is_exempt && (passes_as != Outcome::Admitted || classify::is_of_all_clients(packet)) {
            // A tuple that was charged already makes no second entry.
            return Judgement::packet(Outcome::Exempt);
        }
        if passes_as == Outcome::Admitted && self.learns(flow, now) {
            let passing = Passing { answers: true, ..arriving(flow) };
            let place = Place::of_flow(hash, self.environment);
            flow::remember(&self.tables, place, self.environment, passing, coarse);
            known_flows::note(&self.tables, self.environment, hash);
            return Judgement::packet(Outcome::Known);
        }
        // Conntrack ignores a SYN with the tuple of a live connection.
        let is_connected = known.is_some_and(|known| {
            branch_barrier();
            answer == Answer::Silent && flow.is_syn() && known.slot.is_established()
        });
        self.tables.show(packet, now);
        let tier = self.list_tier(packet, now);
        let is_answered = flow.is_syn() && self.may_answer_syns();
        if certainly_new && !is_exempt && tier == Tier::Strangers && !is_answered {
            let refused = self.refuse_early(packet.source, flow, now);
            if refused != Judgement::UNDECIDED {
                return refused;
            }
        }
        self.decide_later(Opening {
            tuple: self.tuple(packet, flow, hash),
            class: flow.class as u32,
            tier: tier as u32,
            passes_as,
            has_tuple: true,
            is_connected,
            is_reset: false,
            is_exempt,
        })
    }

    /// Hands a packet on to [`Guard::open`] or [`Guard::reset`], which both families share.
    #[inline(always)]
    fn decide_later(&self, opening: Opening) -> Judgement {
        self.tables.cpu_state().opening.put(opening);
        Judgement::UNDECIDED
    }

    /// A packet of which only the source was read.
    #[inline(always)]
    fn open_unparsed<A: Address>(&self, source: A, tier: Tier, is_exempt: bool) -> Judgement {
        let tuple = Tuple {
            family: A::FAMILY,
            scope: source.source_scope(),
            kind: FlowKind::Generic as u32,
            ..Tuple::default()
        };
        let (class, tier) = (Class::Other as u32, tier as u32);
        self.decide_later(Opening { tuple, class, tier, is_exempt, ..Opening::default() })
    }

    /// Passes a packet that opens nothing. A RST is looked at once more: it may answer a challenge.
    #[inline(always)]
    fn pass_or_reset<A: Address>(
        &self,
        packet: &Packet<A>,
        flow: Flow,
        hash: u64,
        known: bool,
    ) -> Judgement {
        let passes_as = if known { Outcome::Known } else { Outcome::MakesNoEntry };
        if !flow.flags.any(TcpFlags::RST) {
            return Judgement::packet(passes_as);
        }
        self.decide_later(Opening {
            tuple: self.tuple(packet, flow, hash),
            class: flow.class as u32,
            tier: Tier::Strangers as u32,
            passes_as,
            has_tuple: true,
            is_connected: false,
            is_reset: true,
            is_exempt: false,
        })
    }

    #[inline(always)]
    fn tuple<A: Address>(&self, packet: &Packet<A>, flow: Flow, hash: u64) -> Tuple {
        let sequence =
            if let Transport::Tcp { sequence, .. } = packet.transport { sequence } else { 0 };
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
        Tuple { scope, hash, service, key, family, kind, flags, sequence }
    }

    /// Drops a RST that answers a challenge, and passes any other.
    #[inline(always)]
    fn reset(&self, reset: &Opening, now: Jiffies) -> Judgement {
        let answers = self.answers_challenge(&reset.tuple, now);
        Judgement::packet(if answers { Outcome::ChallengeAnswered } else { reset.passes_as })
    }

    /// Admits or refuses a packet that would open a flow, and remembers the flow if it passes.
    #[inline(always)]
    fn open(&self, opening: &Opening, now: Jiffies) -> Judgement {
        let decided = self.admit(opening, now);
        let Tuple { hash, kind, flags, .. } = opening.tuple;
        if decided.passes && opening.has_tuple {
            known_flows::note(&self.tables, self.environment, hash);
        }
        let is_new =
            decided.judgement.is(Outcome::Admitted) || decided.judgement.is(Outcome::Exempt);
        if is_new && opening.has_tuple && !opening.is_connected {
            let place = Place::of_flow(hash, self.environment);
            let arriving = Passing { leaving: false, answers: false, kind, flags };
            let found = flow::find(&self.tables, place);
            let coarse = self.coarse(now);
            flow::put(&self.tables, found, place, self.environment, arriving, coarse);
        }
        decided.judgement
    }

    /// The outcome of a packet whose flow the inside has not answered yet, unless it is refused
    /// (see [`Opening::follows_admission`]).
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

    /// Whether an unknown connection is assumed to be older than the guard.
    #[inline(always)]
    fn learns(&self, flow: Flow, now: Jiffies) -> bool {
        matches!(flow.class, Class::Tcp)
            && !flow.is_syn()
            && now.0 < self.environment.daemon.learning_until
    }

    #[inline(always)]
    fn is_for_another(&self, frame: Frame<'_>) -> bool {
        let Some(Interface { stations, .. }) = self.tables.interface() else { return false };
        let destination = frame.ethernet.destination();
        stations[0] != 0
            && frame.ethernet.is_unicast()
            && stations.iter().all(|station| *station != destination)
    }

    #[inline(always)]
    fn list_tier<A: Listed>(&self, packet: &Packet<A>, now: Jiffies) -> Tier {
        if self.is_allowed(packet.source, now) { Tier::Allowed } else { Tier::Strangers }
    }

    #[inline(always)]
    fn is_denied<A: Listed>(&self, source: A, now: Jiffies) -> bool {
        self.is_listed(A::DENY, source, now)
            || self.is_listed(A::FEED_DENY, source, now) && !self.is_allowed(source, now)
    }

    #[inline(always)]
    fn is_allowed<A: Listed>(&self, source: A, now: Jiffies) -> bool {
        self.is_listed(A::ALLOW, source, now) || self.is_listed(A::FEED_ALLOW, source, now)
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

#[inline(always)]
const fn arriving(flow: Flow) -> Passing {
    Passing { leaving: false, answers: false, kind: flow.kind, flags: flow.flags }
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
