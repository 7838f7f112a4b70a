//! Listening sockets. `/proc/net/tcp` and `/proc/net/tcp6` start with them (`tcp_get_idx`,
//! `net/ipv4/tcp_ipv4.c`), so the rest is never read.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read as _},
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use super::machine::{Host, Unread};

pub const LISTENERS: [&str; 2] = ["/proc/net/tcp", "/proc/net/tcp6"];
const DATAGRAMS: [&str; 2] = ["/proc/net/udp", "/proc/net/udp6"];
/// `TCP_LISTEN` and `TCP_CLOSE` of `include/net/tcp_states.h`; the latter is unconnected UDP.
const LISTEN: &str = "0A";
const UNCONNECTED: &str = "07";
/// The most lines and bytes that are read of a file; a line has some 150 bytes.
const MOST: usize = 4096;
const LONGEST: u64 = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    pub at: SocketAddr,
    /// Complete connections that wait to be accepted.
    pub waiting: u64,
}

impl Listener {
    pub fn read(host: &Host) -> Result<Vec<Self>, Unread> {
        Self::of(host, LISTENERS, LISTEN)
    }

    /// Unconnected UDP sockets.
    pub fn of_udp(host: &Host) -> Result<Vec<Self>, Unread> {
        Self::of(host, DATAGRAMS, UNCONNECTED)
    }

    fn of(host: &Host, paths: [&str; 2], state: &str) -> Result<Vec<Self>, Unread> {
        let mut found = Vec::new();
        for path in paths {
            let lines = |file: File| BufReader::new(file.take(LONGEST)).lines().skip(1).take(MOST);
            for line in host.file(path)?.into_iter().flat_map(lines) {
                let line = line.map_err(|error| Unread::new(path, &error))?;
                match Self::parse(&line, state) {
                    Some(listener) => found.push(listener),
                    None if state == LISTEN => break,
                    None => {}
                }
            }
        }
        Ok(found)
    }

    /// None for a socket in another state.
    fn parse(line: &str, state: &str) -> Option<Self> {
        let mut words = line.split_whitespace().skip(1);
        let (address, port) = words.next()?.split_once(':')?;
        if words.nth(1)? != state {
            return None;
        }
        let (_, waiting) = words.next()?.split_once(':')?;
        Some(Self {
            at: SocketAddr::new(parse_address(address)?, u16::from_str_radix(port, 16).ok()?),
            waiting: u64::from_str_radix(waiting, 16).ok()?,
        })
    }

    /// Whether only this machine can reach it.
    pub fn is_local(&self) -> bool {
        self.at.ip().to_canonical().is_loopback()
    }
}

/// An address as these files write it.
pub fn parse_address(text: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let word = u32::from_str_radix(text.get(at * 8..at * 8 + 8)?, 16).ok()?;
        Some(word.to_ne_bytes())
    };
    let words = (0..text.len() / 8).map(word).collect::<Option<Vec<_>>>()?;
    match words[..] {
        [word] => Some(Ipv4Addr::from(word).into()),
        [_, _, _, _] => Some(<[u8; 16]>::try_from(words.concat()).ok()?.into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    /// Fails when the kernel's own file is read wrongly: byte order, column, or where it ends.
    #[test]
    fn a_socket_that_listens_is_found_with_its_address() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(socket) = TcpListener::bind(address) else { continue };
            let at = socket.local_addr().unwrap();
            let found = Listener::read(&Host::at("/")).unwrap();
            let found = found.iter().find(|listener| listener.at == at).unwrap();
            assert!(found.is_local());
            assert_eq!(found.waiting, 0);
        }
    }

    #[test]
    fn a_socket_of_udp_is_found_until_it_has_one_peer() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let at = socket.local_addr().unwrap();
        let is_found = || {
            let found = Listener::of_udp(&Host::at("/")).unwrap();
            found.iter().any(|listener| listener.at == at)
        };
        assert!(is_found());
        socket.connect("127.0.0.1:9").unwrap();
        assert!(!is_found());
    }

    #[test]
    fn a_connection_is_no_listener() {
        let line = "  0: 0100007F:1F90 0100007F:A000 01 00000000:00000003 00:00000000 0";
        assert_eq!(Listener::parse(line, LISTEN), None);
        let listener = Listener::parse(&line.replace(" 01 ", " 0A "), LISTEN).unwrap();
        assert_eq!((listener.at.port(), listener.waiting), (8080, 3));
    }
}
