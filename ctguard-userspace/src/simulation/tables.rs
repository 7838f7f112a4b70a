//! The maps of the data path in memory, and the guard over them.

use std::{
    cell::{Cell, RefCell},
    time::Duration,
};

use ctguard_ebpf::{
    classify::Flow,
    flow::FlowLines,
    guard::{Answer, Guard, Judgement, Offered, Outcome, Tables},
    known_flows::KnownWords,
    layout::{
        BucketLine, Environment, FlowKind, FlowLine, Grant, HashKey, Interface, List, OfferedSlot,
        Policy,
    },
    leaving::note_leaving,
    packet::{Address, Ipv4, Ipv6, Packet},
    recent,
    shared::Shared,
    units::Jiffies,
    verdict::{Action, verdict},
};

use super::{
    frame::{Frame, tuple_key},
    network::Network,
    scenario::{Lifetimes, Scenario},
    table::ConnectionTable,
};
use crate::control::{CoarseClock, ceilings, fallback};

/// As the loader makes them.
const SOURCE_LINES: u32 = 16_384;
const FEWEST_FLOW_LINES: u32 = 1 << 10;
const MOST_FLOW_LINES: u32 = 1 << 18;

/// Every map, and the table that conntrack is asked about.
pub(super) struct Maps {
    pub(super) environment: Environment,
    pub(super) policy: Policy,
    pub(super) grant: Grant,
    pub(super) table: RefCell<ConnectionTable>,
    interface: Interface,
    buckets: Vec<BucketLine>,
    offered: Vec<OfferedSlot>,
    flow_lines: Vec<FlowLine>,
    recent: [Shared; recent::SLOTS],
    lists: Vec<(List, Network)>,
    now: Cell<Duration>,
    new_flows: Cell<u64>,
    seen: Cell<u64>,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Judged {
    pub(super) passes: bool,
    pub(super) outcome: Outcome,
    pub(super) wake: bool,
}

impl Maps {
    pub(super) fn new(scenario: &Scenario, policy: Policy, keys: [HashKey; 2]) -> Self {
        let jiffies_per_second = scenario.guard.jiffies_per_second;
        let table = ConnectionTable::new(scenario.table.max, scenario.table.lifetimes);
        let flow_lines =
            (scenario.table.max / 4).clamp(FEWEST_FLOW_LINES, MOST_FLOW_LINES).next_power_of_two();
        let lists = scenario.groups.iter().enumerate().filter_map(|(index, group)| {
            let network = group.network(index);
            Some((group.list(network.is_ipv6())?, network))
        });
        let lists: Vec<_> = lists.collect();
        let lists_in_use = lists.iter().fold(0, |bits, (list, _)| bits | list.bit());
        let grant = Grant::default();
        let rates = fallback(&policy, table.sample(), jiffies_per_second);
        for (fallback, rate) in grant.fallback.iter().zip(rates) {
            fallback.interval.store(rate.interval);
            fallback.tolerance.store(rate.tolerance);
        }
        Self {
            environment: Environment {
                source_line_mask: SOURCE_LINES - 1,
                flow_line_mask: flow_lines - 1,
                lists_in_use,
                ..environment(scenario, keys)
            },
            policy,
            grant,
            table: RefCell::new(table),
            interface: Interface {
                ifindex: 1,
                ceilings: ceilings(&policy.source, &Interface::FREE.overrides, jiffies_per_second),
                ..Interface::FREE
            },
            buckets: (0..SOURCE_LINES).map(|_| BucketLine::default()).collect(),
            offered: (0..SOURCE_LINES).map(|_| OfferedSlot::default()).collect(),
            flow_lines: (0..flow_lines).map(|_| FlowLine::default()).collect(),
            recent: std::array::from_fn(|_| Shared::new(0)),
            lists,
            now: Cell::default(),
            new_flows: Cell::default(),
            seen: Cell::default(),
        }
    }

    /// Judges a frame that arrives.
    pub(super) fn judge(&self, frame: &Frame, now: Duration, jiffies: Jiffies) -> Judged {
        self.now.set(now);
        let guard = Guard { environment: &self.environment, tables: self };
        let Judgement { outcome, wake } = guard.judge(frame.reader(), jiffies);
        let verdict = verdict(outcome, || self.policy.has(Policy::DRY_RUN));
        if verdict.seen.is_some() {
            self.seen.set(self.seen.get() + 1);
        }
        if matches!(outcome, Outcome::Admitted(..)) {
            self.new_flows.set(self.new_flows.get() + 1);
        }
        Judged { passes: verdict.action == Action::Pass, outcome, wake }
    }

    /// Notes a frame that leaves.
    pub(super) fn leave(&self, frame: &Frame, jiffies: Jiffies) {
        // What cannot be parsed tells nothing.
        let _ = note_leaving(frame.reader(), &self.environment, &self, jiffies);
    }

