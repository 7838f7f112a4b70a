//! A start over a guard of another map layout, as after an upgrade or a downgrade: no packet passes
//! unjudged meanwhile, and a crash leaves one whole guard.
//!
//! The other release is this one whose pins are disguised, or the binary that `CTGUARD_OTHER_RELEASE`
//! names. `CTGUARD_UPGRADES` is how often they replace each other. With `CTGUARD_EACH_STEP` a start is
//! killed before each of its steps, otherwise before one of each kind.

use std::{
    collections::BTreeSet,
    env, fs,
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket},
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use aya::{
    maps::{Array, Map, MapData},
    programs::links::LinkInfo,
};
use ctguard_layout::{Policy, maps};
use ctguard_tests::{
    daemon::Daemon,
    exec, frames,
    product::{OUTSIDE, Site, WAN, wait_for},
    require,
    traced::{Step, kill_before},
};
use rustix::net::{self, AddressFamily, SocketType};

const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const DENIED: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 5);
const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 6);
const PORT: u16 = 9;
const FLOODED: u16 = 10;
const ECHO: u16 = 7;

const RUN: [&str; 5] = ["run", "-i", WAN, "--on-exit", "keep"];

/// Fails when a packet of a denied source gets through while releases replace each other in a flood, when
/// a connection breaks, or when anything of the former guard stays.
#[test]
fn guards_of_two_layouts_replace_each_other_and_no_packet_passes_unjudged() -> Result<()> {
    const TEST: &str = "guards_of_two_layouts_replace_each_other_and_no_packet_passes_unjudged";
    if !require::root(TEST) {
        return Ok(());
    }
    let upgrades =
        env::var("CTGUARD_UPGRADES").ok().map_or(Ok(4), |number| number.parse::<u32>())?;
    let other = env::var("CTGUARD_OTHER_RELEASE").ok();
    let site = Site::build()?;
    let traffic = Traffic::new(&site)?;
    leave_a_guard(&site)?;
    let links = site.links(WAN)?.map(|link| link.id());

    let running = traffic.begin(&site)?;
    let mut longest = Duration::ZERO;
    for round in 0..upgrades {
        let before = site.links(WAN)?.map(|link| link.program_id());
        let began = Instant::now();
        let daemon = match &other {
            Some(other) if round.is_multiple_of(2) => start_other(&site, other)?,
            Some(_) => site.start(&RUN)?,
            None => {
                disguise(site.pins(), [1, 999][round as usize % 2])?;
                site.start(&RUN)?
            }
        };
        longest = longest.max(began.elapsed());
        let log = daemon.log()?;
        ensure!(log.contains("replaced a guard of map layout"), "round {round}: {log}");
        let after = site.links(WAN)?;
        ensure!(after.each_ref().map(LinkInfo::id) == links, "round {round}: the same links");
        let programs = after.map(|link| link.program_id());
        ensure!(
            programs[0] != before[0] && programs[1] != before[1],
            "round {round}: new programs"
        );
        ensure_one_guard(site.pins())?;
        ensure!(daemon.stop()?.success());
        running.ensure_nothing_passed().with_context(|| format!("round {round}"))?;
    }
    let (denied, exchanges) = running.end()?;
    println!(
        "{upgrades} replacements: {denied} packets of a denied source sent and none let through, \
         {exchanges} exchanges of a connection, a start took {longest:?} at most"
    );
    let _daemon = site.start(&RUN)?;
    ensure!(site.succeed(&["deny", "list"])?.contains(&DENIED.to_string()), "the list is there");
    ensure!(upgrades == 0 || site.succeed(&["events"])?.contains("replaced a guard"), "it is told");
    Ok(())
}

