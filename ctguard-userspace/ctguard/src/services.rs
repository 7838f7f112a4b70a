//! Services that the entries of the table lead to: destination address, protocol and port.

use std::net::IpAddr;

use ctguard_control::look::Kind;
use ctguard_datapath::packet::protocol;
use ctguard_kernel::conntrack::Entry;
use serde::{Deserialize, Serialize};

use crate::tally::{Count, Tally};

/// Services that are named.
const NAMED: usize = 10;
/// Services that are counted.
const MOST: usize = 2048;

/// Where new flows go to, and how many entries they have.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ServiceHeld {
    pub(crate) address: String,
    /// `tcp`, `udp`, or the number that IANA gave it.
    pub(crate) protocol: String,
    /// Null for protocols without ports.
    pub(crate) port: Option<u16>,
    pub(crate) entries: u64,
    /// Unanswered and half-open ones.
    pub(crate) unanswered_entries: u64,
}

/// Counts entries by service.
#[derive(Clone, Debug, Default)]
pub(crate) struct Services(Tally<Service, Counts, MOST>);

/// Destination, protocol, port.
type Service = (IpAddr, u8, Option<u16>);

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    entries: u64,
    unanswered: u64,
}

impl Services {
    pub(crate) fn add(&mut self, entry: &Entry, kind: Kind) {
        let counts = self.0.of(service(entry));
        counts.entries += 1;
        counts.unanswered += u64::from(matches!(kind, Kind::Unanswered | Kind::HalfOpen));
    }

    /// The few that most unanswered entries lead to, then most entries.
    pub(crate) fn most(&self) -> Vec<ServiceHeld> {
        let held = |((address, number, port), counts): (Service, Counts)| ServiceHeld {
            address: address.to_string(),
            protocol: match number {
                protocol::TCP => "tcp".to_owned(),
                protocol::UDP => "udp".to_owned(),
                number => number.to_string(),
            },
            port,
            entries: counts.entries,
            unanswered_entries: counts.unanswered,
        };
        self.0.ranked().into_iter().take(NAMED).map(held).collect()
    }
}

impl Count for Counts {
    type Rank = (u64, u64);

    /// Unanswered entries, then all.
    fn rank(&self) -> (u64, u64) {
        (self.unanswered, self.entries)
    }
}

fn service(entry: &Entry) -> Service {
    let has_ports = matches!(
        entry.protocol,
        protocol::TCP | protocol::UDP | protocol::UDPLITE | protocol::SCTP | protocol::DCCP
    );
    // A key ends with the destination port.
    let port = u16::try_from(entry.original.key & 0xffff).ok().filter(|_| has_ports);
    (entry.original.destination, entry.protocol, port)
}

impl ServiceHeld {
    /// `192.0.2.1 tcp 443`, as `ctguard` names services everywhere.
    pub(crate) fn name(&self) -> String {
        let Self { address, protocol, port, .. } = self;
        let port = port.map_or_else(String::new, |port| format!(" {port}"));
        let word = if protocol.parse::<u8>().is_ok() { "protocol " } else { "" };
        format!("{address} {word}{protocol}{port}")
    }
}

#[cfg(test)]
mod tests {
    use ctguard_kernel::conntrack::Tuple;

    use super::*;

    fn entry(host: u32, number: u8, port: u16) -> Entry {
        let source: IpAddr = "192.0.2.1".parse().unwrap();
        let destination: IpAddr = std::net::Ipv4Addr::from(0xc633_6400 + host).into();
        let key = 0x9c40_0000 | u32::from(port);
        Entry {
            original: Tuple { source, destination, key },
            reply: Tuple { source: destination, destination: source, key: key.rotate_left(16) },
            protocol: number,
            status: 0,
            tcp_state: None,
            has_helper: false,
            timeout_seconds: None,
            zone: 0,
        }
    }

    #[test]
    fn a_flooded_service_comes_before_those_that_answer_more() {
        let mut services = Services::default();
        for _ in 0..500 {
            services.add(&entry(1, protocol::TCP, 443), Kind::Established);
        }
        for _ in 0..40 {
            services.add(&entry(1, protocol::UDP, 53), Kind::Unanswered);
        }
        services.add(&entry(2, protocol::ICMP, 7), Kind::Answered);
        let most = services.most();
        let names: Vec<_> = most.iter().map(ServiceHeld::name).collect();
        let expected = ["198.51.100.1 udp 53", "198.51.100.1 tcp 443", "198.51.100.2 protocol 1"];
        assert_eq!(names, expected);
        assert_eq!((most[0].unanswered_entries, most[1].entries), (40, 500));
    }

    #[test]
    fn a_flooded_service_is_found_among_more_than_are_counted() {
        let mut services = Services::default();
        for number in 0..50_000_u32 {
            services.add(&entry(number, protocol::TCP, 443), Kind::Unanswered);
            if number % 8 == 0 {
                services.add(&entry(7, protocol::TCP, 22), Kind::HalfOpen);
            }
        }
        assert!(services.0.len() <= MOST);
        assert_eq!(services.most().len(), NAMED);
        assert_eq!(services.most()[0].name(), "198.51.100.7 tcp 22");
        assert_eq!(services.most()[0].unanswered_entries, 50_000 / 8);
    }
}
