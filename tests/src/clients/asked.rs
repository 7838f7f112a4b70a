//! When a client asked and asked again, until something came back: from what tcpdump sees.

use std::{net::Ipv4Addr, sync::mpsc::Receiver, time::Instant};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use super::{
    contact::{SETUP, lines, next},
    root::{Inmate, Root},
};
use crate::netns::Handle;

/// All datagrams, and of TCP what opens a connection.
const SEEN: &str = "exec tcpdump -Z root -i eth0 -n -q -tt -l --immediate-mode \
                    'udp or tcp[tcpflags] & tcp-syn != 0'";
/// Packets that are no further apart are one question: A and AAAA, or a flight of QUIC.
const TOGETHER: f64 = 0.015;

/// When a client asked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Asked {
    /// Seconds since it first did.
    after: Vec<f64>,
    /// Again from the port from which it first did.
    same_port: bool,
}

/// A tcpdump beside a client.
#[derive(Debug)]
pub(super) struct Watch {
    _tcpdump: Inmate,
    lines: Receiver<(Instant, String)>,
}

impl Watch {
    /// Starts; it sees what comes from now on.
    pub(super) fn start(root: &Root, namespace: &Handle) -> Result<Self> {
        let (reader, writer) = std::io::pipe().context("cannot make a pipe")?;
        let errors = writer.try_clone().context("cannot copy a pipe")?;
        let tcpdump = root.start(namespace, SEEN, &[], [writer.into(), errors.into()])?;
        let lines = lines(reader);
        let ready = Instant::now() + SETUP;
        loop {
            match next(&lines, ready) {
                Ok((_, line)) if line.starts_with("listening on") => break,
                Ok(_) => {}
                Err(_) => bail!("tcpdump does not start"),
            }
        }
        Ok(Self { _tcpdump: tcpdump, lines })
    }

    /// What it saw of this client so far.
    pub(super) fn asked(&self, client: Ipv4Addr, server: Ipv4Addr) -> Asked {
        let seen: Vec<_> = self.lines.try_iter().map(|(_, line)| line).collect();
        asked(seen.iter().filter_map(|line| Packet::of(line)), client, server)
    }
}

/// A line of tcpdump.
struct Packet {
    at: f64,
    from: (Ipv4Addr, u16),
    to: Ipv4Addr,
}

impl Packet {
    /// `1795891625.064676 IP 198.19.210.1.40552 > 198.51.100.1.53: UDP, length 40`
    fn of(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let at = words.next()?.parse().ok()?;
        let mut end = || {
            let word = words.find(|word| word.contains('.'))?;
            let (address, port) = word.trim_end_matches(':').rsplit_once('.')?;
            Some((address.parse().ok()?, port.parse().ok()?))
        };
        let (from, (to, _)) = (end()?, end()?);
        Some(Self { at, from, to })
    }
}

/// A server may still be talking to clients that are gone.
fn asked(packets: impl Iterator<Item = Packet>, client: Ipv4Addr, server: Ipv4Addr) -> Asked {
    let mut asked = Asked::default();
    let mut first = None::<Packet>;
    let answers = |packet: &Packet| packet.from.0 == server && packet.to == client;
    for packet in packets.take_while(|packet| !answers(packet)) {
        if packet.from.0 != client || packet.to != server {
            continue;
        }
        let Some(first) = &first else {
            asked.after.push(0.0);
            first = Some(packet);
            continue;
        };
        let after = packet.at - first.at;
        if asked.after.last().is_some_and(|last| after - last > TOGETHER) {
            asked.after.push(after);
            asked.same_port |= packet.from.1 == first.from.1;
        }
    }
    asked
}

impl std::fmt::Display for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let again = self.after.iter().skip(1);
        let again: Vec<_> = again.map(|after| super::results::short(*after)).collect();
        match (again.is_empty(), self.same_port) {
            (true, _) => f.write_str("–"),
            (false, true) => write!(f, "{} s, same port", again.join(", ")),
            (false, false) => write!(f, "{} s, new port", again.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 19, 210, 1);
    const SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);

    fn told(lines: &[&str]) -> String {
        asked(lines.iter().filter_map(|line| Packet::of(line)), CLIENT, SERVER).to_string()
    }

    #[test]
    fn questions_at_once_are_one_and_end_with_the_first_answer() {
        let lines = [
            "7.000 IP 198.19.210.1.40552 > 198.51.100.1.53: UDP, length 40",
            "7.001 IP 198.19.210.1.40552 > 198.51.100.1.53: UDP, length 40",
            "12.005 IP 198.19.210.1.40552 > 198.51.100.1.53: UDP, length 40",
            "12.025 IP 198.51.100.1.53 > 198.19.210.1.40552: UDP, length 56",
            "13.000 IP 198.19.210.1.40552 > 198.51.100.1.53: UDP, length 40",
        ];
        assert_eq!(told(&lines), "5.0 s, same port");
        assert_eq!(told(&lines[..2]), "–");
    }

    #[test]
    fn a_question_from_another_port_is_told_from_one_from_the_same() {
        let lines = [
            "7.000 IP 198.19.210.1.40552 > 198.51.100.1.53: UDP, length 40",
            "7.380 IP 198.19.210.1.40553 > 198.51.100.1.53: UDP, length 40",
            "7.500 IP 198.51.100.1.4433 > 198.19.210.9.40553: UDP, length 40",
            "8.000 ARP, Request who-has 198.18.0.1 tell 198.19.210.1, length 28",
            "8.130 IP 198.19.210.1.1024 > 198.51.100.1.53: UDP, length 40",
        ];
        assert_eq!(told(&lines), "0.38, 1.1 s, new port");
    }
}
