//! When packets are due that are sent once more: each so long after it was seen.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// How far the count had come at several times, and how much of it is due.
#[derive(Debug)]
pub(super) struct Later {
    after: Duration,
    waiting: VecDeque<(Instant, u64)>,
    passed: u64,
}

impl Later {
    pub(super) fn new(after: Duration) -> Self {
        Self { after, waiting: VecDeque::new(), passed: 0 }
    }

    /// Notes that `seen` packets were seen so far, and tells how many more are due than before.
    pub(super) fn due(&mut self, now: Instant, seen: u64) -> u32 {
        self.waiting.push_back((now, seen));
        let before = self.passed;
        while let Some((time, count)) = self.waiting.front()
            && *time + self.after <= now
        {
            self.passed = *count;
            self.waiting.pop_front();
        }
        u32::try_from(self.passed - before).unwrap_or(u32::MAX)
    }

    /// How many are due altogether.
    pub(super) fn passed(&self) -> u64 {
        self.passed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_due_once_when_its_time_has_come() {
        let zero = Instant::now();
        let mut later = Later::new(Duration::from_millis(10));
        let mut due =
            |milliseconds, seen| later.due(zero + Duration::from_millis(milliseconds), seen);
        assert_eq!(
            [due(0, 5), due(5, 8), due(9, 8), due(10, 9), due(15, 9), due(30, 9)],
            [0, 0, 0, 5, 3, 1]
        );
        assert_eq!(later.passed(), 9);
    }
}
