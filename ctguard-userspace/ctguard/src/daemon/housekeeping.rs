//! What is done each second: timeouts, the clock, lists.

use anyhow::Context as _;
use log::info;

use super::{Guard, Guarded, known_flows, others::Look, unreadable::Seen};
use crate::events::What;
use ctguard_control::adaptive::AdaptiveRange;
use ctguard_kernel::{bpf::monotonic, conntrack::Timeouts, net::speed};
use ctguard_layout::Policy;
use ctguard_units::answers;

/// The smallest frames, of 84 bytes on the wire, that 1 Mbit/s carries in a second.
const SMALLEST_PER_MEGABIT: u64 = 1_000_000 / (84 * 8);

pub(crate) fn follow_kernel(guard: &mut Guard) -> anyhow::Result<()> {
    let jiffies = guard.kernel_clock.now(guard.jiffies_per_second)?;
    guard.ticker.set_clock(jiffies);
    if guard.timeouts.are_missing() && guard.table.is_there() {
        guard.timeouts = Timeouts::open();
        info!("conntrack is loaded now; start ctguard again to ask it itself about flows");
    }

    let (timeouts, coarse) = (&guard.timeouts, guard.coarse);
    let hz = guard.jiffies_per_second;
    let links = answers(links_carry(guard) / 2, hz);
    guard.maps.change_facts(|facts| facts.answers = links);

    let news = "the kernel's conntrack timeouts change; following them";
    if guard.maps.change_facts(|facts| timeouts.write(coarse, facts))
        && guard.complaints.is_due(news, monotonic())
    {
        info!("{news}");
    }
    Ok(())
}

/// Packets per second that the guarded links can send. A link whose speed is not known counts as one
/// of 1 Gbit/s.
fn links_carry(guard: &Guard) -> u64 {
    let speed = |link: &Guarded| speed(link.ifindex).ok().flatten().unwrap_or(1_000);
    guard.interfaces.iter().map(|link| u64::from(speed(link)) * SMALLEST_PER_MEGABIT).sum()
}

/// Reads the table again if others made many entries, while no flood can be who did.
pub(crate) fn notice_others(guard: &mut Guard) -> anyhow::Result<()> {
    let table = guard.table.sample()?;
    let admitted = guard.maps.grant.admissions().iter().sum();
    let look = Look { at: monotonic(), entries: table.entries, max: table.max, admitted };
    if guard.others.have_jumped(look) && guard.ticker.is_calm() {
        info!("many entries have appeared that were not admitted here; reading the table again");
        known_flows::learn(guard);
    }
    Ok(())
}

/// Reports that many frames cannot be read, or no longer.
pub(crate) fn notice_unreadable(guard: &mut Guard) -> anyhow::Result<()> {
    let totals = guard.maps.totals()?;
    let (frames, unreadable) = (totals.frames(), totals.unreadable());
    if let Some(share_ratio) = guard.unreadable.change(Seen { at: monotonic(), frames, unreadable })
    {
        guard.report(What::Unreadable { share_ratio });
    }
    Ok(())
}

/// Ends a pause that is over, also one that an earlier daemon did not live to end.
pub(crate) fn end_pause(guard: &mut Guard) -> anyhow::Result<()> {
    if guard.maps.pause().is_none() {
        return Ok(());
    }
    let now = guard.kernel_clock.now(guard.jiffies_per_second)?;
    if let Some(writing) = guard.try_writing()?
        && guard.maps.settings_writer(writing).end_pause_if_over(now)
    {
        let dry_run = guard.maps.policy().has(Policy::DRY_RUN);
        guard.report(What::PauseEnded { dry_run });
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
