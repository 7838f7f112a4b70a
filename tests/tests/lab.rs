//! The lab itself: a lab that hurts legitimate traffic where no flood does proves nothing, nor does
//! one whose router is hurt by the lab.

use ctguard_tests::{
    addresses::Family,
    lab::{self, LabOptions, Runs},
    recipe::{FloodKind, Rate},
    report::{Report, Run, ratio},
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
        let mut quiet = [run("no flood"), run("ideal")].map(is_unhurt);
        let mut is_at_limit = run("ideal").is_at_limit();
        // A busy machine loses much of a flood in the lab's queue, and others' packets among it.
        for rate in [100_000, 50_000] {
            if quiet.iter().all(Result::is_ok) || !is_at_limit {
                break;
            }
            let slower = options(FloodKind::SynOneSource, family, None);
            let runs = Runs { baseline: true, unguarded: false, guarded: false, ideal: true };
            let slower = LabOptions { rate: Rate::PerSecond(rate), runs, ..slower };
            let again = lab::run(&slower, &|_| ()).expect("the lab runs");
            let run = |name| again.runs().find(|(found, _)| *found == name).expect(name).1;
            quiet = [run("no flood"), run("ideal")].map(is_unhurt);
            is_at_limit = run("ideal").is_at_limit();
        }
        for unhurt in quiet {
            unhurt.unwrap_or_else(|why| panic!("{family:?}: {why}"));
        }
    }
    assert_eq!(sysctl::read(MAXIMUM).ok(), Some(maximum), "the host's setting comes back");
}

/// Whether nobody is hurt where no flood reaches the router.
fn is_unhurt(run: &Run) -> Result<(), String> {
    // A machine that stalls loses frames in the lab's queue.
    let least = 0.99 - run.spoiled_in_queue().min(0.1);
    let broken = run.established.tcp_broken + run.established.udp_broken;
    let is_unhurt = run.legitimate.during_flood.at_once_ratio() > least
        && run.fill.peak_ratio < run.target_ratio / 3.0
        && broken == 0
        && run.kernel.drop == 0;
    is_unhurt.then_some(()).ok_or_else(|| format!("{least} {run:?}"))
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
    lab::run(&options(flood, family, buckets), &|_| ()).expect("the lab runs")
}

fn options(flood: FloodKind, family: Family, buckets: Option<u64>) -> LabOptions {
    LabOptions {
        seconds: 3,
        family,
        buckets,
        log: std::env::temp_dir().join("ctguard-lab-test/ctguard.log"),
        runs: Runs { baseline: true, unguarded: true, guarded: false, ideal: true },
        ..LabOptions::new(flood)
    }
}
