//! The maps of the data path in memory, and the guard over them.

use std::{
    cell::{Cell, RefCell},
    net::IpAddr,
    time::Duration,
};

use ctguard_datapath::{
    bucket,
    challenge::{self, Answering},
    classify::Flow,
    flow::FlowLines,
    guard::{Answer, CpuState, Guard, Memory, Offered, Scope, Tables},
    hash,
    known_flows::KnownWords,
    leaving::note_leaving,
    packet::{Address, Ipv4, Ipv6, Packet},
    sources::{self, SourceSet},
};
use ctguard_layout::{
    Action, BucketLine, Class, CookieKey, Environment, Fixed, FlowKind, FlowLine, Grant, HashKey,
    Interface, Limits, List, MemoryLine, OfferedSlot, Outcome, Policy, SourceCells, SourceLine,
    Tier, shared::Shared, units::Jiffies,
};

use super::{
    frame::{Frame, tuple_key},
    network::Network,
    outcome::Reason,
    scenario::{Lifetimes, Scenario},
    table::ConnectionTable,
};
use ctguard_control::{
    OfferedLoad, OfferedRates, fallback,
    sources::{Changes, KnownSources, apply},
};
use ctguard_units::{
    CoarseClock, FallbackRate, ceilings, operator_limits,
    sizes::{ANSWERED_LINES, PREFIX_LINES, RESET_LINES, RETRY_LINES, SERVICE_LINES, Sizes},
};

/// Every map, and the table that conntrack is asked about.
pub(super) struct Maps {
    pub(super) environment: Environment,
    pub(super) policy: Policy,
    pub(super) grant: Grant,
    pub(super) limits: Limits,
    pub(super) table: RefCell<ConnectionTable>,
    interface: Interface,
    buckets: Vec<BucketLine>,
    prefixes: Vec<BucketLine>,
    services: Vec<BucketLine>,
    retries: Vec<MemoryLine>,
    answered: Vec<MemoryLine>,
    resets: Vec<MemoryLine>,
    offered: Vec<OfferedSlot>,
    sources: Vec<SourceLine>,
    source_cells: Vec<SourceCells>,
    flow_lines: Vec<FlowLine>,
    cpu_state: CpuState,
    lists: Vec<(List, Network)>,
    new_flows: Cell<u64>,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Judged {
    /// Why it goes no further, if it does not.
    pub(super) refused: Option<Reason>,
    pub(super) outcome: Outcome,
    pub(super) wake: bool,
    /// What the answer to a SYN asks its source to send back.
    pub(super) cookie: Option<u32>,
}

/// The maps as one packet finds them.
struct Judging<'m> {
    maps: &'m Maps,
    frame: &'m Frame,
    now: Duration,
    cookie: Cell<Option<u32>>,
}

fn lines<L: Default>(count: u32) -> Vec<L> {
    (0..count).map(|_| L::default()).collect()
}

fn line<L>(lines: &[L], index: u32) -> Option<&L> {
    lines.get(usize::try_from(index).ok()?)
}

impl Maps {
    pub(super) fn new(scenario: &Scenario, policy: Policy, keys: [HashKey; 2]) -> Self {
        let jiffies_per_second = scenario.guard.jiffies_per_second;
        let table = ConnectionTable::new(scenario.table.max, scenario.table.lifetimes);
        let sizes = Sizes::of_table(scenario.table.max.into());
        let lists = scenario.groups.iter().enumerate().filter_map(|(index, group)| {
            let network = group.network(index);
            Some((group.list(network.is_ipv6())?, network))
        });
        let lists: Vec<_> = lists.collect();
        let lists_in_use = lists.iter().fold(0, |bits, (list, _)| bits | list.bit());
        let mut environment = environment(scenario, keys);
        environment.fixed.source_line_mask = sizes.source_lines - 1;
        environment.fixed.flow_line_mask = sizes.flow_lines - 1;
        environment.operator = operator_limits(&policy, lists_in_use, jiffies_per_second);
        let maps = Self {
            environment,
            policy,
            grant: Grant::default(),
            limits: Limits::default(),
            interface: Interface {
                ifindex: 1,
                ceilings: ceilings(&policy.source, &Interface::FREE.overrides, jiffies_per_second),
                ..Interface::FREE
            },
            buckets: lines(sizes.source_lines),
            prefixes: lines(PREFIX_LINES),
            services: lines(SERVICE_LINES),
            retries: lines(RETRY_LINES),
            answered: lines(ANSWERED_LINES),
            resets: lines(RESET_LINES),
            offered: lines(sizes.source_lines),
            sources: lines(sources::LINES),
            source_cells: lines(sources::SLOTS),
            flow_lines: lines(sizes.flow_lines),
            cpu_state: CpuState::default(),
            lists,
            new_flows: Cell::default(),
            table: RefCell::new(table),
        };
        maps.set_fallback(true);
        maps
    }

