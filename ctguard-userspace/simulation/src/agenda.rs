//! What is to happen, in the order of time; what comes at once, in the order in which it was noted.

use std::{
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
    time::Duration,
};

/// What is to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A group opens its next flow.
    Arrival { group: usize },
    /// The next packet of the recording arrives.
    Packet,
    /// A flow that was refused is tried again.
    Retry { flow: usize },
    /// The source of a SYN answers a challenge.
    Reset { flow: usize },
    /// It sends its SYN again, having answered.
    Again { flow: usize },
    /// An admitted packet reaches the table.
    Confirm { flow: usize },
    /// The destination answers.
    Answer { flow: usize },
    /// The source ends the handshake.
    Acknowledge { flow: usize },
    /// The connection ends.
    Close { flow: usize },
    /// The daemon reads; one of another number has been put off.
    Tick { number: u64 },
    /// The daemon writes what it decided.
    Write,
    /// The daemon learns who holds connections.
    Learn,
    /// The daemon deletes entries that nobody answered.
    Reclaim,
    /// The table is looked at for the report.
    Sample,
}

/// The events to come.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    events: BinaryHeap<Reverse<Noted>>,
    count: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Noted {
    at: Duration,
    number: u64,
    event: Event,
}

impl Agenda {
    pub(super) fn note(&mut self, at: Duration, event: Event) {
        self.count += 1;
        self.events.push(Reverse(Noted { at, number: self.count, event }));
    }

    pub(super) fn next(&mut self) -> Option<(Duration, Event)> {
        self.events.pop().map(|Reverse(noted)| (noted.at, noted.event))
    }
}

impl Ord for Noted {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

impl PartialOrd for Noted {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_and_then_as_they_were_noted() {
        let mut agenda = Agenda::default();
        agenda.note(Duration::from_secs(2), Event::Write);
        agenda.note(Duration::from_secs(1), Event::Sample);
        agenda.note(Duration::from_secs(1), Event::Packet);
        let order: Vec<_> = std::iter::from_fn(|| agenda.next()).map(|(_, event)| event).collect();
        assert_eq!(order, [Event::Sample, Event::Packet, Event::Write]);
    }
}
