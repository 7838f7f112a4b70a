//! A log that nobody reads: what the daemon says must stop neither its ticks nor its end.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    os::fd::OwnedFd,
    process::{Command, Stdio},
};

use anyhow::{Result, ensure};
use ctguard_tests::{
    pinned::Pinned,
    product::{OUTSIDE, Site, WAN, wait_for},
    require,
};
use rustix::{
    fs::{OFlags, fcntl_setfl},
    pipe::pipe,
    pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt},
};

/// Fails when a daemon whose standard error is a full pipe waits for somebody to read it.
#[test]
fn a_full_pipe_stops_neither_the_ticks_nor_the_end() -> Result<()> {
    if !require::root("a_full_pipe_stops_neither_the_ticks_nor_the_end") {
        return Ok(());
    }
    let site = Site::build()?;
    let (reader, writer) = pipe()?;
    fill(&writer)?;
    let daemon = site.start_into(&["run", "-i", WAN], Stdio::from(writer))?;
    let pinned = wait_for("the guard's maps", || Ok(Pinned::open(site.pins()).ok()))?;
    wait_for_ticks(&pinned)?;
    ensure!(daemon.stop()?.success());
    drop(reader);
    site.ensure_gone()
}

/// Fails when Ctrl-S in the daemon's terminal stops its ticks, or loses what it says meanwhile.
#[test]
fn a_stopped_terminal_shows_later_what_happened_meanwhile() -> Result<()> {
    const CTRL_S: &[u8] = b"\x13";
    const CTRL_Q: &[u8] = b"\x11";
    if !require::root("a_stopped_terminal_shows_later_what_happened_meanwhile") {
        return Ok(());
    }
    let site = Site::build()?;
    let mut terminal = Terminal::open()?;
    let daemon = site.start_into(&["run", "-i", WAN], Stdio::from(terminal.peer()?))?;
    terminal.wait_for(", target ")?;
    terminal.keyboard.write_all(CTRL_S)?;
    site.guarded().ip(&[format!("link del {WAN}")])?;
    let pinned = Pinned::open(site.pins())?;
    wait_for_ticks(&pinned)?;
    site.connect(OUTSIDE, WAN)?;
    wait_for("the program on the new interface", || site.xdp(WAN))?;
    wait_for_ticks(&pinned)?;
    terminal.keyboard.write_all(CTRL_Q)?;
    terminal.wait_for("wan0 is gone; waiting for it to come back")?;
    terminal.wait_for("guarding wan0 again")?;
    ensure!(daemon.stop()?.success());
    site.ensure_gone()
}

/// Fails when `stty tostop` stops a daemon in the background at its first line.
#[test]
fn a_terminal_that_stops_who_writes_in_the_background_does_not_stop_the_daemon() -> Result<()> {
    if !require::root("a_terminal_that_stops_who_writes_in_the_background_does_not_stop_the_daemon")
    {
        return Ok(());
    }
    let site = Site::build()?;
    let mut terminal = Terminal::open()?;
    let daemon = site.command(&["run", "-i", WAN]);
    let mut shell = Command::new("setsid");
    shell.args(["--ctty", "sh", "-mc", "stty tostop; \"$@\" & read line; kill %1; wait", "sh"]);
    shell.arg(daemon.get_program()).args(daemon.get_args());
    shell.stdin(terminal.peer()?).stdout(terminal.peer()?).stderr(terminal.peer()?);
    let mut shell = shell.spawn()?;
    let guards = terminal.wait_for(", target ");
    terminal.keyboard.write_all(b"\n")?;
    if guards.is_err() {
        shell.kill()?;
    }
    shell.wait()?;
    guards?;
    site.ensure_gone()
}

/// Leaves room for nothing.
fn fill(pipe: &OwnedFd) -> Result<()> {
    fcntl_setfl(pipe, OFlags::NONBLOCK)?;
    let mut file = File::from(pipe.try_clone()?);
    let full = loop {
        if let Err(error) = file.write_all(b"\n") {
            break error;
        }
    };
    ensure!(full.kind() == io::ErrorKind::WouldBlock, "{full}");
    Ok(fcntl_setfl(pipe, OFlags::empty())?)
}

fn wait_for_ticks(pinned: &Pinned) -> Result<()> {
    for _ in 0..10 {
        let last = pinned.heartbeat();
        wait_for("the next tick", || Ok((pinned.heartbeat() != last).then_some(())))?;
    }
    Ok(())
}

/// A pseudoterminal, seen from the side of keyboard and screen.
struct Terminal {
    keyboard: File,
    screen: File,
    shown: String,
}

impl Terminal {
    fn open() -> Result<Self> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        fcntl_setfl(&master, OFlags::RDWR | OFlags::NONBLOCK)?;
        let screen = File::from(master);
        Ok(Self { keyboard: screen.try_clone()?, screen, shown: String::new() })
    }

    fn peer(&self) -> Result<OwnedFd> {
        Ok(ioctl_tiocgptpeer(&self.screen, OpenptFlags::RDWR | OpenptFlags::NOCTTY)?)
    }

    fn wait_for(&mut self, text: &str) -> Result<()> {
        wait_for(text, || {
            let mut bytes = [0; 4096];
            match self.screen.read(&mut bytes) {
                Ok(length) => self.shown.push_str(&String::from_utf8_lossy(&bytes[..length])),
                Err(error) => ensure!(error.kind() == io::ErrorKind::WouldBlock, "{error}"),
            }
            Ok(self.shown.contains(text).then_some(()))
        })
    }
}
