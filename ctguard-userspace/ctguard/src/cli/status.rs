//! `ctguard status`: what the guard sees and does, at one glance.

use clap::Args;
use ctguard_datapath::{memory::Moment, sources};
use ctguard_layout::{
    CLASSES, Class, DaemonFacts, Interface, Limits, Policy, Rate, Tier, maps,
    units::{Jiffies, Ticks},
};

use super::{CliError, Code, Context, pause::end_of};
use crate::{
    feeds::feeds_status,
    holders::HoldersFile,
    interfaces::interfaces_of_daemon,
    report::{
        ByClass, ConntrackReport, CounterReport, DaemonReport, DetectionReport, FeedsReport,
        GrantReport, InterfaceReport, KnownFlowsReport, KnownSourcesReport, ListsReport,
        LoadReport, MOST_UNREADABLE, MapsReport, MemoriesReport, PauseReport, RateReport,
        SCHEMA_VERSION, ScopesReport, StatusReport, TierReport, UnreadableReport, write_status,
    },
    terminal::{Terminal, write_json},
};
use ctguard_control::known_tiers;
use ctguard_kernel::{
    bpf::{Pins, is_attached},
    conntrack::Table,
    lock,
    maps::{GuardMaps, ListKind, Totals},
};
use ctguard_units::{in_force, real};

const MILLION: f64 = 1_000_000.0;

/// Show how full the table is, the limits in force and what was refused
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  ctguard status\n  ctguard status --json | jq .conntrack.fill_ratio"
)]
pub(super) struct StatusArgs {
    /// Print JSON (later versions only add fields; see `schema_version`)
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &StatusArgs, context: &Context) -> Result<Code, CliError> {
    let report = read(context, &context.maps()?)?;
    let mut out = Terminal::stdout();
    if args.json { write_json(&mut out, &report) } else { write_status(&report, &mut out) }
        .map_err(CliError::Output)?;
    Ok(Code::Done)
}

pub(super) fn read(context: &Context, maps: &GuardMaps) -> Result<StatusReport, CliError> {
    let (policy, environment, limits) = (maps.policy(), maps.environment(), maps.limits());
    let facts = environment.daemon;
    let (now, hz) = context.now(maps)?;
    let per_second = f64::from(hz.max(1));
    let age = |at: u64| (at > 0).then(|| real(now.0.saturating_sub(at)) / per_second);
    let (totals, refusals) = (maps.totals()?, maps.refusals()?);
    let heartbeat = maps.grant.heartbeat.load();
    let tiers = tiers(maps, &limits, &facts);
    let remaining = |tier: Tier| tiers[tier as usize].remaining;
    let daemon = lock::daemon_of(context.pins.path());
    let live = |kind| -> Result<usize, CliError> {
        Ok(maps.lists.entries(kind)?.iter().filter(|entry| entry.is_live(now.0)).count())
    };
    Ok(StatusReport {
        schema_version: SCHEMA_VERSION,
        conntrack: conntrack(&policy)?,
        stage: Class::ALL.map(|it| limits.stage(it)).into_iter().max().unwrap_or_default().name(),
        stages: ByClass::new(|class| limits.stage(class).name()),
        known_sources: known_sources(maps)?,
        memories: memories(maps, &facts, now)?,
        grant: GrantReport {
            remaining: remaining(Tier::Strangers),
            allowed_remaining: remaining(Tier::Allowed),
            fallback_active: now.0.saturating_sub(heartbeat)
                > u64::from(facts.heartbeat_patience_jiffies),
        },
        holders: daemon.as_ref().and_then(|_| HoldersFile::of_this_namespace().ok()?.read()),
        tiers,
        limits: ceilings(&policy, &[Rate::default(); CLASSES]),
        interfaces: interfaces(maps, &context.pins, &policy),
        waiting: daemon.as_ref().and_then(|_| interfaces_of_daemon()).unwrap_or_default().waiting,
        new_flow_detection: DetectionReport::new(&environment),
        known_flows: KnownFlowsReport {
            complete: facts.known_complete != 0,
            dump_age_seconds: age(facts.known_turned_at),
            load_ratio: maps.flow_memory()?.load(&environment),
        },
        dry_run: policy.has(Policy::DRY_RUN),
        pause: pause(maps, now),
        daemon: DaemonReport {
            running: daemon.is_some(),
            pid: daemon.map(|daemon| daemon.pid.unwrap_or_default()),
            heartbeat_age_seconds: age(heartbeat),
        },
        unreadable: unreadable(&totals),
        counters: CounterReport::new(&totals),
        lists: ListsReport {
            allow: live(ListKind::Allow)?,
            deny: live(ListKind::Deny)?,
            refused_packets: refusals.of_operator(),
        },
        feeds: FeedsReport::new(feeds_status(), &refusals),
        maps: MapsReport { bytes: maps.bytes()? },
    })
}

