//! Lets packets of clients arrive with those of a flood, and share their chance.
//!
//! A flood comes in bursts, and the queue has room between them. A packet that came only then would
//! always find a place, though two of three packets of the flood find none. So while a flood lasts,
//! whoever makes it delivers the clients' packets, too, and loses as large a share of them.

use std::{
    collections::VecDeque,
    fs::File,
    io::{ErrorKind, Write as _},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::random::Random;

/// The way that packets of far clients take to the router.
#[derive(Debug)]
pub struct Arrivals {
    to: File,
    /// What waits for the next burst; none while no flood lasts.
    waiting: Mutex<Option<VecDeque<Vec<u8>>>>,
    lost: AtomicU64,
}

/// A flood that delivers all packets; they go by themselves again when it is dropped.
#[derive(Debug)]
pub struct Mixing<'a> {
    arrivals: &'a Arrivals,
    random: Random,
}

impl Arrivals {
    /// Packets arrive by being written to `to`.
    #[must_use]
    pub fn new(to: File) -> Self {
        Self { to, waiting: Mutex::new(None), lost: AtomicU64::new(0) }
    }

    /// From now on, packets wait for bursts.
    #[must_use]
    pub fn mix(&self) -> Mixing<'_> {
        *self.lock() = Some(VecDeque::new());
        Mixing { arrivals: self, random: Random::new(1) }
    }

    /// Packets lost with those of floods.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Delivers a packet, or lets it wait for a burst. Gives it back where the device takes none
    /// at the moment.
    pub fn deliver(&self, packet: Vec<u8>) -> Result<(), Vec<u8>> {
        match &mut *self.lock() {
            Some(waiting) => {
                waiting.push_back(packet);
                Ok(())
            }
            None if self.write(&packet) => Ok(()),
            None => Err(packet),
        }
    }

    /// A device that is down, or going, loses what is sent to it, as a cut wire does.
    fn write(&self, packet: &[u8]) -> bool {
        let written = (&mut &self.to).write(packet);
        !written.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }

    fn lock(&self) -> MutexGuard<'_, Option<VecDeque<Vec<u8>>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Mixing<'_> {
    /// Delivers what waits, but loses of a million packets so many.
    pub fn deliver(&mut self, lost_of_million: u32) {
        let waiting = self.arrivals.lock().as_mut().map(std::mem::take).unwrap_or_default();
        for packet in waiting {
            if self.random.below(1_000_000) < lost_of_million {
                self.arrivals.lost.fetch_add(1, Ordering::Relaxed);
            } else {
                self.arrivals.write(&packet);
            }
        }
    }
}

impl Drop for Mixing<'_> {
    fn drop(&mut self) {
        let left = self.arrivals.lock().take();
        for packet in left.into_iter().flatten() {
            self.arrivals.write(&packet);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &std::path::Path) -> Vec<u8> {
        std::fs::read(path).expect("the file is there")
    }

    #[test]
    fn packets_wait_for_bursts_while_a_flood_lasts_and_share_its_chance() {
        let path = std::env::temp_dir().join(format!("ctguard-mixing-{}", std::process::id()));
        let arrivals = Arrivals::new(File::create(&path).expect("a file"));
        let deliver = |byte| arrivals.deliver(vec![byte]).expect("files take everything");
        deliver(1);
        let mut mixing = arrivals.mix();
        deliver(2);
        assert_eq!(read(&path), [1]);
        mixing.deliver(0);
        deliver(3);
        mixing.deliver(1_000_000);
        assert_eq!((read(&path), arrivals.lost()), (vec![1, 2], 1));
        deliver(4);
        drop(mixing);
        deliver(5);
        assert_eq!(read(&path), [1, 2, 4, 5]);
        std::fs::remove_file(path).expect("it was there");
    }
}
