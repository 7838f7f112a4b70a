//! `top` on a terminal: what it shows, what its keys do, and how it leaves the terminal.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use ctguard_tests::{
    frames,
    process::CpuMeter,
    product::{Site, WAN, wait_for},
    require,
    terminal::Session,
    wire::Wire,
};
use rustix::process::Signal;

/// The rest of a core is for what keeps the table from filling.
const MOST_CPU: f64 = 0.05;
const MOST_STATUS: Duration = Duration::from_millis(20);

fn top(site: &Site, arguments: &[&str]) -> Result<Session> {
    Session::start(site.command(&[&["top"], arguments].concat()), 80, 24)
}

/// 40 datagrams of one source, each a new flow.
fn send(wire: &Wire, ports: &mut impl Iterator<Item = u16>) -> Result<()> {
    let from = IpAddr::from(Ipv4Addr::new(192, 0, 2, 7));
    let to = IpAddr::from(Ipv4Addr::new(192, 0, 2, 254));
    for port in ports.take(40) {
        wire.send(&frames::udp((from, port), (to, 53))?)?;
    }
    Ok(())
}

#[test]
fn top_names_who_is_refused_and_its_keys_act() -> Result<()> {
    if !require::root("top_names_who_is_refused_and_its_keys_act") {
        return Ok(());
    }
    let site = Site::build()?;
    let daemon = site.start(&["run", "-i", WAN, "--set", "source.udp.rate=50"])?;
    let mut session = top(&site, &["--interval", "200ms"])?;
    let (wire, mut ports) = (site.wire()?, (1024..u16::MAX).cycle());
    let source = wait_for("the source on the screen", || {
        send(&wire, &mut ports)?;
        std::thread::sleep(Duration::from_millis(80));
        let shown = session.shown();
        let source = shown.lines().find(|line| line.starts_with("192.0.2.7 "));
        Ok(source.filter(|line| line.contains("ceiling 50/s udp")).map(ToOwned::to_owned))
    })
    .with_context(|| session.shown())?;
    println!("{}", session.shown());
    ensure!(source.contains("strangers"), "{source}");
    for text in [WAN, "target 85.0 %", "calm", "a allow"] {
        ensure!(session.shown().contains(text), "no {text} on\n{}", session.shown());
    }

    session.press("d")?;
    session.wait_for("drop all packets of 192.0.2.7 for 10 minutes?")?;
    ensure!(!site.succeed(&["deny", "list"])?.contains("192.0.2.7"), "not before the answer");
    session.press("y")?;
    session.wait_for("denying 192.0.2.7/32 for 10m")?;
    ensure!(site.succeed(&["deny", "list"])?.contains("192.0.2.7"));
    wait_for("the source as denied", || {
        let shown = session.shown();
        Ok(shown
            .lines()
            .any(|it| it.starts_with("192.0.2.7 ") && it.contains("denied"))
            .then_some(()))
    })?;
    session.press("ny")?;
    session.wait_for("dry-run off → on")?;
    session.wait_for("DRY RUN")?;
    ensure!(site.status()?.pointer("/dry_run") == Some(&true.into()));

    ensure!(daemon.kill().is_ok());
    session.wait_for("NOT RUNNING")?;
    site.succeed(&["detach"])?;
    session.wait_for("NO DATA")?;
    let daemon = site.guard()?;
    session.wait_for("a allow")?;
    session.press("q")?;
    ensure!(session.end()?.success());
    ensure_restored(&session)?;
    ensure!(daemon.stop()?.success());
    Ok(())
}

/// Waits, because what the program wrote last comes after its end.
fn ensure_restored(session: &Session) -> Result<()> {
    wait_for("the terminal as it was", || {
        Ok((!session.is_raw()? && !session.is_taken()).then_some(()))
    })
}

