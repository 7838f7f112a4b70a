//! The hash resized, and back, while connections through a NAT router talk.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use ctguard_tests::{addresses::Family, product, require, router::Network, sysctl, table};

const BUCKETS: &str = "net.netfilter.nf_conntrack_buckets";
pub(super) const MAX: &str = "net.netfilter.nf_conntrack_max";
pub(super) const RECORD: &str = "/var/lib/ctguard/tune.json";
const PORT: u16 = 8080;
const CONNECTIONS: usize = 40;
const ROUNDS: usize = 5;
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) fn tune(arguments: &[&str]) -> Result<String> {
    let output = Command::new(product::binary()?).arg("tune").args(arguments).output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "tune {arguments:?}: {said}");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What a test applies is not to be mixed with what somebody has applied.
pub(super) fn refuse_tuned() -> Result<()> {
    ensure!(!Path::new(RECORD).exists(), "this machine was tuned: {RECORD}");
    Ok(())
}

/// Takes back what a test that failed left applied.
pub(super) struct Applied;

impl Drop for Applied {
    fn drop(&mut self) {
        if Path::new(RECORD).exists() {
            let _ = tune(&["--revert"]);
        }
    }
}

fn echo(stream: TcpStream) {
    let mut stream = stream;
    let mut byte = [0];
    while stream.read_exact(&mut byte).and_then(|()| stream.write_all(&byte)).is_ok() {}
}

/// Asks and answers until told to stop; how often.
fn talk(mut stream: TcpStream, stop: &AtomicBool) -> Result<u64> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let mut rounds = 0;
    while !stop.load(Ordering::Relaxed) {
        stream.write_all(b"?")?;
        stream.read_exact(&mut [0]).context("a connection is dead")?;
        rounds += 1;
    }
    Ok(rounds)
}

/// Fails when a flow is lost while the kernel moves entries from one hash to another, or when a
/// value is not put back.
#[test]
fn no_live_flow_is_lost_while_the_hash_is_resized() -> Result<()> {
    const TEST: &str = "no_live_flow_is_lost_while_the_hash_is_resized";
    if !require::root(TEST) || !require::release_binary(TEST) {
        return Ok(());
    }
    refuse_tuned()?;
    let before = [BUCKETS, MAX].map(sysctl::read);
    let [Ok(buckets), Ok(max)] = before else { anyhow::bail!("conntrack is not loaded") };
    let wanted = (max.trim().parse::<u64>()? * 2).to_string();

    let network = Network::build()?;
    let server = SocketAddr::new(Family::Ipv4.far_server(), PORT);
    let listener = network.far.run(|| Ok(TcpListener::bind(server)?))?;
    thread::spawn(move || {
        for stream in listener.incoming().take(CONNECTIONS).flatten() {
            thread::spawn(move || echo(stream));
        }
    });
    let connect = |number: usize| -> Result<TcpStream> {
        let host: IpAddr = Family::Ipv4.inside_client(u8::try_from(number)?);
        network.inside.run(|| {
            let socket = tokio::net::TcpSocket::new_v4()?;
            socket.bind((host, 0).into())?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let stream = runtime.block_on(socket.connect(server))?.into_std()?;
            stream.set_nonblocking(false)?;
            Ok(stream)
        })
    };
    let streams: Vec<_> = (0..CONNECTIONS).map(connect).collect::<Result<_>>()?;

    let stop = AtomicBool::new(false);
    let (resized, talked) = thread::scope(|scope| {
        let talkers: Vec<_> =
            streams.into_iter().map(|stream| scope.spawn(|| talk(stream, &stop))).collect();
        let resized = resize(&wanted, &buckets, &max);
        stop.store(true, Ordering::Relaxed);
        let talked: Result<Vec<u64>> = talkers
            .into_iter()
            .map(|talker| talker.join().ok().context("a thread panicked")?)
            .collect();
        (resized, talked)
    });
    resized?;
    let talked = talked?;
    let entries = table::count(&network.router)?;
    println!(
        "{ROUNDS} times resized and back, {CONNECTIONS} connections answered {} times",
        talked.iter().sum::<u64>()
    );
    ensure!(talked.iter().all(|rounds| *rounds > 0), "some connection never talked");
    ensure!(entries >= CONNECTIONS as u64, "{entries} entries");
    Ok(())
}

fn resize(wanted: &str, buckets: &str, max: &str) -> Result<()> {
    let _applied = Applied;
    for _ in 0..ROUNDS {
        tune(&["--max", wanted, "--apply"])?;
        ensure!(sysctl::read(MAX)?.trim() == wanted, "the maximum was not set");
        thread::sleep(Duration::from_millis(200));
        tune(&["--revert"])?;
        ensure!(sysctl::read(BUCKETS)? == buckets, "the hash was not put back");
        ensure!(sysctl::read(MAX)? == max, "the maximum was not put back");
        thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}
