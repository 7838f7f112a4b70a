//! A daemon whose standard error is systemd's journal.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::unix::{fs::MetadataExt as _, net::UnixDatagram},
    path::Path,
    process::{Command, Stdio},
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

    /// The next record whose message begins so.
    fn wait_for(&self, message: &str) -> Result<BTreeMap<String, String>> {
        let mut buffer = vec![0; 1 << 16];
        loop {
            let bytes = self.0.recv(&mut buffer).with_context(|| format!("no {message}"))?;
            let record = fields(&buffer[..bytes]).context("no record of the journal's protocol")?;
            if record.get("MESSAGE").is_some_and(|text| text.starts_with(message)) {
                return Ok(record);
            }
        }
    }
}

/// `NAME=VALUE`, or `NAME` and in the next line the length of the value, 64 bits, and the value.
fn fields(mut record: &[u8]) -> Option<BTreeMap<String, String>> {
    let mut fields = BTreeMap::new();
    while !record.is_empty() {
        let line = record.split(|byte| *byte == b'\n').next()?;
        record = record.get(line.len() + 1..)?;
        let text = String::from_utf8_lossy(line).into_owned();
        let (name, value) = if let Some((name, value)) = text.split_once('=') {
            (name.to_owned(), value.to_owned())
        } else {
            let (length, rest) = record.split_first_chunk()?;
            let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
            record = rest.get(length + 1..)?;
            (text, String::from_utf8_lossy(rest.get(..length)?).into_owned())
        };
        fields.insert(name, value);
    }
    Some(fields)
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
    if !require::root(NAME) || !require::no_journal(NAME, Path::new(SOCKET)) {
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
    let has = |record: &BTreeMap<String, String>, fields: &[(&str, &str)]| {
        fields.iter().all(|(name, value)| record.get(*name).is_some_and(|own| own == value))
    };
    let ready = journal.wait_for("guarding wan0 (")?;
    let expected = [("PRIORITY", "5"), ("SYSLOG_IDENTIFIER", "ctguard")];
    ensure!(has(&ready, &expected), "{ready:?}");
    site.guarded().ip(&[format!("link del {WAN}")])?;
    let gone = journal.wait_for("wan0 is gone")?;
    let expected =
        [("PRIORITY", "4"), ("CTGUARD_EVENT", "interface_gone"), ("CTGUARD_INTERFACE", "wan0")];
    ensure!(has(&gone, &expected), "{gone:?}");
    ensure!(daemon.stop()?.success());
    ensure!(fs::read_to_string(&log)?.is_empty(), "all is in the journal");
    fs::remove_file(&log)?;
    Ok(())
}