    /// New flows admitted so far.
    pub(super) fn new_flows(&self) -> u64 {
        self.new_flows.get()
    }
}

/// What the daemon finds out at its start. Conntrack answers every question, so that the
/// known-flows filter, which only saves the asking, holds nothing.
fn environment(scenario: &Scenario, keys: [HashKey; 2]) -> Environment {
    let clock = CoarseClock::new(scenario.guard.jiffies_per_second);
    let mut environment = Environment {
        jiffies_per_second: scenario.guard.jiffies_per_second,
        coarse_shift: clock.shift,
        heartbeat_patience_jiffies: clock.heartbeat_patience(),
        tcp_loose: 1,
        repeat_window_coarse: clock.repeat_window(),
        // Of Linux 6.10 and later.
        lookup_options_bytes: 16,
        ..Environment::unset(keys)
    };
    let Lifetimes { syn_sent, syn_recv, established, unacknowledged, .. } =
        scenario.table.lifetimes;
    let Lifetimes { time_wait, udp, udp_stream, icmp, .. } = scenario.table.lifetimes;
    for (kind, lifetime) in [
        (FlowKind::TcpOpening, syn_sent.min(syn_recv)),
        (FlowKind::TcpEstablished, established.min(unacknowledged)),
        (FlowKind::TcpClosing, time_wait),
        (FlowKind::TcpClosingEstablished, time_wait),
        (FlowKind::Udp, udp.min(udp_stream)),
        (FlowKind::Icmp, icmp),
    ] {
        environment.set_flow_timeout(kind, clock.timeout(lifetime.0.as_secs()));
    }
    environment
}

impl FlowLines for &Maps {
    fn flow_line(&self, index: u32) -> Option<&FlowLine> {
        self.flow_lines.get(usize::try_from(index).ok()?)
    }
}

impl KnownWords for &Maps {
    fn known_word(&self, _index: u32) -> Option<&Shared> {
        None
    }
}

impl Tables for &Maps {
    fn bucket_line(&self, index: u32) -> Option<&BucketLine> {
        self.buckets.get(usize::try_from(index).ok()?)
    }

    fn lists_ipv4(&self, list: List, address: Ipv4, _now: Jiffies) -> bool {
        self.holds(list, address)
    }

    fn lists_ipv6(&self, list: List, address: Ipv6, _now: Jiffies) -> bool {
        self.holds(list, address)
    }

    fn interface(&self) -> Option<&Interface> {
        Some(&self.interface)
    }

    fn policy(&self) -> Option<&Policy> {
        Some(&self.policy)
    }

    fn grant(&self) -> Option<&Grant> {
        Some(&self.grant)
    }

    fn recent(&self, hash: u64) -> Option<&Shared> {
        Some(recent::slot(&self.recent, hash))
    }

    fn ask_conntrack<A: Address>(&self, packet: &Packet<A>, flow: Flow) -> Answer {
        let key = tuple_key(packet, flow, &self.environment);
        if self.table.borrow().is_tracked(key, self.now.get()) {
            Answer::Tracked
        } else {
            Answer::Untracked
        }
    }

    fn samples(&self) -> bool {
        self.seen.get().is_multiple_of(OfferedSlot::SAMPLE)
    }

    fn show<A: Address>(&self, _packet: &Packet<A>, _outcome: Outcome, _now: Jiffies) {}

    fn note_offered(&self, line: u32, offered: Offered, now: Jiffies) {
        let slot = usize::try_from(line).ok().and_then(|line| self.offered.get(line));
        let Some(slot) = slot else { return };
        slot.offered.fetch_add(OfferedSlot::SAMPLE);
        if offered.refused {
            slot.refused.fetch_add(OfferedSlot::SAMPLE);
        }
        slot.address.store(offered.address);
        slot.last.store(now.0 << 8 | u64::from(offered.family) << 4 | offered.class as u64);
    }
}

impl Maps {
    fn holds<A: Address>(&self, list: List, address: A) -> bool {
        let mut lists = self.lists.iter();
        lists.any(|(of, network)| *of == list && network.holds(A::FAMILY, address.source_scope()))
    }
}

/// A hash key out of random numbers.
pub(super) fn hash_key(mut random: impl FnMut() -> u64) -> HashKey {
    let mut words = [0; 12].map(|_: u64| random());
    // The last one multiplies.
    words[11] |= 1;
    HashKey { words }
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;

    pub(in crate::simulation) fn environment() -> Environment {
        let mut random = fastrand::Rng::with_seed(1);
        Environment::unset([hash_key(|| random.u64(..)), hash_key(|| random.u64(..))])
    }
}
