//! Denies sources that have been above their part for long, if the operator wants that.

use ipnet::IpNet;

use super::{Guard, lists::Now};
use crate::events::What;
use ctguard_control::sources::SourceScope;
use ctguard_kernel::maps::{Entry, ListKind};

/// Denies those that the last looks found. While a command changes lists, they wait.
pub(super) fn follow(guard: &mut Guard) -> anyhow::Result<()> {
    if guard.looker.overloaded.is_empty() {
        return Ok(());
    }
    if guard.timeouts.take_any_ack() {
        guard.looker.overloaded.clear();
        return Ok(());
    }
    let Some(writing) = guard.try_writing()? else { return Ok(()) };
    let seconds = guard.maps.policy().overload_for;
    let now = Now::read(&guard.kernel_clock, guard.jiffies_per_second)?;
    let allowed = guard.maps.lists.entries(ListKind::Allow)?;
    let listed = guard.maps.lists.entries(ListKind::Deny)?;
    let mut writer = guard.maps.settings_writer(writing);
    let mut denied = Vec::new();
    let mut done = Ok(());
    for source in guard.looker.overloaded.drain(..) {
        let prefix = net(source);
        if is_said(prefix, &allowed, &listed, now.jiffies) {
            continue;
        }
        let entry = Entry { prefix, expires_at: now.after(seconds) };
        done = writer.change_list(ListKind::Deny, [], [entry]);
        if done.is_err() {
            break;
        }
        denied.push(source.to_string());
    }
    drop(writer);
    for source in denied {
        guard.report(What::Overload { source, seconds });
    }
    Ok(done?)
}

/// The addresses of a source.
pub(super) fn net(source: SourceScope) -> IpNet {
    let (address, length) = source.prefix();
    // A length that no address has would be a mistake of ours, and one address the least harm.
    IpNet::new(address, length).unwrap_or_else(|_| address.into())
}

/// Whether the operator has said already what becomes of it: some of it is allowed, or all of it is
/// denied as long as he said.
fn is_said(prefix: IpNet, allowed: &[Entry], denied: &[Entry], now: u64) -> bool {
    let mut allowed = allowed.iter().filter(|entry| entry.is_live(now));
    let mut denied = denied.iter().filter(|entry| entry.is_live(now));
    allowed.any(|own| own.prefix.contains(&prefix) || prefix.contains(&own.prefix))
        || denied
            .any(|own| own.prefix == prefix || own.expires_at == 0 && own.prefix.contains(&prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(prefix: &str, expires_at: u64) -> Entry {
        Entry { prefix: prefix.parse().unwrap(), expires_at }
    }

    /// Fails when an allowed address is denied because of its neighbours.
    #[test]
    fn a_network_with_an_allowed_address_is_not_denied() {
        let network = net("2001:db8:0:1::/64".parse().unwrap());
        let is_said = |allowed: &[Entry]| is_said(network, allowed, &[], 100);
        assert!(is_said(&[entry("2001:db8:0:1::9/128", 0)]));
        assert!(is_said(&[entry("2001:db8::/32", 101)]));
        assert!(!is_said(&[entry("2001:db8:0:1::9/128", 100)]), "that entry has ended");
        assert!(!is_said(&[entry("2001:db8:0:2::/64", 0), entry("192.0.2.0/24", 0)]));
    }

    #[test]
    fn what_the_operator_denied_stays_as_long_as_he_said() {
        let source = net("192.0.2.7".parse().unwrap());
        let is_said = |denied: &[Entry]| is_said(source, &[], denied, 100);
        assert!(is_said(&[entry("192.0.2.7/32", 0)]) && is_said(&[entry("192.0.2.7/32", 200)]));
        assert!(is_said(&[entry("192.0.2.0/24", 0)]), "it is denied for good");
        assert!(!is_said(&[entry("192.0.2.0/24", 200)]), "that may end sooner");
        assert!(!is_said(&[entry("192.0.2.7/32", 99)]), "that has ended");
    }
}
