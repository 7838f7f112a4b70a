//! Answers to flows from inside, counted where they are sent and where they arrive: none may be
//! lost on the way. Each flow exchanges many, so that ten thousand fit the table; some of them
//! fall silent for long, so that whatever knows them by what came lately has forgotten them.

use std::{
    collections::HashSet,
    io,
    net::SocketAddr,
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use etherparse::{IcmpEchoHeader, Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, ipproto, socket_with};
use serde::{Deserialize, Serialize};
use tokio::{net::UdpSocket, task::JoinSet, time::sleep_until};

use super::Schedule;
use crate::addresses::{DNS_PORT, Family};

/// UDP flows, and after them those of echo requests with an identifier each.
const UDP_FLOWS: u16 = 40;
const ECHO_FLOWS: u16 = 10;
/// Flows of both kinds.
pub(super) const FLOWS: u16 = UDP_FLOWS + ECHO_FLOWS;
/// Requests of each flow for each second of the flood: 10,000 in 20 seconds altogether.
const REQUESTS_PER_SECOND: u32 = 10;
/// Requests start so long before the flood, so that many flows are older than it.
const LEAD: Duration = Duration::from_secs(1);
/// An answer that takes longer is lost; the path takes 20 ms.
const PATIENCE: Duration = Duration::from_secs(1);
/// Below the ports of established exchanges.
const FIRST_INSIDE_PORT: u16 = 10_500;
const LONGEST: usize = 512;

/// What became of answers to flows from inside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answers {
    /// Flows that exchanged them: UDP, and echo requests.
    pub flows: u32,
    /// Requests that the inside sent.
    pub requested: u64,
    /// Answers that the far side sent, counted there.
    pub sent: u64,
    /// Answers that arrived inside.
    pub received: u64,
}

impl Answers {
    /// Answers that were sent and did not arrive.
    #[must_use]
    pub fn lost(self) -> u64 {
        self.sent.saturating_sub(self.received)
    }

    pub(super) fn add(&mut self, other: Self) {
        self.flows += other.flows;
        self.requested += other.requested;
        self.sent += other.sent;
        self.received += other.received;
    }
}

/// The far side's count of answers.
#[derive(Debug)]
pub(super) struct Served {
    datagrams: Arc<AtomicU64>,
    family: Family,
    echoed_before: u64,
}

