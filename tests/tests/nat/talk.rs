//! Sockets in namespaces that ask and answer, one step at a time.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
};

use anyhow::{Context as _, Result, ensure};
use ctguard_tests::{netns::Handle, product::PATIENCE};
use rustix::net::{
    AddressFamily, SocketType, bind, connect, ipproto, socket,
    sockopt::{Timeout, set_socket_timeout},
};

/// A UDP socket of `namespace`.
pub(crate) fn udp(namespace: &Handle, address: SocketAddr) -> Result<UdpSocket> {
    namespace.run(|| {
        let socket = UdpSocket::bind(address).with_context(|| format!("cannot bind {address}"))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(socket)
    })
}

/// Sends a question to where the server is reached, and tells whom the answer is to go to.
pub(crate) fn ask(client: &UdpSocket, server: &UdpSocket, to: SocketAddr) -> Result<SocketAddr> {
    client.send_to(b"question", to)?;
    let (_, from) = server.recv_from(&mut [0; 64]).context("no question came")?;
    Ok(from)
}

/// Sends an answer, which must arrive.
pub(crate) fn answer(server: &UdpSocket, client: &UdpSocket, to: SocketAddr) -> Result<()> {
    server.send_to(b"answer", to)?;
    client.recv(&mut [0; 64]).context("no answer came")?;
    Ok(())
}

/// A question and its answer, some times over.
pub(crate) fn converse(
    client: &UdpSocket,
    server: &UdpSocket,
    to: SocketAddr,
    times: u32,
) -> Result<()> {
    for _ in 0..times {
        let from = ask(client, server, to)?;
        answer(server, client, from)?;
    }
    Ok(())
}

/// A listening socket of `namespace`.
pub(crate) fn listen(namespace: &Handle, address: SocketAddr) -> Result<TcpListener> {
    namespace
        .run(|| TcpListener::bind(address).with_context(|| format!("cannot listen at {address}")))
}

/// Both ends of a connection from `source` to where the listener is reached.
pub(crate) fn open(
    namespace: &Handle,
    source: IpAddr,
    to: SocketAddr,
    listener: &TcpListener,
) -> Result<[TcpStream; 2]> {
    let client = namespace.run(|| {
        let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let socket = socket(family, SocketType::STREAM, None)?;
        bind(&socket, &SocketAddr::new(source, 0))?;
        set_socket_timeout(&socket, Timeout::Send, Some(PATIENCE))?;
        connect(&socket, &to).with_context(|| format!("cannot connect to {to}"))?;
        Ok(TcpStream::from(socket))
    })?;
    let (server, _) = listener.accept()?;
    for end in [&client, &server] {
        end.set_read_timeout(Some(PATIENCE))?;
        end.set_nodelay(true)?;
    }
    Ok([client, server])
}

/// Sends a few bytes, which must arrive.
pub(crate) fn tell(mut from: &TcpStream, mut to: &TcpStream) -> Result<()> {
    from.write_all(b"hello")?;
    to.read_exact(&mut [0; 5]).context("no bytes came")?;
    Ok(())
}

/// Sends an echo request, whose answer must arrive.
pub(crate) fn ping(namespace: &Handle, to: IpAddr) -> Result<()> {
    const REQUEST: [u8; 2] = [8, 128];
    const REPLY: [u8; 2] = [0, 129];
    namespace.run(|| {
        let socket = match to {
            IpAddr::V4(_) => socket(AddressFamily::INET, SocketType::DGRAM, Some(ipproto::ICMP)),
            IpAddr::V6(_) => socket(AddressFamily::INET6, SocketType::DGRAM, Some(ipproto::ICMPV6)),
        }?;
        let (family, socket) = (usize::from(to.is_ipv6()), UdpSocket::from(socket));
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.connect(SocketAddr::new(to, 0))?;
        socket.send(&[REQUEST[family], 0, 0, 0, 0, 0, 0, 1])?;
        let mut answer = [0; 64];
        socket.recv(&mut answer).with_context(|| format!("no echo from {to}"))?;
        ensure!(answer[0] == REPLY[family], "message type {}", answer[0]);
        Ok(())
    })
}
