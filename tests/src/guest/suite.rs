//! The verdict tests, as `cargo xtask test` runs them, on this kernel.

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};

use super::report::Report;

/// Where the host put the test binary.
const VERDICTS: &str = "/bin/verdicts";
/// These take half of the time, and tell of CPUs and not of kernels.
const RACES: &str = "race::";

pub(super) fn verdicts(report: &mut Report) -> Result<()> {
    let failed = || format!("cannot run {VERDICTS}");
    let began = Instant::now();
    let mut child = Command::new(VERDICTS)
        .args(["--test-threads=1", "--show-output", "--skip", RACES])
        .stdout(Stdio::piped())
        .spawn()
        .with_context(failed)?;
    let mut lines = Vec::new();
    for line in BufReader::new(child.stdout.take().with_context(failed)?).lines() {
        let line = line.with_context(failed)?;
        // For whoever reads the console, of a machine that hangs too.
        println!("{:4} s  {line}", began.elapsed().as_secs());
        lines.push(line);
    }
    let status = child.wait().with_context(failed)?;

    let bad: Vec<_> = lines.iter().filter(|line| line.ends_with(" ... FAILED")).collect();
    ensure!(status.success(), "{status}; {bad:?}");
    ensure!(!lines.iter().any(|line| line.contains("skipped: ")), "a test skipped itself");
    let result = lines.iter().find_map(|line| line.strip_prefix("test result: ok. "));
    let passed = result.and_then(|rest| rest.split_once(" passed")).context("no test result")?.0;
    report.fact("verdict_tests", passed)
}
