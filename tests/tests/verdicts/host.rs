//! The library's guard over maps in this process, for comparison with the object in the kernel.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
};

use anyhow::{Result, ensure};
use ctguard_datapath::{
    challenge::{self, Answering, Reversible},
    classify::Flow,
    flow::FlowLines,
    guard::{Answer, CpuState, Guard, Memory, Offered, Scope, Tables},
    known_flows::{GENERATIONS, KnownWords},
    leaving::note_leaving,
    packet::{Address, Ipv4, Ipv6, Packet, Reader},
    sources::SourceSet,
    verifier::OpaqueZero,
};
use ctguard_layout::{
    self as layout, BucketLine, COUNTERS, Environment, FlowLine, Grant, Interface, Limits, List,
    MemoryLine, OfferedSlot, Policy, RetryLine, SourceCells, SourceLine, shared::Shared,
    units::Jiffies,
};
use ctguard_tests::data_path::Action;

/// Longer than any frame of the tests.
const MOST_BYTES: usize = 2048;

/// The guard and its maps.
pub(crate) struct Host {
    pub(crate) policy: Policy,
    pub(crate) environment: Environment,
    pub(crate) interface: Interface,
    pub(crate) grant: Grant,
    /// List, address (an IPv4 one in the low bits), prefix length, end.
    pub(crate) lists: Vec<(List, u128, u32, u64)>,
    pub(crate) now: Jiffies,
    counters: Cell<[u64; COUNTERS]>,
    offered: RefCell<BTreeMap<u32, [u64; 2]>>,
    flows: Vec<FlowLine>,
    known: Vec<Shared>,
    cpu_state: CpuState,
    buckets: Vec<BucketLine>,
    limits: Limits,
}

/// A frame as the kernel aligns it.
#[repr(align(8))]
struct Aligned([u8; MOST_BYTES]);

impl Host {
    /// Empty maps of the sizes that the environment tells.
    pub(crate) fn new(policy: Policy, environment: &Environment, interface: Interface) -> Self {
        let flows = (0..=environment.fixed.flow_line_mask).map(|_| FlowLine::default()).collect();
        let words = GENERATIONS * environment.fixed.known_words;
        let buckets =
            (0..=environment.fixed.source_line_mask).map(|_| BucketLine::default()).collect();
        Self {
            policy,
            environment: *environment,
            interface,
            grant: Grant::default(),
            lists: Vec::new(),
            now: Jiffies(0),
            counters: Cell::new([0; COUNTERS]),
            offered: RefCell::default(),
            flows,
            known: (0..words).map(|_| Shared::new(0)).collect(),
            cpu_state: CpuState::default(),
            buckets,
            limits: Limits::default(),
        }
    }

    /// Judges a frame and counts, as the program in the kernel does around the library.
    pub(crate) fn judge(&self, frame: &[u8]) -> Result<Action> {
        let aligned = align(frame)?;
        let guard = Guard { environment: &self.environment, tables: self };
        let judgement = guard.judge(reader(&aligned, frame.len()), self.now);
        judgement.count(|index| self.count(index));
        Ok(match judgement.action(|| self.policy.has(Policy::DRY_RUN)) {
            layout::Action::Pass => Action::Pass,
            layout::Action::Drop => Action::Drop,
            layout::Action::Answer => Action::Answer,
        })
    }

    /// Notes a frame that leaves.
    pub(crate) fn leave(&self, frame: &[u8]) -> Result<()> {
        let aligned = align(frame)?;
        // What cannot be parsed tells nothing, here as there.
        let _ = note_leaving(reader(&aligned, frame.len()), &self.environment, &self, self.now);
        Ok(())
    }

    /// Every counter.
    pub(crate) fn counters(&self) -> [u64; COUNTERS] {
        self.counters.get()
    }

    /// What was noted of offered load: line, then flows of all classes, address.
    pub(crate) fn offered(&self) -> BTreeMap<u32, [u64; 2]> {
        self.offered.borrow().clone()
    }

