//! What a packet meets, in order: link, lists, meaning, recent tuples, known-flows filter, flow
//! cache, conntrack, admission; and the outcome.

mod outcome;

pub use outcome::{Answer, Judgement, Offered, Outcome};

use crate::{
    admission::{
        self, Admission, Candidate, Refusal,
        grant::{self, Allowance},
    },
    bucket::{Cells, line_index},
    classify::{self, Flow, Meaning},
    flow::{self, FlowLines, Found, Passing, Place},
    hash,
    known_flows::{self, KnownWords},
    layout::{BucketLine, CLASSES, Class, Environment, Grant, Interface, List, Policy, Tier},
    packet::{self, Address, Frame, Ipv4, Ipv6, Malformed, Network, Packet, Reader, TcpFlags},
    recent,
    shared::Shared,
    units::{Coarse, Jiffies},
};

/// The maps that not every packet needs.
pub trait Tables: FlowLines + KnownWords {
    /// The line of cells at `index`.
    fn bucket_line(&self, index: u32) -> Option<&BucketLine>;
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
    /// This CPU's slot for a tuple that goes on.
    fn recent(&self, hash: u64) -> Option<&Shared>;
    /// Asks conntrack about the flow of a TCP or UDP packet.
    fn ask_conntrack<A: Address>(&self, packet: &Packet<A>, flow: Flow) -> Answer;
    /// Whether this new flow's offered load is written down.
    fn samples(&self) -> bool;
    /// Shows what was decided on a packet that opens a flow, or is denied.
    fn show<A: Address>(&self, packet: &Packet<A>, outcome: Outcome, now: Jiffies);
    /// Notes offered load of a source.
    fn note_offered(&self, line: u32, offered: Offered, now: Jiffies);
}

/// The map that every packet needs, and the others.
pub struct Guard<'m, T> {
    /// What every packet needs.
    pub environment: &'m Environment,
    /// The rest.
    pub tables: T,
}

