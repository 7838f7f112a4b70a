//! The lab itself: a lab that hurts legitimate traffic where no flood does proves nothing, nor does
//! one whose router is hurt by the lab.

use ctguard_tests::{
    addresses::Family,
    lab::{self, LabOptions, Runs},
    recipe::FloodKind,
    report::{Report, ratio},
    require,
    sysctl::{self, HostSysctl},
};

const MAXIMUM: &str = "net.netfilter.nf_conntrack_max";
const BUCKETS: &str = "net.netfilter.nf_conntrack_buckets";

#[test]
fn an_unguarded_router_suffers_and_one_that_drops_the_flood_does_not() {
    if !require::root("an_unguarded_router_suffers_and_one_that_drops_the_flood_does_not") {
        return;
    }
    let maximum = sysctl::read(MAXIMUM).expect("the host tracks connections");
    for family in [Family::Ipv4, Family::Ipv6] {
        let report = short(FloodKind::SynOneSource, family, None);
        let run = |name| report.runs().find(|(found, _)| *found == name).expect(name).1;

        assert!((run("unguarded").fill.peak_ratio - 1.0).abs() < 0.01, "{family:?}");
        assert!(run("unguarded").kernel.early_drop > 0, "{family:?}");
        assert!(run("unguarded").legitimate.during_flood.at_once_ratio() < 0.95, "{family:?}");
        for quiet in [run("no flood"), run("ideal")] {
            // A machine that stalls loses frames in the lab's queue.
            let least = 0.99 - quiet.spoiled_in_queue().min(0.1);
            let at_once = quiet.legitimate.during_flood.at_once_ratio();
            assert!(at_once > least, "{family:?}: {least} {quiet:?}");
            assert!(quiet.fill.peak_ratio < quiet.target_ratio / 3.0, "{family:?}");
            assert_eq!(quiet.established.tcp_broken + quiet.established.udp_broken, 0);
            assert_eq!(quiet.kernel.drop, 0, "{family:?}");
        }
    }
    assert_eq!(sysctl::read(MAXIMUM).ok(), Some(maximum), "the host's setting comes back");
}

/// Fails when a full table drops what it could replace, or when arrival waits for the router.
#[test]
fn a_hash_as_wide_as_the_table_finds_what_to_replace_and_a_wide_one_does_not() {
    const TEST: &str = "a_hash_as_wide_as_the_table_finds_what_to_replace_and_a_wide_one_does_not";
    if !require::root(TEST) || !require::two_cpus(TEST) {
        return;
    }
    let buckets = sysctl::read(BUCKETS).expect("the host tracks connections");
    let [usual, wide] = [None, Some(262_144)].map(|buckets| {
        let report = short(FloodKind::SynSpoofed, Family::Ipv4, buckets);
        report.unguarded.expect("the unguarded run")
    });
    assert!(ratio(usual.kernel.drop, usual.kernel.early_drop) < 0.01, "{:?}", usual.kernel);
    assert!(ratio(wide.kernel.drop, wide.kernel.early_drop) > 0.2, "{:?}", wide.kernel);
    let flood = usual.flood.expect("a flood");
    // Of 500,000 asked for: a machine that stalls makes fewer, and no router takes so many.
    assert!(flood.offered_per_second > 250_000.0, "{flood:?}");
    assert!(flood.lost_in_queue > 0, "{flood:?}");
    assert_eq!(sysctl::read(BUCKETS).ok(), Some(buckets), "the host's setting comes back");
}

/// Fails when what comes after a killed lab forgets the value that the host had before it.
#[test]
fn the_value_before_a_killed_lab_outlives_later_changes() {
    if !require::root("the_value_before_a_killed_lab_outlives_later_changes") {
        return;
    }
    let maximum = sysctl::read(MAXIMUM).expect("the host tracks connections");
    std::mem::forget(HostSysctl::set(MAXIMUM, "65536").expect("a change that is never taken back"));
    drop(HostSysctl::set(MAXIMUM, "32768").expect("a later one"));
    assert_eq!(sysctl::read(MAXIMUM).expect("still there"), "65536");
    sysctl::restore_orphans();
    assert_eq!(sysctl::read(MAXIMUM).ok(), Some(maximum));
}

fn short(flood: FloodKind, family: Family, buckets: Option<u64>) -> Report {
    let options = LabOptions {
        seconds: 3,
        family,
        buckets,
        log: std::env::temp_dir().join("ctguard-lab-test/ctguard.log"),
        runs: Runs { baseline: true, unguarded: true, guarded: false, ideal: true },
        ..LabOptions::new(flood)
    };
    lab::run(&options, &|_| ()).expect("the lab runs")
}
