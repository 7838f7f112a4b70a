//! `capture`: what is refused, with its reason.

use std::{
    collections::BTreeMap,
    fs,
    io::Read as _,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use aya::maps::{Map, MapData, PerCpuArray};
use ctguard_layout::maps;
use ctguard_tests::{
    frames,
    product::{OUTSIDE, Site, WAN, wait_for},
    require,
    sources::{judge_all, try_one_source},
};
use pcap_parser::{
    Block, OptionCode, PcapBlockOwned, PcapError, create_reader, traits::PcapNGPacketBlock as _,
};
use rustix::process::{Pid, Signal, kill_process};

use crate::with_and_without_daemon;

const STRICT: [&str; 3] = ["set", "source.udp.rate=1", "source.udp.burst=1"];
const DENIED: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 9);
const FLOWS: u16 = 60;

/// A running capture; killed when dropped.
struct Running {
    child: Child,
    errors: PathBuf,
}

impl Running {
    /// Starts `ctguard capture` into a file; the guard copies when this returns.
    fn start(site: &Site, file: &Path, arguments: &[&str]) -> Result<Self> {
        let errors = file.with_extension("errors");
        let mut command = site.command(&["capture", "-w", file.to_str().context("a path")?]);
        command.args(arguments).stdout(Stdio::null()).stderr(fs::File::create(&errors)?);
        let mut running = Self { child: command.spawn()?, errors };
        wait_for("the capture's start", || {
            let said = fs::read_to_string(&running.errors)?;
            if let Some(status) = running.child.try_wait()? {
                bail!("it ended ({status}): {said}");
            }
            Ok(said.contains("capturing what is refused").then_some(()))
        })?;
        Ok(running)
    }