/// An address that lists can be asked about.
trait Listed: Address {
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
            Err(malformed) => Outcome::Malformed(malformed).into(),
        }
    }

    #[inline(always)]
    fn try_judge(&self, reader: &mut Reader<'_>, now: Jiffies) -> Result<Judgement, Malformed> {
        let frame = packet::parse_link(reader)?;
        if self.environment.stations_in_use != 0 && self.is_for_another(frame) {
            return Ok(Outcome::NotOurs.into());
        }
        match frame.network {
            Network::Ipv4 => Ok(self.judge_packet(&packet::parse_ipv4(reader)?, now)),
            Network::Ipv6 => Ok(self.judge_packet(&packet::parse_ipv6(reader)?, now)),
            Network::NotIp => Ok(Outcome::Exempt.into()),
            // No address was read: all such frames share the cells of 0.0.0.0.
            Network::Untold => Ok(self.admit_untold(Ipv4(0), Tier::Strangers, now)),
        }
    }

    #[inline(always)]
    fn judge_packet<A: Listed>(&self, packet: &Packet<A>, now: Jiffies) -> Judgement {
        let meaning = classify::classify(packet);
        if self.is_listed(A::DENY, packet.source, now) && !classify::is_exempt(packet) {
            let denied = Outcome::Denied(class_of(packet.protocol));
            self.tables.show(packet, denied, now);
            return denied.into();
        }
        match meaning {
            Meaning::MakesNoEntry | Meaning::Untold if classify::is_exempt(packet) => {
                Outcome::Exempt.into()
            }
            Meaning::MakesNoEntry => Outcome::MakesNoEntry.into(),
            Meaning::LaterFragment => Outcome::LaterFragment.into(),
            Meaning::TinyFragment => Outcome::TinyFragment.into(),
            Meaning::Untold => self.admit_untold(packet.source, self.tier(packet, now), now),
            Meaning::Of(flow) => self.judge_flow(packet, flow, now),
        }
    }

    #[inline(always)]
    fn judge_flow<A: Listed>(&self, packet: &Packet<A>, flow: Flow, now: Jiffies) -> Judgement {
        let coarse = self.coarse(now);
        let hash = self.tuple_hash(packet, flow);
        let (recent, mark) = (self.tables.recent(hash), recent::mark(hash, coarse));
        if flow.goes_on() && recent.is_some_and(|slot| slot.load() == mark) {
            return Outcome::Known.into();
        }
        if flow.flags.any(TcpFlags::RST)
            && let Some(slot) = recent
        {
            // It may have ended the entry (`nf_conntrack_tcp_packet`).
            slot.store(0);
        }
        let place = Place::of(hash, self.environment);
        let exact = self.environment.asks_conntrack(flow.class);
        // What the filter does not hold is in no cache either: floods read no more than it.
        let certainly_new = exact
            && self.environment.known_complete != 0
            && !known_flows::may_hold(&self.tables, self.environment, hash);
        let found = if certainly_new { None } else { flow::find(&self.tables, place) };
        if let Some(found) = &found
            && flow.goes_on()
            && found.is_fresh(self.environment, flow.kind, coarse)
        {
            if let Some(slot) = recent {
                slot.store(mark);
            }
            return Outcome::Known.into();
        }

        let opens = flow.opens(self.environment.tcp_loose != 0);
        let answer = if !exact || !opens {
            Answer::Silent
        } else if certainly_new {
            Answer::Untracked
        } else {
            self.tables.ask_conntrack(packet, flow)
        };
        if answer == Answer::Tracked {
            if flow.is_syn() {
                return Outcome::Repeated.into();
            }
            self.put(found, place, confirmed(flow), coarse);
            return Outcome::Known.into();
        }
        let known = found.as_ref().filter(|found| found.is_alive(coarse));
        if let Some(known) = known
            && answer == Answer::Silent
            && !flow.is_syn()
            && (known.is_answered() || !flow.opens(true))
        {
            let _ = known.pass(self.environment, arriving(flow), coarse);
            return Outcome::Known.into();
        }
        if !opens {
            return Outcome::MakesNoEntry.into();
        }

        // Where conntrack has no entry yet, what follows the first packet at once may make one too.
        let vouched = match answer {
            Answer::Silent => known.and_then(|known| self.vouched(known, flow, coarse)),
            Answer::Tracked | Answer::Untracked => None,
        };
        if vouched.is_none() {
            if classify::is_exempt(packet) {
                return Outcome::Exempt.into();
            }
            if self.learns(flow, now) {
                let passing = Passing { answers: true, ..arriving(flow) };
                flow::remember(&self.tables, place, self.environment, passing, coarse);
                known_flows::note(&self.tables, self.environment, hash);
                return Outcome::Known.into();
            }
        }
        let tier = self.tier(packet, now);
        let (judgement, passes) = self.admit(flow.class, packet.source, tier, vouched, now);
        self.tables.show(packet, judgement.outcome, now);
        if passes {
            known_flows::note(&self.tables, self.environment, hash);
        }
        if matches!(judgement.outcome, Outcome::Admitted(..)) {
            // A live connection outlasts a SYN of its tuple, which conntrack ignores.
            let outlasts = |found: &Found<'_>| {
                answer == Answer::Silent
                    && flow.is_syn()
                    && found.is_alive(coarse)
                    && found.is_established()
            };
            if !found.as_ref().is_some_and(outlasts) {
                self.put(found, place, arriving(flow), coarse);
            }
        }
        judgement
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
    fn vouched(&self, known: &Found<'_>, flow: Flow, coarse: Coarse) -> Option<Outcome> {
        if !flow.is_syn() {
            return Some(Outcome::Known);
        }
        known.is_just_opened(self.environment, coarse).then_some(Outcome::Repeated)
    }

    /// Whether an unknown connection is taken for one that is older than the guard.
    #[inline(always)]
    fn learns(&self, flow: Flow, now: Jiffies) -> bool {
        matches!(flow.class, Class::Tcp)
            && !flow.is_syn()
            && now.0 < self.environment.learning_until
    }

    /// Admits a packet that no more is known of than its source.
    #[inline(always)]
    fn admit_untold<A: Listed>(&self, source: A, tier: Tier, now: Jiffies) -> Judgement {
        self.admit(Class::Other, source, tier, None, now).0
    }

    /// Admits a packet or refuses it, and tells whether it passes: in a dry run it does all the same.
    #[inline(always)]
    fn admit<A: Listed>(
        &self,
        class: Class,
        source: A,
        tier: Tier,
        vouched: Option<Outcome>,
        now: Jiffies,
    ) -> (Judgement, bool) {
        let tables = &self.tables;
        let (Some(grant), Some(policy)) = (tables.grant(), tables.policy()) else {
            return (Outcome::UnknownInterface.into(), true);
        };
        let environment = self.environment;
        let hash = hash::source(&environment.source_key, class, source);
        let line = line_index(hash, environment.source_line_mask);
        let allowance = grant::peek(grant, tier, environment, now);
        let (result, wake, vouched) = if allowance == Allowance::Spent {
            // Before all that lies elsewhere in memory: a flood from everywhere reads it in vain.
            (Err(Refusal::Grant), grant::is_first_in_jiffy(grant, now), vouched)
        } else {
            let rests_on_admission = vouched.is_some();
            // On an interface without a slot nobody has a ceiling; the grant holds there too.
            let (ceilings, vouched) = match tables.interface() {
                Some(interface) => (interface.ceilings, vouched),
                None => (Interface::FREE.ceilings, Some(Outcome::UnknownInterface)),
            };
            let cells = match tier {
                Tier::Strangers if vouched.is_none() => {
                    tables.bucket_line(line).map(|line| Cells::peek(line, hash))
                }
                Tier::Strangers | Tier::Allowed => None,
            };
            let ceiling = ceilings[class as usize % CLASSES];
            let candidate = Candidate { cells, ceiling, tier, vouched: rests_on_admission };
            let Admission { result, wake } =
                admission::admit(&candidate, allowance, grant, policy, now);
            (result, wake, vouched)
        };
        if vouched.is_none() && tables.samples() {
            let (address, family) = (source.source_scope(), A::FAMILY);
            let refused = result.is_err();
            tables.note_offered(line, Offered { address, family, class, refused }, now);
        }
        let outcome = match (result, vouched) {
            (Ok(()), Some(outcome)) => outcome,
            (Ok(()), None) => Outcome::Admitted(class, tier),
            (Err(refusal), _) => Outcome::Refused(class, refusal),
        };
        (Judgement { outcome, wake }, result.is_ok() || policy.has(Policy::DRY_RUN))
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
        self.environment.lists_in_use & list.bit() != 0 && source.is_in(list, &self.tables, now)
    }

    #[inline(always)]
    fn tuple_hash<A: Address>(&self, packet: &Packet<A>, flow: Flow) -> u64 {
        let Packet { source, destination, protocol, .. } = *packet;
        hash::tuple(&self.environment.tuple_key, source, destination, protocol, flow.key)
    }

    #[inline(always)]
    const fn coarse(&self, now: Jiffies) -> Coarse {
        Coarse::at(now, self.environment.coarse_shift)
    }
}

/// A packet of a flow that conntrack has just said it knows.
#[inline(always)]
const fn confirmed(flow: Flow) -> Passing {
    Passing { leaving: true, answers: true, kind: flow.kind, flags: flow.flags }
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
