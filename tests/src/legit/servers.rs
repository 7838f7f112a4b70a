//! The servers of one side: TCP and UDP request and answer, TCP echo.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use rustix::net::sockopt;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream, UdpSocket},
};

use super::Side;
use crate::addresses::{Family, TCP_ECHO_PORT, TCP_PORT, UDP_PORT};

/// Bytes of a request.
pub(super) const REQUEST: [u8; 64] = [b'?'; 64];
/// Bytes of an answer.
pub(super) const ANSWER: [u8; 200] = [b'!'; 200];
const BACKLOG: u32 = 4096;
/// Room for the requests of a second in which the server gets no CPU: what is lost here, the router
/// did not lose.
const RECEIVE_BYTES: usize = 8 << 20;

/// Binds the servers of a side and serves until the runtime ends.
pub(super) async fn serve(side: Side, family: Family) -> Result<()> {
    let address = match side {
        Side::Far => family.far_server(),
        Side::Inside => family.inside_server(),
    };
    let answering = listen(SocketAddr::new(address, TCP_PORT))?;
    let echoing = listen(SocketAddr::new(address, TCP_ECHO_PORT))?;
    let datagrams = UdpSocket::bind(SocketAddr::new(address, UDP_PORT))
        .await
        .context("cannot bind the UDP server")?;
    sockopt::set_socket_recv_buffer_size_force(&datagrams, RECEIVE_BYTES)
        .context("cannot give the UDP server room")?;
    tokio::spawn(accept(answering, answer));
    tokio::spawn(accept(echoing, echo));
    tokio::spawn(answer_datagrams(datagrams));
    Ok(())
}

fn listen(address: SocketAddr) -> Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    };
    let socket = socket.context("cannot make a socket")?;
    socket.set_reuseaddr(true)?;
    socket.bind(address).with_context(|| format!("cannot bind {address}"))?;
    socket.listen(BACKLOG).with_context(|| format!("cannot listen on {address}"))
}

async fn accept<F: Future<Output = std::io::Result<()>> + Send + 'static>(
    listener: TcpListener,
    serve: impl Fn(TcpStream) -> F,
) {
    loop {
        // A connection that died in the queue is its client's to report.
        if let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    }
}

async fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let mut request = REQUEST;
    stream.read_exact(&mut request).await?;
    stream.write_all(&ANSWER).await?;
    stream.shutdown().await?;
    // The client leaves first, or says why not.
    let _end = stream.read(&mut request).await?;
    Ok(())
}

async fn echo(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut bytes = [0; 256];
    loop {
        match stream.read(&mut bytes).await? {
            0 => return Ok(()),
            length => stream.write_all(&bytes[..length]).await?,
        }
    }
}

async fn answer_datagrams(socket: UdpSocket) {
    let mut bytes = [0; 256];
    loop {
        if let Ok((_, client)) = socket.recv_from(&mut bytes).await {
            let _ = socket.send_to(&ANSWER, client).await;
        }
    }
}
