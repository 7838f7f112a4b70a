//! The packets of a capture, each at its time.

use super::{SimulationError, agenda::Event, flows::Flow, run::Run};

impl Run<'_> {
    /// Reads the capture's next packet and waits until it is due.
    pub(super) fn await_packet(&mut self) -> Result<(), SimulationError> {
        let Some(capture) = &mut self.capture else { return Ok(()) };
        if let Some(at) = capture.next(&mut self.recorded)? {
            // A packet that was recorded out of order comes at once.
            self.agenda.plan(at.max(self.now), Event::Packet);
        }
        Ok(())
    }

    /// The packet that was read arrives.
    pub(super) fn replay(&mut self) -> Result<(), SimulationError> {
        std::mem::swap(&mut self.maps.frame, &mut self.recorded);
        self.offer_recorded();
        self.await_packet()
    }

    /// Offers the packet to the guard if it opens a flow. A segment without SYN may belong to a
    /// connection older than the capture.
    fn offer_recorded(&mut self) {
        let opening = self.maps.frame.opening(&self.maps.environment, false);
        let Some(opening) = opening else { return };
        if self.maps.table.is_tracked(opening.key, self.now) {
            return;
        }
        // `capture::scenario` has a group for each class, in this order.
        let index = opening.class as usize;
        let scenario = self.scenario;
        let Some(group) = scenario.groups.get(index) else { return };
        if !self.waiting.contains_key(&opening.key) {
            self.record.flows_began(index, self.now, 1);
        }
        self.judge(group, Flow::new(index, opening, self.now));
    }
}