fn pause(maps: &GuardMaps, now: Jiffies) -> Option<PauseReport> {
    let left = maps.pause()?.left(now, maps.environment().daemon.jiffies_per_second);
    let dry_run_after = maps.settings().policy.has(Policy::DRY_RUN);
    Some(PauseReport { until: end_of(left), left_seconds: left.as_secs(), dry_run_after })
}

fn conntrack(policy: &Policy) -> Result<ConntrackReport, CliError> {
    let table = Table::open()?;
    let sample = table.sample()?;
    Ok(ConntrackReport {
        loaded: table.is_there(),
        count: sample.entries,
        max: sample.max,
        fill_ratio: (sample.max > 0).then(|| real(sample.entries) / real(sample.max)),
        target_ratio: f64::from(policy.target_ppm) / MILLION,
    })
}

fn unreadable(totals: &Totals) -> UnreadableReport {
    let share_ratio = real(totals.unreadable()) / real(totals.frames().max(1));
    UnreadableReport { share_ratio, is_fault: share_ratio > MOST_UNREADABLE }
}

fn tiers(maps: &GuardMaps, limits: &Limits, facts: &DaemonFacts) -> Vec<TierReport> {
    let second = f64::from(facts.jiffies_per_second) * real(Ticks::PER_JIFFY);
    let (admitted, grants) = (maps.grant.admissions(), maps.grant.limits());
    let report = |tier: Tier| TierReport {
        name: tier.name(),
        admitted: admitted[tier as usize],
        remaining: grants[tier as usize].saturating_sub(admitted[tier as usize]),
        share: ByClass::new(|class| {
            let interval = limits.shares[tier.slot()][class as usize].interval.0;
            (interval > 0).then(|| second / real(interval))
        }),
    };
    Tier::ALL.map(report).into()
}

fn known_sources(maps: &GuardMaps) -> Result<KnownSourcesReport, CliError> {
    let mut report =
        KnownSourcesReport { capacity: sources::CAPACITY, ..KnownSourcesReport::default() };
    for tier in known_tiers(maps.source_memory()?.lines()).flatten() {
        let of_tier = match tier {
            Tier::Regulars => &mut report.regulars,
            Tier::Strangers => &mut report.challenged,
            Tier::Allowed
            | Tier::Earlier
            | Tier::Proven
            | Tier::Answered
            | Tier::Retried
            | Tier::AbovePart => &mut report.proven,
        };
        *of_tier += 1;
    }
    let used = report.regulars + report.proven + report.challenged;
    report.load_ratio = f64::from(used) / f64::from(report.capacity);
    Ok(report)
}

fn memories(
    maps: &GuardMaps,
    facts: &DaemonFacts,
    now: Jiffies,
) -> Result<MemoriesReport, CliError> {
    let fine = Moment::at(now, facts.memory_shift);
    let coarse = Moment::at(now, facts.coarse_shift);
    let retries = maps.retries_load(fine, facts.retry_before)?;
    let answered = maps.memory_load(maps::ANSWERED, coarse, facts.answered_life_coarse)?;
    Ok(MemoriesReport {
        retries: LoadReport { load_ratio: retries },
        answered: LoadReport { load_ratio: answered },
    })
}

fn interfaces(maps: &GuardMaps, pins: &Pins, policy: &Policy) -> Vec<InterfaceReport> {
    let slots = maps.interfaces.used();
    let reports = slots.iter().map(|slot| InterfaceReport {
        name: slot.name(),
        ifindex: slot.interface.ifindex,
        mode: match slot.interface.mode {
            Interface::NATIVE => "native",
            Interface::GENERIC => "generic",
            _ => "unknown",
        },
        attached: is_attached(pins, slot.interface.ifindex),
        zone: slot.interface.zone,
        limits: ceilings(policy, &slot.interface.overrides),
    });
    reports.collect()
}

fn ceilings(policy: &Policy, own: &[Rate; CLASSES]) -> ByClass<ScopesReport> {
    ByClass::new(|class| {
        let rate = in_force(policy.source[class as usize], own[class as usize]);
        ScopesReport { source: RateReport { rate: rate.flows_per_second, burst: rate.burst } }
    })
}
