//! One run: a fresh network, a guard or none, legitimate traffic, and in its midst a flood.

use std::{
    path::Path,
    sync::atomic::AtomicBool,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

use crate::{
    addresses::Family,
    age::age,
    arrival::Receivers,
    cpus::Cpus,
    flood::{Flood, Flooded},
    guard::{Guard, Standing},
    legit::{ANSWERED, Day, ENDS_IN, ESTABLISHED, INSIDE_SHARE, Load, Opening, Schedule},
    object::{self, Attached, Program},
    process::{CpuMeter, DaemonCost},
    recipe::{FloodKind, Rate},
    recovery::{self, Outage, Recovery},
    report::{Fill, FloodOutcome, Legitimate, Run, Spread, jain_index, ratio},
    router::{ISP, LAN, Network, SERVERS, WAN},
    script::{self, Script, wait_until},
    stages::StageWatch,
    table::{self, FillPoint, Watch},
    wan::{self, LinkCounters},
};

/// Legitimate traffic before the flood: time for a guard to know its clients.
pub const BEFORE: Duration = Duration::from_secs(5);
/// Legitimate traffic after the flood.
pub const AFTER: Duration = Duration::from_secs(2);
/// The share of the table that a guard never passes, unless told otherwise.
pub const TARGET_RATIO: f64 = 0.85;
/// Legitimate new flows a second, whatever the table: what the lab's one core bears.
const MOST_PER_SECOND: f64 = 1000.0;
/// Entries of the table for each legitimate new flow a second: 100 a second in 16,384.
const ENTRIES_PER_FLOW: f64 = 163.84;
/// Connections that a flood opened before the guard starts are so old at most.
const OPENED_WITHIN: Duration = Duration::from_mins(10);
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
    /// Legitimate new flows a second from outside.
    pub legitimate_per_second: f64,
    /// New flows a second of one inside client, which then is alone.
    pub neighbour: Option<f64>,
    /// Some clients are regulars by the guard's record, and all that are known hold a connection.
    pub favours: bool,
    /// Connections of an office behind one far address.
    pub office: u32,
    /// What else a calm day brings.
    pub day: Option<Day>,
    /// So long after the flood begins, or the guard starts in its midst, service is settled.
    pub settles: Duration,
    /// What happens to the guard in the flood.
    pub script: Script,
    /// The daemon is watched for so long before there is any traffic.
    pub idle: Duration,
    /// How long packets travel between far hosts and the router, both ways together.
    pub round_trip: Duration,
    /// Where ctguard's output goes.
    pub log: &'p Path,
}

/// Legitimate new flows a second from outside, as many as the table is large for, and so few that
/// what all leave in it (`TIME_WAIT` stays 120 s) takes a third of the target at most.
#[must_use]
pub fn legitimate_per_second(table_max: u64, seconds: u32) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "tables have fewer than 2^52 entries")]
    let table = table_max as f64;
    let room = 0.95 * TARGET_RATIO * table / 3.0 - f64::from(ESTABLISHED + ANSWERED);
    let lasts = (BEFORE + AFTER).as_secs_f64() + f64::from(seconds);
    let usual = (table / ENTRIES_PER_FLOW).min(MOST_PER_SECOND);
    (room / lasts / (1.0 + INSIDE_SHARE)).min(usual).max(1.0)
}

impl RunPlan<'_> {
    /// New flows from `zero` on, with a flood between these times.
    fn schedule(&self, zero: Instant, flood: (Duration, Duration)) -> Schedule {
        Schedule {
            zero,
            lasts: flood.1 + AFTER,
            flood,
            per_second: self.legitimate_per_second,
            neighbour: self.neighbour,
            favours: self.favours,
            day: self.day,
        }
    }

    fn opening(&self) -> Opening {
        Opening { favours: self.favours, office: self.office }
    }
}

/// A device that is not ready takes no frame of a flood, and no counter of losses tells.
fn ensure_sent(flooded: Option<&Flooded>, counted: LinkCounters) -> Result<()> {
    let offered = flooded.map_or(0, |flooded| flooded.offered);
    let sent = counted.queued + counted.lost_in_queue;
    ensure!(sent >= offered / 100 * 99, "of {offered} frames of the flood, {sent} were sent");
    Ok(())
}