    /// Writes the rates that hold without a daemon.
    pub(super) fn set_fallback(&self, calm: bool) {
        let table = self.table.borrow().sample();
        let rates = fallback(&self.policy, table, calm, self.environment.daemon.jiffies_per_second);
        FallbackRate::write_all(rates, &self.grant);
    }

    /// Judges a frame that arrives.
    pub(super) fn judge(&self, frame: &Frame, now: Duration, jiffies: Jiffies) -> Judged {
        let judging = Judging { maps: self, frame, now, cookie: Cell::new(None) };
        let guard = Guard { environment: &self.environment, tables: &judging };
        let judgement = guard.judge(frame.reader(), jiffies);
        let outcome = judgement.outcome();
        if outcome == Outcome::Admitted {
            self.new_flows.set(self.new_flows.get() + 1);
        }
        let passes = judgement.action(|| self.policy.has(Policy::DRY_RUN)) == Action::Pass;
        let refused = if passes { None } else { Reason::of(outcome) };
        Judged { refused, outcome, wake: judgement.wakes(), cookie: judging.cookie.get() }
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

    /// Notes one sample of what a stranger offers, of packets that are not judged one by one.
    pub(super) fn note_sample(&self, source: IpAddr, class: Class) {
        let scope = match source {
            IpAddr::V4(address) => (Ipv4::FAMILY, Ipv4(address.into()).source_scope()),
            IpAddr::V6(address) => (Ipv6::FAMILY, Ipv6::from_address(address).source_scope()),
        };
        let (family, address) = scope;
        let key = &self.environment.fixed.source_key;
        let hash = hash::source(key, class as u32, family, address);
        let slot = bucket::line_index(hash, self.environment.fixed.source_line_mask);
        let tier = Tier::Strangers as u32;
        if let Some(slot) = line(&self.offered, slot) {
            slot.note(&Offered { address, family, class: class as u32, tier });
        }
    }

    /// What each source asks for, as the daemon looks at it.
    pub(super) fn look(&self, rates: &mut OfferedRates, now: Duration) -> Vec<OfferedLoad> {
        rates.look(now, &self.offered, &self.sources, &self.source_cells)
    }

    /// Makes sources known, or strangers again; `known` is who is afterwards.
    pub(super) fn know(&self, mut changes: Changes, known: &mut KnownSources) {
        // In an order of their own, so that one seed gives one run.
        changes.removed.sort_unstable();
        changes.written.sort_unstable_by_key(|&(source, _)| source);
        // Who finds no room stays a stranger.
        let _ = apply(&self, &self.environment.fixed.source_key, changes, known);
    }
}

/// What the daemon finds out at its start. Conntrack answers every question, so that the
/// known-flows filter, which only saves the asking, holds nothing.
fn environment(scenario: &Scenario, keys: [HashKey; 2]) -> Environment {
    let clock = CoarseClock::new(scenario.guard.jiffies_per_second);
    let [source_key, tuple_key] = keys;
    let fixed = Fixed {
        source_key,
        tuple_key,
        // As secret as the other keys.
        cookie_key: CookieKey { words: [keys[0].words[0], keys[1].words[0]] },
        prefix_line_mask: PREFIX_LINES - 1,
        service_line_mask: SERVICE_LINES - 1,
        retry_line_mask: RETRY_LINES - 1,
        answered_line_mask: ANSWERED_LINES - 1,
        reset_line_mask: RESET_LINES - 1,
        known_source_line_mask: sources::LINES - 1,
        ..Fixed::default()
    };
    let mut environment = Environment { fixed, ..Environment::default() };
    environment.daemon.tcp_loose = 1;
    // Of Linux 6.10 and later.
    environment.daemon.lookup_options_bytes = 16;
    clock.write(&mut environment.daemon);
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
        environment.daemon.set_flow_timeout(kind, clock.timeout(lifetime.0.as_secs()));
    }
    environment
}

