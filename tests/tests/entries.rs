//! What the lab's floods do to a table: a flood that makes no entries shows nothing.

use std::time::Duration;

use clap::ValueEnum as _;
use ctguard_tests::{
    addresses::{FLOOD_PORT, Family},
    cpus::Cpus,
    flood::Flood,
    recipe::{FloodKind, Rate, check_family},
    report::ratio,
    require,
    router::Network,
    table,
};

/// Fails when conntrack drops a flood's packets, or when something that answers them takes their
/// entries away.
#[test]
fn nearly_every_packet_of_each_flood_makes_an_entry_unless_rules_drop_it() {
    if !require::root("nearly_every_packet_of_each_flood_makes_an_entry_unless_rules_drop_it") {
        return;
    }
    for &kind in FloodKind::value_variants() {
        for family in [Family::Ipv4, Family::Ipv6] {
            if check_family(kind, family).is_err() {
                continue;
            }
            // A network of its own, for two kinds may have packets of one tuple.
            let network = Network::build().expect("the lab's network");
            if let Some(port) = kind.port(true) {
                flood(&network, kind, family, port);
                let entries = settled(&network, |entries| entries == 0);
                assert_eq!(entries, 0, "{kind} {family}: entries of packets that rules drop");
            }
            let frames = flood(&network, kind, family, kind.port(false).unwrap_or(FLOOD_PORT));
            // A packet in two fragments makes one entry.
            let packets = if kind == FloodKind::TinyFragments { frames / 2 } else { frames };
            let nearly_all = |entries| ratio(entries, packets) > 0.95;
            let entries = settled(&network, nearly_all);
            assert!(nearly_all(entries), "{kind} {family}: {entries} entries of {packets} packets");
        }
    }
}

/// Frames of a short flood that were not sent before: some hundred, so that they fit every table. One
/// that comes and goes at random may not have come yet.
fn flood(network: &Network, kind: FloodKind, family: Family, port: u16) -> u64 {
    let rate = Rate::PerSecond(2000);
    let cpus = Cpus::share_out().expect("CPUs");
    let mut tries = (0..10).map(|_| {
        let flood = Flood::through(network, kind, rate, (family, port), cpus);
        let flood = flood.expect("the flood starts");
        std::thread::sleep(Duration::from_millis(250));
        let flooded = flood.stop().expect("the flood ends");
        flooded.offered - flooded.sent_again
    });
    tries.find(|frames| *frames >= 20).unwrap_or_else(|| panic!("{kind} {family} makes no frames"))
}

/// Entries once `right` says so, or after a while: the last frames may still be on their way.
fn settled(network: &Network, right: impl Fn(u64) -> bool) -> u64 {
    let mut entries = 0;
    for _ in 0..200 {
        entries = table::count(&network.router).expect("the table's count");
        if right(entries) {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    entries
}
