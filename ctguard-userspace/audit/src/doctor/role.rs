//! What a machine does: its timeouts and its table should fit that.

use super::uses::{read, translates_addresses};
use crate::host::{Host, Unread};
use ctguard_kernel::net::Ruleset;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    /// Forwards packets and translates addresses
    NatRouter,
    /// Forwards packets, with stateful rules, and translates no addresses
    Gateway,
    /// Forwards nothing
    #[default]
    Server,
}

impl Role {
    /// A machine that forwards counts as a gateway unless its rules show NAT: a gateway's timeouts
    /// are the more careful ones.
    pub fn guess(host: &Host) -> Result<Self, Unread> {
        if host.forwards()?.is_none() {
            return Ok(Self::Server);
        }
        Self::by_rules(host, &read(host))
    }

    /// The same with rules that were read before.
    pub(super) fn by_rules(host: &Host, rules: &Result<Ruleset, Unread>) -> Result<Self, Unread> {
        if host.forwards()?.is_none() {
            return Ok(Self::Server);
        }
        Ok(if translates_addresses(host, rules)? { Self::NatRouter } else { Self::Gateway })
    }
}

#[cfg(test)]
mod tests {
    use ctguard_kernel::net::Rule;

    use super::{super::testing::Machine, *};

    #[test]
    fn a_machine_is_taken_for_what_it_does() {
        let machine = Machine::healthy("role-guess");
        let role = || Role::guess(machine.host()).unwrap();
        assert_eq!(role(), Role::Server);
        machine.write("/proc/sys/net/ipv6/conf/wan0/forwarding", "1\n");
        assert_eq!(role(), Role::Server, "a single interface has nowhere to forward to");
        machine.write("/proc/sys/net/ipv6/conf/lan0/forwarding", "1\n");
        assert_eq!(role(), Role::Gateway, "IPv6 alone");
        machine.write("/proc/sys/net/ipv6/conf/lan0/forwarding", "0\n");
        machine.write("/proc/sys/net/ipv4/ip_forward", "1\n");
        assert_eq!(role(), Role::Gateway);
        machine.write("/proc/net/ip_tables_names", "filter\nnat\n");
        assert_eq!(role(), Role::NatRouter);
    }

    /// Hosts of Docker, firewalld with masquerading, and `OpenWrt`: NAT by nftables alone.
    #[test]
    fn nat_by_nftables_is_told_by_rules_that_packets_come_to() {
        let machine = Machine::healthy("role-rules");
        let translates = || Rule { expressions: vec!["masq".to_owned()], ..Rule::default() };
        let nat = || Ok(Ruleset { rules: vec![translates()], ..Ruleset::default() });
        let role = |rules| Role::by_rules(machine.host(), &rules);
        assert_eq!(role(nat()).unwrap(), Role::Server, "it forwards nothing");
        machine.write("/proc/sys/net/ipv4/ip_forward", "1\n");
        assert_eq!(role(nat()).unwrap(), Role::NatRouter);
        let idle = Ruleset { idle: vec![translates()], ..Ruleset::default() };
        assert_eq!(role(Ok(idle)).unwrap(), Role::Gateway);
        let copy = Unread::new("nf_tables", "a copy of a machine has no rules to list");
        assert_eq!(role(Err(copy)).unwrap(), Role::Gateway);
        let denied = std::io::ErrorKind::PermissionDenied.into();
        role(Err(Unread::failed("nf_tables", &denied, "CAP_NET_ADMIN"))).unwrap_err();
    }
}
