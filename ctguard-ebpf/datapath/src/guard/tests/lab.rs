//! The guard over maps on the host, at a time of its own, and the frames that it judges.

use std::{
    cell::{Cell, RefCell},
    net::{IpAddr, Ipv4Addr},
    vec::Vec,
};

use etherparse::PacketBuilder;

use crate::{
    challenge::{self, Answering, Reversible},
    classify::Flow,
    flow::FlowLines,
    guard::{Answer, CpuState, Guard, Judgement, Memory, Offered, Scope, Tables},
    hash::testing::KEY,
    known_flows::KnownWords,
    layout::{
        BucketLine, CLASS_SLOTS, CLASSES, CaptureOrder, Ceiling, Class, CookieKey, DaemonFacts,
        Environment, FLOW_KINDS, Fixed, FlowKind, FlowLine, Grant, Group, Interface, Limits, List,
        MemoryLine, OperatorLimits, Outcome, Policy, Rate, RetryLine, SourceCells, SourceLine,
        Tier,
    },
    leaving::note_leaving,
    packet::{Address, Ipv4, Ipv6, Packet, TcpFlags, reader::testing::AlignedFrame},
    shared::Shared,
    sources::{self, SourceSet},
    units::{Jiffies, Ticks},
};

pub(super) const JIFFIES_PER_SECOND: u64 = 1000;
pub(super) const START: Jiffies = Jiffies(1_000_000);
pub(super) const REMOTE: &str = "192.0.2.1";
pub(super) const LOCAL: &str = "198.51.100.1";
pub(super) const BURST: u32 = 10;
const RATE: u32 = 20;

/// The guard over maps in memory, at a time of its own.
pub(super) struct Lab {
    pub(super) policy: Policy,
    pub(super) environment: Environment,
    pub(super) interface: Interface,
    pub(super) grant: Grant,
    pub(super) flows: Vec<FlowLine>,
    pub(super) buckets: Vec<BucketLine>,
    pub(super) prefixes: Vec<BucketLine>,
    pub(super) services: Vec<BucketLine>,
    pub(super) limits: Limits,
    pub(super) sources: Vec<SourceLine>,
    pub(super) source_cells: Vec<SourceCells>,
    pub(super) memories: [Vec<MemoryLine>; 2],
    pub(super) retries: Vec<RetryLine>,
    /// The frame that is being judged.
    judged: RefCell<Vec<u8>>,
    /// The last challenge ACK: its cookie.
    pub(super) cookie: Cell<Option<u32>>,
    pub(super) lists: Vec<(List, u128, u64)>,
    known: Vec<Shared>,
    cpu_state: CpuState,
    /// What conntrack holds: the source's scope and the flow's key.
    pub(super) conntrack: RefCell<Vec<(u64, u32)>>,
    /// How often conntrack was asked.
    pub(super) asked: Cell<u32>,
    pub(super) offered: RefCell<Vec<Offered>>,
    pub(super) samples: Cell<bool>,
    pub(super) unknown_interface: bool,
    /// Whether queries of IPv4, and of IPv6, can be truncated.
    pub(super) truncates: [bool; 2],
    pub(super) now: RefCell<Jiffies>,
}

