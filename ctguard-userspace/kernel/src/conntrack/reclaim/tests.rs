use std::{collections::BTreeSet, net::IpAddr, time::Instant};

use ctguard_datapath::packet::protocol::{TCP, UDP};

use super::{super::batch::Sent, ages::testing::defaults, *};
use crate::conntrack::{
    dump,
    testing::{TestTable, Wanted, count, fill, status},
};

const SERVER: (&str, u16) = ("198.51.100.1", 443);

/// All that must survive, with an unreplied entry of the same source beside each.
#[test]
fn an_answered_or_assured_entry_is_never_deleted() {
    let test = "an_answered_or_assured_entry_is_never_deleted";
    let Some(table) = TestTable::make(test) else { return };
    let entry = |status, port| {
        let from = ("192.0.2.1", port);
        [Wanted::new(TCP, from, SERVER, status), Wanted::new(UDP, from, SERVER, status)]
    };
    let unreplied = entry(status::UNREPLIED, 1000);
    let replied = entry(status::REPLIED, 1001);
    let assured = entry(status::ASSURED, 1002);
    table.run(|| {
        fill(unreplied.into_iter().chain(replied).chain(assured));
        let reclaimed = reclaim(100, &defaults(), |_| true).unwrap();
        let expected = Reclaimed { deleted: 2, ..Reclaimed::default() };
        assert_eq!(reclaimed, expected);
        assert_eq!(ports(), BTreeSet::from([1001, 1002]));
        assert_eq!(count(), 4);
    });
}

#[test]
fn only_the_sources_that_are_chosen_lose_entries() {
    let test = "only_the_sources_that_are_chosen_lose_entries";
    let Some(table) = TestTable::make(test) else { return };
    table.run(|| {
        fill((0..500).map(|port| {
            let source = if port % 2 == 0 { "192.0.2.1" } else { "192.0.2.2" };
            Wanted::new(UDP, (source, port), SERVER, status::UNREPLIED)
        }));
        let chosen: IpAddr = "192.0.2.1".parse().unwrap();
        let reclaimed = reclaim(1000, &defaults(), |entry| entry.original.source == chosen);
        assert_eq!(reclaimed.unwrap().deleted, 250);
        assert_eq!(ports(), (0..500).filter(|port| port % 2 == 1).collect());
    });
}

#[test]
fn no_more_are_deleted_than_may_be() {
    let Some(table) = TestTable::make("no_more_are_deleted_than_may_be") else { return };
    table.run(|| {
        fill((0..500).map(|port| Wanted::new(UDP, ("192.0.2.1", port), SERVER, status::UNREPLIED)));
        for left in [400, 300] {
            let reclaimed = reclaim(100, &defaults(), |_| true).unwrap();
            assert_eq!((reclaimed.deleted, reclaimed.has_more, count()), (100, true, left));
        }
        assert_eq!(reclaim(0, &defaults(), |_| true).unwrap(), Reclaimed::default());
        let rest = reclaim(1000, &defaults(), |_| true).unwrap();
        assert_eq!((rest.deleted, rest.has_more, count()), (300, false, 0));
    });
}

#[test]
fn translated_and_zoned_entries_of_both_families_are_deleted() {
    let test = "translated_and_zoned_entries_of_both_families_are_deleted";
    let Some(table) = TestTable::make(test) else { return };
    let v4 = Wanted::new(TCP, ("192.0.2.1", 1), SERVER, status::UNREPLIED);
    let v6 = Wanted::new(TCP, ("2001:db8::1", 2), ("2001:db8::2", 443), status::UNREPLIED);
    let mut translated = Wanted::new(TCP, ("192.0.2.1", 3), SERVER, status::UNREPLIED);
    translated.reply = ("10.0.0.8".parse().unwrap(), 8443, translated.original.0, 3);
    // The same tuple in another zone, which stays.
    let [zoned, other] = [7, 8].map(|zone| Wanted { zone, ..v4 });
    table.run(|| {
        fill([v4, v6, translated, zoned, other].into_iter());
        assert_eq!(count(), 5);
        let reclaimed = reclaim(100, &defaults(), |entry| entry.zone != 8).unwrap();
        assert_eq!((reclaimed.deleted, reclaimed.gone), (4, 0));
        let mut left = Vec::new();
        dump(|entry| left.push(entry.zone)).unwrap();
        assert_eq!(left, [8]);
    });
}

#[test]
fn young_entries_are_spared() {
    let Some(table) = TestTable::make("young_entries_are_spared") else { return };
    let old = Wanted::new(UDP, ("192.0.2.1", 1), SERVER, status::UNREPLIED);
    let young = Wanted { seconds: 30, ..Wanted::new(UDP, ("192.0.2.1", 2), SERVER, old.status) };
    table.run(|| {
        fill([old, young].into_iter());
        let reclaimed = reclaim(100, &Ages::read(), |_| true).unwrap();
        assert_eq!((reclaimed.deleted, reclaimed.spared), (1, 1));
        assert_eq!(ports(), BTreeSet::from([2]));
    });
}

/// The number in a deletion is that of the entry, not of its tuple.
#[test]
fn another_entry_of_the_same_tuple_is_not_hit() {
    let Some(table) = TestTable::make("another_entry_of_the_same_tuple_is_not_hit") else { return };
    let first = Wanted::new(TCP, ("192.0.2.1", 1), SERVER, status::UNREPLIED);
    table.run(|| {
        fill([first].into_iter());
        let mut message = Vec::new();
        dump_filtered(UNREPLIED, |entry, attributes| {
            message = Key::of(entry, attributes).and_then(Key::deletion).unwrap();
            ControlFlow::Continue(())
        })
        .unwrap();
        // Spoil the identity: the attribute behind the tuple, which ends the message.
        *message.last_mut().unwrap() ^= 1;
        let mut batch = Batch::open().unwrap();
        batch.add(message).unwrap();
        assert_eq!(batch.finish().unwrap(), Sent { done: 0, gone: 1 });
        assert_eq!(count(), 1);
    });
}

/// Prints what it costs.
#[test]
fn a_table_full_of_other_peoples_entries_is_reclaimed_at_once() {
    const ENTRIES: u32 = 10_000;
    let test = "a_table_full_of_other_peoples_entries_is_reclaimed_at_once";
    let Some(table) = TestTable::make(test) else { return };
    table.run(|| {
        fill((0..ENTRIES).map(|number| {
            let mut wanted = Wanted::new(TCP, ("10.0.0.1", 1000), SERVER, status::UNREPLIED);
            let source = IpAddr::from((0x0a00_0000 + number).to_be_bytes());
            wanted.original.0 = source;
            wanted.reply.2 = source;
            wanted
        }));
        for most in [1000, u64::MAX] {
            let began = Instant::now();
            let reclaimed = reclaim(most, &defaults(), |_| true).unwrap();
            println!("{reclaimed:?} in {:?}, {} left", began.elapsed(), count());
        }
        assert_eq!(count(), 0);
    });
}

fn ports() -> BTreeSet<u16> {
    let mut ports = BTreeSet::new();
    dump(|entry| {
        ports.insert(u16::try_from(entry.original.key >> 16).unwrap());
    })
    .unwrap();
    ports
}