/// Starts the server of UDP answers; the kernel answers echo requests, and counts.
pub(super) async fn serve(family: Family) -> Result<Served> {
    let socket = UdpSocket::bind(SocketAddr::new(family.far_server(), DNS_PORT)).await;
    let socket = socket.context("cannot bind the server of counted answers")?;
    let datagrams = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&datagrams);
    tokio::spawn(async move {
        let mut bytes = [0; LONGEST];
        loop {
            let Ok((length, client)) = socket.recv_from(&mut bytes).await else { continue };
            if socket.send_to(&bytes[..length], client).await.is_ok() {
                counted.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    Ok(Served { datagrams, family, echoed_before: echo_replies(family)? })
}

impl Served {
    /// What was sent until now.
    pub(super) fn count(&self) -> Result<Answers> {
        let echoed = echo_replies(self.family)?.saturating_sub(self.echoed_before);
        let sent = self.datagrams.load(Ordering::Relaxed) + echoed;
        Ok(Answers { sent, ..Answers::default() })
    }
}

/// Echo replies that this namespace sent, by the kernel's own counter (RFC 2011, RFC 2466).
fn echo_replies(family: Family) -> Result<u64> {
    let path = match family {
        Family::Ipv4 => "/proc/thread-self/net/snmp",
        Family::Ipv6 => "/proc/thread-self/net/snmp6",
    };
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    let found = match family {
        Family::Ipv4 => column(&text, "Icmp:", "OutEchoReps"),
        Family::Ipv6 => text
            .lines()
            .find_map(|line| line.strip_prefix("Icmp6OutEchoReplies")?.trim().parse().ok()),
    };
    found.with_context(|| format!("{path} does not count echo replies"))
}

/// A number of `/proc/net/snmp`: a line of names, a line of numbers.
fn column(text: &str, table: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter(|line| line.split_whitespace().next() == Some(table));
    let at = lines.next()?.split_whitespace().position(|found| found == name)?;
    lines.next()?.split_whitespace().nth(at)?.parse().ok()
}

/// Sends the requests of all flows and counts the answers; returns when the last had its time.
pub(super) async fn ask(family: Family, schedule: Schedule) -> Result<Answers> {
    let (begin, end) = (schedule.flood.0.saturating_sub(LEAD), schedule.flood.1);
    let seconds = end.saturating_sub(schedule.flood.0).as_secs_f64();
    let requests = (f64::from(REQUESTS_PER_SECOND) * seconds).round();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small number")]
    let requests = requests as u32;
    let mut flows = JoinSet::new();
    for number in 0..FLOWS {
        let flow = Flow::open(family, number).await;
        let flow = flow.with_context(|| format!("the lab cannot open flow {number} of answers"))?;
        let moments = Pattern::of(number).moments(requests, end.saturating_sub(begin));
        let moments = moments.into_iter().map(|moment| schedule.zero + begin + moment).collect();
        flows.spawn(flow.exchange(moments));
    }
    let mut sum = Answers::default();
    while let Some(answers) = flows.join_next().await {
        sum.add(answers.context("a task of answers failed")?);
    }
    Ok(sum)
}

/// When a flow speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pattern {
    /// All the time.
    Steady,
    /// All the time after a third of it: the flow opens in the midst of the flood.
    Late,
    /// Silent for a third of the time.
    Pausing,
    /// Silent but for its first and last eighth.
    Silent,
}

impl Pattern {
    fn of(flow: u16) -> Self {
        match flow % 5 {
            0 | 1 => Self::Steady,
            2 => Self::Late,
            3 => Self::Pausing,
            _ => Self::Silent,
        }
    }

    /// Moments of so many requests, evenly over the shares of `lasts` that it speaks in.
    fn moments(self, requests: u32, lasts: Duration) -> Vec<Duration> {
        // Shares of the whole: what comes before the silence, the silence.
        let (before, silence) = match self {
            Self::Steady => (1.0, 0.0),
            Self::Late => (0.0, 1.0 / 3.0),
            Self::Pausing => (1.0 / 3.0, 1.0 / 3.0),
            Self::Silent => (1.0 / 8.0, 3.0 / 4.0),
        };
        let moment = |number: u32| {
            let spoken = f64::from(number) / f64::from(requests) * (1.0 - silence);
            lasts.mul_f64(if spoken < before { spoken } else { spoken + silence })
        };
        (0..requests).map(moment).collect()
    }
}

/// One flow from inside, its socket connected.
struct Flow {
    socket: UdpSocket,
    requests: Requests,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Requests {
    Datagrams,
    Echo(Family),
}

impl Flow {
    async fn open(family: Family, number: u16) -> io::Result<Self> {
        let address = family.inside_client(u8::try_from(number).unwrap_or_default());
        // Of an echo socket the port is the identifier, each flow's its own here as well.
        let from = SocketAddr::new(address, FIRST_INSIDE_PORT + number);
        let (socket, requests) = if number < UDP_FLOWS {
            (UdpSocket::bind(from).await?, Requests::Datagrams)
        } else {
            (echo_socket(family, from)?, Requests::Echo(family))
        };
        socket.connect(SocketAddr::new(family.far_server(), DNS_PORT)).await?;
        Ok(Self { socket, requests })
    }

    /// Sends a request at each moment, and counts the different answers meanwhile.
    async fn exchange(self, moments: Vec<Instant>) -> Answers {
        let mut answered = HashSet::new();
        let mut requested = 0;
        let last = moments.last().copied();
        let mut moments = (0_u16..).zip(moments);
        let mut next = moments.next();
        let mut bytes = [0; LONGEST];
        while let Some(due) = next.map(|(_, due)| due).or(last.map(|last| last + PATIENCE)) {
            tokio::select! {
                () = sleep_until(due.into()) => {
                    let Some((number, _)) = next else { break };
                    let request = self.requests.message(number);
                    requested += u64::from(self.socket.send(&request).await.is_ok());
                    next = moments.next();
                }
                received = self.socket.recv(&mut bytes) => {
                    let message = received.ok().and_then(|length| bytes.get(..length));
                    answered.extend(message.and_then(|message| self.requests.answered(message)));
                }
            }
        }
        Answers { flows: 1, requested, sent: 0, received: answered.len() as u64 }
    }
}

impl Requests {
    /// A request with this number.
    fn message(self, number: u16) -> Vec<u8> {
        // The kernel writes identifier and checksum.
        let echo = IcmpEchoHeader { id: 0, seq: number };
        match self {
            Self::Datagrams => number.to_be_bytes().repeat(32),
            Self::Echo(Family::Ipv4) => {
                Icmpv4Header::new(Icmpv4Type::EchoRequest(echo)).to_bytes().to_vec()
            }
            Self::Echo(Family::Ipv6) => {
                Icmpv6Header::new(Icmpv6Type::EchoRequest(echo)).to_bytes().to_vec()
            }
        }
    }

    /// The number of the request that this answers.
    fn answered(self, message: &[u8]) -> Option<u16> {
        match self {
            Self::Datagrams => {
                let number = u16::from_be_bytes(*message.first_chunk()?);
                (message == self.message(number)).then_some(number)
            }
            Self::Echo(Family::Ipv4) => {
                let header = Icmpv4Header::from_slice(message).ok()?.0;
                let Icmpv4Type::EchoReply(echo) = header.icmp_type else { return None };
                Some(echo.seq)
            }
            Self::Echo(Family::Ipv6) => {
                let header = Icmpv6Header::from_slice(message).ok()?.0;
                let Icmpv6Type::EchoReply(echo) = header.icmp_type else { return None };
                Some(echo.seq)
            }
        }
    }
}

/// An echo request.
pub(super) fn echo_request(family: Family) -> Vec<u8> {
    Requests::Echo(family).message(0)
}

/// A socket for echo requests (net/ipv4/ping.c), which speaks like one for datagrams.
pub(super) fn echo_socket(family: Family, from: SocketAddr) -> io::Result<UdpSocket> {
    let (domain, protocol) = match family {
        Family::Ipv4 => (AddressFamily::INET, ipproto::ICMP),
        Family::Ipv6 => (AddressFamily::INET6, ipproto::ICMPV6),
    };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket: OwnedFd = socket_with(domain, SocketType::DGRAM, flags, Some(protocol))?;
    bind(&socket, &from)?;
    UdpSocket::from_std(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LASTS: Duration = Duration::from_secs(21);

    fn longest_silence(pattern: Pattern) -> Duration {
        let moments = pattern.moments(200, LASTS);
        let gaps = moments.windows(2).map(|pair| pair[1].saturating_sub(pair[0]));
        gaps.max().unwrap_or_default()
    }

    #[test]
    fn each_flow_sends_all_its_requests_in_its_time() {
        for flow in 0..FLOWS {
            let moments = Pattern::of(flow).moments(200, LASTS);
            assert_eq!(moments.len(), 200);
            assert!(moments.is_sorted() && moments.iter().all(|moment| *moment < LASTS));
        }
    }

    #[test]
    fn some_flows_fall_silent_and_some_for_long() {
        assert!(longest_silence(Pattern::Steady) < Duration::from_millis(200));
        assert!(longest_silence(Pattern::Pausing) > Duration::from_secs(5));
        assert!(longest_silence(Pattern::Silent) > Duration::from_secs(15));
    }

    #[test]
    fn an_answer_is_known_by_the_number_of_its_request() {
        let datagrams = Requests::Datagrams;
        assert_eq!(datagrams.answered(&datagrams.message(77)), Some(77));
        assert_eq!(datagrams.answered(b"something else"), None);
        let reply = Icmpv4Type::EchoReply(IcmpEchoHeader { id: 3, seq: 77 });
        let reply = Icmpv4Header::new(reply).to_bytes();
        assert_eq!(Requests::Echo(Family::Ipv4).answered(&reply), Some(77));
        let request = Requests::Echo(Family::Ipv4).message(77);
        assert_eq!(Requests::Echo(Family::Ipv4).answered(&request), None, "its own request");
    }

    #[test]
    fn a_counter_lies_under_its_name() {
        let text = "Ip: A B\nIp: 1 2\nIcmp: InMsgs OutEchoReps\nIcmp: 7 9\n";
        assert_eq!(column(text, "Icmp:", "OutEchoReps"), Some(9));
        assert_eq!(column(text, "Icmp:", "OutTimestamps"), None);
    }
}
