//! One run: a fresh network, a guard or none, legitimate traffic, and in its midst a flood.

use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use crate::{
    addresses::Family,
    cpus::Cpus,
    flood::{Flood, FloodPlan},
    guard::Guard,
    legit::{ANSWERED, ESTABLISHED, Load, PATIENCE, Schedule},
    object::{self, Program},
    recipe::{FloodKind, Rate, Route},
    report::{Fill, FloodOutcome, Legitimate, Run, ratio},
    router::{ISP, Network, SERVERS},
    table::{self, Watch},
    wan,
};

/// Legitimate traffic before the flood.
pub const BEFORE: Duration = Duration::from_secs(2);
/// Legitimate traffic after the flood.
pub const AFTER: Duration = Duration::from_secs(2);
/// The share of the table that a guard never passes, unless told otherwise.
pub const TARGET_RATIO: f64 = 0.85;
/// Legitimate new flows a second, where the table has room for them.
const MOST_PER_SECOND: f64 = 150.0;
/// Time for threads to get ready before flows start.
const LEAD: Duration = Duration::from_millis(100);

/// A run to be made.
#[derive(Clone, Debug)]
pub struct RunPlan<'p> {
    /// What stands on the guarded interface.
    pub guard: Guard,
    /// The flood; none in a baseline.
    pub flood: Option<(FloodKind, Rate)>,
    /// The protocol of all traffic.
    pub family: Family,
    /// The flood's destination port.
    pub port: u16,
    /// How long the flood lasts.
    pub seconds: u32,
    /// Entries that the table takes.
    pub table_max: u64,
    /// Where ctguard's output goes.
    pub log: &'p Path,
}

/// Legitimate new flows a second, so few that what they leave in the table (`TIME_WAIT` stays
/// 120 s) takes a third of the target at most.
#[must_use]
pub fn legitimate_per_second(table_max: u64, seconds: u32) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "tables have fewer than 2^52 entries")]
    let room = 0.95 * TARGET_RATIO * table_max as f64 / 3.0 - f64::from(ESTABLISHED + ANSWERED);
    let lasts = (BEFORE + AFTER).as_secs_f64() + f64::from(seconds);
    (room / lasts).clamp(1.0, MOST_PER_SECOND)
}

/// Makes the run. Stops early, with an error, when `interrupted` becomes true.
pub fn run(plan: &RunPlan<'_>, cpus: Cpus, interrupted: &AtomicBool) -> Result<Run> {
    let network = Network::build()?;
    // What a guard sends back by XDP_TX arrives only where the peer has a program, too.
    let _receiver = network.internet.run(|| object::attach(Program::Pass, ISP))?;
    let _server = match plan.flood {
        Some((kind, _)) if kind.is_served() => {
            Some(network.inside.run(|| object::serve_crowd(SERVERS))?)
        }
        Some(_) | None => None,
    };
    let guard = plan.guard.start(&network.router, plan.port, plan.log)?;
    let load = Load::open(&network, plan.family)?;

    let zero = Instant::now() + LEAD;
    let flood_lasts = Duration::from_secs(plan.seconds.into());
    let lasts = BEFORE + flood_lasts + AFTER;
    let watch = Watch::start(&network.router, zero)?;
    let per_second = legitimate_per_second(plan.table_max, plan.seconds);
    load.start(Schedule { zero, lasts, flood: (BEFORE, BEFORE + flood_lasts), per_second })?;

    wait_until(zero + BEFORE, interrupted)?;
    let counted = wan::read(&network)?;
    let flood = match plan.flood {
        Some((kind, rate)) => {
            let way = network.flood_way(kind)?;
            let route = Route { link: way.link, family: plan.family, port: plan.port };
            Some(Flood::start(FloodPlan { kind, rate, route }, way.from, cpus)?)
        }
        None => None,
    };
    let began = zero.elapsed().as_secs_f64();
    wait_until(zero + BEFORE + flood_lasts, interrupted)?;
    let flooded = flood.map(Flood::stop).transpose()?;
    let ended = zero.elapsed().as_secs_f64();
    let counted = wan::read(&network)?.since(counted);
    let guard_status = guard.status()?;

    wait_until(zero + lasts, interrupted)?;
    let series = watch.stop()?;
    let at_end = table::count(&network.router)?;
    let fared = load.finish(2 * PATIENCE)?;
    let kernel = table::kernel_counters(&network.router)?;
    drop(guard);

    let peak = series.iter().map(|point| point.count).fold(at_end, u64::max);
    Ok(Run {
        table_max: plan.table_max,
        target_ratio: TARGET_RATIO,
        fill: Fill { at_end, peak, peak_ratio: ratio(peak, plan.table_max), series },
        legitimate: Legitimate::sum_up(&fared.flows, (began, ended)),
        established: fared.established,
        answers: fared.answers,
        others_lost_in_queue: counted.others_lost_in_queue,
        flood: flooded.as_ref().map(|flooded| FloodOutcome {
            offered: flooded.offered,
            offered_per_second: per_second_of(flooded.offered, flooded.lasted),
            lost_in_queue: counted.lost_in_queue,
            dropped_in_xdp: counted.dropped_in_xdp,
            reached_conntrack: flooded
                .offered
                .saturating_sub(counted.lost_in_queue + counted.dropped_in_xdp),
        }),
        kernel,
        flood_seconds: flooded.as_ref().map(|_| (began, ended)),
        guard_status,
    })
}

fn per_second_of(number: u64, lasted: Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "floods have fewer than 2^52 packets")]
    let number = number as f64;
    number / lasted.as_secs_f64().max(f64::MIN_POSITIVE)
}

fn wait_until(time: Instant, interrupted: &AtomicBool) -> Result<()> {
    while let Some(left) = time.checked_duration_since(Instant::now()) {
        if interrupted.load(Ordering::Relaxed) {
            bail!("interrupted; everything was put back");
        }
        std::thread::sleep(left.min(Duration::from_millis(20)));
    }
    Ok(())
}
