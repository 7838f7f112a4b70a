//! The lab itself: a lab that hurts legitimate traffic where no flood does proves nothing.

use std::time::Duration;

use clap::ValueEnum as _;
use ctguard_tests::{
    addresses::{FLOOD_PORT, Family},
    cpus::Cpus,
    flood::{Flood, FloodPlan},
    lab::{self, LabOptions, Runs},
    recipe::{FloodKind, Rate, Route, check_family},
    report::{Report, ratio},
    require,
    router::{ISP, Network},
    sysctl, table,
};

const MAXIMUM: &str = "net.netfilter.nf_conntrack_max";

#[test]
fn an_unguarded_router_suffers_and_one_that_drops_the_flood_does_not() {
    if !require::root("an_unguarded_router_suffers_and_one_that_drops_the_flood_does_not") {
        return;
    }
    let maximum = sysctl::read(MAXIMUM).expect("the host tracks connections");
    for family in [Family::Ipv4, Family::Ipv6] {
        let report = short(FloodKind::SynOneSource, family);
        let run = |name| report.runs().find(|(found, _)| *found == name).expect(name).1;

        assert!((run("unguarded").fill.peak_ratio - 1.0).abs() < 0.01, "{family:?}");
        assert!(run("unguarded").kernel.drop > 0, "{family:?}");
        assert!(run("unguarded").legitimate.during_flood.at_once_ratio() < 0.95, "{family:?}");
        for quiet in [run("no flood"), run("ideal")] {
            assert!(quiet.legitimate.during_flood.at_once_ratio() > 0.99, "{family:?}: {quiet:?}");
            assert!(quiet.fill.peak_ratio < quiet.target_ratio / 3.0, "{family:?}");
            assert_eq!(quiet.established.tcp_broken + quiet.established.udp_broken, 0);
            assert_eq!(quiet.kernel.drop, 0, "{family:?}");
        }
    }
    assert_eq!(sysctl::read(MAXIMUM).ok(), Some(maximum), "the host's setting comes back");
}

/// Fails when a flood would show nothing: when conntrack drops its packets, or when something that
/// answers them takes their entries away.
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
            // A packet in two fragments makes one entry.
            let frames = if kind == FloodKind::TinyFragments { 2 } else { 1 };
            let (offered, entries) = entries(&network, kind, family, false);
            let made = ratio(entries * frames, offered);
            assert!(made > 0.95, "{kind} {family}: {entries} entries of {offered} frames");
            if kind.port(true).is_some() {
                let (offered, entries) = self::entries(&network, kind, family, true);
                assert!(offered > 0 && entries == 0, "{kind} {family}: {entries} of {offered}");
            }
        }
    }
}

/// Frames of a short flood, and the entries that they made.
fn entries(network: &Network, kind: FloodKind, family: Family, dropped: bool) -> (u64, u64) {
    let count = || table::count(&network.router).expect("the table's count");
    let port = kind.port(dropped).unwrap_or(FLOOD_PORT);
    let route = Route { link: network.flood_link().expect("the link"), family, port };
    let plan = FloodPlan { kind, rate: Rate::PerSecond(2000), route };
    let cpus = Cpus::share_out().expect("CPUs");
    let before = count();
    let flood = Flood::start(plan, (&network.internet, ISP), cpus).expect("the flood starts");
    std::thread::sleep(Duration::from_millis(300));
    let flooded = flood.stop().expect("the flood ends");
    (flooded.offered, count().saturating_sub(before))
}

fn short(flood: FloodKind, family: Family) -> Report {
    let options = LabOptions {
        seconds: 3,
        family,
        log: std::env::temp_dir().join("ctguard-lab-test/ctguard.log"),
        runs: Runs { baseline: true, unguarded: true, guarded: false, ideal: true },
        ..LabOptions::new(flood)
    };
    lab::run(&options, &|_| ()).expect("the lab runs")
}
