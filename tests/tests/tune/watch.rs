//! Whether a change helped, said after a watch: on a machine of files, and of a real table.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use ctguard_tests::{
    addresses::{FLOOD_PORT, Family},
    cpus::Cpus,
    flood::Flood,
    frames,
    product::{self, Site, wait_for},
    recipe::{FloodKind, Rate},
    require,
    router::Network,
    sysctl::{self, HostSysctl},
    table,
};
use rustix::process::{Pid, Signal, kill_process};

use super::{
    live::{Applied, MAX, RECORD, refuse_tuned, tune},
    machine::Machine,
};

const STATISTICS: &str = "proc/net/stat/nf_conntrack";
const COUNT: &str = "proc/sys/net/netfilter/nf_conntrack_count";
const DENIED: &str = "/counters/udp/refused/deny";
const REFUSED: &str = "/counters/udp/refused/source";
/// Nobody is there, and nobody says so.
const NOBODY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(100, 64, 0, 1)), 9);

/// `ctguard tune --watch`, which has begun to watch.
struct Watching {
    child: Child,
    /// None where nobody reads any more.
    output: Option<BufReader<ChildStdout>>,
}

impl Watching {
    fn start(mut command: Command) -> Result<Self> {
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let output = BufReader::new(child.stdout.take().context("it has an output")?);
        let mut watching = Self { child, output: Some(output) };
        let mut line = String::new();
        while !line.starts_with("watching for") {
            line.clear();
            let output = watching.output.as_mut().context("it has an output")?;
            ensure!(output.read_line(&mut line)? > 0, "it ended before it watched");
        }
        Ok(watching)
    }

    /// Ends it as Ctrl-C does: its status, and what it said.
    fn interrupt(self) -> Result<(Option<i32>, String)> {
        kill_process(Pid::from_child(&self.child), Signal::INT)?;
        self.end()
    }

    /// The same, with nobody at the other end of its output.
    fn interrupt_unread(mut self) -> Result<()> {
        self.output = None;
        kill_process(Pid::from_child(&self.child), Signal::INT)?;
        self.child.wait()?;
        Ok(())
    }

