//! The data path over maps in memory.

use std::{cell::Cell, net::IpAddr, time::Duration};

use ctguard_datapath::{
    bucket,
    challenge::{self, Answering, Reversible},
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
    Action, BucketLine, Class, CookieKey, Environment, Fixed, FlowKind, FlowLine, Grant, Group,
    HashKey, Interface, Limits, List, MemoryLine, OfferedSlot, Outcome, Policy, RetryLine,
    SourceCells, SourceLine, Stage, TIERS, Tier, shared::Shared, units::Jiffies,
};

use super::{
    clock::Clock,
    frame::{Frame, tuple_key},
    network::Network,
    outcome::Reason,
    scenario::Scenario,
    table::{ConnectionTable, Entry},
};
use ctguard_control::{
    OfferedLoad, OfferedRates, fallback,
    look::{Held, Kind},
    sources::{Changes, KnownSources, SourceScope, apply},
};
use ctguard_units::{
    CoarseClock, FallbackRate, ceilings, operator_limits,
    sizes::{ANSWERED_LINES, CHALLENGED_LINES, PREFIX_LINES, SERVICE_LINES, Sizes},
};

pub(super) struct Maps {
    pub(super) environment: Environment,
    pub(super) policy: Policy,
    pub(super) grant: Grant,
    pub(super) limits: Limits,
    pub(super) table: ConnectionTable,
    pub(super) clock: Clock,
    /// The packet that is judged next.
    pub(super) frame: Frame,
    pub(super) new_flows: u64,
    interface: Interface,
    buckets: Vec<BucketLine>,
    prefixes: Vec<BucketLine>,
    services: Vec<BucketLine>,
    retries: Vec<RetryLine>,
    answered: Vec<MemoryLine>,
    challenged: Vec<MemoryLine>,
    offered: Vec<OfferedSlot>,
    sources: Vec<SourceLine>,
    source_cells: Vec<SourceCells>,
    flow_lines: Vec<FlowLine>,
    cpu_state: CpuState,
    lists: Vec<(List, Network)>,
    /// When the frame is judged.
    now: Duration,
    /// The cookie in the answer to the frame.
    cookie: Cell<Option<u32>>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Judged {
    /// `None` if the packet passes.
    pub(super) refused: Option<Reason>,
    pub(super) outcome: Outcome,
    pub(super) wake: bool,
    /// The challenge that was sent.
    pub(super) cookie: Option<u32>,
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
        let sizes = Sizes::of_table(scenario.table.max.into());
        let lists = scenario.groups.iter().enumerate().filter_map(|(index, group)| {
            let network = group.network(index);
            Some((group.list(network.is_ipv6())?, network))
        });
        let lists: Vec<_> = lists.collect();
        let lists_in_use = lists.iter().fold(0, |bits, (list, _)| bits | list.bit());
        let mut environment = environment(scenario, sizes, keys);
        environment.operator = operator_limits(&policy, lists_in_use, jiffies_per_second);
        let maps = Self {
            environment,
            policy,
            grant: Grant::default(),
            limits: Limits::default(),
            table: ConnectionTable::new(
                scenario.table.max,
                scenario.table.buckets.unwrap_or(scenario.table.max),
            ),
            clock: Clock::new(jiffies_per_second),
            frame: Frame::empty(),
            new_flows: 0,
            interface: Interface {
                ifindex: 1,
                ceilings: ceilings(&policy, &Interface::FREE.overrides, jiffies_per_second),
                ..Interface::FREE
            },
            buckets: lines(sizes.source_lines),
            prefixes: lines(PREFIX_LINES),
            services: lines(SERVICE_LINES),
            retries: lines(sizes.retry_lines),
            answered: lines(ANSWERED_LINES),
            challenged: lines(CHALLENGED_LINES),
            offered: lines(sizes.source_lines),
            sources: lines(sources::ALL_LINES),
            source_cells: lines(sources::SLOTS),
            flow_lines: lines(sizes.flow_lines),
            cpu_state: CpuState::default(),
            lists,
            now: Duration::ZERO,
            cookie: Cell::default(),
        };
        maps.set_fallback(true, &[0.0; TIERS]);
        FallbackRate::exempt(scenario.table.max.into(), jiffies_per_second)
            .write_exempt(&maps.grant);
        maps
    }

