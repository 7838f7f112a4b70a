//! Denies sources that have been above their part for long, if the operator wants that.

use ipnet::IpNet;

use super::{Guard, lists::Now};
use crate::events::What;
use ctguard_kernel::maps::{Entry, ListKind};

/// Denies those that the last looks found. While a command changes lists, they wait.
pub(super) fn follow(guard: &mut Guard) -> anyhow::Result<()> {
    if guard.looker.overloaded.is_empty() {
        return Ok(());
    }
    let Some(writing) = guard.try_writing()? else { return Ok(()) };
    let seconds = guard.maps.policy().overload_for;
    let now = Now::read(&guard.kernel_clock, guard.jiffies_per_second)?;
    // What the operator denied stays as long as he said.
    let listed = guard.maps.lists.entries(ListKind::Deny)?;
    let mut writer = guard.maps.settings_writer(writing);
    let mut denied = Vec::new();
    for source in guard.looker.overloaded.drain(..) {
        let (address, length) = source.prefix();
        let prefix = IpNet::new(address, length)?;
        if listed.iter().any(|entry| entry.prefix == prefix) {
            continue;
        }
        let entry = Entry { prefix, expires_at: now.after(seconds) };
        writer.change_list(ListKind::Deny, [], [entry])?;
        denied.push(source.to_string());
    }
    drop(writer);
    for source in denied {
        guard.report(What::Overload { source, seconds });
    }
    Ok(())
}
