//! A model of the connection table.
//!
//! Entries leave within a second of their expiry, or when the guard deletes them. A full table
//! refuses new entries: the model has no early drop.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{BuildHasherDefault, Hasher},
    time::Duration,
};

use ctguard_units::TableSample;

/// The table has no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

#[derive(Clone, Copy, Debug)]
struct Entry {
    began: Duration,
    ends: Duration,
    is_answered: bool,
}

/// `nf_conntrack`. A hash stands for each tuple.
#[derive(Debug)]
pub(super) struct ConnectionTable {
    max: u64,
    entries: HashMap<u64, Entry, BuildHasherDefault<AsItIs>>,
    /// Entries to check for expiry, by second.
    agenda: BTreeMap<u64, Vec<u64>>,
}

impl ConnectionTable {
    pub(super) fn new(max: u32) -> Self {
        Self { max: max.into(), entries: HashMap::default(), agenda: BTreeMap::new() }
    }

    pub(super) fn sample(&self) -> TableSample {
        TableSample { entries: self.count(), max: self.max }
    }

    pub(super) fn count(&self) -> u64 {
        u64::try_from(self.entries.len()).unwrap_or(u64::MAX)
    }

    pub(super) fn is_tracked(&self, key: u64, now: Duration) -> bool {
        self.entries.get(&key).is_some_and(|entry| entry.ends > now)
    }

    /// Makes an entry, unless there is one.
    pub(super) fn open(&mut self, key: u64, lives: Duration, now: Duration) -> Result<(), Full> {
        if self.is_tracked(key, now) {
            return Ok(());
        }
        if self.count() >= self.max && !self.entries.contains_key(&key) {
            return Err(Full);
        }
        self.insert(key, now, now + lives);
        Ok(())
    }

    pub(super) fn insert(&mut self, key: u64, began: Duration, ends: Duration) {
        self.entries.insert(key, Entry { began, ends, is_answered: false });
        self.agenda.entry(second_after(ends)).or_default().push(key);
    }

    /// Moves the end of an entry that was answered.
    pub(super) fn advance(&mut self, key: u64, now: Duration, ends: Duration) {
        let Some(entry) = self.entries.get_mut(&key).filter(|entry| entry.ends > now) else {
            return;
        };
        // `expire` plans another check for an entry that ends later.
        let sooner = ends < entry.ends;
        (entry.ends, entry.is_answered) = (ends, true);
        if sooner {
            self.agenda.entry(second_after(ends)).or_default().push(key);
        }
    }

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

    /// Deletes up to `most` unreplied entries that `began` then or earlier.
    pub(super) fn reclaim(&mut self, most: usize, began: Duration) {
        let unanswered =
            self.entries.iter().filter(|(_, entry)| !entry.is_answered && entry.began <= began);
        let victims: Vec<u64> = unanswered.map(|(key, _)| *key).take(most).collect();
        for key in victims {
            self.entries.remove(&key);
        }
    }
}

/// The first whole second that is later.
const fn second_after(moment: Duration) -> u64 {
    moment.as_secs() + 1
}

/// Keys are hashes already.
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
        let mut table = ConnectionTable::new(10);
        table.open(1, seconds(120), seconds(5)).unwrap();
        assert!(table.is_tracked(1, seconds(124)));
        assert!(!table.is_tracked(1, seconds(125)));
        table.expire(seconds(125));
        assert_eq!(table.count(), 1);
        table.expire(seconds(126));
        assert_eq!(table.count(), 0);
    }

    #[test]
    fn an_entry_whose_end_moves_nearer_leaves_sooner() {
        let mut table = ConnectionTable::new(10);
        table.open(1, seconds(120), seconds(0)).unwrap();
        table.advance(1, seconds(1), seconds(432_001));
        table.expire(seconds(200));
        assert_eq!(table.count(), 1);
        table.advance(1, seconds(200), seconds(320));
        table.expire(seconds(321));
        assert_eq!(table.count(), 0);
    }

    #[test]
    fn a_full_table_takes_nothing_new() {
        let mut table = ConnectionTable::new(1);
        table.open(1, seconds(30), seconds(0)).unwrap();
        assert_eq!(table.open(1, seconds(30), seconds(0)), Ok(()));
        assert_eq!(table.open(2, seconds(30), seconds(0)), Err(Full));
    }

    #[test]
    fn what_was_answered_and_what_is_young_is_not_reclaimed() {
        let mut table = ConnectionTable::new(10);
        for key in 1..=4 {
            table.open(key, seconds(120), seconds(key)).unwrap();
        }
        table.advance(1, seconds(4), seconds(64));
        table.reclaim(10, seconds(3));
        let left: Vec<_> = (1..=4).filter(|&key| table.is_tracked(key, seconds(5))).collect();
        assert_eq!(left, [1, 4]);
    }

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }
}