    /// Writes the rates that hold without a daemon.
    pub(super) fn set_fallback(&self, calm: bool, served: &[f64; TIERS]) {
        let hz = self.environment.daemon.jiffies_per_second;
        let rates = fallback(&self.policy, self.table.sample(), calm, served, hz);
        FallbackRate::write_all(rates, &self.grant);
    }

    /// Judges the frame, which arrives `now`.
    pub(super) fn judge(&mut self, now: Duration) -> Judged {
        self.now = now;
        self.cookie.set(None);
        let guard = Guard { environment: &self.environment, tables: &*self };
        let judgement = guard.judge(self.frame.reader(), self.clock.jiffies(now));
        let outcome = judgement.outcome();
        let passes = judgement.action(|| self.policy.has(Policy::DRY_RUN)) == Action::Pass;
        let refused = if passes { None } else { Reason::of(outcome) };
        let wake = judgement.wakes();
        self.new_flows += u64::from(passes && outcome.row().group != Group::Packet);
        Judged { refused, outcome, wake, cookie: self.cookie.get() }
    }

    /// Whether every stranger's flow of a class is challenged, if it can be.
    pub(super) fn asks_all(&self, class: Class) -> bool {
        let [admitted, limit] = [self.grant.admissions(), self.grant.limits()];
        self.limits.stage(class) == Stage::Challenge || admitted[0] >= limit[0]
    }

    /// Notes that the frame leaves `now`.
    pub(super) fn leave(&self, now: Duration) {
        let jiffies = self.clock.jiffies(now);
        // A frame that was written here can be parsed.
        let _ = note_leaving(self.frame.reader(), &self.environment, &self, jiffies);
    }

    /// Takes a sample of a stranger's packets that are counted without being judged.
    pub(super) fn note_sample(&self, source: IpAddr, class: Class) {
        let (family, address) = match source {
            IpAddr::V4(address) => (Ipv4::FAMILY, Ipv4(address.into()).source_scope()),
            IpAddr::V6(address) => (Ipv6::FAMILY, Ipv6::from_address(address).source_scope()),
        };
        let key = &self.environment.fixed.source_key;
        let hash = hash::source(key, class as u32, family, address);
        let slot = bucket::line_index(hash, self.environment.fixed.source_line_mask);
        let tier = Tier::Strangers as u32;
        self.note_offered(slot, Offered { address, family, class: class as u32, tier });
    }

    /// The demand of each source.
    pub(super) fn look(&self, rates: &mut OfferedRates, now: Duration) -> Vec<OfferedLoad> {
        rates.look(now, &self.offered, &self.sources, &self.source_cells)
    }

    /// Writes changes into the set of known sources, and into `known`.
    pub(super) fn know(&self, mut changes: Changes, known: &mut KnownSources) {
        // Sorted, so that the same seed gives the same run.
        changes.removed.sort_unstable();
        changes.written.sort_unstable_by_key(|&(source, _)| source);
        // A source that finds no room stays a stranger.
        let _ = apply(&self, &self.environment.fixed.source_key, changes, known);
    }

    /// What an entry of the table means to the controller.
    pub(super) fn held(&self, entry: &Entry, now: Duration) -> Held {
        let (source, kind) = (entry.source, entry.state.kind);
        let is_allowed = match source {
            SourceScope::V4(address) => self.holds(List::AllowV4, Ipv4(address)),
            SourceScope::V6(prefix) => self.lists(List::AllowV6, Ipv6::FAMILY, prefix),
        };
        let proves = matches!(kind, Kind::Established | Kind::Finished);
        Held { source, kind, idle: Some(entry.idle(now)), deletable: !is_allowed, proves }
    }

    fn holds<A: Address>(&self, list: List, address: A) -> bool {
        self.lists(list, A::FAMILY, address.source_scope())
    }

