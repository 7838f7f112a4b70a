//! One first contact of a client: how long until it is served, or what it said instead.

use std::{
    io::{BufRead as _, BufReader, PipeReader},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use super::{catalogue::Client, root::Root};
use crate::netns::Handle;

/// A client that is not served by then has no patient user.
pub(super) const PATIENCE: Duration = Duration::from_secs(40);
/// What comes before the first contact takes no longer, with a flood beside it.
pub(super) const SETUP: Duration = Duration::from_mins(1);
/// The line between both.
const MARK: &str = "@contact";

/// What became of a first contact.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Fate {
    /// Served after so many seconds.
    Served(f64),
    /// It gave up after so many seconds, with these last words.
    GaveUp(f64, String),
    /// Still neither when our patience ended.
    Waiting,
}

/// Lets the client make its first contact from a namespace.
pub(super) fn make(
    client: &Client,
    root: &Root,
    namespace: &Handle,
    variables: &[(&str, &str)],
) -> Result<Fate> {
    let script = format!("{}\necho {MARK}\n{}", client.setup, client.contact);
    let (reader, writer) = std::io::pipe().context("cannot make a pipe")?;
    let errors = writer.try_clone().context("cannot copy a pipe")?;
    let mut inmate = root.start(namespace, &script, variables, [writer.into(), errors.into()])?;
    let lines = lines(reader);

    let mut said = String::new();
    let ready = Instant::now() + SETUP;
    loop {
        match next(&lines, ready) {
            Ok((_, line)) if line == MARK => break,
            Ok((_, line)) => said = line,
            Err(_) => bail!("{} does not get ready: {said}", client.name),
        }
    }
    let began = Instant::now();
    said.clear();
    loop {
        match next(&lines, began + PATIENCE) {
            Ok((at, line)) => {
                if client.served_line.as_ref().is_some_and(|part| line.contains(part)) {
                    return Ok(Fate::Served((at - began).as_secs_f64()));
                }
                if !line.trim().is_empty() {
                    said = line;
                }
            }
            Err(RecvTimeoutError::Timeout) => return Ok(Fate::Waiting),
            Err(RecvTimeoutError::Disconnected) => {
                let after = began.elapsed().as_secs_f64();
                let served = inmate.succeeds()? && client.served_line.is_none();
                return Ok(if served { Fate::Served(after) } else { Fate::GaveUp(after, said) });
            }
        }
    }
}

/// The lines that come out of a pipe, each with its time.
pub(super) fn lines(reader: PipeReader) -> Receiver<(Instant, String)> {
    let (sender, receiver) = channel();
    // It ends with the pipe, which ends with the client.
    thread::spawn(move || {
        let mut reader = BufReader::new(reader);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            if sender.send((Instant::now(), text)).is_err() {
                return;
            }
            line.clear();
        }
    });
    receiver
}

/// The next of them, if it comes in time.
pub(super) fn next(
    lines: &Receiver<(Instant, String)>,
    until: Instant,
) -> Result<(Instant, String), RecvTimeoutError> {
    lines.recv_timeout(until.saturating_duration_since(Instant::now()))
}
