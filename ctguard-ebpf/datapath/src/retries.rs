//! Senders whose first packet was refused and who may come again (see `guard::tier`).
//!
//! A [`RetryLine`] holds eight batches of up to four senders that came within 0.6 s of each
//! other: eight bits of the time at which the first of them came, and for each a fingerprint of 11
//! bits and a tag. The tag is three bits of the source port, or says that the sender has come
//! again. The higher bits of the time are mixed into the fingerprints, so what is too old does not
//! come back when the eight bits come round.
//!
//! A flood cannot drive out who is remembered: a new batch takes the place of the oldest only if
//! that is older than clients wait before they come again, and otherwise the sender is not
//! remembered. So a flood faster than the memory leaves each sender a fixed chance with each try.
//!
//! Of strangers that were never remembered, a full line takes one in 64 for a sender that has come
//! before, one in 500 for one of the same port, and far fewer for one that has come again.

use crate::{
    hash::low_word,
    layout::{DaemonFacts, RetryLine},
    memory::Moment,
    verifier::{OpaqueZero, sign},
};

/// The bits of the time of a batch, below its senders.
const TIME: u64 = 0xff;
const TIME_BITS: u32 = 8;
/// Bits of a sender: its tag, then its fingerprint.
const SENDER_BITS: u32 = 14;
const SENDER: u64 = (1 << SENDER_BITS) - 1;
const TAG_BITS: u32 = 3;
const TAG: u64 = (1 << TAG_BITS) - 1;
const FINGERPRINT: u64 = SENDER >> TAG_BITS;
/// The tag of a sender that has come again; 0 is a free place.
const CAME_AGAIN: u64 = TAG;
/// The lowest bit of each of the four senders, as if the batch began with them.
const EACH: u64 = 1 | 1 << SENDER_BITS | 1 << (2 * SENDER_BITS) | 1 << (3 * SENDER_BITS);
/// Above all ages.
const OLDEST: i64 = 1 << TIME_BITS;
#[expect(clippy::cast_possible_truncation, reason = "it is 8")]
const BATCHES: u32 = RetryLine::BATCHES as u32;

/// Senders that a line can remember.
pub const PLACES: u32 = BATCHES * 4;

/// What speaks for a packet (see `admission::grant`), the best first. A flood from 2^28 random
/// addresses repeats one in a hundred by chance, but few of them twice, and few ports.
pub(crate) mod evidence {
    /// Its sender had come again before.
    pub(crate) const THIRD: u32 = 0;
    /// Its sender came before, from the same port.
    pub(crate) const SAME_PORT: u32 = 1;
    /// Its sender came before, from another port.
    pub(crate) const OTHER_PORT: u32 = 2;
    /// It is its sender's first, or comes too early.
    pub(crate) const NONE: u32 = 3;
}

/// Remembers the sender of a packet; the number of what speaks for the packet.
///
/// `hash` is that of the sender and what it asks for, `port_hash` one that covers its port as well.
#[inline(always)]
pub(crate) fn come(
    line: &RetryLine,
    hash: u64,
    port_hash: u64,
    now: Moment,
    times: &DaemonFacts,
    zero: OpaqueZero,
) -> u32 {
    let fingerprint = hash >> 32 & FINGERPRINT;
    let tag = 1 + (((port_hash >> 44 & TAG) * (TAG - 1)) >> TAG_BITS);
    let (found, oldest) = scan(line, fingerprint, now, times.retry_before);
    let (mut kept_tag, mut least_age) = (low_word(tag), times.retry_kept);
    let mut found_evidence = evidence::NONE;
    if found != 0 {
        let batch = &line.words[(zero.hide(low_word(found)) & (BATCHES - 1)) as usize];
        let lowest = found & !u64::from(BATCHES - 1);
        let lowest = lowest & lowest.wrapping_neg();
        let number =
            low_word(lowest >> 25 & 1 | (lowest >> 39 & 1) << 1 | ((lowest >> 53 & 1) * 3));
        let shift = (TIME_BITS + SENDER_BITS * number) & 63;
        let word = batch.load();
        let (age, found_tag) = (age(word, now), word >> shift & TAG);
        let is_third = found_tag == CAME_AGAIN;
        if found_tag == 0 || !is_third && age < u64::from(times.retry_after) {
            return found_evidence;
        }
        let number = if is_third {
            evidence::THIRD
        } else if found_tag == tag {
            evidence::SAME_PORT
        } else {
            evidence::OTHER_PORT
        };
        found_evidence = zero.hide(number);
        if age <= u64::from(times.retry_kept >> 2) {
            batch.store(word | CAME_AGAIN << shift);
            return found_evidence;
        }
        // It goes on with a new time.
        batch.store(word & !(SENDER << shift));
        (kept_tag, least_age) = (low_word(CAME_AGAIN), times.retry_kept >> 1);
    }
    let sender = fingerprint << TAG_BITS | u64::from(zero.hide(kept_tag));
    insert(line, sender, now, zero.hide(oldest), times, zero.hide(least_age));
    found_evidence
}

