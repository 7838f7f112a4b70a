extern crate std;
use std::collections::HashSet;

use super::{testing::Set, *};
use crate::{
    hash::{self, testing::KEY},
    layout::HashKey,
    verifier::OpaqueZero,
};

fn place(hash: u64) -> Place {
    Place::of(hash, LINES - 1, OpaqueZero::new(0))
}

fn v4(address: u32) -> Place {
    place(hash::scope(&KEY, 4, u64::from(address)))
}

fn key(seed: u64) -> HashKey {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut words = [0; 12];
    for word in &mut words {
        *word = random(&mut state);
    }
    words[11] |= 1;
    HashKey { words }
}

fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[test]
fn a_source_is_known_as_what_it_was_inserted_as() {
    let set = Set::default();
    assert_eq!(insert(&set, v4(1), Tiers::REGULAR), Insertion::Inserted);
    assert_eq!(insert(&set, v4(2), Tiers::PROVEN.and(Tiers::REGULAR)), Insertion::Inserted);
    let [one, two] = [1, 2].map(|address| find(&set, v4(address)).unwrap());
    assert_ne!(one.slot, two.slot);
    assert!(one.tiers.has(Tiers::REGULAR) && !one.tiers.has(Tiers::PROVEN));
    assert!(two.tiers.has(Tiers::REGULAR) && two.tiers.has(Tiers::PROVEN));
    assert_eq!(find(&set, v4(3)), None);
}

#[test]
fn a_change_of_tiers_keeps_slot_and_cells() {
    let set = Set::default();
    insert(&set, v4(1), Tiers::PROVEN);
    let before = find(&set, v4(1)).unwrap();
    set.cells[before.slot as usize].arrivals[0].store(77);
    assert_eq!(insert(&set, v4(1), Tiers::REGULAR), Insertion::Changed);
    let after = find(&set, v4(1)).unwrap();
    assert_eq!((after.slot, after.tiers), (before.slot, Tiers::REGULAR));
    assert_eq!(set.cells[after.slot as usize].arrivals[0].load(), 77);
}

#[test]
fn a_slot_that_changes_its_owner_starts_with_fresh_cells() {
    let set = Set::default();
    insert(&set, v4(1), Tiers::PROVEN);
    let slot = find(&set, v4(1)).unwrap().slot;
    let cells = &set.cells[slot as usize];
    cells.arrivals.iter().for_each(|arrival| arrival.store(77));
    cells.offered.iter().for_each(|offered| offered.store(77));
    assert!(remove(&set, v4(1)));
    assert!(!remove(&set, v4(1)));
    assert_eq!(find(&set, v4(1)), None);
    insert(&set, v4(1), Tiers::PROVEN);
    assert_eq!(find(&set, v4(1)).unwrap().slot, slot);
    assert!(cells.arrivals.iter().all(|arrival| arrival.load() == 0));
    assert!(cells.offered.iter().all(|offered| offered.load() == 0));
}

#[test]
fn a_full_set_leaves_nobody_out_and_gives_each_a_slot_of_its_own() {
    for seed in 0..20 {
        let (set, key) = (Set::default(), key(seed));
        let at = |address: u32| place(hash::scope(&key, 4, 0x0a00_0000 + u64::from(address)));
        for address in 0..CAPACITY {
            assert_eq!(insert(&set, at(address), Tiers::REGULAR), Insertion::Inserted);
        }
        let slots: HashSet<u32> =
            (0..CAPACITY).map(|address| find(&set, at(address)).unwrap().slot).collect();
        assert_eq!(slots.len(), CAPACITY as usize, "key {seed}");
        assert!((0..CAPACITY).all(|address| remove(&set, at(address))));
        summarize(&set);
        assert!(set.lines.iter().flat_map(|line| &line.slots).all(|slot| slot.load() == 0));
    }
}

#[test]
fn the_summary_holds_every_known_source_and_one_stranger_in_fifty() {
    let set = Set::default();
    for address in 0..2 * CAPACITY {
        insert(&set, v4(0x0a00_0000 + address), Tiers::PROVEN);
        if address % 2 == 1 {
            remove(&set, v4(0x0a00_0000 + address));
        }
    }
    summarize(&set);
    let holds = |address: u32| may_hold(&set, v4(address).hash);
    assert!((0..CAPACITY).all(|number| holds(0x0a00_0000 + 2 * number)));
    let strangers = (0..1_000_000).filter(|address| holds(0x4000_0000 + address)).count();
    assert!((15_000..25_000).contains(&strangers), "{strangers} of a million");
}

#[test]
fn a_source_whose_lines_are_both_full_is_told_so() {
    let set = Set::default();
    for line in &set.lines {
        line.slots.iter().for_each(|slot| slot.store(u64::MAX));
    }
    assert_eq!(insert(&set, v4(1), Tiers::REGULAR), Insertion::Full);
    // And nobody gave way.
    assert!(set.lines.iter().flat_map(|line| &line.slots).all(|slot| slot.load() == u64::MAX));
}

#[test]
fn a_hash_of_zeros_is_no_free_slot() {
    let set = Set::default();
    for hash in 0..4 {
        assert_eq!(find(&set, place(hash)), None);
    }
    assert_eq!(insert(&set, place(0), Tiers::REGULAR), Insertion::Inserted);
    assert_eq!(find(&set, place(0)).unwrap().tiers, Tiers::REGULAR);
}

/// 62 bits let nobody pass that a test could find. So the high 18 of them are counted too, in the
/// eight taken slots of the sixteen looked at.
#[test]
fn strangers_do_not_pass_for_known_sources() {
    const STRANGERS: u32 = 2_000_000;
    const CUT: u64 = !0 << 46;
    let set = Set::default();
    for address in 0..CAPACITY {
        insert(&set, v4(0x0a00_0000 + address), Tiers::REGULAR);
    }
    let (mut passed, mut cut) = (0, 0_u32);
    for address in 0..STRANGERS {
        let place = v4(0x4000_0000 + address);
        passed += u32::from(find(&set, place).is_some());
        let looked_at = [place.first, place.second].map(|index| &set.lines[index as usize].slots);
        let alike = |slot: &&Shared| slot.load() != 0 && (slot.load() ^ place.hash) & CUT == 0;
        cut += looked_at
            .map(|slots| slots.iter().filter(alike).map(|_| 1).sum::<u32>())
            .iter()
            .sum::<u32>();
    }
    let expected = f64::from(STRANGERS) * 8.0 / f64::from(1 << 18);
    println!("of {STRANGERS} strangers {passed} passed; by 18 bits {cut}, expected {expected:.0}");
    assert_eq!(passed, 0);
    assert!((f64::from(cut) - expected).abs() < 6.0 * expected.sqrt(), "{cut} {expected}");
}

/// The bound of the module's documentation, with members where they do most harm.
#[test]
fn the_bound_on_chosen_addresses_is_below_a_millionth() {
    // Of the IPv6 prefixes that differ from the stranger's by a multiple of 2^v in both words
    // there are 2^(64 - 2v) less one.
    let (mut left, mut sum) = (f64::from(CAPACITY), 0.0);
    for zeros in (0..32).rev() {
        let at_least = 2_f64.powi(64 - 2 * zeros) - 1.0;
        let further = 2_f64.powi(64 - 2 * (zeros + 1)) - 1.0;
        let taken = (at_least - further.max(0.0)).min(left);
        left -= taken;
        sum += taken * 2_f64.powi(zeros - 64);
    }
    let tier_bits = 4.0;
    println!("chance of a chosen stranger: {:.1e}", sum * tier_bits);
    assert!(sum * tier_bits < 1e-6);
}
