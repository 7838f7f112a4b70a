//! `init`, `enforce` and `why`: from nothing to a guard that refuses, knowing whom.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use ctguard_tests::{
    product::{Answer, Site, WAN, answer},
    require,
    sources::try_one_source,
};
use serde_json::Value;

/// Runs a command as somebody who is logged in from `client`.
fn from(site: &Site, client: &str, arguments: &[&str]) -> Result<Answer> {
    let mut command = site.command(arguments);
    command.env("SSH_CONNECTION", format!("{client} 50000 198.51.100.1 22"));
    answer(&mut command)
}

/// Fails when a new user needs more than three commands, or the proposal does not fit the machine.
#[test]
fn a_machine_is_guarded_in_dry_run_by_its_own_proposal_and_then_enforced() -> Result<()> {
    if !require::root("a_machine_is_guarded_in_dry_run_by_its_own_proposal_and_then_enforced") {
        return Ok(());
    }
    let site = Site::build()?;
    fs::create_dir_all(site.state())?;
    let path = site.state().join("ctguard.toml");
    let file = path.to_str().context("a path")?;
    let write = ["init", "--write", "--config", file];
    let without = site.ctguard(&["init"])?;
    ensure!(without.code == Some(1) && without.errors.contains("no interface"), "{without:?}");
    site.guarded().ip(&[
        format!("addr add 192.0.2.254/24 dev {WAN}"),
        "route add default via 192.0.2.1".to_owned(),
    ])?;
    let proposed = from(&site, "192.0.2.7", &write)?;
    ensure!(proposed.code == Some(0) && proposed.errors.contains("next: "), "{proposed:?}");
    let text = fs::read_to_string(&path)?;
    ensure!(
        text.contains(&format!("interfaces = [\"{WAN}\"]")) && text.contains("(veth"),
        "{text}"
    );
    ensure!(text.contains("allow = [\"192.0.2.7\"]"), "{text}");
    site.succeed(&["config", "check", file])?;
    ensure!(from(&site, "192.0.2.7", &write)?.code == Some(0), "the same again");
    fs::write(&path, text.replace('\n', "\r\n"))?;
    site.succeed(&["config", "check", file])?;
    let refused = from(&site, "192.0.2.7", &write)?;
    ensure!(refused.refusal(1)?.contains("--write --force"), "{refused:?}");
    ensure!(from(&site, "192.0.2.7", &[&write[..], &["--force"]].concat())?.code == Some(0));
    ensure!(fs::read_to_string(&path)? == text);

    let daemon = site.start(&["run", "--config", file])?;
    ensure!(site.status()?["dry_run"] == true);
    ensure!(daemon.log()?.contains("DRY RUN: nothing is dropped"), "{}", daemon.log()?);
    site.succeed(&["set", "source.udp.rate=1", "source.udp.burst=1"])?;
    let wire = site.wire()?;
    ensure!(try_one_source(&site, &wire, 9, 50)?.source > 0);
    ensure!(site.ctguard(&["enforce"])?.refusal(2)?.contains("--yes"));
    let enforce = ["enforce", "--yes", "--config", file];
    site.succeed(&["deny", "add", "203.0.113.0/24"])?;
    let cut_off = from(&site, "203.0.113.9", &enforce)?;
    ensure!(cut_off.refusal(1)?.contains("ctguard deny del 203.0.113.0/24"), "{cut_off:?}");
    site.succeed(&["deny", "add", "2001:db8:9::/48"])?;
    let cut_off = from(&site, "2001:db8:9::1", &enforce)?;
    ensure!(cut_off.refusal(1)?.contains("logged in from 2001:db8:9::1"), "{cut_off:?}");
    ensure!(site.status()?["dry_run"] == true);
    // The daemon's own file is found without its name.
    let done = from(&site, "192.0.2.7", &enforce[..2])?;
    ensure!(done.code == Some(0) && done.out.contains("limits are in force"), "{done:?}");
    ensure!(done.out.contains("udp: ") && done.out.contains("dry-run on → off"), "{done:?}");
    ensure!(site.status()?["dry_run"] == false);
    site.succeed(&["reload"])?;
    ensure!(site.status()?["dry_run"] == false, "a reload enforces too");
    let again = from(&site, "192.0.2.7", &enforce)?;
    ensure!(again.code == Some(0) && again.out.contains("there is no dry run"), "{again:?}");
    ensure!(daemon.stop()?.success());
    site.ensure_gone()
}

