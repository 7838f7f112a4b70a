//! What is done each second: timeouts, the clock, lists.

use anyhow::Context as _;
use log::info;

use super::Guard;
use ctguard_control::adaptive::AdaptiveRange;
use ctguard_kernel::{bpf::monotonic, conntrack::Timeouts};
use ctguard_layout::Policy;

pub(crate) fn follow_kernel(guard: &mut Guard) -> anyhow::Result<()> {
    let jiffies = guard.kernel_clock.now(guard.jiffies_per_second)?;
    guard.ticker.set_clock(jiffies);
    if guard.timeouts.are_missing() && guard.table.is_there() {
        guard.timeouts = Timeouts::open();
        info!("conntrack is loaded now; start ctguard again to ask it itself about flows");
    }

    let (timeouts, coarse) = (&guard.timeouts, guard.coarse);
    let news = "the kernel's conntrack timeouts change; following them";
    if guard.maps.change_facts(|facts| timeouts.write(coarse, facts))
        && guard.complaints.is_due(news, monotonic())
    {
        info!("{news}");
    }
    Ok(())
}

pub(crate) fn end_list_entries(guard: &mut Guard) -> anyhow::Result<()> {
    if guard.maps.environment().operator.lists_in_use == 0 {
        return Ok(());
    }
    let now = guard.kernel_clock.now(guard.jiffies_per_second)?.0;
    let Some(writing) = guard.try_writing()? else { return Ok(()) };
    let expired = guard.maps.settings_writer(writing).expire_lists(now)?;
    if expired > 0 {
        info!("{expired} list entries ended");
    }
    Ok(())
}

pub(crate) fn fit_timeouts(guard: &mut Guard) -> anyhow::Result<()> {
    let policy = guard.maps.policy();
    let table = guard.table.sample()?;
    let fitted = match range(&policy).filter(|_| table.max > 0) {
        Some(range) => guard.adaptive.follow(range, table.fill()),
        None => guard.adaptive.restore(),
    };
    fitted.context("cannot fit timeouts to the fill")
}

/// `None` if either end is not set.
fn range(policy: &Policy) -> Option<AdaptiveRange> {
    let [start, end] = policy.adaptive_ppm.map(|parts| f64::from(parts) / 1e6);
    if start > 0.0 && end > 0.0 { AdaptiveRange::new(start, end) } else { None }
}