/// Where the sender may be, and the number of the oldest batch. The first has a bit set for each
/// sender with this fingerprint, above the number of its batch; 0 if there is none.
///
/// Without branches: the verifier would walk each path through eight batches.
#[inline(always)]
fn scan(line: &RetryLine, fingerprint: u64, now: Moment, max_age: u32) -> (u64, u32) {
    let this = mixed(fingerprint, epoch(now)) * EACH;
    let before = this ^ (mixed(fingerprint, epoch(now).wrapping_sub(1)) * EACH);
    let too_old = i64::from(max_age) + 1;
    let (mut found, mut oldest) = (0, 0_i64);
    for (batch, number) in line.words.iter().zip(0_u32..) {
        let word = batch.load();
        let age = age(word, now).cast_signed();
        let wanted = this ^ before & is_before(word, now);
        let others = (word >> (TIME_BITS + TAG_BITS) ^ wanted) & (FINGERPRINT * EACH);
        // Adding the largest fingerprint carries where one differs.
        let same = !(others + FINGERPRINT * EACH) & ((FINGERPRINT + 1) * EACH);
        let same = same & sign(age - too_old).cast_unsigned();
        let is_any = sign(-same.cast_signed()).cast_unsigned();
        found |= (same | u64::from(number)) & is_any;
        // A batch without senders goes before all others. Of those of one age the first is taken,
        // which keeps the order of the ring.
        let is_free = sign((word >> TIME_BITS).cast_signed() - 1);
        let candidate = (age | is_free & OLDEST) << 3 | i64::from(BATCHES - 1 - number);
        let more = candidate - oldest;
        oldest += more & !sign(more);
    }
    (found, BATCHES - 1 - (low_word(oldest.cast_unsigned()) & (BATCHES - 1)))
}

/// Puts a sender into the newest batch, if that began not long ago and has room, else begins one in
/// place of the oldest, if that is older than `least_age`. Batches are begun in the order of a ring,
/// so the newest is the one before the oldest.
///
/// Where a flood fills all batches, they begin at even intervals. Else they would all begin when
/// the flood does and again when they are too old, and who comes in between would never get in. If
/// the oldest has been too old for a while, the next may begin sooner.
#[inline(always)]
fn insert(
    line: &RetryLine,
    sender: u64,
    now: Moment,
    oldest: u32,
    times: &DaemonFacts,
    least_age: u32,
) {
    let newest = &line.words[(oldest.wrapping_sub(1) & (BATCHES - 1)) as usize];
    let word = newest.load();
    let free = !(((word >> TIME_BITS) & (TAG * EACH)) + TAG * EACH) & ((TAG + 1) * EACH);
    let newest_age = age(word, now);
    if free != 0 && newest_age <= u64::from(times.retry_joined) {
        // The lowest bit of the first free place.
        let place = (free & free.wrapping_neg()) >> TAG_BITS << TIME_BITS;
        let epoch = epoch(now).wrapping_add(is_before(word, now));
        newest.store(word | (mixed_sender(sender, epoch) * place));
        return;
    }
    let place = &line.words[(oldest & (BATCHES - 1)) as usize];
    let word = place.load();
    let least_age = u64::from(least_age);
    let oldest_age = if word >> TIME_BITS == 0 { least_age + 1 } else { age(word, now) };
    let interval = u64::from(times.retry_kept / BATCHES);
    let over = oldest_age.saturating_sub(least_age);
    let sooner = if over < interval { over } else { interval - 1 };
    if over != 0 && newest_age + sooner > interval {
        place.store(u64::from(now.0) & TIME | mixed_sender(sender, epoch(now)) << TIME_BITS);
    }
}

