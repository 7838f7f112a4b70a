//! The connection table as a model: entries, how long each lives, and when they leave.
//!
//! Entries leave within a second of their end, or are deleted by the guard. When the table is full
//! new ones are refused; the kernel's early drop, which then makes room at the cost of half-open
//! connections, is left out.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{BuildHasherDefault, Hasher},
    time::Duration,
};

use super::scenario::Lifetimes;
use ctguard_units::TableSample;

/// The state of an entry, as far as it decides how long it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    SynSent,
    SynRecv,
    Established,
    /// Picked up midway, and nobody has answered.
    Unacknowledged,
    TimeWait,
    Udp,
    UdpStream,
    Icmp,
}

/// The table has no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

/// One entry.
#[derive(Clone, Copy, Debug)]
struct Entry {
    began: Duration,
    ends: Duration,
    is_answered: bool,
}

/// `nf_conntrack`, with a number for each tuple.
#[derive(Debug)]
pub(super) struct ConnectionTable {
    max: u64,
    lifetimes: Lifetimes,
    entries: HashMap<u64, Entry, BuildHasherDefault<AsItIs>>,
    /// Entries to look at, by the second.
    agenda: BTreeMap<u64, Vec<u64>>,
}

impl ConnectionTable {
    pub(super) fn new(max: u32, lifetimes: Lifetimes) -> Self {
        let (entries, agenda) = (HashMap::default(), BTreeMap::new());
        Self { max: max.into(), lifetimes, entries, agenda }
    }

    pub(super) fn sample(&self) -> TableSample {
        TableSample { entries: self.count(), max: self.max }
    }

    pub(super) fn count(&self) -> u64 {
        u64::try_from(self.entries.len()).unwrap_or(u64::MAX)
    }

    /// Whether the tuple has an entry that a look-up finds.
    pub(super) fn is_tracked(&self, key: u64, now: Duration) -> bool {
        self.entries.get(&key).is_some_and(|entry| entry.ends > now)
    }

    /// Makes an entry; one that is there stays.
    pub(super) fn open(&mut self, key: u64, state: State, now: Duration) -> Result<(), Full> {
        if self.is_tracked(key, now) {
            return Ok(());
        }
        if self.count() >= self.max && !self.entries.contains_key(&key) {
            return Err(Full);
        }
        self.insert(key, now, now + self.lifetime(state));
        Ok(())
    }

    /// Makes an entry that began and ends then.
    pub(super) fn insert(&mut self, key: u64, began: Duration, ends: Duration) {
        self.entries.insert(key, Entry { began, ends, is_answered: false });
        self.agenda.entry(second_after(ends)).or_default().push(key);
    }

    /// Gives an entry that is there, and that was answered, the lifetime of a state, which it has from `now` on, or from
    /// then on where the flow is `lasting` that long.
    pub(super) fn advance(&mut self, key: u64, state: State, now: Duration, lasting: Duration) {
        let ends = now + lasting + self.lifetime(state);
        let Some(entry) = self.entries.get_mut(&key).filter(|entry| entry.ends > now) else {
            return;
        };
        // One that ends later than it is looked at is put off then.
        let sooner = ends < entry.ends;
        (entry.ends, entry.is_answered) = (ends, true);
        if sooner {
            self.agenda.entry(second_after(ends)).or_default().push(key);
        }
    }

    /// Deletes what has ended.
    pub(super) fn expire(&mut self, now: Duration) {
        while let Some(due) = self.agenda.first_entry().filter(|due| *due.key() <= now.as_secs()) {
            for key in due.remove() {
                match self.entries.get(&key).map(|entry| entry.ends) {
                    Some(ends) if ends <= now => {
                        self.entries.remove(&key);
                    }
                    Some(ends) => self.agenda.entry(second_after(ends)).or_default().push(key),
                    None => {}
                }
            }
        }
    }

    /// Deletes up to `most` entries that nobody answered and that began no later than then.
    pub(super) fn reclaim(&mut self, most: usize, began: Duration) {
        let unanswered =
            self.entries.iter().filter(|(_, entry)| !entry.is_answered && entry.began <= began);
        let victims: Vec<u64> = unanswered.map(|(key, _)| *key).take(most).collect();
        for key in victims {
            self.entries.remove(&key);
        }
    }

    fn lifetime(&self, state: State) -> Duration {
        let lifetimes = &self.lifetimes;
        match state {
            State::SynSent => lifetimes.syn_sent,
            State::SynRecv => lifetimes.syn_recv,
            State::Established => lifetimes.established,
            State::Unacknowledged => lifetimes.unacknowledged,
            State::TimeWait => lifetimes.time_wait,
            State::Udp => lifetimes.udp,
            State::UdpStream => lifetimes.udp_stream,
            State::Icmp => lifetimes.icmp,
        }
        .0
    }
}

/// The first whole second that is later.
const fn second_after(moment: Duration) -> u64 {
    moment.as_secs() + 1
}

/// A hash of numbers that are hashes already.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_found_until_it_ends_and_leaves_within_a_second() {
        let mut table = table(10);
        table.open(1, State::SynSent, seconds(5)).unwrap();
        assert!(table.is_tracked(1, seconds(124)));
        assert!(!table.is_tracked(1, seconds(125)));
        table.expire(seconds(125));
        assert_eq!(table.count(), 1);
        table.expire(seconds(126));
        assert_eq!(table.count(), 0);
    }

    #[test]
    fn a_state_with_a_shorter_lifetime_ends_sooner() {
        let mut table = table(10);
        table.open(1, State::SynSent, seconds(0)).unwrap();
        table.advance(1, State::Established, seconds(1), Duration::ZERO);
        table.expire(seconds(200));
        assert_eq!(table.count(), 1);
        table.advance(1, State::TimeWait, seconds(200), Duration::ZERO);
        table.expire(seconds(321));
        assert_eq!(table.count(), 0);
    }

    #[test]
    fn a_full_table_takes_nothing_new() {
        let mut table = table(1);
        table.open(1, State::Udp, seconds(0)).unwrap();
        assert_eq!(table.open(1, State::Udp, seconds(0)), Ok(()));
        assert_eq!(table.open(2, State::Udp, seconds(0)), Err(Full));
    }

    #[test]
    fn what_was_answered_and_what_is_young_is_not_reclaimed() {
        let mut table = table(10);
        for key in 1..=4 {
            table.open(key, State::SynSent, seconds(key)).unwrap();
        }
        table.advance(1, State::SynRecv, seconds(4), Duration::ZERO);
        table.reclaim(10, seconds(3));
        let left: Vec<_> = (1..=4).filter(|&key| table.is_tracked(key, seconds(5))).collect();
        assert_eq!(left, [1, 4]);
    }

    fn table(max: u32) -> ConnectionTable {
        ConnectionTable::new(max, Lifetimes::default())
    }

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }
}