/// Makes the run. Stops early, with an error, when `interrupted` becomes true.
pub fn run(plan: &RunPlan<'_>, cpus: Cpus, interrupted: &AtomicBool) -> Result<Run> {
    let network = Network::with_path(plan.round_trip)?;
    let inside = plan.flood.is_some_and(|(kind, _)| kind.is_from_inside());
    let receivers = Receivers::start(&network, if inside { LAN } else { WAN }, cpus)?;
    let _programs = attach_programs(plan, &network)?;
    let start_guard = || plan.guard.start(&network.router, plan.port, plan.log);
    let to = (plan.family, plan.port);
    let start_flood = || {
        let flood = plan.flood.map(|(kind, rate)| Flood::through(&network, kind, rate, to, cpus));
        flood.transpose()
    };
    let open_load = || Load::open(&network, plan.family, plan.opening());
    let mut early = None;
    let (mut guard, mut cost, load) = match plan.script {
        Script::Late(_) => (Standing::None, None, open_load()?),
        Script::After(time) => {
            let load = open_load()?;
            early = start_flood()?;
            wait_until(Instant::now() + time, interrupted)?;
            let flood = plan.flood.and_then(|(kind, _)| kind.sources().crowd(plan.family));
            flood.map_or(Ok(()), |crowd| age(&network.router, crowd, OPENED_WITHIN))?;
            let guard = start_guard()?;
            let cost = guard.daemon().map(|_| DaemonCost::default());
            (guard, cost, load)
        }
        Script::Throughout | Script::Outage { .. } => {
            // An office is older than the guard, which would take its start for a burst.
            let office = if plan.office > 0 { Some(open_load()?) } else { None };
            let guard = start_guard()?;
            let cost = watch_idle(&guard, plan.idle, interrupted)?;
            (guard, cost, office.map_or_else(open_load, Ok)?)
        }
    };

    let zero = Instant::now() + LEAD;
    let before = if early.is_some() { Duration::ZERO } else { BEFORE };
    let flood_lasts = Duration::from_secs(plan.seconds.into());
    let lasts = before + flood_lasts + AFTER;
    let watch = Watch::start(&network.router, zero)?;
    load.start(plan.schedule(zero, (before, before + flood_lasts)))?;

    wait_until(zero + before, interrupted)?;
    let counted = wan::read(&network)?;
    let lost_before = network.arrivals().lost();
    let flood = if early.is_some() { early } else { start_flood()? };
    let began = zero.elapsed().as_secs_f64();
    let router = receivers.meter()?;
    let meter = guard.daemon().map(|daemon| CpuMeter::start(daemon.pid())).transpose()?;
    let stages = guard.asker().map(StageWatch::start);
    let played = script::play(plan.script, &mut guard, start_guard, zero + before, interrupted)?;
    wait_until(zero + before + flood_lasts, interrupted)?;
    let stage_seconds = stages.map(StageWatch::stop).unwrap_or_default();
    // A daemon that was started in the flood has spent its time on that.
    if let (Script::Throughout, Some(meter), Some(cost)) = (plan.script, meter, &mut cost) {
        meter.note_flood(cost)?;
    }
    let router_cpu_ratio = Some(router.ratio()?);
    let flooded = flood.map(Flood::stop).transpose()?;
    let ended = zero.elapsed().as_secs_f64();
    let counted = wan::read(&network)?.since(counted);
    if !matches!(plan.script, Script::After(_)) {
        ensure_sent(flooded.as_ref(), counted)?;
    }
    let others_lost = network.arrivals().lost() - lost_before;
    let guard_status = guard.status()?;

    wait_until(zero + lasts, interrupted)?;
    let series = watch.stop()?;
    let at_end = table::count(&network.router)?;
    let fared = load.finish(ENDS_IN)?;
    let kernel = table::kernel_counters(&network.router)?;
    drop(guard);

    let at = |moment: Instant| moment.saturating_duration_since(zero).as_secs_f64();
    let recovery = played.started.map(|(started, ready)| Recovery {
        ready_seconds: ready.as_secs_f64(),
        service_seconds: recovery::service_back(&fared.flows, (at(started), ended)),
        ..Recovery::of_fill(&series, at(started), (plan.table_max, TARGET_RATIO))
    });
    let killed = played.killed.zip(played.started);
    let outage =
        killed.map(|(killed, (started, _))| Outage::of(&fared.flows, (at(killed), at(started))));
    let settled = played.started.filter(|_| matches!(plan.script, Script::Late(_)));
    let settled = settled.map_or(began, |(started, _)| at(started)) + plan.settles.as_secs_f64();
    Ok(Run {
        table_max: plan.table_max,
        target_ratio: TARGET_RATIO,
        fill: fill(series, at_end, (began, ended), plan.table_max),
        legitimate: Legitimate::sum_up(&fared.flows, (began, ended)),
        settled: Some(Legitimate::sum_up(&fared.flows, (settled, ended))),
        office: fared.office,
        established: fared.established,
        answers: fared.answers,
        others_lost_in_queue: counted.others_lost_in_queue + others_lost,
        leaving_lost_in_queue: counted.leaving_lost_in_queue,
        router_cpu_ratio,
        flood: flooded.as_ref().map(|flooded| outcome(flooded, counted)),
        kernel,
        flood_seconds: flooded.as_ref().map(|_| (began, ended)),
        guard_status,
        stage_seconds,
        daemon: cost,
        recovery,
        outage,
    })
}

