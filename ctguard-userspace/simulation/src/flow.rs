//! A flow from its first packet to its end.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use ctguard_control::look::Kind as EntryKind;
use ctguard_layout::{Class, OfferedSlot, Outcome};

use super::{
    agenda::{Event, Step},
    flows::Flow,
    frame::{Kind, Opening, Tuple},
    group::{FirstPacket, Group},
    network::Network,
    outcome::Reason,
    run::Run,
    scenario::Lifetimes,
    table::State,
};

/// The destination of all flows.
const SERVER_V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const SERVER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1);

/// Round trip between the guard and the server.
const ANSWERED_AFTER: Duration = Duration::from_millis(1);

/// Linux's range of ports for clients (`net.ipv4.ip_local_port_range`).
const CLIENT_PORTS: std::ops::Range<u16> = 32_768..61_000;

/// From a RST that answers a challenge to the SYN that Linux sends after it
/// (`tcp_rcv_synsent_state_process` leaves it to the shortest timer).
const SYN_AGAIN: Duration = Duration::from_millis(10);

/// If so many ports are in use, a flow takes one that is.
const PORTS_TRIED: u32 = 8;

/// A UDP flow that goes on for so long is a stream (`UDP_CT_STREAM`, two seconds, and assured).
const STREAM_FROM: Duration = Duration::from_secs(2);

