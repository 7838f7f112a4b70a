//! The packets of a recording, each at its time.

use ctguard_layout::Class;

use super::{agenda::Event, capture::CaptureError, flows::Flow, frame::Opening, run::Run};

impl Run<'_> {
    /// Reads the next packet of the recording and waits until it is due.
    pub(super) fn await_packet(&mut self) -> Result<(), CaptureError> {
        let Some(capture) = &mut self.capture else { return Ok(()) };
        if let Some(at) = capture.next(&mut self.recorded)? {
            // One that was recorded out of order comes at once.
            self.agenda.note(at.max(self.now), Event::Packet);
        }
        Ok(())
    }

    /// The packet that was waited for arrives.
    pub(super) fn replay(&mut self) -> Result<(), CaptureError> {
        std::mem::swap(&mut self.frame, &mut self.recorded);
        self.offer_recorded();
        self.await_packet()
    }

    /// Offers the packet to the guard if it opens a flow; a segment without SYN may belong to a
    /// connection older than the recording.
    fn offer_recorded(&mut self) {
        let Some(Opening { key, class }) = self.frame.opening(&self.maps.environment, false) else {
            return;
        };
        if self.maps.table.borrow().is_tracked(key, self.now) {
            return;
        }
        let group = match class {
            Class::Tcp => 0,
            Class::Udp => 1,
            Class::Other => 2,
        };
        if !self.waiting.contains_key(&key) {
            self.record.flows_began(group, self.now, 1);
        }
        let began = self.now;
        self.judge(Flow { group, source: 0, tuple: None, key, began, tries: 1, cookie: 0 });
    }
}
