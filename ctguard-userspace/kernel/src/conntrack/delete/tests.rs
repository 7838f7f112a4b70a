use std::{net::IpAddr, ops::ControlFlow};

use ctguard_datapath::packet::protocol::{TCP, UDP};

use super::*;
use crate::conntrack::{
    dump::{dump, dump_deletable, read_table},
    testing::{TestTable, Wanted, count, fill, status},
};

const SERVER: (&str, u16) = ("198.51.100.1", 443);

#[test]
fn the_entries_that_are_chosen_go_and_no_others() {
    let test = "the_entries_that_are_chosen_go_and_no_others";
    let Some(table) = TestTable::make(test) else { return };
    let v4 = Wanted::new(TCP, ("192.0.2.1", 1), SERVER, status::ASSURED);
    let v6 = Wanted::new(UDP, ("2001:db8::1", 2), ("2001:db8::2", 443), status::UNREPLIED);
    let mut translated = Wanted::new(TCP, ("192.0.2.1", 3), SERVER, status::UNREPLIED);
    translated.reply = ("10.0.0.8".parse().unwrap(), 8443, translated.original.0, 3);
    // The same tuple in another zone, which stays.
    let [zoned, other] = [7, 8].map(|zone| Wanted { zone, ..v4 });
    table.run(|| {
        fill([v4, v6, translated, zoned, other].into_iter());
        assert_eq!(count(), 5);
        let chosen = deletions(|entry| entry.zone != 8);
        let mut deleter = Deleter::open().unwrap();
        assert_eq!(deleter.delete(chosen.clone()).unwrap(), Deleted { deleted: 4, gone: 0 });
        let mut left = Vec::new();
        dump(|entry| left.push((entry.zone, entry.has_another_source_port()))).unwrap();
        assert_eq!(left, [(8, false)]);
        assert_eq!(deleter.delete(chosen).unwrap(), Deleted { deleted: 0, gone: 4 });
    });
}

/// The number in a deletion is that of the entry, not of its tuple.
#[test]
fn another_entry_of_the_same_tuple_is_not_hit() {
    let Some(table) = TestTable::make("another_entry_of_the_same_tuple_is_not_hit") else { return };
    let first = Wanted::new(TCP, ("192.0.2.1", 1), SERVER, status::UNREPLIED);
    table.run(|| {
        fill([first].into_iter());
        let mut chosen = deletions(|_| true);
        chosen[0].key.id.as_mut().unwrap()[3] ^= 1;
        let deleted = Deleter::open().unwrap().delete(chosen);
        assert_eq!((deleted.unwrap(), count()), (Deleted { deleted: 0, gone: 1 }, 1));
    });
}

/// Fails when a connection is deleted that spoke after it was listed, whether that gave it more time
/// or less.
#[test]
fn an_entry_that_saw_a_packet_since_it_was_listed_is_spared() {
    let test = "an_entry_that_saw_a_packet_since_it_was_listed_is_spared";
    let Some(table) = TestTable::make(test) else { return };
    table.run(|| {
        let client = |port| Wanted::new(TCP, ("192.0.2.1", port), SERVER, status::ASSURED);
        fill((1..=40).map(client));
        let chosen = deletions(|_| true);
        let mut changes = Vec::new();
        read_table(&mut |entry, attributes| {
            let change = |seconds| Key::of(entry, attributes).unwrap().change_of_timeout(seconds);
            match entry.original.key >> 16 {
                3 => changes.extend(change(200)),
                30 => changes.extend(change(50)),
                _ => {}
            }
            ControlFlow::Continue(())
        })
        .unwrap();
        dump::open().unwrap().send(&changes).unwrap();
        let began = Instant::now();
        let deleted = Deleter::open().unwrap().delete_silent(chosen).unwrap();
        println!("{deleted:?} in {:?}", began.elapsed());
        assert_eq!((deleted, count()), (Deleted { deleted: 38, gone: 0 }, 2));
    });
}

/// Prints what it costs.
#[test]
fn ports_that_nat_changed_are_seen_and_thousands_of_entries_go_at_once() {
    // The maximum is the machine's, which may be a small router.
    const ENTRIES: u32 = 8000;
    let test = "ports_that_nat_changed_are_seen";
    let Some(table) = TestTable::make(test) else { return };
    table.run(|| {
        fill((0..ENTRIES).map(|number| {
            let mut wanted = Wanted::new(TCP, ("10.0.0.1", 1000), SERVER, status::UNREPLIED);
            let source = IpAddr::from((0x0a00_0000 + number).to_be_bytes());
            wanted.original.0 = source;
            wanted.reply.2 = source;
            wanted.reply.3 += u16::from(number % 2 == 0);
            wanted
        }));
        let mut began = Instant::now();
        let mut lap = || std::mem::replace(&mut began, Instant::now()).elapsed();
        let chosen = deletions(Entry::has_another_source_port);
        println!("{ENTRIES} entries listed in {:?}", lap());
        let deleted = Deleter::open().unwrap().delete(chosen).unwrap();
        println!("{deleted:?} in {:?}", lap());
        assert_eq!((deleted.deleted, count()), (4000, 4000));
    });
}

fn deletions(is_chosen: impl Fn(&Entry) -> bool) -> Vec<Deletion> {
    let mut deletions = Vec::new();
    dump_deletable(|entry, deletion| deletions.extend(deletion().filter(|_| is_chosen(entry))))
        .unwrap();
    deletions
}
