//! Relief for a table above its target: deletes entries that nobody answered, and shrinks timeouts
//! where the operator wants that.

use std::{collections::HashSet, time::Duration};

use anyhow::Context as _;
use ctguard_layout::Policy;
use log::debug;

use super::{Guard, background::Background, relief::Relief};
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

/// After a pass that found nothing to delete the next one waits.
const PAUSE: Duration = Duration::from_secs(2);

/// What relieves the table.
#[derive(Debug)]
pub(crate) struct Relieving {
    pass: Option<Background<Result<Reclaimed, ReclaimError>>>,
    next: Duration,
    timeouts: Relief,
    fitted: Duration,
    deleted: u64,
}

impl Relieving {
    /// Restores the timeouts that a killed daemon left shrunk.
    pub(super) fn start() -> anyhow::Result<Self> {
        let record = run_directory::of_this_namespace("timeouts.json")
            .context("cannot tell the network namespace")?;
        Ok(Self {
            pass: None,
            next: Duration::ZERO,
            timeouts: Relief::start(TimeoutSettings::of_the_kernel(), &record)
                .context("cannot restore timeouts")?,
            fitted: Duration::ZERO,
            deleted: 0,
        })
    }

    /// Gives every timeout back.
    pub(crate) fn restore(&mut self) -> anyhow::Result<()> {
        self.timeouts.restore().context("cannot restore timeouts")
    }
}

/// Goes one step on; cheap where there is none.
pub(crate) fn follow(guard: &mut Guard) -> anyhow::Result<()> {
    let now = monotonic();
    if let Some(reclaimed) = Background::take_finished(&mut guard.relieving.pass) {
        let reclaimed = reclaimed.context("cannot delete entries that nobody answered")?;
        debug!("deleted entries that nobody answered: {reclaimed:?}");
        guard.relieving.deleted += reclaimed.deleted;
        if reclaimed.deleted == 0 {
            guard.relieving.next = now + PAUSE;
        }
    }
    match guard.ticker.reclaim() {
        Some(rate) if guard.relieving.pass.is_none() && now >= guard.relieving.next => {
            begin(guard, rate, now)?;
        }
        None if guard.relieving.deleted > 0 && guard.relieving.pass.is_none() => {
            let entries_deleted = std::mem::take(&mut guard.relieving.deleted);
            guard.tell(What::Relieved { entries_deleted });
        }
        Some(_) | None => {}
    }
    if now >= guard.relieving.fitted + Duration::from_secs(1) {
        guard.relieving.fitted = now;
        fit_timeouts(guard)?;
    }
    Ok(())
}

/// One pass: never entries of sources that are known or allowed.
fn begin(guard: &mut Guard, rate: f64, now: Duration) -> anyhow::Result<()> {
    let most = reclaim_pass::entries(rate);
    guard.relieving.next = now + TUNING.pass_interval;
    let known: HashSet<SourceScope> = guard.known_sources.all().collect();
    let allowed = guard.maps.lists.entries(ctguard_kernel::maps::ListKind::Allow)?;
    let ages = Ages::read();
    guard.relieving.pass = Some(Background::start("ctguard-reclaim", move || {
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
    let timeouts = &mut guard.relieving.timeouts;
    let range = range(&policy).filter(|_| table.max > 0);
    let fitted = match range {
        Some(range) => timeouts.follow(range, table.fill()),
        None => timeouts.restore(),
    };
    fitted.context("cannot fit timeouts to the fill")
}

/// None where either end is not set.
fn range(policy: &Policy) -> Option<AdaptiveRange> {
    let [start, end] = policy.adaptive_ppm.map(|parts| f64::from(parts) / 1e6);
    if start > 0.0 && end > 0.0 { AdaptiveRange::new(start, end) } else { None }
}
