//! A flow from its first packet to its end: offered, judged, in the table, answered, closed.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use ctguard_datapath::{
    admission::Refusal,
    guard::{Challenge, Outcome},
};
use ctguard_layout::OfferedSlot;

use super::{
    agenda::Event,
    flows::Flow,
    frame::{Kind, Tuple},
    group::{ClassName, FirstPacket, Group},
    network::Network,
    outcome::Reason,
    run::Run,
    table::State,
};

/// Where everybody goes.
const SERVER_V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const SERVER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1);

/// From a packet's way into the network behind the guard to its answer.
const ANSWERED_AFTER: Duration = Duration::from_millis(1);

/// Linux's range of ports for clients (`net.ipv4.ip_local_port_range`).
const CLIENT_PORTS: std::ops::Range<u16> = 32_768..61_000;

/// From a RST that answers a challenge to the SYN that Linux sends after it
/// (`tcp_rcv_synsent_state_process` leaves it to the shortest timer).
const SYN_AGAIN: Duration = Duration::from_millis(10);

/// After so many that are in use a flow is opened over again.
const PORTS_TRIED: u32 = 8;

/// A UDP flow that goes on for so long is a stream (`UDP_CT_STREAM`, two seconds, and assured).
const STREAM_FROM: Duration = Duration::from_secs(2);

