//! A dry run that becomes a guard while a flood has the table full.

use std::{
    fs,
    sync::atomic::AtomicBool,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use ctguard_tests::{
    addresses::{FLOOD_PORT, Family},
    cpus::Cpus,
    flood::Flood,
    guard::{Guard, Orders},
    lab, netns,
    object::{self, Program},
    product::wait_for,
    recipe::{FloodKind, Rate},
    report::ratio,
    require,
    router::{ISP, Network, SERVERS},
    sysctl::{self, HostSysctl},
    table::{self, Watch},
};

const TABLE_MAX: u64 = 65_536;
const PER_SECOND: u32 = 100_000;
/// Above the target by so much of the table at most.
const OVER_TARGET: f64 = 0.02;
/// The flood goes on for so long once the table is back.
const HOLDS: Duration = Duration::from_secs(5);

/// Fails when a guard that is switched on in a flood leaves the table full, or lets it fill again.
#[test]
fn a_dry_run_that_is_ended_in_a_flood_takes_the_table_back_and_holds_it() -> Result<()> {
    let test = "a_dry_run_that_is_ended_in_a_flood_takes_the_table_back_and_holds_it";
    if !require::root(test) || !require::release_binary(test) || !require::two_cpus(test) {
        return Ok(());
    }
    let _lab = lab::lock(&|text| println!("{text}"), &AtomicBool::new(false))?;
    netns::remove_orphans();
    sysctl::restore_orphans();
    let _max = HostSysctl::set("net.netfilter.nf_conntrack_max", &TABLE_MAX.to_string())?;
    let _hash = HostSysctl::set("net.netfilter.nf_conntrack_buckets", &TABLE_MAX.to_string())?;
    for (kind, target_percent) in
        [(FloodKind::SynSpoofed, 85), (FloodKind::SynAnswered, 85), (FloodKind::SynSpoofed, 8)]
    {
        // A thread of its own, so that the caller keeps its CPUs.
        let run = || taken_back(kind, target_percent);
        thread::scope(|scope| scope.spawn(run).join().expect("no panic"))?;
    }
    Ok(())
}

fn taken_back(kind: FloodKind, target_percent: u32) -> Result<()> {
    let cpus = Cpus::share_out()?;
    cpus.enter_others()?;
    let network = Network::build()?;
    // What a guard sends back by XDP_TX arrives only where the peer has a program, too.
    let _receiver = network.internet.run(|| object::attach(Program::Nowhere, ISP))?;
    let serve = || network.inside.run(|| object::serve_crowd(SERVERS));
    let _server = kind.is_served().then(serve).transpose()?;
    let directory = std::env::temp_dir().join("ctguard-enforced");
    fs::create_dir_all(&directory)?;
    let orders = Orders {
        settings: vec!["dry-run=on".to_owned(), format!("target={target_percent}%")],
        ..Orders::on_wan()?
    };
    let log = directory.join("ctguard.log");
    let guard = Guard::Ctguard(orders).start(&network.router, FLOOD_PORT, &log)?;
    let asker = guard.asker().context("a guard answers")?;
    let to = (Family::Ipv4, FLOOD_PORT);
    let flood = Flood::through(&network, kind, Rate::PerSecond(PER_SECOND), to, cpus)?;
    wait_for("a full table", || {
        Ok((table::count(&network.router)? >= TABLE_MAX / 100 * 99).then_some(()))
    })?;

    let most = f64::from(target_percent) / 100.0 + OVER_TARGET;
    let began = Instant::now();
    let watch = Watch::start(&network.router, began)?;
    asker.ask(&["enforce", "--yes"])?;
    wait_for("the table to be back", || {
        Ok((ratio(table::count(&network.router)?, TABLE_MAX) <= most).then_some(()))
    })?;
    let back = began.elapsed();
    thread::sleep(HOLDS);
    let series = watch.stop()?;
    flood.stop()?;
    let since = series.iter().filter(|point| point.seconds > back.as_secs_f64() + 0.2);
    let highest = since.map(|point| ratio(point.count, TABLE_MAX)).fold(0.0, f64::max);
    println!(
        "{kind:?}, target {target_percent} %: back after {back:.1?}, {:.1} % at most since",
        highest * 100.0
    );
    ensure!(
        highest <= most,
        "{kind:?}: {:.1} % of the table, target {target_percent} %",
        highest * 100.0
    );
    Ok(())
}
