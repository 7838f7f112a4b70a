//! Tuples and sources that are remembered for seconds (see `guard::Memory`).
//!
//! A [`MemoryLine`] is a ring: its first word is the position written last, and each of the others
//! is the XOR of 24 bits of a hash and 32 bits of time. Whoever knows the hash can read the whole
//! time, so what is too old stays forgotten. A new item always has room, in place of the line's
//! oldest; it lasts until fifteen others have come. An item that was never remembered, and would
//! live for up to 256 units of time, is found with a chance of 15 · 2^-24, less than one in a
//! million, however full the memory is.

use crate::{
    hash::low_word, layout::MemoryLine, shared::SharedWord, units::Jiffies, verifier::OpaqueZero,
};

/// What an item may take at once (see [`take`]).
const BURST: u32 = 10;
/// The bits of the time that no hash covers.
const TIME: u32 = 0xff;
#[expect(clippy::cast_possible_truncation, reason = "it is 16")]
const WORDS: u32 = MemoryLine::WORDS as u32;

/// A moment in units of a power of two of jiffies, modulo 2^32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment(pub(crate) u32);

impl Moment {
    /// The moment of `now` in units of 2^`shift` jiffies.
    #[inline(always)]
    pub const fn at(now: Jiffies, shift: u32) -> Self {
        Self(low_word(now.0 >> (shift & 31)))
    }
}

pub(crate) struct Remembered<'l> {
    word: &'l SharedWord,
    fingerprint: u32,
    /// Its position in the line, from 1.
    pub(crate) position: u32,
    /// Units since it was remembered.
    pub(crate) age: u32,
}

impl Remembered<'_> {
    #[inline(always)]
    pub(crate) fn renew(&self, now: Moment) {
        self.word.store(self.fingerprint ^ now.0);
    }
}

#[inline(always)]
pub(crate) const fn line_index(hash: u64, line_mask: u32) -> u32 {
    low_word(hash) & line_mask
}

/// Looks for a hash that was remembered up to `max_age` units ago, without branches: the verifier would
/// walk each path through fifteen comparisons.
#[inline(always)]
pub(crate) fn find(
    line: &MemoryLine,
    hash: u64,
    now: Moment,
    max_age: u32,
    zero: OpaqueZero,
) -> Option<Remembered<'_>> {
    let fingerprint = fingerprint(hash);
    let age = |word: &SharedWord| now.0.wrapping_sub(word.load() ^ fingerprint);
    let too_old = i64::from(max_age) + 1;
    let mut found = 0_u64;
    for (word, position) in line.words.iter().zip(0..).skip(1) {
        // The four highest bits are those of the sign. The verifier would go on with either number
        // from the AND of a constant with a sign alone (`maybe_fork_scalars`).
        found |= position & (i64::from(age(word)) - too_old).cast_unsigned() >> 60;
    }
    let position = zero.hide(low_word(found)) & (WORDS - 1);
    let word = &line.words[position as usize];
    let age = age(word);
    // Of two that fit by chance, the positions are mixed.
    if found == 0 || age > max_age {
        return None;
    }
    Some(Remembered { word, fingerprint, position, age })
}

/// Remembers a hash in place of the oldest in its line.
#[inline(always)]
pub(crate) fn remember(line: &MemoryLine, hash: u64, now: Moment, zero: OpaqueZero) {
    let last = line.words[0].load() & (WORDS - 1);
    // Hidden from LLVM too, which would leave out the mask that the verifier needs.
    let next = zero.hide(if last < WORDS - 1 { last + 1 } else { 1 }) & (WORDS - 1);
    line.words[0].store(next);
    line.words[next as usize].store(fingerprint(hash) ^ now.0);
}

