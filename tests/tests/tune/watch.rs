//! Whether a change helped, said after a watch: on a machine of files, and of a real table.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use ctguard_tests::{
    addresses::Family,
    frames,
    product::{self, Site, wait_for},
    require,
    router::Network,
    sysctl::{self, HostSysctl},
    table,
};
use rustix::process::{Pid, Signal, kill_process};

use super::{
    live::{Applied, MAX, RECORD, tune},
    machine::Machine,
};

const STATISTICS: &str = "proc/net/stat/nf_conntrack";
const COUNT: &str = "proc/sys/net/netfilter/nf_conntrack_count";
const DENIED: &str = "/counters/udp/refused/deny";
/// Nobody is there, and nobody says so.
const NOBODY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(100, 64, 0, 1)), 9);

/// `ctguard tune --watch`, which has begun to watch.
struct Watching {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Watching {
    fn start(mut command: Command) -> Result<Self> {
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let output = BufReader::new(child.stdout.take().context("it has an output")?);
        let mut watching = Self { child, output };
        let mut line = String::new();
        while !line.starts_with("watching for") {
            line.clear();
            ensure!(watching.output.read_line(&mut line)? > 0, "it ended before it watched");
        }
        Ok(watching)
    }

    /// Ends it as Ctrl-C does: its status, and what it said.
    fn interrupt(mut self) -> Result<(Option<i32>, String)> {
        kill_process(Pid::from_child(&self.child), Signal::INT)?;
        let mut said = String::new();
        self.output.read_to_string(&mut said)?;
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

/// Fails when nobody takes back what only cost memory, or when something of the watch stays.
#[test]
fn a_change_that_did_not_help_is_taken_back_at_the_end_of_its_watch() -> Result<()> {
    if !require::release_binary("a_change_that_did_not_help_is_taken_back") {
        return Ok(());
    }
    let machine = Machine::new("watch-useless")?;
    machine.write("proc/uptime", "36000.00 1.00\n")?;
    machine.write(STATISTICS, &dropped(10))?;
    let before = machine.files()?;
    let arguments = ["--apply", "--persist", "--watch", "1h", "--revert"];
    let watching = Watching::start(machine.command(&arguments)?)?;
    ensure!(machine.files()? != before, "nothing was applied");
    machine.write(STATISTICS, &dropped(4010))?;
    let (status, said) = watching.interrupt()?;
    ensure!(said.contains("4000 new flows dropped for a full table"), "{said}");
    ensure!(said.contains("it did not help"), "{said}");
    ensure!(said.ends_with("as it was before\n") && status == Some(1), "{status:?}: {said}");
    machine.write(STATISTICS, &dropped(10))?;
    ensure!(machine.files()? == before, "something is left");
    ensure!(!machine.0.join("var/lib/ctguard").exists(), "the record of the watch is left");
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
    ensure!(said.contains("it helped: 50000 entries at once are more than the 7680"), "{said}");
    ensure!(status == Some(0) && machine.0.join("var/lib/ctguard/tune.json").exists());
    machine.write(COUNT, "100\n")?;
    let again = machine.tune(&["--watch", "1s", "--json"])?;
    let report: serde_json::Value = serde_json::from_slice(&again.stdout)?;
    ensure!(report["verdict"] == "helped" && report["peak"] == 50_000, "{report}");
    ensure!(report["reverted"] == false && report["max_before"] == 7680, "{report}");
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
    refused(&["--watch", "1s"], "give --apply as well")?;
    refused(&["--apply", "--revert"], "give one of them")?;
    refused(&["--apply", "--watch", "soon"], "as 30m, 12h or 3d")?;
    refused(&["--apply", "--watch", "0s"], "as 30m, 12h or 3d")
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
    ensure!(!Path::new(RECORD).exists(), "this machine was tuned: {RECORD}");
    let watched = |max: &str| -> Result<String> {
        let _small = HostSysctl::set(MAX, "3000")?;
        let network = Network::build()?;
        let _applied = Applied;
        // The maximum is the initial namespace's to set, the table is the router's.
        tune(&["--max", max, "--apply"])?;
        let binary = product::binary()?;
        let mut command = network.router.command(&binary.to_string_lossy());
        command.args(["tune", "--watch", "1h"]);
        let watching = Watching::start(command)?;
        open(&network, FLOWS)?;
        let (_, said) = watching.interrupt()?;
        println!("{} entries, with a maximum of {max}:\n{said}", table::count(&network.router)?);
        Ok(said)
    };
    let enough = watched("20000")?;
    ensure!(enough.contains("are more than the 3000 of before"), "{enough}");
    let too_small = watched("4000")?;
    ensure!(too_small.contains("it is not enough: "), "{too_small}");
    Ok(())
}

/// Fails when what the guard refuses is not told, or all that it ever refused is.
#[test]
fn refusals_of_a_guard_are_told_beside_drops() -> Result<()> {
    const TEST: &str = "refusals_of_a_guard_are_told_beside_drops";
    if !require::root(TEST) || !require::release_binary(TEST) {
        return Ok(());
    }
    ensure!(!Path::new(RECORD).exists(), "this machine was tuned: {RECORD}");
    let site = Site::build()?;
    let daemon = site.guard()?;
    site.succeed(&["deny", "add", "192.0.2.0/24"])?;
    let wire = site.wire()?;
    let refuse = |packets: u16| -> Result<()> {
        let before = site.number(DENIED)?;
        for port in 0..packets {
            let from = (Ipv4Addr::new(192, 0, 2, 1).into(), 1000 + port);
            wire.send(&frames::udp(from, (Ipv4Addr::new(198, 51, 100, 1).into(), 53))?)?;
        }
        wait_for("what was refused", || {
            Ok((site.number(DENIED)? == before + u64::from(packets)).then_some(()))
        })
    };
    refuse(5)?;
    let _applied = Applied;
    let wanted = sysctl::read(MAX)?.parse::<u64>()? * 2;
    tune(&["--max", &wanted.to_string(), "--apply"])?;
    let watching = Watching::start(site.command(&["tune", "--watch", "1h"]))?;
    refuse(7)?;
    let (_, said) = watching.interrupt()?;
    ensure!(said.contains("7 new flows refused by the guard"), "{said}");
    ensure!(said.contains("it made no difference so far"), "{said}");
    daemon.stop()?;
    Ok(())
}
