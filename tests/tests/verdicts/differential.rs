//! The same random packets, judged by the object in the kernel and by the library on the host.

use std::fmt::Write as _;

use anyhow::{Context as _, Result, ensure};
use ctguard_layout::{
    CLASS_SLOTS, Counter, Environment, Interface, List, Policy, STATIONS,
    units::{Jiffies, Ticks},
};
use ctguard_tests::{
    data_path::{DataPath, Setup},
    require,
};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::{
    host::Host,
    packets::{ipv4_bytes, ipv6_bytes},
    random::Random,
    row,
};

const PACKETS: u32 = 2000;
const LINES: u32 = 1024;

/// Fails when the compiled program and the library's source disagree about a packet: its fate, any
/// counter, an admission, or the offered load that is written down.
///
/// `CTGUARD_SEED` repeats a run whose seed was printed.
#[test]
fn the_kernel_and_the_library_judge_random_packets_alike() -> Result<()> {
    if !require::root("the_kernel_and_the_library_judge_random_packets_alike") {
        return Ok(());
    }
    stay_on_one_cpu()?;
    let seed = ctguard_tests::random::seed()?;
    println!("CTGUARD_SEED={seed}: {PACKETS} packets in each of {} settings", SETTINGS.len());
    for (name, setting) in SETTINGS {
        compare(setting, Random::new(seed)).with_context(|| format!("{name}, seed {seed}"))?;
    }
    Ok(())
}

type Setting = fn(&mut Policy, &mut Environment, &mut Interface, &mut Pair);

/// What the daemon writes, on both sides.
#[derive(Clone, Copy)]
struct Pair {
    limits: [u64; 2],
    daemon_lives: bool,
}

const SETTINGS: [(&str, Setting); 12] = [
    ("as it comes", |_, _, _, _| ()),
    ("a small grant", |_, _, _, pair| pair.limits = [100, 30]),
    ("tcp_loose off", |_, environment, _, _| environment.daemon.tcp_loose = 0),
    ("no ports of SCTP and GRE", |_, environment, _, _| {
        environment.daemon.set_without_ports(&[132, 47]);
    }),
    ("a dry run", |policy, _, _, _| policy.switches = Policy::DRY_RUN),
    ("no daemon", |_, _, _, pair| pair.daemon_lives = false),
    ("another station", |_, environment, interface, _| {
        environment.daemon.stations_in_use = 1;
        interface.stations = [0x0202_0202_0202; STATIONS];
    }),
    ("no lists", |_, environment, _, _| no_lists(environment)),
    ("no lists, a spent grant", |_, environment, _, pair| {
        no_lists(environment);
        pair.limits = [10, 30];
    }),
    ("lists of allowed sources, a spent grant", |_, environment, _, pair| {
        no_lists(environment);
        environment.operator.lists_in_use = List::AllowV4.bit() | List::FeedAllowV4.bit();
        pair.limits = [10, 30];
    }),
    ("no lists, another station", |_, environment, interface, _| {
        no_lists(environment);
        environment.daemon.stations_in_use = 1;
        interface.stations = [0x0202_0202_0202; STATIONS];
    }),
    ("no lists, tcp_loose off", |_, environment, _, _| {
        no_lists(environment);
        environment.daemon.tcp_loose = 0;
    }),
];

/// Many packets go the short way then, which the host does not take. The functions that ask conntrack
/// are not there, so what the filter may hold gets no answer.
fn no_lists(environment: &mut Environment) {
    environment.operator.lists_in_use = 0;
    environment.daemon.lookup_options_bytes = 16;
    environment.daemon.known_complete = 1;
}

fn compare(setting: Setting, mut random: Random) -> Result<()> {
    let (mut path, host) = both(setting)?;
    for number in 0..PACKETS {
        if random.below(5) == 0 {
            let frame = random.leaving();
            path.leave(&frame)?;
            host.leave(&frame)?;
            continue;
        }
        let frame = random.arriving();
        let (there, here) = (path.judge(&frame)?, host.judge(&frame)?);
        let differences = differences(&path.counters()?, &host.counters());
        ensure!(
            there == here && differences.is_empty(),
            "packet {number}: kernel {there:?}, host {here:?}; {differences}\n{}",
            hexadecimal(&frame)
        );
    }
    for (tier, admitted) in path.grant().admitted.iter().enumerate() {
        ensure!(admitted.0.load() == host.grant.admitted[tier].0.load(), "admissions of {tier}");
    }
    for (line, noted) in host.offered() {
        let there = path.offered(line)?;
        ensure!(there == noted, "line {line}: kernel {there:?}, host {noted:?}");
    }
    tell(&mut path)
}

