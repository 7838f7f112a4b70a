use super::*;
use ctguard_settings::DEFAULT_POLICY;

use crate::{
    look::{Held, Kind, Looking},
    reclaim::ReclaimAges,
    regulars::Regular,
};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);
const START: Duration = Duration::from_hours(1);
const SINCE_1970: Duration = Duration::from_hours(24 * 365 * 50);
const ROOM: u64 = 1000;

fn source(number: u32) -> SourceScope {
    SourceScope::V4(number << 8)
}

fn held(source: SourceScope, kind: Kind) -> Held {
    let proves = matches!(kind, Kind::Established | Kind::Closing | Kind::Finished);
    Held { source, kind, idle: Some(0), deletable: true, proves }
}

fn connections(source: SourceScope, count: u32) -> Vec<Held> {
    (0..count).map(|_| held(source, Kind::Established)).collect()
}

/// Looks at `entries`, `passed` after `START`.
fn look_at(standings: &mut Standings, entries: &[Held], passed: Duration, calm: bool) {
    look(standings, entries, passed, calm, true);
}

fn look(standings: &mut Standings, entries: &[Held], passed: Duration, calm: bool, complete: bool) {
    let marks = standings.marks();
    let mut looking = Looking::<()>::new(ReclaimAges::of(&DEFAULT_POLICY), &marks, 2 * ROOM);
    for entry in entries {
        looking.add(entry, || None);
    }
    let room = PartsRoom { all: ROOM, reserve: 0 };
    standings.looked(&looking.finish(complete), START + passed, SINCE_1970 + passed, calm, room);
}

/// The same where conntrack takes any ACK for a handshake's.
fn look_at_liberal(standings: &mut Standings, entries: &[Held], passed: Duration) {
    let marks = standings.marks();
    let mut looking = Looking::<()>::new(ReclaimAges::of(&DEFAULT_POLICY), &marks, 2 * ROOM);
    for entry in entries {
        looking.add(entry, || None);
    }
    let look = Look { handshakes_prove: false, ..looking.finish(true) };
    let room = PartsRoom { all: ROOM, reserve: 0 };
    standings.looked(&look, START + passed, SINCE_1970 + passed, true, room);
}

/// A guard that has looked at an empty table.
fn started() -> Standings {
    let mut standings = Standings::default();
    look_at(&mut standings, &[], Duration::ZERO, true);
    standings
}

fn tiers(standings: &Standings, source: SourceScope) -> Option<Tiers> {
    standings.known().get(&source).copied()
}

const PROVEN: Option<Tiers> = Some(Tiers::PROVEN);

fn earlier() -> Tiers {
    Tiers::PROVEN.and(Tiers::EARLIER)
}

#[test]
fn standing_outlives_entries_by_ten_minutes() {
    let mut standings = started();
    look_at(&mut standings, &[held(source(1), Kind::Finished)], SECOND, false);
    look_at(&mut standings, &[], 10 * MINUTE, false);
    assert_eq!(tiers(&standings, source(1)), PROVEN);
    look_at(&mut standings, &[], 10 * MINUTE + SECOND, false);
    assert_eq!(tiers(&standings, source(1)), None);
}

#[test]
fn entries_that_anybody_may_send_prove_nothing() {
    let mut standings = started();
    let kinds = [Kind::Unanswered, Kind::HalfOpen, Kind::PickedUp, Kind::Answered, Kind::Stream];
    let entries = kinds.map(|kind| held(source(1), kind));
    let reopened = Held { proves: true, ..held(source(1), Kind::HalfOpen) };
    let refused = Held { proves: false, ..held(source(1), Kind::Finished) };
    look_at(&mut standings, &[&entries[..], &[reopened, refused]].concat(), SECOND, true);
    assert!(standings.known().is_empty());
}

#[test]
fn connections_prove_nothing_where_any_ack_completes_them() {
    let mut standings = started();
    let entries = connections(source(1), 3);
    for minutes in 1..720 {
        look_at_liberal(&mut standings, &entries, minutes * MINUTE);
        assert_eq!(tiers(&standings, source(1)), None, "{minutes} minutes");
    }
    look_at(&mut standings, &entries, 720 * MINUTE, true);
    assert_eq!(tiers(&standings, source(1)), PROVEN);
}

#[test]
fn who_was_proven_in_calm_is_earlier_until_calm_returns_and_on() {
    let mut standings = started();
    let entries = connections(source(1), 1);
    look_at(&mut standings, &entries, SECOND, true);
    assert_eq!(tiers(&standings, source(1)), PROVEN);
    look_at(&mut standings, &entries, 11 * SECOND, true);
    assert_eq!(tiers(&standings, source(1)), Some(earlier()));
    standings.leave_calm();
    look_at(&mut standings, &[], 60 * MINUTE, false);
    assert_eq!(tiers(&standings, source(1)), Some(earlier()), "however long the attack");
    look_at(&mut standings, &[], 61 * MINUTE, true);
    assert_eq!(tiers(&standings, source(1)), None, "it was not seen for an hour");
}