    /// Sends the signal and waits for the end; returns the last line that was said.
    fn end_by(mut self, signal: Signal) -> Result<String> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.context("a capture has a pid")?, signal)?;
        self.end()
    }

    fn end(&mut self) -> Result<String> {
        wait_for("the capture's end", || Ok(self.child.try_wait()?))?;
        let said = fs::read_to_string(&self.errors)?;
        Ok(said.lines().last().unwrap_or_default().to_owned())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Packet {
    interface: String,
    comment: String,
    bytes: Vec<u8>,
    length: u32,
}

/// The packets of a pcapng file.
fn packets(file: &Path) -> Result<Vec<Packet>> {
    let (mut names, mut packets) = (Vec::new(), Vec::new());
    let mut reader =
        create_reader(1 << 20, fs::File::open(file)?).map_err(|error| broken(&error))?;
    loop {
        let (consumed, block) = match reader.next() {
            Ok(read) => read,
            Err(PcapError::Eof) => return Ok(packets),
            Err(PcapError::Incomplete(_)) => {
                reader.refill().map_err(|error| broken(&error))?;
                continue;
            }
            Err(error) => return Err(broken(&error)),
        };
        if let PcapBlockOwned::NG(Block::InterfaceDescription(described)) = &block {
            names.push(described.if_name().context("a name")?.context("text")?.to_owned());
        }
        if let PcapBlockOwned::NG(Block::EnhancedPacket(packet)) = &block {
            let mut options = packet.options.iter();
            let comment = options.find(|option| option.code == OptionCode::Comment);
            packets.push(Packet {
                interface: names.get(packet.if_id as usize).context("an interface")?.clone(),
                comment: comment.context("a comment")?.as_str().context("text")?.to_owned(),
                bytes: packet.packet_data().to_vec(),
                length: packet.origlen,
            });
        }
        reader.consume(consumed);
    }
}

fn broken(error: &PcapError<&[u8]>) -> anyhow::Error {
    anyhow!("{error:?}")
}

fn by_comment(packets: &[Packet]) -> BTreeMap<&str, u64> {
    packets.iter().fold(BTreeMap::new(), |mut sums, packet| {
        *sums.entry(&*packet.comment).or_default() += 1;
        sums
    })
}

/// Packets that orders asked for so far.
fn seen(site: &Site) -> Result<u64> {
    let map = MapData::from_pin(site.pins().join(maps::CAPTURE_STATE))?;
    let states: PerCpuArray<_, [u64; 4]> = PerCpuArray::try_from(Map::PerCpuArray(map))?;
    Ok(states.get(&0, 0)?.iter().map(|[seen, ..]| seen).sum())
}

fn file(site: &Site) -> Result<PathBuf> {
    fs::create_dir_all(site.state())?;
    Ok(site.state().join("refused.pcapng"))
}

/// Fails when a refused packet is missing, changed or has another reason than the counters tell.
#[test]
fn refused_packets_are_captured_with_their_reasons() -> Result<()> {
    if !require::root("refused_packets_are_captured_with_their_reasons") {
        return Ok(());
    }
    with_and_without_daemon(|site| {
        let wire = site.wire()?;
        site.succeed(&STRICT)?;
        site.succeed(&["deny", "add", &DENIED.to_string()])?;
        let file = file(site)?;
        let before = seen(site)?;
        try_one_source(site, &wire, 8, FLOWS)?;
        ensure!(seen(site)? == before, "no capture, no copies");

        let running = Running::start(site, &file, &[])?;
        let limited = try_one_source(site, &wire, 1, FLOWS)?;
        let denied = try_one_source(site, &wire, 9, FLOWS)?;
        let long = judge_all(site, &wire, 1, |_| {
            let mut frame = frames::udp((DENIED.into(), 5), (DENIED.into(), 9))?;
            frame.resize(700, 7);
            Ok(frame)
        })?;
        ensure!(limited.source > 0 && denied.deny == u64::from(FLOWS) && long.deny == 1);
        let said = running.end_by(Signal::INT)?;
        let refused = limited.source + denied.deny + 1;
        let start = format!("ctguard: captured {refused} of {refused} refused packets in ");
        ensure!(said.starts_with(&start) && said.ends_with("; 0 left out, 0 lost"), "{said}");

        let packets = packets(&file)?;
        let expected = BTreeMap::from([
            ("refused: deny", denied.deny + 1),
            ("refused: source", limited.source),
        ]);
        ensure!(by_comment(&packets) == expected, "{:?}", by_comment(&packets));
        let is_of =
            |packet: &Packet, host: u8| packet.bytes.get(26..30) == Some(&[192, 0, 2, host]);
        for packet in &packets {
            let host = if packet.comment == "refused: deny" { 9 } else { 1 };
            ensure!(packet.interface == WAN && is_of(packet, host), "{packet:?}");
        }
        let cut: Vec<_> = packets.iter().filter(|packet| packet.length > 256).collect();
        ensure!(cut.len() == 1 && cut[0].length == 700 && cut[0].bytes.len() == 256, "{cut:?}");

        let more = ["--reason", "deny", "-i", WAN, "-c", "5"];
        let mut running = Running::start(site, &file, &more)?;
        try_one_source(site, &wire, 2, FLOWS)?;
        try_one_source(site, &wire, 9, FLOWS)?;
        let said = running.end()?;
        ensure!(said.starts_with("ctguard: captured 5 of "), "{said}");
        let packets = self::packets(&file)?;
        ensure!(by_comment(&packets) == BTreeMap::from([("refused: deny", 5)]), "{packets:?}");
        site.succeed(&["deny", "del", &DENIED.to_string()])?;
        site.succeed(&["set", "source.udp.rate=default", "source.udp.burst=default"])?;
        Ok(())
    })
}

/// Fails when a dry run's packets are left out, or told as dropped.
#[test]
fn a_dry_run_shows_what_it_would_refuse() -> Result<()> {
    if !require::root("a_dry_run_shows_what_it_would_refuse") {
        return Ok(());
    }
    let site = Site::build()?;
    let _daemon = site.start(&["run", "-i", WAN, "--set", "dry-run=on"])?;
    site.succeed(&["deny", "add", &DENIED.to_string()])?;
    let file = file(&site)?;
    let running = Running::start(&site, &file, &["--sample", "2"])?;
    let denied = try_one_source(&site, &site.wire()?, 9, FLOWS)?.deny;
    let said = running.end_by(Signal::TERM)?;
    let packets = packets(&file)?;
    let captured = u64::try_from(packets.len())?;
    ensure!((denied / 2..denied).contains(&captured), "{captured} of {denied}");
    ensure!(said.contains(&format!("captured {captured} of {denied} ")), "{said}");
    let comments = by_comment(&packets);
    ensure!(comments.keys().eq(&["refused: deny (passed: dry run)"]), "{comments:?}");
    Ok(())
}

/// Fails when the data path goes on copying for a capture that was killed, or no other can begin.
#[test]
fn a_killed_capture_leaves_nothing_on() -> Result<()> {
    if !require::root("a_killed_capture_leaves_nothing_on") {
        return Ok(());
    }
    let site = Site::build()?;
    let _daemon = site.guard()?;
    let wire = site.wire()?;
    site.succeed(&["deny", "add", &DENIED.to_string()])?;
    let file = file(&site)?;
    let running = Running::start(&site, &file, &["--for", "1h"])?;
    try_one_source(&site, &wire, 9, FLOWS)?;
    ensure!(seen(&site)? == u64::from(FLOWS));
    let other = site.ctguard(&["capture", "-w", "-"])?;
    let refusal = other.refusal(1)?;
    ensure!(refusal.starts_with("a capture runs already (pid "), "{refusal}");
    running.end_by(Signal::KILL)?;
    wait_for("the end of the order", || {
        let before = seen(&site)?;
        try_one_source(&site, &wire, 9, 1)?;
        Ok((seen(&site)? == before).then_some(()))
    })?;

    let running = Running::start(&site, &file, &[])?;
    try_one_source(&site, &wire, 9, FLOWS)?;
    let said = running.end_by(Signal::INT)?;
    ensure!(said.contains(&format!("captured {FLOWS} of {FLOWS} ")), "{said}");
    let before = seen(&site)?;
    try_one_source(&site, &wire, 9, FLOWS)?;
    ensure!(seen(&site)? == before, "a capture that ends takes its order along");

    let mut running = Running::start(&site, &file, &[])?;
    site.succeed(&["detach", "--stop"])?;
    let said = running.end()?;
    ensure!(said.contains("the guard was removed"), "{said}");
    site.ensure_gone()
}

/// Fails when a wrong command is taken, or its error is not one line with its code.
#[test]
fn a_capture_that_cannot_be_is_refused_in_one_line() -> Result<()> {
    if !require::root("a_capture_that_cannot_be_is_refused_in_one_line") {
        return Ok(());
    }
    let site = Site::build()?;
    let file = file(&site)?;
    let into = |path: &str, more: &[&str]| site.ctguard(&[&["capture", "-w", path], more].concat());
    let path = file.to_str().context("a path")?;
    ensure!(into(path, &[])?.refusal(3)?.starts_with("no guard is loaded"));
    let _daemon = site.guard()?;
    let other = into(path, &["-i", OUTSIDE])?;
    ensure!(other.refusal(2)? == format!("{OUTSIDE} is not guarded; guarded are: {WAN}"));
    let nowhere = into("/nowhere/at/all", &[])?;
    ensure!(nowhere.refusal(1)?.starts_with("cannot write /nowhere/at/all: "));
    ensure!(!site.run_file("capturing").exists(), "its lock is left");
    ensure!(!file.exists());
    Ok(())
}

/// Fails when tshark does not read what comes through a pipe, or shows no reason.
#[test]
fn tshark_shows_the_reason_of_each_packet() -> Result<()> {
    let test = "tshark_shows_the_reason_of_each_packet";
    if !require::root(test) || !require::program(test, "tshark") {
        return Ok(());
    }
    let site = Site::build()?;
    let _daemon = site.guard()?;
    site.succeed(&["deny", "add", &DENIED.to_string()])?;
    let mut capture = site.command(&["capture", "-w", "-", "-c", "3", "--for", "30s"]);
    let mut capture = capture.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut tshark = Command::new("tshark");
    tshark.args(["-r", "-", "-T", "fields", "-e", "frame.interface_name", "-e", "frame.comment"]);
    tshark
        .args(["-e", "ip.src", "-e", "udp.dstport"])
        .stdin(capture.stdout.take().context("a pipe")?);
    let shown = std::thread::spawn(move || tshark.output());
    let mut errors = capture.stderr.take().context("a pipe")?;
    let mut first = [0; 8];
    errors.read_exact(&mut first).context("it says that it captures")?;
    try_one_source(&site, &site.wire()?, 9, 3)?;
    let shown = shown.join().map_err(|_| anyhow!("a panic"))??;
    let mut rest = String::new();
    errors.read_to_string(&mut rest)?;
    ensure!(capture.wait()?.success() && rest.contains("captured 3 of 3"), "{rest}");
    let line = format!("{WAN}\trefused: deny\t{DENIED}\t9\n");
    ensure!(String::from_utf8_lossy(&shown.stdout) == line.repeat(3), "{shown:?}");
    Ok(())
}
