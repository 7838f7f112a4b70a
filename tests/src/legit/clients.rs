//! New flows: one request, one answer, and how long their users waited.

use std::{
    collections::HashSet,
    io,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream, UdpSocket},
    task::JoinSet,
    time::timeout,
};

use super::{
    Group, Schedule, Side,
    groups::{self, SETTLED},
    servers::{ANSWER, REQUEST},
};
use crate::{
    addresses::{Family, INSIDE_CLIENTS, TCP_PORT, UDP_PORT},
    syscall,
};

/// A flow that takes longer has failed.
pub const PATIENCE: Duration = Duration::from_secs(4);
/// Whatever takes longer waited for a retransmission: the first comes after 1 s (RFC 6298), and
/// the path takes 20 ms.
pub(super) const AT_ONCE: Duration = Duration::from_millis(500);
/// A UDP client asks again after so long.
const UDP_RETRY: Duration = Duration::from_secs(1);

/// Direction and protocol of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FlowKind {
    /// TCP from the far side to a forwarded port.
    TcpInward,
    /// TCP from the inside through masquerade.
    TcpOutward,
    /// UDP from the far side to a forwarded port.
    UdpInward,
    /// UDP from the inside through masquerade.
    UdpOutward,
}

/// How a flow ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done without waiting for a retransmission.
    AtOnce,
    /// Done within [`PATIENCE`].
    Eventually,
    /// Not done.
    Failed,
}

/// One new flow.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    /// Direction and protocol.
    pub kind: FlowKind,
    /// Whose it is.
    pub group: Group,
    /// When it started, from the schedule's zero.
    pub started: Duration,
    /// How long TCP took to connect, if it did.
    pub connect: Option<Duration>,
    /// How it ended.
    pub outcome: Outcome,
}

#[derive(Clone, Copy)]
struct Exchange {
    outcome: Outcome,
    connect: Option<Duration>,
}

const FAILED: Exchange = Exchange { outcome: Outcome::Failed, connect: None };

/// Starts this side's flows; returns when the last has ended.
///
/// Fails when the lab itself is at fault: no local port, no file descriptor.
pub(super) async fn load(side: Side, family: Family, schedule: Schedule) -> Result<Vec<Flow>> {
    let per_second = match side {
        Side::Far => schedule.per_second,
        Side::Inside => schedule.inside_per_second(),
    };
    let period = Duration::from_secs_f64(1.0 / per_second);
    let mut flows = JoinSet::new();
    let mut ended = Ended::default();
    for turn in 0_u32.. {
        let due = period * turn;
        if due >= schedule.lasts {
            break;
        }
        tokio::time::sleep_until((schedule.zero + due).into()).await;
        while let Some(flow) = flows.try_join_next() {
            ended.note(flow.context("a flow's task failed")??);
        }
        let start = match side {
            Side::Far => {
                let strangers = due >= schedule.flood.0 + SETTLED;
                from_far(family, turn, strangers, schedule.favours, &ended.met)
            }
            Side::Inside => from_inside(family, turn, schedule.neighbour.is_some()),
        };
        flows.spawn(flow(start, schedule.zero));
    }
    while let Some(flow) = flows.join_next().await {
        ended.note(flow.context("a flow's task failed")??);
    }
    Ok(ended.flows)
}

/// Flows that have ended, and far clients of which a TCP connection has succeeded.
#[derive(Default)]
struct Ended {
    flows: Vec<Flow>,
    met: HashSet<IpAddr>,
}

impl Ended {
    fn note(&mut self, (start, flow): (Start, Flow)) {
        if flow.kind == FlowKind::TcpInward && flow.outcome != Outcome::Failed {
            self.met.insert(start.from.ip());
        }
        self.flows.push(flow);
    }
}

/// A flow to be started.
#[derive(Clone, Copy)]
pub(super) struct Start {
    pub(super) kind: FlowKind,
    pub(super) group: Group,
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
}

fn from_far(
    family: Family,
    turn: u32,
    strangers: bool,
    favours: bool,
    met: &HashSet<IpAddr>,
) -> Start {
    let (source, udp) = groups::caller(turn, strangers);
    let address = family.far_client(source);
    let (kind, port) =
        if udp { (FlowKind::UdpInward, UDP_PORT) } else { (FlowKind::TcpInward, TCP_PORT) };
    Start {
        kind,
        group: Group::of(source, met.contains(&address), favours),
        from: SocketAddr::new(address, 0),
        to: SocketAddr::new(family.published_server(), port),
    }
}