#[test]
fn a_bot_that_connects_during_an_attack_or_just_before_is_never_earlier() {
    let mut standings = started();
    let [before, during, after] = [1, 2, 3].map(source);
    let mut entries = connections(before, 1);
    look_at(&mut standings, &entries, 20 * SECOND, true);
    standings.leave_calm();
    entries.extend(connections(during, 1));
    for second in 21..60 {
        look_at(&mut standings, &entries, second * SECOND, false);
    }
    for bot in [before, during] {
        assert_eq!(tiers(&standings, bot), PROVEN);
    }
    // Neither in the next attack, a minute later, although they still hold their connections.
    entries.extend(connections(after, 1));
    for second in 60..120 {
        look_at(&mut standings, &entries, second * SECOND, true);
    }
    look_at(&mut standings, &entries, 120 * SECOND, false);
    for bot in [before, during] {
        assert_eq!(tiers(&standings, bot), PROVEN);
    }
    assert_eq!(tiers(&standings, after), Some(earlier()));
}

#[test]
fn who_came_in_an_attack_may_be_earlier_once_calm_has_lasted() {
    let mut standings = started();
    let entries = connections(source(1), 1);
    look_at(&mut standings, &entries, SECOND, false);
    for minute in 1..=11 {
        look_at(&mut standings, &entries, minute * MINUTE, true);
        assert_eq!(tiers(&standings, source(1)), PROVEN);
    }
    look_at(&mut standings, &entries, 12 * MINUTE, true);
    assert_eq!(tiers(&standings, source(1)), Some(earlier()));
}

#[test]
fn at_a_start_who_holds_connections_already_is_earlier() {
    let mut standings = Standings::default();
    let entries = connections(source(1), 1);
    look_at(&mut standings, &entries, Duration::ZERO, true);
    assert_eq!(tiers(&standings, source(1)), Some(earlier()));
    let mut in_an_attack = Standings::default();
    look_at(&mut in_an_attack, &entries, Duration::ZERO, false);
    assert_eq!(tiers(&in_an_attack, source(1)), PROVEN);
}

#[test]
fn who_holds_more_than_its_part_is_marked_and_who_holds_less_is_not() {
    let mut standings = started();
    let mut entries = connections(source(1), 900);
    entries.extend((2..52).flat_map(|client| connections(source(client), 5)));
    look_at(&mut standings, &entries, SECOND, false);
    assert_eq!(standings.parts(), Parts { proving: Some(750), ..Parts::default() });
    assert_eq!(tiers(&standings, source(1)), Some(Tiers::PROVEN.and(Tiers::ABOVE_PART)));
    assert_eq!(tiers(&standings, source(2)), PROVEN);
    assert_eq!(*standings.marks(), Marks::from([(source(1), Entries { proving: 150, other: 0 })]));
}

/// Fails when a sender of spoofed packets takes a victim's rank in its connections' tier.
#[test]
fn spoofed_packets_make_a_victim_challenged_and_not_above_its_part() {
    let mut standings = started();
    let mut entries = connections(source(1), 5);
    entries.extend((0..2000).map(|_| held(source(1), Kind::HalfOpen)));
    look_at(&mut standings, &entries, SECOND, false);
    assert_eq!(tiers(&standings, source(1)), Some(Tiers::PROVEN.and(Tiers::CHALLENGED)));
    entries[5].source = source(2);
    entries.iter_mut().skip(5).for_each(|entry| entry.source = source(2));
    look_at(&mut standings, &entries, 2 * SECOND, false);
    assert_eq!(tiers(&standings, source(1)), PROVEN);
    assert_eq!(tiers(&standings, source(2)), Some(Tiers::CHALLENGED));
}

#[test]
fn a_regular_may_hold_what_it_usually_holds() {
    let regular = |usual| Regular { score: 5.0, usual: [usual, 0.0], is_proven: true };
    let regulars = [200.0, 50.0, 50.0, 50.0].map(regular);
    let regulars = Regulars::restore((1..5).map(source).zip(regulars), SINCE_1970);
    let mut standings = Standings::new(regulars);
    let mut entries = connections(source(1), 200);
    entries.extend((2..5).flat_map(|regular| connections(source(regular), 150)));
    entries.extend((5..65).flat_map(|client| connections(source(client), 20)));
    look_at(&mut standings, &entries, SECOND, false);
    assert_eq!(standings.parts(), Parts { before: Some(100), proving: Some(8), other: None });
    assert_eq!(tiers(&standings, source(1)), Some(Tiers::REGULAR.and(Tiers::PROVEN)));
    let above = Some(Tiers::REGULAR.and(Tiers::PROVEN).and(Tiers::ABOVE_PART));
    assert!((2..5).all(|regular| tiers(&standings, source(regular)) == above));
    entries.extend(connections(source(1), 1));
    look_at(&mut standings, &entries, 2 * SECOND, false);
    let expected = Tiers::REGULAR.and(Tiers::PROVEN).and(Tiers::ABOVE_PART);
    assert_eq!(tiers(&standings, source(1)), Some(expected));
}

