//! What is wrong with a command is one line, exit status 2, and changes nothing.

use anyhow::{Context as _, Result, ensure};
use ctguard_tests::{
    product::{Site, WAN},
    require,
};

use crate::with_and_without_daemon;

/// Bad commands, each with what its line must name.
const BAD: [(&[&str], &str); 32] = [
    (&["set", "source.tpc.rate=5"], "source.tcp.rate"),
    (&["set", "nosuch=5"], "nosuch"),
    (&["set", "target"], "KEY=VALUE"),
    (&["set", "=5"], "unknown key"),
    (&["set", "source.tcp.rate=0"], "source.tcp.rate"),
    (&["set", "source.tcp.rate=1e12"], "1e12"),
    (&["set", "source.tcp.rate=1000000000000"], "1000000000000"),
    (&["set", "source.tcp.rate=-1"], "-1"),
    (&["set", "source.udp.burst=0"], "source.udp.burst"),
    (&["set", "source.other.burst=many"], "many"),
    (&["set", "target=1.5"], "1.5"),
    (&["set", "target=0"], "target"),
    (&["set", "target=101%"], "101%"),
    (&["set", "target=NaN"], "NaN"),
    (&["set", "dry-run=perhaps"], "perhaps"),
    (&["set", "fallback.rate=0"], "fallback.rate"),
    (&["set", "interface.nosuch0.source.tcp.rate=5"], "nosuch0"),
    (&["set", "interface.wan0.zone=65536"], "65535"),
    (&["set", "interface.wan0.zone=-1"], "interface.wan0.zone"),
    (&["set", "interface.nosuch0.zone=5"], "nosuch0"),
    (&["get", "targt"], "target"),
    (&["get", "interface.nosuch0.source.tcp.rate"], "nosuch0"),
    (&["allow", "add", "300.1.1.1/8"], "300.1.1.1/8"),
    (&["deny", "add", "300.1.1.1/8"], "300.1.1.1/8"),
    (&["deny", "add", "192.0.2.0/33"], "192.0.2.0/33"),
    (&["deny", "add", "2001:db8::/129"], "2001:db8::/129"),
    (&["deny", "add", "0.0.0.0/0"], "everybody"),
    (&["allow", "add", "::/0"], "everybody"),
    (&["deny", "del", "example.org"], "example.org"),
    (&["deny", "list", "nonsense"], "nonsense"),
    (&["allow", "add", "192.0.2.1", "--for", "soon"], "soon"),
    (&["deny", "add", "192.0.2.1", "--for", "5"], "--for 5"),
];

/// Fails when bad input is taken, changes anything, or is answered by more or less than a line that
/// names it.
#[test]
fn bad_input_is_one_line_and_changes_nothing() -> Result<()> {
    if !require::root("bad_input_is_one_line_and_changes_nothing") {
        return Ok(());
    }
    with_and_without_daemon(|site| {
        site.succeed(&["deny", "add", "203.0.113.0/24"])?;
        let before = everything(site)?;
        let mut failures = Vec::new();
        for (arguments, part) in BAD {
            if let Err(error) = check(site, arguments, part, &before) {
                failures.push(format!("{}: {error:#}", arguments.join(" ")));
            }
        }
        ensure!(failures.is_empty(), "{}", failures.join("\n"));
        Ok(())
    })
}

/// Fails when an entry may be made that ends
/// before it begins.
#[test]
fn an_entry_that_lasts_no_time_is_refused() -> Result<()> {
    if !require::root("an_entry_that_lasts_no_time_is_refused") {
        return Ok(());
    }
    let site = Site::build()?;
    let _daemon = site.guard()?;
    let answer = site.ctguard(&["deny", "add", "192.0.2.1", "--for", "0s"])?;
    ensure!(answer.refusal(2)?.contains("--for 0s"), "{answer:?}");
    Ok(())
}

/// Fails when a start with a bad setting attaches anything.
#[test]
fn a_start_with_a_bad_setting_starts_nothing() -> Result<()> {
    if !require::root("a_start_with_a_bad_setting_starts_nothing") {
        return Ok(());
    }
    let site = Site::build()?;
    for setting in
        ["source.tcp.rate=0", "target=1.5", "nosuch=1", "interface.nosuch0.source.tcp.rate=5"]
    {
        let answer = site.ctguard(&["run", "-i", WAN, "--set", setting])?;
        answer.refusal(2).with_context(|| setting.to_owned())?;
        ensure!(site.xdp(WAN)?.is_none() && !site.pins().exists(), "{setting} started something");
    }
    Ok(())
}

/// Fails when a command for a guard that is not there says anything else.
#[test]
fn without_a_guard_every_verb_says_so() -> Result<()> {
    if !require::root("without_a_guard_every_verb_says_so") {
        return Ok(());
    }
    let site = Site::build()?;
    let verbs: [&[&str]; 10] = [
        &["status"],
        &["status", "--json"],
        &["get"],
        &["get", "target"],
        &["set", "target=50%"],
        &["allow", "add", "192.0.2.1"],
        &["deny", "del", "192.0.2.1"],
        &["deny", "list"],
        &["learn"],
        &["detach"],
    ];
    for verb in verbs {
        let answer = site.ctguard(verb)?;
        let line = answer.refusal(3).with_context(|| verb.join(" "))?;
        ensure!(line.contains("ctguard run"), "it tells how to start one: {line}");
    }
    site.ensure_gone()
}

fn check(site: &Site, arguments: &[&str], part: &str, before: &str) -> Result<()> {
    let answer = site.ctguard(arguments)?;
    let line = answer.refusal(2)?;
    ensure!(line.contains(part), "it names {part}: {line}");
    ensure!(everything(site)? == before, "something changed");
    Ok(())
}

/// Settings and lists.
fn everything(site: &Site) -> Result<String> {
    let settings = site.succeed(&["get", "--json"])?;
    let lists = site.succeed(&["allow", "list"])? + &site.succeed(&["deny", "list"])?;
    Ok(settings + &lists)
}
