use std::{collections::BTreeMap, net::Ipv4Addr, time::Instant};

use ctguard_datapath::packet::protocol::{TCP, UDP};

use super::*;
use crate::conntrack::{
    dump::Completeness,
    testing::{TestTable, Wanted, count, empty, fill, status},
};

const SERVER: (&str, u16) = ("198.51.100.1", 443);

#[test]
fn only_sources_of_assured_connections_are_told() {
    let test = "only_sources_of_assured_connections_are_told";
    let Some(table) = TestTable::make(test) else { return };
    let mut translated = Wanted::new(TCP, ("192.0.2.4", 1000), SERVER, status::ASSURED);
    translated.reply.0 = "10.0.0.7".parse().unwrap();
    let zoned = Wanted {
        zone: 7,
        ..Wanted::new(TCP, ("2001:db8::5", 1000), ("2001:db8::1", 443), status::ASSURED)
    };
    let entries = [
        Wanted::new(TCP, ("192.0.2.1", 1000), SERVER, status::ASSURED),
        Wanted::new(TCP, ("192.0.2.1", 1001), SERVER, status::ASSURED),
        Wanted::new(TCP, ("192.0.2.2", 1000), SERVER, status::REPLIED),
        Wanted::new(TCP, ("192.0.2.3", 1000), SERVER, status::UNREPLIED),
        Wanted::new(UDP, ("192.0.2.9", 1000), SERVER, status::ASSURED),
        translated,
        zoned,
    ];
    let (summary, told) = table.run(|| {
        fill(entries.into_iter());
        assert_eq!(count(), 7);
        let mut told = BTreeMap::new();
        let summary = assured_sources(|source| *told.entry(source).or_insert(0) += 1).unwrap();
        (summary, told)
    });
    let expected = [("192.0.2.1", 2), ("192.0.2.4", 1), ("2001:db8::5", 1)]
        .map(|(source, connections)| (source.parse::<IpAddr>().unwrap(), connections));
    assert_eq!(told, BTreeMap::from(expected));
    assert_eq!(summary.completeness, Completeness::Complete);
    println!("the kernel sent {} entries of 7", summary.entries);
}

/// Prints what it costs.
#[test]
fn every_assured_entry_of_a_large_table_is_told() {
    const ENTRIES: u32 = 10_000;
    let test = "every_assured_entry_of_a_large_table_is_told";
    let Some(table) = TestTable::make(test) else { return };
    for every in [1000, 1] {
        let (took, told) = table.run(|| {
            fill((0..ENTRIES).map(|number| {
                let status = if number % every == 0 { status::ASSURED } else { status::UNREPLIED };
                let mut wanted = Wanted::new(TCP, ("10.0.0.1", 1000), SERVER, status);
                let source = IpAddr::from(Ipv4Addr::from(0x0a00_0000 + number));
                wanted.original.0 = source;
                wanted.reply.2 = source;
                wanted
            }));
            let (began, mut told) = (Instant::now(), 0);
            assured_sources(|_| told += 1).unwrap();
            (began.elapsed(), told)
        });
        println!("{told} ASSURED of {ENTRIES} entries: {took:?}");
        assert_eq!(told, ENTRIES / every);
        table.run(empty);
    }
}