/// Both data paths, set up alike.
fn both(setting: Setting) -> Result<(DataPath, Host)> {
    let setup = Setup { source_lines: LINES, flow_lines: LINES, ..Setup::default() };
    let mut path = DataPath::load(setup)?;
    let mut pair = Pair { limits: [1_000_000; 2], daemon_lives: true };
    let mut policy = None;
    let mut environment = None;
    let mut interface = None;
    path.set_policy(|default| policy = Some(*default))?;
    path.set_environment(|default| environment = Some(*default))?;
    path.set_interface(|default| interface = Some(*default))?;
    let mut policy = policy.context("a policy")?;
    let mut environment = environment.context("an environment")?;
    let mut interface = interface.context("an interface")?;
    environment.operator.lists_in_use = 0xff;
    // No time passes that a verdict could depend on.
    environment.daemon.coarse_shift = 31;
    interface.ceilings = [row::slow(row::BURST); CLASS_SLOTS];
    // What is answered is compared by the tests of challenges.
    interface.answers_nothing = 1;
    setting(&mut policy, &mut environment, &mut interface, &mut pair);
    path.set_policy(|written| *written = policy)?;
    path.set_environment(|written| *written = environment)?;
    path.set_interface(|written| *written = interface)?;

    let mut host = Host::new(policy, &environment, interface);
    host.now = Jiffies(path.jiffies()?);
    list_on_both(&mut path, &mut host)?;
    for grant in [path.grant(), &host.grant] {
        let heartbeat = if pair.daemon_lives { host.now.0 + 1_000_000 } else { 0 };
        grant.heartbeat.store(heartbeat);
        for (tier, limit) in pair.limits.iter().enumerate() {
            grant.allowances[tier].limit.store(*limit);
            grant.allowances[tier].wake_at.store(limit / 2);
            grant.fallback[tier].interval.store(1_000_000_000 * Ticks::PER_JIFFY);
            grant.fallback[tier].tolerance.store(40_000_000_000 * Ticks::PER_JIFFY);
        }
    }
    Ok((path, host))
}

/// Prefixes of every kind over the sources that [`Random`] draws: lasting, and ended.
fn list_on_both(path: &mut DataPath, host: &mut Host) -> Result<()> {
    let ended = host.now.0 - 10;
    for (list, address, bits, end) in [
        (List::AllowV4, "192.0.2.2", 32, 0),
        (List::AllowV4, "192.0.2.4", 31, u64::MAX),
        (List::DenyV4, "192.0.2.6", 32, ended),
        (List::DenyV4, "192.0.2.7", 32, 0),
        (List::FeedDenyV4, "192.0.2.2", 31, 0),
        (List::FeedAllowV4, "192.0.2.7", 32, 0),
        (List::FeedAllowV4, "192.0.2.3", 32, 0),
    ] {
        let bytes = ipv4_bytes(address);
        path.list_ipv4(list, bytes, bits, end)?;
        host.lists.push((list, u32::from_be_bytes(bytes).into(), bits, end));
    }
    for (list, address, bits, end) in [
        (List::AllowV6, "2001:db8:0:2::", 64, 0),
        (List::DenyV6, "2001:db8:0:6::", 63, 0),
        (List::DenyV6, "2001:db8:0:5::", 64, ended),
        (List::FeedDenyV6, "2001:db8:0:2::", 63, 0),
        (List::FeedAllowV6, "2001:db8:0:5::", 64, u64::MAX),
    ] {
        let bytes = ipv6_bytes(address);
        path.list_ipv6(list, bytes, bits, end)?;
        host.lists.push((list, u128::from_be_bytes(bytes), bits, end));
    }
    Ok(())
}

/// Counters that differ. Wake-ups by refusals are left out: one a jiffy, by each side's own clock.
fn differences(kernel: &[u64], host: &[u64]) -> String {
    let mut text = String::new();
    for counter in Counter::all().filter(|counter| *counter != Counter::Wakeups) {
        let index = counter.index() as usize;
        if kernel[index] != host[index] {
            // Writing to a string cannot fail.
            let _ = write!(text, "{counter:?}: kernel {}, host {} ", kernel[index], host[index]);
        }
    }
    text
}

/// Which counters the packets reached: too few would make the comparison worthless.
fn tell(path: &mut DataPath) -> Result<()> {
    let counters = path.counters()?;
    let reached = Counter::all().filter(|counter| counters[counter.index() as usize] > 0);
    let reached = reached.count();
    println!("{reached} of {} counters reached", Counter::all().count());
    ensure!(reached >= 8, "random packets that reach {reached} counters compare nothing");
    Ok(())
}

/// Which new flow is sampled depends on what its CPU has seen.
fn stay_on_one_cpu() -> Result<()> {
    let allowed = sched_getaffinity(None)?;
    let first = (0..CpuSet::MAX_CPU).find(|cpu| allowed.is_set(*cpu)).context("no CPU")?;
    let mut only = CpuSet::new();
    only.set(first);
    Ok(sched_setaffinity(None, &only)?)
}

fn hexadecimal(frame: &[u8]) -> String {
    frame.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