/// Fails when a start that is killed while it replaces a guard leaves an interface open, or the next start
/// does not finish.
#[test]
fn a_start_that_is_killed_while_it_replaces_a_guard_leaves_a_whole_one() -> Result<()> {
    const TEST: &str = "a_start_that_is_killed_while_it_replaces_a_guard_leaves_a_whole_one";
    if !require::root(TEST) {
        return Ok(());
    }
    let site = Site::build()?;
    let traffic = Traffic::new(&site)?;
    leave_a_guard(&site)?;

    let all = steps(&site)?;
    let is_each = env::var_os("CTGUARD_EACH_STEP").is_some();
    let mut killed = 0;
    for (number, step) in all.iter().enumerate() {
        // Of many maps, one is enough.
        let is_like_last = number > 0
            && all[number - 1].name == step.name
            && (step.name == "pin" || step.name == "unlink");
        if is_like_last && !is_each {
            continue;
        }
        disguise(site.pins(), 1)?;
        let links = site.links(WAN)?.map(|link| link.id());
        let mut passed = 0;
        let at = kill_before(traced(&site), |it| {
            let is_ours = is_of_pins(&site, it);
            passed += usize::from(is_ours);
            is_ours && passed == number + 1
        })?;
        let context = || format!("killed before step {number}, {at:?}");
        traffic.ensure_denied().with_context(context)?;
        ensure!(site.xdp(WAN)?.is_some(), "{}: no program", context());
        let daemon = site.start(&RUN).with_context(context)?;
        ensure_one_guard(site.pins()).with_context(context)?;
        let now = site.links(WAN)?.map(|link| link.id());
        ensure!(now == links, "{}: the same links", context());
        ensure!(site.number("/counters/udp/refused/deny").is_ok(), "{}", context());
        traffic.ensure_denied().with_context(context)?;
        ensure!(daemon.stop()?.success());
        killed += 1;
    }
    println!("killed before {killed} of {} steps", all.len());

    // `detach` finds a guard whose directory a crash left under another name.
    disguise(site.pins(), 1)?;
    let into_place = |step: &Step| step.name == "rename" && step.path.ends_with("_next");
    kill_before(traced(&site), into_place)?;
    ensure!(!site.pins().exists(), "it is between two renames");
    site.succeed(&["detach"])?;
    ensure_one_guard(site.pins())?;
    site.ensure_gone()
}

/// Fails when a start that cannot finish changes a guard of another layout.
#[test]
fn a_start_that_fails_leaves_a_guard_of_another_layout_as_it_was() -> Result<()> {
    if !require::root("a_start_that_fails_leaves_a_guard_of_another_layout_as_it_was") {
        return Ok(());
    }
    let site = Site::build()?;
    site.start(&RUN)?.kill()?;
    disguise(site.pins(), 1)?;
    let pins = || -> Result<BTreeSet<_>> {
        fs::read_dir(site.pins())?.map(|it| Ok(it?.file_name())).collect()
    };
    let ids = || -> Result<_> { Ok(site.links(WAN)?.map(|link| (link.id(), link.program_id()))) };
    let before = (pins()?, ids()?);
    let record = site.run_file("timeouts.json");
    fs::create_dir(&record)?;
    let answer = site.ctguard(&RUN);
    fs::remove_dir(&record)?;
    ensure!(answer?.errors.contains("timeouts.json"), "it fails for the record");
    ensure!((pins()?, ids()?) == before, "it is as it was");
    ensure_nothing_beside(site.pins())?;
    ensure!(site.ctguard(&["status"])?.refusal(6)?.contains("map layout 1,"));
    site.succeed(&["detach"])?;
    site.ensure_gone()
}

