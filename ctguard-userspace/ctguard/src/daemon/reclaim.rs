//! Deletes unreplied entries of a table above its target, and shrinks timeouts if that is set.

use std::{collections::HashSet, time::Duration};

use anyhow::Context as _;
use ctguard_layout::Policy;
use log::debug;

use super::{Guard, adaptive_timeouts::AdaptiveTimeouts, background::Background};
use crate::events::What;
use ctguard_control::{
    adaptive::AdaptiveRange, reclaim_pass, sources::SourceScope, tuning::TUNING,
};
use ctguard_kernel::{
    bpf::monotonic,
    conntrack::{
        reclaim::{Ages, ReclaimError, Reclaimed, reclaim},
        timeouts_writer::TimeoutSettings,
    },
    run_directory,
};

/// How long to wait after a pass that found nothing to delete.
const PAUSE: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(crate) struct Reclaimer {
    pass: Option<Background<Result<Reclaimed, ReclaimError>>>,
    next: Duration,
    timeouts: AdaptiveTimeouts,
    fitted: Duration,
    deleted: u64,
}

impl Reclaimer {
    /// Restores the timeouts that a killed daemon left shrunk.
    pub(super) fn start() -> anyhow::Result<Self> {
        let record = run_directory::of_this_namespace("timeouts.json")
            .context("cannot tell the network namespace")?;
        Ok(Self {
            pass: None,
            next: Duration::ZERO,
            timeouts: AdaptiveTimeouts::start(TimeoutSettings::of_the_kernel(), &record)
                .context("cannot restore timeouts")?,
            fitted: Duration::ZERO,
            deleted: 0,
        })
    }

    pub(crate) fn restore(&mut self) -> anyhow::Result<()> {
        self.timeouts.restore().context("cannot restore timeouts")
    }
}

/// Takes the next step, if there is one.
pub(crate) fn follow(guard: &mut Guard) -> anyhow::Result<()> {
    let now = monotonic();
    if let Some(reclaimed) = Background::take_finished(&mut guard.reclaimer.pass) {
        let reclaimed = reclaimed.context("cannot delete unreplied entries")?;
        debug!("deleted unreplied entries: {reclaimed:?}");
        guard.reclaimer.deleted += reclaimed.deleted;
        if reclaimed.deleted == 0 {
            guard.reclaimer.next = now + PAUSE;
        }
    }
    match guard.ticker.reclaim() {
        Some(rate) if guard.reclaimer.pass.is_none() && now >= guard.reclaimer.next => {
            begin(guard, rate, now)?;
        }
        None if guard.reclaimer.deleted > 0 && guard.reclaimer.pass.is_none() => {
            let entries_deleted = std::mem::take(&mut guard.reclaimer.deleted);
            guard.report(What::Reclaimed { entries_deleted });
        }
        Some(_) | None => {}
    }
    if now >= guard.reclaimer.fitted + Duration::from_secs(1) {
        guard.reclaimer.fitted = now;
        fit_timeouts(guard)?;
    }
    Ok(())
}

/// Starts a pass, which spares the entries of known and allowed sources.
fn begin(guard: &mut Guard, rate: f64, now: Duration) -> anyhow::Result<()> {
    let most = reclaim_pass::entries(rate);
    guard.reclaimer.next = now + TUNING.pass_interval;
    let known: HashSet<SourceScope> = guard.known_sources.all().collect();
    let allowed = guard.maps.lists.entries(ctguard_kernel::maps::ListKind::Allow)?;
    let ages = Ages::read();
    guard.reclaimer.pass = Some(Background::start("ctguard-reclaim", move || {
        reclaim(most, &ages, |entry| {
            let source = entry.original.source;
            !known.contains(&source.into())
                && !allowed.iter().any(|allowed| allowed.prefix.contains(&source))
        })
    })?);
    Ok(())
}

fn fit_timeouts(guard: &mut Guard) -> anyhow::Result<()> {
    let policy = guard.maps.policy();
    let table = guard.table.sample()?;
    let timeouts = &mut guard.reclaimer.timeouts;
    let range = range(&policy).filter(|_| table.max > 0);
    let fitted = match range {
        Some(range) => timeouts.follow(range, table.fill()),
        None => timeouts.restore(),
    };
    fitted.context("cannot fit timeouts to the fill")
}

/// None if either end is not set.
fn range(policy: &Policy) -> Option<AdaptiveRange> {
    let [start, end] = policy.adaptive_ppm.map(|parts| f64::from(parts) / 1e6);
    if start > 0.0 && end > 0.0 { AdaptiveRange::new(start, end) } else { None }
}
