//! What ctguard costs where nobody floods: throughput, connections and their slowest, through a
//! router with a program that only passes, and with ctguard.

use std::{
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use serde::Serialize;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpSocket,
    runtime::Builder,
};

use super::peers::{self, Peer, Server, median};
use crate::{
    addresses::{Family, TCP_PORT},
    arrival::Receivers,
    cpus::Cpus,
    exec, netns,
    object::{self, Program},
    router::{ISP, Network, WAN},
    sysctl::{self, HostSysctl},
};

const IPERF_PORT: u16 = 5201;
/// Clients that connect one connection after the other.
const CLIENTS: u8 = 8;

/// A program in native mode on a veth costs throughput by itself, for the kernel copies each
/// packet for it. So ctguard is judged against one that does nothing.
const SUBJECTS: [Peer; 3] = [Peer::Nothing, Peer::PassOnly, Peer::Ctguard];

/// Bars: at least this part of what there was without, and at most this much of the slowest.
const AT_LEAST: f64 = 0.98;
const AT_MOST: f64 = 1.03;

#[derive(Clone, Copy, Debug, Serialize)]
struct Sample {
    gigabits_per_second: f64,
    connections_per_second: f64,
    p99_microseconds: f64,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Calm(Vec<(Peer, Sample)>);

/// Measures each in turn, `rounds` times, so long each time.
pub(super) fn run(ctguard: &Path, rounds: usize, seconds: u64) -> Result<Calm> {
    netns::remove_orphans();
    sysctl::restore_orphans();
    let _table = HostSysctl::set("net.netfilter.nf_conntrack_max", "524288")?;
    thread::scope(|scope| {
        let measured = scope.spawn(|| {
            let cpus = Cpus::share_out()?;
            cpus.enter_others()?;
            let mut samples = SUBJECTS.map(|_| Vec::new());
            for _ in 0..rounds {
                for (subject, samples) in SUBJECTS.into_iter().zip(&mut samples) {
                    samples.push(sample(subject, ctguard, seconds, cpus)?);
                }
            }
            let of =
                |samples: &[Sample], field: fn(&Sample) -> f64| median(samples.iter().map(field));
            let medians = samples.map(|samples| Sample {
                gigabits_per_second: of(&samples, |sample| sample.gigabits_per_second),
                connections_per_second: of(&samples, |sample| sample.connections_per_second),
                p99_microseconds: of(&samples, |sample| sample.p99_microseconds),
            });
            Ok(Calm(SUBJECTS.into_iter().zip(medians).collect()))
        });
        measured.join().map_err(|_| anyhow!("the bench's thread panicked"))?
    })
}

fn sample(subject: Peer, ctguard: &Path, seconds: u64, cpus: Cpus) -> Result<Sample> {
    let network = Network::build()?;
    let _receivers = Receivers::start(&network, WAN, cpus)?;
    let _nowhere = network.internet.run(|| object::attach(Program::Nowhere, ISP))?;
    let _server = Server::start(&network.inside)?;
    let server = Family::Ipv4.inside_server();
    exec::run_with_input(
        network.router.command("nft").args(["-f", "-"]),
        &format!(
            "table ip bench {{
                chain in {{
                    type nat hook prerouting priority -101
                    iifname {WAN} tcp dport {IPERF_PORT} dnat to {server}
                }}
            }}
            "
        ),
    )?;
    let _post = subject.start(&network.router, ctguard, &peers::log()?)?;
    let gigabits_per_second = throughput(&network, seconds)?;
    let (connections_per_second, p99_microseconds) = connections(&network, seconds)?;
    Ok(Sample { gigabits_per_second, connections_per_second, p99_microseconds })
}

/// An iperf3 that serves one client, ended with this.
struct Iperf(Child);

