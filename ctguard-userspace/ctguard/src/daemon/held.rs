//! What an entry of the table means to the controller.

use std::{collections::HashSet, net::IpAddr};

use ctguard_control::look::{Held, Kind};
use ctguard_datapath::packet::protocol;
use ctguard_kernel::conntrack::{Entry, TcpState, status};
use ipnet::IpNet;

/// What decides about all entries alike.
#[derive(Clone, Debug, Default)]
pub(super) struct Rules {
    /// Conntrack picks up connections midway (`nf_conntrack_tcp_loose`).
    pub(super) tcp_loose: bool,
    pub(super) allowed: Prefixes,
}

impl Rules {
    pub(super) fn held(&self, entry: &Entry, idle: Option<u32>) -> Held {
        let kind = kind(entry);
        Held {
            source: entry.original.source.into(),
            kind,
            idle,
            deletable: self.is_deletable(entry, kind) && !self.allowed.hold(entry.original.source),
            proves: entry.protocol == protocol::TCP && entry.status & status::ASSURED != 0,
        }
    }

    /// Whether the flow survives that its entry is deleted, or was none (`docs/reclaim.md`).
    fn is_deletable(&self, entry: &Entry, kind: Kind) -> bool {
        if entry.status & status::OFFLOADED != 0 {
            return false;
        }
        match kind {
            Kind::Unanswered | Kind::PickedUp | Kind::Answered | Kind::Finished => true,
            // What a helper knows of its connection, and NAT of one that it expected, would be lost.
            Kind::Stream => !entry.has_helper && entry.status & status::EXPECTED == 0,
            Kind::HalfOpen => self.comes_back(entry),
            Kind::Established | Kind::Closing => {
                self.comes_back(entry) && !entry.has_helper && entry.status & status::EXPECTED == 0
            }
        }
    }

    /// Whether the next ACK makes the same entry again.
    const fn comes_back(&self, entry: &Entry) -> bool {
        self.tcp_loose && !entry.has_another_source_port()
    }
}

pub(crate) fn kind(entry: &Entry) -> Kind {
    let is_answered = entry.status & status::SEEN_REPLY != 0;
    let is_assured = entry.status & status::ASSURED != 0;
    if entry.protocol != protocol::TCP {
        return match (is_answered, is_assured) {
            (_, true) => Kind::Stream,
            (true, false) => Kind::Answered,
            (false, false) => Kind::Unanswered,
        };
    }
    match entry.tcp_state {
        Some(TcpState::SynSent) if !is_answered => Kind::Unanswered,
        Some(TcpState::SynSent | TcpState::SynReceived) => Kind::HalfOpen,
        // One more packet, and it is ASSURED; or it was made over ctnetlink, without a state.
        Some(TcpState::Established) | None if is_answered => Kind::Established,
        Some(TcpState::Established) => Kind::PickedUp,
        Some(TcpState::TimeWait | TcpState::Close) => Kind::Finished,
        Some(TcpState::FinWait | TcpState::CloseWait | TcpState::LastAck) => Kind::Closing,
        None => Kind::Unanswered,
    }
}

/// A set of prefixes that is asked about each entry.
#[derive(Clone, Debug, Default)]
pub(super) struct Prefixes {
    prefixes: HashSet<IpNet>,
    lengths: HashSet<u8>,
}

impl Prefixes {
    pub(super) fn hold(&self, address: IpAddr) -> bool {
        self.lengths.iter().any(|&length| {
            IpNet::new(address, length).is_ok_and(|net| self.prefixes.contains(&net.trunc()))
        })
    }

    /// Whether any address of `net` is in one of them.
    pub(super) fn touch(&self, net: IpNet) -> bool {
        self.hold(net.addr()) || self.prefixes.iter().any(|own| net.contains(own))
    }
}

impl Extend<IpNet> for Prefixes {
    fn extend<I: IntoIterator<Item = IpNet>>(&mut self, prefixes: I) {
        for prefix in prefixes {
            self.lengths.insert(prefix.prefix_len());
            self.prefixes.insert(prefix.trunc());
        }
    }
}

impl FromIterator<IpNet> for Prefixes {
    fn from_iter<I: IntoIterator<Item = IpNet>>(prefixes: I) -> Self {
        let mut all = Self::default();
        all.extend(prefixes);
        all
    }
}

#[cfg(test)]
mod tests {
    use ctguard_kernel::conntrack::Tuple;

    use super::*;

    const REPLIED: u32 = status::SEEN_REPLY;
    const ASSURED: u32 = status::SEEN_REPLY | status::ASSURED;
    const PORTS: u32 = 0x03e8_01bb;