impl Lab {
    pub(super) fn new() -> Self {
        let interval = Ticks(JIFFIES_PER_SECOND * Ticks::PER_JIFFY / u64::from(RATE));
        let tolerance = Ticks(interval.0 * u64::from(BURST - 1));
        let grant = Grant::default();
        grant.heartbeat.store(START.0);
        grant.allowances[0].limit.store(1_000_000);
        grant.allowances[0].wake_at.store(900_000);
        Self {
            policy: Policy {
                layout_version: 1,
                switches: 0,
                target_ppm: 850_000,
                source: [Rate { flows_per_second: RATE, burst: BURST }; CLASSES],
                fallback_flows_per_second: 0,
                floor: [1; CLASSES],
                prefix: [Rate::default(); CLASSES],
                service: [Rate::default(); CLASSES],
                adaptive_ppm: [0; 2],
                reclaim_after: [0; 6],
                overload_after: 0,
                overload_for: 0,
                own_ceilings: 0,
                answers_per_second: 0,
            },
            environment: environment(Environment {
                operator: OperatorLimits::default(),
                capture: CaptureOrder::default(),
                fixed: Fixed {
                    source_line_mask: 1023,
                    flow_line_mask: 1023,
                    known_words: 1024,
                    tuple_key: KEY,
                    source_key: KEY,
                    cookie_key: CookieKey { words: [1, 2] },
                    prefix_line_mask: 63,
                    service_line_mask: 63,
                    retry_line_mask: 63,
                    answered_line_mask: 63,
                    challenged_line_mask: 63,
                    known_source_line_mask: sources::LINES - 1,
                    ..Fixed::default()
                },
                daemon: DaemonFacts {
                    jiffies_per_second: 1000,
                    coarse_shift: 10,
                    heartbeat_patience_jiffies: 2000,
                    tcp_loose: 1,
                    repeat_window_coarse: 3,
                    flow_timeouts: [30; FLOW_KINDS],
                    cookie_shift: 12,
                    memory_shift: 7,
                    retry_after: 7,
                    retry_before: 94,
                    retry_joined: 5,
                    retry_kept: 45,
                    answered_life_coarse: 35,
                    challenge_interval: 100,
                    ..DaemonFacts::default()
                },
            }),
            interface: Interface {
                ifindex: 2,
                ceilings: [Ceiling { interval, tolerance }; CLASS_SLOTS],
                ..Interface::FREE
            },
            grant,
            flows: (0..1024).map(|_| FlowLine::default()).collect(),
            buckets: (0..1024).map(|_| BucketLine::default()).collect(),
            prefixes: (0..64).map(|_| BucketLine::default()).collect(),
            services: (0..64).map(|_| BucketLine::default()).collect(),
            limits: Limits::default(),
            sources: (0..sources::ALL_LINES).map(|_| SourceLine::default()).collect(),
            source_cells: (0..sources::SLOTS).map(|_| SourceCells::default()).collect(),
            memories: std::array::from_fn(|_| (0..64).map(|_| MemoryLine::default()).collect()),
            retries: (0..64).map(|_| RetryLine::default()).collect(),
            judged: RefCell::default(),
            cookie: Cell::new(None),
            lists: Vec::new(),
            known: (0..2048).map(|_| Shared::new(0)).collect(),
            cpu_state: CpuState::default(),
            conntrack: RefCell::default(),
            asked: Cell::new(0),
            offered: RefCell::default(),
            samples: Cell::new(false),
            unknown_interface: false,
            truncates: [true; 2],
            now: RefCell::new(START),
        }
    }