fn from_inside(family: Family, turn: u32, one: bool) -> Start {
    let clients = if one { 1 } else { u32::from(INSIDE_CLIENTS) };
    let client = u8::try_from(turn % clients).unwrap_or_default();
    let (kind, port) = if turn % 3 == 2 {
        (FlowKind::UdpOutward, UDP_PORT)
    } else {
        (FlowKind::TcpOutward, TCP_PORT)
    };
    Start {
        kind,
        group: Group::Inside,
        from: SocketAddr::new(family.inside_client(client), inside_port(turn)),
        to: SocketAddr::new(family.far_server(), port),
    }
}

/// Each flow from inside has a source port of its own. Masquerade gives all inside clients one
/// address: two of them with one port, neither confirmed yet, are given the same reply tuple, and
/// one of them is lost to the clash.
fn inside_port(number: u32) -> u16 {
    let offset = number % u32::from(u16::MAX - FIRST_INSIDE_PORT);
    FIRST_INSIDE_PORT + u16::try_from(offset).unwrap_or_default()
}

/// Below it lie the ports of established exchanges.
const FIRST_INSIDE_PORT: u16 = 12_000;

pub(super) async fn flow(start: Start, zero: Instant) -> Result<(Start, Flow)> {
    let Start { kind, group, from, to } = start;
    let started = zero.elapsed();
    let exchange = match kind {
        FlowKind::TcpInward | FlowKind::TcpOutward => tcp(from, to).await,
        FlowKind::UdpInward | FlowKind::UdpOutward => udp(from, to).await,
    };
    let Exchange { outcome, connect } =
        exchange.with_context(|| format!("the lab cannot start a flow from {from} to {to}"))?;
    Ok((start, Flow { kind, group, started, connect, outcome }))
}

async fn tcp(from: SocketAddr, to: SocketAddr) -> io::Result<Exchange> {
    let socket = tcp_socket(from)?;
    let began = Instant::now();
    let stream = match timeout(PATIENCE, socket.connect(to)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) if error.kind() == io::ErrorKind::AddrNotAvailable => return Err(error),
        Ok(Err(_)) | Err(_) => return Ok(FAILED),
    };
    let connect = began.elapsed();
    // A SYN sent again after 10 ms, as one that was challenged is, did not wait for anything; one
    // sent again after a second shows in the time.
    let sent_again = syscall::retransmissions(&stream)?;
    let left = PATIENCE.saturating_sub(connect);
    let Ok(Ok(stream)) = timeout(left, request(stream)).await else {
        return Ok(Exchange { connect: Some(connect), ..FAILED });
    };
    let undisturbed = syscall::retransmissions(&stream)? == sent_again;
    let at_once = connect < AT_ONCE && began.elapsed() < AT_ONCE && undisturbed;
    let outcome = if at_once { Outcome::AtOnce } else { Outcome::Eventually };
    Ok(Exchange { outcome, connect: Some(connect) })
}

/// A TCP socket bound to `from`; port 0 is any that is free.
pub(super) fn tcp_socket(from: SocketAddr) -> io::Result<TcpSocket> {
    let socket = match from {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.bind(from)?;
    Ok(socket)
}

/// Asks, and reads the answer to its end.
async fn request(mut stream: TcpStream) -> io::Result<TcpStream> {
    stream.write_all(&REQUEST).await?;
    let mut answer = Vec::with_capacity(ANSWER.len());
    stream.read_to_end(&mut answer).await?;
    if answer == ANSWER { Ok(stream) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

async fn udp(from: SocketAddr, to: SocketAddr) -> io::Result<Exchange> {
    let socket = UdpSocket::bind(from).await?;
    socket.connect(to).await?;
    let mut answer = [0; 256];
    let began = Instant::now();
    for retry in 0.. {
        let due = UDP_RETRY * (retry + 1);
        if due > PATIENCE {
            break;
        }
        // A port that is refused by ICMP is asked again like one that is silent.
        let _ = socket.send(&REQUEST).await;
        let left = due.saturating_sub(began.elapsed());
        if let Ok(Ok(_)) = timeout(left, socket.recv(&mut answer)).await {
            let at_once = retry == 0 && began.elapsed() < AT_ONCE;
            let outcome = if at_once { Outcome::AtOnce } else { Outcome::Eventually };
            return Ok(Exchange { outcome, connect: None });
        }
    }
    Ok(FAILED)
}