    fn entry(protocol: u8, tcp_state: Option<TcpState>, status: u32) -> Entry {
        let [source, destination] = ["192.0.2.1", "198.51.100.1"].map(|text| text.parse().unwrap());
        Entry {
            original: Tuple { source, destination, key: PORTS },
            reply: Tuple { source: destination, destination: source, key: PORTS.rotate_left(16) },
            protocol,
            status,
            tcp_state,
            has_helper: false,
            timeout_seconds: Some(9),
            zone: 0,
        }
    }

    fn tcp(state: TcpState, status: u32) -> Entry {
        entry(protocol::TCP, Some(state), status)
    }

    fn loose() -> Rules {
        Rules { tcp_loose: true, ..Rules::default() }
    }

    #[test]
    fn an_entry_is_what_its_state_and_status_say() {
        use TcpState::{
            Close, CloseWait, Established, FinWait, LastAck, SynReceived, SynSent, TimeWait,
        };
        let of = |state, status| kind(&tcp(state, status));
        assert_eq!(of(SynSent, 0), Kind::Unanswered);
        assert_eq!([of(SynSent, REPLIED), of(SynReceived, REPLIED)], [Kind::HalfOpen; 2]);
        assert_eq!(of(SynReceived, ASSURED), Kind::HalfOpen, "a new SYN in an old connection");
        assert_eq!([of(Established, ASSURED), of(Established, REPLIED)], [Kind::Established; 2]);
        assert_eq!(of(Established, 0), Kind::PickedUp);
        assert_eq!([FinWait, CloseWait, LastAck].map(|it| of(it, ASSURED)), [Kind::Closing; 3]);
        assert_eq!([TimeWait, Close].map(|it| of(it, ASSURED)), [Kind::Finished; 2]);
        let udp = |status| kind(&entry(protocol::UDP, None, status));
        assert_eq!(
            [0, REPLIED, ASSURED].map(udp),
            [Kind::Unanswered, Kind::Answered, Kind::Stream]
        );
    }

    #[test]
    fn only_tcp_proves_an_address() {
        let proves = |entry| loose().held(&entry, None).proves;
        assert!(proves(tcp(TcpState::TimeWait, ASSURED)));
        assert!(!proves(tcp(TcpState::SynReceived, REPLIED)));
        assert!(!proves(entry(protocol::UDP, None, ASSURED)));
    }

    #[test]
    fn what_would_not_come_back_is_not_deleted() {
        let spared = |rules: &Rules, entry| !rules.held(&entry, Some(99)).deletable;
        for (state, status) in [(TcpState::SynReceived, REPLIED), (TcpState::Established, ASSURED)]
        {
            let entry = tcp(state, status);
            let mut translated = entry;
            translated.reply.key ^= 1;
            assert!(!spared(&loose(), entry));
            assert!(spared(&loose(), translated) && spared(&Rules::default(), entry), "{state:?}");
        }
        let mut forwarded = tcp(TcpState::SynReceived, REPLIED);
        forwarded.reply.key ^= 0x0001_0000;
        assert!(!spared(&loose(), forwarded), "the rule gives it the same port again");
        assert!(!spared(&Rules::default(), tcp(TcpState::SynSent, 0)));
        assert!(!spared(&Rules::default(), tcp(TcpState::TimeWait, ASSURED)));
        let helped = Entry { has_helper: true, ..tcp(TcpState::Established, ASSURED) };
        assert!(spared(&loose(), helped));
        assert!(spared(&loose(), entry(protocol::UDP, None, ASSURED | status::OFFLOADED)));
        assert!(spared(&loose(), entry(protocol::UDP, None, ASSURED | status::EXPECTED)));
    }

    #[test]
    fn a_network_is_touched_by_what_holds_it_and_by_what_is_in_it() {
        let allowed: Prefixes = ["192.0.2.0/24", "2001:db8:0:1::9/128"]
            .map(|text| text.parse().unwrap())
            .into_iter()
            .collect();
        let touches = |net: &str| allowed.touch(net.parse().unwrap());
        assert!(touches("192.0.2.7/32") && touches("2001:db8:0:1::/64"));
        assert!(!touches("192.0.3.7/32") && !touches("2001:db8:0:2::/64"));
    }

    #[test]
    fn entries_of_allowed_sources_are_spared() {
        let is_deletable = |prefix: &str| {
            let allowed = [prefix, "2001:db8::/32"].map(|text| text.parse().unwrap());
            let rules = Rules { allowed: allowed.into_iter().collect(), ..loose() };
            rules.held(&tcp(TcpState::SynSent, 0), Some(9)).deletable
        };
        assert!(!is_deletable("192.0.2.0/24") && !is_deletable("192.0.2.1/32"));
        assert!(is_deletable("192.0.3.0/24"));
    }
}
