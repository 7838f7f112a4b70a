//! Judges packets that nobody sent, by the data path's own code over a copy of the guard's maps.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ctguard_datapath::{
    challenge::{self, Answering, Reversible},
    classify::Flow,
    flow::FlowLines,
    guard::{Answer, CpuState, Guard, Memory, Offered, Scope, Tables},
    known_flows::KnownWords,
    packet::{Address, Ipv4, Ipv6, Packet},
    sources::SourceSet,
};
use ctguard_kernel::maps::{Copies, GuardMaps, OpenError};
use ctguard_layout::{
    BucketLine, Environment, FlowLine, Grant, Interface, Limits, List, MemoryLine, Outcome, Policy,
    RetryLine, SourceCells, SourceLine, Tier, shared::Shared, units::Jiffies,
};
use ctguard_simulation::{Frame, Kind, Tuple};

/// Tries of one source, to find how many flows it may open at once.
const MOST: u16 = 1000;
/// Where the tried flows begin; the known-flows filter is unlikely to hold their tuples.
const FIRST_PORT: u16 = 20_011;
/// The service that is asked for where no service has a limit.
pub(super) const PORT: u16 = 443;

/// What would become of the next packets of a source on one interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) outcome: Outcome,
    pub(super) tier: Tier,
    /// New flows that would be admitted one after another at this moment, and what the next one
    /// meets; none if so many were not refused.
    pub(super) at_once: u16,
    pub(super) then: Option<Outcome>,
}

struct Trial<'g> {
    maps: &'g GuardMaps,
    copies: Copies,
    environment: Environment,
    policy: Policy,
    limits: Limits,
    interface: Interface,
    cpu_state: Box<CpuState>,
    frame: Frame,
}

/// Judges the next packets of `source` that open a flow each.
pub(super) fn judge(
    maps: &GuardMaps,
    interface: &Interface,
    (kind, source): (Kind, IpAddr),
    now: Jiffies,
) -> Result<Verdict, OpenError> {
    let mut environment = maps.environment();
    // The packets are for this machine.
    environment.daemon.stations_in_use = 0;
    let mut trial = Trial {
        maps,
        copies: Copies::of(maps)?,
        environment,
        policy: maps.policy(),
        limits: maps.limits(),
        interface: *interface,
        cpu_state: Box::default(),
        frame: Frame::empty(),
    };
    let (outcome, tier) = trial.next(kind, source, 0, now);
    let mut then = Some(outcome);
    let mut at_once = 0;
    while then == Some(Outcome::Admitted) {
        at_once += 1;
        then = (at_once < MOST).then(|| trial.next(kind, source, at_once, now).0);
    }
    Ok(Verdict { outcome, tier, at_once, then })
}

impl Trial<'_> {
    fn next(&mut self, kind: Kind, source: IpAddr, number: u16, now: Jiffies) -> (Outcome, Tier) {
        let destination: IpAddr = match source {
            IpAddr::V4(_) => Ipv4Addr::new(192, 0, 2, 1).into(),
            IpAddr::V6(_) => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
        };
        let source_port = FIRST_PORT + number;
        let tuple = Tuple { source, destination, source_port, destination_port: PORT };
        self.frame.write(kind, &tuple);
        let guard = Guard { environment: &self.environment, tables: &*self };
        let judgement = guard.judge(self.frame.reader(), now);
        let tier = Tier::ALL.get(judgement.tier() as usize).copied();
        (judgement.outcome(), tier.unwrap_or(Tier::Strangers))
    }
}

impl FlowLines for &Trial<'_> {
    fn flow_line(&self, index: u32) -> Option<&FlowLine> {
        self.copies.flow_line(index)
    }
}

impl KnownWords for &Trial<'_> {
    fn known_word(&self, index: u32) -> Option<&Shared> {
        self.copies.known_word(index)
    }
}

impl SourceSet for &Trial<'_> {
    fn source_line(&self, index: u32) -> Option<&SourceLine> {
        self.copies.source_line(index)
    }

    fn source_cells(&self, slot: u32) -> Option<&SourceCells> {
        self.copies.source_cells(slot)
    }
}

impl Tables for &Trial<'_> {
    fn bucket_line(&self, scope: Scope, index: u32) -> Option<&BucketLine> {
        self.copies.bucket_line(scope, index)
    }

    fn memory_line(&self, memory: Memory, index: u32) -> Option<&MemoryLine> {
        self.copies.memory_line(memory, index)
    }

    fn retry_line(&self, index: u32) -> Option<&RetryLine> {
        self.copies.retry_line(index)
    }

    fn lists_ipv4(&self, list: List, address: Ipv4, now: Jiffies) -> bool {
        self.maps.hold(list, Ipv4Addr::from(address.0).into(), now.0)
    }

    fn lists_ipv6(&self, list: List, address: Ipv6, now: Jiffies) -> bool {
        self.maps.hold(list, Ipv6Addr::from(address.to_bytes()).into(), now.0)
    }

    fn interface(&self) -> Option<&Interface> {
        Some(&self.interface)
    }

    fn policy(&self) -> Option<&Policy> {
        Some(&self.policy)
    }

    fn grant(&self) -> Option<&Grant> {
        Some(self.copies.grant())
    }

    fn limits(&self) -> Option<&Limits> {
        Some(&self.limits)
    }

    fn cpu_state(&self) -> &CpuState {
        &self.cpu_state
    }

    /// The flows are new.
    fn ask_conntrack<A: Address>(&self, _packet: &Packet<A>, _flow: Flow) -> Answer {
        Answer::Untracked
    }

    fn addresses<A: Answering>(&self) -> Option<(A, A)> {
        A::read(self.frame.reader())
    }

    fn answer<A: Answering>(&self, _answer: &challenge::Answer<A>) -> bool {
        true
    }

    fn truncate<A: Reversible>(&self) -> bool {
        true
    }

    fn samples(&self) -> bool {
        false
    }

    fn show<A: Address>(&self, _packet: &Packet<A>, _now: Jiffies) {}

    fn note_offered(&self, _line: u32, _offered: Offered) {}
}
