//! What a calm day brings beside the usual clients: single sources that each open many flows, calls,
//! a backup, and a monitoring host.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use tokio::{
    net::{TcpStream, UdpSocket},
    task::JoinSet,
    time::{sleep, sleep_until, timeout},
};

use super::{
    Exchanges, Flow, FlowKind, Group, Outcome, Schedule, answers,
    clients::{self, AT_ONCE, Start},
    established,
    servers::REQUEST,
};
use crate::addresses::{FLOOD_PORT, Family, TCP_ECHO_PORT, TCP_PORT, UDP_PORT};

/// A kind of day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Day {
    /// Eight CDN edges open 150 connections a second each, and four resolvers ask 800 times.
    Heavy,
    /// Calls, QUIC, a resolver and a carrier's NAT, a monitoring host, a backup of 2,000 connections.
    Mixed,
}

/// Far clients of the day: the usual ones have lower numbers.
const FIRST: u16 = super::SOURCES;

/// Connections of the backup, and the time between two of them.
const BACKUP: u32 = 2000;
const BACKUP_SPACING: Duration = Duration::from_micros(2500);

/// Some sources that do the same over and over.
#[derive(Clone, Copy)]
struct Callers {
    first: u16,
    sources: u16,
    /// New flows a second of all of them.
    per_second: f64,
    act: Act,
    /// They end so long after the day began, if not with it.
    ends: Option<Duration>,
}

#[derive(Clone, Copy)]
enum Act {
    /// A request over TCP.
    Connect,
    /// A request over UDP, from a port of its own.
    Ask,
    /// As many datagrams, at this interval, each answered.
    Talk(u32, Duration),
    /// A SYN that nobody answers.
    Scan,
    /// An echo request that nobody answers.
    Ping,
}

impl Day {
    fn callers(self) -> &'static [Callers] {
        const fn callers(first: u16, sources: u16, per_second: f64, act: Act) -> Callers {
            Callers { first: FIRST + first, sources, per_second, act, ends: None }
        }
        const MONITOR: u16 = 60;
        match self {
            Self::Heavy => {
                const { &[callers(0, 8, 1200.0, Act::Connect), callers(8, 4, 3200.0, Act::Ask)] }
            }
            Self::Mixed => {
                const {
                    &[
                        callers(0, 40, 5.0, Act::Talk(10, Duration::from_millis(300))),
                        callers(40, 10, 2.0, Act::Talk(100, Duration::from_millis(20))),
                        callers(50, 1, 150.0, Act::Ask),
                        callers(51, 1, 80.0, Act::Connect),
                        Callers {
                            ends: Some(Duration::from_secs(3)),
                            ..callers(MONITOR, 1, 60.0, Act::Scan)
                        },
                        Callers {
                            ends: Some(Duration::from_secs(1)),
                            ..callers(MONITOR, 1, 254.0, Act::Ping)
                        },
                    ]
                }
            }
        }
    }
}

/// Lives through the day, which is as long as a flood would be; what stays open is asked at its end.
pub(super) async fn live(
    day: Day,
    family: Family,
    schedule: Schedule,
) -> Result<(Vec<Flow>, Exchanges)> {
    let mut all = JoinSet::new();
    for &callers in day.callers() {
        all.spawn(callers.call(family, schedule));
    }
    let (mut flows, mut kept) = (Vec::new(), Exchanges::default());
    if day == Day::Mixed {
        (flows, kept) = back_up(family, schedule).await?;
    }
    while let Some(called) = all.join_next().await {
        flows.extend(called.context("a task of the day failed")??);
    }
    Ok((flows, kept))
}

impl Callers {
    async fn call(self, family: Family, schedule: Schedule) -> Result<Vec<Flow>> {
        let (begin, end) = schedule.flood;
        let end = self.ends.map_or(end, |ends| end.min(begin + ends));
        let period = Duration::from_secs_f64(1.0 / self.per_second);
        let (mut calls, mut flows) = (JoinSet::new(), Vec::new());
        for turn in 0_u32.. {
            let due = begin + period * turn;
            if due >= end {
                break;
            }
            sleep_until((schedule.zero + due).into()).await;
            while let Some(done) = calls.try_join_next() {
                flows.extend(done.context("a call's task failed")??);
            }
            let source = self.first + u16::try_from(turn % u32::from(self.sources))?;
            calls.spawn(self.act.perform(family, family.far_client(source), schedule.zero));
        }
        while let Some(done) = calls.join_next().await {
            flows.extend(done.context("a call's task failed")??);
        }
        Ok(flows)
    }
}

