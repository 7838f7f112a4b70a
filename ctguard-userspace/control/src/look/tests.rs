use std::{cmp::Reverse, collections::HashMap};

use super::*;
use crate::{holdings::Excess, testing::Random};
use ReclaimClass::{
    Answered, EstablishedAbovePart, Finished, HalfOpen, StreamAbovePart, Unanswered,
};

const AGES: ReclaimAges =
    ReclaimAges { ages: [Some(1), Some(5), Some(10), Some(10), Some(30), Some(60)] };

fn source(number: u32) -> SourceScope {
    SourceScope::V4(number)
}

fn held(number: u32, kind: Kind, idle: u32) -> Held {
    let proves = matches!(kind, Kind::Established | Kind::Closing | Kind::Finished);
    Held { source: source(number), kind, idle: Some(idle), deletable: true, proves }
}

fn look(entries: &[Held], marks: &Marks, max: u64) -> Look<usize> {
    let mut looking = Looking::new(AGES, marks, max);
    for (number, entry) in entries.iter().enumerate() {
        looking.add(entry, || Some(number));
    }
    looking.finish(true)
}

fn queued(entries: &[Held], marks: &Marks) -> Vec<(ReclaimClass, usize)> {
    let mut queue = look(entries, marks, 1000).queue;
    let taken = queue.take(usize::MAX, true);
    assert_eq!((queue.len(), queue.replaceable()), (0, 0));
    taken
}

#[test]
fn what_is_old_enough_is_deleted_in_the_order_of_the_classes() {
    let entries = [
        held(1, Kind::Answered, 10),
        held(1, Kind::Finished, 10),
        held(1, Kind::Finished, 100),
        held(1, Kind::HalfOpen, 5),
        held(1, Kind::PickedUp, 1),
        held(1, Kind::Unanswered, 7),
        held(1, Kind::Closing, 1000),
        held(1, Kind::Established, 1000),
        held(1, Kind::Stream, 1000),
    ];
    let expected = [
        (Unanswered, 5),
        (Unanswered, 4),
        (HalfOpen, 3),
        (Finished, 2),
        (Finished, 1),
        (Answered, 0),
    ];
    assert_eq!(queued(&entries, &Marks::new()), expected);
}

#[test]
fn what_is_young_is_replaced_only_in_need_and_what_is_assured_never_before_it_is_over() {
    let entries = [
        held(1, Kind::Unanswered, 0),
        held(1, Kind::HalfOpen, 4),
        held(1, Kind::Answered, 9),
        Held { proves: false, ..held(1, Kind::Finished, 9) },
        Held { idle: None, ..held(1, Kind::Unanswered, 0) },
        held(1, Kind::Finished, 1),
        Held { proves: true, ..held(1, Kind::HalfOpen, 4) },
        Held { proves: false, ..held(1, Kind::Closing, 1000) },
        held(1, Kind::Stream, 9),
    ];
    let mut queue = look(&entries, &Marks::new(), 1000).queue;
    assert_eq!((queue.len(), queue.replaceable(), queue.firm()), (0, 5, 4));
    assert_eq!(queue.take(9, false), []);
    let numbers: Vec<_> = queue.take(9, true).into_iter().map(|(_, number)| number).collect();
    assert!(numbers == [2, 3, 1, 0, 4] || numbers == [2, 3, 1, 4, 0] || numbers[..2] == [3, 2]);
}

#[test]
fn what_may_not_be_deleted_is_not_whatever_its_age() {
    let entries = Kind::ALL.map(|kind| Held { deletable: false, ..held(1, kind, 10_000) });
    let marks = Marks::from([(source(1), Excess { proving: 9, other: 9 })]);
    assert_eq!(queued(&entries, &marks), []);
    let look = look(&entries, &marks, 1000);
    assert_eq!((look.entries, look.by_kind), (8, [1; Kind::COUNT]));
    assert_eq!(look.queue.firm(), 3, "the kernel replaces the others");
    assert_eq!(look.holdings.of(source(1)), Excess { proving: 3, other: 5 });
}

#[test]
fn an_unknown_age_is_taken_for_young() {
    let entries = Kind::ALL.map(|kind| Held { idle: None, ..held(1, kind, 0) });
    let marks = Marks::from([(source(1), Excess { proving: 9, other: 9 })]);
    let classes: Vec<_> = queued(&entries, &marks).into_iter().map(|(class, _)| class).collect();
    assert_eq!(classes, [ReclaimClass::Replaceable; 4]);
}

#[test]
fn a_class_that_is_off_is_spared() {
    let marks = Marks::new();
    let ages = ReclaimAges { ages: [None; 6] };
    let mut looking = Looking::new(ages, &marks, 1000);
    for kind in Kind::ALL {
        looking.add(&held(1, kind, 10_000), || Some(()));
    }
    let look = looking.finish(true);
    assert_eq!((look.queue.len(), look.queue.replaceable()), (0, 5));
}

/// Fails when a source loses more than its excess, or one within its part loses anything.
#[test]
fn sources_above_their_part_lose_their_excess_the_furthest_first() {
    let marks = Marks::from([
        (source(1), Excess { proving: 2, other: 0 }),
        (source(2), Excess { proving: 3, other: 1 }),
    ]);
    let mut entries = Vec::new();
    for number in [1, 2, 3] {
        for idle in [61, 59, 60, 63, 62, 64] {
            entries.push(held(number, Kind::Established, idle));
        }
        entries.extend([held(number, Kind::Stream, 30), held(number, Kind::Stream, 31)]);
    }
    let lost: Vec<_> = queued(&entries, &marks)
        .into_iter()
        .map(|(class, number)| (class, entries[number].source, entries[number].idle.unwrap()))
        .collect();
    let expected = [
        (StreamAbovePart, source(2), 31),
        (EstablishedAbovePart, source(2), 64),
        (EstablishedAbovePart, source(2), 63),
        (EstablishedAbovePart, source(2), 62),
        (EstablishedAbovePart, source(1), 64),
        (EstablishedAbovePart, source(1), 63),
    ];
    assert_eq!(lost, expected);
    assert_eq!(look(&entries, &marks, 1000).queue.firm(), 24 - 6);
}