impl Run<'_> {
    /// A group opens its next flow.
    pub(super) fn arrive(&mut self, index: usize) {
        let scenario = self.scenario;
        let (Some(group), Some(network)) =
            (scenario.groups.get(index), self.networks.get(index).copied())
        else {
            return;
        };
        let Some(traffic) = self.traffic.get_mut(index) else { return };
        let source = traffic.source(&mut self.random);
        let mut tuple = Tuple {
            source: network.address(source),
            destination: if network.is_ipv6() { SERVER_V6.into() } else { SERVER_V4.into() },
            source_port: 0,
            destination_port: group.port,
        };
        let Some(key) = self.pick_port(group, &mut tuple) else { return };
        self.record.flows_began(index, self.now, 1);
        let began = self.now;
        let flow =
            Flow { group: index, source, tuple: Some(tuple), key, began, tries: 1, cookie: 0 };
        let outcome = self.offer(flow);
        let refused = outcome.filter(|outcome| is_for_all(group, *outcome));
        let next = if let Some(outcome) = refused {
            let horizon = self.steady_until();
            let Some(traffic) = self.traffic.get(index) else { return };
            let (skipped, next) = traffic.skip(self.now, horizon, &mut self.random);
            self.note_samples(group, network, skipped);
            self.record.flows_began(index, self.now, skipped);
            self.record.refused(index, self.now, Reason::of(outcome), skipped);
            self.record.failed(index, self.now, skipped);
            next
        } else {
            self.traffic
                .get(index)
                .and_then(|traffic| traffic.arrival_after(self.now, &mut self.random))
        };
        if let Some(at) = next {
            self.agenda.note(at, Event::Arrival { group: index });
        }
    }

    pub(super) fn retry(&mut self, number: usize) {
        if let Some(flow) = self.flows.take(number) {
            self.offer(Flow { tries: flow.tries + 1, ..flow });
        }
    }

    /// The source of a SYN answers a challenge, and sends its SYN again soon.
    pub(super) fn reset(&mut self, number: usize) {
        let Some(flow) = self.flows.take(number) else { return };
        let Some(tuple) = flow.tuple else { return };
        self.frame.write(Kind::Reset(flow.cookie), &tuple);
        self.maps.judge(&self.frame, self.now, self.clock.jiffies(self.now));
        let flow = self.flows.put(flow);
        self.agenda.note(self.now + SYN_AGAIN, Event::Again { flow });
    }

    pub(super) fn again(&mut self, number: usize) {
        if let Some(flow) = self.flows.take(number) {
            self.offer(flow);
        }
    }

    /// What the data path would have sampled of flows that were not judged one by one.
    fn note_samples(&mut self, group: &Group, network: Network, skipped: u64) {
        self.unsampled += skipped;
        let sources = if group.spoofed { network.size() } else { u64::from(group.sources) };
        let class = group.class.into();
        while self.unsampled >= u64::from(OfferedSlot::SAMPLE) {
            self.unsampled -= u64::from(OfferedSlot::SAMPLE);
            let source = network.address(self.random.u64(0..sources));
            self.maps.note_sample(source, class);
        }
    }

    /// Takes a port that has no entry yet, as hosts do while they have one, and gives the key of the
    /// tuple.
    fn pick_port(&mut self, group: &Group, tuple: &mut Tuple) -> Option<u64> {
        let mut key = None;
        for _ in 0..PORTS_TRIED {
            tuple.source_port = self.random.u16(CLIENT_PORTS);
            self.frame.write(first_packet(group), tuple);
            let opening = self.frame.opening(&self.maps.environment, true)?;
            key = Some(opening.key);
            if !self.maps.table.borrow().is_tracked(opening.key, self.now) {
                break;
            }
        }
        key
    }

    /// Offers a flow's first packet to the guard, and tells what became of it.
    fn offer(&mut self, flow: Flow) -> Option<Outcome> {
        let group = self.scenario.groups.get(flow.group)?;
        self.frame.write(first_packet(group), &flow.tuple?);
        if !group.guarded {
            self.confirm_later(flow);
            return None;
        }
        Some(self.judge(flow))
    }

    /// Lets the guard judge the frame that holds a flow's first packet.
    pub(super) fn judge(&mut self, flow: Flow) -> Outcome {
        let jiffies = self.clock.jiffies(self.now);
        let judged = self.maps.judge(&self.frame, self.now, jiffies);
        if judged.wake {
            self.wake();
        }
        let answers = self
            .scenario
            .groups
            .get(flow.group)
            .filter(|group| flow.tuple.is_some() && group.answers_challenges());
        if judged.passes {
            self.confirm_later(flow);
        } else if let (Some(cookie), Some(group)) = (judged.cookie, answers) {
            self.record.refused(flow.group, self.now, Reason::of(judged.outcome), 1);
            let flow = self.flows.put(Flow { cookie, ..flow });
            self.agenda.note(self.now + group.round_trip.0, Event::Reset { flow });
        } else {
            self.refuse(flow, Reason::of(judged.outcome));
        }
        judged.outcome
    }

    fn confirm_later(&mut self, flow: Flow) {
        let dropped =
            self.scenario.groups.get(flow.group).is_some_and(|group| group.dropped_by_rules);
        if dropped {
            self.succeed(flow);
            return;
        }
        let delay = self.scenario.guard.confirm_delay.0;
        let flow = self.flows.put(flow);
        self.agenda.note(self.now + delay, Event::Confirm { flow });
    }

    /// The packet was dropped: its source waits and tries again, or gives up.
    fn refuse(&mut self, flow: Flow, reason: Reason) {
        self.record.refused(flow.group, self.now, reason, 1);
        if flow.tuple.is_none() {
            self.waiting.entry(flow.key).or_insert(flow.began);
            return;
        }
        let Some(group) = self.scenario.groups.get(flow.group) else { return };
        if flow.tries >= group.tries() {
            self.record.failed(flow.group, flow.began, 1);
            return;
        }
        let at = self.now + group.patience(flow.tries);
        let flow = self.flows.put(flow);
        self.agenda.note(at, Event::Retry { flow });
    }

    /// The packet reaches the table.
    pub(super) fn confirm(&mut self, number: usize) {
        let Some(flow) = self.flows.take(number) else { return };
        let Some(group) = self.scenario.groups.get(flow.group) else { return };
        let opened = self.maps.table.borrow_mut().open(flow.key, first_state(group), self.now);
        if opened.is_err() {
            self.refuse(flow, Reason::TableFull);
            return;
        }
        self.record.table_holds(self.maps.table.borrow().count());
        self.succeed(flow);
        if group.answered {
            let flow = self.flows.put(flow);
            self.agenda.note(self.now + ANSWERED_AFTER, Event::Answer { flow });
        }
    }

    fn succeed(&mut self, flow: Flow) {
        let waited = if flow.tuple.is_none() {
            self.waiting.remove(&flow.key)
        } else {
            (flow.tries > 1).then_some(flow.began)
        };
        let began = waited.unwrap_or(flow.began);
        let delay = waited.map(|began| self.now.saturating_sub(began));
        self.record.succeeded(flow.group, flow.source, began, delay);
    }

    /// The destination answers, and the answer leaves.
    pub(super) fn answer(&mut self, number: usize) {
        let Some(flow) = self.flows.take(number) else { return };
        let Some(group) = self.scenario.groups.get(flow.group) else { return };
        if let Some(tuple) = flow.tuple {
            self.frame.write(answering_packet(group), &tuple.reversed());
            self.maps.leave(&self.frame, self.clock.jiffies(self.now));
        }
        let lasts = group.lasts.0;
        let (state, lasting) = match group.class {
            ClassName::Tcp => (State::SynRecv, Duration::ZERO),
            ClassName::Udp if lasts >= STREAM_FROM => (State::UdpStream, lasts),
            ClassName::Udp => (State::Udp, lasts),
            ClassName::Other => (State::Icmp, lasts),
        };
        self.maps.table.borrow_mut().advance(flow.key, state, self.now, lasting);
        if group.class == ClassName::Tcp && group.completes() {
            let at = self.now + group.round_trip.0;
            let flow = self.flows.put(flow);
            self.agenda.note(at, Event::Acknowledge { flow });
        }
    }

    /// The source ends the handshake.
    pub(super) fn acknowledge(&mut self, number: usize) {
        let Some(flow) = self.flows.take(number) else { return };
        let Some(group) = self.scenario.groups.get(flow.group) else { return };
        if let Some(tuple) = flow.tuple
            && group.guarded
        {
            self.frame.write(Kind::Ack, &tuple);
            let judged = self.maps.judge(&self.frame, self.now, self.clock.jiffies(self.now));
            if !judged.passes {
                self.record.refused(flow.group, self.now, Reason::of(judged.outcome), 1);
                return;
            }
        }
        let mut table = self.maps.table.borrow_mut();
        table.advance(flow.key, State::Established, self.now, Duration::ZERO);
        drop(table);
        if let Some(tuple) = flow.tuple {
            self.holders.opened(tuple.source.into());
        }
        let at = self.now + group.lasts.0;
        let flow = self.flows.put(flow);
        self.agenda.note(at, Event::Close { flow });
    }

    /// Both sides have ended the connection.
    pub(super) fn close(&mut self, number: usize) {
        let Some(flow) = self.flows.take(number) else { return };
        let mut table = self.maps.table.borrow_mut();
        table.advance(flow.key, State::TimeWait, self.now, Duration::ZERO);
        drop(table);
        if let Some(tuple) = flow.tuple {
            let until = self.now + self.scenario.table.lifetimes.time_wait.0;
            self.holders.closed(tuple.source.into(), until);
        }
    }
}