/// Fails when what only a feed denies gets in after an upgrade, because the feed cannot be read yet.
#[test]
fn what_a_feed_said_stays_in_force_over_an_upgrade() -> Result<()> {
    if !require::root("what_a_feed_said_stays_in_force_over_an_upgrade") {
        return Ok(());
    }
    let site = Site::build()?;
    let traffic = Traffic::new(&site)?;
    let directory = tempfile::tempdir()?;
    let [list, config] = ["list.txt", "ctguard.toml"].map(|name| directory.path().join(name));
    fs::write(&list, format!("{DENIED}\n2001:db8::/48\n"))?;
    let feed = format!("[feeds.list]\nkind = \"file\"\npath = \"{}\"\n", list.display());
    fs::write(&config, format!("interfaces = [\"{WAN}\"]\n{feed}"))?;
    let config = config.display().to_string();
    let run = ["run", "--config", &config, "--on-exit", "keep"];
    let daemon = site.start(&run)?;
    let denied = || -> Result<_> {
        Ok(site.ctguard(&["deny", "list", &DENIED.to_string()])?.code == Some(0))
    };
    wait_for("the feed to be read", || Ok(denied()?.then_some(())))?;
    ensure!(daemon.stop()?.success());

    fs::remove_file(&list)?;
    disguise(site.pins(), 1)?;
    let daemon = site.start(&run)?;
    ensure!(daemon.log()?.contains("replaced a guard of map layout 1"), "{}", daemon.log()?);
    traffic.ensure_denied()?;
    wait_for("the feed to be tried", || {
        let feeds = site.ctguard(&["feeds"])?.out;
        Ok(feeds.contains("No such file").then_some(()))
    })?;
    traffic.ensure_denied()?;
    let listed = site.succeed(&["deny", "list"])?;
    ensure!(listed.contains("2001:db8::/48 (feed list)"), "{listed}");
    ensure_one_guard(site.pins())?;
    ensure!(daemon.stop()?.success());

    // Also if nobody remembers whose entries they are.
    fs::write(site.run_file("feeds.json"), "of another release")?;
    fs::write(&config, format!("interfaces = [\"{WAN}\"]\n"))?;
    disguise(site.pins(), 1)?;
    let daemon = site.start(&run)?;
    wait_for("the feed's entries to go", || Ok((!denied()?).then_some(())))?;
    ensure!(daemon.stop()?.success());
    site.succeed(&["detach"])?;
    site.ensure_gone()
}

/// Fails when a clsact filter is attached anew instead of replaced, or left behind later.
#[test]
fn a_filter_of_another_layout_is_replaced_in_place() -> Result<()> {
    if !require::root("a_filter_of_another_layout_is_replaced_in_place") {
        return Ok(());
    }
    let site = Site::build()?;
    let run = ["run", "-i", WAN, "--egress-filter"];
    site.start(&run)?.kill()?;
    let filters =
        || exec::run(site.guarded().command("tc").args(["filter", "show", "dev", WAN, "egress"]));
    let before = filters()?;
    disguise(site.pins(), 1)?;
    let daemon = site.start(&run)?;
    let after = filters()?;
    ensure!(after.matches("handle").count() == 1 && after != before, "{before} {after}");
    ensure_one_guard(site.pins())?;
    ensure!(daemon.stop()?.success());
    site.ensure_gone()
}

/// What a start that replaces a guard does to pins and links, in this order.
fn steps(site: &Site) -> Result<Vec<Step>> {
    disguise(site.pins(), 1)?;
    let mut steps = Vec::new();
    kill_before(traced(site), |step| {
        if is_of_pins(site, step) {
            steps.push(step.clone());
        }
        step.name == "rmdir" && step.path.ends_with("_former")
    })?;
    site.start(&RUN)?.stop()?;
    Ok(steps)
}

fn is_of_pins(site: &Site, step: &Step) -> bool {
    step.path.is_empty() || step.path.starts_with(&*site.pins().to_string_lossy())
}