    /// Its status, and what it said, when it ends by itself.
    fn end(mut self) -> Result<(Option<i32>, String)> {
        let mut said = String::new();
        if let Some(output) = &mut self.output {
            output.read_to_string(&mut said)?;
        }
        Ok((self.child.wait()?.code(), said))
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        // One that has been waited for is gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn dropped(number: u32) -> String {
    format!("entries drop early_drop insert_failed\n00000200 {number:08x} 00000000 00000000\n")
}

/// Fails when losses that nobody can compare with those of before have a change taken back, or when
/// a later change is judged by what was seen of an earlier one.
#[test]
fn each_change_is_judged_by_what_was_seen_since() -> Result<()> {
    if !require::release_binary("each_change_is_judged_by_what_was_seen_since") {
        return Ok(());
    }
    let machine = Machine::new("watch-changes")?;
    machine.write(STATISTICS, &dropped(10))?;
    let before = machine.files()?;
    let first = ["--max", "20000", "--apply", "--persist", "--watch", "1h", "--revert"];
    let watching = Watching::start(machine.command(&first)?)?;
    ensure!(machine.files()? != before, "nothing was applied");
    machine.write(STATISTICS, &dropped(4010))?;
    let (status, said) = watching.interrupt()?;
    ensure!(said.contains("4000 new flows dropped because the table was full"), "{said}");
    ensure!(said.contains("it was not enough") && status == Some(0), "{status:?}: {said}");

    let second = ["--max", "40000", "--apply", "--watch", "1s", "--revert", "--json"];
    let said = String::from_utf8(machine.tune(&second)?.stdout)?;
    ensure!(said.contains("\"verdict\": \"undecided\""), "{said}");
    ensure!(said.contains("\"dropped\": 0"), "{said}");
    let reverted = machine.tune(&["--revert"])?;
    ensure!(reverted.status.success(), "{reverted:?}");
    machine.write(STATISTICS, &dropped(10))?;
    ensure!(machine.files()? == before, "something is left");
    ensure!(!machine.0.join("var/lib/ctguard").exists(), "the journal is left");
    Ok(())
}

/// Fails when somebody else's settings are judged for tune's.
#[test]
fn a_change_that_somebody_undoes_is_judged_no_more() -> Result<()> {
    if !require::release_binary("a_change_that_somebody_undoes_is_judged_no_more") {
        return Ok(());
    }
    let machine = Machine::new("watch-undone")?;
    let watching = Watching::start(machine.command(&["--apply", "--watch", "1h", "--revert"])?)?;
    let busy = machine.tune(&["--watch", "1s"])?;
    let said = String::from_utf8_lossy(&busy.stderr);
    ensure!(said.contains("another `ctguard tune --watch` is running"), "{said}");
    machine.write("proc/sys/net/netfilter/nf_conntrack_max", "9999\n")?;
    // It looks by itself, with the next line of its journal.
    let (status, said) = watching.end()?;
    ensure!(said.contains("the change is no longer in force: "), "{said}");
    ensure!(said.contains("nf_conntrack_max is 9999") && status == Some(1), "{status:?}: {said}");
    Ok(())
}

/// Fails when a watch takes back what helped, or forgets what an earlier one saw.
#[test]
fn a_change_that_helped_stays_and_a_second_watch_remembers_the_first() -> Result<()> {
    if !require::release_binary("a_change_that_helped_stays") {
        return Ok(());
    }
    let machine = Machine::new("watch-useful")?;
    machine.write(STATISTICS, &dropped(0))?;
    let watching = Watching::start(machine.command(&["--apply", "--watch", "1h", "--revert"])?)?;
    machine.write(COUNT, "50000\n")?;
    let (status, said) = watching.interrupt()?;
    ensure!(
        said.contains(
            "it helped: the table held 50000 entries at once, more than the old maximum of 7680"
        ),
        "{said}"
    );
    ensure!(status == Some(0) && machine.0.join("var/lib/ctguard/tune.json").exists());
    machine.write(COUNT, "100\n")?;
    let again = machine.tune(&["--watch", "1s", "--json"])?;
    let report: serde_json::Value = serde_json::from_slice(&again.stdout)?;
    ensure!(report["verdict"] == "helped" && report["peak"] == 50_000, "{report}");
    ensure!(report["before"]["max"] == 7680, "{report}");
    Ok(())
}

#[test]
fn what_was_not_applied_is_not_watched_and_apply_with_revert_is_refused() -> Result<()> {
    if !require::release_binary("what_was_not_applied_is_not_watched") {
        return Ok(());
    }
    let machine = Machine::new("watch-nothing")?;
    let refused = |arguments: &[&str], reason: &str| -> Result<()> {
        let output = machine.tune(arguments)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(2), "{arguments:?}: {said}");
        ensure!(said.contains(reason), "{arguments:?}: {said}");
        Ok(())
    };
    refused(&["--watch", "1s"], "there is no change to watch")?;
    refused(&["--apply", "--revert"], "exclude each other")?;
    refused(&["--apply", "--watch", "soon"], "such as 30m, 12h or 3d")?;
    refused(&["--apply", "--watch", "0s"], "such as 30m, 12h or 3d")
}

/// New flows from inside, through the router to nobody.
fn open(network: &Network, flows: u16) -> Result<()> {
    let host = Family::Ipv4.inside_client(1);
    network.inside.run(|| {
        for port in 2000..2000 + flows {
            // A full table refuses some: that is what it is for.
            let _ = UdpSocket::bind((host, port)).context("a port is taken")?.send_to(b"?", NOBODY);
        }
        Ok(())
    })
}

/// Fails when the counters of a real kernel are not those that a watch judges by.
#[test]
fn of_a_real_table_it_is_told_whether_a_larger_one_was_large_enough() -> Result<()> {
    const TEST: &str = "of_a_real_table_it_is_told_whether_a_larger_one_was_large_enough";
    const FLOWS: u16 = 6000;
    if !require::root(TEST) || !require::release_binary(TEST) {
        return Ok(());
    }
    refuse_tuned()?;
    let watched = |max: &str| -> Result<String> {
        let _small = HostSysctl::set(MAX, "3000")?;
        // Dropped after the network: its entries would keep the maximum from being put back.
        let _applied = Applied;
        let network = Network::build()?;
        // The maximum is the initial namespace's to set, the table is the router's.
        tune(&["--max", max, "--apply"])?;
        let command = product::command_in(&network.router, &["tune", "--watch", "1h"])?;
        let watching = Watching::start(command)?;
        open(&network, FLOWS)?;
        let (_, said) = watching.interrupt()?;
        println!("{} entries, with a maximum of {max}:\n{said}", table::count(&network.router)?);
        Ok(said)
    };
    let enough = watched("20000")?;
    ensure!(enough.contains("more than the old maximum of 3000"), "{enough}");
    let too_small = watched("4000")?;
    ensure!(too_small.contains("it was not enough: "), "{too_small}");
    Ok(())
}