impl Drop for Iperf {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn throughput(network: &Network, seconds: u64) -> Result<f64> {
    let mut serve = network.inside.command("iperf3");
    serve.args(["--server", "--one-off", "--port", &IPERF_PORT.to_string()]);
    let _server = Iperf(
        serve.stdin(Stdio::null()).stdout(Stdio::null()).spawn().context("cannot run iperf3")?,
    );
    thread::sleep(Duration::from_millis(300));
    let address = Family::Ipv4.published_server().to_string();
    let shown = exec::run(network.internet.command("iperf3").args([
        "--client",
        &address,
        "--port",
        &IPERF_PORT.to_string(),
        "--time",
        &seconds.to_string(),
        "--json",
    ]))?;
    let told: serde_json::Value = serde_json::from_str(&shown).context("cannot read iperf3")?;
    let bits =
        told.pointer("/end/sum_received/bits_per_second").and_then(serde_json::Value::as_f64);
    Ok(bits.context("iperf3 tells no throughput")? / 1e9)
}

/// Connections a second, and of their durations the 99th percentile in microseconds.
fn connections(network: &Network, seconds: u64) -> Result<(f64, f64)> {
    let server = SocketAddr::new(Family::Ipv4.published_server(), TCP_PORT);
    let clients = network.internet.spawn("bench-clients", move || {
        Builder::new_current_thread().enable_all().build()?.block_on(async {
            let began = Instant::now();
            let end = began + Duration::from_secs(seconds);
            let clients: Vec<_> =
                (0..CLIENTS).map(|_| tokio::spawn(connect_until(server, end))).collect();
            let mut times = Vec::new();
            for client in clients {
                times.extend(client.await.context("a client panicked")??);
            }
            times.sort();
            let number = u32::try_from(times.len())?;
            let slowest = times.get(times.len() * 99 / 100).context("nobody connected")?;
            let per_second = f64::from(number) / began.elapsed().as_secs_f64();
            Ok((per_second, slowest.as_secs_f64() * 1e6))
        })
    })?;
    clients.join().map_err(|_| anyhow!("the clients panicked"))?
}

/// How long each connection took, from the first packet to the server's end.
async fn connect_until(server: SocketAddr, end: Instant) -> Result<Vec<Duration>> {
    const ISP_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 254));
    let mut times = Vec::new();
    while Instant::now() < end {
        let began = Instant::now();
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(ISP_ADDRESS, 0))?;
        let mut stream = socket.connect(server).await.context("a connection failed in calm")?;
        stream.write_all(b"?").await?;
        let _end = stream.read(&mut [0; 1]).await?;
        times.push(began.elapsed());
    }
    Ok(times)
}

impl Calm {
    fn of(&self, subject: Peer) -> Option<Sample> {
        self.0.iter().find(|(one, _)| *one == subject).map(|(_, sample)| *sample)
    }

    /// What ctguard leaves of throughput and connections, and what it makes of the slowest.
    fn ratios(&self) -> Option<[f64; 3]> {
        let (on, off) = (self.of(Peer::Ctguard)?, self.of(Peer::PassOnly)?);
        Some([
            on.gigabits_per_second / off.gigabits_per_second,
            on.connections_per_second / off.connections_per_second,
            on.p99_microseconds / off.p99_microseconds,
        ])
    }

    /// Whether every bar holds.
    pub(super) fn holds(&self) -> bool {
        self.ratios().is_none_or(|[throughput, connections, slowest]| {
            throughput >= AT_LEAST && connections >= AT_LEAST && slowest <= AT_MOST
        })
    }

    /// A Markdown table.
    pub(super) fn table(&self) -> String {
        let mut text = String::from(
            "| on the outer interface | iperf3, Gbit/s | connections/s | p99 of a connection, µs |\n\
             | --- | --- | --- | --- |\n",
        );
        for (subject, sample) in &self.0 {
            let Sample { gigabits_per_second, connections_per_second, p99_microseconds } = sample;
            let _ = writeln!(
                text,
                "| {} | {gigabits_per_second:.2} | {connections_per_second:.0} | {p99_microseconds:.0} |",
                subject.name()
            );
        }
        if let Some([throughput, connections, slowest]) = self.ratios() {
            let missed = if self.holds() { "" } else { ": **missed**" };
            let _ = writeln!(
                text,
                "\n- ctguard beside a program that only passes: {throughput:.3} × throughput and \
                 {connections:.3} × connections, bar ≥ {AT_LEAST}; {slowest:.3} × p99, bar ≤ {AT_MOST}{missed}"
            );
        }
        text
    }
}