/// How many senders of a line came no more than `max_age` units ago.
pub fn young(line: &RetryLine, now: Moment, max_age: u32) -> u32 {
    let senders = |word: u64| {
        let tags = ((word >> TIME_BITS) & (TAG * EACH)) + TAG * EACH;
        if age(word, now) <= u64::from(max_age) {
            (tags & ((TAG + 1) * EACH)).count_ones()
        } else {
            0
        }
    };
    line.words.iter().map(|word| senders(word.load())).sum()
}

#[inline(always)]
const fn age(word: u64, now: Moment) -> u64 {
    (now.0 as u64).wrapping_sub(word) & TIME
}

/// −1 for a batch that began before the eight bits of the time last came round, else 0.
#[inline(always)]
fn is_before(word: u64, now: Moment) -> u64 {
    let (now, word) = (u64::from(now.0) & TIME, word & TIME);
    sign(now.wrapping_sub(word).cast_signed()).cast_unsigned()
}

/// The bits of the time above those of a batch.
#[inline(always)]
const fn epoch(now: Moment) -> u64 {
    now.0 as u64 >> TIME_BITS
}

#[inline(always)]
const fn mixed(fingerprint: u64, epoch: u64) -> u64 {
    (fingerprint ^ epoch) & FINGERPRINT
}

