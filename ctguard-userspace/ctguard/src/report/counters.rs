//! The counters as documents.

use ctguard_layout::{Class, Counter, Group, Outcome, Row, TABLE};
use serde::{Serialize, Serializer};

use ctguard_kernel::maps::Totals;

/// By class, and what is of no class.
#[derive(Debug, Serialize)]
pub(super) struct CounterReport {
    pub(super) tcp: ClassCounters,
    pub(super) udp: ClassCounters,
    pub(super) other: ClassCounters,
    pub(super) packets: PacketCounters,
}

/// New flows of one class.
#[derive(Debug, Serialize)]
pub(super) struct ClassCounters {
    pub(super) seen: u64,
    pub(super) admitted: u64,
    pub(super) allowed: u64,
    /// Answered or dropped, to come again if somebody is there.
    pub(super) challenged: u64,
    pub(super) refused: ByOutcome,
}

/// Packets that are no new flow of a class.
#[derive(Debug, Serialize)]
pub(super) struct PacketCounters {
    #[serde(flatten)]
    by_outcome: ByOutcome,
    pub(super) wakeups: u64,
}

/// The counters of one group of outcomes; a JSON object with their labels as keys.
#[derive(Debug)]
pub(super) struct ByOutcome(Vec<(&'static Row, u64)>);

impl CounterReport {
    pub(super) fn new(totals: &Totals) -> Self {
        Self {
            tcp: ClassCounters::new(totals, Class::Tcp),
            udp: ClassCounters::new(totals, Class::Udp),
            other: ClassCounters::new(totals, Class::Other),
            packets: PacketCounters {
                by_outcome: ByOutcome::new(Group::Packet, |outcome| {
                    totals.get(Counter::Packets(outcome))
                }),
                wakeups: totals.get(Counter::Wakeups),
            },
        }
    }
}

impl ClassCounters {
    fn new(totals: &Totals, class: Class) -> Self {
        let of =
            |group| ByOutcome::new(group, |outcome| totals.get(Counter::Flows(outcome, class)));
        Self {
            seen: totals.seen(class),
            admitted: of(Group::Admitted).total(),
            allowed: totals.get(Counter::Allowed(class)),
            challenged: of(Group::Challenged).total(),
            refused: of(Group::Refused),
        }
    }
}

impl PacketCounters {
    pub(super) fn of(&self, outcome: Outcome) -> u64 {
        self.by_outcome.of(outcome)
    }
}

impl ByOutcome {
    fn new(group: Group, count: impl Fn(Outcome) -> u64) -> Self {
        let rows = TABLE.iter().filter(|row| row.group == group);
        Self(rows.map(|row| (row, count(row.outcome))).collect())
    }

    pub(super) fn of(&self, outcome: Outcome) -> u64 {
        self.0.iter().filter(|(row, _)| row.outcome == outcome).map(|(_, count)| count).sum()
    }

    pub(super) fn total(&self) -> u64 {
        self.0.iter().map(|(_, count)| count).sum()
    }
}

impl Serialize for ByOutcome {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(row, count)| (row.label, count)))
    }
}