#[test]
fn an_interrupted_look_makes_strangers_of_nobody_and_forgets_no_marks() {
    let mut standings = started();
    let entries = connections(source(1), 1500);
    look_at(&mut standings, &entries, SECOND, false);
    let before = standings.known();
    look(&mut standings, &connections(source(2), 1), 2 * SECOND, false, false);
    assert_eq!(tiers(&standings, source(2)), PROVEN);
    let mut known = standings.known();
    known.remove(&source(2));
    assert_eq!(known, before);
    look(&mut standings, &entries[..10], 12 * SECOND, false, false);
    assert_eq!(tiers(&standings, source(1)), PROVEN, "marks of an old look do not last");
}

#[test]
fn nobody_becomes_a_regular_under_pressure() {
    let mut standings = started();
    let entries = connections(source(1), 1);
    for hour in 1..20 {
        look_at(&mut standings, &entries, 60 * MINUTE * hour, false);
    }
    assert_eq!(tiers(&standings, source(1)), PROVEN);
    for hour in 20..23 {
        look_at(&mut standings, &entries, 60 * MINUTE * hour, true);
    }
    assert!(tiers(&standings, source(1)).unwrap().has(Tiers::REGULAR));
}

/// Fails when a clock that is set, forth by a year and back again, makes strangers of all regulars, or keeps
/// sources from becoming regulars until it has caught up.
#[test]
fn a_clock_that_is_set_costs_no_regular_and_stops_no_learning() {
    const YEAR: Duration = Duration::from_hours(24 * 365);
    let mut standings = started();
    let now = std::cell::Cell::new(START);
    let hours = |standings: &mut Standings, number, count: u32, clock: Duration| {
        let marks = standings.marks();
        for _ in 0..count * 60 {
            now.set(now.get() + MINUTE);
            let mut looking =
                Looking::<()>::new(ReclaimAges::of(&DEFAULT_POLICY), &marks, 2 * ROOM);
            looking.add(&held(source(number), Kind::Established), || None);
            let room = PartsRoom { all: ROOM, reserve: 0 };
            standings.looked(&looking.finish(true), now.get(), clock + now.get(), true, room);
        }
    };
    hours(&mut standings, 1, 6, SINCE_1970);
    assert!(standings.usual.contains_key(&source(1)));
    hours(&mut standings, 2, 1, SINCE_1970 + YEAR);
    assert!(standings.usual.contains_key(&source(1)), "a year did not pass");
    hours(&mut standings, 2, 4, SINCE_1970);
    assert!(standings.usual.contains_key(&source(2)), "it was there in several hours");
    assert_eq!(standings.regulars.as_of(), SINCE_1970 + now.get());

    // A record that was written while the clock was wrong.
    let (scores, as_of) = standings.regulars.ranked();
    let mut standings = Standings::new(Regulars::restore(scores, as_of + YEAR));
    hours(&mut standings, 3, 5, SINCE_1970);
    let all = |standings: &Standings| {
        [1, 2, 3].iter().all(|number| standings.usual.contains_key(&source(*number)))
    };
    assert!(all(&standings));

    // One of a clock that was behind.
    let (scores, as_of) = standings.regulars.ranked();
    let mut standings = Standings::new(Regulars::restore(scores, as_of.saturating_sub(20 * YEAR)));
    hours(&mut standings, 3, 1, SINCE_1970);
    assert!(all(&standings));
}

/// 60,000 bots of one /48, then one of each of 20,000 networks.
#[test]
fn neither_a_network_nor_a_crowd_takes_the_places_of_those_that_were_there() {
    let mut standings = started();
    let clients: Vec<_> = (0..200).map(|host| SourceScope::V4(0x0a00_0000 | host)).collect();
    let entries: Vec<_> = clients.iter().flat_map(|&client| connections(client, 1)).collect();
    look_at(&mut standings, &entries, SECOND, true);
    look_at(&mut standings, &entries, 20 * SECOND, true);
    let newcomer = SourceScope::V4(0x0b00_0000);
    let routed = (0..60_000).map(|host| SourceScope::V6(0x2001_0db8 << 32 | host));
    let bots: Vec<_> = routed.flat_map(|bot| connections(bot, 1)).collect();
    let with_newcomer = [&connections(newcomer, 1)[..], &bots].concat();
    look_at(&mut standings, &with_newcomer, 21 * SECOND, false);
    assert_eq!(tiers(&standings, newcomer), PROVEN);
    let crowd: Vec<_> = (0..20_000).flat_map(|host| connections(source(host), 1)).collect();
    look_at(&mut standings, &crowd, 22 * SECOND, false);
    let known = standings.known();
    assert_eq!(known.len(), CAPACITY as usize);
    assert!(clients.iter().all(|client| known.get(client).copied() == Some(earlier())));
}

