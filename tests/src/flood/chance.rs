//! What share of a flood is lost in the receiver's queue, from the device's own counter.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::generator::Generator;

/// A queue that is full only now and then loses what comes just then, whoever sends it.
const NOW_AND_THEN: u32 = 50_000;
/// How often the counter is read.
const PERIOD: Duration = Duration::from_millis(5);

/// The share lost of late.
pub(super) struct Chance {
    device: String,
    next: Instant,
    dropped: u64,
    offered: u64,
    lost_of_million: u32,
}

impl Chance {
    pub(super) fn new(device: &str, now: Instant) -> Self {
        let device = device.to_owned();
        Self { device, next: now, dropped: 0, offered: 0, lost_of_million: 0 }
    }

    /// Of a million packets, so many were lost.
    pub(super) fn lost_of_million(&mut self, now: Instant, generator: &Generator) -> Result<u32> {
        if now >= self.next {
            self.next = now + PERIOD;
            let dropped = self.read_dropped()?;
            let offered = generator.offered()?;
            let (lost, of) = (dropped - self.dropped, offered - self.offered);
            // The first reading is of all that the device ever dropped; and while a flood rests,
            // nothing is lost with it.
            let share = lost.min(of) * 1_000_000;
            let share = share.checked_div(of).filter(|_| self.offered > 0).unwrap_or(0);
            let share = u32::try_from(share).unwrap_or(0);
            self.lost_of_million = if share > NOW_AND_THEN { share } else { 0 };
            (self.dropped, self.offered) = (dropped, offered);
        }
        Ok(self.lost_of_million)
    }

    fn read_dropped(&self) -> Result<u64> {
        let path = "/proc/thread-self/net/dev";
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
        dropped(&text, &self.device).with_context(|| format!("{path} lacks {}", self.device))
    }
}

/// What a device could not send: the twelfth number of its line.
fn dropped(text: &str, device: &str) -> Option<u64> {
    let numbers = text.lines().find_map(|line| line.trim().strip_prefix(device)?.strip_prefix(':'));
    numbers?.split_whitespace().nth(11)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_found_by_its_whole_name() {
        let text = "Inter-|\n face |\n isp01: 0 0 0 0 0 0 0 0 0 0 0 1 0 0 0 0\n  \
                    isp0: 9 9 9 9 9 9 9 9 9 9 9 7 9 9 9 9\n";
        assert_eq!(dropped(text, "isp0"), Some(7));
        assert_eq!(dropped(text, "isp"), None);
    }
}
