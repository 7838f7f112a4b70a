//! Where the answer goes: a reader that leaves, a disk that is full.

use std::process::Stdio;

use anyhow::{Result, ensure};
use ctguard_tests::{
    product::{self, Site, WAN},
    require,
};

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

/// ESC, a bell, CSI of C1, a carriage return.
const HOSTILE: &str = "\u{1b}[2J\u{7}\u{9b}2J\r";

/// Fails when an argument or the environment puts control characters on an operator's terminal.
#[test]
fn arguments_are_quoted_without_control_characters() -> Result<()> {
    if !require::root("arguments_are_quoted_without_control_characters") {
        return Ok(());
    }
    let site = Site::build()?;
    let all: [&[&str]; 12] = [
        &[HOSTILE],
        &["status", HOSTILE],
        &["events", "--last", HOSTILE],
        &["run", "-i", HOSTILE],
        &["run", "-i", WAN, "--mode", HOSTILE],
        &["run", "-i", WAN, "--set", HOSTILE],
        &["get", HOSTILE],
        &["allow", "add", HOSTILE],
        &["doctor", "--root", HOSTILE],
        &["doctor", "--interface", HOSTILE],
        &["simulate", HOSTILE],
        &["status", "--pin-path", HOSTILE],
    ];
    for arguments in all {
        ensure_visible(&site, arguments)?;
    }
    Ok(())
}

/// Fails when whoever may name an interface can put control characters on root's terminal.
#[test]
fn interface_names_are_shown_without_control_characters() -> Result<()> {
    if !require::root("interface_names_are_shown_without_control_characters") {
        return Ok(());
    }
    let site = Site::build()?;
    let name = "w\u{1b}[2J\u{7}\u{9b}2J";
    site.connect("out1", name)?;
    let daemon = site.start(&["run", "-i", name])?;
    ensure!(is_visible(&daemon.log()?), "{:?}", daemon.log()?);
    // `ip -j` does not escape it.
    ensure!(site.status()?.pointer("/interfaces/0/name") == Some(&name.into()));
    for verb in VERBS {
        ensure_visible(&site, verb)?;
    }
    ensure_visible(&site, &["doctor", "--interface", name])?;
    ensure_visible(&site, &["run", "-i", "nosuch0"])?;
    ensure_visible(&site, &["set", &format!("interface.{name}.source.tcp.rate=5")])?;
    ensure!(daemon.stop()?.success());
    Ok(())
}

fn ensure_visible(site: &Site, arguments: &[&str]) -> Result<()> {
    let mut command = site.command(arguments);
    // As on a terminal, where colours are not taken out.
    command.env("CLICOLOR_FORCE", "1").env("RUST_LOG", format!("a=b{HOSTILE}=c"));
    let answer = product::answer(&mut command)?;
    ensure!(is_visible(&answer.out) && is_visible(&answer.errors), "{arguments:?}: {answer:?}");
    Ok(())
}

fn is_visible(text: &str) -> bool {
    text.chars().all(|letter| letter == '\n' || !letter.is_control())
}
