//! Sockets that wait for whoever comes. `/proc/net/tcp` and `/proc/net/tcp6` tell listening sockets
//! before all others (`tcp_get_idx`, `net/ipv4/tcp_ipv4.c`), so that the rest is never read.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use super::{Host, Unread, is_absent};

pub const LISTENERS: [&str; 2] = ["/proc/net/tcp", "/proc/net/tcp6"];
const DATAGRAMS: [&str; 2] = ["/proc/net/udp", "/proc/net/udp6"];
/// `TCP_LISTEN` and `TCP_CLOSE` of `include/net/tcp_states.h`; the latter is UDP of no one peer.
const LISTEN: &str = "0A";
const UNCONNECTED: &str = "07";
/// No more are read of a family.
const MOST: usize = 4096;

/// A socket that listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    pub at: SocketAddr,
    /// Connections that are complete and not yet accepted.
    pub waiting: u64,
}

impl Listener {
    /// Of TCP.
    pub fn read(host: &Host) -> Result<Vec<Self>, Unread> {
        let mut found = Vec::new();
        for path in LISTENERS {
            for line in lines(host, path)? {
                let line = line.map_err(|error| Unread::new(path, &error))?;
                let Some(listener) = Self::parse(&line, LISTEN) else { break };
                found.push(listener);
            }
        }
        Ok(found)
    }

    /// Of UDP, among its first sockets.
    pub fn of_udp(host: &Host) -> Result<Vec<Self>, Unread> {
        let mut found = Vec::new();
        for path in DATAGRAMS {
            for line in lines(host, path)? {
                let line = line.map_err(|error| Unread::new(path, &error))?;
                found.extend(Self::parse(&line, UNCONNECTED));
            }
        }
        Ok(found)
    }

    /// None of a socket in another state.
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

    /// Only this machine reaches it.
    pub fn is_local(&self) -> bool {
        match self.at.ip() {
            IpAddr::V4(address) => address.is_loopback(),
            IpAddr::V6(address) => address.to_canonical().is_loopback(),
        }
    }
}

/// As many as are looked at, without the heading.
fn lines(
    host: &Host,
    path: &str,
) -> Result<impl Iterator<Item = io::Result<String>> + use<>, Unread> {
    let file = match File::open(host.path(path)) {
        Ok(file) => Some(file),
        Err(error) if is_absent(&error) => None,
        Err(error) => return Err(Unread::new(path, &error)),
    };
    Ok(file.into_iter().flat_map(|file| BufReader::new(file).lines().skip(1).take(MOST)))
}

/// Words of 32 bits, each as this machine's memory holds it.
fn parse_address(text: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let word = u32::from_str_radix(text.get(at * 8..at * 8 + 8)?, 16).ok()?;
        Some(word.to_ne_bytes())
    };
    match text.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?];
            let bytes: [u8; 16] = words.concat().try_into().ok()?;
            Some(Ipv6Addr::from(bytes).into())
        }
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