/// Whether every other flow of the group is refused as well, for as long as the guard decides as
/// it does now: a spent grant and an answered SYN look at no source, within a jiffy nobody earns
/// anything, and a flow that is not tried again leaves no trace but its sample. Their packets need
/// not be judged one by one. Sources that come again may be in several tiers.
fn is_for_all(group: &Group, outcome: Outcome) -> bool {
    let is_one = group.sources == 1 && !group.spoofed;
    group.tries() == 1
        && match outcome {
            Outcome::Refused(_, Refusal::Grant | Refusal::Challenge)
            | Outcome::Challenged(_, Challenge::Ack) => group.spoofed || is_one,
            Outcome::Refused(_, Refusal::Source) => is_one,
            Outcome::Refused(_, Refusal::Fallback | Refusal::Prefix | Refusal::Service)
            | Outcome::Challenged(_, Challenge::Retry)
            | Outcome::ChallengeAnswered
            | Outcome::Exempt
            | Outcome::NotOurs
            | Outcome::UnknownInterface
            | Outcome::Known
            | Outcome::Repeated
            | Outcome::MakesNoEntry
            | Outcome::LaterFragment
            | Outcome::TinyFragment
            | Outcome::Malformed(_)
            | Outcome::Denied(_)
            | Outcome::Admitted(..) => false,
        }
}

const fn first_packet(group: &Group) -> Kind {
    match (group.class, group.packet) {
        (ClassName::Tcp, FirstPacket::Syn) => Kind::Syn,
        (ClassName::Tcp, FirstPacket::Ack) => Kind::Ack,
        (ClassName::Udp, _) => Kind::Datagram,
        (ClassName::Other, _) => Kind::Echo,
    }
}

const fn answering_packet(group: &Group) -> Kind {
    match group.class {
        ClassName::Tcp => Kind::SynAck,
        ClassName::Udp => Kind::Datagram,
        ClassName::Other => Kind::EchoReply,
    }
}

const fn first_state(group: &Group) -> State {
    match (group.class, group.packet) {
        (ClassName::Tcp, FirstPacket::Syn) => State::SynSent,
        (ClassName::Tcp, FirstPacket::Ack) => State::Unacknowledged,
        (ClassName::Udp, _) => State::Udp,
        (ClassName::Other, _) => State::Icmp,
    }
}
