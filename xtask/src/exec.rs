//! Runs other programs; a failure names the command and how it ended.

use std::env;
use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail};

use crate::workspace;

/// Cargo, as it was called, in the root of the checkout.
pub(crate) fn cargo() -> Result<Command> {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(workspace::root()?);
    Ok(cargo)
}

/// Runs `command` on this terminal.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| cannot_start(command))?;
    check(command, status)
}

/// What `command` prints on standard output.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output =
        command.stderr(Stdio::inherit()).output().with_context(|| cannot_start(command))?;
    check(command, output.status)?;
    let text = String::from_utf8(output.stdout)
        .with_context(|| format!("`{}` did not print text", shown(command)))?;
    Ok(text.trim_end().to_owned())
}

/// What `command` prints on standard output, or `None` where it cannot be had; it says nothing else.
pub(crate) fn quiet_output(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let text = output.status.success().then_some(output.stdout)?;
    Some(String::from_utf8(text).ok()?.trim_end().to_owned())
}

/// Runs `command` and shows what it prints only when it fails.
pub(crate) fn run_quietly(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| cannot_start(command))?;
    if !output.status.success() {
        let mut shown = io::stderr();
        for stream in [&output.stdout, &output.stderr] {
            shown.write_all(stream).context("cannot write to standard error")?;
        }
    }
    check(command, output.status)
}

/// Whether `command` can be started and succeeds; it prints nothing.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Runs `command`, copies what it prints to `shown` as it comes, and gives each line to `read`.
pub(crate) fn observe(
    command: &mut Command,
    shown: &mut impl Write,
    mut read: impl FnMut(&str),
) -> Result<ExitStatus> {
    // One pipe for both streams keeps their lines in order.
    let (reader, writer) = io::pipe().context("cannot make a pipe")?;
    let error_writer = writer.try_clone().context("cannot make a pipe")?;
    let mut child = command
        .stdout(writer)
        .stderr(error_writer)
        .spawn()
        .with_context(|| cannot_start(command))?;
    // The command holds the writing ends until it is given others.
    command.stdout(Stdio::null()).stderr(Stdio::null());

    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).context("cannot read from a command")? > 0 {
        shown.write_all(&line).context("cannot show what a command prints")?;
        read(String::from_utf8_lossy(&line).trim_end_matches('\n'));
        line.clear();
    }
    child.wait().with_context(|| format!("cannot wait for `{}`", self::shown(command)))
}

/// Where `program` is, also where only root's PATH leads.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let found = env::split_paths(&path).chain(system).map(|directory| directory.join(program));
    found.into_iter().find(|candidate| candidate.is_file())
}

/// The command as one would type it.
pub(crate) fn shown(command: &Command) -> String {
    let variables = command
        .get_envs()
        .filter_map(|(name, value)| Some(format!("{}={}", name.to_string_lossy(), quoted(value?))));
    let program = Path::new(command.get_program()).file_name().unwrap_or_default();
    let arguments = command.get_args();
    let words = std::iter::once(program).chain(arguments).map(quoted);
    variables.chain(words).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=+:,./@%".contains(c);
    if word.contains('\x1f') {
        // What separates flags in cargo's own variables.
        format!("$'{}'", word.replace('\x1f', "\\x1f"))
    } else if !word.is_empty() && word.chars().all(plain) {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

fn check(command: &Command, status: ExitStatus) -> Result<()> {
    if !status.success() {
        bail!("`{}` failed: {status}", shown(command));
    }
    Ok(())
}

fn cannot_start(command: &Command) -> String {
    format!("cannot start `{}`", shown(command))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_as_one_would_type_it() {
        let mut command = Command::new("/usr/bin/env");
        command.env("A", "b c").args(["plain", "it's", ""]);
        assert_eq!(shown(&command), r"A='b c' env plain 'it'\''s' ''");
    }

    #[test]
    fn a_failed_command_names_itself_and_its_exit_status() {
        let error = run(Command::new("sh").args(["-c", "exit 3"])).unwrap_err();
        assert_eq!(error.to_string(), "`sh -c 'exit 3'` failed: exit status: 3");
    }

    #[test]
    fn observing_sees_and_shows_both_streams_in_order() {
        let (mut lines, mut shown) = (Vec::new(), Vec::new());
        let mut command = Command::new("sh");
        command.args(["-c", "echo one; echo two >&2; echo three"]);
        observe(&mut command, &mut shown, |line| lines.push(line.to_owned())).unwrap();
        assert_eq!(lines, ["one", "two", "three"]);
        assert_eq!(shown, b"one\ntwo\nthree\n");
    }
}
