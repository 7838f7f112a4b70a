//! A daemon whose standard error is systemd's journal.

use std::{
    fs::{self, File},
    os::unix::{fs::MetadataExt as _, net::UnixDatagram},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use ctguard_tests::{
    daemon::Daemon,
    product::{PATIENCE, Site, WAN},
    require,
};

const SOCKET: &str = "/run/systemd/journal/socket";

/// The journal of this machine, which has none.
struct Journal(UnixDatagram);

impl Journal {
    fn open() -> Result<Self> {
        let path = Path::new(SOCKET);
        fs::create_dir_all(path.parent().context("a directory")?)?;
        let socket = UnixDatagram::bind(path)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(Self(socket))
    }

    /// The next record that has `field`.
    fn wait_for(&self, field: &str) -> Result<String> {
        let mut buffer = vec![0; 1 << 16];
        loop {
            let bytes = self.0.recv(&mut buffer).with_context(|| format!("no record: {field}"))?;
            let record = String::from_utf8_lossy(&buffer[..bytes]).into_owned();
            if record.lines().any(|line| line.starts_with(field)) {
                return Ok(record);
            }
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        let _ = fs::remove_file(SOCKET);
    }
}

/// Fails when records lack their priority, or an event its fields.
#[test]
fn the_journal_has_priorities_and_the_fields_of_events() -> Result<()> {
    const NAME: &str = "the_journal_has_priorities_and_the_fields_of_events";
    if !require::root(NAME) {
        return Ok(());
    }
    if Path::new(SOCKET).exists() {
        require::skip(NAME, "this machine has a journal");
        return Ok(());
    }
    let journal = Journal::open()?;
    let site = Site::build()?;
    let log = site.state().with_extension("log");
    let errors = File::create(&log)?;
    let identity = errors.metadata()?;
    let stream = format!("JOURNAL_STREAM={}:{}", identity.dev(), identity.ino());
    let guard = site.command(&["run", "-i", WAN, "--state", "/nonexistent/state"]);
    let mut command = Command::new("env");
    command.arg(stream).arg(guard.get_program()).args(guard.get_args());
    let daemon = Daemon::start_into(&command, Stdio::from(errors))?;
    let ready = journal.wait_for("MESSAGE=guarding wan0 ")?;
    for field in ["PRIORITY=5", "SYSLOG_IDENTIFIER=ctguard", "TARGET=ctguard"] {
        ensure!(ready.lines().any(|line| line.starts_with(field)), "{field} is not in {ready}");
    }
    site.guarded().ip(&[format!("link del {WAN}")])?;
    let gone = journal.wait_for("MESSAGE=wan0 is gone")?;
    for field in ["PRIORITY=4", "CTGUARD_EVENT=interface_gone", "CTGUARD_INTERFACE=wan0"] {
        ensure!(gone.lines().any(|line| line == field), "{field} is not in {gone}");
    }
    std::thread::sleep(Duration::from_millis(100));
    ensure!(daemon.stop()?.success());
    ensure!(fs::read_to_string(&log)?.is_empty(), "all is in the journal");
    fs::remove_file(&log)?;
    Ok(())
}