#[test]
fn the_terminal_is_as_before_whatever_ends_or_stops_top() -> Result<()> {
    if !require::root("the_terminal_is_as_before_whatever_ends_or_stops_top") {
        return Ok(());
    }
    let site = Site::build()?;
    let daemon = site.guard()?;
    // Under `nohup`, SIGHUP ends nothing.
    let ignored = std::fs::read_to_string("/proc/self/status")?;
    let ignored =
        ignored.lines().find_map(|line| line.strip_prefix("SigIgn:")).context("a mask")?;
    let ignores_hang_up = u64::from_str_radix(ignored.trim(), 16)? & 1 != 0;
    let signals = [Signal::TERM, Signal::INT, Signal::HUP];
    for signal in signals.into_iter().filter(|it| *it != Signal::HUP || !ignores_hang_up) {
        let mut session = top(&site, &[])?;
        session.wait_for("a allow")?;
        ensure!(session.is_raw()? && session.is_taken());
        session.signal(signal)?;
        ensure!(session.end()?.success(), "{signal:?}");
        ensure_restored(&session)?;
    }
    for key in ["q", "\u{3}"] {
        let mut session = top(&site, &[])?;
        session.wait_for("a allow")?;
        session.press(key)?;
        ensure!(session.end()?.success(), "{key:?}");
        ensure_restored(&session)?;
    }
    let mut session = top(&site, &[])?;
    session.wait_for("a allow")?;
    for stop in 0..2 {
        if stop == 0 {
            session.signal(Signal::TSTP)?;
        } else {
            session.press("\u{1a}")?;
        }
        ensure_restored(&session)?;
        wait_for("the stop", || {
            let status = std::fs::read_to_string(format!("/proc/{}/status", session.pid()))?;
            Ok(status.contains("State:\tT").then_some(()))
        })?;
        session.signal(Signal::CONT)?;
        wait_for("the screen again", || {
            let is_back = session.is_raw()? && session.is_taken();
            Ok((is_back && session.shown().contains("a allow")).then_some(()))
        })?;
    }
    // What was typed while it was stopped is not for it; once the clock goes on, it reads keys.
    let shown = session.shown();
    wait_for("a new picture", || Ok((session.shown() != shown).then_some(())))?;
    session.press("q")?;
    ensure!(session.end()?.success());
    ensure!(daemon.stop()?.success());
    Ok(())
}

#[test]
fn top_without_a_terminal_says_what_to_use_instead() -> Result<()> {
    if !require::root("top_without_a_terminal_says_what_to_use_instead") {
        return Ok(());
    }
    let site = Site::build()?;
    let answer = site.ctguard(&["top"])?;
    let said = answer.refusal(2)?;
    ensure!(
        said.starts_with("standard output is not a terminal") && said.contains("ctguard status")
    );
    let mut command = site.command(&["top"]);
    command.args(["--interval", "1ms"]);
    let mut session = Session::start(command, 80, 24)?;
    ensure!(session.end()?.code() == Some(2));
    session.wait_for("it must be from 100ms to 1m")?;
    let mut session = top(&site, &[])?;
    ensure!(session.end()?.code() == Some(3), "without a guard");
    session.wait_for("no guard is loaded")?;
    ensure_restored(&session)
}

#[test]
fn watching_costs_little() -> Result<()> {
    if !require::root("watching_costs_little") {
        return Ok(());
    }
    let site = Site::build()?;
    let daemon = site.guard()?;
    let mut session = top(&site, &["--interval", "100ms"])?;
    session.wait_for("a allow")?;
    let (wire, mut ports) = (site.wire()?, (1024..u16::MAX).cycle());
    let meter = CpuMeter::start(session.pid())?;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(5) {
        send(&wire, &mut ports)?;
        std::thread::sleep(Duration::from_millis(50));
    }
    let ratio = meter.ratio()?;
    println!("top at 10 Hz: {:.2} % of a core", 100.0 * ratio);
    session.press("q")?;
    ensure!(session.end()?.success());
    ensure!(ratio < MOST_CPU, "{ratio} of a core");

    let mut fastest = Duration::MAX;
    for _ in 0..20 {
        let began = Instant::now();
        site.succeed(&["status"])?;
        fastest = fastest.min(began.elapsed());
    }
    println!("status: {:.1} ms", fastest.as_secs_f64() * 1e3);
    ensure!(fastest < MOST_STATUS, "{fastest:?}");
    ensure!(daemon.stop()?.success());
    Ok(())
}
