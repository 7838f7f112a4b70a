//! The counters as documents.

use ctguard_layout::{Class, Counter, Group, Outcome, Row, TABLE};
use serde::{Serialize, Serializer};

use super::by_class::ByClass;
use ctguard_kernel::maps::Totals;

#[derive(Debug, Serialize)]
pub(crate) struct CounterReport {
    #[serde(flatten)]
    pub(crate) classes: ByClass<ClassCounters>,
    pub(super) packets: PacketCounters,
}

/// New flows of one class.
#[derive(Debug, Serialize)]
pub(crate) struct ClassCounters {
    pub(crate) seen: u64,
    pub(crate) admitted: u64,
    allowed: u64,
    /// Answered, or dropped until the sender tries again.
    pub(crate) challenged: u64,
    pub(crate) refused: ByOutcome,
}

/// Packets that are not new flows.
#[derive(Debug, Serialize)]
pub(crate) struct PacketCounters {
    #[serde(flatten)]
    pub(super) by_outcome: ByOutcome,
    wakeups: u64,
}

/// The counters of one group of outcomes; a JSON object with their labels as keys.
#[derive(Debug)]
pub(crate) struct ByOutcome(Vec<(&'static Row, u64)>);

impl CounterReport {
    pub(crate) fn of(&self, class: Class) -> &ClassCounters {
        self.classes.of(class)
    }

    /// Packets that open no flow, by the label of their outcome.
    pub(crate) fn packets(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.packets.by_outcome.0.iter().map(|(row, count)| (row.label, *count))
    }

    /// Packets of sources on a deny list, of all classes.
    pub(crate) fn denied_packets(&self) -> u64 {
        self.classes.iter().map(|(_, class)| class.denied_packets()).sum()
    }

    pub(crate) fn new(totals: &Totals) -> Self {
        Self::by(|counter| totals.get(counter))
    }

    pub(crate) fn by(get: impl Fn(Counter) -> u64) -> Self {
        let packets = |outcome| get(Counter::Packets(outcome));
        Self {
            classes: ByClass::new(|class| class_counters(&get, class)),
            packets: PacketCounters {
                by_outcome: ByOutcome::new(Group::Packet, packets),
                wakeups: get(Counter::Wakeups),
            },
        }
    }
}

fn class_counters(get: &impl Fn(Counter) -> u64, class: Class) -> ClassCounters {
    let of = |group| ByOutcome::new(group, |outcome| get(Counter::Flows(outcome, class)));
    ClassCounters {
        seen: Counter::seen(class).map(get).sum(),
        admitted: of(Group::Admitted).total(),
        allowed: get(Counter::Allowed(class)),
        challenged: of(Group::Challenged).total(),
        refused: of(Group::Refused),
    }
}

impl ClassCounters {
    /// New flows admitted, challenged, refused.
    pub(crate) fn verdicts(&self) -> [u64; 3] {
        [self.admitted, self.challenged, self.refused_flows()]
    }

    /// Packets of sources on the deny list, also those of old flows.
    pub(crate) fn denied_packets(&self) -> u64 {
        self.refused.of(Outcome::Denied)
    }

    /// Refused flows, without those packets.
    pub(crate) fn refused_flows(&self) -> u64 {
        self.refusals().map(|(_, flows)| flows).sum()
    }

    pub(crate) const fn allowed(&self) -> u64 {
        self.allowed
    }

    /// The same by the label of the reason.
    pub(crate) fn refusals(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let flows = self.refused.0.iter().filter(|(row, _)| row.is_new_flow);
        flows.map(|(row, count)| (row.label, *count))
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

    pub(crate) fn total(&self) -> u64 {
        self.0.iter().map(|(_, count)| count).sum()
    }
}

impl Serialize for ByOutcome {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(row, count)| (row.label, count)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails when a denied stream of one flow looks like a flood.
    #[test]
    fn packets_of_denied_sources_are_no_refused_flows() {
        let counted = [
            (Counter::Flows(Outcome::Denied, Class::Udp), 100_000),
            (Counter::Flows(Outcome::Denied, Class::Tcp), 1000),
            (Counter::Flows(Outcome::RefusedSource, Class::Udp), 7),
        ];
        let report = CounterReport::by(|counter| {
            counted.iter().find(|(it, _)| *it == counter).map_or(0, |(_, number)| *number)
        });
        let udp = report.of(Class::Udp);
        assert_eq!((udp.verdicts(), udp.denied_packets()), ([0, 0, 7], 100_000));
        assert!(udp.refusals().all(|(reason, _)| reason != "deny"));
        assert_eq!(report.denied_packets(), 101_000);
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["udp"]["refused"]["deny"], 100_000, "scripts read it there");
    }
}
