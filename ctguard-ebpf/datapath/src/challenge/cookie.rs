//! The cookie: a number that only the receiver of a challenge ACK can know, valid for some seconds.

use super::{Connection, siphash::SipHash};
use crate::{hash::low_word, layout::CookieKey, packet::Address, units::Jiffies, verifier::sign};

/// A span of 2^`shift` jiffies, some seconds, with its own cookies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(pub u32);

impl Slot {
    /// The slot of `now`.
    #[inline(always)]
    pub const fn at(now: Jiffies, shift: u32) -> Self {
        Self(low_word(now.0 >> (shift & 63)))
    }

    #[inline(always)]
    const fn previous(self) -> Self {
        Self(self.0.wrapping_sub(1))
    }
}

/// The cookie for a SYN with this sequence number.
///
/// It must not acknowledge the SYN, because no client resets that: if it would, the previous slot's
/// cookie is used, which proves as much. `None` in the one of 2^64 cases where both would.
#[inline(always)]
pub fn choose<A: Address>(
    key: &CookieKey,
    connection: &Connection<A>,
    sequence: u32,
    slot: Slot,
) -> Option<u32> {
    let hash = begin(key, connection);
    let acknowledgment = sequence.wrapping_add(1);
    let cookie = end(&hash, connection, slot);
    if cookie != acknowledgment {
        return Some(cookie);
    }
    let previous = end(&hash, connection, slot.previous());
    (previous != acknowledgment).then_some(previous)
}

/// Whether the sequence number of a RST is a cookie of this slot or of the previous one, in
/// constant time.
#[inline(always)]
pub fn proves<A: Address>(
    key: &CookieKey,
    connection: &Connection<A>,
    sequence: u32,
    slot: Slot,
) -> bool {
    let hash = begin(key, connection);
    let difference = |slot| i64::from(end(&hash, connection, slot) ^ sequence);
    sign(difference(slot) - 1) | sign(difference(slot.previous()) - 1) != 0
}

/// Hashes what is the same in every slot. The families differ in their number of words, which is
/// hashed too.
#[inline(always)]
fn begin<A: Address>(key: &CookieKey, connection: &Connection<A>) -> SipHash {
    let (source, destination) = (connection.source.words(), connection.destination.words());
    let words = source.as_ref().iter().zip(destination.as_ref());
    words.fold(SipHash::new(key.words), |hash, (source, destination)| {
        hash.add(pair(*source, *destination))
    })
}

#[inline(always)]
fn end<A: Address>(hash: &SipHash, connection: &Connection<A>, slot: Slot) -> u32 {
    // 24 bits of the slot come round after years.
    low_word(hash.clone().finish(pair(slot.0, connection.ports)))
}