/// Takes one of the tokens that an item is given, one in each `interval`; whether it had one.
///
/// A bucket that is about to be driven out of its ring begins again at the other end, so that a line
/// bounds the items that come most often, and refuses none that come seldom.
#[inline(always)]
pub(crate) fn take(
    line: &MemoryLine,
    hash: u64,
    now: Moment,
    interval: u32,
    zero: OpaqueZero,
) -> bool {
    let burst = interval * BURST;
    // What is remembered is the moment from which the bucket has filled; its age then is what the
    // bucket holds.
    let full = Moment(now.0.wrapping_add(burst));
    let mut held = burst;
    let found = find(line, hash, full, 2 * burst, zero);
    if let Some(bucket) = &found
        && bucket.age < burst
    {
        held = bucket.age;
    }
    let takes = held >= interval;
    let since = Moment(full.0.wrapping_sub(if takes { held - interval } else { held }));
    if let Some(bucket) = found {
        let newer = (line.words[0].load() % WORDS + PLACES - bucket.position) % PLACES;
        if newer < PLACES / 2 {
            bucket.renew(since);
            return takes;
        }
        bucket.word.store(0);
    }
    remember(line, hash, since, zero);
    takes
}

/// Forgets what is remembered at a position of a line.
#[inline(always)]
pub(crate) fn forget(line: &MemoryLine, position: u32) {
    line.words[(position & (WORDS - 1)) as usize].store(0);
}

/// Items that a line can remember.
pub const PLACES: u32 = WORDS - 1;

/// How many items of a line are no older than `life`.
pub fn young(held: &MemoryLine, now: Moment, life: u32) -> u32 {
    let is_young = |word: u32| word != 0 && now.0.wrapping_sub(word) & TIME <= life;
    held.words.iter().skip(1).map(|word| u32::from(is_young(word.load()))).sum()
}

