//! What a machine does: its timeouts and its table should fit that.

use super::uses::translates_addresses;
use crate::host::{Host, Unread};

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    /// Forwards packets and translates addresses
    NatRouter,
    /// Forwards packets, with stateful rules, and translates no addresses
    Gateway,
    /// Forwards nothing
    Server,
}

impl Role {
    /// A machine that forwards counts as a gateway unless its rules show NAT: a gateway's timeouts
    /// are the more careful ones.
    pub fn guess(host: &Host) -> Result<Self, Unread> {
        let role = Self::by_forwarding(host)?;
        let is_nat = role == Self::Gateway && translates_addresses(host)?;
        Ok(if is_nat { Self::NatRouter } else { role })
    }

    pub(super) fn by_forwarding(host: &Host) -> Result<Self, Unread> {
        Ok(if host.forwards()?.is_some() { Self::Gateway } else { Self::Server })
    }
}

#[cfg(test)]
mod tests {
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
}