/// Against a sort of everything.
#[test]
fn a_queue_that_is_too_small_keeps_what_comes_first() {
    let mut random = Random::new(17);
    for _ in 0..20 {
        let entries: Vec<Held> = (0..20_000)
            .map(|_| held(1, Kind::ALL[random.below(8) as usize], random.below(1000)))
            .collect();
        let mut all: Vec<(ReclaimClass, u32)> = entries
            .iter()
            .filter_map(|entry| match AGES.class(entry) {
                Some(class) if class.is_dead_weight() => Some((class, entry.idle?)),
                None if entry.is_replaceable() => Some((ReclaimClass::Replaceable, entry.idle?)),
                Some(_) | None => None,
            })
            .collect();
        all.sort_unstable_by_key(|&(class, idle)| (class, Reverse(idle)));
        let capacity = queue_capacity(2000);
        let mut queue = look(&entries, &Marks::new(), 2000).queue;
        let found: Vec<_> = queue
            .take(usize::MAX, true)
            .into_iter()
            .map(|(class, number)| (class, entries[number].idle.unwrap()))
            .collect();
        assert!((capacity / 2..=capacity).contains(&found.len()), "{}", found.len());
        assert_eq!(found, all[..found.len()]);
    }
}

#[test]
fn a_payload_is_asked_for_only_if_its_entry_finds_a_place() {
    let marks = Marks::new();
    let mut looking = Looking::new(AGES, &marks, 1024);
    let mut asked = 0;
    for idle in (10..100_000).rev() {
        looking.add(&held(1, Kind::Finished, idle), || {
            asked += 1;
            Some(())
        });
    }
    assert!(asked <= 1025, "{asked}");
    assert!(looking.finish(true).queue.len() >= 512);
}

#[test]
fn a_queue_is_taken_in_steps_and_counts_what_is_left() {
    let entries: Vec<_> = (0..10).map(|idle| held(1, Kind::HalfOpen, idle)).collect();
    let mut queue = look(&entries, &Marks::new(), 1000).queue;
    assert_eq!((queue.len(), queue.replaceable()), (5, 5));
    assert_eq!(queue.take(2, true), [(ReclaimClass::HalfOpen, 9), (ReclaimClass::HalfOpen, 8)]);
    assert_eq!((queue.len(), queue.count(ReclaimClass::HalfOpen)), (3, 3));
    let rest: Vec<_> = queue.take(100, false).into_iter().map(|(_, number)| number).collect();
    assert_eq!(rest, [7, 6, 5]);
    assert!(queue.is_empty());
    assert_eq!(queue.take(3, true)[2], (ReclaimClass::Replaceable, 2));
    assert_eq!(queue.replaceable(), 2);
}

#[test]
fn holdings_are_the_entries_that_are_no_dead_weight() {
    let entries = [
        held(1, Kind::Established, 1000),
        held(1, Kind::Closing, 1000),
        held(1, Kind::Finished, 9),
        held(1, Kind::Finished, 10),
        held(2, Kind::HalfOpen, 4),
        held(2, Kind::HalfOpen, 5),
        held(2, Kind::Stream, 1000),
        Held { proves: true, ..held(2, Kind::HalfOpen, 1) },
    ];
    let look = look(&entries, &Marks::new(), 1000);
    let found: HashMap<_, _> = look.holdings.top(9).into_iter().collect();
    let expected = [
        (source(1), Excess { proving: 3, other: 0 }),
        (source(2), Excess { proving: 0, other: 3 }),
    ];
    assert_eq!(found, HashMap::from(expected));
    assert_eq!(look.holdings.proven().collect::<Vec<_>>(), [source(1)]);
}

#[test]
fn where_idle_times_cannot_be_trusted_only_dead_weight_is_deleted() {
    let marks = Marks::from([(source(1), Excess { proving: 9, other: 9 })]);
    let entries = Kind::ALL.map(|kind| held(1, kind, 10_000));
    let mut queue = look(&entries, &marks, 1000).queue;
    let (queued, firm) = (queue.len(), queue.firm());
    queue.keep_dead_weight();
    assert_eq!((queue.len(), queue.firm()), (queued - 2, firm + 2));
    let classes: Vec<_> = queue.take(99, true).into_iter().map(|(class, _)| class).collect();
    assert!(
        classes.iter().all(|class| class.is_dead_weight()) && classes.len() == 5,
        "{classes:?}"
    );
}

#[test]
fn a_look_is_urgent_above_the_target_and_where_a_growing_table_has_no_parts_yet() {
    let urgent = |entries, looked_at, has_parts| {
        is_urgent(TableSample { entries, max: 1000 }, 850_000, looked_at, has_parts)
    };
    assert!(urgent(851, 851, true), "above the target");
    assert!(!urgent(701, 701, false), "a table that does not grow can wait");
    assert!(!urgent(700, 500, false), "everybody's entries fit");
    assert!(urgent(701, 500, false));
    assert!(urgent(800, 765, false), "grown on since the last look");
    assert!(!urgent(800, 500, true), "parts are known");
    let unlimited = TableSample { entries: 5, max: 0 };
    assert!(!is_urgent(unlimited, 850_000, 0, false));
}