    fn guard(&self) -> Guard<'_, &Self> {
        Guard { environment: &self.environment, tables: self }
    }

    pub(super) fn judge(&self, frame: &[u8]) -> Judgement {
        frame.clone_into(&mut self.judged.borrow_mut());
        let frame = AlignedFrame::new(frame);
        let plain = self.judge_plain(&frame);
        let judgement = self.guard().judge(frame.reader(), *self.now.borrow());
        assert!(plain.is_undecided() || plain == judgement, "{plain:?} and not {judgement:?}");
        judgement
    }

    /// What becomes of a plain packet, without what this changes.
    pub(super) fn judge_plain(&self, frame: &AlignedFrame) -> Judgement {
        let (woken_at, offered) = (self.grant.woken_at.load(), self.offered.borrow().len());
        let judgement = self.guard().judge_plain(frame.reader(), *self.now.borrow());
        self.grant.woken_at.store(woken_at);
        self.offered.borrow_mut().truncate(offered);
        judgement
    }

    pub(super) fn leave(&self, frame: &[u8]) {
        let frame = AlignedFrame::new(frame);
        note_leaving(frame.reader(), &self.environment, &self, *self.now.borrow()).unwrap();
    }

    pub(super) fn admitted_of(packets: u32, judge: impl Fn(u32) -> Judgement) -> u32 {
        let admitted = (0..packets).filter(|&packet| judge(packet) == Outcome::Admitted);
        u32::try_from(admitted.count()).unwrap()
    }

    pub(super) fn syn(&self, source: &str, port: u32) -> Judgement {
        self.judge(&syn(source, LOCAL, port))
    }

    pub(super) fn tcp(&self, source: &str, port: u32, flags: u32) -> Judgement {
        self.judge(&tcp(source, LOCAL, port, 80, flags))
    }

    pub(super) fn udp(&self, source: &str, port: u32) -> Judgement {
        self.judge(&udp(source, LOCAL, port, 9))
    }

    pub(super) fn udp6(&self, source: &str, port: u32) -> Judgement {
        self.judge(&udp(source, "2001:db8:ffff::1", port, 9))
    }

    pub(super) fn pass(&self, jiffies: u64) {
        let daemon_lives = self.now.borrow().since(Jiffies(self.grant.heartbeat.load()))
            <= u64::from(self.environment.daemon.heartbeat_patience_jiffies);
        self.now.borrow_mut().0 += jiffies;
        if daemon_lives {
            self.grant.heartbeat.store(self.now.borrow().0);
        }
    }

    pub(super) fn pass_seconds(&self, seconds: u64) {
        self.pass(seconds * JIFFIES_PER_SECOND);
    }

    pub(super) fn lift_ceilings(&mut self) {
        self.interface.ceilings =
            [Ceiling { interval: Ticks(0), tolerance: Ticks(0) }; CLASS_SLOTS];
    }

    pub(super) fn list(&mut self, list: List, address: &str, expires_at: u64) {
        self.environment.operator.lists_in_use |= list.bit();
        self.lists.push((list, bits(address), expires_at));
    }

    fn holds(&self, list: List, address: u128, now: Jiffies) -> bool {
        self.lists.iter().any(|&(of, listed, expires_at)| {
            of == list && listed == address && (expires_at == 0 || now.0 < expires_at)
        })
    }
}

/// What a test expects of a judgement: as much of it as it names.
impl PartialEq<Outcome> for Judgement {
    fn eq(&self, outcome: &Outcome) -> bool {
        self.is(*outcome)
    }
}

impl PartialEq<(Outcome, Class)> for Judgement {
    fn eq(&self, (outcome, class): &(Outcome, Class)) -> bool {
        self.is(*outcome) && self.class() == Some(*class)
    }
}

impl PartialEq<(Outcome, Class, Tier)> for Judgement {
    fn eq(&self, (outcome, class, tier): &(Outcome, Class, Tier)) -> bool {
        *self == (*outcome, *class) && self.tier() == *tier as u32
    }
}

pub(super) fn is_refused(judgement: Judgement) -> bool {
    judgement.outcome().row().group == Group::Refused
}

impl FlowLines for &Lab {
    fn flow_line(&self, index: u32) -> Option<&FlowLine> {
        self.flows.get(index as usize)
    }
}

impl KnownWords for &Lab {
    fn known_word(&self, index: u32) -> Option<&Shared> {
        self.known.get(index as usize)
    }
}

impl SourceSet for &Lab {
    fn source_line(&self, index: u32) -> Option<&SourceLine> {
        self.sources.get(index as usize)
    }

    fn source_cells(&self, slot: u32) -> Option<&SourceCells> {
        self.source_cells.get(slot as usize)
    }
}

impl Tables for &Lab {
    fn cpu_state(&self) -> &CpuState {
        &self.cpu_state
    }

    fn ask_conntrack<A: Address>(&self, packet: &Packet<A>, flow: Flow) -> Answer {
        self.asked.set(self.asked.get() + 1);
        let tuple = (packet.source.source_scope(), flow.key);
        if self.conntrack.borrow().contains(&tuple) { Answer::Tracked } else { Answer::Untracked }
    }

    fn limits(&self) -> Option<&Limits> {
        Some(&self.limits)
    }

    fn bucket_line(&self, scope: Scope, index: u32) -> Option<&BucketLine> {
        let lines = match scope {
            Scope::Source => &self.buckets,
            Scope::Prefix => &self.prefixes,
            Scope::Service => &self.services,
        };
        lines.get(index as usize)
    }

    fn memory_line(&self, memory: Memory, index: u32) -> Option<&MemoryLine> {
        self.memories[memory as usize].get(index as usize)
    }