/// Fails when a real kernel's losses of before and after are not compared, or when what did not help
/// stays for want of somebody who reads.
#[test]
fn what_did_not_help_is_taken_back_also_when_nobody_reads() -> Result<()> {
    const TEST: &str = "what_did_not_help_is_taken_back_also_when_nobody_reads";
    const ESTABLISHED: &str = "net.netfilter.nf_conntrack_tcp_timeout_established";
    if !require::root(TEST) || !require::release_binary(TEST) || !require::two_cpus(TEST) {
        return Ok(());
    }
    refuse_tuned()?;
    let _small = HostSysctl::set(MAX, "1000")?;
    let network = Network::build()?;
    let (rate, to) = (Rate::PerSecond(4000), (Family::Ipv4, FLOOD_PORT));
    let flood = Flood::through(&network, FloodKind::UdpSpoofed, rate, to, Cpus::share_out()?)?;
    let losses = || {
        table::kernel_counters(&network.router).map(|counters| counters.early_drop + counters.drop)
    };
    let wait_for_losses = |more: u64| {
        let before = losses()?;
        wait_for("losses", || Ok((losses()? >= before + more).then_some(())))
    };
    wait_for_losses(1)?;
    let established = || network.router.run(|| sysctl::read(ESTABLISHED));
    let before = established()?;
    let start = || {
        let arguments = ["tune", "--for", "nat-router", "--apply", "--watch", "1h", "--revert"];
        Watching::start(product::command_in(&network.router, &arguments)?)
    };

    let watching = start()?;
    ensure!(established()? != before, "nothing was applied");
    wait_for_losses(4000)?;
    let (status, said) = watching.interrupt()?;
    println!("{said}");
    ensure!(said.contains("it did not help") && status == Some(1), "{status:?}: {said}");
    ensure!(established()? == before, "it was not taken back");

    let watching = start()?;
    wait_for_losses(4000)?;
    watching.interrupt_unread()?;
    ensure!(established()? == before, "it was not taken back, for nobody read");
    ensure!(!Path::new(RECORD).exists(), "the record is left");
    flood.stop()?;
    Ok(())
}

/// Fails when what the guard refuses is not told, when all that it ever refused is, or when packets of
/// denied sources are told as flows.
#[test]
fn refusals_of_a_guard_are_told_beside_drops() -> Result<()> {
    const TEST: &str = "refusals_of_a_guard_are_told_beside_drops";
    if !require::root(TEST) || !require::release_binary(TEST) {
        return Ok(());
    }
    refuse_tuned()?;
    let site = Site::build()?;
    let daemon = site.guard()?;
    site.succeed(&["deny", "add", "192.0.2.0/24"])?;
    site.succeed(&["set", "source.udp.rate=1", "source.udp.burst=1"])?;
    let wire = site.wire()?;
    let send = |from: Ipv4Addr, packets: u16| -> Result<()> {
        (0..packets).try_for_each(|port| {
            let to = (Ipv4Addr::new(198, 51, 100, 1).into(), 53);
            wire.send(&frames::udp((from.into(), 1000 + port), to)?)
        })
    };
    // How many were refused as flows: a few are admitted.
    let refuse = |packets: u16| -> Result<u64> {
        let (refused, denied) = (site.number(REFUSED)?, site.number(DENIED)?);
        send(Ipv4Addr::new(203, 0, 113, 1), packets)?;
        send(Ipv4Addr::new(192, 0, 2, 1), 50)?;
        // Packets are judged in the order in which they were sent.
        wait_for("the last packet", || Ok((site.number(DENIED)? == denied + 50).then_some(())))?;
        Ok(site.number(REFUSED)? - refused)
    };
    refuse(5)?;
    let _applied = Applied;
    let wanted = sysctl::read(MAX)?.parse::<u64>()? * 2;
    tune(&["--max", &wanted.to_string(), "--apply"])?;
    let watching = Watching::start(site.command(&["tune", "--watch", "1h"]))?;
    let refused = refuse(20)?;
    ensure!((10..=20).contains(&refused), "{refused} of 20 were refused");
    let (_, said) = watching.interrupt()?;
    ensure!(said.contains(&format!(" {refused} new flows refused by the guard")), "{said}");
    ensure!(said.contains("it is too early to say"), "{said}");
    daemon.stop()?;
    Ok(())
}
