//! Where the answer goes: a reader that leaves, a disk that is full.

use std::process::Stdio;

use anyhow::{Result, ensure};
use ctguard_tests::{product, require};

use crate::with_and_without_daemon;

const VERBS: [&[&str]; 12] = [
    &["status"],
    &["status", "--json"],
    &["events"],
    &["events", "--json"],
    &["get"],
    &["get", "--json"],
    &["deny", "list"],
    &["deny", "list", "--json"],
    &["doctor"],
    &["doctor", "--json"],
    &["tune"],
    &["tune", "--json"],
];

/// Fails when a reader that has seen enough is an error, or a panic.
#[test]
fn a_broken_pipe_ends_quietly() -> Result<()> {
    if !require::root("a_broken_pipe_ends_quietly") {
        return Ok(());
    }
    with_and_without_daemon(|site| {
        site.succeed(&["deny", "add", "192.0.2.0/24"])?;
        for verb in VERBS.into_iter().chain([&["--help"][..], &["set", "target=84%"]]) {
            let (reader, writer) = std::io::pipe()?;
            drop(reader);
            let mut command = site.command(verb);
            command.stdout(Stdio::from(writer)).stderr(Stdio::piped());
            let output = command.spawn()?.wait_with_output()?;
            let said = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.code() == Some(0) && said.is_empty(), "{verb:?}: {said}");
        }
        site.succeed(&["deny", "del", "192.0.2.0/24"])?;
        Ok(())
    })
}

/// Fails when an answer that could not be written counts as a success.
#[test]
fn an_answer_that_cannot_be_written_is_an_error() -> Result<()> {
    if !require::root("an_answer_that_cannot_be_written_is_an_error") {
        return Ok(());
    }
    with_and_without_daemon(|site| {
        site.succeed(&["deny", "add", "192.0.2.0/24"])?;
        for verb in VERBS {
            let full = std::fs::OpenOptions::new().write(true).open("/dev/full")?;
            let mut command = site.command(verb);
            command.stdout(full).stderr(Stdio::piped());
            let output = command.spawn()?.wait_with_output()?;
            let answer = product::Answer {
                code: output.status.code(),
                out: String::new(),
                errors: String::from_utf8_lossy(&output.stderr).into_owned(),
            };
            answer.refusal(1)?;
        }
        site.succeed(&["deny", "del", "192.0.2.0/24"])?;
        Ok(())
    })
}
