//! Killed at each system call that changes something.

use std::{
    os::unix::process::ExitStatusExt as _,
    process::{Command, Output},
};

use anyhow::{Context as _, Result, ensure};
use ctguard_tests::{product, require};

use super::machine::Machine;

/// What changes something on a machine.
const CHANGES: [&str; 7] = ["openat", "write", "fsync", "rename", "mkdir", "unlink", "rmdir"];
const APPLY: &[&str] = &["--for", "nat-router", "--apply", "--persist"];
const REVERT: &[&str] = &["--revert"];

/// One of the changes that a run makes: strace counts the calls of each name apart.
#[derive(Clone, Copy, Debug)]
struct Change {
    call: &'static str,
    number: u32,
}

impl Change {
    /// Kills each run of `tune`, at one change after the other, and says how often it did.
    fn each(mut run: impl FnMut(Self) -> Result<bool>) -> Result<u32> {
        let mut kills = 0;
        for call in CHANGES {
            let mut number = 1;
            while run(Self { call, number })? {
                number += 1;
            }
            kills += number - 1;
        }
        Ok(kills)
    }
}

/// Killed at this change; whether it was.
fn tune_killed(machine: &Machine, arguments: &[&str], change: Change) -> Result<bool> {
    let Change { call, number } = change;
    let mut command = Command::new("strace");
    command.args(["-o", "/dev/null", "-e", &format!("trace={call}")]);
    command.args(["-e", &format!("inject={call}:signal=SIGKILL:when={number}")]);
    command.arg(product::binary()?).args(["tune", "--root"]).arg(&machine.0).args(arguments);
    let before = machine.files()?;
    let output = command.output().context("cannot run strace")?;
    // A sysctl that was opened and not written has its value; a file would be empty.
    for (path, content) in machine.files()? {
        if path.starts_with("proc") && content.is_some_and(|it| it.is_empty()) {
            let value = before.get(&path).cloned().flatten().unwrap_or_default();
            machine.write(&path.to_string_lossy(), &String::from_utf8(value)?)?;
        }
    }
    // strace ends itself by the signal that ended the traced process.
    let is_killed = output.status.signal() == Some(libc::SIGKILL);
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(is_killed || output.status.success(), "{change:?}: {said}");
    Ok(is_killed)
}

fn succeed(output: &Output) -> Result<()> {
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{said}");
    Ok(())
}

/// Fails when there is a moment in which a kill leaves a value or a file that cannot be taken back.
#[test]
fn whatever_was_done_when_it_was_killed_is_taken_back_byte_for_byte() -> Result<()> {
    if !require::program("whatever_was_done_when_it_was_killed", "strace") {
        return Ok(());
    }
    let machine = Machine::new("apply")?;
    let before = machine.files()?;
    let kills = Change::each(|change| {
        let killed = tune_killed(&machine, APPLY, change)?;
        ensure!(killed || machine.files()? != before, "a run that was not killed applies");
        // Without a record nothing was changed.
        machine.tune(REVERT)?;
        ensure!(machine.files()? == before, "killed at {change:?}");
        Ok(killed)
    })?;
    println!("killed at each of {kills} changes of apply");
    ensure!(kills > 60, "only {kills} changes");
    succeed(&machine.tune(APPLY)?)?;
    succeed(&machine.tune(REVERT)?)?;
    ensure!(machine.files()? == before, "what was applied whole is taken back");
    Ok(())
}

/// Fails when what the first of two applications set is taken for somebody else's.
#[test]
fn a_second_application_that_was_killed_is_taken_back_with_the_first() -> Result<()> {
    const SECOND: &[&str] = &["--max", "40000", "--apply", "--persist"];
    if !require::program("a_second_application_that_was_killed", "strace") {
        return Ok(());
    }
    let machine = Machine::new("second")?;
    let before = machine.files()?;
    let kills = Change::each(|change| {
        succeed(&machine.tune(&["--max", "20000", "--apply", "--persist"])?)?;
        let killed = tune_killed(&machine, SECOND, change)?;
        succeed(&machine.tune(REVERT)?)?;
        ensure!(machine.files()? == before, "killed at {change:?}");
        Ok(killed)
    })?;
    println!("killed at each of {kills} changes of a second apply");
    ensure!(kills > 40, "only {kills} changes");
    Ok(())
}

/// Fails when taking back, killed half way, cannot be taken up again.
#[test]
fn a_revert_that_was_killed_goes_on_where_it_ended() -> Result<()> {
    if !require::program("a_revert_that_was_killed_goes_on_where_it_ended", "strace") {
        return Ok(());
    }
    let machine = Machine::new("revert")?;
    let before = machine.files()?;
    let kills = Change::each(|change| {
        succeed(&machine.tune(APPLY)?)?;
        let killed = tune_killed(&machine, REVERT, change)?;
        // One that had done all but say so finds nothing left.
        machine.tune(REVERT)?;
        ensure!(machine.files()? == before, "killed at {change:?}");
        Ok(killed)
    })?;
    println!("killed at each of {kills} changes of revert");
    ensure!(kills > 40, "only {kills} changes");
    Ok(())
}

/// Fails when what was applied twice is taken back only once.
#[test]
fn two_applications_are_taken_back_at_once() -> Result<()> {
    if !require::release_binary("two_applications_are_taken_back_at_once") {
        return Ok(());
    }
    let machine = Machine::new("twice")?;
    let before = machine.files()?;
    succeed(&machine.tune(&["--max", "20000", "--apply"])?)?;
    succeed(&machine.tune(&["--max", "40000", "--apply", "--persist"])?)?;
    succeed(&machine.tune(REVERT)?)?;
    ensure!(machine.files()? == before, "as before both");
    let again = machine.tune(REVERT)?;
    ensure!(again.status.code() == Some(1), "there is nothing left to take back");
    Ok(())
}