    fn count(&self, index: u32) {
        let mut counters = self.counters.get();
        counters[index as usize] += 1;
        self.counters.set(counters);
    }

    /// As the kernel's longest-prefix maps answer: the longest alone counts.
    fn holds(&self, list: List, address: u128, width: u32, now: Jiffies) -> bool {
        let covers =
            |prefix: u128, bits: u32| bits == 0 || (prefix ^ address) >> (width - bits) == 0;
        let longest = self
            .lists
            .iter()
            .filter(|(of, prefix, bits, _)| *of == list && covers(*prefix, *bits))
            .max_by_key(|(_, _, bits, _)| *bits);
        longest.is_some_and(|(_, _, _, end)| *end == 0 || now.0 < *end)
    }
}

fn align(frame: &[u8]) -> Result<Box<Aligned>> {
    ensure!(frame.len() <= MOST_BYTES, "a frame of {} bytes", frame.len());
    let mut aligned = Box::new(Aligned([0; MOST_BYTES]));
    aligned.0[..frame.len()].copy_from_slice(frame);
    Ok(aligned)
}

fn reader(frame: &Aligned, length: usize) -> Reader<'_> {
    let range = frame.0[..length].as_ptr_range();
    // SAFETY: the range lies in `frame`, which is aligned and outlives the reader.
    unsafe { Reader::new(range.start, range.end, OpaqueZero::new(0)) }
}

impl FlowLines for &Host {
    fn flow_line(&self, index: u32) -> Option<&FlowLine> {
        self.flows.get(index as usize)
    }
}

impl KnownWords for &Host {
    fn known_word(&self, index: u32) -> Option<&Shared> {
        self.known.get(index as usize)
    }
}

impl SourceSet for &Host {
    fn source_line(&self, _index: u32) -> Option<&SourceLine> {
        None
    }

    fn source_cells(&self, _slot: u32) -> Option<&SourceCells> {
        None
    }
}

impl Tables for &Host {
    fn cpu_state(&self) -> &CpuState {
        &self.cpu_state
    }

    fn ask_conntrack<A: Address>(&self, _packet: &Packet<A>, _flow: Flow) -> Answer {
        Answer::Silent
    }

    fn bucket_line(&self, scope: Scope, index: u32) -> Option<&BucketLine> {
        match scope {
            Scope::Source => self.buckets.get(index as usize),
            Scope::Prefix | Scope::Service => None,
        }
    }

    fn memory_line(&self, _memory: Memory, _index: u32) -> Option<&MemoryLine> {
        None
    }

    fn retry_line(&self, _index: u32) -> Option<&RetryLine> {
        None
    }

    fn limits(&self) -> Option<&Limits> {
        Some(&self.limits)
    }

    fn addresses<A: Answering>(&self) -> Option<(A, A)> {
        None
    }

    fn answer<A: Answering>(&self, _answer: &challenge::Answer<A>) -> bool {
        false
    }

    fn truncate<A: Reversible>(&self) -> bool {
        false
    }

    fn lists_ipv4(&self, list: List, address: Ipv4, now: Jiffies) -> bool {
        self.holds(list, address.0.into(), 32, now)
    }

    fn lists_ipv6(&self, list: List, address: Ipv6, now: Jiffies) -> bool {
        self.holds(list, u128::from_be_bytes(address.to_bytes()), 128, now)
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

    fn show<A: Address>(&self, _packet: &Packet<A>, _now: Jiffies) {}

    fn samples(&self) -> bool {
        self.cpu_state.samples()
    }

    fn note_offered(&self, line: u32, offered: Offered) {
        let mut lines = self.offered.borrow_mut();
        let noted = lines.entry(line).or_default();
        noted[0] += u64::from(OfferedSlot::SAMPLE);
        noted[1] = offered.address;
    }
}