impl Run<'_> {
    /// A group opens its next flow.
    pub(super) fn arrive(&mut self, index: usize) {
        let scenario = self.scenario;
        let (Some(group), Some(network), Some(traffic)) = (
            scenario.groups.get(index),
            self.networks.get(index).copied(),
            self.traffic.get_mut(index),
        ) else {
            return;
        };
        let source = traffic.source(&mut self.random);
        let mut tuple = Tuple {
            source: network.address(source),
            destination: if network.is_ipv6() { SERVER_V6.into() } else { SERVER_V4.into() },
            source_port: 0,
            destination_port: group.port,
        };
        let Some(opening) = self.pick_port(group, &mut tuple) else { return };
        self.record.flows_began(index, self.now, 1);
        let flow = Flow { source, tuple: Some(tuple), ..Flow::new(index, opening, self.now) };
        let outcome = self.offer(group, flow);
        let asks_all = self.maps.asks_all(group.class);
        let is_for_all = |outcome: &Outcome| is_for_all(group, *outcome, asks_all);
        let refused = outcome.filter(is_for_all).and_then(Reason::of);
        let Some(traffic) = self.traffic.get(index) else { return };
        let next = if let Some(reason) = refused {
            let horizon = self.steady_until();
            let (skipped, next) = traffic.skip(self.now, horizon, &mut self.random);
            self.note_samples(group, network, skipped);
            self.record.flows_began(index, self.now, skipped);
            self.record.refused(index, self.now, reason, skipped);
            self.record.failed(index, self.now, skipped);
            next
        } else {
            traffic.arrival_after(self.now, &mut self.random)
        };
        if let Some(at) = next {
            self.agenda.plan(at, Event::Arrival { group: index });
        }
    }

    /// Takes the samples of flows that are counted without being judged.
    fn note_samples(&mut self, group: &Group, network: Network, skipped: u64) {
        self.unsampled += skipped;
        let sources = if group.spoofed { network.size() } else { u64::from(group.sources) };
        while self.unsampled >= u64::from(OfferedSlot::SAMPLE) {
            self.unsampled -= u64::from(OfferedSlot::SAMPLE);
            let source = network.address(self.random.u64(0..sources));
            self.maps.note_sample(source, group.class);
        }
    }

    /// Picks a port without an entry, as hosts do while they have one.
    fn pick_port(&mut self, group: &Group, tuple: &mut Tuple) -> Option<Opening> {
        let mut picked = None;
        for _ in 0..PORTS_TRIED {
            tuple.source_port = self.random.u16(CLIENT_PORTS);
            self.maps.frame.write(first_packet(group), tuple);
            let opening = self.maps.frame.opening(&self.maps.environment, true)?;
            picked = Some(opening);
            if !self.maps.table.is_tracked(opening.key, self.now) {
                break;
            }
        }
        picked
    }

    /// The next step of a flow.
    pub(super) fn proceed(&mut self, step: Step, flow: Flow) {
        let scenario = self.scenario;
        let Some(group) = scenario.groups.get(flow.group) else { return };
        match step {
            Step::Retry => {
                self.offer(group, Flow { tries: flow.tries + 1, ..flow });
            }
            Step::Reset => {
                let Some(tuple) = flow.tuple else { return };
                self.maps.frame.write(Kind::Reset(flow.cookie), &tuple);
                self.maps.judge(self.now);
                self.plan(SYN_AGAIN, Step::Again, flow);
            }
            Step::Again => {
                self.offer(group, flow);
            }
            Step::Confirm => self.confirm(group, flow),
            Step::Answer => self.answer(group, flow),
            Step::Acknowledge => self.acknowledge(group, flow),
            Step::Close => {
                let lives = scenario.table.lifetimes.time_wait.0;
                let state = State { kind: EntryKind::Finished, lives };
                self.maps.table.advance(flow.key, state, self.now, self.now);
            }
        }
    }

    fn plan(&mut self, delay: Duration, step: Step, flow: Flow) {
        self.agenda.plan(self.now + delay, Event::Flow(step, Box::new(flow)));
    }

    /// Sends a flow's first packet; returns what the guard decided, if it saw the packet.
    fn offer(&mut self, group: &Group, flow: Flow) -> Option<Outcome> {
        self.maps.frame.write(first_packet(group), &flow.tuple?);
        if !group.guarded {
            self.admit(group, flow);
            return None;
        }
        Some(self.judge(group, flow))
    }

    /// Lets the guard judge the frame, which holds the flow's first packet.
    pub(super) fn judge(&mut self, group: &Group, flow: Flow) -> Outcome {
        let judged = self.maps.judge(self.now);
        if judged.wake {
            self.wake();
        }
        let answers = flow.tuple.is_some() && group.answers_challenges();
        match (judged.refused, judged.cookie) {
            (None, _) => self.admit(group, flow),
            (Some(reason), Some(cookie)) if answers => {
                self.record.refused(flow.group, self.now, reason, 1);
                self.plan(group.round_trip.0, Step::Reset, Flow { cookie, ..flow });
            }
            (Some(reason), _) => self.refuse(group, flow, reason),
        }
        judged.outcome
    }

    fn admit(&mut self, group: &Group, flow: Flow) {
        if group.dropped_by_rules {
            self.succeed(flow);
        } else {
            self.plan(self.scenario.guard.confirm_delay.0, Step::Confirm, flow);
        }
    }

    /// The packet was dropped: its source waits and sends it again, or gives up.
    fn refuse(&mut self, group: &Group, flow: Flow, reason: Reason) {
        self.record.refused(flow.group, self.now, reason, 1);
        if flow.tuple.is_none() {
            self.waiting.entry(flow.key).or_insert(flow.began);
        } else if flow.tries >= group.tries() {
            self.record.failed(flow.group, flow.began, 1);
        } else {
            self.plan(group.patience(flow.tries), Step::Retry, flow);
        }
    }

    fn confirm(&mut self, group: &Group, flow: Flow) {
        let state = first_state(group, &self.scenario.table.lifetimes);
        if self.maps.table.open(flow.key, flow.scope, state, self.now).is_err() {
            self.refuse(group, flow, Reason::TableFull);
            return;
        }
        self.record.table_holds(self.maps.table.count());
        if group.answered {
            self.plan(ANSWERED_AFTER, Step::Answer, flow);
        } else {
            self.succeed(flow);
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

    /// The answer passes the guard on its way out, if NAT finds the way back.
    fn answer(&mut self, group: &Group, flow: Flow) {
        if (group.class, group.packet) == (Class::Tcp, FirstPacket::Ack) {
            self.maps.table.reset(flow.key);
            self.succeed(flow);
            return;
        }
        let state = answered_state(group, &self.scenario.table.lifetimes);
        let active = if group.class == Class::Tcp { Duration::ZERO } else { group.lasts.0 };
        if !self.maps.table.advance(flow.key, state, self.now + active, self.now) {
            self.refuse(group, flow, Reason::EntryLost);
            return;
        }
        if let Some(tuple) = flow.tuple {
            self.maps.frame.write(answering_packet(group), &tuple.reversed());
            self.maps.leave(self.now);
        }
        if group.class == Class::Tcp && group.completes() {
            self.plan(group.round_trip.0, Step::Acknowledge, flow);
        } else {
            self.succeed(flow);
        }
    }

    /// An ACK whose entry is gone opens another one (`tcp_loose`), if the guard lets it. Otherwise it
    /// is sent again with the next data.
    fn acknowledge(&mut self, group: &Group, flow: Flow) {
        let mut refused = None;
        if let Some(tuple) = flow.tuple
            && group.guarded
        {
            self.maps.frame.write(Kind::Ack, &tuple);
            refused = self.maps.judge(self.now).refused;
        }
        if refused.is_none() && !self.establish(group, flow) {
            refused = Some(Reason::TableFull);
        }
        match refused {
            None => {
                self.succeed(flow);
                self.plan(group.lasts.0, Step::Close, flow);
            }
            Some(reason) => {
                self.record.refused(flow.group, self.now, reason, 1);
                if flow.tries >= group.tries() {
                    self.record.failed(flow.group, flow.began, 1);
                } else {
                    let delay = group.patience(flow.tries);
                    let flow = Flow { tries: flow.tries + 1, ..flow };
                    self.plan(delay, Step::Acknowledge, flow);
                }
            }
        }
    }

    /// Whether the table has room for it.
    fn establish(&mut self, group: &Group, flow: Flow) -> bool {
        let (of, table, now) = (&self.scenario.table.lifetimes, &mut self.maps.table, self.now);
        let established = State { kind: EntryKind::Established, lives: of.established.0 };
        let last = if group.idle { now } else { now + group.lasts.0 };
        if table.advance(flow.key, established, last, now) {
            return true;
        }
        let midway = State { kind: EntryKind::PickedUp, lives: of.unacknowledged.0 };
        let is_open = table.open(flow.key, flow.scope, midway, now).is_ok();
        if is_open && !group.idle {
            table.advance(flow.key, established, last, now);
        }
        is_open
    }
}

/// Whether the guard refuses every other flow of the group too, until the jiffies or the grant
/// change: it looks at no source when a grant is spent or every SYN is answered, and within a jiffy
/// no bucket refills. Then the flows are counted without being judged. That needs flows that are not
/// tried again, and sources that are surely in one tier.
fn is_for_all(group: &Group, outcome: Outcome, asks_all: bool) -> bool {
    use Outcome::{ChallengedByAck, RefusedChallenge, RefusedGrant, RefusedSource};
    let is_one = group.sources == 1 && !group.spoofed;
    let is_asked = matches!(outcome, RefusedChallenge | ChallengedByAck);
    let is_of_source = outcome == RefusedSource || is_asked && !asks_all;
    let is_alike = if is_of_source {
        is_one
    } else {
        (is_asked || outcome == RefusedGrant) && (group.spoofed || is_one)
    };
    group.tries() == 1 && is_alike
}

const fn first_packet(group: &Group) -> Kind {
    match (group.class, group.packet) {
        (Class::Tcp, FirstPacket::Syn) => Kind::Syn,
        (Class::Tcp, FirstPacket::Ack) => Kind::Ack,
        (Class::Udp, _) => Kind::Datagram,
        (Class::Other, _) => Kind::Echo,
    }
}

const fn answering_packet(group: &Group) -> Kind {
    match group.class {
        Class::Tcp => Kind::SynAck,
        Class::Udp => Kind::Datagram,
        Class::Other => Kind::EchoReply,
    }
}

const fn first_state(group: &Group, of: &Lifetimes) -> State {
    let (kind, lives) = match (group.class, group.packet) {
        (Class::Tcp, FirstPacket::Syn) => (EntryKind::Unanswered, of.syn_sent.0),
        (Class::Tcp, FirstPacket::Ack) => (EntryKind::PickedUp, of.unacknowledged.0),
        (Class::Udp, _) => (EntryKind::Unanswered, of.udp.0),
        (Class::Other, _) => (EntryKind::Unanswered, of.icmp.0),
    };
    State { kind, lives }
}

fn answered_state(group: &Group, of: &Lifetimes) -> State {
    let (kind, lives) = match group.class {
        Class::Tcp => (EntryKind::HalfOpen, of.syn_recv.0),
        Class::Udp if group.lasts.0 >= STREAM_FROM => (EntryKind::Stream, of.udp_stream.0),
        Class::Udp => (EntryKind::Answered, of.udp.0),
        Class::Other => (EntryKind::Answered, of.icmp.0),
    };
    State { kind, lives }
}
