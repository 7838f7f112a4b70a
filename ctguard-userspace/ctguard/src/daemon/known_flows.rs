//! Keeps the known-flows filter: dumps the table into it in the background, and swaps generations.

use std::{net::IpAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use ctguard_datapath::{
    packet::{Ipv4, Ipv6, protocol},
    tracked,
};
use ctguard_layout::{Environment, units::Coarse};
use log::debug;

use super::{Guard, background::Background};
use ctguard_control::{Generations, IN_FLIGHT, Load, Step};
use ctguard_kernel::{
    bpf::monotonic,
    conntrack::{self, Completeness, DumpError, Entry, Summary, Tuple},
    maps::FlowMemory,
};
use ctguard_units::CoarseClock;

#[derive(Debug)]
pub(crate) struct KnownFlows {
    memory: Arc<FlowMemory>,
    generations: Generations,
    dump: Option<Background<Dump>>,
    /// When the generations were swapped, until the old one is cleared.
    turning: Option<Duration>,
    next: Duration,
}

/// Ticks may come every millisecond.
const INTERVAL: Duration = Duration::from_millis(100);

/// In calm, few flows enter the filter.
const INTERVAL_IN_CALM: Duration = Duration::from_millis(500);

/// When it began, and its result.
type Dump = (Duration, Result<Summary, DumpError>);

impl KnownFlows {
    /// The data path must already record the flows of all guarded interfaces.
    pub(super) fn new(memory: FlowMemory) -> Self {
        Self {
            memory: Arc::new(memory),
            generations: Generations::new(monotonic()),
            dump: None,
            turning: None,
            next: Duration::ZERO,
        }
    }

    /// Starts again, because the filter lacks flows of an interface.
    pub(super) fn restart(&mut self) {
        self.generations = Generations::new(monotonic());
        self.turning = None;
    }
}

/// Starts again, because the table has entries that no packet told of. Until the next complete dump, the
/// data path asks conntrack about each flow that the filter lacks.
pub(crate) fn learn(guard: &mut Guard) {
    guard.maps.doubt_known_flows();
    guard.known_flows.restart();
}

/// Takes the next step, if there is one.
pub(crate) fn follow(guard: &mut Guard) -> anyhow::Result<()> {
    let now = monotonic();
    if now < guard.known_flows.next {
        return Ok(());
    }
    guard.known_flows.next = now + INTERVAL;
    if !guard.table.is_there() {
        return Ok(());
    }
    if let Some((began, result)) = Background::take_finished(&mut guard.known_flows.dump) {
        let complete =
            matches!(&result, Ok(summary) if summary.completeness == Completeness::Complete);
        guard.known_flows.generations.dumped(began, now, complete);
        debug!("the table was dumped: {result:?}");
        return Ok(result.map(|_| ())?);
    }
    if guard.known_flows.dump.is_some() {
        return Ok(());
    }
    if let Some(since) = guard.known_flows.turning {
        // A packet in flight may still ask the old generation.
        if now >= since + IN_FLIGHT {
            let environment = guard.maps.environment();
            guard.known_flows.memory.clear(1 - environment.daemon.known_generation, &environment);
            let load = Load(guard.known_flows.memory.load(&environment));
            guard.known_flows.generations.turned(now, load);
            guard.known_flows.turning = None;
        }
        return Ok(());
    }
    let environment = guard.maps.environment();
    let load = Load(guard.known_flows.memory.load(&environment));
    match guard.known_flows.generations.next(now, load) {
        Step::Wait => {
            if guard.ticker.is_calm() {
                guard.known_flows.next = now + INTERVAL_IN_CALM;
            }
            Ok(())
        }
        Step::Dump => {
            let begun = begin_dump(guard, &environment, now);
            if begun.is_err() {
                guard.known_flows.generations.dumped(now, now, false);
            }
            begun
        }
        Step::Turn => {
            let jiffies = guard.kernel_clock.now(guard.jiffies_per_second)?;
            guard.maps.turn_known_flows(jiffies);
            guard.known_flows.turning = Some(now);
            Ok(())
        }
    }
}

fn begin_dump(guard: &mut Guard, environment: &Environment, began: Duration) -> anyhow::Result<()> {
    let jiffies = guard.kernel_clock.now(guard.jiffies_per_second)?;
    let now = Coarse::at(jiffies, environment.daemon.coarse_shift);
    let memory = Arc::clone(&guard.known_flows.memory);
    let environment = *environment;
    let clock = (now, guard.coarse);
    let dump = move || (began, conntrack::dump(|entry| write(entry, &memory, &environment, clock)));
    let dump = Background::start("ctguard-dump", dump).context("cannot start a thread")?;
    guard.known_flows.dump = Some(dump);
    Ok(())
}

/// Both directions of an entry: either may arrive at a guarded interface.
fn write(
    entry: &Entry,
    memory: &FlowMemory,
    environment: &Environment,
    clock: (Coarse, CoarseClock),
) {
    for Tuple { source, destination, key } in [entry.original, entry.reply] {
        let protocol = entry.protocol;
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let [source, destination] = [source, destination].map(|ip| Ipv4(ip.into()));
                let tuple = tracked::Tuple { source, destination, protocol, key };
                write_tuple(&tuple, entry, memory, environment, clock);
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let [source, destination] = [source, destination].map(Ipv6::from_address);
                let tuple = tracked::Tuple { source, destination, protocol, key };
                write_tuple(&tuple, entry, memory, environment, clock);
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {}
        }
    }
}

fn write_tuple<A: ctguard_datapath::packet::Address>(
    tuple: &tracked::Tuple<A>,
    entry: &Entry,
    memory: &FlowMemory,
    environment: &Environment,
    (now, clock): (Coarse, CoarseClock),
) {
    tuple.note(memory, environment, 1 - environment.daemon.known_generation.min(1));
    let asked = matches!(tuple.protocol, protocol::TCP | protocol::UDP)
        && environment.daemon.lookup_options_bytes != 0;
    // A PPTP call, whose tuples lack a key until the helper has seen it.
    let is_call = tuple.protocol == protocol::GRE && entry.original.key | entry.reply.key != 0;
    if !asked && !is_call {
        let life = clock.timeout(entry.timeout_seconds.unwrap_or_default().into());
        tuple.remember(memory, environment, entry.is_answered(), life, now);
    }
}