/// The high 24 bits, above those of the time that can be read without the hash.
#[inline(always)]
const fn fingerprint(hash: u64) -> u32 {
    low_word(hash >> 32) & !TIME
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use super::*;
    use crate::{hash, hash::testing::KEY, packet::Ipv4};

    const ZERO: OpaqueZero = OpaqueZero::new(0);
    const LIFE: u32 = 40;

    #[test]
    fn what_was_remembered_is_found_with_its_age() {
        let line = MemoryLine::default();
        remember(&line, hash_of(1), moment(250), ZERO);
        remember(&line, hash_of(2), moment(252), ZERO);
        let age =
            |tuple, now| find(&line, hash_of(tuple), moment(now), LIFE, ZERO).map(|it| it.age);
        assert_eq!(age(1, 253), Some(3));
        assert_eq!(age(2, 258), Some(6));
        assert_eq!(age(3, 253), None);
        assert_eq!(age(1, 250 + u64::from(LIFE)), Some(LIFE));
    }

    /// Fails when a time of eight or sixteen bits comes round.
    #[test]
    fn what_is_too_old_never_comes_back() {
        let line = MemoryLine::default();
        remember(&line, hash_of(1), moment(250), ZERO);
        for age in u64::from(LIFE) + 1..1 << 20 {
            let found = find(&line, hash_of(1), moment(250 + age), LIFE, ZERO);
            assert!(found.is_none(), "after {age} units");
        }
    }

    #[test]
    fn what_is_remembered_lasts_where_the_time_begins_again() {
        let line = MemoryLine::default();
        remember(&line, hash_of(1), moment((1 << 32) - 1), ZERO);
        let found = find(&line, hash_of(1), moment((1 << 32) + 1), LIFE, ZERO);
        assert_eq!(found.map(|it| it.age), Some(2));
    }

    #[test]
    fn a_line_holds_fifteen_and_the_oldest_gives_way() {
        let line = MemoryLine::default();
        for tuple in 0..16 {
            remember(&line, hash_of(tuple), moment(1), ZERO);
        }
        let held = |tuple: &u32| find(&line, hash_of(*tuple), moment(1), LIFE, ZERO).is_some();
        assert_eq!((0..16).filter(held).collect::<Vec<_>>(), (1..16).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_forgotten_is_not_found() {
        let line = MemoryLine::default();
        remember(&line, hash_of(1), moment(1), ZERO);
        remember(&line, hash_of(2), moment(1), ZERO);
        forget(&line, find(&line, hash_of(1), moment(1), LIFE, ZERO).unwrap().position);
        let held = [1, 2].map(|tuple| find(&line, hash_of(tuple), moment(1), LIFE, ZERO).is_some());
        assert_eq!(held, [false, true]);
    }

    #[test]
    fn what_is_renewed_is_young_again() {
        let line = MemoryLine::default();
        remember(&line, hash_of(1), moment(1), ZERO);
        find(&line, hash_of(1), moment(9), LIFE, ZERO).unwrap().renew(moment(9));
        assert_eq!(find(&line, hash_of(1), moment(10), LIFE, ZERO).unwrap().age, 1);
    }

    #[test]
    fn an_item_takes_its_burst_and_then_one_in_each_interval() {
        let line = MemoryLine::default();
        let taken =
            |now| (0..100).filter(|_| take(&line, hash_of(1), moment(now), 100, ZERO)).count();
        assert_eq!(taken(u64::from(u32::MAX) - 150), 10);
        let later: usize = (1..=1000).map(|unit| taken(u64::from(u32::MAX) - 150 + unit)).sum();
        assert_eq!(later, 10, "where the time begins again");
        let later = (1 << 32) + 5_000;
        assert_eq!(taken(later), 10, "no more than a burst after a pause");
        assert!(take(&line, hash_of(2), moment(later), 100, ZERO), "another item");
    }

    /// Fails when a flood from everywhere keeps honest sources from their tokens, or lets one source
    /// have as many as it likes.
    #[test]
    fn among_half_a_million_others_a_second_an_item_is_bounded_and_no_other_is_refused() {
        const LINES: u32 = 1 << 12;
        let lines: Vec<MemoryLine> = (0..LINES).map(|_| MemoryLine::default()).collect();
        let take = |item, millisecond| {
            let hash = hash_of(item);
            let line = &lines[line_index(hash, LINES - 1) as usize];
            take(line, hash, moment(millisecond), 100, ZERO)
        };
        let (mut refused, mut taken) = (0, 0);
        for millisecond in 0..4_000_u32 {
            let from = 1_000 + 500 * millisecond;
            let others = from..from + 500;
            refused += others.filter(|&other| !take(other, millisecond.into())).count();
            taken += u32::from(take(7, millisecond.into()));
        }
        // 50 without the others.
        assert!((45..=60).contains(&taken), "{taken}");
        assert!(refused <= 50, "{refused} of two million");
    }

    /// Fails when bits are lost, so that strangers are let in by chance.
    #[test]
    fn a_full_memory_takes_less_than_one_stranger_in_a_million_for_remembered() {
        const LINES: u32 = 1 << 12;
        let lines: Vec<MemoryLine> = (0..LINES).map(|_| MemoryLine::default()).collect();
        let line = |hash| &lines[line_index(hash, LINES - 1) as usize];
        for tuple in 0..20 * LINES {
            remember(line(hash_of(tuple)), hash_of(tuple), moment(1), ZERO);
        }
        let strangers = 10_000_000..15_000_000;
        let is_taken = |&tuple: &u32| {
            find(line(hash_of(tuple)), hash_of(tuple), moment(1), LIFE, ZERO).is_some()
        };
        let taken = strangers.filter(is_taken).count();
        // 4.5 are expected of five million; twelve would be one chance in a thousand.
        assert!(taken <= 12, "{taken} of five million");
    }

    fn moment(units: u64) -> Moment {
        Moment::at(Jiffies(units << 5), 5)
    }

    fn hash_of(tuple: u32) -> u64 {
        hash::tuple(&KEY, Ipv4(0x0a00_0000 ^ tuple), Ipv4(0xc633_6401), 17, 53 << 16 | 4096)
    }
}