/// Fails when an operator under attack denies a network that has his own address, and is locked out.
#[test]
fn nobody_denies_the_address_that_he_is_logged_in_from_by_mistake() -> Result<()> {
    if !require::root("nobody_denies_the_address_that_he_is_logged_in_from_by_mistake") {
        return Ok(());
    }
    let site = Site::build()?;
    let _daemon = site.start(&["run", "-i", WAN])?;
    let add = ["deny", "add", "203.0.113.0/24"];
    for client in ["203.0.113.9", "::ffff:203.0.113.9"] {
        let refused = from(&site, client, &add)?;
        ensure!(refused.refusal(1)?.contains("logged in from 203.0.113.9"), "{refused:?}");
        ensure!(refused.errors.contains("ctguard deny add 203.0.113.0/24 --force"), "{refused:?}");
    }
    ensure!(site.succeed(&["deny", "list"])?.is_empty());
    ensure!(from(&site, "203.0.113.9", &["allow", "add", "203.0.113.0/24"])?.code == Some(0));
    ensure!(from(&site, "198.51.100.9", &add)?.code == Some(0));
    site.succeed(&["deny", "del", "203.0.113.0/24"])?;
    ensure!(from(&site, "203.0.113.9", &[&add[..], &["--force"]].concat())?.code == Some(0));
    ensure!(site.succeed(&["deny", "list"])?.contains("203.0.113.0/24"));
    Ok(())
}

/// Fails when an edited file locks out whoever reloads it.
#[test]
fn nobody_reloads_a_deny_list_with_his_own_address_by_mistake() -> Result<()> {
    if !require::root("nobody_reloads_a_deny_list_with_his_own_address_by_mistake") {
        return Ok(());
    }
    let site = Site::build()?;
    fs::create_dir_all(site.state())?;
    let path = site.state().join("ctguard.toml");
    let write =
        |deny: &str| fs::write(&path, format!("interfaces = [\"{WAN}\"]\ndeny = [{deny}]\n"));
    write("")?;
    let _daemon = site.start(&["run", "--config", path.to_str().context("a path")?])?;
    write("\"203.0.113.0/24\"")?;
    let refused = from(&site, "203.0.113.9", &["reload"])?;
    ensure!(refused.refusal(1)?.contains("logged in from 203.0.113.9"), "{refused:?}");
    ensure!(refused.errors.contains("ctguard.toml:2:"), "it names the place: {refused:?}");
    ensure!(site.succeed(&["deny", "list"])?.is_empty());
    ensure!(from(&site, "203.0.113.9", &["reload", "--force"])?.code == Some(0));
    ensure!(site.succeed(&["deny", "list"])?.contains("203.0.113.0/24"));
    ensure!(from(&site, "203.0.113.9", &["reload"])?.code == Some(0), "it adds nothing");
    write("\"203.0.113.0/24\", \"2001:db8::/32\"")?;
    ensure!(from(&site, "2001:db8::9", &["reload"])?.code == Some(1));
    ensure!(from(&site, "198.51.100.9", &["reload"])?.code == Some(0));
    Ok(())
}

/// Fails when `why` says something else of a source's next packet than the data path does.
#[test]
fn why_foretells_what_the_data_path_does() -> Result<()> {
    if !require::root("why_foretells_what_the_data_path_does") {
        return Ok(());
    }
    crate::with_and_without_daemon(|site| {
        let wire = site.wire()?;
        site.succeed(&["set", "source.udp.rate=1", "source.udp.burst=7"])?;
        let why = |source: &str| -> Result<Value> {
            Ok(serde_json::from_str(&site.succeed(&["why", source, "--json"])?)?)
        };
        let datagram = |why: &Value| why["next"][1].clone();
        let before = datagram(&why("192.0.2.3")?);
        ensure!(before["outcome"] == "admitted" && before["admitted_at_once"] == 7, "{before}");
        ensure!(datagram(&why("192.0.2.3")?) == before, "the question changes nothing");
        let tried = try_one_source(site, &wire, 3, 20)?;
        ensure!(tried.admitted >= 7 && tried.source > 0, "{tried:?}");
        let after = datagram(&why("192.0.2.3")?);
        ensure!(after["outcome"] == "source" && after["passes"] == false, "{after}");
        ensure!(datagram(&why("192.0.2.4")?) == before, "another source");

        site.succeed(&["deny", "add", "2001:db8:7::/48"])?;
        let denied = why("2001:db8:7:1::9")?;
        ensure!(denied["source"] == "2001:db8:7:1::/64", "{denied}");
        ensure!(denied["deny"]["prefix"] == "2001:db8:7::/48", "{denied}");
        ensure!(denied["next"][0]["outcome"] == "deny", "{denied}");
        site.succeed(&["allow", "add", "192.0.2.3"])?;
        let allowed = datagram(&why("192.0.2.3")?);
        ensure!(allowed["outcome"] == "admitted" && allowed["tier"] == "allowed", "{allowed}");
        let people = site.succeed(&["why", "192.0.2.3"])?;
        ensure!(people.lines().count() <= 24, "{people}");
        ensure!(people.lines().all(|line| line.chars().count() <= 80), "{people}");
        println!("{people}");
        let refused = site.ctguard(&["why", "192.0.2.0/24"])?;
        ensure!(refused.refusal(2)?.contains("many sources"), "{refused:?}");
        site.succeed(&["allow", "del", "192.0.2.3"])?;
        site.succeed(&["deny", "del", "2001:db8:7::/48"]).map(drop)
    })
}
