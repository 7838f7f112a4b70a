//! Exchanges opened before the flood, which ping until the end: none may break.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{Side, clients::tcp_socket};
use crate::addresses::{Family, TCP_ECHO_PORT, UDP_PORT};

/// TCP exchanges that each side opens.
pub(super) const TCP_EXCHANGES: u32 = 20;
/// UDP exchanges that each side opens.
pub(super) const UDP_EXCHANGES: u32 = 10;

/// Below the ports of new flows.
const FIRST_INSIDE_PORT: u16 = 11_000;
const PING_EVERY: Duration = Duration::from_millis(200);
/// An exchange is broken when a ping (for UDP, a row of pings) is not answered for so long: TCP has
/// sent it again five times then, so those few seconds do not count in which a router without a
/// guard lost most packets.
pub(super) const BROKEN_AFTER: Duration = Duration::from_secs(8);
const UDP_PING_PATIENCE: Duration = Duration::from_millis(500);
const PING: [u8; 16] = *b"still there? ...";

/// What became of exchanges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exchanges {
    /// Exchanges opened.
    pub opened: u32,
    /// TCP connections that were reset or fell silent.
    pub tcp_broken: u32,
    /// UDP exchanges that fell silent.
    pub udp_broken: u32,
    /// UDP pings without an answer; some lost ones break nothing.
    pub udp_pings_lost: u32,
}

impl Exchanges {
    pub(super) fn add(&mut self, other: Self) {
        self.opened += other.opened;
        self.tcp_broken += other.tcp_broken;
        self.udp_broken += other.udp_broken;
        self.udp_pings_lost += other.udp_pings_lost;
    }
}

/// Exchanges under way.
pub(super) struct Open {
    pub(super) stop: Arc<AtomicBool>,
    pub(super) exchanges: JoinSet<Exchanges>,
}

/// Opens this side's exchanges, each answered once before this returns.
pub(super) async fn open(side: Side, family: Family) -> Result<Open> {
    let stop = Arc::new(AtomicBool::new(false));
    let mut exchanges = JoinSet::new();
    for number in 0..TCP_EXCHANGES + UDP_EXCHANGES {
        let (from, to) = path(side, family, number);
        let stop = Arc::clone(&stop);
        if number < TCP_EXCHANGES {
            let stream = connect(from, SocketAddr::new(to, TCP_ECHO_PORT)).await;
            let stream = stream.context("an established TCP connection does not open")?;
            exchanges.spawn(keep_tcp(stream, stop, PING_EVERY));
        } else {
            let socket = converse(from, SocketAddr::new(to, UDP_PORT)).await;
            let socket = socket.context("an established UDP exchange does not open")?;
            exchanges.spawn(keep_udp(socket, stop));
        }
    }
    Ok(Open { stop, exchanges })
}

impl Open {
    /// Ends all exchanges and tells how many had broken.
    pub(super) async fn close(mut self) -> Exchanges {
        self.stop.store(true, Ordering::Relaxed);
        let mut sum = Exchanges::default();
        while let Some(ended) = self.exchanges.join_next().await {
            sum.add(ended.unwrap_or_default());
        }
        sum
    }
}

fn path(side: Side, family: Family, number: u32) -> (SocketAddr, IpAddr) {
    let index = u8::try_from(number).unwrap_or_default();
    match side {
        // An even number: only those are known before the flood.
        Side::Far => {
            (SocketAddr::new(family.far_client(2 * u16::from(index)), 0), family.published_server())
        }
        Side::Inside => {
            // A port of its own, see `inside_port` of the clients.
            let port = FIRST_INSIDE_PORT + u16::from(index);
            (SocketAddr::new(family.inside_client(index), port), family.far_server())
        }
    }
}

/// Opens a TCP connection that has been answered once.
pub(super) async fn connect(from: SocketAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let mut stream = timeout(BROKEN_AFTER, tcp_socket(from)?.connect(to)).await??;
    stream.set_nodelay(true)?;
    timeout(BROKEN_AFTER, ping(&mut stream)).await??;
    Ok(stream)
}

async fn ping(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(&PING).await?;
    stream.read_exact(&mut [0; PING.len()]).await?;
    Ok(())
}

/// Asks a silent connection for an answer.
pub(super) async fn close_if_alive(mut stream: TcpStream) -> Exchanges {
    let alive = matches!(timeout(BROKEN_AFTER, ping(&mut stream)).await, Ok(Ok(())));
    Exchanges { opened: 1, tcp_broken: u32::from(!alive), ..Exchanges::default() }
}

/// Pings until it is stopped.
pub(super) async fn keep_tcp(
    mut stream: TcpStream,
    stop: Arc<AtomicBool>,
    every: Duration,
) -> Exchanges {
    while !stop.load(Ordering::Relaxed) {
        if !matches!(timeout(BROKEN_AFTER, ping(&mut stream)).await, Ok(Ok(()))) {
            return Exchanges { opened: 1, tcp_broken: 1, ..Exchanges::default() };
        }
        sleep(every).await;
    }
    Exchanges { opened: 1, ..Exchanges::default() }
}

async fn converse(from: SocketAddr, to: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(from).await?;
    socket.connect(to).await?;
    socket.send(&PING).await?;
    timeout(BROKEN_AFTER, socket.recv(&mut [0; 256])).await??;
    Ok(socket)
}

async fn keep_udp(socket: UdpSocket, stop: Arc<AtomicBool>) -> Exchanges {
    let mut result = Exchanges { opened: 1, ..Exchanges::default() };
    let mut silent = Duration::ZERO;
    while !stop.load(Ordering::Relaxed) {
        let _ = socket.send(&PING).await;
        if matches!(timeout(UDP_PING_PATIENCE, socket.recv(&mut [0; 256])).await, Ok(Ok(_))) {
            silent = Duration::ZERO;
        } else {
            silent += UDP_PING_PATIENCE + PING_EVERY;
            result.udp_pings_lost += 1;
        }
        if silent >= BROKEN_AFTER {
            result.udp_broken = 1;
            return result;
        }
        sleep(PING_EVERY).await;
    }
    result
}