#[inline(always)]
const fn pair(high: u32, low: u32) -> u64 {
    (high as u64) << 32 | low as u64
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::{
        challenge::testing::{KEY, Random},
        packet::{Ipv4, Ipv6},
    };

    const SLOT: Slot = Slot(1_000);

    #[test]
    fn the_cookie_proves_itself_in_its_slot_and_the_next() {
        let mut random = Random::new();
        for _ in 0..1_000 {
            holds_for_two_slots(&random.connection4(), random.word());
            holds_for_two_slots(&random.connection6(), random.word());
        }
    }

    fn holds_for_two_slots<A: Address>(connection: &Connection<A>, sequence: u32) {
        let cookie = choose(&KEY, connection, sequence, SLOT).unwrap();
        let proves_in = |slot| proves(&KEY, connection, cookie, Slot(slot));
        assert_eq!([999, 1_000, 1_001, 1_002].map(proves_in), [false, true, true, false]);
    }

    #[test]
    fn slots_go_on_where_their_numbers_begin_again() {
        let connection = Random::new().connection4();
        let cookie = choose(&KEY, &connection, 0, Slot(u32::MAX)).unwrap();
        assert!(proves(&KEY, &connection, cookie, Slot(0)));
    }

    #[test]
    fn no_other_number_proves_anything() {
        let mut random = Random::new();
        let connection = random.connection4();
        let cookie = choose(&KEY, &connection, 0, SLOT).unwrap();
        for bit in 0..32 {
            assert!(!proves(&KEY, &connection, cookie ^ 1 << bit, SLOT), "bit {bit}");
        }
        let guessed = (0..100_000).filter(|_| proves(&KEY, &connection, random.word(), SLOT));
        assert_eq!(guessed.count(), 0);
    }

    #[test]
    fn every_bit_of_every_field_and_of_the_key_counts() {
        let mut random = Random::new();
        let (four, six) = (random.connection4(), random.connection6());
        let mut cookies = vec![cookie(&KEY, &four), cookie(&KEY, &six)];
        for bit in 0..32 {
            let flip = 1 << bit;
            let ports = four.ports ^ flip;
            let (source, destination) =
                (Ipv4(four.source.0 ^ flip), Ipv4(four.destination.0 ^ flip));
            cookies.push(cookie(&KEY, &Connection { source, ..four }));
            cookies.push(cookie(&KEY, &Connection { destination, ..four }));
            cookies.push(cookie(&KEY, &Connection { ports, ..four }));
            cookies.push(cookie(&KEY, &Connection { ports, ..six }));
            for word in 0..4 {
                let (mut source, mut destination) = (six.source, six.destination);
                source.0[word] ^= flip;
                destination.0[word] ^= flip;
                cookies.push(cookie(&KEY, &Connection { source, ..six }));
                cookies.push(cookie(&KEY, &Connection { destination, ..six }));
            }
        }
        for bit in 0..64 {
            let [low, high] = KEY.words;
            cookies.push(cookie(&CookieKey { words: [low ^ 1 << bit, high] }, &four));
            cookies.push(cookie(&CookieKey { words: [low, high ^ 1 << bit] }, &four));
        }
        assert_eq!(cookies.iter().collect::<HashSet<_>>().len(), cookies.len());
    }

    #[test]
    fn the_families_are_told_apart() {
        let (source, destination, ports) = (Ipv4(1), Ipv4(2), 3);
        let four = cookie(&KEY, &Connection { source, destination, ports });
        for position in 0..4 {
            let (mut source, mut destination) = (Ipv6([0; 4]), Ipv6([0; 4]));
            source.0[position] = 1;
            destination.0[position] = 2;
            assert_ne!(cookie(&KEY, &Connection { source, destination, ports }), four);
        }
    }

    #[test]
    fn both_directions_have_cookies_of_their_own() {
        let there = Random::new().connection4();
        let back = Connection {
            source: there.destination,
            destination: there.source,
            ports: there.ports.rotate_left(16),
        };
        assert_ne!(cookie(&KEY, &there), cookie(&KEY, &back));
    }

    #[test]
    fn a_cookie_that_would_acknowledge_the_syn_gives_way_to_the_one_before() {
        let connection = Random::new().connection6();
        let first = choose(&KEY, &connection, 0, SLOT).unwrap();
        let second = choose(&KEY, &connection, first.wrapping_sub(1), SLOT).unwrap();
        assert_eq!(second, choose(&KEY, &connection, 0, Slot(999)).unwrap());
        assert!(proves(&KEY, &connection, second, SLOT));
    }

    #[test]
    fn cookies_spread_over_all_numbers() {
        let mut random = Random::new();
        let mut ones = [0_u32; 32];
        for _ in 0..10_000 {
            let cookie = cookie(&KEY, &random.connection4());
            for (bit, ones) in ones.iter_mut().enumerate() {
                *ones += cookie >> bit & 1;
            }
        }
        // Five standard deviations are 250.
        assert!(ones.iter().all(|ones| (4_750..=5_250).contains(ones)), "{ones:?}");
    }

    #[test]
    fn a_slot_is_a_span_of_jiffies() {
        assert_eq!(Slot::at(Jiffies(0x1_0000_0fff), 12), Slot(0x10_0000));
        assert_eq!(Slot::at(Jiffies(0x1_0000_1000), 12), Slot(0x10_0001));
    }

    fn cookie<A: Address>(key: &CookieKey, connection: &Connection<A>) -> u32 {
        choose(key, connection, 0, SLOT).unwrap()
    }
}
