//! Events to come, in the order of time. Events of one moment come in the order of their planning.

use std::{collections::BTreeMap, time::Duration};

use super::flows::Flow;

#[derive(Debug)]
pub(super) enum Event {
    /// A group opens its next flow.
    Arrival {
        group: usize,
    },
    /// The next packet of the capture arrives.
    Packet,
    Flow(Step, Box<Flow>),
    /// The daemon reads, unless another tick was planned since.
    Tick {
        number: u64,
    },
    /// The daemon writes what it decided.
    Write,
    /// The daemon has looked at the table, unless another look was planned since.
    Look {
        number: u64,
    },
    /// The report takes a sample of the table.
    Sample,
}

/// What happens to a flow.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    /// The source sends again what was dropped.
    Retry,
    /// The source answers a challenge with a RST.
    Reset,
    /// The source sends its SYN again after the RST.
    Again,
    /// The admitted packet reaches the table.
    Confirm,
    /// The destination answers.
    Answer,
    /// The source completes the handshake.
    Acknowledge,
    /// The connection ends.
    Close,
}

#[derive(Debug, Default)]
pub(super) struct Agenda {
    events: BTreeMap<(Duration, u64), Event>,
    planned: u64,
}

impl Agenda {
    pub(super) fn plan(&mut self, at: Duration, event: Event) {
        self.planned += 1;
        self.events.insert((at, self.planned), event);
    }

    pub(super) fn next(&mut self) -> Option<(Duration, Event)> {
        self.events.pop_first().map(|((at, _), event)| (at, event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_and_then_as_they_were_planned() {
        let mut agenda = Agenda::default();
        agenda.plan(Duration::from_secs(2), Event::Write);
        agenda.plan(Duration::from_secs(1), Event::Sample);
        agenda.plan(Duration::from_secs(1), Event::Packet);
        let mut next = || agenda.next().unwrap().1;
        assert!(matches!([next(), next(), next()], [Event::Sample, Event::Packet, Event::Write]));
    }
}
