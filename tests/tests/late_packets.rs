//! What a packet does whose entry was deleted, as `docs/reclaim.md` has it: real sockets through a
//! router, with and without NAT, with `nf_conntrack_tcp_loose` on and off. No guard runs.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread::{self, sleep},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use ctguard_kernel::conntrack::{Deleter, dump, dump_deletable};
use ctguard_tests::{
    exec,
    netns::{Handle, Namespace},
    require,
};

/// A TCP sender repeats what is lost after 200 ms, 600 ms and 1.4 s.
const PATIENCE: Duration = Duration::from_millis(1500);
/// A SYN-ACK is repeated after a second.
const UNTIL_REPEATED: Duration = Duration::from_millis(1300);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Nat {
    None,
    Masquerade,
    MasqueradeOtherPort,
    Forward,
    ForwardOtherPort,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Late {
    /// The side that opened the connection speaks, or the other one.
    OpenerOfEstablished,
    OtherOfEstablished,
    /// The client's ACK of a SYN-ACK comes, or the SYN-ACK again before it.
    OpenerOfHalfOpen,
    OtherOfHalfOpen,
    /// The FIN comes again of the side that closed last, which never had the last ACK.
    OtherOfTimeWait,
    UdpOpener,
    UdpOther,
}

/// What became of it: whether the bytes arrived, or the socket ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Became {
    Fine,
    Lost,
}

const LATE: [Late; 7] = [
    Late::OpenerOfEstablished,
    Late::OtherOfEstablished,
    Late::OpenerOfHalfOpen,
    Late::OtherOfHalfOpen,
    Late::OtherOfTimeWait,
    Late::UdpOpener,
    Late::UdpOther,
];

/// Whether a flow survives that its entry is deleted; `None` if that depends on the port that the
/// kernel chooses next.
fn expected(nat: Nat, loose: bool, late: Late) -> Option<Became> {
    let survives = match late {
        // Without an entry there is no NAT: what the other side sends ends at the router itself.
        Late::OtherOfEstablished | Late::OtherOfHalfOpen | Late::UdpOther => nat == Nat::None,
        Late::OpenerOfEstablished | Late::OpenerOfHalfOpen => match nat {
            Nat::None => true,
            Nat::Masquerade | Nat::Forward | Nat::ForwardOtherPort => loose,
            Nat::MasqueradeOtherPort if loose => return None,
            Nat::MasqueradeOtherPort => false,
        },
        // The router resets it, or the client's ACK comes.
        Late::OtherOfTimeWait | Late::UdpOpener => true,
    };
    Some(if survives { Became::Fine } else { Became::Lost })
}

#[test]
fn a_late_packet_does_what_the_docs_say() -> Result<()> {
    if !require::root("a_late_packet_does_what_the_docs_say") {
        return Ok(());
    }
    let all =
        [Nat::None, Nat::Masquerade, Nat::MasqueradeOtherPort, Nat::Forward, Nat::ForwardOtherPort];
    thread::scope(|scope| {
        let threads = all.map(|nat| scope.spawn(move || check(nat)));
        threads.into_iter().try_for_each(|thread| thread.join().expect("a thread that panicked"))
    })
}

fn check(nat: Nat) -> Result<()> {
    let site = Site::build(nat)?;
    for loose in [true, false] {
        let value = if loose { "1" } else { "0" };
        site.router.sysctl(&[("net.netfilter.nf_conntrack_tcp_loose", value)])?;
        for (late, port) in LATE.into_iter().zip(2000..) {
            let port = port + if loose { 0 } else { 100 };
            let became = site.late(late, port).with_context(|| format!("{nat:?} {late:?}"))?;
            let what = format!("{nat:?}, loose {loose}, {late:?}: {became:?}");
            println!("{what}; then {:?}", site.entries()?);
            ensure!(expected(nat, loose, late).is_none_or(|it| became == it), "{what}");
        }
    }
    Ok(())
}

struct Site {
    client: Namespace,
    router: Namespace,
    server: Namespace,
    nat: Nat,
}