impl FlowLines for &Maps {
    fn flow_line(&self, index: u32) -> Option<&FlowLine> {
        line(&self.flow_lines, index)
    }
}

impl KnownWords for &Maps {
    fn known_word(&self, _index: u32) -> Option<&Shared> {
        None
    }
}

impl SourceSet for &Maps {
    fn source_line(&self, index: u32) -> Option<&SourceLine> {
        line(&self.sources, index)
    }

    fn source_cells(&self, slot: u32) -> Option<&SourceCells> {
        line(&self.source_cells, slot)
    }
}

impl FlowLines for &Judging<'_> {
    fn flow_line(&self, index: u32) -> Option<&FlowLine> {
        self.maps.flow_line(index)
    }
}

impl KnownWords for &Judging<'_> {
    fn known_word(&self, index: u32) -> Option<&Shared> {
        self.maps.known_word(index)
    }
}

impl SourceSet for &Judging<'_> {
    fn source_line(&self, index: u32) -> Option<&SourceLine> {
        self.maps.source_line(index)
    }

    fn source_cells(&self, slot: u32) -> Option<&SourceCells> {
        self.maps.source_cells(slot)
    }
}

impl Tables for &Judging<'_> {
    fn bucket_line(&self, scope: Scope, index: u32) -> Option<&BucketLine> {
        let lines = match scope {
            Scope::Source => &self.maps.buckets,
            Scope::Prefix => &self.maps.prefixes,
            Scope::Service => &self.maps.services,
        };
        line(lines, index)
    }

    fn memory_line(&self, memory: Memory, index: u32) -> Option<&MemoryLine> {
        let lines = match memory {
            Memory::Retries => &self.maps.retries,
            Memory::Answered => &self.maps.answered,
            Memory::Resets => &self.maps.resets,
        };
        line(lines, index)
    }

    fn lists_ipv4(&self, list: List, address: Ipv4, _now: Jiffies) -> bool {
        self.maps.holds(list, address)
    }

    fn lists_ipv6(&self, list: List, address: Ipv6, _now: Jiffies) -> bool {
        self.maps.holds(list, address)
    }

    fn interface(&self) -> Option<&Interface> {
        Some(&self.maps.interface)
    }

    fn policy(&self) -> Option<&Policy> {
        Some(&self.maps.policy)
    }

    fn grant(&self) -> Option<&Grant> {
        Some(&self.maps.grant)
    }

    fn limits(&self) -> Option<&Limits> {
        Some(&self.maps.limits)
    }

    fn cpu_state(&self) -> &CpuState {
        &self.maps.cpu_state
    }

    fn ask_conntrack<A: Address>(&self, packet: &Packet<A>, flow: Flow) -> Answer {
        let key = tuple_key(packet, flow, &self.maps.environment);
        if self.maps.table.borrow().is_tracked(key, self.now) {
            Answer::Tracked
        } else {
            Answer::Untracked
        }
    }

    fn addresses<A: Answering>(&self) -> Option<(A, A)> {
        A::read(self.frame.reader())
    }

    fn answer<A: Answering>(&self, answer: &challenge::Answer<A>) -> bool {
        self.cookie.set(Some(answer.cookie));
        true
    }

    fn samples(&self) -> bool {
        self.maps.cpu_state.samples()
    }

    fn show<A: Address>(&self, _packet: &Packet<A>, _now: Jiffies) {}

    fn note_offered(&self, index: u32, offered: Offered) {
        if let Some(slot) = line(&self.maps.offered, index) {
            slot.note(&offered);
        }
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

    pub(crate) fn environment() -> Environment {
        let mut random = fastrand::Rng::with_seed(1);
        Environment::unset([hash_key(|| random.u64(..)), hash_key(|| random.u64(..))])
    }
}