/// Programs of the lab at the ends of the router's links.
fn attach_programs(plan: &RunPlan<'_>, network: &Network) -> Result<Vec<Attached>> {
    let inside = &network.inside;
    // What a guard sends back by XDP_TX arrives only where the peer has a program, too.
    let mut attached = vec![network.internet.run(|| object::attach(Program::Nowhere, ISP))?];
    if plan.guard.covers(LAN) {
        attached.push(inside.run(|| object::attach(Program::Pass, SERVERS))?);
    }
    if plan.flood.is_some_and(|(kind, _)| kind.is_served()) {
        attached.push(inside.run(|| object::serve_crowd(SERVERS))?);
    }
    Ok(attached)
}

fn fill(series: Vec<FillPoint>, at_end: u64, flood: (f64, f64), table_max: u64) -> Fill {
    let (began, ended) = flood;
    let half = (f64::midpoint(began, ended), ended);
    let second_half = Spread::of(&series, half, table_max);
    let peak = series.iter().map(|point| point.count).fold(at_end, u64::max);
    Fill { at_end, peak, peak_ratio: ratio(peak, table_max), second_half, series }
}

fn outcome(flooded: &Flooded, counted: LinkCounters) -> FloodOutcome {
    let LinkCounters { lost_in_queue, dropped_in_xdp, answered_in_xdp, .. } = counted;
    let elsewhere = lost_in_queue + dropped_in_xdp + answered_in_xdp;
    FloodOutcome {
        offered: flooded.offered,
        offered_per_second: per_second_of(flooded.offered, flooded.lasted),
        lost_in_queue,
        dropped_in_xdp,
        answered_in_xdp,
        reached_conntrack: flooded.offered.saturating_sub(elsewhere),
        jain_index: jain_index(&flooded.per_source),
    }
}

fn per_second_of(number: u64, lasted: Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "floods have fewer than 2^52 packets")]
    let number = number as f64;
    number / lasted.as_secs_f64().max(f64::MIN_POSITIVE)
}

/// Watches a daemon that has nothing to do.
fn watch_idle(
    guard: &Standing,
    idle: Duration,
    interrupted: &AtomicBool,
) -> Result<Option<DaemonCost>> {
    let Some(daemon) = guard.daemon() else { return Ok(None) };
    if idle.is_zero() {
        return Ok(Some(DaemonCost::default()));
    }
    let meter = CpuMeter::start(daemon.pid())?;
    wait_until(Instant::now() + idle, interrupted)?;
    Ok(Some(DaemonCost { idle_cpu_ratio: Some(meter.ratio()?), ..DaemonCost::default() }))
}