impl Site {
    fn build(nat: Nat) -> Result<Self> {
        let [client, router, server] = ["client", "router", "server"]
            .map(|role| Namespace::create(&format!("late-{}-{role}", nat as u32)));
        let (client, router, server) = (client?, router?, server?);
        for (host, device, network) in [(&client, "c0", 1), (&server, "s0", 2)] {
            let peer = router.name();
            host.ip(&[format!("link add eth0 type veth peer name {device} netns {peer}")])?;
            router.ip(&[
                format!("address add 10.0.{network}.1/24 dev {device}"),
                format!("link set {device} up"),
            ])?;
            host.ip(&[
                format!("address add 10.0.{network}.2/24 dev eth0"),
                "link set eth0 up".to_owned(),
                format!("route add default via 10.0.{network}.1"),
            ])?;
        }
        router.sysctl(&[("net.ipv4.ip_forward", "1")])?;
        let rule = match nat {
            Nat::None => "",
            Nat::Masquerade => "oifname s0 masquerade",
            Nat::MasqueradeOtherPort => {
                "oifname s0 meta l4proto { tcp, udp } masquerade to :20000-60000"
            }
            Nat::Forward => "iifname c0 dnat to 10.0.2.2",
            Nat::ForwardOtherPort => "iifname c0 meta l4proto { tcp, udp } dnat to 10.0.2.2:80",
        };
        let hook = match nat {
            Nat::Forward | Nat::ForwardOtherPort => "prerouting priority dstnat",
            Nat::None | Nat::Masquerade | Nat::MasqueradeOtherPort => "postrouting priority srcnat",
        };
        nft(
            &router,
            &format!(
                "table ip late {{
                    chain nat {{
                        type nat hook {hook}
                        {rule}
                    }}
                    chain forward {{
                        type filter hook forward priority filter
                        ct state new accept
                    }}
                }}"
            ),
        )?;
        Ok(Self { client, router, server, nat })
    }

    /// Where the client reaches the server, and where that listens.
    fn ends(&self, port: u16) -> [SocketAddr; 2] {
        let reached = match self.nat {
            Nat::Forward | Nat::ForwardOtherPort => [10, 0, 1, 1],
            Nat::None | Nat::Masquerade | Nat::MasqueradeOtherPort => [10, 0, 2, 2],
        };
        let own = if self.nat == Nat::ForwardOtherPort { 80 } else { port };
        [(reached, port).into(), ([10, 0, 2, 2], own).into()]
    }

    /// Makes a flow, deletes its entry, lets the packet come, and says what became of the flow.
    fn late(&self, late: Late, port: u16) -> Result<Became> {
        self.delete()?;
        match late {
            Late::UdpOpener | Late::UdpOther => self.late_udp(late, port),
            Late::OtherOfTimeWait => self.late_fin(port),
            Late::OpenerOfEstablished
            | Late::OtherOfEstablished
            | Late::OpenerOfHalfOpen
            | Late::OtherOfHalfOpen => self.late_tcp(late, port),
        }
    }

    fn late_tcp(&self, late: Late, port: u16) -> Result<Became> {
        let is_half_open = matches!(late, Late::OpenerOfHalfOpen | Late::OtherOfHalfOpen);
        let [to, own] = self.ends(port);
        let listener = self.server.run(|| Ok(TcpListener::bind(own)?))?;
        if is_half_open {
            hold(&self.client, "output")?;
        }
        let mut client = self.client.run(|| Ok(TcpStream::connect_timeout(&to, PATIENCE)?))?;
        client.set_read_timeout(Some(PATIENCE))?;
        let accepted = if is_half_open { None } else { Some(listener.accept()?.0) };
        ensure!(self.delete()? == 1, "not one entry");
        if late == Late::OtherOfHalfOpen {
            sleep(UNTIL_REPEATED);
        }
        if is_half_open {
            nft(&self.client, "delete table ip hold")?;
        }
        if late == Late::OtherOfEstablished {
            let mut server = accepted.context("not established")?;
            return Ok(became(&server.write_all(b"x").and_then(|()| client.read_exact(&mut [0]))));
        }
        let sent = client.write_all(b"x");
        let mut server = match accepted {
            Some(server) => server,
            None => match accept(&listener)? {
                Some(server) => server,
                None => return Ok(Became::Lost),
            },
        };
        server.set_read_timeout(Some(PATIENCE))?;
        Ok(became(&sent.and_then(|()| server.read_exact(&mut [0]))))
    }

    fn late_fin(&self, port: u16) -> Result<Became> {
        let [to, own] = self.ends(port);
        let listener = self.server.run(|| Ok(TcpListener::bind(own)?))?;
        let client = self.client.run(|| Ok(TcpStream::connect_timeout(&to, PATIENCE)?))?;
        let (mut server, _) = listener.accept()?;
        drop(client);
        server.read_to_end(&mut Vec::new())?;
        // The last ACK passes the router and is lost behind it.
        hold(&self.server, "input")?;
        drop(server);
        sleep(Duration::from_millis(100));
        ensure!(self.delete()? == 1, "not one entry");
        nft(&self.server, "delete table ip hold")?;
        sleep(PATIENCE);
        let sockets = exec::run(self.server.command("cat").arg("/proc/net/tcp"))?;
        // State 9 is LAST_ACK.
        let waits = sockets.lines().any(|line| line.split_whitespace().nth(3) == Some("09"));
        Ok(if waits { Became::Lost } else { Became::Fine })
    }

    fn late_udp(&self, late: Late, port: u16) -> Result<Became> {
        let [to, own] = self.ends(port);
        let bind = |namespace: &Handle, address: SocketAddr| {
            namespace.run(|| {
                let socket = UdpSocket::bind(address)?;
                socket.set_read_timeout(Some(PATIENCE))?;
                Ok(socket)
            })
        };
        let server = bind(&self.server, own)?;
        let client = bind(&self.client, ([10, 0, 1, 2], port).into())?;
        client.connect(to)?;
        client.send(b"x")?;
        let (_, from) = server.recv_from(&mut [0])?;
        server.send_to(b"x", from)?;
        client.recv(&mut [0])?;
        ensure!(self.delete()? == 1, "not one entry");
        let arrived = if late == Late::UdpOther {
            server.send_to(b"x", from).and_then(|_| client.recv(&mut [0]))
        } else {
            // The answer goes to where the question comes from now.
            client.send(b"x").and_then(|_| {
                let (_, from) = server.recv_from(&mut [0])?;
                server.send_to(b"x", from)?;
                client.recv(&mut [0])
            })
        };
        Ok(became(&arrived.map(|_| ())))
    }

    /// Empties the router's table as a guard does; returns how many entries there were.
    fn delete(&self) -> Result<u64> {
        self.router.run(|| {
            let mut deletions = Vec::new();
            dump_deletable(|_, deletion| deletions.extend(deletion()))?;
            Ok(Deleter::open()?.delete(deletions)?.deleted)
        })
    }

    /// State and time left of each entry.
    fn entries(&self) -> Result<Vec<String>> {
        self.router.run(|| {
            let mut entries = Vec::new();
            dump(|entry| {
                let left = entry.timeout_seconds.unwrap_or_default();
                let is_replied = entry.status & 2 != 0;
                entries.push(format!("{:?} {left} s replied {is_replied}", entry.tcp_state));
            })?;
            Ok(entries)
        })
    }
}

/// The next connection, if it comes in time.
fn accept(listener: &TcpListener) -> Result<Option<TcpStream>> {
    listener.set_nonblocking(true)?;
    for _ in 0..PATIENCE.as_millis() / 10 {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                return Ok(Some(stream));
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        sleep(Duration::from_millis(10));
    }
    Ok(None)
}

fn became(arrived: &std::io::Result<()>) -> Became {
    if arrived.is_ok() { Became::Fine } else { Became::Lost }
}

/// Drops bare ACKs.
fn hold(namespace: &Handle, hook: &str) -> Result<()> {
    let rule = "tcp flags & (syn | ack | fin | rst) == ack drop";
    nft(
        namespace,
        &format!(
            "table ip hold {{
                chain hold {{
                    type filter hook {hook} priority 0
                    {rule}
                }}
            }}"
        ),
    )
}

fn nft(namespace: &Handle, rules: &str) -> Result<()> {
    exec::run_with_input(namespace.command("nft").args(["-f", "-"]), rules)?;
    Ok(())
}