/// Fails when bots that come slowly enough to become earlier displace those that did before them.
#[test]
fn a_crowd_that_comes_in_calm_does_not_take_the_places_of_those_that_were_there() {
    let mut standings = started();
    let clients: Vec<_> = (0..200).map(source).collect();
    let entries: Vec<_> = clients.iter().flat_map(|&client| connections(client, 1)).collect();
    look_at(&mut standings, &entries, SECOND, true);
    let crowd: Vec<_> = (1000..21_000).flat_map(|host| connections(source(host), 1)).collect();
    for second in [10, 20, 30] {
        look_at(&mut standings, &crowd, second * SECOND, true);
    }
    let known = standings.known();
    assert!(clients.iter().all(|client| known.get(client).copied() == Some(earlier())));
}

#[test]
fn earlier_sources_leave_some_places_to_newcomers() {
    let mut standings = started();
    let crowd: Vec<_> = (0..20_000).flat_map(|host| connections(source(host), 1)).collect();
    look_at(&mut standings, &crowd, SECOND, true);
    look_at(&mut standings, &crowd, 20 * SECOND, true);
    let newcomers: Vec<_> = (0..1000).map(|host| source(30_000 + host)).collect();
    let entries: Vec<_> = newcomers.iter().flat_map(|&host| connections(host, 1)).collect();
    look_at(&mut standings, &entries, 21 * SECOND, false);
    let known = standings.known();
    assert!(newcomers.iter().all(|newcomer| known.get(newcomer).copied() == PROVEN));
}

/// An office, known from calm or not, and 500 sources that keep 28 idle connections each. Fails when
/// nothing of these makes room, or when a connection that speaks does.
#[test]
fn who_keeps_idle_connections_makes_room_and_an_office_that_speaks_loses_none() {
    let room = PartsRoom { all: 11_468, reserve: 2_458 };
    let office = source(1);
    let idle = |source, idle| Held { idle: Some(idle), ..held(source, Kind::Established) };
    let mut entries: Vec<_> = (0..2000).map(|number| idle(office, number % 6)).collect();
    for holder in 1000..1500 {
        entries.extend((0..28).map(|number| idle(source(holder), 21 * (number + 1))));
    }
    let known = Regular { score: 50.0, usual: [2000.0, 0.0], is_proven: true };
    let known = Regulars::restore([(office, known)], SINCE_1970);
    for mut standings in [Standings::default(), Standings::new(known)] {
        let mut queues = Vec::new();
        for passed in [MINUTE, MINUTE + SECOND, MINUTE + 2 * SECOND] {
            let marks = standings.marks();
            let ages = ReclaimAges::of(&DEFAULT_POLICY);
            let mut looking = Looking::new(ages, &marks, 16_384);
            for entry in &entries {
                looking.add(entry, || Some(*entry));
            }
            let mut look = looking.finish(true);
            standings.looked(&look, START + passed, SINCE_1970 + passed, true, room);
            queues.push(look.queue.take(usize::MAX, false));
        }
        let [first, second, third] = &queues[..] else { unreachable!("three looks") };
        assert!(first.is_empty(), "nobody was above a part that was not known yet");
        assert!(second.len() >= 500 && third.len() >= 2000, "{} {}", second.len(), third.len());
        for (_, entry) in second.iter().chain(third) {
            assert!(entry.source != office && entry.idle >= Some(60), "{entry:?}");
        }
        let oldest_of_each = third.iter().all(|(_, entry)| entry.idle >= Some(21 * 20));
        assert!(oldest_of_each, "those that were silent longest");
    }
}

/// Fails when a guard with a low target holds everybody to a part of nothing.
#[test]
fn however_low_the_target_sources_may_hold_half_of_it_before_they_are_held_to_parts() {
    let room = |target_ppm| parts_room(TableSample { entries: 0, max: 1_000_000 }, target_ppm);
    assert_eq!(room(80_000), PartsRoom { all: 40_000, reserve: 40_000 });
    assert_eq!(room(850_000), PartsRoom { all: 700_000, reserve: 150_000 });
}
