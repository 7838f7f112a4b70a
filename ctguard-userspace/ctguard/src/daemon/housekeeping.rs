//! What is done each second: timeouts, the clock, lists.

use log::info;

use super::Guard;
use ctguard_kernel::{bpf::monotonic, conntrack::Timeouts};

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