#[inline(always)]
const fn mixed_sender(sender: u64, epoch: u64) -> u64 {
    sender ^ (epoch & FINGERPRINT) << TAG_BITS
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use super::*;
    use crate::{hash, hash::testing::KEY, memory, packet::Ipv4, units::Jiffies};

    const ZERO: OpaqueZero = OpaqueZero::new(0);
    /// As on a kernel with 1,000 jiffies per second.
    const SHIFT: u32 = 7;

    fn times() -> DaemonFacts {
        DaemonFacts {
            retry_after: 7,
            retry_before: 94,
            retry_joined: 5,
            retry_kept: 45,
            ..DaemonFacts::default()
        }
    }

    /// The lines of a guard, or a sample of them that gets the same load of each.
    struct Memory {
        lines: Vec<RetryLine>,
        times: DaemonFacts,
    }

    impl Memory {
        fn new(lines: u32) -> Self {
            Self { lines: (0..lines).map(|_| RetryLine::default()).collect(), times: times() }
        }

        fn come(&self, sender: u32, port: u32, seconds: f64) -> u32 {
            let hash = hash_of(sender, 0);
            let mask = u32::try_from(self.lines.len()).unwrap() - 1;
            let line = &self.lines[memory::line_index(hash, mask) as usize];
            come(line, hash, hash_of(sender, port), moment(seconds), &self.times, ZERO)
        }
    }

    fn hash_of(sender: u32, port: u32) -> u64 {
        let source = Ipv4(0x0a00_0000 ^ sender);
        hash::tuple(&KEY, source, Ipv4(0xc633_6401), 17, port << 16 | 0x35)
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a test's time")]
    fn moment(seconds: f64) -> Moment {
        Moment::at(Jiffies((seconds * 1000.0) as u64), SHIFT)
    }

    #[test]
    fn who_comes_again_after_a_while_is_told_from_who_comes_first() {
        let memory = Memory::new(1);
        assert_eq!(memory.come(1, 1000, 100.0), evidence::NONE);
        assert_eq!(memory.come(1, 1000, 100.2), evidence::NONE, "too early");
        assert_eq!(memory.come(2, 1000, 101.0), evidence::NONE, "another sender");
        assert_eq!(memory.come(1, 1000, 101.0), evidence::SAME_PORT);
        assert_eq!(memory.come(1, 1000, 101.0), evidence::THIRD);
        assert_eq!(memory.come(1, 2000, 101.0), evidence::THIRD, "whatever its port");
        assert_eq!(memory.come(2, 5000, 103.0), evidence::OTHER_PORT);
        assert_eq!(memory.come(2, 9000, 105.0), evidence::THIRD);
    }

    #[test]
    fn who_goes_on_coming_stays_remembered_and_who_stops_is_forgotten() {
        let memory = Memory::new(1);
        memory.come(1, 1, 0.0);
        for seconds in 1..100 {
            assert_ne!(memory.come(1, seconds, (5 * seconds).into()), evidence::NONE);
        }
        assert_eq!(memory.come(1, 1, 495.0 + 12.2), evidence::NONE);
    }

    /// Fails when the eight bits of a time come round.
    #[test]
    fn what_is_too_old_never_comes_back() {
        for age in 95..1 << 16 {
            let memory = Memory::new(1);
            memory.come(1, 1, 20.0);
            let seconds = 20.0 + f64::from(age) * 0.128;
            assert_eq!(memory.come(1, 1, seconds), evidence::NONE, "after {age} units");
        }
    }

    #[test]
    fn what_is_remembered_lasts_where_the_time_comes_round() {
        for start in 0..600 {
            let (memory, start) = (Memory::new(1), 0.128 * f64::from(start));
            memory.come(1, 1, start);
            memory.come(2, 1, start + 0.3);
            assert_eq!(memory.come(1, 1, start + 5.0), evidence::SAME_PORT);
            assert_eq!(memory.come(2, 1, start + 5.3), evidence::SAME_PORT, "in its batch");
        }
    }

    #[test]
    fn a_full_line_forgets_nobody_for_five_seconds_and_always_takes_some() {
        let memory = Memory::new(1);
        let is_held = |sender, seconds| {
            let hash = hash_of(sender, 0) >> 32 & FINGERPRINT;
            scan(&memory.lines[0], hash, moment(seconds), 94).0 != 0
        };
        let mut held = Vec::<(u32, f64)>::new();
        for step in 0..2_000 {
            let now = 100.0 + 0.02 * f64::from(step);
            if !is_held(step, now) {
                memory.come(step, 1, now);
                held.extend(is_held(step, now).then_some((step, now)));
            }
            for &(sender, since) in &held {
                assert!(now > since + 5.0 || is_held(sender, now), "from {since} to {now}");
            }
        }
        for ends in (102..140).map(f64::from) {
            let taken = held.iter().filter(|(_, since)| (ends - 2.0..ends).contains(since)).count();
            assert!((4..=16).contains(&taken), "{taken} in the two seconds before {ends}");
        }
    }

    /// Fails when bits are lost, so that strangers are taken for senders that came before.
    #[test]
    fn a_full_memory_takes_few_strangers_for_remembered() {
        const LINES: u32 = 1 << 12;
        let memory = Memory::new(LINES);
        for sender in 0..64 * LINES {
            memory.come(sender, 1, 94.0 + 6.0 * f64::from(sender) / f64::from(64 * LINES));
        }
        let mut taken = [0; 3];
        for sender in 10_000_000..11_000_000 {
            let evidence = memory.come(sender, sender & 0x7fff, 102.0);
            if let Some(taken) = taken.get_mut(evidence as usize) {
                *taken += 1;
            }
        }
        let [third, same, other] = taken;
        // 26 of 2,048, because strangers take the places of the oldest; one in six of them from the
        // same port as it seems.
        assert!((9_500..=12_000).contains(&other), "{other} of a million");
        assert!((1_600..=2_700).contains(&same), "{same} of a million");
        assert!(third <= 400, "{third} of a million");
    }

    /// How honest senders fare who send `tries` packets with a gap, in a flood from random
    /// addresses: the share that is remembered in time for each, by what speaks for them.
    struct Fates {
        /// Whether a try was not taken for a first: by the second try, by the third.
        by_try: [f64; 2],
        /// The third packet found that the second had come again.
        third: f64,
        /// Packets of the flood that were taken for a third, a second, one from another port, a
        /// second.
        flood: [f64; 3],
    }

    /// One in so many of the guard's lines, which get as small a part of the packets.
    const PART: u32 = 64;

    fn flood(per_second: u32, addresses: u32, gap: f64, fresh_port: bool) -> Fates {
        const LINES: u32 = (1 << 17) / PART;
        const SECONDS: u32 = 30;
        const HONEST: u32 = 2_000;
        let memory = Memory::new(LINES);
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random
        };
        let packets = per_second / PART;
        let mut fates = Fates { by_try: [0.0; 2], third: 0.0, flood: [0.0; 3] };
        // Honest senders begin within six seconds, which is as long as a batch lasts.
        let mut due: Vec<(f64, u32, u32)> = (0..HONEST)
            .flat_map(|sender| {
                let first = 12.0 + 6.0 * f64::from(sender) / f64::from(HONEST);
                (0..3).map(move |number| (first + gap * f64::from(number), sender, number))
            })
            .collect();
        due.sort_by(|one, other| one.0.total_cmp(&other.0));
        let mut due = due.into_iter().peekable();
        let mut served = [0_u32; HONEST as usize];
        let period = 1.0 / f64::from(packets);
        for packet in 0..SECONDS * packets {
            let now = f64::from(packet) * period;
            while let Some((_, sender, number)) = due.next_if(|&(at, ..)| at <= now) {
                let port = if fresh_port { 5_000 + number } else { 5_000 };
                let evidence = memory.come(0x4000_0000 + sender, port, now);
                if evidence != evidence::NONE {
                    let before = &mut served[sender as usize];
                    if *before == 0 {
                        fates.by_try[number.max(1) as usize - 1] += 1.0 / f64::from(HONEST);
                    }
                    *before += 1;
                    if evidence == evidence::THIRD {
                        fates.third += 1.0 / f64::from(HONEST);
                    }
                }
            }
            let number = next();
            let (address, port) = (low_word(number), low_word(number >> 32) & 0xffff);
            let evidence = memory.come(address % (addresses / PART), port, now);
            if now >= 12.0
                && let Some(flood) = fates.flood.get_mut(evidence as usize)
            {
                *flood += f64::from(PART) / 18.0;
            }
        }
        fates.by_try[1] += fates.by_try[0];
        fates
    }

    /// Fails when a flood makes the guard forget who waits before it comes again.
    #[test]
    fn a_flood_leaves_every_sender_the_same_chance_however_long_it_waits() {
        // The least share that is known by its second and by its third packet.
        for (rate, least) in
            [(500_000, [0.92, 0.98]), (1_400_000, [0.45, 0.7]), (2_000_000, [0.32, 0.54])]
        {
            for gap in [1.0, 2.0, 5.0] {
                for fresh_port in [false, true] {
                    let Fates { by_try, third, flood } = flood(rate, 1 << 28, gap, fresh_port);
                    let what = std::format!(
                        "{rate}/s, again after {gap} s, fresh ports {fresh_port}: {by_try:.3?}, \
                         third {third:.3}; of the flood {flood:.0?}/s"
                    );
                    std::println!("{what}");
                    assert!(by_try[0] >= least[0] && by_try[1] >= least[1], "{what}");
                    // A third packet is as good as a second one that was remembered.
                    assert!(third >= by_try[0] - 0.05, "{what}");
                }
            }
        }
    }

    /// What a spoofer gets who repeats addresses: the grant bounds it, not this memory. All of its
    /// packets but a few are taken for thirds, so honest senders compete with as many.
    #[test]
    fn who_repeats_addresses_is_known_and_leaves_others_their_places() {
        for addresses in [1 << 16, PART] {
            let Fates { by_try, flood: [third, same, other], .. } =
                flood(500_000, addresses, 5.0, true);
            let what = std::format!(
                "{addresses} addresses: honest {by_try:.3?}; of the flood {third:.0} thirds, \
                 {same:.0} and {other:.0} seconds per second"
            );
            std::println!("{what}");
            assert!(by_try[0] >= 0.99, "{what}");
            assert!(third >= 450_000.0, "{what}");
        }
    }
}