impl Act {
    /// What became of it, where somebody answers.
    async fn perform(self, family: Family, from: IpAddr, zero: Instant) -> Result<Option<Flow>> {
        let from = SocketAddr::new(from, 0);
        let to = |port| SocketAddr::new(family.published_server(), port);
        let flow = |kind, port| {
            let start = Start { kind, group: Group::Busy, from, to: to(port) };
            clients::flow(start, zero)
        };
        match self {
            Self::Connect => Ok(Some(flow(FlowKind::TcpInward, TCP_PORT).await?.1)),
            Self::Ask => Ok(Some(flow(FlowKind::UdpInward, UDP_PORT).await?.1)),
            Self::Talk(datagrams, every) => {
                let started = zero.elapsed();
                let outcome = talk(from, to(UDP_PORT), datagrams, every).await?;
                let (kind, group) = (FlowKind::UdpInward, Group::Busy);
                Ok(Some(Flow { kind, group, started, connect: None, outcome }))
            }
            Self::Scan => {
                let socket = clients::tcp_socket(from)?;
                let _ = timeout(AT_ONCE, socket.connect(to(FLOOD_PORT))).await;
                Ok(None)
            }
            Self::Ping => {
                let socket = answers::echo_socket(family, from)?;
                socket.connect(to(0)).await?;
                socket.send(&answers::echo_request(family)).await?;
                Ok(None)
            }
        }
    }
}

/// At once, if every datagram is answered in its time.
async fn talk(
    from: SocketAddr,
    to: SocketAddr,
    datagrams: u32,
    every: Duration,
) -> io::Result<Outcome> {
    let socket = UdpSocket::bind(from).await?;
    socket.connect(to).await?;
    let receive = async {
        for _ in 0..datagrams {
            socket.recv(&mut [0; 256]).await?;
        }
        io::Result::Ok(())
    };
    let send = async {
        for _ in 0..datagrams {
            socket.send(&REQUEST).await?;
            sleep(every).await;
        }
        io::Result::Ok(())
    };
    let done =
        timeout(datagrams * every + AT_ONCE, async { tokio::try_join!(send, receive) }).await;
    Ok(if matches!(done, Ok(Ok(_))) { Outcome::AtOnce } else { Outcome::Failed })
}

/// Many connections of one source, each answered once and then held to the end.
async fn back_up(family: Family, schedule: Schedule) -> Result<(Vec<Flow>, Exchanges)> {
    let to = SocketAddr::new(family.published_server(), TCP_ECHO_PORT);
    let from = SocketAddr::new(family.office(), 0);
    let (begin, end) = schedule.flood;
    let mut opening = JoinSet::new();
    for number in 0..BACKUP {
        sleep_until((schedule.zero + begin + BACKUP_SPACING * number).into()).await;
        opening.spawn(async move {
            let started = schedule.zero.elapsed();
            let stream = established::connect(from, to).await;
            (started, schedule.zero.elapsed().saturating_sub(started), stream)
        });
    }
    let (mut flows, mut held): (_, Vec<TcpStream>) = (Vec::new(), Vec::new());
    while let Some(opened) = opening.join_next().await {
        let (started, took, stream) = opened.context("a task of the backup failed")?;
        let outcome = match &stream {
            Ok(_) if took < AT_ONCE => Outcome::AtOnce,
            Ok(_) => Outcome::Eventually,
            Err(_) => Outcome::Failed,
        };
        let (kind, group) = (FlowKind::TcpInward, Group::Busy);
        flows.push(Flow { kind, group, started, connect: Some(took), outcome });
        held.extend(stream);
    }
    sleep_until((schedule.zero + end).into()).await;
    let mut asked: JoinSet<_> = held.into_iter().map(established::close_if_alive).collect();
    let mut kept = Exchanges::default();
    while let Some(ended) = asked.join_next().await {
        kept.add(ended.unwrap_or_default());
    }
    Ok((flows, kept))
}
