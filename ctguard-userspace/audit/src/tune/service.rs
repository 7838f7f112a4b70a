//! `ct timeout` rules of nftables that give one service its own timeout, where a timeout for all
//! flows would be wrong.

use std::{fmt, str::FromStr, time::Duration};

use crate::{
    doctor::{longest_timeouts, serves_dns},
    host::{Host, Listener, Unread, sysctl_path},
};

const TABLE: &str = "ctguard-timeouts";
/// conntrack gives a flow its policy where it has an entry and is not confirmed: in these hooks,
/// after conntrack itself (`nft_ct_timeout_obj_eval`).
const HOOKS: [&str; 2] = ["prerouting", "output"];
const DNS: u16 = 53;
/// A query is answered within seconds or never; resolvers ask again after at most 5 s. RFC 4787
/// (REQ-5a) lets a NAT have shorter timers for well-known ports.
const DNS_SECONDS: u64 = 10;
/// Half of what 32 bits of jiffies hold, at 1000 a second (`nf_ct_expires`).
const LONGEST: u64 = 2_147_483;

/// How long flows of a service may be idle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceTimeout {
    protocol: Protocol,
    port: u16,
    seconds: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Tcp,
    Udp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write a protocol, a port and a time of up to 24 days, such as tcp/5432=12h or udp/53=10s")]
pub struct NoService;

impl FromStr for ServiceTimeout {
    type Err = NoService;

    fn from_str(text: &str) -> Result<Self, NoService> {
        let (service, time) = text.split_once('=').ok_or(NoService)?;
        let (protocol, port) = service.split_once('/').ok_or(NoService)?;
        let protocol = match protocol {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            _ => return Err(NoService),
        };
        let port = port.parse().ok().filter(|port| *port > 0).ok_or(NoService)?;
        let seconds = humantime::parse_duration(time).map(|time: Duration| time.as_secs());
        match seconds {
            Ok(seconds @ 1..=LONGEST) => Ok(Self { protocol, port, seconds }),
            _ => Err(NoService),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// Services of this machine for which the timeouts of all flows are wrong, unless rules know of
/// some already.
pub fn own_services(host: &Host) -> Result<Vec<ServiceTimeout>, Unread> {
    let (tcp, udp) = (Listener::read(host)?, Listener::of_udp(host)?);
    let now = host.number(&sysctl_path("net.netfilter.nf_conntrack_udp_timeout"))?;
    if serves_dns(&tcp, &udp).is_none() || now.is_none_or(|now| now <= DNS_SECONDS) {
        return Ok(Vec::new());
    }
    if host.is_this() && longest_timeouts(host)?.udp > 0 {
        return Ok(Vec::new());
    }
    Ok(vec![ServiceTimeout { protocol: Protocol::Udp, port: DNS, seconds: DNS_SECONDS }])
}

/// The commands that give these services their timeouts; none for no services.
pub fn service_rules(services: &[ServiceTimeout]) -> Vec<String> {
    if services.is_empty() {
        return Vec::new();
    }
    let mut commands = vec![format!("nft add table inet {TABLE}")];
    for hook in HOOKS {
        commands.push(format!(
            "nft 'add chain inet {TABLE} {hook} {{ type filter hook {hook} priority mangle; }}'"
        ));
    }
    for ServiceTimeout { protocol, port, seconds } in services {
        let name = format!("{protocol}-{port}");
        let states = match protocol {
            Protocol::Tcp => format!("established : {seconds}"),
            Protocol::Udp => format!("unreplied : {seconds}, replied : {seconds}"),
        };
        commands.push(format!(
            "nft 'add ct timeout inet {TABLE} {name} {{ protocol {protocol}; policy = {{ {states} }}; }}'"
        ));
        for hook in HOOKS {
            commands.push(format!(
                "nft 'add rule inet {TABLE} {hook} {protocol} dport {port} ct timeout set \"{name}\"'"
            ));
        }
    }
    commands
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::testing::Machine;

    #[test]
    fn a_service_is_a_protocol_a_port_and_a_time() {
        let read = |text: &str| text.parse::<ServiceTimeout>();
        let service = ServiceTimeout { protocol: Protocol::Tcp, port: 5432, seconds: 43_200 };
        assert_eq!(read("tcp/5432=12h"), Ok(service));
        for wrong in ["tcp/5432", "5432=12h", "icmp/8=1s", "tcp/0=1h", "udp/53=0s", "tcp/1=30d"] {
            assert_eq!(read(wrong), Err(NoService), "{wrong}");
        }
    }

    #[test]
    fn only_a_machine_that_serves_dns_is_told_of_dns() {
        let machine = Machine::healthy("tune-dns");
        let told = || own_services(machine.host()).unwrap();
        assert_eq!(told(), []);
        let line = |port: &str, state: &str| {
            format!("heading\n0: 00000000:{port} 00000000:0000 {state} 00000000:00000000\n")
        };
        machine.write("/proc/net/tcp", &line("0035", "0A"));
        machine.write("/proc/net/udp", &line("0035", "07"));
        assert_eq!(told(), ["udp/53=10s".parse().unwrap()]);
        machine.write("/proc/sys/net/netfilter/nf_conntrack_udp_timeout", "10\n");
        assert_eq!(told(), []);
    }

    #[test]
    fn every_service_has_a_policy_and_a_rule_for_each_direction() {
        let services = ["tcp/5432=12h", "udp/53=10s"].map(|text| text.parse().unwrap());
        let commands = service_rules(&services).join("\n");
        assert_eq!(commands.matches("ct timeout set \"tcp-5432\"").count(), 2, "{commands}");
        assert!(commands.contains("policy = { established : 43200 }"), "{commands}");
        assert!(commands.contains("policy = { unreplied : 10, replied : 10 }"), "{commands}");
        assert!(service_rules(&[]).is_empty());
    }
}