fn traced(site: &Site) -> Command {
    let mut command = site.command(&[&RUN[..], &["--mode", "native", "--state"]].concat());
    command.arg(site.state()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn start_other(site: &Site, binary: &str) -> Result<Daemon> {
    let mut command = site.guarded().command(binary);
    command.args(RUN);
    site.start_by(command)
}

/// Makes the pins those of another release: another layout, names that this one lacks, and maps of other
/// sizes under names that it has.
fn disguise(pins: &Path, layout: u32) -> Result<()> {
    let map = Map::Array(MapData::from_pin(pins.join(maps::POLICY))?);
    let mut array: Array<_, [u8; size_of::<Policy>()]> = map.try_into()?;
    let mut policy = array.get(&0, 0)?;
    policy[..4].copy_from_slice(&layout.to_ne_bytes());
    array.set(0, policy, 0)?;
    fs::rename(pins.join(maps::COUNTERS), pins.join("of_another"))?;
    swap(pins, maps::ENVIRONMENT, maps::DENY_V4)?;
    swap(pins, maps::FEED_ALLOW_V4, maps::FEED_ALLOW_V6)
}

fn swap(pins: &Path, one: &str, other: &str) -> Result<()> {
    fs::rename(pins.join(one), pins.join("aside"))?;
    fs::rename(pins.join(other), pins.join(one))?;
    Ok(fs::rename(pins.join("aside"), pins.join(other))?)
}

/// Whether nothing is beside the guard, and it has no pins of another release.
fn ensure_one_guard(pins: &Path) -> Result<()> {
    ensure!(!pins.join("of_another").exists(), "a map of the former guard is left");
    ensure_nothing_beside(pins)
}

fn ensure_nothing_beside(pins: &Path) -> Result<()> {
    for suffix in ["_next", "_former"] {
        let beside = format!("{}{suffix}", pins.display());
        ensure!(!Path::new(&beside).exists(), "{beside} is left");
    }
    Ok(())
}

/// A guard without a daemon, which denies a source and whose list is kept.
fn leave_a_guard(site: &Site) -> Result<()> {
    let daemon = site.start(&RUN)?;
    site.succeed(&["deny", "add", &DENIED.to_string()])?;
    wait_for("the list to be kept", || Ok(is_kept(site).then_some(())))?;
    ensure!(daemon.stop()?.success());
    Ok(())
}

fn is_kept(site: &Site) -> bool {
    let entries = fs::read_dir(site.state()).into_iter().flatten().flatten();
    let lists = entries.filter(|it| it.file_name().to_string_lossy().starts_with("lists-"));
    lists
        .map(|it| fs::read_to_string(it.path()).unwrap_or_default())
        .any(|text| text.contains(&DENIED.to_string()))
}

/// A denied sender, and who would hear it behind the guard.
struct Traffic {
    denied: UdpSocket,
    behind: UdpSocket,
    listener: TcpListener,
}

/// Ends the senders, also after a failure.
struct Over(Arc<AtomicBool>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Running {
    over: Over,
    behind: UdpSocket,
    denied: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Result<()>>>,
    exchanges: Arc<AtomicU64>,
}

impl Traffic {
    fn new(site: &Site) -> Result<Self> {
        site.guarded().ip(&[format!("addr add {ROUTER}/24 dev {WAN}")])?;
        for address in [DENIED, CLIENT] {
            site.outside().ip(&[format!("addr add {address}/24 dev {OUTSIDE}")])?;
        }
        // Makes the namespace track connections.
        let rules = "table ip t {
            chain c {
                type filter hook input priority 0;
                ct state new accept;
            }
        }
";
        exec::run_with_input(site.guarded().command("nft").args(["-f", "-"]), rules)?;
        let (behind, listener) = site
            .guarded()
            .run(|| Ok((UdpSocket::bind((ROUTER, PORT))?, TcpListener::bind((ROUTER, ECHO))?)))?;
        behind.set_nonblocking(true)?;
        let bind = |port| site.outside().run(move || Ok(UdpSocket::bind((DENIED, port))?));
        // Without a guard they arrive.
        bind(5000)?.send_to(b"open", (ROUTER, PORT))?;
        wait_for("a packet behind the guard", || Ok(behind.recv(&mut [0; 8]).ok()))?;
        Ok(Self { denied: bind(5001)?, behind, listener })
    }

    fn ensure_denied(&self) -> Result<()> {
        for _ in 0..20 {
            self.denied.send_to(b"closed", (ROUTER, PORT))?;
        }
        thread::sleep(Duration::from_millis(20));
        ensure!(self.behind.recv(&mut [0; 8]).is_err(), "a packet of a denied source got through");
        Ok(())
    }

    /// Sends packets of the denied source, a flood, and data on a connection until the end.
    fn begin(self, site: &Site) -> Result<Running> {
        let Self { denied, behind, listener } = self;
        let is_over = Arc::new(AtomicBool::new(false));
        let [sent, exchanges] = [0; 2].map(|_| Arc::new(AtomicU64::new(0)));
        let mut client = site.outside().run(connect)?;
        let (mut server, _) = listener.accept()?;
        for stream in [&client, &server] {
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            stream.set_nodelay(true)?;
        }
        let wire = site.wire()?;
        let deny = repeat(&is_over, &sent, move |number| {
            denied.send_to(b"closed", (ROUTER, PORT))?;
            if number.is_multiple_of(4) {
                thread::sleep(Duration::from_micros(50));
            }
            Ok(())
        });
        let flood = repeat(&is_over, &Arc::default(), move |number| {
            let [.., second, third, last] = number.to_be_bytes();
            let source = IpAddr::V4(Ipv4Addr::new(96, second, third, last));
            wire.send(&frames::udp((source, 1024), (ROUTER.into(), FLOODED))?)?;
            if number.is_multiple_of(16) {
                thread::sleep(Duration::from_micros(200));
            }
            Ok(())
        });
        let talk = repeat(&is_over, &exchanges, move |_| {
            client.write_all(b"question")?;
            let mut heard = [0; 8];
            server.read_exact(&mut heard).context("the connection broke")?;
            server.write_all(&heard)?;
            client.read_exact(&mut heard).context("the connection broke")?;
            thread::sleep(Duration::from_millis(1));
            Ok(())
        });
        Ok(Running {
            over: Over(is_over),
            behind,
            denied: sent,
            threads: vec![deny, flood, talk],
            exchanges,
        })
    }
}

impl Running {
    fn ensure_nothing_passed(&self) -> Result<()> {
        ensure!(self.behind.recv(&mut [0; 8]).is_err(), "a packet of a denied source got through");
        ensure!(self.threads.iter().all(|thread| !thread.is_finished()), "traffic ended early");
        Ok(())
    }

    /// How many packets the denied source sent, and how many exchanges the connection had.
    fn end(self) -> Result<(u64, u64)> {
        let passed = self.ensure_nothing_passed();
        drop(self.over);
        for thread in self.threads {
            thread.join().map_err(|_| anyhow!("a sender panicked"))??;
        }
        passed?;
        Ok((self.denied.load(Ordering::Relaxed), self.exchanges.load(Ordering::Relaxed)))
    }
}

/// A connection from the client's address.
fn connect() -> Result<TcpStream> {
    let socket = net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
    net::bind(&socket, &SocketAddrV4::new(CLIENT, 0))?;
    net::connect(&socket, &SocketAddrV4::new(ROUTER, ECHO))?;
    Ok(TcpStream::from(socket))
}

/// Does `job` on a thread until it is over, and counts.
fn repeat(
    is_over: &Arc<AtomicBool>,
    done: &Arc<AtomicU64>,
    mut job: impl FnMut(u64) -> Result<()> + Send + 'static,
) -> JoinHandle<Result<()>> {
    let (is_over, done) = (Arc::clone(is_over), Arc::clone(done));
    thread::spawn(move || {
        while !is_over.load(Ordering::Relaxed) {
            job(done.fetch_add(1, Ordering::Relaxed))?;
        }
        Ok(())
    })
}