    fn retry_line(&self, index: u32) -> Option<&RetryLine> {
        self.retries.get(index as usize)
    }

    fn addresses<A: Answering>(&self) -> Option<(A, A)> {
        A::read(AlignedFrame::new(&self.judged.borrow()).reader())
    }

    fn truncate<A: Reversible>(&self) -> bool {
        self.truncates[usize::from(size_of::<A>() > 4)]
    }

    fn answer<A: Answering>(&self, answer: &challenge::Answer<A>) -> bool {
        self.cookie.set(Some(answer.cookie));
        true
    }

    fn lists_ipv4(&self, list: List, address: Ipv4, now: Jiffies) -> bool {
        self.holds(list, u128::from(address.0), now)
    }

    fn lists_ipv6(&self, list: List, address: Ipv6, now: Jiffies) -> bool {
        self.holds(list, u128::from_be_bytes(address.to_bytes()), now)
    }

    fn interface(&self) -> Option<&Interface> {
        (!self.unknown_interface).then_some(&self.interface)
    }

    fn policy(&self) -> Option<&Policy> {
        Some(&self.policy)
    }

    fn grant(&self) -> Option<&Grant> {
        Some(&self.grant)
    }

    fn samples(&self) -> bool {
        self.samples.get()
    }

    fn show<A: Address>(&self, _packet: &Packet<A>, _now: Jiffies) {}

    fn note_offered(&self, _line: u32, offered: Offered) {
        self.offered.borrow_mut().push(offered);
    }
}

fn environment(mut environment: Environment) -> Environment {
    environment.daemon.set_flow_timeout(FlowKind::TcpOpening, 60);
    environment.daemon.set_flow_timeout(FlowKind::TcpEstablished, 300);
    environment.daemon.set_flow_timeout(FlowKind::TcpReset, 10);
    environment
}

pub(super) fn syn(source: &str, destination: &str, port: u32) -> Vec<u8> {
    tcp(source, destination, port, 80, TcpFlags::SYN)
}

pub(super) fn tcp(source: &str, destination: &str, port: u32, to: u16, flags: u32) -> Vec<u8> {
    let port = u16::try_from(port).unwrap();
    let link = PacketBuilder::ethernet2([2; 6], [4; 6]);
    let mut frame = Vec::new();
    let segment = match (source.parse().unwrap(), destination.parse().unwrap()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            link.ipv4(source.octets(), destination.octets(), 64).tcp(port, to, 1, 1024)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            link.ipv6(source.octets(), destination.octets(), 64).tcp(port, to, 1, 1024)
        }
        families => panic!("{families:?}"),
    };
    segment.write(&mut frame, &[]).unwrap();
    let flags_at = frame.len() - 20 + 13;
    frame[flags_at] = u8::try_from(flags).unwrap();
    frame
}

/// A segment that carries a byte.
pub(super) fn data(source: &str, destination: &str, port: u32, to: u16) -> Vec<u8> {
    let mut frame = tcp(source, destination, port, to, TcpFlags::ACK);
    frame.push(1);
    frame[17] += 1;
    frame
}

pub(super) fn echo(source: &str, destination: &str) -> Vec<u8> {
    let (source, destination): (Ipv4Addr, Ipv4Addr) =
        (source.parse().unwrap(), destination.parse().unwrap());
    let mut frame = Vec::new();
    PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4(source.octets(), destination.octets(), 64)
        .icmpv4_echo_request(7, 1)
        .write(&mut frame, &[])
        .unwrap();
    frame
}

pub(super) fn udp(source: &str, destination: &str, port: u32, to: u16) -> Vec<u8> {
    let port = u16::try_from(port).unwrap();
    let link = PacketBuilder::ethernet2([2; 6], [4; 6]);
    let mut frame = Vec::new();
    let datagram = match (source.parse().unwrap(), destination.parse().unwrap()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            link.ipv4(source.octets(), destination.octets(), 64).udp(port, to)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            link.ipv6(source.octets(), destination.octets(), 64).udp(port, to)
        }
        families => panic!("{families:?}"),
    };
    datagram.write(&mut frame, &[]).unwrap();
    frame
}

fn bits(address: &str) -> u128 {
    match address.parse().unwrap() {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}