    fn lists(&self, list: List, family: u32, scope: u64) -> bool {
        self.lists.iter().any(|(of, network)| *of == list && network.holds(family, scope))
    }
}

/// What the daemon finds out at its start. The known-flows filter stays empty: it only saves
/// lookups.
fn environment(scenario: &Scenario, sizes: Sizes, keys: [HashKey; 2]) -> Environment {
    let clock = CoarseClock::new(scenario.guard.jiffies_per_second);
    let [source_key, tuple_key] = keys;
    let fixed = Fixed {
        source_key,
        tuple_key,
        // As secret as the other keys.
        cookie_key: CookieKey { words: [keys[0].words[0], keys[1].words[0]] },
        source_line_mask: sizes.source_lines - 1,
        flow_line_mask: sizes.flow_lines - 1,
        prefix_line_mask: PREFIX_LINES - 1,
        service_line_mask: SERVICE_LINES - 1,
        retry_line_mask: sizes.retry_lines - 1,
        answered_line_mask: ANSWERED_LINES - 1,
        challenged_line_mask: CHALLENGED_LINES - 1,
        known_source_line_mask: sources::LINES - 1,
        ..Fixed::default()
    };
    let mut environment = Environment { fixed, ..Environment::default() };
    environment.daemon.tcp_loose = 1;
    // As on Linux 6.10 and later.
    environment.daemon.lookup_options_bytes = 16;
    clock.write(&mut environment.daemon);
    let of = &scenario.table.lifetimes;
    for (kind, lifetime) in [
        (FlowKind::TcpOpening, of.syn_sent.min(of.syn_recv)),
        (FlowKind::TcpEstablished, of.established.min(of.unacknowledged)),
        (FlowKind::TcpClosing, of.time_wait),
        (FlowKind::TcpClosingEstablished, of.time_wait),
        (FlowKind::Udp, of.udp.min(of.udp_stream)),
        (FlowKind::Icmp, of.icmp),
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

impl Tables for &Maps {
    fn bucket_line(&self, scope: Scope, index: u32) -> Option<&BucketLine> {
        let lines = match scope {
            Scope::Source => &self.buckets,
            Scope::Prefix => &self.prefixes,
            Scope::Service => &self.services,
        };
        line(lines, index)
    }

    fn memory_line(&self, memory: Memory, index: u32) -> Option<&MemoryLine> {
        let lines = match memory {
            Memory::Answered => &self.answered,
            Memory::Challenged => &self.challenged,
        };
        line(lines, index)
    }

    fn retry_line(&self, index: u32) -> Option<&RetryLine> {
        line(&self.retries, index)
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

    fn limits(&self) -> Option<&Limits> {
        Some(&self.limits)
    }

    fn cpu_state(&self) -> &CpuState {
        &self.cpu_state
    }

    fn ask_conntrack<A: Address>(&self, packet: &Packet<A>, flow: Flow) -> Answer {
        let key = tuple_key(packet, flow, &self.environment);
        if self.table.is_tracked(key, self.now) { Answer::Tracked } else { Answer::Untracked }
    }

    fn addresses<A: Answering>(&self) -> Option<(A, A)> {
        A::read(self.frame.reader())
    }

    fn truncate<A: Reversible>(&self) -> bool {
        false
    }

    fn answer<A: Answering>(&self, answer: &challenge::Answer<A>) -> bool {
        self.cookie.set(Some(answer.cookie));
        true
    }

    fn samples(&self) -> bool {
        self.cpu_state.samples()
    }

    fn show<A: Address>(&self, _packet: &Packet<A>, _now: Jiffies) {}

    fn note_offered(&self, index: u32, offered: Offered) {
        if let Some(slot) = line(&self.offered, index) {
            slot.note(&offered);
        }
    }
}

pub(super) fn hash_key(mut random: impl FnMut() -> u64) -> HashKey {
    let mut words = [0; 12].map(|_: u64| random());
    // The hash multiplies by the last word, which must be odd.
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
